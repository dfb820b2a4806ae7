//! What the load met in the last seconds: how long answers took, and how many visits failed.
//!
//! Pure: time is passed in. It keeps one entry a visit, which the highest rate bounds.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Now;

/// How far back "recent" goes: long enough for a 99th percentile at the rate of the start, short
/// enough to see what one has just done.
pub(super) const WINDOW: Duration = Duration::from_secs(5);

/// One visit that is over.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Now,
    /// From its beginning to the whole answer; `None` where it failed.
    latency: Option<Duration>,
}

/// The visits of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Recent {
    samples: VecDeque<Sample>,
}

/// What they come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    /// The 50th and the 99th percentile; `None` where nothing was answered.
    pub(super) latencies: [Option<Duration>; 2],
    pub(super) errors: u64,
}

impl Recent {
    /// Takes a visit that ended now, in order of time.
    pub(super) fn note(&mut self, now: Now, latency: Option<Duration>) {
        self.samples.push_back(Sample { at: now, latency });
    }

    /// What is left of the last seconds; forgets what is older.
    pub(super) fn figures(&mut self, now: Now) -> Figures {
        while self
            .samples
            .front()
            .is_some_and(|sample| now.since(sample.at) > WINDOW)
        {
            self.samples.pop_front();
        }
        let latencies = self.samples.iter().filter_map(|sample| sample.latency);
        let mut latencies: Vec<_> = latencies.collect();
        Figures {
            errors: (self.samples.len() - latencies.len()) as u64,
            latencies: [50, 99].map(|percent| percentile(&mut latencies, percent)),
        }
    }
}

/// The smallest value that at least `percent` of all do not exceed (nearest rank).
fn percentile(values: &mut [Duration], percent: usize) -> Option<Duration> {
    let rank = (values.len() * percent).div_ceil(100);
    let index = rank.checked_sub(1)?;
    Some(*values.select_nth_unstable(index).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let table: [(Vec<u64>, usize, Option<u64>); 6] = [
            (vec![], 50, None),
            (vec![7], 50, Some(7)),
            (vec![7], 99, Some(7)),
            (vec![2, 1], 50, Some(1)),
            ((1..=100).rev().collect(), 99, Some(99)),
            ((1..=1000).collect(), 50, Some(500)),
        ];
        for (values, percent, expected) in table {
            let mut values: Vec<_> = values.into_iter().map(ms).collect();
            assert_eq!(percentile(&mut values, percent), expected.map(ms));
        }
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let start = Now::from_nanoseconds(0);
        let mut recent = Recent::default();
        recent.note(start, Some(ms(900)));
        recent.note(start, None);
        recent.note(start + ms(3000), Some(ms(1)));
        let all = recent.figures(start + WINDOW);
        assert_eq!(
            (all.latencies, all.errors),
            ([Some(ms(1)), Some(ms(900))], 1)
        );
        let left = recent.figures(start + WINDOW + ms(1));
        assert_eq!((left.latencies, left.errors), ([Some(ms(1)); 2], 0));
        assert_eq!(recent.figures(start + WINDOW + WINDOW), Figures::default());
    }
}
