//! The only place that reads a clock. Loops read it once a turn and pass [`Now`] down, so that pure
//! code is tested without waiting and one turn sees one time.
//!
//! All timing rests on `CLOCK_MONOTONIC`, so a jump of the wall clock moves no timer; [`wall`] is for
//! logs alone. A time is the clock's own number, which is the same in every process of one boot: it can
//! be handed to another one as it stands.

use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime};

use crate::sys;

/// A point on the machine's monotonic clock: nanoseconds since it was started. Zero is a time that no
/// clock shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now(u64);

impl Now {
    /// Reads the clock.
    pub fn read() -> Self {
        Self(nanoseconds(sys::time::since_boot()))
    }

    /// A made-up time, for tests and for pure code that counts from zero.
    pub const fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Nanoseconds since the machine was started: the clock's own number.
    pub const fn as_nanoseconds(self) -> u64 {
        self.0
    }

    /// The time since `earlier`, zero where `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Now {
    type Output = Self;
    fn add(self, rest: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(rest)))
    }
}

impl Sub<Duration> for Now {
    type Output = Self;
    fn sub(self, rest: Duration) -> Self {
        Self(self.0.saturating_sub(nanoseconds(rest)))
    }
}

/// The wall clock, for log lines only.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Saturates at 584 years.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
