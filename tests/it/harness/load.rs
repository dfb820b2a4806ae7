//! Load that proves itself: thousands of ping-pong connections on one thread, bulk streams in both
//! directions, and clients that come all the time; and the servers behind.
//!
//! Each connection sends a stream of its own ([`Blocks`]) and gets it back, so one byte that is lost,
//! doubled, swapped or somebody else's is noticed at once. How long a message waited for its echo is
//! noted and printed, and never judged here.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use evenkeel::clock::Now;
use evenkeel::sys::limits;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use socket2::{Domain, Socket, Type};

use super::blocks::{Blocks, Finish};
use super::peers::{self, Peer};
use super::{DEADLINE, eventually, pause};

/// Messages a second over all connections: as many as leave two cores idle time beside a program that
/// was not optimised.
const RATE: u64 = 8000;
/// How finely that is cut into turns.
const TURN: Duration = Duration::from_millis(1);
/// Bytes of a message, at most.
const MESSAGE_MAX: usize = 120;
const BACKLOG: i32 = 4096;
const LISTENER: Token = Token(usize::MAX);
const PIECE: usize = 256 * 1024;

/// Accepts any number of connections on one thread and sends back what comes.
#[derive(Debug)]
pub(crate) struct Echo {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// On a free port of 127.0.0.1.
    pub(crate) fn listen() -> Self {
        limits::raise_descriptors().unwrap();
        let listener = TcpListener::from_std(listening());
        let address = listener.local_addr().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&is_over);
        let thread = Some(thread::spawn(move || echo_all(listener, &shared)));
        Self {
            address,
            is_over,
            thread,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || !matches!(ended, Some(Err(_))));
    }
}

/// What came from a client and has not gone back.
#[derive(Debug)]
struct Echoing {
    stream: TcpStream,
    pending: Vec<u8>,
}

fn listening() -> std::net::TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    socket.listen(BACKLOG).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.into()
}

fn echo_all(mut listener: TcpListener, is_over: &AtomicBool) {
    let mut poll = Poll::new().unwrap();
    let registry = poll.registry().try_clone().unwrap();
    registry
        .register(&mut listener, LISTENER, Interest::READABLE)
        .unwrap();
    let (mut connections, mut events) = (Slab::new(), Events::with_capacity(1024));
    while !is_over.load(Ordering::SeqCst) {
        poll_for(&mut poll, &mut events, Duration::from_millis(100));
        for event in &events {
            if event.token() == LISTENER {
                accept_all(&listener, &registry, &mut connections);
                continue;
            }
            let key = event.token().0;
            if connections.get_mut(key).is_some_and(|it| !echo(it)) {
                drop(connections.remove(key));
            }
        }
    }
}

fn poll_for(poll: &mut Poll, events: &mut Events, time: Duration) {
    match poll.poll(events, Some(time)) {
        Err(error) if error.kind() != ErrorKind::Interrupted => panic!("poll: {error}"),
        _ => {}
    }
}

fn accept_all(listener: &TcpListener, registry: &mio::Registry, to: &mut Slab<Echoing>) {
    while let Ok((stream, _)) = listener.accept() {
        // It fails only where the peer has gone already.
        drop(stream.set_nodelay(true));
        let entry = to.vacant_entry();
        let token = Token(entry.key());
        let echoing = entry.insert(Echoing {
            stream,
            pending: Vec::new(),
        });
        let interests = Interest::READABLE | Interest::WRITABLE;
        registry
            .register(&mut echoing.stream, token, interests)
            .unwrap();
    }
}

