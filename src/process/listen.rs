//! Listening sockets: bound before anything else changes, so that a wrong address changes nothing, and
//! listening only when the first health checks are answered.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use mio::net::TcpListener;
use socket2::Socket;

use super::StartError;
use super::serving::{DoorSeat, Serving};
use super::transition::Doors;
use crate::address::Address;
use crate::bind;
use crate::ids::ListenerId;
use crate::worker::{Door, DoorId};

/// Connections that may wait to be accepted at one socket; the kernel caps it at
/// `net.core.somaxconn`, which is 4,096 by default.
const BACKLOG: i32 = 4096;

/// One address of a listener, bound once for each worker.
#[derive(Debug)]
pub(super) struct Bound {
    door: DoorId,
    listener: ListenerId,
    name: Arc<str>,
    /// As the kernel has it: port 0 has become a real one.
    pub(super) address: Address,
    sockets: Vec<Socket>,
}

impl Bound {
    /// Which door it is.
    pub(super) fn door(&self) -> DoorId {
        self.door
    }

    /// Starts to listen at all sockets, one door for each worker.
    pub(super) fn listen(self) -> io::Result<Vec<Door>> {
        let door = |socket: Socket| {
            socket.listen(BACKLOG)?;
            let socket = TcpListener::from_std(socket.into());
            Ok(Door::new(self.door, self.listener, socket))
        };
        let doors = self
            .sockets
            .into_iter()
            .map(door)
            .collect::<io::Result<_>>()?;
        log::info!("listening on {} (listener {})", self.address, self.name);
        Ok(doors)
    }
}

/// Binds the new doors of `next`, each once for every worker.
pub(super) fn bind(
    doors: &Doors,
    before: &Serving,
    next: &Serving,
    workers: usize,
) -> Result<Vec<Bound>, StartError> {
    // Our own sockets of the same port are no strangers: 0.0.0.0:80 may become 127.0.0.1:80.
    let ours: HashSet<Option<u16>> = before
        .doors()
        .iter()
        .map(|(_, d)| d.actual.ip().map(|ip| ip.port()))
        .collect();
    let bind = |(listener, door): &(ListenerId, DoorSeat)| {
        let seat = next.listeners.iter().find(|seat| seat.id == *listener);
        let name = seat.map_or_else(|| Arc::from(""), |seat| Arc::clone(&seat.name));
        let is_ours = ours.contains(&door.written.ip().map(|ip| ip.port()));
        match bind_one(&door.written, is_ours, workers) {
            Ok((address, sockets)) => Ok(Bound {
                door: door.id,
                listener: *listener,
                name,
                address,
                sockets,
            }),
            Err(source) => Err(StartError::Bind {
                listener: name.to_string(),
                address: door.written.clone(),
                hint: bind::hint(&source, &door.written),
                source,
            }),
        }
    };
    doors.new.iter().map(bind).collect()
}

fn bind_one(
    address: &Address,
    is_ours: bool,
    workers: usize,
) -> io::Result<(Address, Vec<Socket>)> {
    let address = address.ip().ok_or(ErrorKind::Unsupported)?;
    // With SO_REUSEPORT the kernel would let a second evenkeel of the same user share the address
    // unasked, and each would get half of the connections: a bind without it finds that out, unless
    // both are started in the same second and neither listens yet.
    if !is_ours {
        drop(bind::tcp(address, false)?);
    }
    let first = bind::tcp(address, true)?;
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(bind::tcp(address, true)?);
    }
    Ok((address.into(), sockets))
}
