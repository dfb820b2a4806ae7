//! How late checks begin, counted by the prober and read by any thread.
//!
//! Buckets are powers of two of a microsecond: enough to tell a busy prober from a healthy one, and
//! two relaxed additions a check.

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

    /// For each bucket with any, its bound in microseconds and how many it has, those of the buckets before
    /// not included; the last bound is `u64::MAX`.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        let counts = self.counts.iter().enumerate();
        let counts = counts.map(|(bucket, count)| (bound(bucket), count.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0)
    }

    /// Adds what another process has counted in the bucket with that bound.
    pub fn add_bucket(&self, upper: u64, count: u64) {
        let bucket = (0..BUCKETS).find(|bucket| bound(*bucket) >= upper);
        self.counts[bucket.unwrap_or(BUCKETS - 1)].fetch_add(count, Ordering::Relaxed);
    }

    /// The same for the sum of all lateness.
    pub fn add_sum(&self, microseconds: u64) {
        self.sum_microseconds
            .fetch_add(microseconds, Ordering::Relaxed);
    }

    /// For each bucket, a time and the number of checks that were less late than that, those of the
    /// buckets before included; the last time is `Duration::MAX` and stands for all checks.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let mut seen = 0;
        self.counts.iter().enumerate().map(move |(bucket, count)| {
            seen += count.load(Ordering::Relaxed);
            let bound = match bound(bucket) {
                u64::MAX => Duration::MAX,
                bound => Duration::from_micros(bound),
            };
            (bound, seen)
        })
    }

    /// All lateness so far, in microseconds; wraps after half a million years of it.
    pub fn sum_microseconds(&self) -> u64 {
        self.sum_microseconds.load(Ordering::Relaxed)
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

/// Microseconds that all in a bucket were less late than.
fn bound(bucket: usize) -> u64 {
    match bucket {
        last if last == BUCKETS - 1 => u64::MAX,
        bucket => 1 << bucket,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_process_has_counted_is_added_bucket_by_bucket() {
        let [before, after] = [(); 2].map(|()| Lag::default());
        for late in [0, 3, 3, 1 << 40] {
            before.record(Duration::from_micros(late));
            after.record(Duration::from_micros(late));
        }
        before
            .counts()
            .for_each(|(bound, count)| after.add_bucket(bound, count));
        after.add_sum(before.sum_microseconds());
        assert_eq!(
            after.counts().collect::<Vec<_>>(),
            [(1, 2), (4, 4), (u64::MAX, 2)]
        );
        assert_eq!(after.sum_microseconds(), 2 * before.sum_microseconds());
    }

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
        lag.record(Duration::from_secs(1 << 20));
        assert_eq!(lag.quantile(1.0), Duration::from_micros(1 << 31));
    }
    #[test]
    fn buckets_add_up() {
        let lag = Lag::default();
        for late in [0, 1, 3, 3, 1 << 40] {
            lag.record(Duration::from_micros(late));
        }
        let buckets: Vec<_> = lag.buckets().collect();
        let micros = Duration::from_micros;
        assert_eq!(
            buckets[..4],
            [
                (micros(1), 1),
                (micros(2), 2),
                (micros(4), 4),
                (micros(8), 4)
            ]
        );
        assert_eq!(buckets[BUCKETS - 2], (micros(1 << 30), 4));
        assert_eq!(buckets[BUCKETS - 1], (Duration::MAX, 5));
        assert_eq!(lag.sum_microseconds(), 7 + (1 << 40));
    }
}
