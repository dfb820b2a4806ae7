//! The sockets of one address: bound here, or passed to the process; in either case one descriptor for
//! each worker.
//!
//! It knows how a single address is had, not whose it is or when it is listened at (`listen`).

use std::io;
use std::net::SocketAddr;

use socket2::Socket;

use crate::address::{Address, UnixName};
use crate::bind;
use crate::bind::unix::{Obstacle, SocketFile};
use crate::ids::ListenerId;
use crate::systemd::PassedSocket;
use crate::worker::{Door, DoorId};

/// The workers' sockets at one address.
#[derive(Debug)]
pub(super) enum Sockets {
    /// One of its own for each: the kernel spreads connections over them (SO_REUSEPORT).
    Own(Vec<Socket>),
    /// Descriptors of one and the same: a unix socket, where the kernel spreads nothing, or one that
    /// was passed. Beside that one others could be opened only by its own user, and who waits at them
    /// would be lost when the process ends, which who waits at a passed socket is not.
    Shared(Vec<Socket>),
}

impl Sockets {
    pub(super) fn is_empty(&self) -> bool {
        let (Self::Own(sockets) | Self::Shared(sockets)) = self;
        sockets.is_empty()
    }

    /// One descriptor for each worker.
    fn shared(socket: Socket, workers: usize) -> Result<Self, Obstacle> {
        let mut sockets = Vec::new();
        for _ in 1..workers {
            sockets.push(socket.try_clone().map_err(no_descriptor)?);
        }
        sockets.push(socket);
        Ok(Self::Shared(sockets))
    }

    pub(super) fn doors(self, id: DoorId, listener: ListenerId) -> Vec<Door> {
        let door = |socket| Door::new(id, listener, socket);
        match self {
            Self::Own(sockets) => sockets.into_iter().map(door).collect(),
            Self::Shared(sockets) => sockets.into_iter().map(|it| door(it).shared()).collect(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Socket> {
        let (Self::Own(sockets) | Self::Shared(sockets)) = self;
        sockets.iter()
    }
}

fn no_descriptor(source: io::Error) -> Obstacle {
    let hint = "raise `ulimit -n` or LimitNOFILE".to_owned();
    Obstacle { source, hint }
}

/// What binding an address gives.
#[derive(Debug)]
pub(super) struct Binding {
    /// Where it is not the one that was written.
    pub(super) address: Option<Address>,
    /// Goes away with us.
    pub(super) file: Option<SocketFile>,
    pub(super) sockets: Sockets,
}

impl Binding {
    /// Of an address of a family that this machine does not have.
    pub(super) fn nothing() -> Self {
        Self {
            address: None,
            file: None,
            sockets: Sockets::Own(Vec::new()),
        }
    }
}

/// Binds an address; whether a port is one of ours says `is_ours`.
pub(super) fn of(
    address: &Address,
    is_ours: impl Fn(u16) -> bool,
    workers: usize,
) -> Result<Binding, Obstacle> {
    match address {
        Address::Ip(address) => bind_ip(*address, is_ours(address.port()), workers),
        Address::Unix(name) => bind_unix(name, workers),
    }
}

/// A socket that listens already. Its file is that of whoever made it.
pub(super) fn of_passed(passed: &PassedSocket, workers: usize) -> Result<Binding, Obstacle> {
    if passed.takes_both_families().map_err(no_descriptor)? {
        let text = "the socket that was passed takes IPv4 as well";
        return Err(Obstacle {
            source: io::Error::new(io::ErrorKind::InvalidInput, text),
            hint: "write BindIPv6Only=ipv6-only in its .socket unit, and a ListenStream= for \
                   0.0.0.0 where that is meant"
                .to_owned(),
        });
    }
    let socket = passed.another().map_err(no_descriptor)?;
    Ok(Binding {
        address: Some(passed.address.clone()),
        file: None,
        sockets: Sockets::shared(socket, workers)?,
    })
}

/// Sockets of the process before this one, and those that are more than there are workers. Its file is not
/// ours yet.
pub(super) fn of_inherited(
    is_shared: bool,
    mut sockets: Vec<Socket>,
    workers: usize,
) -> Result<(Binding, Vec<Socket>), Obstacle> {
    let address = sockets.first().map(Socket::local_addr);
    let address = address.and_then(|address| address.ok()?.as_socket());
    let is_listener = |socket: &Socket| socket.is_listener().unwrap_or(false);
    if !sockets.iter().all(is_listener) {
        return Err(Obstacle {
            source: io::Error::new(io::ErrorKind::InvalidInput, "nobody listens at it"),
            hint: "the process before this one has handed something else over: start anew"
                .to_owned(),
        });
    }
    let surplus = match is_shared {
        true => {
            sockets.truncate(1);
            Vec::new()
        }
        false => sockets.split_off(workers.min(sockets.len())),
    };
    let sockets = match (is_shared, sockets.pop()) {
        (true, Some(socket)) => Sockets::shared(socket, workers)?,
        (_, last) => {
            sockets.extend(last);
            Sockets::Own(with_more(sockets, address, workers)?)
        }
    };
    let binding = Binding {
        address: address.map(Into::into),
        file: None,
        sockets,
    };
    Ok((binding, surplus))
}

/// One socket for each worker at an address where some are.
fn with_more(
    mut sockets: Vec<Socket>,
    address: Option<SocketAddr>,
    workers: usize,
) -> Result<Vec<Socket>, Obstacle> {
    while let Some(address) = address.filter(|_| sockets.len() < workers) {
        sockets.push(bind::tcp(address, true).map_err(|source| Obstacle {
            hint: bind::hint(&source, &address.into()),
            source,
        })?);
    }
    Ok(sockets)
}

fn bind_ip(address: SocketAddr, is_ours: bool, workers: usize) -> Result<Binding, Obstacle> {
    let bound = bind_each(address, is_ours, workers);
    bound.map_err(|source| {
        let hint = bind::hint(&source, &address.into());
        Obstacle { source, hint }
    })
}

fn bind_each(address: SocketAddr, is_ours: bool, workers: usize) -> io::Result<Binding> {
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
    Ok(Binding {
        address: Some(address.into()),
        file: None,
        sockets: Sockets::Own(sockets),
    })
}

/// SO_REUSEPORT does not spread connections over unix sockets: all workers have the same one.
fn bind_unix(name: &UnixName, workers: usize) -> Result<Binding, Obstacle> {
    let (socket, file) = bind::unix::named(name)?;
    Ok(Binding {
        address: None,
        file,
        sockets: Sockets::shared(socket, workers)?,
    })
}
