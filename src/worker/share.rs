//! When a connection goes to another worker: only if that one has clearly fewer.
//!
//! The kernel spreads connections over the workers' sockets by a hash, which is fair for many short
//! ones and unfair for few long ones. A gap that short connections have opened closes by itself, so
//! the more of them come and go, the larger the gap must be before it is worth a message.

use std::time::Duration;

use crate::clock::Now;

/// A connection that lived shorter than this came and went.
const SHORT: Duration = Duration::from_secs(1);
/// How long the count of those is kept.
const WINDOW: Duration = Duration::from_secs(1);
/// The largest gap that is left alone, besides a quarter of both workers' connections.
const GAP_MIN: u32 = 8;

/// How many short connections have ended lately, on one worker.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Churn {
    since: Now,
    current: u32,
    previous: u32,
}

impl Churn {
    /// A connection that was accepted at `accepted` has ended.
    pub(super) fn note_end(&mut self, accepted: Now, now: Now) {
        self.roll(now);
        if now.since(accepted) < SHORT {
            self.current = self.current.saturating_add(1);
        }
    }

    /// Short connections that ended in the last one to two windows.
    fn recent(&mut self, now: Now) -> u32 {
        self.roll(now);
        self.current.saturating_add(self.previous)
    }

    /// Whether a worker that holds `mine` should give its next connection to one that holds
    /// `least`.
    pub(super) fn is_clearly_unfair(&mut self, mine: u32, least: u32, now: Now) -> bool {
        let noise = GAP_MIN + mine.saturating_add(least) / 4;
        mine.saturating_sub(least) > noise.min(self.recent(now))
    }

    fn roll(&mut self, now: Now) {
        let passed = now.since(self.since);
        if passed < WINDOW {
            return;
        }
        self.previous = if passed < 2 * WINDOW { self.current } else { 0 };
        self.current = 0;
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn without_short_connections_any_gap_counts() {
        let mut churn = Churn::default();
        assert!(churn.is_clearly_unfair(1, 0, Now::default()));
        assert!(!churn.is_clearly_unfair(1, 1, Now::default()));
    }

    #[test]
    fn long_connections_that_end_do_not_count_as_short() {
        let mut churn = Churn::default();
        let now = Now::default() + 10 * SECOND;
        churn.note_end(Now::default(), now);
        assert!(churn.is_clearly_unfair(1, 0, now));
    }

    #[test]
    fn short_connections_widen_the_gap_up_to_a_bound_and_are_forgotten() {
        let mut churn = Churn::default();
        let now = Now::default() + 10 * SECOND;
        for _ in 0..1000 {
            churn.note_end(now, now);
        }
        assert!(!churn.is_clearly_unfair(20, 8, now));
        assert!(churn.is_clearly_unfair(200, 4, now));
        assert!(!churn.is_clearly_unfair(20, 8, now + SECOND));
        assert!(churn.is_clearly_unfair(20, 8, now + 4 * SECOND));
    }
}
