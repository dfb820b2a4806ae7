//! What is to be asked of name servers and files, by all that is served or may return; and the wait
//! for first answers, at a start and at a reload.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{after, never, select};

use super::StartError;
use super::apply::Outcome;
use super::reload::Pending;
use super::signals::Asked;
use super::start::Running;
use crate::config::{Config, Pool, Question};
use crate::pool::drain::Pace;
use crate::units::counted;

/// How long a start or a reload waits for answers to what was never asked. A name server that has
/// not answered by then has failed at least one of its tries.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);
/// Waiting that takes longer is worth a line, and at a start nobody else waits any longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Names in one line.
const NAMED_MAX: usize = 5;

/// Every question with the shortest interval that anyone wants.
pub(super) type Questions = HashMap<Arc<Question>, Duration>;

fn questions<'c>(configs: impl IntoIterator<Item = &'c Config>) -> Questions {
    let mut questions = Questions::new();
    let pools = configs.into_iter().flat_map(|config| &config.pools);
    for (pool, template) in pools.flat_map(|pool| pool.templates.iter().map(move |t| (pool, t))) {
        let every = questions.entry(Arc::clone(&template.question));
        let every = every.or_insert(pool.resolve);
        *every = pool.resolve.min(*every);
    }
    questions
}

/// Questions that have no first answer yet.
type Waiting = HashSet<Arc<Question>>;

/// What came of waiting for first answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    /// All are there, good or not.
    Answered,
    /// Some are not.
    Late,
    /// The process was told to stop meanwhile.
    Stopping,
}

impl Running {
    /// Serves `config` for the first time. Listeners that have a server to send somebody to do not
    /// wait for the name servers of others.
    ///
    /// # Errors
    /// Where an address cannot be had or descriptors are too few.
    pub(super) fn begin(&mut self, config: &Config) -> Result<Outcome, StartError> {
        let mut waiting = self.ask(config);
        let mut waited = self.wait(&mut waiting, PATIENCE);
        if waited == Waited::Late {
            log::info!("waiting for the first answer of {}", named(&waiting));
            let others = without_awaited(self.with_found(config), &waiting);
            if self.apply(others, Pace::PATIENT)? == Outcome::Stopping {
                return Ok(Outcome::Stopping);
            }
            self.note_applied();
            self.publish();
            waited = self.wait(&mut waiting, FIRST_ANSWERS - PATIENCE);
        }
        if waited == Waited::Stopping {
            return Ok(Outcome::Stopping);
        }
        tell_late(&waiting);
        let complete = self.with_found(config);
        let outcome = self.apply(complete, Pace::PATIENT)?;
        if outcome == Outcome::Applied {
            self.note_applied();
        }
        Ok(outcome)
    }

    /// Asks what `config` asks and was never asked, and waits a little for the answers; false where
    /// the process was told to stop meanwhile.
    pub(super) fn look_up(&mut self, config: &Config) -> bool {
        let mut waiting = self.ask(config);
        let mut waited = self.wait(&mut waiting, PATIENCE);
        if waited == Waited::Late {
            log::info!("waiting for the first answer of {}", named(&waiting));
            waited = self.wait(&mut waiting, FIRST_ANSWERS - PATIENCE);
        }
        if waited == Waited::Late {
            tell_late(&waiting);
        }
        waited != Waited::Stopping
    }

    /// Asks what `config` asks, beside all that is asked already; what was never asked before.
    fn ask(&mut self, config: &Config) -> Waiting {
        let both = [config, &self.serving.config];
        let all = questions(both.into_iter().chain(self.kept()));
        self.discovery.watch(&all)
    }

    fn wait(&mut self, waiting: &mut Waiting, timeout: Duration) -> Waited {
        let timeout = after(timeout);
        while !waiting.is_empty() {
            select! {
                recv(self.inbox.found) -> report => {
                    if let Ok(report) = report {
                        waiting.remove(&report.question);
                        self.note_found(report);
                    }
                }
                recv(self.inbox.reports) -> report => match report {
                    Ok(report) => self.note(report),
                    Err(_) => self.inbox.reports = never(),
                },
                recv(self.inbox.asked) -> asked => {
                    let asked = asked.unwrap_or(Asked::Stop);
                    self.postponed.push_back(asked);
                    if asked.stops() {
                        return Waited::Stopping;
                    }
                }
                recv(self.inbox.requests) -> request => match request {
                    Ok(request) => self.answer_meanwhile(request),
                    Err(_) => self.inbox.requests = never(),
                },
                recv(self.supervision.looks) -> _ => self.look_at_threads(),
                recv(timeout) -> _ => return Waited::Late,
            }
        }
        Waited::Answered
    }

    /// The config that may return: what it asks goes on to be asked.
    fn kept(&self) -> Option<&Config> {
        self.pending.as_ref().map(Pending::running)
    }

    /// From now on nothing is asked that neither what is served nor what may return needs.
    pub(super) fn forget_questions(&mut self) {
        let questions = questions([&self.serving.config].into_iter().chain(self.kept()));
        self.discovery.keep(&questions);
    }
}

/// `config`, which has what was found, without the listeners that lead to a pool that has no server
/// before an answer comes.
fn without_awaited(mut config: Config, waiting: &Waiting) -> Config {
    let is_awaited = |pool: &Pool| {
        let mut templates = pool.templates.iter();
        pool.servers.is_empty() && templates.any(|one| waiting.contains(&one.question))
    };
    let awaited: Vec<_> = config.pools.iter().map(is_awaited).collect();
    config
        .listeners
        .retain(|listener| !listener.pools().any(|pool| awaited[pool.index()]));
    config
}

fn tell_late(waiting: &Waiting) {
    if !waiting.is_empty() {
        log::warn!("no answer yet, going on without: {}", named(waiting));
    }
}

/// `2 sources (a.example.com:80, b.example.com:80)`.
fn named(waiting: &Waiting) -> String {
    let mut names: Vec<_> = waiting.iter().map(ToString::to_string).collect();
    names.sort_unstable();
    if names.len() > NAMED_MAX {
        names.truncate(NAMED_MAX);
        names.push("...".to_owned());
    }
    let count = counted(waiting.len() as u64, "source");
    format!("{count} ({})", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn only_listeners_that_cannot_do_without_an_answer_wait() {
        let text = "listeners:\n\
            \x20 names: {bind: '127.0.0.1:1', pool: names}\n\
            \x20 both: {bind: '127.0.0.1:2', pool: both}\n\
            \x20 written: {bind: '127.0.0.1:3', pool: written}\n\
            \x20 routed: {bind: '127.0.0.1:4', pool: written, sni: {a.test: names}}\n\
            pools:\n\
            \x20 names: {servers: ['db.test:1']}\n\
            \x20 both: {servers: ['db.test:1', '10.0.0.1:1']}\n\
            \x20 written: {servers: ['10.0.0.1:1']}\n";
        let config = config::read("t", text).unwrap();
        let names = |config: Config| {
            let names = config.listeners.iter().map(|one| one.name.to_string());
            names.collect::<Vec<_>>().join(" ")
        };
        let all = names(config.clone());
        let question = Arc::clone(&config.pools[0].templates[0].question);
        let waiting = Waiting::from([question]);
        assert_eq!(
            names(without_awaited(config.clone(), &waiting)),
            "both written"
        );
        assert_eq!(names(without_awaited(config, &Waiting::new())), all);
        assert_eq!(named(&waiting), "1 source (db.test:1)");
    }
}
