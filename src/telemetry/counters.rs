//! What one worker counts: written by its thread alone, read by any.
//!
//! Each count is a relaxed load and a relaxed store on the worker's own cache lines: no lock and no
//! read-modify-write on the way of a connection. A sum over workers is as exact as a moment allows.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::histogram::Histogram;
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

/// A number that one thread sets and others read.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// The number from now on.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value of a moment ago.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counters of one worker, whatever the listener and the server.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// Connections accepted, refused ones included.
    pub accepted: Counter,
    /// Connections given to another worker.
    pub handed_over: Counter,
    /// Times that accepting was paused for want of descriptors or memory.
    pub pauses: Counter,
    /// Until when that counts as lasting: nanoseconds of the clock, 0 where it never happened.
    pub short_until: Gauge,
    /// Bytes delivered to servers, live.
    pub upstream_bytes: Counter,
    /// Bytes delivered to clients, live.
    pub downstream_bytes: Counter,
    /// Connections turned away for the maximum of the process.
    pub over_process_max: Counter,
    /// Access log lines that found no room.
    pub lines_dropped: Counter,
    /// Pipes that flows hold now.
    pub pipes_lent: Gauge,
    /// Empty pipes that are kept for the next borrower.
    pub pipes_idle: Gauge,
    /// Turns of its loop so far.
    pub turns: Gauge,
    /// The last id it gave to a connection; told only where it stands still for a handover.
    pub last_id: Gauge,
    ends: [Counter; End::COUNT],
}

impl Counters {
    /// How many connections ended so.
    pub fn ended(&self, end: End) -> &Counter {
        &self.ends[end as usize]
    }
}

/// What one worker counts of one listener.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ListenerCounters {
    /// Connections accepted, refused ones included.
    pub accepted: Counter,
    /// Connections that have ended, refused ones included. The worker that serves a connection need
    /// not be the one that accepted it, so only the sums over all workers can be subtracted.
    pub ended: Counter,
    /// Connections turned away for limits of the listener's own: its maximum, and what one address may
    /// do.
    pub over_limits: Counter,
    refused: [Counter; End::COUNT],
}

impl ListenerCounters {
    /// How many were turned away so; only ends for which [`End::is_refusal`] holds are counted.
    pub fn refused(&self, end: End) -> &Counter {
        &self.refused[end as usize]
    }
}

/// Why a try to connect to a server came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// The server refused, or there is no way to it.
    Refused,
    /// No answer within `connect_timeout`.
    TimedOut,
    /// The queue of a unix socket was full.
    Busy,
    /// This machine ran out of ports, descriptors or memory, or has no `source`.
    Local,
}

impl ConnectFailure {
    /// Each of them, in the order of their indexes.
    pub const ALL: [Self; 4] = [Self::Refused, Self::TimedOut, Self::Busy, Self::Local];

    /// The word for it in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Busy => "busy",
            Self::Local => "local",
        }
    }
}

/// What one worker counts of one server.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ServerCounters {
    /// Connections that the server accepted.
    pub connected: Counter,
    /// Bytes delivered to it, live.
    pub upstream_bytes: Counter,
    /// Bytes from it, delivered to clients, live.
    pub downstream_bytes: Counter,
    failed: [Counter; ConnectFailure::ALL.len()],
}

impl ServerCounters {
    /// Tries to connect that came to nothing.
    pub fn failed(&self, failure: ConnectFailure) -> &Counter {
        &self.failed[failure as usize]
    }
}

/// What one worker counts of one pool.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PoolCounters {
    /// From the pick of a server to its accepting.
    pub connect: Histogram,
    /// From accept to end.
    pub connection: Histogram,
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

    #[test]
    fn each_failure_has_its_own_counter() {
        let counters = ServerCounters::default();
        for (times, failure) in (1..).zip(ConnectFailure::ALL) {
            counters.failed(failure).add(times);
        }
        let values = ConnectFailure::ALL.map(|failure| counters.failed(failure).value());
        assert_eq!(values, [1, 2, 3, 4]);
    }
}
