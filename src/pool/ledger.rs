//! How many connections each worker and the process have: what workers share about connections
//! whatever their server, in one place. Counts of servers and pools are their own (`tally`).
//!
//! Counts are only ever raised and lowered by atomic read-modify-write, and nothing else is
//! published through them, so relaxed ordering is enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crossbeam_utils::CachePadded;

#[derive(Debug)]
struct Shared {
    /// On cache lines of their own, so that workers do not meet.
    workers: Box<[CachePadded<AtomicU32>]>,
    process: CachePadded<AtomicU32>,
    /// Read with each connection, written by a reload.
    process_max: CachePadded<AtomicU32>,
}

/// The counts of one process; clones share them.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Shared>);

impl Ledger {
    /// All counts at zero; the process takes at most `process_max` connections.
    pub fn new(workers: usize, process_max: u32) -> Self {
        Self(Arc::new(Shared {
            workers: std::iter::repeat_with(CachePadded::default)
                .take(workers)
                .collect(),
            process: CachePadded::default(),
            process_max: CachePadded::new(AtomicU32::new(process_max)),
        }))
    }

    /// Most connections of the process.
    pub fn process_max(&self) -> u32 {
        self.0.process_max.load(Relaxed)
    }

    /// Changes it for connections that come from now on.
    pub fn set_process_max(&self, process_max: u32) {
        self.0.process_max.store(process_max, Relaxed);
    }

    /// Takes a place in the process for a connection of `worker`; false where it is full.
    pub fn admit(&self, worker: usize) -> bool {
        if self.0.process.fetch_add(1, Relaxed) >= self.process_max() {
            self.0.process.fetch_sub(1, Relaxed);
            return false;
        }
        self.0.workers[worker].fetch_add(1, Relaxed);
        true
    }

    /// Counts a connection of `worker` that the process before this one has let in, however many there
    /// are.
    pub fn take_over(&self, worker: usize) {
        self.0.process.fetch_add(1, Relaxed);
        self.0.workers[worker].fetch_add(1, Relaxed);
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

    /// Connections of the process.
    pub fn process_connections(&self) -> u32 {
        self.0.process.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_fills_up_and_empties() {
        let ledger = Ledger::new(2, 2);
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

    #[test]
    fn a_new_maximum_counts_for_those_who_come() {
        let ledger = Ledger::new(1, 2);
        assert!(ledger.admit(0) && ledger.admit(0));
        ledger.set_process_max(1);
        ledger.leave(0);
        assert!(!ledger.admit(0), "one is left, and one is the maximum");
        ledger.set_process_max(2);
        assert!(ledger.admit(0));
    }
}
