//! Flows that are told and taken up in the middle of everything, over real sockets and a real epoll: what
//! comes out is what went in, and an end or a failure is not forgotten.
//!
//! A failure prints its seed; `EVENKEEL_SEED=n cargo test handed_over` starts with that connection.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use fastrand::Rng;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::Socket;

use super::script::pipes_for_tests;
use crate::clock::Now;
use crate::relay::flow::Source;
use crate::relay::mode::Mode;
use crate::relay::pipe_cache::{Pipe, PipeCache};
use crate::relay::state::HeldState;
use crate::relay::{BUFFER_BYTES, Ends, Flow, FlowState, Lent, Progress, ThawError, Turn};
use crate::sys::{self, splice};

const CONNECTIONS: u64 = 24;
const BYTES_MAX: usize = 2 * 1024 * 1024;
const PIPES: usize = 4;
/// Longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(30);
const SOURCE: Token = Token(0);
const TARGET: Token = Token(1);

/// Two sockets that are joined, the first one a peer's.
fn joined(is_unix: bool) -> (Socket, Socket) {
    let (peer, ours): (Socket, Socket) = if is_unix {
        let (peer, ours) = UnixStream::pair().unwrap();
        (peer.into(), ours.into())
    } else {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (peer.into(), listener.accept().unwrap().0.into())
    };
    for socket in [&peer, &ours] {
        socket.set_nonblocking(true).unwrap();
        // So that a few hundred kilobytes block it.
        socket.set_send_buffer_size(32 * 1024).unwrap();
        if !is_unix {
            socket.set_tcp_nodelay(true).unwrap();
        }
    }
    (peer, ours)
}

struct Link<'a>(&'a Socket, &'a Socket);

impl Ends for Link<'_> {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }

    fn send(&mut self, bytes: &[u8], is_last: bool) -> io::Result<usize> {
        sys::socket::send(self.1, bytes, is_last)
    }

    fn splice_in(&mut self, pipe: &Pipe, bytes: usize) -> io::Result<usize> {
        splice::splice(self.0.as_fd(), pipe.write_end(), bytes)
    }

    fn splice_out(&mut self, pipe: &Pipe, bytes: usize) -> io::Result<usize> {
        splice::splice(pipe.read_end(), self.1.as_fd(), bytes)
    }

    fn unload(&mut self, pipe: &Pipe, buffer: &mut [u8]) -> io::Result<usize> {
        splice::read_pipe(pipe.read_end(), buffer)
    }

    fn disable_nagle(&mut self) {}
}

/// What one process has of a connection: a flow, both sockets under its own descriptors, and an epoll
/// that they were added to after the flow was there.
struct Process {
    flow: Flow,
    pipes: PipeCache,
    source: Socket,
    target: Socket,
    poll: Poll,
    buffer: Vec<u8>,
    has_passed_end_on: bool,
}

impl Process {
    fn new(flow: Flow, pipes: PipeCache, source: Socket, target: Socket) -> Self {
        let poll = Poll::new().unwrap();
        let both = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        for (socket, token) in [(&source, SOURCE), (&target, TARGET)] {
            let mut fd = SourceFd(&socket.as_raw_fd());
            poll.registry().register(&mut fd, token, both).unwrap();
        }
        Self {
            flow,
            pipes,
            source,
            target,
            poll,
            buffer: vec![0; BUFFER_BYTES],
            has_passed_end_on: false,
        }
    }

    /// As a worker does it, for one direction.
    fn note(&mut self, event: &Event) {
        let has_failed = event.is_error() || event.is_write_closed();
        if event.token() == TARGET {
            if event.is_writable() || has_failed {
                self.flow.target_is_ready();
            }
            return;
        }
        if event.is_priority() {
            self.flow.source_is_urgent();
        }
        if event.is_readable() || has_failed {
            self.flow.source_is_ready();
        }
        if event.is_error() {
            self.flow.doom();
        } else if event.is_read_closed() {
            self.flow.source_is_ending();
        }
    }

