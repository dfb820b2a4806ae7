//! Draining: connections are brought to their end at a pace. One [`Drain`] is shared by all workers,
//! because the pace is that of the process, and by those who show its progress.
//!
//! Those that have been silent both ways for `quiet` are closed first, at most `rate` a second; at
//! the deadline, all that are left. Without a rate and a deadline nobody is cut.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::Now;
use crate::end::End;
use crate::ids::ServerId;
use crate::units::Rate;

/// How often workers look at connections that are to end.
const LOOK: Duration = Duration::from_millis(40);
/// How late a look may come without loss of pace.
const LATE: Duration = Duration::from_millis(50);
const _: () = assert!(LOOK.as_nanos() < LATE.as_nanos());

/// How fast connections are brought to their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Quiet connections closed; `None` closes none before the deadline.
    pub rate: Option<Rate>,
    /// How long one must have been silent both ways to count as quiet.
    pub quiet: Duration,
    /// From the beginning to the moment at which all that are left are closed; `None` is never.
    pub deadline: Option<Duration>,
}

impl Pace {
    /// What counts as quiet where nothing else was said.
    pub const QUIET: Duration = Duration::from_millis(200);
    /// When a drain with a rate ends where nothing else was said.
    pub const DEADLINE: Duration = Duration::from_secs(600);

    /// Nobody is cut.
    pub const PATIENT: Self = Self {
        rate: None,
        quiet: Self::QUIET,
        deadline: None,
    };

    /// All at once.
    pub const AT_ONCE: Self = Self {
        rate: None,
        quiet: Self::QUIET,
        deadline: Some(Duration::ZERO),
    };
}

/// Whose connections are brought to their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One server's.
    Server(ServerId),
    /// All of the process.
    Everything,
}

/// One drain under way.
#[derive(Debug)]
pub struct Drain {
    scope: Scope,
    end: End,
    pace: Pace,
    begun: Now,
    began_with: u32,
    closed: AtomicU32,
    /// Nanoseconds since `begun` before which no further one may be closed.
    next_at: AtomicU64,
    is_over: AtomicBool,
}

