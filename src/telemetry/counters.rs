//! What one worker counts: written by its thread alone, read by any.
//!
//! Each count is a relaxed load and a relaxed store on the worker's own cache lines: no lock and no
//! read-modify-write on the way of a connection.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::end::End;

/// A number that one thread raises and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Only the owning thread may call this: the load and the store are not one operation.
    pub fn add(&self, more: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    /// The value of a moment ago.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counters of one worker.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// Connections accepted, refused ones included.
    pub accepted: Counter,
    /// Connections given to another worker.
    pub handed_over: Counter,
    /// Times that accepting was paused for want of descriptors or memory.
    pub pauses: Counter,
    /// Bytes delivered to servers by connections that have ended.
    pub upstream_bytes: Counter,
    /// Bytes delivered to clients by connections that have ended.
    pub downstream_bytes: Counter,
    /// Access log lines that found no room.
    pub lines_dropped: Counter,
    ends: [Counter; End::COUNT],
}

impl Counters {
    /// How many connections ended so.
    pub fn ended(&self, end: End) -> &Counter {
        &self.ends[end as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_own_counter() {
        let counters = Counters::default();
        for (times, end) in (1..).zip(End::ALL) {
            counters.ended(*end).add(times);
        }
        let values: Vec<_> = End::ALL
            .iter()
            .map(|end| counters.ended(*end).value())
            .collect();
        assert_eq!(values, (1..=End::COUNT as u64).collect::<Vec<_>>());
    }
}
