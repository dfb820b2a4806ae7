//! Sockets that listened before this process began (socket activation): which of what was passed is
//! one, and which of them is meant by an address in the config.
//!
//! The sockets stay the manager's as well: who comes while no process accepts waits there. So they are
//! given out as further descriptors and kept here, for a listener that leaves the config and returns.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use socket2::{Protocol, SockAddr, Socket, Type};

use crate::address::{Address, UnixName};

/// Names in one line.
const NAMED_MAX: usize = 5;

/// A socket that was passed.
#[derive(Debug)]
pub struct PassedSocket {
    /// What the manager calls it (`FileDescriptorName=`).
    pub name: String,
    /// Where it listens.
    pub address: Address,
    socket: Socket,
}

impl PassedSocket {
    /// Whether it is meant by `written`, an address of the listener `listener`. The address decides;
    /// where any port will do, the name says which one.
    fn is_meant(&self, listener: &str, written: &Address) -> bool {
        if self.address == *written {
            return true;
        }
        let (Some(own), Some(written)) = (self.address.ip(), written.ip()) else {
            return false;
        };
        self.name == listener && written.port() == 0 && own.ip() == written.ip()
    }

    /// Whether clients over IPv4 come in at an IPv6 address, with addresses that no rule is written
    /// for. That cannot be changed once a socket is bound.
    ///
    /// # Errors
    /// None that the kernel knows.
    pub fn takes_both_families(&self) -> io::Result<bool> {
        match self.address.ip() {
            Some(SocketAddr::V6(six)) if six.ip().is_unspecified() => {
                self.socket.only_v6().map(|is_only| !is_only)
            }
            _ => Ok(false),
        }
    }

    /// Another descriptor of it, which is closed on exec.
    ///
    /// # Errors
    /// EMFILE.
    pub fn another(&self) -> io::Result<Socket> {
        self.socket.try_clone()
    }
}

/// All that were passed and may be used.
#[derive(Debug, Default)]
pub struct Passed(Vec<PassedSocket>);

impl Passed {
    /// Finds the sockets that listen among `descriptors`; the others are closed, with one line for all.
    pub fn new(descriptors: Vec<(String, OwnedFd)>) -> Self {
        let mut sockets = Vec::new();
        let mut refused = Vec::new();
        for (name, descriptor) in descriptors {
            match inspect(descriptor) {
                Ok((address, socket)) => sockets.push(PassedSocket {
                    name,
                    address,
                    socket,
                }),
                Err(why) => refused.push(format!("{} {why}", shown_name(&name))),
            }
        }
        if !refused.is_empty() {
            log::warn!("passed at the start and of no use: {}", listed(&refused));
        }
        Self(sockets)
    }

    /// The one for the address `written` of the listener `listener`.
    pub fn find(&self, listener: &str, written: &Address) -> Option<&PassedSocket> {
        let mut sockets = self.0.iter();
        sockets.find(|socket| socket.is_meant(listener, written))
    }

    /// Closes those that nobody wants, with one line for all.
    pub fn keep(&mut self, is_wanted: impl Fn(&PassedSocket) -> bool) {
        let unwanted = self.0.extract_if(.., |socket| !is_wanted(socket));
        let unwanted: Vec<_> = unwanted
            .map(|socket| format!("{} ({})", socket.address, shown_name(&socket.name)))
            .collect();
        if !unwanted.is_empty() {
            log::warn!(
                "passed at the start and no listener's `bind`, closed: {}",
                listed(&unwanted)
            );
        }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &PassedSocket> {
        self.0.iter()
    }

    /// What there is, to be told; `None` where that is nothing.
    pub fn told(&self) -> Option<String> {
        let addresses = self.0.iter().map(|socket| socket.address.to_string());
        let addresses: Vec<_> = addresses.collect();
        (!addresses.is_empty()).then(|| listed(&addresses))
    }
}

/// Makes a socket fit for accepting, or says why it is not.
fn inspect(descriptor: OwnedFd) -> Result<(Address, Socket), &'static str> {
    let socket = Socket::from(descriptor);
    let kind = socket.r#type().map_err(|_| "is no socket")?;
    if kind != Type::STREAM || !socket.is_listener().unwrap_or(false) {
        return Err("is no stream socket that listens");
    }
    let address = socket.local_addr().ok();
    let address = address.and_then(|address| shown_address(&address));
    let address = address.ok_or("is neither a TCP nor a unix socket")?;
    if address.ip().is_some() {
        if !matches!(socket.protocol(), Ok(Some(Protocol::TCP))) {
            return Err("is not TCP");
        }
        // As our own listening sockets: what is accepted inherits it.
        let tuned = socket.set_tcp_nodelay(true);
        tuned.map_err(|_| "cannot be tuned")?;
    }
    let tuned = socket.set_nonblocking(true);
    tuned.map_err(|_| "cannot be tuned")?;
    Ok((address, socket))
}

