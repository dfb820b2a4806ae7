//! What whoever has started this process hears of it, and what becomes of the sockets that it passed
//! (`crate::systemd` has the protocols).
//!
//! Told are the turns of a life: starting, serving, reloading, stopping; never a connection. All of it
//! is told by the main thread, which waits for nobody over it.
//!
//! The watchdog: three times in its interval, the main thread looks whether each worker and the prober
//! have made a turn since it was fed last. Only then it is fed, and each is asked for another turn. So
//! one that hangs anywhere in a turn, or the main thread itself, starves it; one turn that takes a third
//! of the interval does not.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never, tick};

use super::start::Running;
use crate::clock::Now;
use crate::systemd::{Given, Notifier, Passed, State};
use crate::worker::Command;

/// Looks at the watchdog in its interval. sd_watchdog_enabled(3) asks for two at least; with a third
/// one, a look at which somebody is late is made up for by the next one.
const LOOKS: u32 = 3;

/// The way to whoever has started the process.
#[derive(Debug)]
pub(super) struct Supervision {
    notifier: Notifier,
    /// When the watchdog is looked after; never where there is none.
    pub(super) looks: Receiver<Instant>,
    /// Of the watchdog, where there is one.
    interval: Option<Duration>,
    /// Turns of each thread when the watchdog was fed last; empty before the first look.
    seen: Vec<u64>,
    /// True exactly while it starves, which is told once.
    is_starving: bool,
    /// Sockets that listen already.
    pub(super) passed: Passed,
}

impl Default for Supervision {
    /// By nobody.
    fn default() -> Self {
        Self {
            notifier: Notifier::new(None),
            looks: never(),
            interval: None,
            seen: Vec::new(),
            is_starving: false,
            passed: Passed::default(),
        }
    }
}

impl Supervision {
    /// Feeds the watchdog in the middle of something that leaves no time to look: whoever calls this knows
    /// that all is well.
    pub(super) fn feed(&mut self) {
        if self.interval.is_some() {
            self.notifier.feed();
        }
    }

    /// How long the main thread may wait for one thing before it feeds the watchdog again.
    pub(super) fn unfed_max(&self) -> Duration {
        self.interval
            .map_or(Duration::MAX, |interval| interval / LOOKS)
    }
}

impl Running {
    /// From now on whoever has started the process hears of it.
    pub(super) fn supervise(&mut self, given: Given) {
        self.supervision.notifier = given.notifier;
        self.supervision.passed = Passed::new(given.descriptors);
        self.supervision.interval = given.watchdog;
        if let Some(interval) = given.watchdog {
            // A tick of nothing would keep this thread busy.
            self.supervision.looks = tick((interval / LOOKS).max(Duration::from_millis(1)));
        }
    }

    /// Closes the passed sockets that no listener has: the first config has taken its own.
    pub(super) fn settle_passed(&mut self) {
        let listeners = self.serving.listeners.iter();
        let doors: Vec<_> = listeners.flat_map(|listener| &listener.doors).collect();
        let passed = &mut self.supervision.passed;
        passed.keep(|socket| doors.iter().any(|door| door.actual == socket.address));
        if let Some(addresses) = passed.told() {
            log::info!("passed at the start and used: {addresses}");
        }
    }

    /// The first lookups and checks come before anything is served.
    pub(super) fn tell_starting(&mut self) {
        let text = "starting: waiting for the first health checks";
        self.supervision.notifier.tell(&[State::Status(text)]);
    }

    /// It serves, also after a reload.
    pub(super) fn tell_serving(&mut self, text: &str) {
        let notifier = &mut self.supervision.notifier;
        notifier.tell(&[State::Ready, State::Status(text)]);
    }

    /// A reload begins; [`Running::tell_serving`] or [`Running::tell_not_reloaded`] is its end.
    pub(super) fn tell_reloading(&mut self) {
        let begun = State::Reloading(Now::read());
        let notifier = &mut self.supervision.notifier;
        notifier.tell(&[begun, State::Status("reloading")]);
    }

    /// A reload has failed, and all is served as before.
    pub(super) fn tell_not_reloaded(&mut self, refusal: &str) {
        let why = without_quotes(refusal);
        self.tell_serving(&format!("serving as before, as the reload failed: {why}"));
    }