    fn serve(&mut self, wait: Duration) {
        let mut events = Events::with_capacity(4);
        self.poll.poll(&mut events, Some(wait)).unwrap();
        for event in &events {
            self.note(event);
        }
        let mut lent = Lent {
            buffer: &mut self.buffer,
            pipes: &mut self.pipes,
            now: Now::read(),
        };
        while self
            .flow
            .turn(&mut Link(&self.source, &self.target), &mut lent)
            == Turn::Again
        {}
        if self.flow.progress() == Progress::Ended && !self.has_passed_end_on {
            self.has_passed_end_on = true;
            self.target.shutdown(Shutdown::Write).unwrap();
        }
    }

    /// The process that comes next; this one is left as it is.
    fn next(&self) -> (Self, FlowState) {
        let (state, ends) = self.flow.freeze();
        let text = serde_json::to_string(&state).unwrap();
        let told: FlowState = serde_json::from_str(&text).unwrap();
        assert_eq!(told, state, "{text}");
        let ends = ends.map(|ends| ends.map(|end| end.try_clone_to_owned().unwrap()));
        let mut pipes = pipes_for_tests(PIPES);
        let flow = Flow::thaw(told, ends, &mut pipes).unwrap();
        let is_pipe = matches!(state.held, HeldState::Pipe(_));
        assert_eq!(pipes.lent(), usize::from(is_pipe));
        let sockets = [&self.source, &self.target].map(|socket| socket.try_clone().unwrap());
        let [source, target] = sockets;
        let mut next = Self::new(flow, pipes, source, target);
        next.has_passed_end_on = self.has_passed_end_on;
        (next, state)
    }
}

/// How often a flow was handed over with what.
#[derive(Debug, Default)]
struct Seen {
    nothing: u32,
    header: u32,
    stash: u32,
    pipe: u32,
    splicing: u32,
    ending: u32,
}

impl Seen {
    fn note(&mut self, state: &FlowState) {
        let held = match state.held {
            HeldState::Nothing => &mut self.nothing,
            HeldState::Header(_) => &mut self.header,
            HeldState::Stash(_) => &mut self.stash,
            HeldState::Pipe(_) => &mut self.pipe,
        };
        *held += 1;
        self.splicing += u32::from(matches!(state.mode, Mode::Splice { .. }));
        self.ending += u32::from(state.source_ending);
    }
}

/// Prints the seed of a connection that fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay it with EVENKEEL_SEED={}", self.0);
        }
    }
}

/// A connection whose peers write and read at random, while processes follow one another.
struct Life {
    rng: Rng,
    process: Process,
    /// The source's peer, until it has sent everything.
    from: Option<Socket>,
    to: Socket,
    bytes: Vec<u8>,
    written: usize,
    got: Vec<u8>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (from, source) = joined(rng.bool());
        let (to, target) = joined(rng.bool());
        let mut bytes = vec![0; rng.usize(1..BYTES_MAX)];
        rng.fill(&mut bytes);
        let mut flow = Flow::default();
        let header = rng.usize(..2) * rng.usize(..bytes.len().min(500));
        flow.begin_with(bytes[..header].to_vec());
        Self {
            process: Process::new(flow, pipes_for_tests(PIPES), source, target),
            rng,
            from: Some(from),
            to,
            bytes,
            written: header,
            got: Vec::new(),
        }
    }

    fn write(&mut self, most: usize) {
        let Some(from) = &mut self.from else { return };
        let end = self.bytes.len().min(self.written + most);
        match from.write(&self.bytes[self.written..end]) {
            Ok(sent) => self.written += sent,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        if self.written == self.bytes.len() {
            self.from = None;
        }
    }

    /// True at the end.
    fn read(&mut self, most: usize) -> bool {
        let before = self.got.len();
        self.got.resize(before + most, 0);
        let came = match self.to.read(&mut self.got[before..]) {
            Ok(came) => Some(came),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        };
        self.got.truncate(before + came.unwrap_or(0));
        came == Some(0)
    }

    fn hand_over(&mut self, seen: &mut Seen) {
        let (next, state) = self.process.next();
        seen.note(&state);
        if self.rng.u8(..4) > 0 {
            self.process = next;
        }
        // Else the next one fails, and the old one goes on as if nothing had happened.
    }

    fn live(mut self, seen: &mut Seen) {
        // The one moment at which a header is sure to be held.
        self.hand_over(seen);
        for _ in 0..self.rng.usize(10..200) {
            match self.rng.u8(..10) {
                0..4 => {
                    let most = *self.rng.choice(&[100, 20_000, 300_000]).unwrap();
                    self.write(most);
                }
                4..5 => {
                    let most = self.rng.usize(1..100_000);
                    self.read(most);
                }
                5..8 => self.process.serve(Duration::ZERO),
                _ => self.hand_over(seen),
            }
        }
        let begun = Now::read();
        while !self.read(100_000) {
            assert!(Now::read().since(begun) < DEADLINE, "it does not end");
            self.write(300_000);
            self.process.serve(Duration::from_millis(1));
            if self.rng.u8(..8) == 0 {
                self.hand_over(seen);
            }
        }
        assert!(
            self.got == self.bytes,
            "bytes were lost, doubled or changed"
        );
        assert_eq!(self.process.pipes.lent(), 0);
    }
}

