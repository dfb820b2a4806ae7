//! How much of the time the prober was not there to listen, and what that means for a check.
//! Pure: the loop says when it began to wait, for how long, and when it woke.
//!
//! A check may overrun because its server is slow or because we were: the process was stopped, the
//! machine starved us, a turn of the loop was long. Two stretches are measured in each turn: from
//! the moment at which the poll should have returned at the latest to the one at which it did, and
//! the turn's own work. One of at least [`STALL_MIN`] is a stall and adds to `lost`. While checks
//! run, no poll is longer than [`HEARTBEAT`], so a stall that ends before any timer is due is
//! measured as well, up to a heartbeat.
//!
//! A check remembers what was lost before it began. Where more than 1/[`LOST_SHARE`] of its timeout
//! was lost while it ran, the server had not the time that the config grants it: a bad answer that
//! may come from that (a timeout, a reset, a close, but no refusal and no wrong status) is then
//! unknown. A smaller loss, or one before the check began, changes nothing, so a busy prober still
//! finds its dead servers. After a stall the loop reads what the kernel holds before it judges any
//! timeout: an answer that came meanwhile counts as it is.

use std::time::Duration;

use super::answer::{Answer, Reason};
use crate::clock::Now;

/// Above a timer's tick (4.2 ms), epoll's rounding (1 ms) and the wait for a processor that a dozen
/// threads share (3 ms a slice): on a machine that is merely busy, dead servers must be found.
const STALL_MIN: Duration = Duration::from_millis(50);

/// The longest poll while checks run: a sleeping prober with a check open wakes 20 times a second.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(50);

/// With a timeout of 2 s, 250 ms may be lost before its failures no longer count.
const LOST_SHARE: u32 = 8;

/// Keeps the account of lost time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attention {
    /// Where nothing holds us up, we are here again by this time; `None` waits without limit.
    expected: Option<Now>,
    /// Sum of all stalls so far.
    lost: Duration,
}

impl Attention {
    /// Begins at `now`, with nothing lost.
    pub(super) fn new(now: Now) -> Self {
        Self {
            expected: Some(now),
            lost: Duration::ZERO,
        }
    }

    /// The turn's work is done, and a poll of at most `wait` begins.
    pub(super) fn rest(&mut self, now: Now, wait: Option<Duration>) {
        self.account(now);
        self.expected = wait.map(|wait| now + wait);
    }

    /// The poll is over; returns how much later than it should have been, stall or not.
    pub(super) fn wake(&mut self, now: Now) -> Duration {
        let late = self.account(now);
        self.expected = Some(now);
        late
    }

    /// All that was lost so far.
    pub(super) fn lost(&self) -> Duration {
        self.lost
    }

    /// What an answer is worth after `lost_before` was lost before its check began.
    pub(super) fn judge(&self, answer: Answer, lost_before: Duration, timeout: Duration) -> Answer {
        let lost = self.lost.saturating_sub(lost_before);
        match answer {
            Answer::Bad(reason) if reason.may_be_our_doing() && lost > timeout / LOST_SHARE => {
                Answer::Unknown(Reason::Late(lost))
            }
            Answer::Good(_) | Answer::Bad(_) | Answer::Unknown(_) => answer,
        }
    }

    fn account(&mut self, now: Now) -> Duration {
        let late = self
            .expected
            .map_or(Duration::ZERO, |expected| now.since(expected));
        if late >= STALL_MIN {
            self.lost += late;
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(2);
    const TIMED_OUT: Answer = Answer::Bad(Reason::Timeout(TIMEOUT));

    fn at(milliseconds: u64) -> Now {
        Now::from_nanoseconds(milliseconds * 1_000_000)
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn waiting_as_long_as_asked_loses_nothing() {
        let mut attention = Attention::new(at(0));
        for turn in 0..100 {
            attention.rest(at(turn * 60), Some(ms(50)));
            assert_eq!(attention.wake(at(turn * 60 + 55)), ms(5));
        }
        attention.rest(at(6000), None);
        attention.wake(at(1_000_000));
        assert_eq!(attention.lost(), Duration::ZERO);
        assert_eq!(
            attention.judge(TIMED_OUT, Duration::ZERO, TIMEOUT),
            TIMED_OUT
        );
    }

    #[test]
    fn a_timeout_while_we_were_stopped_is_unknown() {
        let mut attention = Attention::new(at(0));
        attention.rest(at(0), Some(ms(50)));
        assert_eq!(attention.wake(at(10_050)), ms(10_000));
        let late = Answer::Unknown(Reason::Late(ms(10_000)));
        assert_eq!(attention.judge(TIMED_OUT, Duration::ZERO, TIMEOUT), late);
        // The next check ran after it all.
        assert_eq!(
            attention.judge(TIMED_OUT, attention.lost(), TIMEOUT),
            TIMED_OUT
        );
    }

    #[test]
    fn a_long_turn_counts_like_a_late_wake() {
        let mut attention = Attention::new(at(0));
        attention.wake(at(0));
        attention.rest(at(300), Some(ms(50)));
        attention.wake(at(350));
        assert_eq!(attention.lost(), ms(300));
    }

    #[test]
    fn a_small_loss_does_not_save_a_dead_server() {
        let mut attention = Attention::new(at(0));
        attention.rest(at(0), Some(ms(50)));
        attention.wake(at(50 + 250));
        assert_eq!(
            attention.judge(TIMED_OUT, Duration::ZERO, TIMEOUT),
            TIMED_OUT
        );
        attention.rest(at(300), Some(ms(50)));
        attention.wake(at(350 + 60));
        let judged = attention.judge(TIMED_OUT, Duration::ZERO, TIMEOUT);
        assert_eq!(judged, Answer::Unknown(Reason::Late(ms(310))));
    }

    #[test]
    fn what_the_server_said_stands_however_late_we_are() {
        let mut attention = Attention::new(at(0));
        attention.rest(at(0), Some(ms(50)));
        attention.wake(at(100_000));
        for answer in [
            Answer::Good(Reason::Connected),
            Answer::Bad(Reason::Status(503)),
            Answer::Bad(Reason::Failed(io::ErrorKind::ConnectionRefused)),
        ] {
            assert_eq!(attention.judge(answer, Duration::ZERO, TIMEOUT), answer);
        }
        let reset = Answer::Bad(Reason::Failed(io::ErrorKind::ConnectionReset));
        assert_ne!(attention.judge(reset, Duration::ZERO, TIMEOUT), reset);
    }
}
