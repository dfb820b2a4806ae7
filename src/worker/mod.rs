//! A worker: one mio loop on one thread, with its own listening sockets, connections, timers, pipes
//! and view of the pools. It never blocks, and it is the only one that acts on a [`Step`].
//!
//! A turn of the loop: wait; dispatch each event by its token; give the run queue one round; expire
//! timers. Every part has a budget, so a turn is bounded and nobody starves (trap 12). Edge-triggered
//! readiness that a budget cut short is kept in the flow and the run queue, because the kernel will
//! not report it again (trap 2).

mod accept;
mod admit;
mod change;
mod command;
mod connect;
mod connection;
mod door;
mod drain;
mod ending;
mod handover;
mod header;
mod limiter;
mod link;
mod listing;
mod outlier;
mod parking;
mod queue;
mod share;
mod source;
mod sweep;
mod table;
mod token;
pub mod tuning;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Interest, Poll};

pub use self::accept::Accepted;
use self::change::Listeners;
pub use self::command::{
    Change, Command, DoorId, DoorSocket, Drained, Kill, Listener, Listing, Rules, Setup,
};
use self::connection::{Phase, Step};
pub use self::door::Door;
use self::drain::Drains;
use self::ending::deadline;
pub use self::handover::{Intake, Order, Parcel, Still};
use self::listing::Errand;
use self::parking::Parked;
use self::queue::Waiting;
use self::share::Churn;
use self::source::Sources;
use self::table::Table;
use self::token::{About, Key};
use crate::clock::Now;
use crate::end::{End, Side};
use crate::ids::ServerId;
use crate::mailbox::{Mailbox, Outbox};
use crate::pool::Pools;
use crate::relay::pipe_cache::PipeCache;
use crate::relay::{BUFFER_BYTES, Lent};
use crate::telemetry::counters::Counters;
use crate::timers::Timers;

/// Events of one wait. Fewer starve light connections behind busy ones (flux issue 67).
const EVENTS_MAX: usize = 1024;
/// Messages taken in one turn.
const MAIL_BUDGET: usize = 1024;
/// Timers that fire in one turn: most end a connection, which costs some 30 us.
const EXPIRIES_PER_TURN: usize = 64;
/// One registration for a socket's whole life, both directions; PRIORITY is for trap 3.
const BOTH_WAYS: Interest = Interest::READABLE
    .add(Interest::WRITABLE)
    .add(Interest::PRIORITY);

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
    pools: Pools,
    listeners: Listeners,
    counters: Arc<Counters>,
    doors: BTreeMap<DoorId, Door>,
    /// Handed over by another worker before this one was told of their listener.
    early: Vec<Accepted>,
    /// Accepting is paused until then, for want of descriptors or memory (trap 14).
    paused_until: Option<Now>,
    /// When the last pause was logged.
    pause_told: Option<Now>,
    churn: Churn,
    table: Table,
    timers: Timers,
    /// Connections whose budget was used up, each at most once.
    run_queue: VecDeque<Key>,
    drains: Drains,
    waiting: Waiting,
    /// What takes more than a turn: the first one is worked on.
    errands: VecDeque<Errand>,
    pipes: PipeCache,
    /// All copies go through here: it stays in the core's cache.
    buffer: Box<[u8]>,
    random: fastrand::Rng,
    sources: Sources,
    /// Servers whose last try was not refused: see [`Worker::is_connected_to_itself`].
    proven: BTreeSet<ServerId>,
    /// What is parked of its connections, should the process be killed.
    parked: Option<Parked>,
    /// To stand still after this turn.
    still: Option<Still>,
    /// Mail that came meanwhile.
    put_off: Vec<Command>,
    /// Taken in with a place in the queue of a pool that is no more.
    homeless: Vec<Key>,
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
    Leaving,
    /// That was reported.
    Left,
    Stopped,
}

