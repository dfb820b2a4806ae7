//! Sockets that are bound to an address of this machine, for listeners and for the admin side, and what
//! an operator can do where that fails. Whoever asks decides when to listen. TCP is here, unix sockets
//! with their files are in `unix`.

pub mod unix;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use crate::address::Address;

/// A socket at `address`, non-blocking; `is_shared` lets others of this process have the address, too
/// (SO_REUSEPORT), and the kernel spreads connections over them.
///
/// # Errors
/// EADDRINUSE, EADDRNOTAVAIL, EACCES below port 1024: [`hint`] says what to do.
pub fn tcp(address: SocketAddr, is_shared: bool) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    // Connections of an earlier process in TIME_WAIT must not keep this one from starting.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    if address.is_ipv6() {
        // Else clients over IPv4 would have addresses that nobody has written.
        socket.set_only_v6(true)?;
    }
    // Accepted sockets inherit it: one system call fewer for each connection.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// What to do about a bind that failed.
pub fn hint(error: &io::Error, address: &Address) -> String {
    let port = address.ip().map_or(0, |address| address.port());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shared_only_with_those_who_share_it() {
        let any = "127.0.0.1:0".parse().unwrap();
        let first = tcp(any, true).unwrap();
        let address = first.local_addr().unwrap().as_socket().unwrap();
        tcp(address, true).unwrap();
        first.listen(1).unwrap();
        let error = tcp(address, false).unwrap_err();
        assert!(hint(&error, &address.into()).contains(&address.port().to_string()));
    }
}
