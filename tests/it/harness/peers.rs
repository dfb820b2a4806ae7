//! Scripted peers on plain blocking sockets: every read, write and accept has the deadline.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::DEADLINE;
use super::blocks::Finish;

/// A connect is under way. The standard library has no stable name for it.
const EINPROGRESS: i32 = 115;

/// A server that accepts when its test says so.
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
}

impl Server {
    /// Listens on a free port of 127.0.0.1.
    pub(crate) fn listen() -> Self {
        Self::on("127.0.0.1:0", 1024, None)
    }

    /// As [`Self::listen`], with receive buffers of `bytes`; set before listening, because the
    /// window's scale is agreed on in the handshake.
    pub(crate) fn with_receive_buffer(bytes: usize) -> Self {
        Self::on("127.0.0.1:0", 1024, Some(bytes))
    }

    fn on(address: &str, backlog: i32, receive_buffer: Option<usize>) -> Self {
        let socket = bound(address);
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        socket.listen(backlog).unwrap();
        Self::of(socket.into())
    }

    /// Accepts from a listener that exists.
    pub(crate) fn of(listener: TcpListener) -> Self {
        // It bounds accept.
        SockRef::from(&listener)
            .set_read_timeout(Some(DEADLINE))
            .unwrap();
        Self { listener }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next connection.
    #[track_caller]
    pub(crate) fn accept(&self) -> TcpStream {
        let (stream, _) = self
            .listener
            .accept()
            .expect("a connection within the deadline");
        with_deadline(stream)
    }

    /// The next connection that is there now, if one is.
    pub(crate) fn accept_pending(&self) -> Option<TcpStream> {
        self.listener.set_nonblocking(true).unwrap();
        let accepted = self.listener.accept().ok();
        self.listener.set_nonblocking(false).unwrap();
        accepted.map(|(stream, _)| {
            stream.set_nonblocking(false).unwrap();
            with_deadline(stream)
        })
    }
}

/// A port that refuses connections and that nobody else can get: bound, not listening.
#[derive(Debug)]
pub(crate) struct Refusing {
    holder: Socket,
}

impl Refusing {
    /// Takes a free port.
    pub(crate) fn new() -> Self {
        Self {
            holder: bound("127.0.0.1:0"),
        }
    }

    /// The refusing address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.holder
            .local_addr()
            .unwrap()
            .as_socket()
            .expect("an IP address")
    }

    /// Listens on the same port, which refuses again once the listener is dropped: two sockets
    /// with `SO_REUSEADDR` may share a port of which at most one listens.
    pub(crate) fn listen(&self) -> TcpListener {
        let socket = bound(&self.address().to_string());
        socket.listen(1024).unwrap();
        socket.into()
    }
}

/// A port that answers no SYN: its queue of one is full and nobody accepts.
#[derive(Debug)]
pub(crate) struct Unanswering {
    server: Server,
    /// Hold the queue's places.
    fillers: Vec<Socket>,
}

impl Unanswering {
    /// Fills the queue until a connect hangs.
    pub(crate) fn new() -> Self {
        let server = Server::on("127.0.0.1:0", 0, None);
        let mut fillers = Vec::new();
        loop {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let patience = Duration::from_millis(300);
            let answered = filler.connect_timeout(&server.address().into(), patience);
            fillers.push(filler);
            if answered.is_err() {
                return Self { server, fillers };
            }
            assert!(
                fillers.len() < 16,
                "a queue of one takes connection after connection"
            );
        }
    }

    /// The unanswering address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Accepts what filled the queue and goes on as a plain server.
    pub(crate) fn answer(self) -> Server {
        drop(self.fillers);
        while self.server.accept_pending().is_some() {}
        self.server
    }
}

/// Connects with deadlines set; small writes leave at once.
#[track_caller]
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    finish_connect(socket, address)
}

/// Connects from `source`, a loopback address of one's choice.
#[track_caller]
pub(crate) fn connect_from(source: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    finish_connect(socket, address)
}

