//! What is asked of the kernel for sockets: the keys of `tcp` that both sides of a connection have.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::Keepalive;
use super::super::mistake::{Mistakes, Wrong, quoted};
use super::super::tree::{Kind, Located, Path, Section, value};
use super::super::words;
use super::plain;
use crate::units::show_duration;

/// `MAX_TCP_KEEPIDLE` and `MAX_TCP_KEEPINTVL` of the kernel.
const KEEPALIVE_SECONDS_MAX: u64 = 32_767;
/// `MAX_TCP_KEEPCNT` of the kernel.
const PROBES_MAX: NonZeroU32 = NonZeroU32::new(127).expect("it is not zero");
/// The kernel takes an `int` of milliseconds.
const USER_TIMEOUT_MAX: Duration = Duration::from_millis(i32::MAX as u64);

/// `off`, the silence before the first probe, or keys of its own. `None` is off, or unreadable.
pub(super) fn keepalive(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Option<Keepalive> {
    let (key, node) = section.entry("keepalive")?;
    let path = Path::Key(section.path, &key.text);
    if !matches!(node.kind, Kind::Map(_)) {
        let idle = value(node, &path, mistakes, |text| {
            words::word_or("off", text, seconds)
        });
        return plain(idle).flatten().map(|idle| Keepalive {
            idle,
            interval: None,
            probes: None,
        });
    }
    let mut section = Section::open(node, key.place, &path, mistakes)?;
    let idle = idle(&mut section, mistakes);
    let interval = plain(section.value("interval", mistakes, seconds));
    let probes = section.value("probes", mistakes, |text| {
        words::number(text, NonZeroU32::MIN..=PROBES_MAX)
    });
    section.close(mistakes);
    Some(Keepalive {
        idle: idle?.value,
        interval,
        probes: plain(probes),
    })
}

fn idle(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Option<Located<Duration>> {
    let (key, node) = section.required("idle", "60s", mistakes)?;
    value(node, &Path::Key(section.path, &key.text), mistakes, seconds)
}

/// `off`, or how long sent bytes may stay unacknowledged. `None` is off, or unreadable.
pub(super) fn user_timeout(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Option<Duration> {
    let timeout = section.value("user_timeout", mistakes, |text| {
        words::word_or("off", text, |text| {
            let timeout = words::timeout(text)?;
            at_most(USER_TIMEOUT_MAX, timeout, text)
        })
    });
    plain(timeout).flatten()
}

/// The kernel counts in whole ones.
fn seconds(text: &str) -> Result<Duration, Wrong> {
    let duration = words::duration(text)?;
    if duration.is_zero() || duration.subsec_millis() > 0 {
        let what = format!("{} is no whole number of seconds", quoted(text));
        return Err(Wrong::new(what, "write 1s or more, such as 60s"));
    }
    at_most(Duration::from_secs(KEEPALIVE_SECONDS_MAX), duration, text)
}

fn at_most(most: Duration, duration: Duration, text: &str) -> Result<Duration, Wrong> {
    if duration <= most {
        return Ok(duration);
    }
    let what = format!("{} is longer than the kernel takes", quoted(text));
    let remedy = format!("write at most {}", show_duration(most));
    Err(Wrong::new(what, remedy))
}