#[test]
fn bytes_are_whole_wherever_a_flow_is_handed_over() {
    let given = std::env::var("EVENKEEL_SEED").ok();
    let first = given.map_or_else(|| fastrand::u64(..1 << 48), |seed| seed.parse().unwrap());
    let mut seen = Seen::default();
    for seed in first..first + CONNECTIONS {
        let guard = Seed(seed);
        Life::new(seed).live(&mut seen);
        drop(guard);
    }
    eprintln!("from seed {first}: {seen:?}");
    let Seen {
        nothing,
        header,
        stash,
        pipe,
        splicing,
        ending,
    } = seen;
    let rarest = [nothing, header, stash, pipe, splicing, ending];
    assert!(rarest.iter().all(|count| *count > 0), "{seen:?}");
}

/// Serves until the flow has come so far, and reads what comes meanwhile.
#[track_caller]
fn serve_until(process: &mut Process, to: &mut Socket, wanted: Progress) -> usize {
    let (begun, mut got) = (Now::read(), 0);
    let mut buffer = vec![0; 100_000];
    loop {
        got += to.read(&mut buffer).unwrap_or(0);
        process.serve(Duration::from_millis(1));
        if process.flow.progress() == wanted {
            // What is on its way.
            while let Ok(more @ 1..) = to.read(&mut buffer) {
                got += more;
            }
            return got;
        }
        assert!(Now::read().since(begun) < DEADLINE, "{:?}", process.flow);
    }
}

#[test]
fn a_failure_behind_bytes_is_delivered_after_them_by_the_next_process() {
    let ((mut from, source), (mut to, target)) = (joined(false), joined(true));
    let mut process = Process::new(Flow::default(), pipes_for_tests(PIPES), source, target);
    let mut written = 0;
    // Until nothing goes in any more: the target is blocked, and bytes are held.
    while let Ok(sent) = from.write(&[7; 50_000]) {
        written += sent;
        process.serve(Duration::from_millis(1));
    }
    assert!(process.flow.is_holding());
    from.set_linger(Some(Duration::ZERO)).unwrap();
    drop(from);
    let begun = Now::read();
    while process.flow.freeze().0.source == Source::Open {
        assert!(Now::read().since(begun) < DEADLINE);
        process.serve(Duration::from_millis(1));
    }
    // As if a write of the opposite flow had been told: nobody will be told again.
    process.source.take_error().unwrap();
    let (mut next, state) = process.next();
    assert_eq!(state.source, Source::Doomed);
    drop(process);
    let got = serve_until(&mut next, &mut to, Progress::SourceFailed);
    // The reset took what had not reached us.
    assert!(got > 0 && got <= written);
    assert_eq!(next.flow.delivered(), got as u64);
}

#[test]
fn a_doomed_source_without_any_event_comes_to_its_end() {
    let ((_from, source), (mut to, target)) = (joined(true), joined(true));
    let mut flow = Flow::default();
    flow.doom();
    let process = Process::new(flow, pipes_for_tests(PIPES), source, target);
    let (mut next, _) = process.next();
    drop(process);
    serve_until(&mut next, &mut to, Progress::SourceFailed);
}

