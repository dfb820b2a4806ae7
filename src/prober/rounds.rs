//! The prober's loop: waits for sockets and timers, begins checks that are due, ends them.
//!
//! A turn is: wake, events, targets that come and go, timers, due checks. Each probe has one timer:
//! while it rests, for its next check; while a check runs, for its deadline. Due checks first stand
//! in a queue, because only so many run at once and only so many begin in a turn; what they wait
//! there is our own lateness and takes nothing off their timeouts. Events go before timers, so an
//! answer that the kernel holds wins against a deadline of the same turn.
//!
//! The loop knows no protocol and no state of a server. Only [`Rounds::run`] reads the clock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::{io, vec};

use mio::{Events, Poll, Token};

use super::answer::{Answer, Reason};
use super::attention::{Attention, HEARTBEAT};
use super::exchange::Readiness;
use super::means::Site;
use super::places::Places;
use super::probe::Probe;
use super::program::Programs;
use super::schedule::Pace;
use super::{Order, Report, Step, Target, WAKE};
use crate::clock::Now;
use crate::ids::ServerId;
use crate::mailbox::Mailbox;
use crate::telemetry::counters::Gauge;
use crate::telemetry::lag::Lag;
use crate::timers::Timers;

/// Events taken in one poll.
const EVENTS: usize = 1024;

/// Checks begun in one turn: a connect costs some 20 us, so events wait for 2 ms at most.
const START_BUDGET: usize = 64;

/// Programs begun in one turn: each start is some 1 ms of this thread.
const PROGRAM_BUDGET: usize = 4;

/// Targets that come or go in one turn: some 2 us each, so events wait for 2 ms at most.
const STEP_BUDGET: usize = 1024;

/// Orders taken at once; each may have any number of steps, which wait for their turn.
const ORDER_BUDGET: usize = 64;

/// A wake that is later than this is followed by a look at what has come meanwhile.
const LATE_WAKE: Duration = Duration::from_millis(10);

/// Polls without waiting, after a late wake or a full batch, before timeouts are judged: enough for
/// an event of each check that can run.
const CATCH_UP_POLLS: usize = 8;
const _: () = assert!(CATCH_UP_POLLS * EVENTS > super::IN_FLIGHT_MAX);

/// Read at once; most answers fit.
const BUFFER_BYTES: usize = 16 * 1024;

/// A stall of at least this is worth a line.
const STALL_WARNING: Duration = Duration::from_secs(1);

/// A shortage lasts; one line in this time is enough.
const SHORTAGE_WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// The prober's state while it runs.
pub(super) struct Rounds {
    poll: Poll,
    mailbox: Mailbox<Order>,
    /// Steps that were ordered and not taken yet.
    steps: VecDeque<vec::IntoIter<Step>>,
    is_stopping: bool,
    places: Places,
    /// By the key of the place.
    timers: Timers,
    /// Due, and not begun yet. Those that were forgotten meanwhile are still in it.
    queue: VecDeque<Token>,
    /// Those of the queue that run a program, which have a limit of their own.
    programs_due: VecDeque<Token>,
    programs: Programs,
    /// When those that come are checked first.
    pace: Pace,
    /// Checks under way.
    in_flight: usize,
    in_flight_max: usize,
    attention: Attention,
    lag: Arc<Lag>,
    /// Turns so far.
    turn: u64,
    /// The same, for whoever looks.
    turns: Arc<Gauge>,
    buffer: Box<[u8]>,
    /// The last warning about a shortage.
    warned: Option<Now>,
    deliver: Box<dyn FnMut(Report) + Send>,
}

impl Rounds {
    /// Without a target. The mailbox's bell is registered with `poll` as [`WAKE`].
    pub(super) fn new(
        poll: Poll,
        mailbox: Mailbox<Order>,
        deliver: Box<dyn FnMut(Report) + Send>,
        now: Now,
    ) -> Self {
        Self {
            poll,
            mailbox,
            steps: VecDeque::new(),
            is_stopping: false,
            places: Places::default(),
            timers: Timers::new(now),
            queue: VecDeque::new(),
            programs_due: VecDeque::new(),
            programs: Programs::new(),
            pace: Pace::new(now),
            in_flight: 0,
            in_flight_max: super::IN_FLIGHT_MAX,
            attention: Attention::new(now),
            lag: Arc::default(),
            turn: 0,
            turns: Arc::default(),
            buffer: vec![0; BUFFER_BYTES].into(),
            warned: None,
            deliver,
        }
    }

