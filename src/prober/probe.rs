//! One target as the prober sees it: its place in time, its state, and its check where one runs.
//!
//! It begins and ends checks and turns their answers into reports and log lines. When that happens,
//! the loop decides; what is said, the script.

use std::time::Duration;

use super::answer::{Answer, Reason};
use super::attention::Attention;
use super::exchange::Readiness;
use super::means::{Course, Means, Site, checked_address, way};
use super::schedule::{Pace, Schedule};
use super::told::Told;
use super::verdict::{Change, Thresholds, Verdict};
use super::{News, Report, Target};
use crate::clock::Now;
use crate::telemetry::checkup::Checked;

/// A target and all that is known about it.
#[derive(Debug)]
pub(super) struct Probe {
    target: Target,
    means: Means,
    schedule: Schedule,
    verdict: Verdict,
    /// How much of its weight the server wants, by its last good answer.
    share_percent: u16,
    /// What the last check came to.
    last: Option<Answer>,
    told: Told,
    /// When the next check is to begin, or was to where one runs.
    due: Now,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    course: Course,
    started: Now,
    /// What the prober had lost when the check began.
    lost_before: Duration,
}

impl Probe {
    /// For a target that has come at `now`; `key` is what its place among others follows from. What the
    /// process before this one has found of it stands in its checkup: nobody waits for its first check
    /// then, and that one alone decides nothing.
    pub(super) fn new(target: Target, key: u32, now: Now, pace: &mut Pace) -> Self {
        let schedule = Schedule::new(key, target.health.interval);
        let known = target.checkup.findings();
        Self {
            means: Means::new(&target),
            schedule,
            verdict: Verdict::known(known.is_up),
            share_percent: known.share_percent,
            last: None,
            told: Told::default(),
            due: match known.is_up {
                Some(_) => schedule.next(now, now),
                None => schedule.first(now, pace),
            },
            running: None,
            target,
        }
    }

    /// Goes on with other settings of the same server. Its state stays as it is, and so does its
    /// share until a good answer brings another: only answers change them. Where another question
    /// is asked, the answers to the old one speak against nothing any more, a check under way comes
    /// to nothing, and the next one is due soon.
    pub(super) fn replace(&mut self, target: Target, now: Now, pace: &mut Pace) {
        let (old, new) = (&self.target.health, &target.health);
        let is_same_question = old.check == new.check
            && old.tls == new.tls
            && self.target.kit == target.kit
            && old.timeout == new.timeout
            && checked_address(&self.target) == checked_address(&target);
        self.schedule = self.schedule.with_interval(new.interval);
        if is_same_question {
            // A shorter interval holds from now on, not from the end of the longer one.
            self.due = self.due.min(self.schedule.next(now, now));
        } else {
            let soon = self.schedule.first(now, pace);
            // What `due` says of a check that runs is its own time, which is over.
            self.due = match self.break_off() {
                Some(_) => soon,
                None => self.due.min(soon),
            };
            self.verdict.begin_anew();
            self.means = Means::new(&target);
        }
        self.target = target;
    }

    /// Ends a check under way without an answer; what is known of the server is forgotten.
    pub(super) fn forget(mut self, now: Now) {
        self.break_off();
        self.target.checkup.reset(now);
    }

    /// When the next check is to begin, or was to where one runs.
    pub(super) fn due(&self) -> Now {
        self.due
    }

    /// Whether a check is under way.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Whether its checks run a program.
    pub(super) fn runs_a_program(&self) -> bool {
        self.means.is_program()
    }

    /// Begins a check that has until the returned time.
    ///
    /// # Errors
    /// The check is over before it began.
    pub(super) fn begin(
        &mut self,
        now: Now,
        attention: &Attention,
        site: &Site<'_>,
    ) -> Result<Now, Answer> {
        if let Some(reason) = self.means.obstacle() {
            return Err(self.hindered(reason));
        }
        let course = match self.means.begin(way(&self.target), site) {
            // It lasts until somebody changes that: nobody is to wait for the first answer.
            Err(Answer::Unknown(reason @ Reason::NoSource(_))) => Err(self.hindered(reason)),
            begun => begun,
        }?;
        self.running = Some(Running {
            course,
            started: now,
            lost_before: attention.lost(),
        });
        Ok(now + self.target.health.timeout)
    }

