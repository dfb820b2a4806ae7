//! Listening sockets: bound before anything else changes, so that a wrong address changes nothing, and
//! listening only when the first health checks are answered.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};

use super::StartError;
use super::serving::{DoorSeat, Serving};
use super::transition::Doors;
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
    pub(super) address: SocketAddr,
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
    let ours: HashSet<u16> = before
        .doors()
        .iter()
        .map(|(_, d)| d.actual.port())
        .collect();
    let bind = |(listener, door): &(ListenerId, DoorSeat)| {
        let seat = next.listeners.iter().find(|seat| seat.id == *listener);
        let name = seat.map_or_else(|| Arc::from(""), |seat| Arc::clone(&seat.name));
        let is_ours = ours.contains(&door.written.port());
        match bind_one(door.written, is_ours, workers) {
            Ok((address, sockets)) => Ok(Bound {
                door: door.id,
                listener: *listener,
                name,
                address,
                sockets,
            }),
            Err(source) => Err(StartError::Bind {
                listener: name.to_string(),
                address: door.written,
                hint: hint(&source, door.written),
                source,
            }),
        }
    };
    doors.new.iter().map(bind).collect()
}

fn bind_one(
    address: SocketAddr,
    is_ours: bool,
    workers: usize,
) -> io::Result<(SocketAddr, Vec<Socket>)> {
    // With SO_REUSEPORT the kernel would let a second evenkeel of the same user share the address
    // unasked, and each would get half of the connections: a bind without it finds that out, unless
    // both are started in the same second and neither listens yet.
    if !is_ours {
        drop(socket(address, false)?);
    }
    let first = socket(address, true)?;
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(socket(address, true)?);
    }
    Ok((address, sockets))
}

fn socket(address: SocketAddr, is_shared: bool) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    // Connections of an earlier process in TIME_WAIT must not keep this one from starting.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Accepted sockets inherit it: one system call fewer for each connection.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// What to do about a bind that failed.
fn hint(error: &io::Error, address: SocketAddr) -> String {
    let port = address.port();
    match error.kind() {
        ErrorKind::AddrInUse => {
            format!("another program has it; `ss -ltnp 'sport = :{port}'` shows which")
        }
        ErrorKind::PermissionDenied => {
            format!("port {port} needs CAP_NET_BIND_SERVICE; take a port from 1024 on without it")
        }
        ErrorKind::AddrNotAvailable => {
            "no interface of this machine has the address; `ip address` shows them".into()
        }
        _ => "the address may be wrong for this machine".into(),
    }
}
