//! Numbers as people read them in a table: bytes, times, rates, and how far a drain has come.
//!
//! Short before exact: `--json` has the exact ones.

use super::view::{Discovery, Drain, Server};
use crate::units::counted;

/// `812`, `1.2K`, `20M`: bytes in units of 1024, at most five characters.
pub(super) fn bytes(count: u64) -> String {
    if count < 1000 {
        return count.to_string();
    }
    scaled(count as f64)
}

/// The same of a number that may be a fraction.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float becomes the nearest integer that there is"
)]
pub(super) fn bytes_per_second(rate: f64) -> String {
    bytes(rate.round() as u64)
}

fn scaled(count: f64) -> String {
    let mut count = count;
    let mut unit = ' ';
    for larger in ['K', 'M', 'G', 'T', 'P', 'E'] {
        // As it would be shown: 1023.7K is 1M, not 1024K.
        if count < 999.5 {
            break;
        }
        count /= 1024.0;
        unit = larger;
    }
    if count < 9.95 {
        format!("{count:.1}{unit}")
    } else {
        format!("{count:.0}{unit}")
    }
}

/// `0`, `0.3`, `12`: things in a second.
pub(super) fn per_second(rate: f64) -> String {
    match rate {
        rate if rate < 0.05 => "0".to_owned(),
        rate if rate < 9.95 => format!("{rate:.1}"),
        rate if rate < 99_999.5 => format!("{rate:.0}"),
        rate => format!("{:.0}k", rate / 1000.0),
    }
}

/// `0.3s`, `42s`, `3m12s`, `3h12m`, `5d3h`: the two units that matter.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float becomes the nearest integer that there is"
)]
pub(super) fn seconds(time: f64) -> String {
    if time < 9.95 {
        return format!("{:.1}s", time.max(0.0));
    }
    let whole = time.round() as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3600, whole / 86_400);
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{minutes}m{}s", whole % 60),
        3600..86_400 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

/// `0.1`, `12`: milliseconds.
pub(super) fn milliseconds(time: f64) -> String {
    // On one machine or in one rack it is hundredths that tell one path from another.
    if time < 0.995 {
        format!("{time:.2}")
    } else if time < 9.95 {
        format!("{time:.1}")
    } else {
        format!("{time:.0}")
    }
}

/// Where more servers of a pool come from, and why they do not where that is so.
pub(super) fn found_by(source: &Discovery) -> String {
    let count = counted(source.addresses, "server");
    let text = format!("from {}: {count}", plain(&source.source));
    match source.last.as_str() {
        "ok" => text,
        last => {
            let since = seconds(source.since_seconds);
            format!("{text}, {last} for {since}: {}", plain(&source.reason))
        }
    }
}

/// Why a server that is up gets less than its share, a line each.
pub(super) fn holds(server: &Server) -> Vec<String> {
    let ejected = server.ejected.map(|ejected| {
        let left = seconds(ejected.until_seconds);
        format!("ejected for its failures, {left} left")
    });
    let slow_start = server.slow_start.map(|ramp| {
        let left = seconds(ramp.until_seconds);
        format!(
            "slow start: {}% of its share, all of it in {left}",
            ramp.percent
        )
    });
    ejected.into_iter().chain(slow_start).collect()
}

/// How far a drain has come, and how it goes on.
pub(super) fn drain(drain: &Drain) -> String {
    let mut text = progress(drain);
    if drain.left == 0 {
        return text;
    }
    match &drain.rate {
        Some(rate) => text.push_str(&format!(", at {rate}")),
        None if drain.deadline_seconds.is_none() => text.push_str(", nobody is cut"),
        None => {}
    }
    if let Some(deadline) = drain.deadline_seconds {
        text.push_str(&format!(", the rest in {}", seconds(deadline)));
    }
    text
}

/// What has been done, and when none will be left.
pub(super) fn progress(drain: &Drain) -> String {
    let mut text = format!(
        "{} of {} left",
        drain.left,
        drain.began_with.max(drain.left)
    );
    if drain.closed > 0 {
        text.push_str(&format!(", {} closed", drain.closed));
    }
    if let Some(estimate) = drain.estimate_seconds.filter(|_| drain.left > 0) {
        text.push_str(&format!(", {}", self::estimate(estimate)));
    }
    text
}

/// An estimate is never exact to a tenth.
fn estimate(time: f64) -> String {
    if time < 1.0 {
        return "done within a second".to_owned();
    }
    let time = time.round();
    if time < 10.0 {
        return format!("done in about {time:.0}s");
    }
    format!("done in about {}", seconds(time))
}

/// Text that a terminal does not obey: what a server said may hold anything.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|character| {
            let escaped = character.is_control().then(|| character.escape_default());
            let itself = escaped.is_none().then_some(character);
            escaped.into_iter().flatten().chain(itself)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_short() {
        for (count, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0K"),
            (1200, "1.2K"),
            (1023 * 1024, "1.0M"),
            (21_000_000, "20M"),
            (u64::MAX, "16E"),
        ] {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(bytes_per_second(0.4), "0");
        assert_eq!(bytes_per_second(f64::NAN), "0");
    }

    #[test]
    fn times_have_two_units() {
        for (time, text) in [
            (-1.0, "0.0s"),
            (0.34, "0.3s"),
            (9.96, "10s"),
            (59.6, "1m0s"),
            (192.0, "3m12s"),
            (11_520.5, "3h12m"),
            (442_800.0, "5d3h"),
        ] {
            assert_eq!(seconds(time), text);
        }
    }

    #[test]
    fn rates_are_short() {
        for (rate, text) in [(0.0, "0"), (0.31, "0.3"), (12.4, "12"), (250_000.0, "250k")] {
            assert_eq!(per_second(rate), text);
        }
    }

    #[test]
    fn estimates_are_rough() {
        assert_eq!(estimate(0.2), "done within a second");
        assert_eq!(estimate(4.3), "done in about 4s");
        assert_eq!(estimate(9.97), "done in about 10s");
        assert_eq!(estimate(90.0), "done in about 1m30s");
    }

    #[test]
    fn a_drain_says_how_it_goes_on() {
        let mut going = Drain {
            began_with: 120,
            left: 80,
            closed: 30,
            rate: Some("20/s".to_owned()),
            deadline_seconds: Some(412.0),
            estimate_seconds: Some(4.0),
        };
        assert_eq!(
            drain(&going),
            "80 of 120 left, 30 closed, done in about 4s, at 20/s, the rest in 6m52s"
        );
        going.rate = None;
        going.estimate_seconds = None;
        going.deadline_seconds = None;
        going.closed = 0;
        assert_eq!(drain(&going), "80 of 120 left, nobody is cut");
        going.left = 0;
        assert_eq!(drain(&going), "0 of 120 left");
    }

    #[test]
    fn control_characters_reach_no_terminal() {
        assert_eq!(plain("a\u{1b}[31m\tb\u{e9}"), "a\\u{1b}[31m\\tb\u{e9}");
    }
}
