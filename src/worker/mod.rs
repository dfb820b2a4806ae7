//! A worker: one mio loop on one thread, with its own listening sockets, connections, timers, pipes
//! and view of the pools. It never blocks, and it is the only one that acts on a [`Step`].
//!
//! A turn of the loop: wait; dispatch each event by its token; give the run queue one round; expire
//! timers. Every part has a budget, so a turn is bounded and nobody starves (trap 12). Edge-triggered
//! readiness that a budget cut short is kept in the flow and the run queue, because the kernel will
//! not report it again (trap 2).

mod accept;
mod connect;
mod connection;
mod link;
mod share;
mod table;
mod token;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use mio::event::Event;
use mio::{Events, Interest, Poll};

pub use self::accept::{Accepted, Door};
use self::connection::{Connection, Ended, Phase, Step};
use self::share::Churn;
use self::table::Table;
use self::token::{About, Key};
use crate::clock::{self, Now};
use crate::config;
use crate::end::{End, Side};
use crate::mailbox::{Mailbox, Outbox};
use crate::pool::{Pools, Verdict};
use crate::relay::pipe_cache::{PipeCache, Quota};
use crate::relay::{BUFFER_BYTES, Lent};
use crate::sys;
use crate::telemetry::access_log::{Record, Recorder};
use crate::telemetry::counters::Counters;
use crate::timers::Timers;

/// Events of one wait. Fewer starve light connections behind busy ones (flux issue 67).
const EVENTS_MAX: usize = 1024;
/// Messages taken in one turn.
const MAIL_BUDGET: usize = 1024;
/// How often a lingering connection looks whether its bytes have arrived.
const LINGER_STEP: Duration = Duration::from_millis(10);
/// How long a peer may take nothing of what the failed one had sent before: it must not hold the
/// descriptors for ever.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// One registration for a socket's whole life, both directions; PRIORITY is for trap 3.
const BOTH_WAYS: Interest = Interest::READABLE
    .add(Interest::WRITABLE)
    .add(Interest::PRIORITY);

/// What a worker is told.
#[derive(Debug)]
pub enum Command {
    /// Start to accept at these.
    Open(Vec<Door>),
    /// The prober has found out.
    Verdict(Verdict),
    /// Serve a connection that another worker accepted.
    Adopt(Accepted),
    /// Accept what waits, close the doors, and report when no connection is left.
    Drain,
    /// End every connection and return.
    Stop,
}

/// What a worker reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained;

/// What a worker has in common with the other ones, and with the process.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How many workers there are, this one included, and how to reach each.
    pub outboxes: Vec<Outbox<Command>>,
    /// By `ListenerId`.
    pub listeners: Arc<[config::Listener]>,
    /// As they are at the start; each worker gets a clone.
    pub pools: Pools,
    /// This worker's share of pipe memory.
    pub quota: Quota,
    /// Where records of ended connections go, unless the access log is off.
    pub recorder: Option<Recorder>,
    /// Where it reports.
    pub reports: Sender<Drained>,
}

/// A worker's loop before the worker runs: its mailbox can be written to already.
#[derive(Debug)]
pub struct Loop {
    poll: Poll,
    mailbox: Mailbox<Command>,
}

impl Loop {
    /// An epoll instance and the way to reach it.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> io::Result<(Outbox<Command>, Self)> {
        let poll = Poll::new()?;
        let (outbox, mailbox) = Mailbox::new(poll.registry(), About::Mailbox.token())?;
        Ok((outbox, Self { poll, mailbox }))
    }
}

/// One event loop with all that it owns.
#[derive(Debug)]
pub struct Worker {
    /// Counted from 0 over the workers of the process.
    index: usize,
    poll: Poll,
    mailbox: Mailbox<Command>,
    setup: Setup,
    counters: Arc<Counters>,
    doors: Vec<Door>,
    /// Accepting is paused until then, for want of descriptors or memory (trap 14).
    paused_until: Option<Now>,
    /// When the last pause was logged.
    pause_told: Option<Now>,
    churn: Churn,
    table: Table,
    timers: Timers,
    /// Connections whose budget was used up, each at most once.
    run_queue: VecDeque<Key>,
    pipes: PipeCache,
    /// All copies go through here: it stays in the core's cache.
    buffer: Box<[u8]>,
    random: fastrand::Rng,
    /// Connections given an id so far.
    named: u64,
    /// Turns of the loop so far.
    turn: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Serving,
    /// No doors; `Drained` is reported when the table is empty.
    Draining,
    Drained,
    Stopped,
}

