//! What is to be asked of name servers and files, by all that is served or may return; and the wait
//! for first answers, at a start and at a reload.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{after, never, select};

use super::reload::Pending;
use super::signals::Asked;
use super::start::Running;
use crate::config::{Config, Question};
use crate::units::counted;

/// How long a start or a reload waits for answers to what was never asked. A name server that has
/// not answered by then has failed at least one of its tries.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);
/// Waiting that takes longer is worth a line.
const PATIENCE: Duration = Duration::from_secs(1);

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

impl Running {
    /// Asks what `config` asks and was never asked, and waits a little for the answers; false where
    /// the process was told to stop meanwhile.
    pub(super) fn look_up(&mut self, config: &Config) -> bool {
        let both = questions(
            [config, &self.serving.config]
                .into_iter()
                .chain(self.kept()),
        );
        let mut waiting = self.discovery.watch(&both);
        let (timeout, hint) = (after(FIRST_ANSWERS), after(PATIENCE));
        while !waiting.is_empty() {
            let names = counted(waiting.len() as u64, "source");
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
                        return false;
                    }
                }
                recv(self.inbox.requests) -> request => match request {
                    Ok(request) => self.answer_meanwhile(request),
                    Err(_) => self.inbox.requests = never(),
                },
                recv(hint) -> _ => log::info!("waiting for the first answer of {names}"),
                recv(timeout) -> _ => {
                    log::warn!("no answer of {names} yet: going on without");
                    return true;
                }
            }
        }
        true
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