    /// An upgrade begins. [`Running::tell_serving`] is its end where it fails; else the new process tells
    /// that it serves.
    pub(super) fn tell_upgrading(&mut self) {
        let begun = State::Reloading(Now::read());
        let notifier = &mut self.supervision.notifier;
        notifier.tell(&[begun, State::Status("upgrading")]);
    }

    /// The process with this number is the service from now on.
    pub(super) fn tell_main_pid(&mut self, pid: u32) {
        self.supervision.notifier.tell(&[State::MainPid(pid)]);
    }

    /// It drains, for at most `longest`.
    pub(super) fn tell_stopping(&mut self, text: &str, longest: Duration) {
        // Or connections would be cut at the manager's own limit, whatever `shutdown_timeout` says.
        let time = State::ExtendTimeout(longest);
        let notifier = &mut self.supervision.notifier;
        notifier.tell(&[State::Stopping, time, State::Status(text)]);
    }

    /// Tells what could not be told before.
    pub(super) fn tell_again(&mut self) {
        self.supervision.notifier.retry();
    }

    /// Feeds the watchdog if all threads that serve have made a turn since the last time.
    pub(super) fn feed_watchdog(&mut self) {
        let turns = self.turns();
        if !self.supervision.seen.is_empty() {
            let stuck = stuck(&self.supervision.seen, &turns).join(", ");
            let was_starving = self.supervision.is_starving;
            self.supervision.is_starving = !stuck.is_empty();
            match (was_starving, stuck.is_empty()) {
                (false, false) => log::warn!("the watchdog is not fed, waiting for {stuck}"),
                (true, true) => log::info!("the watchdog is fed again"),
                _ => {}
            }
            if !stuck.is_empty() {
                return;
            }
            self.supervision.notifier.feed();
        }
        self.supervision.seen = turns;
        self.tell_all(|| Command::Turn);
        if let Some(prober) = &self.threads.prober {
            prober.turn();
        }
    }

    /// Of each worker, then of the prober.
    fn turns(&self) -> Vec<u64> {
        let workers = self.threads.counters.iter();
        let prober = self.threads.prober.iter();
        workers
            .map(|counters| counters.turns.value())
            .chain(prober.map(|prober| prober.turns()))
            .collect()
    }
}

/// The names of those that have made no turn.
fn stuck(seen: &[u64], turns: &[u64]) -> Vec<String> {
    let prober = seen.len() - 1;
    let pairs = seen.iter().zip(turns).enumerate();
    let still = pairs.filter(|(_, (seen, turns))| seen == turns);
    still
        .map(|(index, _)| match index {
            index if index == prober => "the prober".to_owned(),
            index => format!("worker-{index}"),
        })
        .collect()
}

/// Why a reload has failed, for everyone: of a mistake in a file (`FILE:LINE:COLUMN: ...`) its place
/// alone, because the text quotes the file.
fn without_quotes(refusal: &str) -> &str {
    let Some((place, _)) = refusal.split_once(": ") else {
        return refusal;
    };
    let mut numbers = place.rsplitn(3, ':').take(2);
    match numbers.all(|number| number.parse::<u32>().is_ok()) {
        true => place,
        false => refusal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_made_no_turn_is_named() {
        assert!(stuck(&[1, 2, 3], &[2, 3, 4]).is_empty());
        assert_eq!(stuck(&[1, 2, 3], &[2, 2, 3]), ["worker-1", "the prober"]);
        // A counter that has gone around has moved.
        assert!(stuck(&[u64::MAX], &[0]).is_empty());
    }

    #[test]
    fn what_a_file_says_is_not_told_to_everyone() {
        let place = "/etc/evenkeel/evenkeel.yaml:12:3";
        let mistake = format!("{place}: pools.web: \"hunter2\" is no key, write servers");
        assert_eq!(without_quotes(&mistake), place);
        for told in [
            "listener web: cannot bind 127.0.0.1:80: it is in use",
            "cannot read /etc/evenkeel/evenkeel.yaml: Permission denied",
            "evenkeel is stopping",
        ] {
            assert_eq!(without_quotes(told), told);
        }
    }
}
