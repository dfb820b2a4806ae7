//! One target as the prober sees it: its place in time, its state, and its check where one runs.
//!
//! It begins and ends checks and turns their answers into reports and log lines. When that happens,
//! the loop decides; what is said, the script.

use std::net::SocketAddr;
use std::time::Duration;

use mio::{Registry, Token};

use super::answer::{Answer, Reason};
use super::attention::Attention;
use super::exchange::{Exchange, Readiness};
use super::schedule::Schedule;
use super::script::Script;
use super::verdict::{Change, Thresholds, Verdict};
use super::{Report, Target};
use crate::clock::Now;

/// A target and all that is known about it.
#[derive(Debug)]
pub(super) struct Probe {
    target: Target,
    script: Script,
    schedule: Schedule,
    verdict: Verdict,
    /// When the next check is to begin, or was to where one runs.
    due: Now,
    /// Grows with each check, so that an event for an earlier one's socket is known as stale.
    generation: u32,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    exchange: Exchange,
    started: Now,
    /// What the prober had lost when the check began.
    lost_before: Duration,
}

impl Probe {
    /// The `index`-th of `targets`, with its first check due soon after `now`.
    pub(super) fn new(target: Target, index: u32, targets: usize, now: Now) -> Self {
        let schedule = Schedule::new(index, target.health.interval);
        Self {
            script: Script::new(&target.health.check, checked_address(&target)),
            schedule,
            verdict: Verdict::default(),
            due: schedule.first(now, targets),
            generation: 0,
            running: None,
            target,
        }
    }

    /// When the next check is to begin, or was to where one runs.
    pub(super) fn due(&self) -> Now {
        self.due
    }

    /// Whether a check is under way.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Begins a check that has until the returned time.
    ///
    /// # Errors
    /// The check is over before it began.
    pub(super) fn begin(
        &mut self,
        index: u32,
        now: Now,
        attention: &Attention,
        registry: &Registry,
    ) -> Result<Now, Answer> {
        self.generation = self.generation.wrapping_add(1);
        let token = token(index, self.generation);
        let address = checked_address(&self.target);
        let exchange = Exchange::begin(address, &mut self.script, registry, token)?;
        self.running = Some(Running {
            exchange,
            started: now,
            lost_before: attention.lost(),
        });
        Ok(now + self.target.health.timeout)
    }

    /// Goes on with the check that `generation` belongs to; nothing happens where that one is over.
    pub(super) fn advance(
        &mut self,
        generation: u32,
        ready: Readiness,
        buffer: &mut [u8],
    ) -> Option<Answer> {
        if generation != self.generation {
            return None;
        }
        let running = self.running.as_mut()?;
        running.exchange.advance(ready, &mut self.script, buffer)
    }

    /// What a check comes to whose time is over.
    pub(super) fn timed_out(&self) -> Answer {
        let timeout = self.target.health.timeout;
        let is_connected = self
            .running
            .as_ref()
            .is_some_and(|running| running.exchange.is_connected());
        Answer::Bad(if is_connected {
            Reason::Timeout(timeout)
        } else {
            Reason::ConnectTimeout(timeout)
        })
    }

    /// Ends the check, or one that could not begin, with what it came to. The socket is closed, and
    /// `due` is the time of the next check.
    pub(super) fn end(
        &mut self,
        answer: Answer,
        now: Now,
        attention: &Attention,
    ) -> (Answer, Option<Report>) {
        let mut started = now;
        let mut answer = answer;
        // Where none runs, the check could not begin: nothing to judge and nothing to close.
        if let Some(running) = self.running.take() {
            started = running.started;
            answer = attention.judge(answer, running.lost_before, self.target.health.timeout);
        }
        // Thousands a second: below the level of state changes.
        log::debug!("server {} checked: {answer:?}", self.target.name);
        self.due = match answer {
            Answer::Good(_) | Answer::Bad(_) => self.schedule.next(started, now),
            Answer::Unknown(_) => self.schedule.again(now),
        };
        let report = match answer {
            Answer::Good(reason) => self.count(true, reason),
            Answer::Bad(reason) => self.count(false, reason),
            Answer::Unknown(_) => None,
        };
        (answer, report)
    }

    fn count(&mut self, is_good: bool, reason: Reason) -> Option<Report> {
        let thresholds = Thresholds {
            rise: self.target.health.rise,
            fall: self.target.health.fall,
        };
        let change = self.verdict.count(is_good, thresholds)?;
        self.log(change, reason);
        Some(Report {
            server: self.target.server,
            is_up: change.is_up,
            reason,
        })
    }

    /// One line a change; nothing in it comes from the server but a status.
    fn log(&self, change: Change, reason: Reason) {
        let name = &self.target.name;
        match change {
            Change { is_up: true, .. } => log::info!("server {name} is up: {reason}"),
            Change { is_first: true, .. } => {
                log::warn!("server {name} is down: {reason} (first check)");
            }
            Change { answers: 1, .. } => {
                log::warn!("server {name} is down: {reason} (1 failed check)");
            }
            Change { answers, .. } => {
                log::warn!("server {name} is down: {reason} ({answers} failed checks)");
            }
        }
    }
}

/// The check may have a port of its own.
fn checked_address(target: &Target) -> SocketAddr {
    let mut address = target.address;
    if let Some(port) = target.health.port {
        address.set_port(port);
    }
    address
}

/// The place of a probe in the low half, the generation of its check in the high one.
fn token(index: u32, generation: u32) -> Token {
    Token((generation as usize) << 32 | index as usize)
}

/// The place and the generation that `token` was made of.
pub(super) fn from_token(token: Token) -> (usize, u32) {
    let generation = u32::try_from(token.0 >> 32).expect("a half of 64 bits fits 32");
    (token.0 & u32::MAX as usize, generation)
}
