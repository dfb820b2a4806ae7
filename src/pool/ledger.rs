//! All that workers share about connections, in one place: counts.
//!
//! Each server has one count on cache lines of its own, raised when the server is picked, so that
//! `least_connections` and `max_connections` are exact over all workers. Counts are only ever raised
//! and lowered by atomic read-modify-write, and nothing else is published through them, so relaxed
//! ordering is enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crossbeam_utils::CachePadded;

use crate::ids::{PoolId, ServerId};

/// Counts on cache lines of their own, so that workers that use different ones do not meet.
type Counts = Box<[CachePadded<AtomicU32>]>;

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

#[derive(Debug)]
struct Shared {
    servers: Counts,
    pools: Counts,
    workers: Counts,
    process: CachePadded<AtomicU32>,
    process_max: u32,
}

/// The counts of one process; clones share them.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Shared>);

impl Ledger {
    /// All counts at zero; the process takes at most `process_max` connections.
    pub fn new(servers: usize, pools: usize, workers: usize, process_max: u32) -> Self {
        Self(Arc::new(Shared {
            servers: zeros(servers),
            pools: zeros(pools),
            workers: zeros(workers),
            process: CachePadded::default(),
            process_max,
        }))
    }

    /// Connections that `server` holds.
    pub fn connections(&self, server: ServerId) -> u32 {
        self.0.servers[server.index()].load(Relaxed)
    }

    /// Takes a place at `server`, which holds at most `max`; where `seen` is given, only if the
    /// count still is what the pick was based on.
    pub fn reserve(&self, server: ServerId, max: u32, seen: Option<u32>) -> Reserved {
        let count = &self.0.servers[server.index()];
        let mut current = seen.unwrap_or_else(|| count.load(Relaxed));
        // Another worker's change costs one more round; each round, somebody has got a place.
        loop {
            if current >= max {
                return Reserved::Full;
            }
            match count.compare_exchange_weak(current, current + 1, Relaxed, Relaxed) {
                Ok(_) => return Reserved::Yes,
                Err(now) if seen.is_some() && now != current => return Reserved::Raced,
                Err(now) => current = now,
            }
        }
    }

    /// Gives a place at `server` back.
    pub fn release(&self, server: ServerId) {
        let before = self.0.servers[server.index()].fetch_sub(1, Relaxed);
        debug_assert!(before > 0);
    }

    /// Connections to servers of `pool`, where they are counted (`bounded_load`).
    pub fn pool_connections(&self, pool: PoolId) -> u32 {
        self.0.pools[pool.index()].load(Relaxed)
    }

    /// One more connection in `pool`.
    pub fn enter_pool(&self, pool: PoolId) {
        self.0.pools[pool.index()].fetch_add(1, Relaxed);
    }

    /// One connection fewer in `pool`.
    pub fn leave_pool(&self, pool: PoolId) {
        let before = self.0.pools[pool.index()].fetch_sub(1, Relaxed);
        debug_assert!(before > 0);
    }

    /// Takes a place in the process for a connection of `worker`; false where it is full.
    pub fn admit(&self, worker: usize) -> bool {
        if self.0.process.fetch_add(1, Relaxed) >= self.0.process_max {
            self.0.process.fetch_sub(1, Relaxed);
            return false;
        }
        self.0.workers[worker].fetch_add(1, Relaxed);
        true
    }

    /// A connection of `worker` has ended.
    pub fn leave(&self, worker: usize) {
        self.0.workers[worker].fetch_sub(1, Relaxed);
        self.0.process.fetch_sub(1, Relaxed);
    }

    /// A connection goes from one worker to another, before it has been registered by either.
    pub fn hand_over(&self, from: usize, to: usize) {
        self.0.workers[to].fetch_add(1, Relaxed);
        self.0.workers[from].fetch_sub(1, Relaxed);
    }

    /// Connections of one worker, those on their way to it included.
    pub fn worker_connections(&self, worker: usize) -> u32 {
        self.0.workers[worker].load(Relaxed)
    }

    /// The worker with the fewest connections, and how many those are.
    pub fn idlest_worker(&self) -> (usize, u32) {
        let loads = self.0.workers.iter().map(|count| count.load(Relaxed));
        loads
            .enumerate()
            .min_by_key(|(_, load)| *load)
            .unwrap_or((0, 0))
    }

    /// Connections that the process takes at most.
    pub fn process_max(&self) -> u32 {
        self.0.process_max
    }

    /// Connections of the process.
    pub fn process_connections(&self) -> u32 {
        self.0.process.load(Relaxed)
    }
}

fn zeros(length: usize) -> Counts {
    std::iter::repeat_with(CachePadded::default)
        .take(length)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_maximum_holds_under_a_race() {
        let ledger = Ledger::new(1, 1, 1, u32::MAX);
        let server = ServerId::new(0);
        let count = || {
            let tries = (0..1000).map(|_| ledger.reserve(server, 1500, None));
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
        assert_eq!(ledger.connections(server), 1500);
        ledger.release(server);
        assert_eq!(ledger.reserve(server, 1500, None), Reserved::Yes);
        assert_eq!(ledger.reserve(server, 1500, None), Reserved::Full);
    }

    #[test]
    fn a_count_that_has_changed_is_a_race() {
        let ledger = Ledger::new(1, 1, 1, u32::MAX);
        let server = ServerId::new(0);
        assert_eq!(ledger.reserve(server, 9, Some(0)), Reserved::Yes);
        assert_eq!(ledger.reserve(server, 9, Some(0)), Reserved::Raced);
        assert_eq!(ledger.reserve(server, 9, Some(1)), Reserved::Yes);
    }

    #[test]
    fn the_process_fills_up_and_empties() {
        let ledger = Ledger::new(1, 1, 2, 2);
        assert!(ledger.admit(0) && ledger.admit(0) && !ledger.admit(1));
        ledger.hand_over(0, 1);
        assert_eq!(
            (ledger.worker_connections(0), ledger.worker_connections(1)),
            (1, 1)
        );
        ledger.leave(1);
        assert_eq!(ledger.idlest_worker(), (1, 0));
        assert!(ledger.admit(1));
        assert_eq!(ledger.process_connections(), 2);
    }
}