impl Worker {
    /// A worker that accepts nothing yet.
    pub fn new(index: usize, ready: Loop, mut setup: Setup, counters: Arc<Counters>) -> Self {
        let Loop { poll, mailbox } = ready;
        setup.pools = setup.pools.for_worker(index);
        let now = Now::read();
        Self {
            index,
            poll,
            mailbox,
            pipes: PipeCache::new(setup.quota),
            setup,
            counters,
            doors: Vec::new(),
            paused_until: None,
            pause_told: None,
            churn: Churn::default(),
            table: Table::default(),
            timers: Timers::new(now),
            run_queue: VecDeque::new(),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            random: fastrand::Rng::new(),
            named: 0,
            turn: 0,
            state: State::Serving,
        }
    }

    /// Serves until told to stop.
    ///
    /// # Errors
    /// Where epoll itself fails: the worker cannot go on.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        while self.state != State::Stopped {
            self.wait(&mut events)?;
            self.turn += 1;
            let now = Now::read();
            for event in &events {
                self.dispatch(event, now);
            }
            self.run_queued(now);
            self.resume(now);
            self.expire(now);
            self.report();
        }
        // What another worker handed over in the last moment is told of its end, too.
        self.read_mail(Now::read());
        Ok(())
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        match self.poll.poll(events, self.patience()) {
            // A signal interrupted the wait: there are no events.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// How long the next wait may take; `None` is for ever.
    fn patience(&self) -> Option<Duration> {
        if !self.run_queue.is_empty() {
            return Some(Duration::ZERO);
        }
        let now = Now::read();
        let pause = self.paused_until.map(|until| until.since(now));
        [self.timers.next(now), pause].into_iter().flatten().min()
    }

    fn dispatch(&mut self, event: &Event, now: Now) {
        match About::of(event.token()) {
            About::Mailbox => self.read_mail(now),
            About::Door(index) => self.visit(index, now),
            About::Socket(key, side) => self.on_socket(key, side, event, now),
        }
    }

    fn read_mail(&mut self, now: Now) {
        let mail: Vec<_> = self.mailbox.take(MAIL_BUDGET).collect();
        for command in mail {
            match command {
                Command::Open(doors) => self.open(doors),
                Command::Verdict(verdict) => self.setup.pools.apply(verdict),
                Command::Adopt(accepted) if self.state == State::Stopped => {
                    self.setup.pools.ledger().leave(self.index);
                    self.refuse(&accepted, End::Shutdown, now);
                }
                Command::Adopt(accepted) => self.adopt(accepted, now),
                Command::Drain => self.drain(now),
                Command::Stop => self.stop(now),
            }
        }
    }

    fn on_socket(&mut self, key: Key, side: Side, event: &Event, now: Now) {
        // A key whose generation has passed is an event of a socket that was closed (trap 15).
        let Some(connection) = self.table.find(key) else {
            return;
        };
        if let Phase::Connecting { since } = connection.phase
            && side == Side::Server
        {
            // What a try's socket reports says nothing about the next try's: it is noted once the
            // server is connected.
            return self.on_connect_event(key, event, since, now);
        }
        connection.note(side, event, now);
        match connection.phase {
            // Whoever reset before a server was there has nothing to be told and nothing to say.
            Phase::Connecting { .. } if event.is_error() => {
                self.end(key, End::reset(Side::Client), now);
            }
            Phase::Connecting { .. } => {}
            Phase::Relaying => {
                if event.is_error() {
                    self.watch(key);
                }
                self.relay(key, now);
            }
            Phase::Lingering { end, .. } => self.linger(key, end, now),
        }
    }

    /// Gives a connection's flows a turn.
    fn relay(&mut self, key: Key, now: Now) {
        let Self {
            table,
            buffer,
            pipes,
            ..
        } = self;
        let Some(connection) = table.find(key) else {
            return;
        };
        let before = connection.marks.ended;
        let step = connection.relay(&mut Lent { buffer, pipes, now });
        let has_new_deadline = connection.marks.ended != before;
        match step {
            Step::End(end) => return self.linger(key, end, now),
            Step::Again if !std::mem::replace(&mut connection.marks.is_queued, true) => {
                self.run_queue.push_back(key);
            }
            Step::Again | Step::Wait => {}
        }
        if has_new_deadline {
            self.watch(key);
        }
    }

    /// One round over those whose budget was used up; whoever asks again waits for the next turn.
    fn run_queued(&mut self, now: Now) {
        for _ in 0..self.run_queue.len() {
            let Some(key) = self.run_queue.pop_front() else {
                return;
            };
            let Some(connection) = self.table.find(key) else {
                continue;
            };
            connection.marks.is_queued = false;
            if connection.phase == Phase::Relaying {
                self.relay(key, now);
            }
        }
    }

    /// Arms the timer that ends a relaying connection. It is not moved with each byte: when it
    /// fires, it looks at when the last byte was.
    fn watch(&mut self, key: Key) {
        if let Some(connection) = self.table.find(key) {
            let (at, _) = deadline(connection, &self.setup.listeners);
            self.timers.arm(key.slot, at);
        }
    }

    fn expire(&mut self, now: Now) {
        while let Some(slot) = self.timers.expire(now) {
            let Some(key) = self.table.at(slot) else {
                continue;
            };
            self.on_timer(key, now);
        }
    }

    fn on_timer(&mut self, key: Key, now: Now) {
        let Some(connection) = self.table.find(key) else {
            return;
        };
        match connection.phase {
            Phase::Connecting { since } => self.on_connect_timeout(key, since, now),
            Phase::Lingering { end, .. } => self.linger(key, end, now),
            Phase::Relaying => {
                let (at, end) = deadline(connection, &self.setup.listeners);
                if at <= now {
                    self.end(key, end, now);
                } else {
                    self.timers.arm(key.slot, at);
                }
            }
        }
    }

    /// Ends a connection, once the peer opposite to a failed one has got what was sent before.
    fn linger(&mut self, key: Key, end: End, now: Now) {
        let Some(connection) = self.table.find(key) else {
            return;
        };
        let left = match end {
            End::ClientReset => connection.bytes_on_the_way(Side::Server),
            End::ServerReset => connection.bytes_on_the_way(Side::Client),
            _ => 0,
        };
        let until = match connection.phase {
            Phase::Lingering {
                until,
                left: before,
                ..
            } if left >= before => until,
            _ => now + LINGER_MAX,
        };
        if left > 0 && now < until {
            connection.phase = Phase::Lingering { end, until, left };
            self.timers.arm(key.slot, now + LINGER_STEP);
        } else {
            self.end(key, end, now);
        }
    }

    /// The one place where a connection leaves the table: places, pipes and timers are given back,
    /// the record is written, and the sockets are closed.
    fn end(&mut self, key: Key, end: End, now: Now) {
        let Some(mut connection) = self.table.remove(key) else {
            return;
        };
        self.timers.disarm(key.slot);
        connection.upstream.release(&mut self.pipes);
        connection.downstream.release(&mut self.pipes);
        let pools = &self.setup.pools;
        if let Some(server) = connection.server {
            pools.release(server);
        }
        pools.ledger().leave(self.index);
        if !end.is_orderly() {
            connection.reset_on_close();
        }
        self.churn.note_end(connection.times.accepted, now);
        self.record(&Record {
            time: clock::wall(),
            id: connection.id,
            listener: connection.listener,
            client: connection.client_address,
            server: connection.server.or(connection.tried.last().copied()),
            upstream_bytes: connection.upstream.delivered(),
            downstream_bytes: connection.downstream.delivered(),
            connect: connection.times.connect,
            duration: now.since(connection.times.accepted),
            end,
        });
        if let Some(server) = connection.server_socket {
            sys::socket::close_pair(connection.client.into(), server.socket.into());
        }
    }

    /// Counts and logs a connection that has ended.
    fn record(&self, record: &Record) {
        self.counters.ended(record.end).add(1);
        self.counters.upstream_bytes.add(record.upstream_bytes);
        self.counters.downstream_bytes.add(record.downstream_bytes);
        if self
            .setup
            .recorder
            .as_ref()
            .is_some_and(|recorder| !recorder.put(*record))
        {
            self.counters.lines_dropped.add(1);
        }
    }

    fn drain(&mut self, now: Now) {
        self.close_doors(now);
        self.state = State::Draining;
    }

    fn stop(&mut self, now: Now) {
        self.close_doors(now);
        for key in self.table.keys() {
            self.end(key, End::Shutdown, now);
        }
        self.state = State::Stopped;
    }

    fn report(&mut self) {
        if self.state == State::Draining && self.table.is_empty() {
            self.state = State::Drained;
            // Nobody listens any more only when the process is ending anyway.
            self.setup.reports.send(Drained).unwrap_or(());
        }
    }
}

/// When a relaying connection ends if no byte comes, and as what.
fn deadline(connection: &Connection, listeners: &[config::Listener]) -> (Now, End) {
    let listener = &listeners[connection.listener.index()];
    let (timeout, end) = match connection.marks.ended {
        None => (listener.idle_timeout, End::IdleTimeout),
        Some(Ended::InOrder(_)) => (listener.half_close_timeout, End::HalfCloseTimeout),
        Some(Ended::ByFailure(side)) => (LINGER_MAX, End::reset(side)),
    };
    (connection.times.active + timeout, end)
}
