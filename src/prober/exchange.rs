//! The socket of one running check: connects, agrees on TLS where that is wanted, sends what the
//! script has to say, feeds it what comes, and drops the socket with the check.
//!
//! ```text
//! connecting --writable--> opening (TLS) --> talking --the script has an answer--> answer
//! ```
//! A socket or a session that fails is an answer as well.
//! Time is the loop's business, and the deadline ends an exchange in any state. Every other way out
//! of an event is an answer too, or leaves the socket armed for the next edge.
//!
//! The registration is edge-triggered for both directions and made after the connect, as a socket
//! that is not yet connecting reports HUP. The socket is never shared, so closing it ends the
//! registration; an event that is already on its way is dropped by its token's generation.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::{Socket, Type};

use super::answer::{Answer, Reason, from_start, of_our_own};
use super::script::Script;
use super::tcp;
use super::tls::{self, Client, Session};
use crate::address::Address;
use crate::sys;

/// What one server may send in one check before it counts as bad: heads are at most 16 KiB, and
/// what shows that a server is well stands near the beginning.
pub(super) const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// What the kernel said about a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Readiness {
    is_writable: bool,
    /// There may be bytes, an end or an error to read.
    is_readable: bool,
    /// There will be no further edge: read to the end now.
    is_ended: bool,
    /// ERR or HUP.
    is_failed: bool,
}

impl Readiness {
    pub(super) fn of(event: &mio::event::Event) -> Self {
        // mio reports HUP as both directions closed, and a connected socket whose peer has ended
        // its side as read-closed alone.
        let is_failed = event.is_error() || (event.is_read_closed() && event.is_write_closed());
        Self {
            is_writable: event.is_writable(),
            is_readable: event.is_readable() || event.is_read_closed() || is_failed,
            is_ended: event.is_read_closed() || is_failed,
            is_failed,
        }
    }
}

/// Whom a check asks, and from where.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) server: Address,
    /// Our own addresses, of which those of the server's family count; without one the kernel picks.
    pub(super) sources: Vec<IpAddr>,
}

/// One check under way.
#[derive(Debug)]
pub(super) struct Exchange {
    socket: Socket,
    /// Whom it asks.
    address: Address,
    tls: Option<Session>,
    is_connected: bool,
    /// True exactly while the script may talk: connected, and TLS is agreed on where it is spoken.
    is_open: bool,
    /// What came of sending, where that has failed: what the server had said before still counts.
    unsent: Option<Reason>,
    received_bytes: usize,
}

impl Exchange {
    /// Begins to connect; events come to `registry` under `token`. Where that fails there is an
    /// answer at once, and no socket.
    pub(super) fn begin(
        way: Way,
        script: &mut Script,
        client: Option<&Client>,
        registry: &Registry,
        token: Token,
    ) -> Result<Self, Answer> {
        script.restart();
        let tls = client.map(Client::session).transpose();
        let tls = tls.map_err(Answer::Unknown)?;
        let socket = connect(&way, script)?;
        registry
            .register(
                &mut SourceFd(&socket.as_raw_fd()),
                token,
                Interest::READABLE | Interest::WRITABLE,
            )
            // Whatever epoll lacks, the server did nothing wrong.
            .map_err(|error| of_our_own(&error))?;
        Ok(Self {
            socket,
            address: way.server,
            tls,
            is_connected: false,
            is_open: false,
            unsent: None,
            received_bytes: 0,
        })
    }

    /// Whether the server has accepted.
    pub(super) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Goes on as far as the socket allows.
    pub(super) fn advance(
        &mut self,
        ready: Readiness,
        script: &mut Script,
        buffer: &mut [u8],
    ) -> Option<Answer> {
        if !self.is_connected {
            match self.connect_ended(ready) {
                Ok(true) => self.is_connected = true,
                Ok(false) => return None,
                Err(error) => return Some(from_start(&error)),
            }
        }
        if !self.is_open {
            match self.open() {
                Ok(true) => self.is_open = true,
                Ok(false) => return None,
                Err(error) => return Some(Answer::Bad(tls::reason(&error))),
            }
            if let Some(answer) = script.connected() {
                return Some(answer);
            }
        }
        self.send(script);
        // A server may answer without having read all, and close: the answer counts. A session may
        // hold what the socket does not tell of.
        let answer = if ready.is_readable || self.unsent.is_some() || self.tls.is_some() {
            self.receive(script, buffer, ready.is_ended)
        } else {
            None
        };
        match (answer, self.unsent) {
            (Some(Answer::Good(reason)), _) => Some(Answer::Good(reason)),
            (_, Some(reason)) => Some(Answer::Bad(reason)),
            (answer, None) => answer,
        }
    }