#[test]
fn a_target_that_has_failed_stays_so() {
    let ((mut from, source), (to, target)) = (joined(true), joined(true));
    drop(to);
    from.write_all(b"x").unwrap();
    let mut process = Process::new(Flow::default(), pipes_for_tests(PIPES), source, target);
    process.serve(DEADLINE);
    assert_eq!(process.flow.progress(), Progress::TargetFailed);
    assert_eq!(process.next().0.flow.progress(), Progress::TargetFailed);
}

/// The text is that of the first version, and every later one must read it.
#[test]
fn format_1_is_read() {
    let read = |text: &str| serde_json::from_str::<FlowState>(text).unwrap();
    assert_eq!(read("{}"), Flow::default().freeze().0);
    let text = r#"{"held":{"stash":"aGVsZA=="},"delivered":17000000000,"mode":{"splice":{"small":2}},
        "source":"doomed","target_failed":true,"source_ending":true,"urgent":true,"later":[]}"#;
    let state = FlowState {
        held: HeldState::Stash(b"held".to_vec()),
        delivered: 17_000_000_000,
        mode: Mode::Splice { small: 2 },
        source: Source::Doomed,
        target_failed: true,
        source_ending: true,
        urgent: true,
    };
    assert_eq!(read(text), state);
    let held = [
        (r#"{"held":"nothing"}"#, HeldState::Nothing),
        (
            r#"{"held":{"header":"/w=="}}"#,
            HeldState::Header(vec![255]),
        ),
        (r#"{"held":{"pipe":65536}}"#, HeldState::Pipe(65536)),
    ];
    for (text, held) in held {
        assert_eq!(read(text).held, held);
    }
    let modes = [
        (r#"{"mode":{"copy":{"full":1}}}"#, Mode::Copy { full: 1 }),
        (r#"{"mode":"pinned"}"#, Mode::Pinned),
    ];
    for (text, mode) in modes {
        assert_eq!(read(text).mode, mode);
    }
    for (word, source) in [("ended", Source::Ended), ("failed", Source::Failed)] {
        assert_eq!(read(&format!(r#"{{"source":"{word}"}}"#)).source, source);
    }
}

#[test]
fn a_flow_that_holds_nothing_costs_few_bytes() {
    let text = |flow: &Flow| serde_json::to_string(&flow.freeze().0).unwrap();
    assert_eq!(text(&Flow::default()), "{}");
}

#[test]
fn counts_from_elsewhere_do_no_harm() {
    let mode = Mode::Copy { full: u8::MAX }.after_read(true);
    assert_eq!(mode, Mode::Splice { small: 0 });
    assert_eq!(
        Mode::Splice { small: u8::MAX }.after_fill(1),
        Mode::default()
    );
}

#[test]
fn what_is_not_there_is_not_taken_up() {
    let mut pipes = pipes_for_tests(PIPES);
    let mut thaw = |held, pipe| {
        let state = FlowState {
            held,
            ..FlowState::default()
        };
        let error = Flow::thaw(state, pipe, &mut pipes).unwrap_err();
        assert_eq!(pipes.lent(), 0);
        error
    };
    let pipe = |bytes: usize| {
        let (read, write) = splice::pipe().unwrap();
        let (mut peer, ours) = UnixStream::pair().unwrap();
        peer.write_all(&vec![1; bytes]).unwrap();
        if bytes > 0 {
            splice::splice(ours.as_fd(), write.as_fd(), bytes).unwrap();
        }
        Some([read, write])
    };
    let none = || Some([joined(true).0.into(), joined(true).1.into()]);
    assert_eq!(thaw(HeldState::Stash(vec![]), None), ThawError::Empty);
    assert_eq!(thaw(HeldState::Header(vec![]), None), ThawError::Empty);
    assert_eq!(thaw(HeldState::Pipe(0), pipe(0)), ThawError::Empty);
    assert_eq!(thaw(HeldState::Pipe(9), None), ThawError::PipeMissing);
    assert_eq!(thaw(HeldState::Nothing, pipe(0)), ThawError::PipeUnknown);
    for (said, held) in [(9, 10), (10, 9), (9, 0)] {
        let error = thaw(HeldState::Pipe(said), pipe(held));
        assert_eq!(error, ThawError::PipeCount { said, held });
    }
    let error = thaw(HeldState::Pipe(9), none());
    assert!(matches!(error, ThawError::NoPipe(_)), "{error}");
}
