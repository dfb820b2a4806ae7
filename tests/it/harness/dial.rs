//! Sockets of either kind for tests that do not care which: an address as a configuration has it, and
//! what connects to it or listens there.

use std::net::SocketAddr;
use std::path::Path;

use evenkeel::address::{Address, UnixName};
use socket2::{Socket, Type};

use super::DEADLINE;

/// `unix:/path` in a folder.
pub(crate) fn unix(folder: &Path, file: &str) -> String {
    format!("unix:{}", folder.join(file).display())
}

/// Connects, with deadlines set.
#[track_caller]
pub(crate) fn dial(address: &str) -> Socket {
    let address = parse(address);
    let socket = Socket::new(address.domain(), Type::STREAM, None).unwrap();
    socket.connect(&address.to_kernel().unwrap()).unwrap();
    with_deadline(socket)
}

/// Listens; an accept waits for the deadline at most.
#[track_caller]
pub(crate) fn listen(address: &str, backlog: i32) -> Socket {
    let address = parse(address);
    let socket = Socket::new(address.domain(), Type::STREAM, None).unwrap();
    socket.bind(&address.to_kernel().unwrap()).unwrap();
    socket.listen(backlog).unwrap();
    with_deadline(socket)
}

/// The next connection.
#[track_caller]
pub(crate) fn accept(listener: &Socket) -> Socket {
    let (socket, _) = listener.accept().expect("a connection within the deadline");
    with_deadline(socket)
}

/// Where a TCP socket listens, as a configuration has it.
pub(crate) fn place(listener: &Socket) -> String {
    let address = listener.local_addr().unwrap();
    address.as_socket().expect("an IP address").to_string()
}

/// An address of a configuration.
#[track_caller]
pub(crate) fn parse(address: &str) -> Address {
    match address.strip_prefix("unix:") {
        Some(name) => Address::Unix(UnixName::new(name)),
        None => Address::Ip(address.parse::<SocketAddr>().unwrap()),
    }
}

fn with_deadline(socket: Socket) -> Socket {
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
    socket
}
