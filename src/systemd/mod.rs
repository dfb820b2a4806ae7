//! What whoever has started this process passes to it and wants to hear of it: the protocols of systemd
//! (sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3)), which others speak, too.
//!
//! ```text
//! NOTIFY_SOCKET                       -> notifier: what is told, without ever waiting
//! LISTEN_PID LISTEN_FDS LISTEN_FDNAMES -> descriptors -> passed: sockets that listen already
//! WATCHDOG_USEC WATCHDOG_PID           -> how often it wants to hear that all is well
//! ```
//! It knows no listener and no worker: when something is told, and which socket is used, is `process`'s.
//! The variables stay as they are, because a running process cannot change them safely: programs of
//! checks get an environment of their own, and whoever starts another evenkeel gives it its own.

mod notifier;
mod passed;

use std::env;
use std::os::fd::{OwnedFd, RawFd};
use std::process;
use std::time::Duration;

pub use self::notifier::{Notifier, State, datagrams};
pub use self::passed::{Passed, PassedSocket};
use crate::sys::inherited;

/// What this process was given at its start.
#[derive(Debug)]
pub struct Given {
    /// Tells whoever wants to know.
    pub notifier: Notifier,
    /// The process is ended if it says nothing for so long; never zero.
    pub watchdog: Option<Duration>,
    /// Descriptors with their names, in the order in which they were passed.
    pub descriptors: Vec<(String, OwnedFd)>,
}

impl Given {
    /// Reads the environment and takes over what was passed. A second call finds no descriptor.
    pub fn take() -> Self {
        let text = |name| env::var(name).ok();
        let us = process::id();
        let count = passed_count(us, text("LISTEN_PID"), text("LISTEN_FDS"));
        let names = text("LISTEN_FDNAMES").unwrap_or_default();
        Self {
            notifier: Notifier::new(env::var_os("NOTIFY_SOCKET").as_deref()),
            watchdog: interval(us, text("WATCHDOG_PID"), text("WATCHDOG_USEC")),
            descriptors: descriptors(count, &names),
        }
    }
}

/// How many descriptors there are for the process `us`: the variables may be those of a parent that
/// has not used them.
fn passed_count(us: u32, pid: Option<String>, count: Option<String>) -> RawFd {
    let is_meant = pid.and_then(|pid| pid.parse().ok()) == Some(us);
    let count = count.filter(|_| is_meant).and_then(|it| it.parse().ok());
    count.unwrap_or(0).max(0)
}

/// A name is missing only where somebody else than systemd passes descriptors.
fn descriptors(count: RawFd, names: &str) -> Vec<(String, OwnedFd)> {
    let mut names = names.split(':');
    let mut taken = Vec::new();
    for number in (inherited::FIRST..).take(usize::try_from(count).unwrap_or(0)) {
        match inherited::take(number) {
            Ok(descriptor) => {
                let name = names.next().unwrap_or_default();
                taken.push((name.to_owned(), descriptor));
            }
            Err(error) => {
                log::warn!(
                    "LISTEN_FDS is {count}, but descriptor {number} was not passed: {error}"
                );
                break;
            }
        }
    }
    taken
}

/// Without a process id the watchdog is for whoever has the variable (sd_watchdog_enabled(3)).
fn interval(us: u32, pid: Option<String>, microseconds: Option<String>) -> Option<Duration> {
    let is_meant = pid.is_none_or(|pid| pid.parse() == Ok(us));
    let microseconds = microseconds.filter(|_| is_meant)?.parse().ok()?;
    Some(Duration::from_micros(microseconds)).filter(|interval| !interval.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_meant_for_this_process_counts() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(passed_count(7, text("7"), text("2")), 2);
        for (pid, count) in [
            (text("8"), text("2")),
            (None, text("2")),
            (text("7"), None),
            (text("7"), text("-1")),
            (text("7"), text("many")),
        ] {
            assert_eq!(passed_count(7, pid, count), 0);
        }
        let second = Some(Duration::from_secs(1));
        assert_eq!(interval(7, text("7"), text("1000000")), second);
        assert_eq!(interval(7, None, text("1000000")), second);
        assert_eq!(interval(7, text("8"), text("1000000")), None);
        assert_eq!(interval(7, text("7"), text("0")), None);
        assert_eq!(interval(7, None, None), None);
    }

    #[test]
    fn what_was_not_passed_ends_the_list() {
        assert!(descriptors(RawFd::MAX, "web").is_empty());
    }
}
