//! When each check is due. Pure: times come in and go out.
//!
//! Each target has a fixed place in its interval: the n-th multiple of the golden ratio, which
//! spreads any number of targets, and any run of neighbours such as a pool, nearly as evenly as
//! can be, and does so again when targets are added. Checks follow that place and not the last
//! check's end, so they never drift together, however late single ones are.

use std::time::Duration;

use crate::clock::Now;

/// 2^32 divided by the golden ratio.
const GOLDEN: u32 = 0x9E37_79B9;

/// Listeners wait for the first answers, so first checks are this far apart, and not spread over the
/// interval: 10,000 of them in a second, a single one at once.
const FIRST_SPACING: Duration = Duration::from_micros(100);

/// An unknown answer is followed by another check after this and, as many may be unknown at the
/// same moment, a spread of up to [`AGAIN_SPREAD`].
const AGAIN_AFTER: Duration = Duration::from_millis(50);
const AGAIN_SPREAD: Duration = Duration::from_secs(1);

/// Where in its interval one target is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    interval: Duration,
    /// The place in the interval, in units of 2^-32 of it.
    place: u32,
}

impl Schedule {
    /// For the `index`-th target of the process.
    pub(super) fn new(index: u32, interval: Duration) -> Self {
        Self {
            // Finer than the timers' ticks would only be a busy loop.
            interval: interval.max(Duration::from_millis(1)),
            place: index.wrapping_mul(GOLDEN),
        }
    }

    /// The same target with another interval.
    pub(super) fn with_interval(self, interval: Duration) -> Self {
        let place = self.place;
        Self {
            place,
            ..Self::new(0, interval)
        }
    }

    /// The first check of a target that has come at `now`: in its turn, but within an interval.
    pub(super) fn first(&self, now: Now, pace: &mut Pace) -> Now {
        if pace.next.since(now) >= self.interval {
            return now + self.share(self.interval);
        }
        pace.take(now)
    }

    /// The check after one that began at `started` and is over at `now`: at the target's place,
    /// at least half an interval after `started`, and later than `now`.
    pub(super) fn next(&self, started: Now, now: Now) -> Now {
        let after = (started + self.interval / 2).max(now).as_nanoseconds();
        let interval = nanoseconds(self.interval);
        let place = nanoseconds(self.share(self.interval));
        // Places lie at `place + n * interval` on the process's clock.
        let passed = after
            .checked_sub(place)
            .map_or(0, |since| since / interval + 1);
        Now::from_nanoseconds(passed.saturating_mul(interval).saturating_add(place))
    }

    /// The check after one whose answer is unknown.
    pub(super) fn again(&self, now: Now) -> Now {
        now + AGAIN_AFTER + self.share(AGAIN_SPREAD.min(self.interval))
    }

    /// This target's part of `whole`, less than all of it.
    fn share(&self, whole: Duration) -> Duration {
        let nanoseconds = whole.as_nanos().saturating_mul(u128::from(self.place)) >> 32;
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

/// Whose turn is when, among the targets that come at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// No first check is to begin before.
    next: Now,
}

impl Pace {
    /// Nobody has come yet.
    pub(super) fn new(now: Now) -> Self {
        Self { next: now }
    }

    fn take(&mut self, now: Now) -> Now {
        let turn = self.next.max(now);
        self.next = turn + FIRST_SPACING;
        turn
    }
}

/// Saturates at 584 years.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);
    const START: Now = Now::from_nanoseconds(1_234_567_890);

    /// How many of `times` fall into each of 100 equal parts of the interval.
    fn histogram(times: &[Now]) -> [u32; 100] {
        let mut counts = [0; 100];
        for time in times {
            let place = time.as_nanoseconds() % nanoseconds(INTERVAL);
            counts[usize::try_from(place * 100 / nanoseconds(INTERVAL)).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn a_thousand_targets_are_spread_evenly_and_stay_so() {
        let schedules: Vec<_> = (0..1000)
            .map(|index| Schedule::new(index, INTERVAL))
            .collect();
        let mut pace = Pace::new(START);
        let first = schedules.iter().map(|one| one.first(START, &mut pace));
        let mut times: Vec<_> = first.collect();
        let within = START + Duration::from_millis(100);
        assert!(times.iter().all(|&first| (START..within).contains(&first)));
        let mut random = fastrand::Rng::with_seed(1);
        // The second check of each comes to its place in the interval; from then on they keep it.
        for allowed in std::iter::once(0.49..=1.51).chain(std::iter::repeat_n(0.99..=1.01, 50)) {
            for (schedule, time) in schedules.iter().zip(&mut times) {
                // Up to 3 ms late, and up to 2 s long.
                let started = *time + Duration::from_micros(random.u64(0..3000));
                let ended = started + Duration::from_millis(random.u64(0..2000));
                *time = schedule.next(started, ended);
                let gap = time.since(started);
                assert!(allowed.contains(&gap.div_duration_f64(INTERVAL)), "{gap:?}");
            }
            let counts = histogram(&times);
            assert!(
                counts.iter().all(|count| (8..=12).contains(count)),
                "{counts:?}"
            );
        }
    }

    #[test]
    fn a_single_newcomer_is_checked_at_once_and_many_within_an_interval() {
        let mut pace = Pace::new(Now::default());
        let first = |index, now, pace: &mut Pace| Schedule::new(index, INTERVAL).first(now, pace);
        assert_eq!(first(5, START, &mut pace), START);
        assert_eq!(first(6, START, &mut pace), START + FIRST_SPACING);
        let later = START + INTERVAL;
        assert_eq!(first(7, later, &mut pace), later);
        for index in 0..100_000 {
            assert!(first(index, later, &mut pace).since(later) < INTERVAL);
        }
    }

    #[test]
    fn a_pool_within_many_targets_is_spread_too() {
        let pool = (731..831).map(|index| Schedule::new(index, INTERVAL).next(START, START));
        let counts = histogram(&pool.collect::<Vec<_>>());
        assert!(counts.iter().all(|&count| count <= 3), "{counts:?}");
    }

    #[test]
    fn unknown_answers_are_repeated_soon_and_spread() {
        let again = (0..1000).map(|index| Schedule::new(index, INTERVAL).again(START));
        let again: Vec<_> = again.map(|at| at.since(START)).collect();
        assert!(
            again
                .iter()
                .all(|after| (50..1050).contains(&after.as_millis()))
        );
        let late = again.iter().filter(|after| after.as_millis() > 550).count();
        assert!((450..550).contains(&late), "{late}");
    }

    proptest! {
        #[test]
        fn the_next_check_is_neither_overdue_nor_far(
            index in any::<u32>(),
            interval in 1_u64..100_000_000,
            started in 0..u64::MAX / 4,
            ran in 0..u64::MAX / 4,
        ) {
            let interval = Duration::from_micros(interval);
            let schedule = Schedule::new(index, interval);
            let started = Now::from_nanoseconds(started);
            let now = started + Duration::from_nanos(ran);
            let next = schedule.next(started, now);
            let interval = schedule.interval;
            prop_assert!(next > now);
            prop_assert!(next.since(started) >= interval / 2);
            prop_assert!(next.since(now) <= interval * 3 / 2);
        }
    }
}