/// As a config has it.
fn shown_address(address: &SockAddr) -> Option<Address> {
    if let Some(address) = address.as_socket() {
        return Some(address.into());
    }
    if let Some(path) = address.as_pathname() {
        return Some(Address::Unix(UnixName::new(path.to_str()?)));
    }
    let name = std::str::from_utf8(address.as_abstract_namespace()?).ok()?;
    Some(Address::Unix(UnixName::new(&format!("@{name}"))))
}

fn shown_name(name: &str) -> &str {
    if name.is_empty() {
        "without a name"
    } else {
        name
    }
}

fn listed(texts: &[String]) -> String {
    let shown = texts[..texts.len().min(NAMED_MAX)].join(", ");
    match texts.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::Domain;
    use std::fs::File;
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::{UnixListener, UnixStream};

    fn passed(name: &str, descriptor: impl Into<OwnedFd>) -> (String, OwnedFd) {
        (name.to_owned(), descriptor.into())
    }

    #[test]
    fn only_stream_sockets_that_listen_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::from(tcp.local_addr().unwrap());
        let unix = UnixListener::bind(&path).unwrap();
        let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let all = Passed::new(vec![
            passed("file", File::open("/dev/null").unwrap()),
            passed("datagrams", UdpSocket::bind("127.0.0.1:0").unwrap()),
            passed("tcp", tcp),
            passed("connected", UnixStream::pair().unwrap().0),
            passed("unix", unix),
            passed("silent", silent),
        ]);
        let written = Address::Unix(UnixName::new(path.to_str().unwrap()));
        assert_eq!(all.told().unwrap(), format!("{address}, {written}"));
        let socket = all.find("web", &address).unwrap().another().unwrap();
        assert!(socket.nonblocking().unwrap() && socket.tcp_nodelay().unwrap());
        assert!(all.find("web", &written).is_some());
    }

    #[test]
    fn the_address_decides_and_the_name_where_any_port_will_do() {
        let sockets = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let [first, second] = sockets
            .each_ref()
            .map(|it| Address::from(it.local_addr().unwrap()));
        let [one, two] = sockets;
        let mut all = Passed::new(vec![passed("one", one), passed("web", two)]);
        let found = |written: &Address| {
            let socket = all.find("web", written);
            socket.map(|socket| socket.address.clone())
        };
        assert_eq!(found(&first), Some(first.clone()));
        assert_eq!(found(&Address::local(0)), Some(second.clone()));
        assert_eq!(found(&Address::local(1)), None);
        let elsewhere: SocketAddr = "127.0.0.2:0".parse().unwrap();
        assert_eq!(found(&elsewhere.into()), None);
        all.keep(|socket| socket.address == second);
        assert!(all.find("web", &first).is_none());
        assert_eq!(all.told(), Some(second.to_string()));
    }

    #[test]
    fn an_ipv6_socket_that_takes_ipv4_is_found_out() {
        let bind = |address: &str, is_only: bool| {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
            socket.set_only_v6(is_only).unwrap();
            let address: SocketAddr = address.parse().unwrap();
            socket.bind(&address.into()).unwrap();
            socket.listen(1).unwrap();
            let all = Passed::new(vec![passed("web", socket)]);
            all.0[0].takes_both_families().unwrap()
        };
        assert!(bind("[::]:0", false));
        assert!(!bind("[::]:0", true));
        assert!(!bind("[::1]:0", false));
    }

    #[test]
    fn long_lists_are_cut() {
        let texts: Vec<_> = (1..8).map(|number| number.to_string()).collect();
        assert_eq!(listed(&texts), "1, 2, 3, 4, 5 and 2 more");
        assert_eq!(listed(&texts[..5]), "1, 2, 3, 4, 5");
    }
}
