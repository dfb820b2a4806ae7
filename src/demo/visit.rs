//! One visit of the load: connect from a client's address, `GET /`, read the answer, close.
//!
//! It knows no timers, no pace and no counts.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use super::dials::server_index;
use crate::clock::Now;
use crate::sys;
use crate::wire::http::{Item, ResponseReader};

/// What a client sends. It closes first, as most clients do.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: demo\r\nUser-Agent: evenkeel-demo\r\n\r\n";
/// The body of an answer names a server and nothing else.
const BODY_BYTES_MAX: usize = 256;

/// Where a visit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// It goes on with the next event.
    Wait,
    /// The server at this place has answered.
    Answered(usize),
    /// It was refused or cut, or the answer is not one of our servers'.
    Failed,
}

/// Why a visit could not begin.
#[derive(Debug)]
pub(super) enum NotBegun {
    /// Descriptors, ports or memory are out: nobody's fault at the other end.
    Exhausted,
    /// The other end refused at once.
    Refused,
}

/// A visit under way.
#[derive(Debug)]
pub(super) struct Visit {
    stream: TcpStream,
    /// Which client's it is.
    pub(super) client: usize,
    pub(super) began: Now,
    is_connected: bool,
    /// Of the request.
    sent_bytes: usize,
    reader: ResponseReader,
    status: u16,
    body: Vec<u8>,
}

impl Visit {
    /// Begins to connect; events come under `token`.
    pub(super) fn begin(
        now: Now,
        target: SocketAddr,
        (client, address): (usize, IpAddr),
        (registry, token): (&Registry, Token),
    ) -> Result<Self, NotBegun> {
        let mut stream = connect(address, target)?;
        registry
            .register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)
            .map_err(|_| NotBegun::Exhausted)?;
        Ok(Self {
            stream,
            client,
            began: now,
            is_connected: false,
            sent_bytes: 0,
            reader: ResponseReader::new(),
            status: 0,
            body: Vec::new(),
        })
    }

    /// Whether the listener has accepted.
    pub(super) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Goes on as far as the socket allows. Any error is the end of it: to a client it is all one.
    pub(super) fn advance(&mut self, buffer: &mut [u8]) -> Course {
        let went = self.connected().and_then(|is_connected| {
            if !is_connected {
                return Ok(Course::Wait);
            }
            self.send()?;
            self.receive(buffer)
        });
        went.unwrap_or(Course::Failed)
    }

    fn connected(&mut self) -> io::Result<bool> {
        if !self.is_connected {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            // An event may come before the connect is over; only the socket says whether it is.
            self.is_connected = self.stream.peer_addr().is_ok();
        }
        Ok(self.is_connected)
    }

    fn send(&mut self) -> io::Result<()> {
        while self.sent_bytes < REQUEST.len() {
            match self.stream.write(&REQUEST[self.sent_bytes..]) {
                Ok(count) => self.sent_bytes += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Course> {
        loop {
            let count = match self.stream.read(buffer) {
                Ok(0) => return Ok(Course::Failed),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Course::Wait),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if self.take(&buffer[..count])? {
                return Ok(self.answered());
            }
        }
    }

    /// Whether the answer is complete with these bytes.
    fn take(&mut self, mut bytes: &[u8]) -> io::Result<bool> {
        let read = self.reader.read(&mut bytes);
        let mut item = read.map_err(io::Error::other)?;
        while let Some(read) = item {
            match read {
                Item::Status(status) => self.status = status,
                Item::Body(body) if self.body.len() + body.len() > BODY_BYTES_MAX => {
                    return Err(ErrorKind::InvalidData.into());
                }
                Item::Body(body) => self.body.extend_from_slice(body),
                Item::End => return Ok(true),
            }
            item = self.reader.read(&mut bytes).map_err(io::Error::other)?;
        }
        Ok(false)
    }

    fn answered(&self) -> Course {
        let server = || {
            let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
            server_index(body.get("server")?.as_str()?)
        };
        match server() {
            Some(server) if self.status == 200 => Course::Answered(server),
            _ => Course::Failed,
        }
    }
}

/// A socket of `client` that is connecting to `target`, without waiting for it.
fn connect(client: IpAddr, target: SocketAddr) -> Result<TcpStream, NotBegun> {
    let socket = socket_of(client, target).map_err(|_| NotBegun::Exhausted)?;
    match socket.connect(&target.into()) {
        Ok(()) => {}
        Err(error) if sys::socket::is_in_progress(&error) => {}
        // EADDRNOTAVAIL: every port of this client is in use or in TIME_WAIT.
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
            return Err(NotBegun::Exhausted);
        }
        Err(error) if sys::socket::is_exhausted(&error) => return Err(NotBegun::Exhausted),
        Err(_) => return Err(NotBegun::Refused),
    }
    Ok(TcpStream::from_std(socket.into()))
}

fn socket_of(client: IpAddr, target: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(target), kind, Some(Protocol::TCP))?;
    // Ports in TIME_WAIT may be had again: at the highest rate a client uses up thousands a minute.
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SocketAddr::new(client, 0).into())?;
    Ok(socket)
}
