//! Why a server is down, as far as the log has told it. Whoever has mended one thing wants to hear of
//! the next: the server stays down, but no longer for the reason that the log has.
//!
//! Pure: whoever asks writes the line.

use std::time::Duration;

use super::answer::Reason;
use crate::clock::Now;

/// A server may fail in another way at each check; one line of that in this time is enough.
const INTERVAL: Duration = Duration::from_secs(60);

/// What the log has of one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// `None` while it is up, or nobody knows.
    reason: Option<Reason>,
    /// When another reason was told last.
    changed: Option<Now>,
}

impl Told {
    /// The log has its state, and why.
    pub(super) fn note_state(&mut self, is_up: bool, reason: Reason) {
        self.reason = (!is_up).then_some(reason);
    }

    /// A bad answer; true where its reason is now to be told, as it is another one.
    pub(super) fn is_news(&mut self, reason: Reason, now: Now) -> bool {
        let Some(told) = self.reason.filter(|told| *told != reason) else {
            return false;
        };
        let is_soon = |changed: Now| now.since(changed) < INTERVAL;
        // Some reasons that differ have the same words.
        if self.changed.is_some_and(is_soon) || told.to_string() == reason.to_string() {
            return false;
        }
        self.reason = Some(reason);
        self.changed = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now::default() + Duration::from_secs(seconds)
    }

    const ONE: Reason = Reason::Status(500);
    const OTHER: Reason = Reason::Status(503);

    #[test]
    fn another_reason_is_told_once() {
        let mut told = Told::default();
        assert!(!told.is_news(ONE, at(0)), "nobody knows that it is down");
        told.note_state(false, ONE);
        assert!(!told.is_news(ONE, at(1)));
        assert!(told.is_news(OTHER, at(2)));
        assert!(!told.is_news(OTHER, at(200)));
        told.note_state(true, Reason::Status(200));
        assert!(!told.is_news(ONE, at(300)), "it is up");
    }

    #[test]
    fn reasons_that_change_all_the_time_make_a_line_a_minute() {
        let mut told = Told::default();
        told.note_state(false, ONE);
        let lines = (0..600).filter(|second| {
            let reason = if second % 2 == 0 { OTHER } else { ONE };
            told.is_news(reason, at(*second))
        });
        assert_eq!(lines.count(), 10);
    }
}