/// Whether it goes on.
fn echo(it: &mut Echoing) -> bool {
    let mut buffer = [0; 16 * 1024];
    loop {
        while !it.pending.is_empty() {
            match it.stream.write(&it.pending) {
                Ok(written) => drop(it.pending.drain(..written)),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        match it.stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(read) => it.pending.extend(&buffer[..read]),
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// Ping-pong connections through a program to an [`Echo`].
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Report>>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    /// How often somebody wants to know that all connections go on.
    asked: AtomicU64,
    /// Up to which question all of them have shown it.
    answered: AtomicU64,
    /// Nanoseconds.
    longest_wait: AtomicU64,
}

/// What became of all connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// Messages that came back.
    pub(crate) echoes: u64,
    /// Bytes that went there and back.
    pub(crate) bytes: u64,
    /// In words, those that ended before they were to, or by other than FIN.
    pub(crate) lost: Vec<String>,
    /// In words, those that brought other bytes.
    pub(crate) wrong: Vec<String>,
}

impl Load {
    /// Connects so many clients and lets each send a message in turn.
    #[track_caller]
    pub(crate) fn start(address: SocketAddr, connections: usize) -> Self {
        limits::raise_descriptors().unwrap();
        let shared = Arc::new(Shared::default());
        let mut players: Vec<_> = (0..connections)
            .map(|number| Player::connect(address, number))
            .collect();
        let seen = Arc::clone(&shared);
        let thread = thread::spawn(move || Play::new(&mut players, &seen).run());
        let load = Self {
            shared,
            thread: Some(thread),
        };
        load.goes_on();
        load
    }

    /// Waits until each connection has sent a message from now on, and has it back.
    #[track_caller]
    pub(crate) fn goes_on(&self) {
        let question = self.shared.asked.fetch_add(1, Ordering::SeqCst) + 1;
        eventually("an echo on each connection", || {
            let is_over = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
            is_over || self.shared.answered.load(Ordering::SeqCst) >= question
        });
    }

    /// The longest that a message has waited for its echo since this was asked last.
    pub(crate) fn longest_wait(&self) -> Duration {
        Duration::from_nanos(self.shared.longest_wait.swap(0, Ordering::SeqCst))
    }

    /// Ends all connections in order.
    #[track_caller]
    pub(crate) fn end(mut self) -> Report {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("it ends once");
        thread.join().expect("the load runs to its end")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
    }
}

/// One client.
#[derive(Debug)]
struct Player {
    number: usize,
    stream: TcpStream,
    sent: Blocks,
    received: Blocks,
    /// When the message was sent that is not back.
    since: Option<Now>,
    /// The question that it was sent after.
    question: u64,
    /// The question that it has answered.
    answered: u64,
    is_over: bool,
}

impl Player {
    #[track_caller]
    fn connect(address: SocketAddr, number: usize) -> Self {
        let stream = peers::connect(address);
        stream.set_nonblocking(true).unwrap();
        Self {
            number,
            stream: TcpStream::from_std(stream),
            sent: Blocks::new(number as u64),
            received: Blocks::new(number as u64),
            since: None,
            question: 0,
            answered: 0,
            is_over: false,
        }
    }

    /// A message always has room: the one before it is back.
    fn send(&mut self, now: Now, question: u64) -> io::Result<()> {
        let mut message = [0; MESSAGE_MAX];
        let length = 8 + fastrand::usize(..MESSAGE_MAX - 8);
        self.sent.fill(&mut message[..length]);
        (self.since, self.question) = (Some(now), question);
        self.stream.write_all(&message[..length])
    }

    /// Reads what is there; whether the message is back.
    fn receive(&mut self) -> Result<bool, Trouble> {
        let mut buffer = [0; 2 * MESSAGE_MAX];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Trouble::Ended("FIN".into())),
                Ok(read) => self
                    .received
                    .check(&buffer[..read])
                    .map_err(Trouble::Wrong)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(Trouble::Ended(error.to_string())),
            }
        }
        let is_back = self.received.position() == self.sent.position();
        Ok(self.since.is_some() && is_back)
    }
}

#[derive(Debug)]
enum Trouble {
    Ended(String),
    Wrong(String),
}

/// The thread that plays all clients.
struct Play<'a> {
    players: &'a mut [Player],
    shared: &'a Shared,
    poll: Poll,
    report: Report,
    /// Who sends next.
    next: usize,
    /// The question that is being answered, and how many have.
    question: u64,
    answers: usize,
}

impl<'a> Play<'a> {
    fn new(players: &'a mut [Player], shared: &'a Shared) -> Self {
        let poll = Poll::new().unwrap();
        for (index, player) in players.iter_mut().enumerate() {
            let token = Token(index);
            let registry = poll.registry();
            registry
                .register(&mut player.stream, token, Interest::READABLE)
                .unwrap();
        }
        Self {
            players,
            shared,
            poll,
            report: Report::default(),
            next: 0,
            question: 0,
            answers: 0,
        }
    }

    fn run(mut self) -> Report {
        let begun = Now::read();
        let (mut turns, mut events) = (0, Events::with_capacity(1024));
        while !self.shared.is_over.load(Ordering::SeqCst) {
            let now = Now::read();
            let due = u64::try_from(now.since(begun).as_micros()).unwrap() * RATE / 1_000_000;
            // What was missed while nothing came back is not made up for.
            for _ in 0..(due - turns).min(self.players.len() as u64) {
                self.send_next(now);
            }
            turns = due;
            self.gather(&mut events);
        }
        self.finish(&mut events);
        self.report.bytes = self.players.iter().map(|it| it.received.position()).sum();
        self.report
    }

    fn send_next(&mut self, now: Now) {
        let index = self.next;
        self.next = (index + 1) % self.players.len();
        let player = &mut self.players[index];
        if player.is_over || player.since.is_some() {
            return;
        }
        if let Err(error) = player.send(now, self.shared.asked.load(Ordering::SeqCst)) {
            self.trouble(index, Trouble::Ended(error.to_string()));
        }
    }

