//! What all threads share about one server, one pool and one listener: its count of connections,
//! what each worker has counted, and what the prober has found.
//!
//! A server has one count on cache lines of its own, raised when the server is picked, so that
//! `least_connections` and `max_connections` are exact over all workers. It is only ever raised and
//! lowered by atomic read-modify-write, and nothing else is published through it, so relaxed
//! ordering is enough. Everything else is written by one thread each (`telemetry::counters`).

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::outlier::{Court, Record};
use super::queue::Queue;
use super::ramp;
use crate::address::Peer;
use crate::admission::{Place, Sources};
use crate::clock::Now;
use crate::telemetry::checkup::Checkup;
use crate::telemetry::counters::{ListenerCounters, PoolCounters, ServerCounters};

/// How raising a server's count went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// The place is taken; it must be released once.
    Yes,
    /// The count is no longer the one that the pick was based on.
    Raced,
    /// The server is at its maximum.
    Full,
}

/// One server.
#[derive(Debug)]
pub struct ServerTally {
    connections: CachePadded<AtomicU32>,
    workers: Box<[ServerCounters]>,
    checkup: Arc<Checkup>,
    record: Record,
    /// When the server's share began to grow, in nanoseconds of the process's clock; 0 where it was
    /// there from the start. Each worker goes by its own time, which is the same within a turn.
    ramp_began: AtomicU64,
}

impl ServerTally {
    /// All at zero.
    pub fn new(workers: usize) -> Self {
        Self {
            connections: CachePadded::default(),
            workers: each(workers),
            checkup: Arc::default(),
            record: Record::default(),
            ramp_began: AtomicU64::new(0),
        }
    }

    /// Connections that it holds, those included that are being connected.
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// Takes a place at the server, which holds at most `max`; where `seen` is given, only if the
    /// count still is what the pick was based on.
    pub fn reserve(&self, max: u32, seen: Option<u32>) -> Reserved {
        let mut current = seen.unwrap_or_else(|| self.connections());
        // Another worker's change costs one more round; each round, somebody has got a place.
        loop {
            if current >= max {
                return Reserved::Full;
            }
            let raised =
                self.connections
                    .compare_exchange_weak(current, current + 1, Relaxed, Relaxed);
            match raised {
                Ok(_) => return Reserved::Yes,
                Err(now) if seen.is_some() && now != current => return Reserved::Raced,
                Err(now) => current = now,
            }
        }
    }

    /// Counts a place that was taken before this process, however many the server may have.
    pub(super) fn take_over(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    /// Gives a place back.
    pub fn release(&self) {
        let before = self.connections.fetch_sub(1, Relaxed);
        debug_assert!(before > 0);
    }

    /// What each worker has counted, by its index.
    pub fn workers(&self) -> &[ServerCounters] {
        &self.workers
    }

    /// What the health checks have found.
    pub fn checkup(&self) -> &Arc<Checkup> {
        &self.checkup
    }

    /// What connections have found, where its pool asks for that (`outlier`).
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Its share begins to grow.
    pub fn note_ramp(&self, now: Now) {
        self.ramp_began.store(now.as_nanoseconds(), Relaxed);
    }

    /// How much of its share it has reached, in percent, and when it will have all of it, where its
    /// pool's `slow_start` is this; `None` where it has it.
    pub fn ramp(&self, slow_start: Duration, now: Now) -> Option<(u32, Duration)> {
        let began = self.ramp_under_way(slow_start, now)?;
        let (reached, _) = ramp::height(Some(began), slow_start, now);
        Some((reached, (began + slow_start).since(now)))
    }

    /// When the ramp has begun that is under way, if one is.
    pub(super) fn ramp_under_way(&self, slow_start: Duration, now: Now) -> Option<Now> {
        let began = Some(self.ramp_began.load(Relaxed)).filter(|began| *began > 0)?;
        let began = Now::from_nanoseconds(began);
        let (_, next) = ramp::height(Some(began), slow_start, now);
        next.map(|_| began)
    }

    /// When its share began to grow last; zero where it was there from the start.
    pub fn ramp_began(&self) -> Now {
        Now::from_nanoseconds(self.ramp_began.load(Relaxed))
    }
}

/// One pool.
#[derive(Debug)]
pub struct PoolTally {
    connections: CachePadded<AtomicU32>,
    workers: Box<[PoolCounters]>,
    queue: Queue,
    court: Court,
}

impl PoolTally {
    /// All at zero.
    pub fn new(workers: usize) -> Self {
        Self {
            connections: CachePadded::default(),
            workers: each(workers),
            queue: Queue::default(),
            court: Court::default(),
        }
    }

