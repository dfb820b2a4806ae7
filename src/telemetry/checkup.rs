//! What the last health check of a server has found, and how many there were: written by the prober
//! (the check) and by the process (the verdict), read by the admin side. Workers never look here.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Now;

/// How one health check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// The answer was good.
    Ok,
    /// It was not, or there was none in time.
    Failed,
    /// This machine could not tell: it was short of something, or not awake.
    Unknown,
}

impl Checked {
    /// Each of them, in the order of their indexes.
    pub const ALL: [Self; 3] = [Self::Ok, Self::Failed, Self::Unknown];

    /// The word for it in metrics and in the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// What is known of a server's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// Whether new connections may go to it; `None` before the first answer.
    pub is_up: Option<bool>,
    /// Since when that is so.
    pub since: Now,
    /// The last check; `None` before the first one has ended.
    pub last: Option<Checked>,
    /// How much of its weight the server wants, as it said last where it is asked.
    pub share_percent: u16,
    /// What it has found, such as `http 200`; empty before the first one.
    pub reason: Box<str>,
    /// Checks by how they ended, in the order of [`Checked::ALL`].
    pub counts: [u64; Checked::ALL.len()],
}

impl Default for Findings {
    fn default() -> Self {
        Self {
            is_up: None,
            since: Now::default(),
            last: None,
            share_percent: 100,
            reason: Box::default(),
            counts: [0; Checked::ALL.len()],
        }
    }
}

/// The findings about one server.
#[derive(Debug, Default)]
pub struct Checkup(Mutex<Findings>);

impl Checkup {
    /// A check has ended. `reason` is called only where it is news, so that a server that answers as
    /// always costs no allocation.
    pub fn note_check(&self, checked: Checked, is_news: bool, reason: impl FnOnce() -> String) {
        let mut findings = self.lock();
        findings.counts[checked as usize] += 1;
        if is_news || findings.last.is_none() {
            findings.reason = reason().into();
        }
        findings.last = Some(checked);
    }

    /// The server is up or down from now on.
    pub fn note_verdict(&self, is_up: bool, now: Now) {
        let mut findings = self.lock();
        if findings.is_up != Some(is_up) {
            findings.is_up = Some(is_up);
            findings.since = now;
        }
    }

    /// The server wants so much of its weight from now on.
    pub fn note_share(&self, percent: u16) {
        self.lock().share_percent = percent;
    }

    /// Forgets the verdict: nobody checks the server any more.
    pub fn reset(&self, now: Now) {
        let mut findings = self.lock();
        *findings = Findings {
            counts: findings.counts,
            since: now,
            ..Findings::default()
        };
    }

    /// What the process before this one has found; its checks are not among them.
    pub fn restore(&self, known: Findings) {
        let mut findings = self.lock();
        let counts = findings.counts;
        *findings = Findings { counts, ..known };
    }

    /// So many checks more, by how they ended.
    pub fn add_checks(&self, checked: Checked, count: u64) {
        let mut findings = self.lock();
        findings.counts[checked as usize] = findings.counts[checked as usize].saturating_add(count);
    }

    /// A copy as of now.
    pub fn findings(&self) -> Findings {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Findings> {
        // A panic ends the process, so nobody sees a poisoned lock outside tests.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_time_of_a_verdict_is_that_of_the_change() {
        let checkup = Checkup::default();
        let later = Now::default() + Duration::from_secs(5);
        checkup.note_verdict(true, Now::default());
        checkup.note_verdict(true, later);
        assert_eq!(checkup.findings().since, Now::default());
        checkup.note_verdict(false, later);
        assert_eq!(checkup.findings().since, later);
    }

    #[test]
    fn a_reason_is_asked_for_only_where_it_is_news() {
        let checkup = Checkup::default();
        checkup.note_check(Checked::Ok, false, || "http 200".into());
        checkup.note_check(Checked::Ok, false, || unreachable!("nothing new"));
        checkup.note_check(Checked::Failed, true, || "refused".into());
        let findings = checkup.findings();
        assert_eq!((&*findings.reason, findings.counts), ("refused", [2, 1, 0]));
    }
}