    fn gather(&mut self, events: &mut Events) {
        poll_for(&mut self.poll, events, TURN);
        let now = Now::read();
        for event in events.iter() {
            let index = event.token().0;
            if self.players[index].is_over {
                continue;
            }
            match self.players[index].receive() {
                Ok(true) => self.echoed(index, now),
                Ok(false) => {}
                Err(trouble) => self.trouble(index, trouble),
            }
        }
        self.answer();
    }

    fn echoed(&mut self, index: usize, now: Now) {
        let player = &mut self.players[index];
        let waited = player
            .since
            .take()
            .map_or(Duration::ZERO, |since| now.since(since));
        let waited = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        self.shared.longest_wait.fetch_max(waited, Ordering::SeqCst);
        self.report.echoes += 1;
        if player.question > player.answered {
            player.answered = player.question;
        }
    }

    /// Says so when all have answered the question that was asked last.
    fn answer(&mut self) {
        let asked = self.shared.asked.load(Ordering::SeqCst);
        if self.shared.answered.load(Ordering::SeqCst) == asked {
            return;
        }
        if self.question != asked {
            (self.question, self.answers) = (asked, 0);
        }
        // Those before it have answered.
        let rest = &self.players[self.answers..];
        let answered = rest
            .iter()
            .take_while(|it| it.is_over || it.answered >= asked);
        self.answers += answered.count();
        if self.answers == self.players.len() {
            self.shared.answered.store(asked, Ordering::SeqCst);
        }
    }

    /// Waits for the last echoes, then ends each connection and waits for the answer to that.
    fn finish(&mut self, events: &mut Events) {
        let deadline = Now::read() + DEADLINE;
        let waits = |it: &Player| !it.is_over && it.since.is_some();
        while self.players.iter().any(waits) && Now::read() < deadline {
            self.gather(events);
        }
        for index in 0..self.players.len() {
            if waits(&self.players[index]) {
                self.trouble(index, Trouble::Ended("silence".into()));
            } else if !self.players[index].is_over {
                self.end(index);
            }
        }
        let waits = |it: &Player| !it.is_over;
        while self.players.iter().any(waits) && Now::read() < deadline {
            poll_for(&mut self.poll, events, TURN);
            for event in events.iter() {
                self.await_fin(event.token().0);
            }
        }
        for index in 0..self.players.len() {
            if waits(&self.players[index]) {
                self.trouble(index, Trouble::Ended("no FIN".into()));
            }
        }
    }

    fn end(&mut self, index: usize) {
        if let Err(error) = self.players[index].stream.shutdown(Shutdown::Write) {
            self.trouble(index, Trouble::Ended(error.to_string()));
        }
    }

    fn await_fin(&mut self, index: usize) {
        let player = &mut self.players[index];
        if player.is_over {
            return;
        }
        match player.stream.read(&mut [0]) {
            Ok(0) => player.is_over = true,
            Ok(_) => self.trouble(index, Trouble::Wrong("a byte too many".into())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => self.trouble(index, Trouble::Ended(error.to_string())),
        }
    }

    fn trouble(&mut self, index: usize, trouble: Trouble) {
        let player = &mut self.players[index];
        player.is_over = true;
        let place = format!("{} at {}", player.number, player.received.position());
        match trouble {
            Trouble::Ended(how) => self.report.lost.push(format!("{place}: {how}")),
            Trouble::Wrong(what) => self.report.wrong.push(format!("{place}: {what}")),
        }
    }
}

/// Streams that go on until they are told to end, every other one upstream, through a program to a
/// server of its own. Half of the receivers are slow, so that bytes are held all the way.
#[derive(Debug)]
pub(crate) struct Bulk {
    is_over: Arc<AtomicBool>,
    streams: Vec<JoinHandle<[u64; 2]>>,
}

/// What ends such streams.
#[derive(Debug)]
pub(crate) struct BulkServer {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    is_gone: Arc<AtomicBool>,
}

impl BulkServer {
    /// On a free port of 127.0.0.1.
    pub(crate) fn listen() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (is_over, is_gone) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let shared = (Arc::clone(&is_over), Arc::clone(&is_gone));
        thread::spawn(move || {
            let is_served = |_: &io::Result<_>| !shared.1.load(Ordering::SeqCst);
            for stream in listener.incoming().take_while(is_served) {
                let is_over = Arc::clone(&shared.0);
                thread::spawn(move || serve_bulk(stream.unwrap(), &is_over));
            }
        });
        Self {
            address,
            is_over,
            is_gone,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for BulkServer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.is_gone.store(true, Ordering::SeqCst);
        // Wakes the accept.
        drop(std::net::TcpStream::connect(self.address));
    }
}

impl Bulk {
    /// So many through `address` to the server.
    #[track_caller]
    pub(crate) fn start(address: SocketAddr, server: &BulkServer, count: u64) -> Self {
        let is_over = Arc::clone(&server.is_over);
        let stream = |seed| {
            let (stream, is_over) = (peers::connect(address), Arc::clone(&is_over));
            thread::spawn(move || bulk(stream, seed, &is_over))
        };
        let streams = (0..count).map(stream).collect();
        Self { is_over, streams }
    }