    /// Ends the talk in order as far as the socket takes it at once; the check is over either way.
    pub(super) fn part(mut self, script: &Script) {
        if !self.is_open || self.unsent.is_some() {
            return;
        }
        let farewell = script.farewell();
        // Nobody is left to whom a failure would matter.
        if !farewell.is_empty() {
            self.write(farewell).unwrap_or(0);
        }
        if let Some(session) = &mut self.tls {
            session.close(&self.socket).unwrap_or(());
        }
    }

    /// Whether the script may talk.
    fn open(&mut self) -> io::Result<bool> {
        match &mut self.tls {
            Some(session) => session.open(&self.socket),
            None => Ok(true),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(session) => session.write(&self.socket, bytes),
            None => (&self.socket).write(bytes),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(session) => session.read(&self.socket, buffer),
            None => (&self.socket).read(buffer),
        }
    }

    /// Whether the connect has succeeded; an error where it has failed.
    fn connect_ended(&self, ready: Readiness) -> io::Result<bool> {
        if ready.is_failed {
            if let Some(error) = self.socket.take_error()? {
                return Err(error);
            }
            // HUP without an error: seen right after a connect that was still under way, so only
            // the socket itself says whether it is connected. If it is not, another event comes.
            if self.socket.peer_addr().is_err() {
                return Ok(false);
            }
        } else if !ready.is_writable {
            return Ok(false);
        }
        if self.is_connected_to_itself() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(true)
    }

    /// Where nobody listens on a port of this machine from which the kernel takes local ports, a
    /// connect may get that very port as its own, and TCP then connects the socket to itself: one
    /// in some 28,000 checks of a dead local server would find it well.
    fn is_connected_to_itself(&self) -> bool {
        let own = self
            .socket
            .local_addr()
            .ok()
            .and_then(|own| own.as_socket());
        own.is_some() && own == self.address.ip()
    }