    pub(super) fn lag(&self) -> Arc<Lag> {
        Arc::clone(&self.lag)
    }

    pub(super) fn turns(&self) -> Arc<Gauge> {
        Arc::clone(&self.turns)
    }

    /// Turns until it is told to stop.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        while !self.is_stopping {
            let wait = self.rest(Now::read());
            self.wait(&mut events, wait);
            self.turn(&mut events, Now::read());
            self.turn += 1;
            self.turns.set(self.turn);
        }
    }

    /// How long the next poll may be.
    fn rest(&mut self, now: Now) -> Option<Duration> {
        let mut wait = self.timers.next(now);
        if self.in_flight > 0 {
            wait = Some(wait.map_or(HEARTBEAT, |wait| wait.min(HEARTBEAT)));
        }
        if self.may_begin() || !self.steps.is_empty() {
            wait = Some(Duration::ZERO);
        }
        self.attention.rest(now, wait);
        wait
    }

    /// Whether a check that is due has room. Where none has, the end or the deadline of another makes
    /// the next turn.
    fn may_begin(&self) -> bool {
        let is_due =
            !self.queue.is_empty() || (!self.programs_due.is_empty() && self.programs.has_room());
        is_due && self.in_flight < self.in_flight_max
    }

    fn wait(&mut self, events: &mut Events, wait: Option<Duration>) {
        match self.poll.poll(events, wait) {
            Ok(()) => {}
            // A signal, or SIGCONT after a stop. Events of before are not events of now.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
            Err(error) => panic!("epoll_wait fails only for a bug of ours: {error}"),
        }
    }

    /// All that is to be done after a poll.
    fn turn(&mut self, events: &mut Events, now: Now) {
        let late = self.attention.wake(now);
        if late >= STALL_WARNING {
            log::warn!("the prober was held up for {late:.1?}; checks that suffered are repeated");
        }
        self.dispatch(events, now);
        let mut more = late >= LATE_WAKE || events.iter().count() == EVENTS;
        for _ in 0..CATCH_UP_POLLS {
            if !more {
                break;
            }
            self.wait(events, Some(Duration::ZERO));
            self.dispatch(events, now);
            more = events.iter().count() == EVENTS;
        }
        self.change(now);
        self.expire(now);
        self.programs.reap();
        self.begin(now);
        self.begin_programs(now);
    }

    fn dispatch(&mut self, events: &Events, now: Now) {
        for event in events {
            if event.token() == WAKE {
                self.take_orders();
                continue;
            }
            let ready = Readiness::of(event);
            let Some((key, probe)) = self.places.follow(event.token()) else {
                continue;
            };
            if let Some(answer) = probe.advance(ready, &mut self.buffer) {
                self.end(key, answer, now);
            }
        }
    }

    fn take_orders(&mut self) {
        for order in self.mailbox.take(ORDER_BUDGET) {
            match order {
                Order::Change(steps) => self.steps.push_back(steps.into_iter()),
                // This is one.
                Order::Turn => {}
                Order::Stop => self.is_stopping = true,
            }
        }
    }

    /// Takes some of the steps that were ordered, in their order.
    fn change(&mut self, now: Now) {
        let mut left = STEP_BUDGET;
        while left > 0 {
            let Some(steps) = self.steps.front_mut() else {
                break;
            };
            match steps.next() {
                Some(Step::Watch(target)) => self.watch(target, now),
                Some(Step::Forget(server)) => self.forget(server, now),
                None => drop(self.steps.pop_front()),
            }
            left -= 1;
        }
    }

    fn watch(&mut self, target: Target, now: Now) {
        let pace = &mut self.pace;
        let server = target.server;
        let Some(key) = self.places.find(server) else {
            let new = |key| Probe::new(target, key, now, pace);
            let key = self.places.put(server, new);
            return self.arrange(key, now);
        };
        let Some(probe) = self.places.probe(key) else {
            return;
        };
        let was_running = probe.is_running();
        let is_queued = !was_running && !self.timers.is_armed(key);
        probe.replace(target, now, pace);
        let is_running = probe.is_running();
        self.in_flight -= usize::from(was_running && !is_running);
        // One that is queued begins with the new settings, one that goes on has its deadline.
        if !is_queued && !is_running {
            self.arrange(key, now);
        }
    }

    /// A check under way ends with its socket; a place in the queue leads nowhere.
    fn forget(&mut self, server: ServerId, now: Now) {
        if let Some((key, probe)) = self.places.remove(server) {
            self.timers.disarm(key);
            self.in_flight -= usize::from(probe.is_running());
            probe.forget(now);
        }
    }

    /// Sees to it that a probe that rests begins its check when that is due.
    fn arrange(&mut self, key: u32, now: Now) {
        let Some(probe) = self.places.probe(key) else {
            return;
        };
        let due = probe.due();
        if due <= now {
            // Not by way of the timers, which round up to their tick.
            self.timers.disarm(key);
            self.queue.push_back(self.places.token(key));
        } else {
            self.timers.arm(key, due);
        }
    }

    /// Ends checks whose time is over, and queues those whose time has come.
    fn expire(&mut self, now: Now) {
        while let Some(key) = self.timers.expire(now) {
            match self.places.probe(key) {
                Some(probe) if probe.is_running() => {
                    let answer = probe.timed_out();
                    self.end(key, answer, now);
                }
                _ => self.queue.push_back(self.places.token(key)),
            }
        }
    }

    /// Begins checks from the queue.
    fn begin(&mut self, now: Now) {
        for _ in 0..START_BUDGET {
            if self.in_flight >= self.in_flight_max {
                break;
            }
            let Some(token) = self.queue.pop_front() else {
                break;
            };
            match self.places.follow(token) {
                Some((_, probe)) if probe.runs_a_program() => self.programs_due.push_back(token),
                Some((key, _)) => self.begin_one(key, now),
                None => {}
            }
        }
    }

    /// Begins checks that run programs. Killed ones count until they have ended.
    fn begin_programs(&mut self, now: Now) {
        for _ in 0..PROGRAM_BUDGET {
            if self.in_flight >= self.in_flight_max || !self.programs.has_room() {
                break;
            }
            let Some(token) = self.programs_due.pop_front() else {
                break;
            };
            if let Some((key, _)) = self.places.follow(token) {
                self.begin_one(key, now);
            }
        }
    }

    fn begin_one(&mut self, key: u32, now: Now) {
        let token = self.places.renew(key);
        let Some(probe) = self.places.probe(key) else {
            return;
        };
        self.lag.record(now.since(probe.due()));
        let site = Site {
            registry: self.poll.registry(),
            token,
            programs: &self.programs,
        };
        match probe.begin(now, &self.attention, &site) {
            Ok(deadline) => {
                self.in_flight += 1;
                self.timers.arm(key, deadline);
            }
            Err(answer) => self.end(key, answer, now),
        }
    }

    /// The one way in which a check ends with an answer, also where it could not begin.
    fn end(&mut self, key: u32, answer: Answer, now: Now) {
        let Some(probe) = self.places.probe(key) else {
            return;
        };
        self.in_flight -= usize::from(probe.is_running());
        let (answer, report) = probe.end(answer, now, &self.attention);
        self.timers.arm(key, probe.due());
        if let Some(report) = report {
            (self.deliver)(report);
        }
        if let Answer::Unknown(reason @ (Reason::Shortage(_) | Reason::NoSource(_))) = answer {
            self.warn(reason, now);
        }
    }

    fn warn(&mut self, reason: Reason, now: Now) {
        if self
            .warned
            .is_none_or(|warned| now.since(warned) >= SHORTAGE_WARNING_INTERVAL)
        {
            self.warned = Some(now);
            log::warn!("cannot check servers: {reason}; their states stay as they are");
        }
    }
}

#[cfg(test)]
mod tests;