/// Connects with a receive buffer of `bytes`.
#[track_caller]
pub(crate) fn connect_with_receive_buffer(bytes: usize, address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(bytes).unwrap();
    finish_connect(socket, address)
}

/// Begins to connect, which on loopback is all of it, and leaves every error to the first read or
/// write: a connect that waits would swallow an RST right behind the handshake.
#[track_caller]
fn finish_connect(socket: Socket, address: SocketAddr) -> TcpStream {
    socket.set_nonblocking(true).unwrap();
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(EINPROGRESS) => panic!("connect: {error}"),
        Ok(()) | Err(_) => {}
    }
    socket.set_nonblocking(false).unwrap();
    with_deadline(socket.into())
}

/// What tests do with a connected socket.
pub(crate) trait Peer {
    /// Ends its own direction in order.
    fn end(&self);
    /// Closes with RST, whatever is unsent.
    fn reset(self);
    /// Sends one urgent byte.
    fn send_urgent(&self, byte: u8);
    /// Reads exactly `expected`.
    fn expect(&mut self, expected: &[u8]);
    /// Reads to the end; the bytes and how it ended.
    fn read_to_finish(&mut self) -> (Vec<u8>, Finish);
    /// Expects no more bytes and an end in order.
    fn expect_fin(&mut self);
    /// Expects no more bytes and RST.
    fn expect_reset(&mut self);
    /// Writes until nothing more is taken for a moment; the bytes written.
    fn write_until_blocked(&mut self, next: impl FnMut(&mut [u8])) -> u64;
}

impl Peer for TcpStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }

    fn reset(self) {
        SockRef::from(&self)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }

    fn send_urgent(&self, byte: u8) {
        assert_eq!(SockRef::from(self).send_out_of_band(&[byte]).unwrap(), 1);
    }

    #[track_caller]
    fn expect(&mut self, expected: &[u8]) {
        let mut received = vec![0; expected.len()];
        if let Err(error) = self.read_exact(&mut received) {
            panic!(
                "instead of {:?}: {error}",
                String::from_utf8_lossy(expected)
            );
        }
        assert!(
            received == expected,
            "{:?} instead of {:?}",
            String::from_utf8_lossy(&received),
            String::from_utf8_lossy(expected)
        );
    }

    #[track_caller]
    fn read_to_finish(&mut self) -> (Vec<u8>, Finish) {
        let mut bytes = Vec::new();
        match self.read_to_end(&mut bytes) {
            Ok(_) => (bytes, Finish::Fin),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => (bytes, Finish::Reset),
            Err(error) => panic!("neither FIN nor RST after {} bytes: {error}", bytes.len()),
        }
    }

    #[track_caller]
    fn expect_fin(&mut self) {
        assert_eq!(self.read_to_finish(), (Vec::new(), Finish::Fin));
    }

    #[track_caller]
    fn expect_reset(&mut self) {
        assert_eq!(self.read_to_finish(), (Vec::new(), Finish::Reset));
    }

    #[track_caller]
    fn write_until_blocked(&mut self, mut next: impl FnMut(&mut [u8])) -> u64 {
        let mut buffer = vec![0; 64 * 1024];
        let (mut total, mut left) = (0, 0);
        self.set_write_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        loop {
            if left == 0 {
                next(&mut buffer);
                left = buffer.len();
            }
            match self.write(&buffer[buffer.len() - left..]) {
                Ok(written) => {
                    total += written as u64;
                    left -= written;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // As a read with a timeout may end (`Visit`).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("after {total} bytes: {error}"),
            }
        }
        self.set_write_timeout(Some(DEADLINE)).unwrap();
        total
    }
}

/// A request and its answer through both sockets of a connection: it is alive both ways.
#[track_caller]
pub(crate) fn ping(client: &mut TcpStream, server: &mut TcpStream) {
    client.write_all(b"ping").unwrap();
    server.expect(b"ping");
    server.write_all(b"pong").unwrap();
    client.expect(b"pong");
}

fn with_deadline(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn bound(address: &str) -> Socket {
    let address: SocketAddr = address.parse().unwrap();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}