    /// Sends what there is to send, as far as the socket takes it.
    fn send(&mut self, script: &mut Script) {
        while self.unsent.is_none() && !script.to_send().is_empty() {
            match self.write(script.to_send()) {
                Ok(count) => script.sent(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.unsent = Some(tls::reason(&error)),
            }
        }
        // What a session took before and the socket did not.
        if let Some(session) = &mut self.tls
            && let Err(error) = session.flush(&self.socket)
        {
            self.unsent = Some(tls::reason(&error));
        }
    }

    /// Reads what has come, and sends what the script has to say to it. At most
    /// [`ANSWER_MAX_BYTES`] in the life of the exchange, so a server that floods cannot hold up the
    /// loop.
    fn receive(
        &mut self,
        script: &mut Script,
        buffer: &mut [u8],
        is_ended: bool,
    ) -> Option<Answer> {
        loop {
            let count = match self.read(buffer) {
                Ok(0) => return Some(script.closed()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Some(Answer::Bad(tls::reason(&error))),
            };
            let rest = ANSWER_MAX_BYTES - self.received_bytes;
            if let Some(answer) = script.receive(&buffer[..count.min(rest)]) {
                return Some(answer);
            }
            if count >= rest {
                return Some(Answer::Bad(Reason::TooLong {
                    bytes: ANSWER_MAX_BYTES,
                }));
            }
            self.received_bytes += count;
            // The socket was writable before, so there is no further edge that would say so.
            self.send(script);
            // A short read has drained the socket: whatever comes next is a new edge. A session
            // may hold more.
            if count < buffer.len() && !is_ended && self.tls.is_none() {
                return None;
            }
        }
    }
}

/// A socket that is connecting, without waiting for it.
fn connect(way: &Way, script: &Script) -> Result<Socket, Answer> {
    let of_start = |error: io::Error| from_start(&error);
    // One system call makes it non-blocking and close-on-exec as well.
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(way.server.domain(), kind, None).map_err(of_start)?;
    let is_unix = way.server.ip().is_none();
    if script.is_connect_only() && !is_unix {
        tcp::prepare(&socket).map_err(of_start)?;
    }
    bind(&socket, way)?;
    let server = way.server.to_kernel().map_err(of_start)?;
    match socket.connect(&server) {
        Ok(()) => Ok(socket),
        // EAGAIN: the server's backlog is full. Of TCP it would be our own shortage.
        Err(error) if is_unix && error.kind() == io::ErrorKind::WouldBlock => {
            Err(Answer::Bad(Reason::Failed(io::ErrorKind::ResourceBusy)))
        }
        Err(error) if is_under_way(&error) => Ok(socket),
        Err(error) => Err(from_start(&error)),
    }
}

/// Takes the first of our addresses that this machine has. Whatever is wrong with them, the server is
/// not to blame; a bind takes no port, so that EADDRNOTAVAIL never says that none is left.
fn bind(socket: &Socket, way: &Way) -> Result<(), Answer> {
    let Some(server) = way.server.ip() else {
        return Ok(());
    };
    let mut fitting = way
        .sources
        .iter()
        .filter(|source| source.is_ipv4() == server.is_ipv4())
        .peekable();
    let Some(first) = fitting.peek().copied() else {
        return Ok(());
    };
    sys::socket::bind_address_no_port(socket).map_err(|error| of_our_own(&error))?;
    for source in fitting {
        match socket.bind(&SocketAddr::new(*source, 0).into()) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            Err(error) => return Err(of_our_own(&error)),
        }
    }
    Err(Answer::Unknown(Reason::NoSource(*first)))
}

/// `EINPROGRESS`; after `EINTR` the connect goes on in the background just the same.
fn is_under_way(error: &io::Error) -> bool {
    const EINPROGRESS: i32 = 115;
    error.raw_os_error() == Some(EINPROGRESS) || error.kind() == io::ErrorKind::Interrupted
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use socket2::{Domain, SockAddr};

    use super::*;
    use crate::address::UnixName;

    const FAILED: Readiness = Readiness {
        is_writable: true,
        is_readable: true,
        is_ended: true,
        is_failed: true,
    };

    fn exchange(socket: Socket, address: SocketAddr) -> Exchange {
        Exchange {
            socket,
            address: address.into(),
            tls: None,
            is_connected: false,
            is_open: false,
            unsent: None,
            received_bytes: 0,
        }
    }

    fn socket() -> Socket {
        Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()
    }

    #[test]
    fn a_socket_that_is_connected_to_itself_was_refused() {
        let socket = socket();
        socket
            .bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0))))
            .unwrap();
        let own = socket.local_addr().unwrap();
        socket.connect(&own).unwrap();
        let exchange = exchange(socket, own.as_socket().unwrap());
        let error = exchange.connect_ended(FAILED).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_unix_server_with_a_full_backlog_is_busy_and_not_our_shortage() {
        let name = format!("@evenkeel-exchange-{}", std::process::id());
        let way = Way {
            server: Address::Unix(UnixName::new(&name)),
            sources: Vec::new(),
        };
        let refused = connect(&way, &Script::Tcp).unwrap_err();
        let reason = Reason::Failed(io::ErrorKind::ConnectionRefused);
        assert_eq!(refused, Answer::Bad(reason));
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&way.server.to_kernel().unwrap()).unwrap();
        listener.listen(0).unwrap();
        let _first = connect(&way, &Script::Tcp).unwrap();
        let busy = connect(&way, &Script::Tcp).unwrap_err();
        let reason = Reason::Failed(io::ErrorKind::ResourceBusy);
        assert_eq!(busy, Answer::Bad(reason));
    }

    #[test]
    fn a_check_goes_out_from_the_address_that_it_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let way = |sources: &[&str]| Way {
            server: listener.local_addr().unwrap().into(),
            sources: sources.iter().map(|s| s.parse().unwrap()).collect(),
        };
        let own = |sources: &[&str]| {
            let socket = connect(&way(sources), &Script::Tcp).unwrap();
            socket.local_addr().unwrap().as_socket().unwrap().ip()
        };
        assert_eq!(own(&["127.0.0.9"]).to_string(), "127.0.0.9");
        assert_eq!(own(&["::1"]).to_string(), "127.0.0.1");
        // The first is no address of this machine (RFC 5737).
        assert_eq!(own(&["192.0.2.1", "127.0.0.8"]).to_string(), "127.0.0.8");
        // The server is not to blame.
        let answer = connect(&way(&["::1", "192.0.2.1"]), &Script::Tcp).unwrap_err();
        let reason = Reason::NoSource("192.0.2.1".parse().unwrap());
        assert_eq!(answer, Answer::Unknown(reason));
        assert_eq!(
            reason.to_string(),
            "source 192.0.2.1 is not an address of this machine"
        );
    }

    #[test]
    fn a_hang_up_without_an_error_decides_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let exchange = exchange(socket(), address);
        assert!(!exchange.connect_ended(FAILED).unwrap());
        exchange.socket.connect(&SockAddr::from(address)).unwrap();
        assert!(exchange.connect_ended(FAILED).unwrap());
    }
}
