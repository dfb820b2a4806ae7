//! The prober's loop: waits for sockets and timers, begins checks that are due, ends them.
//!
//! A turn is: wake, events, timers, due checks. Each probe has one timer: while it rests, for its
//! next check; while a check runs, for its deadline. Due checks first stand in a queue, because
//! only so many run at once and only so many begin in a turn; what they wait there is our own
//! lateness and takes nothing off their timeouts. Events go before timers, so an answer that the
//! kernel holds wins against a deadline of the same turn.
//!
//! The loop knows no protocol and no state of a server. Only [`Rounds::run`] reads the clock.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::{Events, Poll};

use super::answer::{Answer, Reason};
use super::attention::{Attention, HEARTBEAT};
use super::exchange::Readiness;
use super::probe::{Probe, from_token};
use super::{Report, Target, WAKE};
use crate::clock::Now;
use crate::telemetry::lag::Lag;
use crate::timers::Timers;

/// Events taken in one poll.
const EVENTS: usize = 1024;

/// Checks begun in one turn: a connect costs some 20 us, so events wait for 2 ms at most.
const START_BUDGET: usize = 64;

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
    /// Indexed by the key of its timer.
    probes: Vec<Probe>,
    timers: Timers,
    /// Due, and not begun yet.
    queue: VecDeque<u32>,
    /// Checks under way.
    in_flight: usize,
    in_flight_max: usize,
    attention: Attention,
    lag: Arc<Lag>,
    buffer: Box<[u8]>,
    /// The last warning about a shortage.
    warned: Option<Now>,
    deliver: Box<dyn FnMut(Report) + Send>,
}

impl Rounds {
    /// Nothing is begun before the first turn.
    pub(super) fn new(
        poll: Poll,
        targets: Vec<Target>,
        deliver: Box<dyn FnMut(Report) + Send>,
        now: Now,
    ) -> Self {
        let mut rounds = Self {
            poll,
            probes: Vec::with_capacity(targets.len()),
            timers: Timers::new(now),
            queue: VecDeque::new(),
            in_flight: 0,
            in_flight_max: super::IN_FLIGHT_MAX,
            attention: Attention::new(now),
            lag: Arc::default(),
            buffer: vec![0; BUFFER_BYTES].into(),
            warned: None,
            deliver,
        };
        let count = targets.len();
        for (index, target) in (0..).zip(targets) {
            let probe = Probe::new(target, index, count, now);
            rounds.timers.arm(index, probe.due());
            rounds.probes.push(probe);
        }
        rounds
    }

    pub(super) fn lag(&self) -> Arc<Lag> {
        Arc::clone(&self.lag)
    }

    /// Turns until `is_stopping`, which is to be followed by a wake.
    pub(super) fn run(mut self, is_stopping: &AtomicBool) {
        let mut events = Events::with_capacity(EVENTS);
        while !is_stopping.load(Ordering::Acquire) {
            let wait = self.rest(Now::read());
            self.wait(&mut events, wait);
            self.turn(&mut events, Now::read());
        }
    }

    /// How long the next poll may be.
    fn rest(&mut self, now: Now) -> Option<Duration> {
        let mut wait = self.timers.next(now);
        if self.in_flight > 0 {
            wait = Some(wait.map_or(HEARTBEAT, |wait| wait.min(HEARTBEAT)));
        }
        // With all places taken, one of their ends or deadlines makes the next turn.
        if !self.queue.is_empty() && self.in_flight < self.in_flight_max {
            wait = Some(Duration::ZERO);
        }
        self.attention.rest(now, wait);
        wait
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
        self.expire(now);
        self.begin(now);
    }

    fn dispatch(&mut self, events: &Events, now: Now) {
        for event in events {
            if event.token() == WAKE {
                // It only ends the poll: `run` looks at what it was for.
                continue;
            }
            let (index, generation) = from_token(event.token());
            let ready = Readiness::of(event);
            let answer = self.probes[index].advance(generation, ready, &mut self.buffer);
            if let Some(answer) = answer {
                self.end(index, answer, now);
            }
        }
    }

    /// Ends checks whose time is over, and queues those whose time has come.
    fn expire(&mut self, now: Now) {
        while let Some(key) = self.timers.expire(now) {
            let index = key as usize;
            if self.probes[index].is_running() {
                let answer = self.probes[index].timed_out();
                self.end(index, answer, now);
            } else {
                self.queue.push_back(key);
            }
        }
    }

    /// Begins checks from the queue.
    fn begin(&mut self, now: Now) {
        for _ in 0..START_BUDGET {
            if self.in_flight >= self.in_flight_max {
                break;
            }
            let Some(key) = self.queue.pop_front() else {
                break;
            };
            let index = key as usize;
            let probe = &mut self.probes[index];
            self.lag.record(now.since(probe.due()));
            match probe.begin(key, now, &self.attention, self.poll.registry()) {
                Ok(deadline) => {
                    self.in_flight += 1;
                    self.timers.arm(key, deadline);
                }
                Err(answer) => self.end(index, answer, now),
            }
        }
    }

    /// The one way in which a check ends, also where it could not begin.
    fn end(&mut self, index: usize, answer: Answer, now: Now) {
        let probe = &mut self.probes[index];
        self.in_flight -= usize::from(probe.is_running());
        let (answer, report) = probe.end(answer, now, &self.attention);
        let key = u32::try_from(index).expect("probes are numbered by timer keys");
        self.timers.arm(key, probe.due());
        if let Some(report) = report {
            (self.deliver)(report);
        }
        if let Answer::Unknown(reason @ Reason::Shortage(_)) = answer {
            self.warn(reason, now);
        }
    }

    fn warn(&mut self, shortage: Reason, now: Now) {
        if self
            .warned
            .is_none_or(|warned| now.since(warned) >= SHORTAGE_WARNING_INTERVAL)
        {
            self.warned = Some(now);
            log::warn!("cannot check servers: {shortage}; their states stay as they are");
        }
    }
}

#[cfg(test)]
mod tests;
