//! A histogram of durations with fixed bounds: written by one thread, read by any.

use std::time::Duration;

use super::counters::Counter;

/// Upper bounds of the buckets in microseconds: from a connect on loopback to a session that lasts
/// an hour. One more bucket takes what is longer.
pub const BOUNDS_MICROSECONDS: [u64; 16] = [
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    1_000_000,
    5_000_000,
    30_000_000,
    300_000_000,
    3_600_000_000,
];

/// How many of what length.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Not cumulative; the last one is for what exceeds all bounds.
    buckets: [Counter; BOUNDS_MICROSECONDS.len() + 1],
    sum_microseconds: Counter,
}

impl Histogram {
    /// Counts one. Only the owning thread may call this.
    pub fn observe(&self, sample: Duration) {
        let microseconds = u64::try_from(sample.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROSECONDS.partition_point(|bound| *bound < microseconds);
        self.buckets[bucket].add(1);
        self.sum_microseconds.add(microseconds);
    }

    /// Adds `count` samples that were at most `bound` microseconds long and longer than the bound before
    /// it. Only the owning thread may call this, or another one while that stands still.
    pub fn add_bucket(&self, bound: u64, count: u64) {
        // Bounds of another version: no sample becomes shorter than it was.
        let bucket = BOUNDS_MICROSECONDS.partition_point(|own| *own < bound);
        self.buckets[bucket].add(count);
    }

    /// Adds to the sum of all samples, as [`Self::add_bucket`] does to their count.
    pub fn add_sum(&self, microseconds: u64) {
        self.sum_microseconds.add(microseconds);
    }

    /// Adds what this one has counted to `total`.
    pub fn add_to(&self, total: &mut Total) {
        for (sum, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.value();
        }
        total.sum_microseconds += self.sum_microseconds.value();
    }
}

/// Histograms of several threads, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// As in [`Histogram`]: not cumulative.
    pub buckets: [u64; BOUNDS_MICROSECONDS.len() + 1],
    /// Of all samples.
    pub sum_microseconds: u64,
}

impl Total {
    /// How many samples there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_has_counted_is_added_bucket_by_bucket() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(200));
        histogram.add_bucket(250, 2);
        histogram.add_bucket(300, 1);
        histogram.add_bucket(u64::MAX, 4);
        histogram.add_sum(1000);
        let mut total = Total::default();
        histogram.add_to(&mut total);
        assert_eq!(total.buckets[..3], [0, 3, 1]);
        assert_eq!(total.buckets[BOUNDS_MICROSECONDS.len()], 4);
        assert_eq!((total.count(), total.sum_microseconds), (8, 1200));
    }

    #[test]
    fn a_bound_belongs_to_its_own_bucket_and_the_longest_to_the_last() {
        let histogram = Histogram::default();
        for microseconds in [0, 100, 101, 3_600_000_001] {
            histogram.observe(Duration::from_micros(microseconds));
        }
        let mut total = Total::default();
        histogram.add_to(&mut total);
        histogram.add_to(&mut total);
        assert_eq!(total.buckets[..3], [4, 2, 0]);
        assert_eq!(total.buckets[BOUNDS_MICROSECONDS.len()], 2);
        assert_eq!(total.count(), 8);
        assert_eq!(total.sum_microseconds, 2 * 3_600_000_202);
    }
}