impl Drain {
    /// Begins at `now` with `began_with` connections, which end as `end`.
    pub fn new(scope: Scope, end: End, pace: Pace, began_with: u32, now: Now) -> Self {
        Self {
            scope,
            end,
            pace,
            begun: now,
            began_with,
            closed: AtomicU32::new(0),
            next_at: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// One that the process before this one has begun, `begun` then; `closed` connections are closed by
    /// it already. It goes on at its pace.
    #[must_use]
    pub fn resumed(self, begun: Now, closed: u32, now: Now) -> Self {
        Self {
            begun,
            closed: AtomicU32::new(closed),
            next_at: AtomicU64::new(nanoseconds(now.since(begun))),
            ..self
        }
    }

    /// When it began.
    pub fn begun(&self) -> Now {
        self.begun
    }

    /// Whose connections.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// As what they end.
    pub fn end(&self) -> End {
        self.end
    }

    /// How fast.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// Connections there were at the beginning.
    pub fn began_with(&self) -> u32 {
        self.began_with
    }

    /// Connections closed by it so far; others have ended by themselves.
    pub fn closed(&self) -> u32 {
        self.closed.load(Relaxed)
    }

    /// Whether a connection whose server was picked at `picked` is none of its business. A pick after
    /// the server went down can be there only because it is up again, and this drain is about to be
    /// cancelled, or because all are down and the pool fails open. Elsewhere late ones count: they
    /// were picked while the server was open.
    pub fn spares(&self, picked: Now) -> bool {
        self.end == End::ServerDown && picked > self.begun
    }

    /// Permission to close one quiet connection now. A place in time that nobody took is lost, so
    /// that a wait for quiet connections is not followed by a burst.
    pub fn may_close_one(&self, now: Now) -> bool {
        let Some(rate) = self.pace.rate else {
            return false;
        };
        let since = nanoseconds(now.since(self.begun));
        let interval = nanoseconds(rate.interval());
        let late = interval.max(nanoseconds(LATE));
        let mut next = self.next_at.load(Relaxed);
        // Another worker's success costs one more round.
        while next <= since {
            // What came since the last look was not missed, only looked at a little late.
            let then = next.max(since.saturating_sub(late)) + interval;
            match self
                .next_at
                .compare_exchange_weak(next, then, Relaxed, Relaxed)
            {
                Ok(_) => return true,
                Err(other) => next = other,
            }
        }
        false
    }

    /// Counts one that was closed.
    pub fn note_closed(&self) {
        self.closed.fetch_add(1, Relaxed);
    }

    /// Whether all that are left are to be closed.
    pub fn is_past_deadline(&self, now: Now) -> bool {
        self.until_deadline(now) == Some(Duration::ZERO)
    }

    /// Time left to the deadline, if there is one.
    pub fn until_deadline(&self, now: Now) -> Option<Duration> {
        let deadline = self.pace.deadline?;
        Some(deadline.saturating_sub(now.since(self.begun)))
    }

    /// When the next look at it is worth while, from now; the workers look at least so often, and
    /// never at once again.
    pub fn look_again(&self, now: Now) -> Duration {
        match self.until_deadline(now) {
            Some(left) if !left.is_zero() => left.min(LOOK),
            Some(_) | None => LOOK,
        }
    }

    /// How long it may still take with `left` connections: by how fast it went so far, at first by
    /// the rate alone, and not beyond the deadline. `None` where nothing can be said.
    pub fn estimate(&self, left: u32, now: Now) -> Option<Duration> {
        /// Before this the speed is that of the first few, which says nothing.
        const TELLING: Duration = Duration::from_secs(1);
        let gone = self.began_with.saturating_sub(left);
        let since = now.since(self.begun);
        let by_speed = (gone > 0 && since >= TELLING)
            .then(|| since.mul_f64(f64::from(left) / f64::from(gone)));
        let by_rate = || Some(self.pace.rate?.interval() * left);
        let estimate = by_speed.or_else(by_rate)?;
        Some(
            self.until_deadline(now)
                .map_or(estimate, |most| estimate.min(most)),
        )
    }

    /// Workers drop it at their next look.
    pub fn cancel(&self) {
        self.is_over.store(true, Relaxed);
    }

    /// Whether it was cancelled.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Relaxed)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn drain(rate: Option<&str>, deadline: Option<Duration>) -> Drain {
        let pace = Pace {
            rate: rate.map(|rate| rate.parse().unwrap()),
            quiet: Pace::QUIET,
            deadline,
        };
        Drain::new(Scope::Everything, End::Shutdown, pace, 100, Now::default())
    }

    fn taken(drain: &Drain, from_ms: u64, to_ms: u64) -> usize {
        let at = |ms| Now::default() + Duration::from_millis(ms);
        (from_ms..to_ms)
            .map(|ms| (0..10).filter(|_| drain.may_close_one(at(ms))).count())
            .sum()
    }

    #[test]
    fn a_rate_holds_and_what_was_not_taken_is_lost() {
        let drain = drain(Some("20/s"), None);
        assert_eq!(taken(&drain, 0, 1000), 20);
        // Nobody was quiet for nine seconds.
        assert!(taken(&drain, 10_000, 11_000) <= 21);
    }

    #[test]
    fn a_rate_of_many_for_each_look_holds() {
        let drain = drain(Some("1000/s"), None);
        let at = |look: u32| Now::default() + look * LOOK;
        let taken = |look| (0..1000).filter(|_| drain.may_close_one(at(look))).count();
        let sum: usize = (0..25).map(taken).sum();
        assert!((900..=1000).contains(&sum), "{sum}");
        assert!(taken(200) <= 51, "a wait is not followed by a burst");
    }

    #[test]
    fn without_a_rate_only_the_deadline_cuts() {
        let drain = drain(None, Some(SECOND));
        assert_eq!(taken(&drain, 0, 1000), 0);
        assert!(!drain.is_past_deadline(Now::default()));
        assert!(drain.is_past_deadline(Now::default() + SECOND));
    }

    #[test]
    fn only_what_ends_with_its_server_spares_who_came_later() {
        let begun = Now::default() + SECOND;
        let drain = |end| Drain::new(Scope::Everything, end, Pace::AT_ONCE, 1, begun);
        assert!(drain(End::ServerDown).spares(begun + SECOND));
        assert!(!drain(End::ServerDown).spares(begun));
        assert!(!drain(End::Drained).spares(begun + SECOND));
    }

    #[test]
    fn an_estimate_follows_the_pace_and_ends_at_the_deadline() {
        let now = Now::default() + 10 * SECOND;
        let deadline = Some(30 * SECOND);
        assert_eq!(drain(None, deadline).estimate(100, now), None);
        assert_eq!(drain(None, None).estimate(80, now), Some(40 * SECOND));
        assert_eq!(drain(None, deadline).estimate(80, now), Some(20 * SECOND));
        let at_once = Now::default() + SECOND / 10;
        let paced = drain(Some("10/s"), None);
        assert_eq!(paced.estimate(99, at_once), Some(99 * SECOND / 10));
    }
}
