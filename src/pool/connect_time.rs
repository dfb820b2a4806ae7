//! How long a server takes to accept: a peak-sensitive moving average.
//!
//! A slow sample counts at once, a quick one pulls the average down only slowly, and without samples
//! it fades, so that a server that was slow is tried again. The idea is Finagle's `PeakEwma`
//! (twitter/finagle, `finagle-core`).

use std::time::Duration;

use crate::clock::Now;

/// After this long a sample still weighs 1/e.
const DECAY: Duration = Duration::from_secs(10);

/// The average of one server, as one worker has seen it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectTime {
    nanoseconds: f64,
    at: Now,
}

impl ConnectTime {
    /// Takes a connect that needed `sample`, or one that failed after `sample`.
    pub fn observe(&mut self, sample: Duration, now: Now) {
        let sample = sample.as_secs_f64() * 1e9;
        let weight = self.weight(now);
        self.nanoseconds = sample.max(self.nanoseconds * weight + sample * (1.0 - weight));
        self.at = now;
    }

    /// The average in nanoseconds as of `now`; 0 before the first sample.
    #[allow(clippy::cast_possible_truncation, reason = "saturates")]
    pub fn nanoseconds(&self, now: Now) -> u64 {
        (self.nanoseconds * self.weight(now)) as u64
    }

    /// What is left of the past at `now`.
    fn weight(&self, now: Now) -> f64 {
        (-now.since(self.at).as_secs_f64() / DECAY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let start = Now::default();
        let mut time = ConnectTime::default();
        time.observe(MS, start);
        time.observe(100 * MS, start);
        assert_eq!(time.nanoseconds(start), 100_000_000);
        time.observe(MS, start + 100 * MS);
        assert!(time.nanoseconds(start + 100 * MS) > 90_000_000);
        assert!(time.nanoseconds(start + 10 * DECAY) < 1_000_000);
    }
}
