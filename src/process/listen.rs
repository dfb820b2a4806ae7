//! Listening sockets: bound before anything else starts, so that a wrong address starts nothing, and
//! listening only when the first health checks are answered.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};

use super::StartError;
use crate::config::Listener;
use crate::ids::ListenerId;
use crate::worker::{Door, DoorId};

/// Connections that may wait to be accepted at one socket; the kernel caps it at
/// `net.core.somaxconn`, which is 4,096 by default.
const BACKLOG: i32 = 4096;

/// One address of a listener, bound once for each worker.
#[derive(Debug)]
pub(super) struct Bound {
    listener: ListenerId,
    pub(super) name: std::sync::Arc<str>,
    /// As the kernel has it: port 0 has become a real one.
    pub(super) address: SocketAddr,
    sockets: Vec<Socket>,
}

impl Bound {
    /// Starts to listen at all sockets, one door for each worker.
    pub(super) fn listen(self, id: DoorId) -> io::Result<Vec<Door>> {
        let door = |socket: Socket| {
            socket.listen(BACKLOG)?;
            Ok(Door::new(
                id,
                self.listener,
                TcpListener::from_std(socket.into()),
            ))
        };
        self.sockets.into_iter().map(door).collect()
    }
}

/// Binds every address of every listener `workers` times.
pub(super) fn bind(listeners: &[Listener], workers: usize) -> Result<Vec<Bound>, StartError> {
    let mut all = Vec::new();
    for (index, listener) in listeners.iter().enumerate() {
        for address in &listener.bind {
            let (address, sockets) =
                bind_one(*address, workers).map_err(|source| StartError::Bind {
                    listener: listener.name.to_string(),
                    address: *address,
                    hint: hint(&source, *address),
                    source,
                })?;
            let name = std::sync::Arc::clone(&listener.name);
            all.push(Bound {
                listener: ListenerId::new(index),
                name,
                address,
                sockets,
            });
        }
    }
    Ok(all)
}

fn bind_one(address: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<Socket>)> {
    // With SO_REUSEPORT the kernel would let a second evenkeel of the same user share the address
    // unasked, and each would get half of the connections: a bind without it finds that out, unless
    // both are started in the same second and neither listens yet.
    drop(socket(address, false)?);
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