    /// Ends them; the bytes that went upstream and downstream, each of which was right.
    #[track_caller]
    pub(crate) fn end(self) -> [u64; 2] {
        self.is_over.store(true, Ordering::SeqCst);
        let mut sum = [0; 2];
        for stream in self.streams {
            let bytes = stream.join().expect("the stream came whole");
            sum = [sum[0] + bytes[0], sum[1] + bytes[1]];
        }
        sum
    }
}

/// Reads no faster than this lets it.
struct Slow<'a>(&'a mut std::net::TcpStream, bool);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.1 {
            pause(Duration::from_millis(2));
        }
        self.0.read(buffer)
    }
}

fn is_slow(seed: u64) -> bool {
    seed % 4 > 1
}

fn is_upstream(seed: u64) -> bool {
    seed.is_multiple_of(2)
}

/// The bytes that went upstream and downstream.
fn bulk(mut stream: std::net::TcpStream, seed: u64, is_over: &AtomicBool) -> [u64; 2] {
    stream.write_all(&seed.to_be_bytes()).unwrap();
    if !is_upstream(seed) {
        let received = Blocks::new(seed).receive_to_end(&mut Slow(&mut stream, is_slow(seed)));
        assert_eq!(received.finish, Finish::Fin);
        return [8, received.bytes];
    }
    let sent = send_until(&mut stream, seed, is_over);
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(u64::from_be_bytes(answer), sent, "all of it has arrived");
    stream.expect_fin();
    [8 + sent, 8]
}

fn serve_bulk(mut stream: std::net::TcpStream, is_over: &AtomicBool) {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    let mut seed = [0; 8];
    stream.read_exact(&mut seed).unwrap();
    let seed = u64::from_be_bytes(seed);
    if is_upstream(seed) {
        let received = Blocks::new(seed).receive_to_end(&mut Slow(&mut stream, is_slow(seed)));
        assert_eq!(received.finish, Finish::Fin);
        stream.write_all(&received.bytes.to_be_bytes()).unwrap();
    } else {
        send_until(&mut stream, seed, is_over);
        stream.expect_fin();
    }
}

fn send_until(stream: &mut std::net::TcpStream, seed: u64, is_over: &AtomicBool) -> u64 {
    let mut blocks = Blocks::new(seed);
    while !is_over.load(Ordering::SeqCst) {
        blocks.send(stream, PIECE as u64).unwrap();
        // A stream that is never short of time leaves none to the others.
        pause(Duration::from_millis(1));
    }
    stream.end();
    blocks.position()
}

/// Clients that come one after the other, each with a message, until they are told to end.
#[derive(Debug)]
pub(crate) struct Visitors {
    shared: Arc<Visited>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Visited {
    is_over: AtomicBool,
    served: AtomicU64,
}

/// Bytes of a visitor's message, which come back.
pub(crate) const VISIT_BYTES: u64 = 8;

impl Visitors {
    /// Through `address` to whoever echoes.
    pub(crate) fn start(address: SocketAddr) -> Self {
        let shared = Arc::new(Visited::default());
        let seen = Arc::clone(&shared);
        let thread = Some(thread::spawn(move || {
            while !seen.is_over.load(Ordering::SeqCst) {
                let number = seen.served.load(Ordering::SeqCst);
                visit(address, number).unwrap_or_else(|error| panic!("visitor {number}: {error}"));
                seen.served.fetch_add(1, Ordering::SeqCst);
                pause(Duration::from_millis(3));
            }
        }));
        Self { shared, thread }
    }

    /// Waits for some more.
    #[track_caller]
    pub(crate) fn go_on(&self) {
        let before = self.shared.served.load(Ordering::SeqCst);
        eventually("new clients are served", || {
            let is_over = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
            is_over || self.shared.served.load(Ordering::SeqCst) > before + 2
        });
    }

    /// Ends them: how many there were. Panics where one was not served.
    #[track_caller]
    pub(crate) fn end(mut self) -> u64 {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("it ends once");
        thread.join().expect("every client was served");
        self.shared.served.load(Ordering::SeqCst)
    }
}

impl Drop for Visitors {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
    }
}

fn visit(address: SocketAddr, number: u64) -> io::Result<()> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let message = number.to_be_bytes();
    stream.write_all(&message)?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer)?;
    assert_eq!(answer, message);
    stream.shutdown(Shutdown::Write)?;
    match stream.read(&mut answer)? {
        0 => Ok(()),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}