    /// What a check comes to that something stands in the way of. It is no fault of the server, whose
    /// state stays as it is; where there is none, nobody can say that the server is up.
    fn hindered(&self, reason: Reason) -> Answer {
        match self.verdict.is_up() {
            Some(_) => Answer::Unknown(reason),
            None => Answer::Bad(reason),
        }
    }

    /// Goes on with the check under way; nothing happens where it is over.
    pub(super) fn advance(&mut self, ready: Readiness, buffer: &mut [u8]) -> Option<Answer> {
        let running = self.running.as_mut()?;
        self.means.advance(&mut running.course, ready, buffer)
    }

    /// What a check comes to whose time is over.
    pub(super) fn timed_out(&self) -> Answer {
        let timeout = self.target.health.timeout;
        Answer::Bad(match self.running.as_ref().map(|it| &it.course) {
            Some(Course::Talk(exchange)) if exchange.is_connected() => Reason::Timeout(timeout),
            Some(Course::Program(_)) => Reason::Overrun(timeout),
            Some(Course::Talk(_)) | None => Reason::ConnectTimeout(timeout),
        })
    }

    /// Ends the check, or one that could not begin, with what it came to. Socket or program are ended,
    /// and `due` is the time of the next check.
    pub(super) fn end(
        &mut self,
        answer: Answer,
        now: Now,
        attention: &Attention,
    ) -> (Answer, Option<Report>) {
        let mut started = now;
        let mut answer = answer;
        // Where none runs, the check could not begin: nothing to judge and nothing to close.
        if let Some((began, lost_before)) = self.break_off() {
            started = began;
            answer = attention.judge(answer, lost_before, self.target.health.timeout);
        }
        // Thousands a second: below the level of state changes.
        log::debug!("server {} checked: {answer:?}", self.target.name);
        self.due = match answer {
            Answer::Good(_) | Answer::Bad(_) => self.schedule.next(started, now),
            Answer::Unknown(_) => self.schedule.again(now),
        };
        self.note(answer);
        let report = match answer {
            Answer::Good(reason) => {
                let has_new_share = self.note_share(reason);
                let change = self.count(true, reason);
                change.or_else(|| self.report_share(reason).filter(|_| has_new_share))
            }
            Answer::Bad(reason) => {
                let change = self.count(false, reason);
                if self.told.is_news(reason, now) {
                    log::warn!("server {} stays down: {reason}", self.target.name);
                }
                change
            }
            Answer::Unknown(_) => None,
        };
        if let Some(report) = report {
            self.target.checkup.note_verdict(report.is_up, now);
        }
        (answer, report)
    }

    /// Ends the exchange under way, if any; when it began, and what had been lost before.
    fn break_off(&mut self) -> Option<(Now, Duration)> {
        let running = self.running.take()?;
        self.means.part(running.course);
        Some((running.started, running.lost_before))
    }

    /// Takes what a good answer asks for; true where it is something else than before.
    fn note_share(&mut self, reason: Reason) -> bool {
        let share = reason.share_percent();
        let has_changed = std::mem::replace(&mut self.share_percent, share) != share;
        if has_changed {
            self.target.checkup.note_share(share);
        }
        has_changed
    }

    /// The share alone has changed. While the server is down that means nothing: the report that it
    /// is up brings its share as well.
    fn report_share(&self, reason: Reason) -> Option<Report> {
        let is_up = self.verdict.is_up()?;
        is_up.then(|| self.report(News::Share, is_up, reason))
    }

    /// Lets others see what the check came to.
    fn note(&mut self, answer: Answer) {
        let (checked, reason) = match answer {
            Answer::Good(reason) => (Checked::Ok, reason),
            Answer::Bad(reason) => (Checked::Failed, reason),
            Answer::Unknown(reason) => (Checked::Unknown, reason),
        };
        let is_news = self.last.replace(answer) != Some(answer);
        let checkup = &self.target.checkup;
        checkup.note_check(checked, is_news, || reason.to_string());
    }

    fn count(&mut self, is_good: bool, reason: Reason) -> Option<Report> {
        let thresholds = Thresholds {
            rise: self.target.health.rise,
            fall: self.target.health.fall,
        };
        let change = self.verdict.count(is_good, thresholds)?;
        self.log(change, reason);
        self.told.note_state(change.is_up, reason);
        Some(self.report(News::State, change.is_up, reason))
    }

    fn report(&self, news: News, is_up: bool, reason: Reason) -> Report {
        Report {
            server: self.target.server,
            news,
            is_up,
            share_percent: self.share_percent,
            reason,
        }
    }

    /// One line a change; what in it comes from the server is short and printable.
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
