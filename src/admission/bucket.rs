//! A token bucket that is one number: when it will be full again.
//!
//! What was taken and has not come back is a debt, and a debt is paid back at an even pace, so its
//! size is a time. A full bucket owes nothing, and is the same as no bucket at all: nobody has to
//! remember it. A debt carries over to another rate as the time that it is, up to an empty bucket.

use std::time::Duration;

use crate::clock::Now;
use crate::units::Rate;

/// A bucket holds what the rate gives in this time, and at least one token.
const SECOND: Duration = Duration::from_secs(1);
/// Workers read the clock once a turn, so one may be behind another: a debt that is too large by less
/// than this is not from another rate.
const SKEW_MAX: Duration = Duration::from_secs(1);

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From one token to the next.
    interval: Duration,
    /// To fill an empty bucket: one second's worth, at least one token.
    fill: Duration,
}

impl Pace {
    /// To the nanosecond.
    pub fn of(rate: Rate) -> Self {
        let interval = rate.interval();
        Self {
            interval,
            fill: SECOND.max(interval),
        }
    }
}

/// A bucket of tokens; those of one pace are ordered from the fullest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bucket {
    full_at: Now,
}

impl Bucket {
    /// One that will be full then.
    pub(super) fn full_at(full_at: Now) -> Self {
        Self { full_at }
    }

    /// Whether it has a token, which is taken only by [`Self::take`].
    pub(super) fn has_token(&mut self, pace: &Pace, now: Now) -> bool {
        let debt = self.full_at.since(now);
        if debt > pace.fill + SKEW_MAX {
            self.full_at = now + pace.fill;
        }
        debt + pace.interval <= pace.fill
    }

    /// Takes a token that is there.
    pub(super) fn take(&mut self, pace: &Pace, now: Now) {
        self.full_at = self.full_at.max(now) + pace.interval;
    }

    /// When it is full.
    pub(super) fn until(self) -> Now {
        self.full_at
    }

    /// Whether nothing has to be remembered of it.
    pub(super) fn is_full(self, now: Now) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pace(text: &str) -> Pace {
        Pace::of(text.parse().unwrap())
    }

    /// Tokens that can be had at once.
    fn drained(bucket: &mut Bucket, pace: &Pace, now: Now) -> usize {
        let mut got = 0;
        while got < 10_000 && bucket.has_token(pace, now) {
            bucket.take(pace, now);
            got += 1;
        }
        got
    }

    #[test]
    fn it_holds_one_second_s_worth_and_at_least_one() {
        for (rate, holds) in [("20/s", 20), ("3/s", 3), ("100/m", 1), ("5/h", 1)] {
            let mut bucket = Bucket::default();
            let now = Now::from_nanoseconds(7);
            assert_eq!(drained(&mut bucket, &pace(rate), now), holds, "{rate}");
            assert!(!bucket.is_full(now));
            let later = now + Duration::from_secs(3600);
            assert!(bucket.is_full(later));
            assert_eq!(drained(&mut bucket, &pace(rate), later), holds, "{rate}");
        }
    }

    #[test]
    fn it_fills_evenly() {
        let (pace, mut bucket) = (pace("10/s"), Bucket::default());
        let start = Now::default();
        drained(&mut bucket, &pace, start);
        assert!(!bucket.has_token(&pace, start + Duration::from_millis(99)));
        let half = start + Duration::from_millis(500);
        assert_eq!(drained(&mut bucket, &pace, half), 5);
    }

    #[test]
    fn a_debt_at_a_slow_rate_is_no_longer_than_an_empty_bucket_at_a_fast_one() {
        let (mut bucket, now) = (Bucket::default(), Now::default());
        drained(&mut bucket, &pace("5/h"), now);
        let fast = pace("20/s");
        assert!(!bucket.has_token(&fast, now), "it was empty, and still is");
        assert_eq!(drained(&mut bucket, &fast, now + SECOND / 2), 10);
    }

    #[test]
    fn a_worker_whose_clock_is_behind_gives_nothing_away() {
        let (mut bucket, now) = (Bucket::default(), Now::default() + 10 * SECOND);
        let pace = pace("1000/s");
        drained(&mut bucket, &pace, now);
        assert!(!bucket.has_token(&pace, now - SECOND / 2));
        assert!(!bucket.has_token(&pace, now));
    }

    #[test]
    fn a_rate_that_no_clock_can_count_is_no_limit() {
        let mut bucket = Bucket::default();
        assert_eq!(
            drained(&mut bucket, &pace("4000000000/s"), Now::default()),
            10_000
        );
    }

    proptest! {
        #[test]
        fn it_never_gives_more_than_it_holds_and_what_the_rate_adds(
            count in 1_u32..5000,
            per in prop_oneof![Just("s"), Just("m"), Just("h")],
            waits in proptest::collection::vec(0_u64..300_000_000, 1..300),
        ) {
            let pace = pace(&format!("{count}/{per}"));
            let (mut bucket, mut now) = (Bucket::default(), Now::default());
            let mut got = 0_u128;
            for wait in waits {
                now = now + Duration::from_nanos(wait);
                got += drained(&mut bucket, &pace, now) as u128;
                prop_assert!(!bucket.has_token(&pace, now));
                let worth = pace.fill.as_nanos() + u128::from(now.as_nanoseconds());
                prop_assert!(got <= worth / pace.interval.as_nanos());
            }
        }
    }
}
