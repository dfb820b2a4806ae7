//! Where something listens, and who comes in: an IP address and port, or a unix socket, which may be
//! a file or a name of its own in the kernel (unix(7), "abstract").
//!
//! Knows how an address is shown and given to the kernel; how one is written in a config is `config`'s.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use socket2::{Domain, SockAddr};

/// Where a listener or a server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// A unix socket.
    Unix(UnixName),
}

impl Address {
    /// The IP address and port, if it is one.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The socket family.
    pub fn domain(&self) -> Domain {
        match self {
            Self::Ip(address) => Domain::for_address(*address),
            Self::Unix(_) => Domain::UNIX,
        }
    }

    /// As the kernel takes it.
    ///
    /// # Errors
    /// A unix name longer than the kernel's 107 bytes, which a checked config does not have.
    pub fn to_kernel(&self) -> io::Result<SockAddr> {
        match self {
            Self::Ip(address) => Ok((*address).into()),
            Self::Unix(name) => SockAddr::unix(name.to_kernel()),
        }
    }
}

#[cfg(test)]
impl Address {
    /// A port of this machine.
    pub(crate) fn local(port: u16) -> Self {
        Self::Ip(SocketAddr::from(([127, 0, 0, 1], port)))
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for Address {
    /// As a config has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => f.pad(&address.to_string()),
            Self::Unix(name) => f.pad(&format!("unix:{name}")),
        }
    }
}

/// A unix socket's name: a path, or a name behind an `@`, for which there is no file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnixName(Arc<str>);

impl UnixName {
    /// Most bytes that the kernel takes: `sun_path` less the zero at its end.
    pub const BYTES_MAX: usize = 107;

    /// `text` is an absolute path, or `@` and an abstract name; whoever reads it checks that.
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The file; `None` for an abstract name.
    pub fn path(&self) -> Option<&Path> {
        (!self.is_abstract()).then(|| Path::new(&*self.0))
    }

    fn is_abstract(&self) -> bool {
        self.0.starts_with('@')
    }

    /// An abstract name begins with a zero byte there.
    fn to_kernel(&self) -> String {
        match self.0.strip_prefix('@') {
            Some(name) => format!("\0{name}"),
            None => (*self.0).to_owned(),
        }
    }
}

impl fmt::Display for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Who a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A process of this machine, by a unix socket: it has no address.
    Unix,
}

impl Peer {
    /// The IP address and port, if it has one.
    pub fn ip_port(self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(address),
            Self::Unix => None,
        }
    }

    /// The IP address, if it has one.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Unix => None,
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => f.pad(&address.to_string()),
            Self::Unix => f.pad("unix:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Socket, Type};

    #[test]
    fn an_abstract_name_is_no_file_and_can_be_connected_to() {
        let name = format!("@evenkeel-test-{}", std::process::id());
        let address = Address::Unix(UnixName::new(&name));
        assert_eq!(address.to_string(), format!("unix:{name}"));
        let listener = Socket::new(address.domain(), Type::STREAM, None).unwrap();
        listener.bind(&address.to_kernel().unwrap()).unwrap();
        listener.listen(1).unwrap();
        let client = Socket::new(address.domain(), Type::STREAM, None).unwrap();
        client.connect(&address.to_kernel().unwrap()).unwrap();
        assert!(UnixName::new(&name).path().is_none());
        assert_eq!(UnixName::new("/run/x").path(), Some(Path::new("/run/x")));
    }

    #[test]
    fn addresses_show_as_they_are_written() {
        let ip: SocketAddr = "[::1]:80".parse().unwrap();
        assert_eq!(Address::from(ip).to_string(), "[::1]:80");
        assert_eq!(Peer::from(ip).to_string(), "[::1]:80");
        assert_eq!(Peer::Unix.to_string(), "unix:");
    }
}
