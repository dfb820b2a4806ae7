//! Durations as people write them: `250ms`, `5s`, `10m`, `1h`, `1d`, `1h30m`. Parsing and printing
//! are each other's inverse for whole milliseconds. Rates, the same way. And counts of things, as
//! people read them.
//!
//! Knows no key and no limit: what a duration is for, and how long it may be, is the caller's.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// From the longest, with their length in milliseconds: the order in which they may be written.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// So many in a stretch of time: `20/s`, `100/m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: NonZeroU32,
    per: Duration,
}

/// What to write instead of something that is not a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// It does not look like one.
    #[error("write one such as 20/s, 100/m or 5/h")]
    Unread,
    /// It would never let anything happen.
    #[error("write one above 0, such as 1/s")]
    Zero,
}

impl Rate {
    /// The rate with that time from one to the next, as nearly as it can be said; none is slower than one
    /// an hour.
    #[must_use]
    pub fn of_interval(interval: Duration) -> Self {
        let interval = interval.as_nanos().max(1);
        let hour = Duration::from_secs(3600);
        // An interval is cut to the nanosecond, so a whole number of them is a little less than the unit.
        let is_whole = |per: &Duration| per.as_nanos() % interval < per.as_nanos() / 1000;
        let units = [1, 60].map(Duration::from_secs);
        let per = units.into_iter().find(is_whole).unwrap_or(hour);
        let count = u32::try_from(per.as_nanos() / interval).unwrap_or(u32::MAX);
        Self {
            count: NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN),
            per,
        }
    }

    /// From one to the next, where they are spread evenly.
    pub fn interval(self) -> Duration {
        self.per / self.count.get()
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let (count, unit) = text.split_once('/').ok_or(RateError::Unread)?;
        let units = UNITS
            .iter()
            .filter(|(name, _)| ["s", "m", "h"].contains(name));
        let (_, length) = units
            .into_iter()
            .find(|(name, _)| *name == unit)
            .ok_or(RateError::Unread)?;
        // A sign is no digit: `+5/s` is not what anybody means to write.
        if !count.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(RateError::Unread);
        }
        let count: u32 = count.parse().map_err(|_| RateError::Unread)?;
        let count = NonZeroU32::new(count).ok_or(RateError::Zero)?;
        Ok(Self {
            count,
            per: Duration::from_millis(*length),
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = u64::try_from(self.per.as_millis()).unwrap_or(u64::MAX);
        let unit = UNITS.iter().find(|(_, length)| *length == per);
        write!(f, "{}/{}", self.count, unit.map_or("s", |(name, _)| name))
    }
}

/// Why a text is not a duration; displayed as what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// A bare number: nobody can tell seconds from milliseconds.
    #[error("give the number a unit: ms, s, m, h or d")]
    NoUnit,
    /// Too long to be counted in milliseconds.
    #[error("write a shorter one, such as 1d")]
    TooLong,
    /// Anything else.
    #[error("write one such as 250ms, 5s, 10m, 1h or 1h30m")]
    Malformed,
}

/// Reads whole numbers with units, the longest unit first and each at most once.
///
/// # Errors
/// Says what to write instead.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DurationError::NoUnit);
    }
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut milliseconds = 0_u64;
    while !rest.is_empty() {
        let (number, unit, after) = split_part(rest);
        // The iterator goes on where the last part stopped: a unit can come neither twice nor
        // after a shorter one.
        let Some((_, length)) = units.find(|(name, _)| *name == unit) else {
            return Err(DurationError::Malformed);
        };
        milliseconds = count(number)?
            .checked_mul(*length)
            .and_then(|part| milliseconds.checked_add(part))
            .ok_or(DurationError::TooLong)?;
        rest = after;
    }
    if text.is_empty() {
        return Err(DurationError::Malformed);
    }
    Ok(Duration::from_millis(milliseconds))
}

/// The leading digits, the letters after them, and what follows.
fn split_part(text: &str) -> (&str, &str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (unit, after) = rest.split_at(letters);
    (number, unit, after)
}

fn count(digits: &str) -> Result<u64, DurationError> {
    if digits.is_empty() {
        return Err(DurationError::Malformed);
    }
    // Digits alone can fail only by being too many.
    digits.parse().map_err(|_| DurationError::TooLong)
}

/// The duration as one would write it, cut to whole milliseconds; zero is `0s`.
pub fn show_duration(duration: Duration) -> String {
    let mut rest = duration.as_millis();
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut shown = String::new();
    for (unit, length) in UNITS {
        let count = rest / u128::from(length);
        if count > 0 {
            shown.push_str(&format!("{count}{unit}"));
        }
        rest %= u128::from(length);
    }
    shown
}

/// `1 line`, `2 lines`.
pub fn counted(count: u64, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_they_are_shown() {
        for text in ["1/s", "20/s", "100/m", "5/h"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        assert_eq!(
            "20/s".parse::<Rate>().unwrap().interval(),
            Duration::from_millis(50)
        );
        for text in [
            "",
            "20",
            "20/",
            "/s",
            "20/d",
            "20/ms",
            "+5/s",
            "-1/s",
            "20 /s",
            "4294967296/s",
        ] {
            assert_eq!(text.parse::<Rate>(), Err(RateError::Unread), "{text}");
        }
        assert_eq!("0/s".parse::<Rate>(), Err(RateError::Zero));
    }

    #[test]
    fn written_durations_are_read() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("250ms", 250),
            ("5s", 5_000),
            ("10m", 600_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("1h30m", 5_400_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("0060s", 60_000),
        ] {
            let read = parse_duration(text).unwrap();
            assert_eq!(read, Duration::from_millis(milliseconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_right_advice() {
        use DurationError::{Malformed, NoUnit, TooLong};
        for (text, error) in [
            ("", Malformed),
            ("5", NoUnit),
            ("s", Malformed),
            ("5 s", Malformed),
            ("-5s", Malformed),
            ("1.5s", Malformed),
            ("5sec", Malformed),
            ("5S", Malformed),
            ("30m1h", Malformed),
            ("1h1h", Malformed),
            ("1h30", Malformed),
            ("\u{665}s", Malformed),
            ("99999999999999999999s", TooLong),
            ("18446744073709551615d", TooLong),
            ("18446744073709551615ms1ms", Malformed),
            ("18446744073709551s616ms", TooLong),
        ] {
            assert_eq!(parse_duration(text), Err(error), "{text}");
        }
    }

    #[test]
    fn shown_durations_are_the_written_ones() {
        for text in ["0s", "250ms", "5s", "10m", "1h", "1d", "1h30m", "1s500ms"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(show_duration(Duration::from_secs(90)), "1m30s");
        assert_eq!(show_duration(Duration::from_micros(999)), "0s");
    }

    #[test]
    fn a_rate_is_found_again_by_its_interval() {
        for text in ["1/s", "3/s", "7/s", "1000/s", "100/m", "7/m", "5/h", "1/h"] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(
                Rate::of_interval(rate.interval()).interval(),
                rate.interval(),
                "{text}"
            );
        }
        let slow = Rate::of_interval(Duration::from_secs(1 << 40));
        assert_eq!(slow.to_string(), "1/h");
        assert!(Rate::of_interval(Duration::ZERO).interval() < Duration::from_micros(1));
    }

    proptest::proptest! {
        #[test]
        fn showing_and_reading_are_inverse(milliseconds: u64) {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }
    }
}