    /// Connections to its servers, where they are counted (`bounded_load`).
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// So many connections more.
    pub fn enter(&self, connections: u32) {
        self.connections.fetch_add(connections, Relaxed);
    }

    /// So many connections fewer.
    pub fn leave(&self, connections: u32) {
        let before = self.connections.fetch_sub(connections, Relaxed);
        debug_assert!(before >= connections);
    }

    /// What each worker has counted, by its index.
    pub fn workers(&self) -> &[PoolCounters] {
        &self.workers
    }

    /// Who waits for a server of it, over all workers.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Where ejections are decided.
    pub(super) fn court(&self) -> &Court {
        &self.court
    }
}

/// One listener.
#[derive(Debug)]
pub struct ListenerTally {
    /// Those that were let in and live, exact over all workers.
    connections: CachePadded<AtomicU32>,
    /// What each client address has.
    sources: Sources,
    workers: Box<[ListenerCounters]>,
}

impl ListenerTally {
    /// All at zero.
    pub fn new(workers: usize) -> Self {
        Self {
            connections: CachePadded::default(),
            sources: Sources::default(),
            workers: each(workers),
        }
    }

    /// Counts a connection of `client` that the process before this one has let in, with its place
    /// among those of its source.
    pub fn take_over(&self, client: Peer, place: Option<Place>, now: Now) {
        self.connections.fetch_add(1, Relaxed);
        if let (Some(address), Some(place)) = (client.ip(), place) {
            self.sources.take_over(address, place, now);
        }
    }

    /// Takes a place, which is to be given back once; false where there are `max` already.
    pub fn enter(&self, max: Option<NonZeroU32>) -> bool {
        let Some(max) = max else {
            // Counted all the same, for a maximum that a reload may set.
            self.connections.fetch_add(1, Relaxed);
            return true;
        };
        let raise = |count| (count < max.get()).then_some(count + 1);
        let raised = self.connections.fetch_update(Relaxed, Relaxed, raise);
        raised.is_ok()
    }

    /// Gives a place back.
    pub fn leave(&self) {
        let before = self.connections.fetch_sub(1, Relaxed);
        debug_assert!(before > 0);
    }

    /// What each client address has.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// What each worker has counted, by its index.
    pub fn workers(&self) -> &[ListenerCounters] {
        &self.workers
    }

    /// Connections that live now. The sums are not of one instant, hence the saturation.
    pub fn connections(&self) -> u64 {
        let ended: u64 = self.workers.iter().map(|w| w.ended.value()).sum();
        let accepted: u64 = self.workers.iter().map(|w| w.accepted.value()).sum();
        accepted.saturating_sub(ended)
    }
}

fn each<T: Default>(workers: usize) -> Box<[T]> {
    std::iter::repeat_with(T::default).take(workers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_maximum_holds_under_a_race() {
        let tally = ServerTally::new(1);
        let count = || {
            let tries = (0..1000).map(|_| tally.reserve(1500, None));
            tries.filter(|reserved| *reserved == Reserved::Yes).count()
        };
        let taken: usize = thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(count));
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(taken, 1500);
        assert_eq!(tally.connections(), 1500);
        tally.release();
        assert_eq!(tally.reserve(1500, None), Reserved::Yes);
        assert_eq!(tally.reserve(1500, None), Reserved::Full);
    }

    #[test]
    fn a_count_that_has_changed_is_a_race() {
        let tally = ServerTally::new(1);
        assert_eq!(tally.reserve(9, Some(0)), Reserved::Yes);
        assert_eq!(tally.reserve(9, Some(0)), Reserved::Raced);
        assert_eq!(tally.reserve(9, Some(1)), Reserved::Yes);
    }

    #[test]
    fn a_listener_takes_its_maximum_whoever_was_there_before_it_was_set() {
        let tally = ListenerTally::new(1);
        assert!(tally.enter(None) && tally.enter(None));
        let max = NonZeroU32::new(2);
        assert!(!tally.enter(max));
        tally.leave();
        assert!(tally.enter(max) && !tally.enter(max));
    }

    #[test]
    fn a_listener_s_living_connections_are_those_accepted_by_one_and_not_ended_by_another() {
        let tally = ListenerTally::new(2);
        tally.workers()[0].accepted.add(3);
        tally.workers()[1].ended.add(2);
        assert_eq!(tally.connections(), 1);
    }
}
