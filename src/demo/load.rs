//! The load generator: one thread with one loop that begins visits at the chosen rate and counts how
//! they end.
//!
//! What is in flight is bounded: a visit that is due while too many wait is skipped and counted as
//! that. Nothing is opened, and nothing counted, before the listener has accepted once. Whatever was
//! opened is answered, an error, or in flight.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use mio::{Events, Poll, Token};
use slab::Slab;

use super::dials::Dials;
use super::recent::Recent;
use super::visit::{Course, NotBegun, Visit};
use super::{WAKE, wait};
use crate::clock::Now;
use crate::timers::Timers;

/// Events taken in one poll.
const EVENTS: usize = 256;
/// A visit that takes longer is an error: more than the longest delay that a server can be given.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between tries to reach a listener that is not there yet.
const FIRST_TRIES: Duration = Duration::from_millis(50);
/// Visits that fell due while the loop was held up for longer are not made up for.
const BEHIND_MAX: Duration = Duration::from_millis(100);
/// How often percentiles are computed.
const FIGURES_INTERVAL: Duration = Duration::from_millis(250);
/// Read at once; answers are far smaller.
const BUFFER_BYTES: usize = 4096;

/// The loop's state.
pub(super) struct Load {
    poll: Poll,
    dials: Arc<Dials>,
    target: SocketAddr,
    /// The token of a visit is its key and 1.
    visits: Slab<Visit>,
    in_flight_max: usize,
    /// By the visits' keys: their patience.
    timers: Timers,
    recent: Recent,
    /// When the next visit is due.
    next_open: Now,
    next_figures: Now,
    /// Whose turn it is.
    next_client: usize,
    /// By client: when the visit began that it was last noted for.
    noted: Vec<Now>,
    /// The listener has accepted once.
    is_open: bool,
    buffer: Box<[u8]>,
}

impl Load {
    pub(super) fn new(
        poll: Poll,
        dials: Arc<Dials>,
        target: SocketAddr,
        in_flight_max: usize,
    ) -> Self {
        let now = Now::read();
        Self {
            poll,
            noted: vec![now; dials.clients.len()],
            dials,
            target,
            visits: Slab::new(),
            in_flight_max,
            timers: Timers::new(now),
            recent: Recent::default(),
            next_open: now,
            next_figures: now,
            next_client: 0,
            is_open: false,
            buffer: vec![0; BUFFER_BYTES].into(),
        }
    }

    /// Turns until the dials say that it is over.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.dials.is_ending() {
            let rest = self.rest(Now::read());
            wait(&mut self.poll, &mut events, Some(rest))?;
            let now = Now::read();
            // A wake says nothing but that the dials have changed, which are read anyway.
            let tokens = events.iter().map(mio::event::Event::token);
            for Token(token) in tokens.filter(|token| *token != WAKE) {
                self.advance(token - 1, now);
            }
            while let Some(key) = self.timers.expire(now) {
                self.end(key as usize, None, now);
            }
            self.open_due(now);
            self.publish(now);
        }
        Ok(())
    }

    /// How long the next poll may be.
    fn rest(&self, now: Now) -> Duration {
        let mut rest = self.next_figures.since(now);
        if self.dials.load.is_running() {
            rest = rest.min(self.next_open.since(now));
        }
        self.timers.next(now).map_or(rest, |timer| rest.min(timer))
    }

    /// From one visit to the next.
    fn gap(&self) -> Duration {
        if self.is_open {
            Duration::from_secs(1) / self.dials.load.rate().max(1)
        } else {
            FIRST_TRIES
        }
    }

    fn open_due(&mut self, now: Now) {
        let gap = self.gap();
        // A higher rate begins at once, not after the gap of the lower one.
        self.next_open = self.next_open.min(now + gap);
        if now.since(self.next_open) > BEHIND_MAX {
            self.next_open = now;
        }
        if !self.dials.load.is_running() {
            self.next_open = now;
            return;
        }
        while self.next_open <= now {
            self.next_open = self.next_open + gap;
            self.open(now);
        }
    }

    fn open(&mut self, now: Now) {
        // One try at a time until there is somebody to visit.
        let most = if self.is_open { self.in_flight_max } else { 1 };
        if self.visits.len() >= most {
            return self.skip();
        }
        let client = self.next_client;
        self.next_client = (client + 1) % self.dials.clients.len();
        let address = self.dials.clients[client].address;
        let key = self.visits.vacant_key();
        let events = (self.poll.registry(), Token(key + 1));
        match Visit::begin(now, self.target, (client, address), events) {
            Ok(visit) => {
                self.visits.insert(visit);
                self.timers.arm(timer_key(key), now + PATIENCE);
                self.count_opened();
            }
            Err(NotBegun::Exhausted) => self.skip(),
            Err(NotBegun::Refused) => {
                self.count_opened();
                self.count_end(None, now);
            }
        }
    }

    fn skip(&self) {
        if self.is_open {
            self.dials.load.skipped.fetch_add(1, Relaxed);
        }
    }

    /// An event may be meant for an earlier visit of the same key: then there is nothing to read.
    fn advance(&mut self, key: usize, now: Now) {
        let Some(visit) = self.visits.get_mut(key) else {
            return;
        };
        let course = visit.advance(&mut self.buffer);
        if !self.is_open && visit.is_connected() {
            self.is_open = true;
            self.count_opened();
        }
        match course {
            Course::Wait => {}
            Course::Answered(server) if server < self.dials.servers.len() => {
                self.end(key, Some(server), now);
            }
            Course::Answered(_) | Course::Failed => self.end(key, None, now),
        }
    }

    /// Closes a visit that a server has answered, or that has failed.
    fn end(&mut self, key: usize, server: Option<usize>, now: Now) {
        let Some(visit) = self.visits.try_remove(key) else {
            return;
        };
        self.timers.disarm(timer_key(key));
        if let Some(server) = server {
            self.note(&visit, server);
        }
        self.count_end(server.map(|_| now.since(visit.began)), now);
    }

    /// An answer that a later visit's has overtaken does not tell where its client goes now.
    fn note(&mut self, visit: &Visit, server: usize) {
        let noted = &mut self.noted[visit.client];
        if visit.began >= *noted {
            *noted = visit.began;
            self.dials.clients[visit.client].note(server);
        }
    }

    fn count_opened(&self) {
        if self.is_open {
            self.dials.load.opened.fetch_add(1, Relaxed);
        }
    }

    fn count_end(&mut self, latency: Option<Duration>, now: Now) {
        if !self.is_open {
            return;
        }
        let count = match latency {
            Some(_) => &self.dials.load.answered,
            None => &self.dials.load.errors,
        };
        count.fetch_add(1, Relaxed);
        self.recent.note(now, latency);
    }

    fn publish(&mut self, now: Now) {
        let in_flight = if self.is_open { self.visits.len() } else { 0 };
        self.dials.load.in_flight.store(in_flight as u64, Relaxed);
        if now >= self.next_figures {
            self.next_figures = now + FIGURES_INTERVAL;
            let figures = self.recent.figures(now);
            self.dials.load.set_latencies(figures.latencies);
            self.dials.load.errors_recent.store(figures.errors, Relaxed);
        }
    }
}

fn timer_key(key: usize) -> u32 {
    u32::try_from(key).expect("visits in flight are few")
}
