//! An address that stays ours while nobody listens at it.
//!
//! A socket is bound to it and never listens, so that a connect is refused, and no connection of any
//! program gets the port for its own end. With SO_REUSEADDR on both, another socket may listen there
//! beside it: that is how a killed server comes back at the same port, and how the listener and the
//! page get the ports that were free when they were looked for.

use std::io;
use std::net::SocketAddr;

use socket2::Socket;

use crate::bind;

/// Connections that may wait for the loop.
const BACKLOG: i32 = 1024;

/// An address that is held until this is dropped.
#[derive(Debug)]
pub struct Place {
    address: SocketAddr,
    /// Bound and nothing else.
    _holder: Socket,
}

impl Place {
    /// Takes `address`; port 0 becomes a free one.
    ///
    /// # Errors
    /// EADDRINUSE where somebody listens there, EADDRNOTAVAIL where it is not this machine's, EACCES
    /// for a privileged port.
    pub fn take(address: SocketAddr) -> io::Result<Self> {
        let holder = bind::tcp(address, false)?;
        let address = holder.local_addr()?.as_socket().unwrap_or(address);
        Ok(Self {
            address,
            _holder: holder,
        })
    }

    /// With its real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens there, without blocking, until what is returned is dropped.
    pub(super) fn listen(&self) -> io::Result<mio::net::TcpListener> {
        let socket = bind::tcp(self.address, false)?;
        socket.listen(BACKLOG)?;
        Ok(mio::net::TcpListener::from_std(socket.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    fn place() -> Place {
        Place::take(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
    }

    #[test]
    fn a_place_refuses_until_it_listens_and_again_after_it() {
        let place = place();
        for _ in 0..3 {
            let refused = TcpStream::connect(place.address()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            let listening = place.listen().unwrap();
            drop(TcpStream::connect(place.address()).unwrap());
            drop(listening);
        }
    }

    #[test]
    fn a_place_where_somebody_listens_is_taken() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let refused = Place::take(other.local_addr().unwrap()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AddrInUse);
    }
}