impl Worker {
    /// A worker that accepts nothing yet.
    pub fn new(index: usize, ready: Loop, setup: Setup, counters: Arc<Counters>) -> Self {
        let Loop { poll, mailbox } = ready;
        let parked = Parked::new(&setup, index);
        let now = Now::read();
        Self {
            index,
            poll,
            mailbox,
            pipes: PipeCache::new(setup.quota),
            pools: Pools::new(index, setup.ledger.clone()),
            listeners: Listeners::default(),
            setup,
            counters,
            doors: BTreeMap::new(),
            early: Vec::new(),
            paused_until: None,
            pause_told: None,
            churn: Churn::default(),
            table: Table::default(),
            timers: Timers::new(now),
            run_queue: VecDeque::new(),
            drains: Drains::default(),
            waiting: Waiting::default(),
            errands: VecDeque::new(),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            random: fastrand::Rng::new(),
            sources: Sources::default(),
            proven: BTreeSet::new(),
            parked,
            still: None,
            put_off: Vec::new(),
            homeless: Vec::new(),
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
            self.look_at_drains(now);
            self.run_errand(now);
            self.serve_queues(now);
            self.park(now);
            self.report();
            self.counters.pipes_lent.set(self.pipes.lent() as u64);
            self.counters.pipes_idle.set(self.pipes.idle() as u64);
            self.counters.turns.set(self.turn);
            if let Some(still) = self.still.take() {
                // All that others read of this worker is as it stands still.
                self.counters.last_id.set(self.last_id());
                self.stand_still(still);
            }
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
        if !self.run_queue.is_empty() || !self.errands.is_empty() || self.pools.is_stirred() {
            return Some(Duration::ZERO);
        }
        let now = Now::read();
        let pause = self.paused_until.map(|until| until.since(now));
        let (drains, waiting) = (self.drains.next(now), self.waiting.next(now));
        let parking = self.parked.as_ref().and_then(|it| it.patience(now));
        [self.timers.next(now), drains, waiting, pause, parking]
            .into_iter()
            .flatten()
            .min()
    }

    fn dispatch(&mut self, event: &Event, now: Now) {
        match About::of(event.token()) {
            About::Mailbox => self.read_mail(now),
            About::Door(door) => self.visit(door, now),
            About::Socket(key, side) => self.on_socket(key, side, event, now),
        }
    }

    fn read_mail(&mut self, now: Now) {
        let mail: Vec<_> = self.mailbox.take(MAIL_BUDGET).collect();
        for command in mail {
            self.obey(command, now);
        }
    }

    fn obey(&mut self, command: Command, now: Now) {
        match command {
            Command::Change(change) => self.change(*change, now),
            Command::Forget { listeners, servers } => self.forget(&listeners, &servers),
            Command::Verdict(verdict) => self.pools.apply(verdict, now),
            Command::Reconsider(pool) => self.pools.reconsider(pool),
            Command::Serve(pool) => self.pools.look_soon(pool),
            Command::Adopt(accepted) if self.state == State::Stopped => {
                self.refuse_stopping(&accepted, now);
            }
            Command::Adopt(accepted) => self.adopt(accepted, now),
            Command::Drain(drain) => self.drains.add(drain, now),
            Command::Kill(kill) => self.run_later(Errand::kill(kill)),
            Command::List(listing) => self.run_later(Errand::list(listing)),
            // Whoever asked may have given up; what it does not take is closed.
            Command::Doors(reply) => reply.send(self.door_sockets()).unwrap_or(()),
            Command::ParkAt(store) => self.park_at(store, now),
            Command::Still(still) => self.still = Some(still),
            // This is one.
            Command::Turn => {}
            Command::Leave => self.leave(now),
            Command::Stop => self.stop(now),
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
            Phase::Reading { .. } | Phase::Connecting { .. } if event.is_error() => {
                self.end(key, End::reset(Side::Client), now);
            }
            // Room in the other direction is an event, too, and the first one of all.
            Phase::Reading { .. } if event.is_readable() || event.is_read_closed() => {
                self.read_header(key, now);
            }
            Phase::Reading { .. } | Phase::Connecting { .. } => {}
            Phase::Queued { .. } => self.on_waiting_client(key, event.is_error(), now),
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
        let (upstream, downstream) = connection.delivered();
        let step = connection.relay(&mut Lent { buffer, pipes, now });
        let has_new_deadline = connection.marks.ended != before;
        let (server, delivered) = (connection.server, connection.delivered());
        let may_tell = downstream == 0 && (delivered.1 > 0 || connection.marks.ended.is_some());
        let finding = may_tell.then(|| connection.tell(None, now)).flatten();
        let is_queued =
            step == Step::Again && !std::mem::replace(&mut connection.marks.is_queued, true);
        self.count_bytes(server, delivered.0 - upstream, delivered.1 - downstream);
        if let Some((server, finding)) = finding {
            self.note_finding(server, finding, now);
        }
        match step {
            Step::End(end) => return self.linger(key, end, now),
            Step::Again if is_queued => self.run_queue.push_back(key),
            Step::Again | Step::Wait => {}
        }
        if has_new_deadline {
            self.watch(key);
        }
    }

    /// Counts what one turn has delivered, while the connection lives.
    fn count_bytes(&self, server: Option<ServerId>, upstream: u64, downstream: u64) {
        if upstream + downstream == 0 {
            return;
        }
        self.counters.upstream_bytes.add(upstream);
        self.counters.downstream_bytes.add(downstream);
        if let Some(tally) = server.and_then(|server| self.pools.tally(server)) {
            let counters = &tally.workers()[self.index];
            counters.upstream_bytes.add(upstream);
            counters.downstream_bytes.add(downstream);
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
            let (at, _) = deadline(connection, &self.listeners);
            self.timers.arm(key.slot, at);
        }
    }

    /// Those that are left stay due, so that the next turn comes without a wait.
    fn expire(&mut self, now: Now) {
        for _ in 0..EXPIRIES_PER_TURN {
            let Some(slot) = self.timers.expire(now) else {
                return;
            };
            if let Some(key) = self.table.at(slot) {
                self.on_timer(key, now);
            }
        }
    }

    fn on_timer(&mut self, key: Key, now: Now) {
        let Some(connection) = self.table.find(key) else {
            return;
        };
        match connection.phase {
            Phase::Reading { until, awaited } if until <= now => {
                self.end(key, awaited.end(), now);
            }
            Phase::Reading { until, .. } => self.timers.arm(key.slot, until),
            Phase::Queued { .. } => self.end(key, End::QueueTimeout, now),
            Phase::Connecting { since } => self.on_connect_timeout(key, since, now),
            Phase::Lingering { end, .. } => self.linger(key, end, now),
            Phase::Relaying => {
                let (at, end) = deadline(connection, &self.listeners);
                if at <= now {
                    self.end(key, end, now);
                } else {
                    self.timers.arm(key.slot, at);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
