//! How late checks begin, counted by the prober and read by any thread.
//!
//! Buckets are powers of two of a microsecond: enough to tell a busy prober from a healthy one, and
//! one relaxed addition a check.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The last one is for all that is over 18 minutes.
const BUCKETS: usize = 32;

/// Checks by how late they began.
#[derive(Debug, Default)]
pub struct Lag {
    /// Index n counts those that were less than 2^n microseconds late, and at least half of that.
    counts: [AtomicU64; BUCKETS],
    sum_microseconds: AtomicU64,
}

impl Lag {
    /// Counts one check.
    pub fn record(&self, late: Duration) {
        let microseconds = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - microseconds.leading_zeros()) as usize;
        // Counted by one thread alone, for readers that need no order.
        self.counts[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        self.sum_microseconds
            .fetch_add(microseconds, Ordering::Relaxed);
    }

    /// How many checks were less late than each bound and not less than the one before; the last
    /// bucket has no bound.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        self.counts.iter().enumerate().map(|(index, count)| {
            let bound = (index < BUCKETS - 1).then(|| Duration::from_micros(1 << index));
            (bound, count.load(Ordering::Relaxed))
        })
    }

    /// The lateness of all checks together.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_microseconds.load(Ordering::Relaxed))
    }

    /// The number of checks that have begun.
    pub fn checks(&self) -> u64 {
        self.counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    /// A time that the given share (0 to 1) of all checks were less late than; at most twice the
    /// smallest such time.
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = share * self.checks() as f64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count.load(Ordering::Relaxed);
            if seen as f64 >= wanted {
                return Duration::from_micros(1 << bucket);
            }
        }
        Duration::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_counted() {
        let lag = Lag::default();
        for late in (0..99).chain([1_000_000]) {
            lag.record(Duration::from_micros(late));
        }
        assert_eq!(lag.checks(), 100);
        assert_eq!(lag.quantile(0.5), Duration::from_micros(64));
        assert_eq!(lag.quantile(0.99), Duration::from_micros(128));
        assert_eq!(lag.quantile(1.0), Duration::from_micros(1 << 20));
        assert_eq!(lag.sum(), Duration::from_micros(99 * 49 + 1_000_000));
        let below: u64 = lag
            .buckets()
            .filter(|(bound, _)| bound.is_some_and(|bound| bound <= Duration::from_micros(64)))
            .map(|(_, count)| count)
            .sum();
        assert_eq!(below, 64);
        lag.record(Duration::MAX);
        assert_eq!(lag.quantile(1.0), Duration::from_micros(1 << 31));
    }
}
