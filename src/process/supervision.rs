//! What whoever has started this process hears of it, and what becomes of the sockets that it passed
//! (`crate::systemd` has the protocols).
//!
//! Told are the turns of a life: starting, serving, reloading, stopping; never a connection. All of it
//! is told by the main thread, which waits for nobody over it.
//!
//! Each second, or three times in the watchdog's interval, the main thread looks whether each worker and
//! the prober have made a turn since they were asked for one last. Only then the watchdog, where there is
//! one, is fed, and each is asked for another turn. So one that hangs anywhere in a turn, or the main
//! thread itself, starves it; one turn that takes a third of the interval does not. One that hangs for
//! longer makes this node unready as well; that the main thread does is for the admin side to see, which
//! is told of each look.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, tick};

use super::start::Running;
use crate::clock::Now;
use crate::systemd::{Given, Notifier, Passed, State};
use crate::telemetry::counters::Gauge;
use crate::worker::Command;

/// Looks at the watchdog in its interval. sd_watchdog_enabled(3) asks for two at least; with a third
/// one, a look at which somebody is late is made up for by the next one.
const LOOKS: u32 = 3;
/// Between two looks at most: it costs each thread a turn. Engines that move addresses want to know soon.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// One that has made no turn for so long hangs: none takes a hundredth of it, but on a machine that is
/// short of CPU it may wait to begin.
const HANGS: Duration = Duration::from_secs(3);
/// The main thread is seen at least so often, whatever it waits for.
const UNFED_MAX: Duration = Duration::from_secs(10);

/// The way to whoever has started the process.
#[derive(Debug)]
pub(super) struct Supervision {
    notifier: Notifier,
    /// When the threads are looked at.
    pub(super) looks: Receiver<Instant>,
    /// Of the watchdog, where there is one.
    interval: Option<Duration>,
    /// Turns of each thread when each was asked for another one, and when that was; empty before the first
    /// look.
    seen: (Vec<u64>, Now),
    /// Those that make no turn any more, as people call them.
    hanging: Vec<String>,
    /// When this thread was seen here last.
    turned: Arc<Gauge>,
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
            looks: tick(LOOK_MAX),
            interval: None,
            seen: (Vec::new(), Now::default()),
            hanging: Vec::new(),
            turned: Arc::default(),
            is_starving: false,
            passed: Passed::default(),
        }
    }
}

impl Supervision {
    /// Feeds the watchdog in the middle of something that leaves no time to look: whoever calls this knows
    /// that all is well.
    pub(super) fn feed(&mut self) {
        self.turned.set(Now::read().as_nanoseconds());
        if self.interval.is_some() {
            self.notifier.feed();
        }
    }

    /// How long the main thread may wait for one thing before it feeds the watchdog again.
    pub(super) fn unfed_max(&self) -> Duration {
        let third = self.interval.map(|interval| interval / LOOKS);
        third.map_or(UNFED_MAX, |third| third.min(UNFED_MAX))
    }

    /// Where this thread says that it makes turns.
    pub(super) fn turned(&self) -> Arc<Gauge> {
        Arc::clone(&self.turned)
    }

    /// Threads that make no turn any more, as people call them.
    pub(super) fn hanging(&self) -> &[String] {
        &self.hanging
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
            let between = (interval / LOOKS).clamp(Duration::from_millis(1), LOOK_MAX);
            self.supervision.looks = tick(between);
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

    /// Sees who makes turns, and feeds the watchdog if all do.
    pub(super) fn look_at_threads(&mut self) {
        let (turns, now) = (self.turns(), Now::read());
        self.supervision.turned.set(now.as_nanoseconds());
        let (seen, asked) = &self.supervision.seen;
        let (is_first, since) = (seen.is_empty(), now.since(*asked));
        let stuck = stuck(seen, &turns);
        self.note_hanging(if since >= HANGS { &stuck } else { &[] });
        self.note_starving(&stuck, since);
        if !stuck.is_empty() {
            return;
        }
        if !is_first {
            self.supervision.feed();
        }
        self.supervision.seen = (turns, now);
        self.tell_all(|| Command::Turn);
        if let Some(prober) = &self.threads.prober {
            prober.turn();
        }
    }

    /// Whoever hangs serves nobody who comes to it.
    fn note_hanging(&mut self, hanging: &[String]) {
        if self.supervision.hanging == hanging {
            return;
        }
        let before = std::mem::replace(&mut self.supervision.hanging, hanging.to_vec());
        for thread in hanging.iter().filter(|thread| !before.contains(thread)) {
            log::error!("{thread} hangs: this node is not ready until it goes on");
        }
        for thread in before.iter().filter(|thread| !hanging.contains(thread)) {
            log::info!("{thread} goes on");
        }
        let board = &self.public.board;
        board.amend(|roster| roster.hanging = hanging.to_vec());
    }

    /// The watchdog is not fed while anybody is stuck; said once, and not where it is soon over.
    fn note_starving(&mut self, stuck: &[String], since: Duration) {
        let Some(interval) = self.supervision.interval else {
            return;
        };
        let was_starving = self.supervision.is_starving;
        if stuck.is_empty() && was_starving {
            log::info!("the watchdog is fed again");
            self.supervision.is_starving = false;
        } else if !stuck.is_empty() && !was_starving && since >= interval / LOOKS {
            log::warn!("the watchdog is not fed, waiting for {}", stuck.join(", "));
            self.supervision.is_starving = true;
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

/// The names of those that have made no turn; nobody where nothing was seen before.
fn stuck(seen: &[u64], turns: &[u64]) -> Vec<String> {
    let prober = turns.len() - 1;
    let pairs = seen.iter().zip(turns).enumerate();
    let still = pairs.filter(|(_, (seen, turns))| seen == turns);
    still
        .map(|(index, _)| match index {
            index if index == prober => "the prober".to_owned(),
            index => format!("worker {index}"),
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
        assert_eq!(stuck(&[1, 2, 3], &[2, 2, 3]), ["worker 1", "the prober"]);
        // A counter that has gone around has moved.
        assert!(stuck(&[u64::MAX], &[0]).is_empty());
        assert!(stuck(&[], &[0, 0]).is_empty());
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
