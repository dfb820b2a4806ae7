//! Servers that come and go: what the resolver finds becomes part of what is served, by `apply` like
//! any other change, and what a reload brings is completed with what is known already.
//!
//! The config is as it is written; [`Discovery`] has the answers. Three rules: an answer that fails
//! changes nothing but what is shown of it; an answer that changes nothing is told to nobody; and
//! nothing waits for a name server but `asking`, once, for what was never asked.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::absent::Absent;
use super::apply::Outcome;
use super::asking::Questions;
use super::reload::Pending;
use super::start::Running;
use crate::clock::Now;
use crate::config::{self, Answers, Config, Expansion, Pool, Question, expand, keep_weights};
use crate::pool::drain::Pace;
use crate::resolver::{self, Failure, Report, Resolver, Step};
use crate::roster::{self, Roster, SourceState};
use crate::telemetry::events::Kind;
use crate::telemetry::resolutions::Resolutions;
use crate::units::counted;

/// Names in one line, and lines at one time; the rest is counted.
const NAMED_MAX: usize = 5;

/// What is asked, and what the answers were.
#[derive(Debug)]
pub(super) struct Discovery {
    /// `None` before anything is asked: most configs never do.
    resolver: Option<Resolver>,
    reports: Sender<Report>,
    resolutions: Arc<Resolutions>,
    watched: HashMap<Arc<Question>, Watched>,
    /// The last good answer to each question that is watched.
    answers: Answers,
    /// The answers that what is served was made with.
    applied: Answers,
    /// What an operator gave to found servers that are not found at present.
    weights: Absent<u32>,
    /// Who was left out, as far as the log has told it.
    told: HashSet<String>,
}

/// One question.
#[derive(Debug)]
struct Watched {
    every: Duration,
    state: SourceState,
    /// Since when it has been in this state.
    since: Now,
}

impl Discovery {
    /// With nothing to ask; and where answers come from.
    pub(super) fn new() -> (Self, Receiver<Report>) {
        let (reports, found) = unbounded();
        let discovery = Self {
            resolver: None,
            reports,
            resolutions: Arc::default(),
            watched: HashMap::new(),
            answers: Answers::new(),
            applied: Answers::new(),
            weights: Absent::default(),
            told: HashSet::new(),
        };
        (discovery, found)
    }

    /// How often it was asked.
    pub(super) fn resolutions(&self) -> Arc<Resolutions> {
        Arc::clone(&self.resolutions)
    }

    /// The answers that what is served was made with.
    pub(super) fn applied(&self) -> &Answers {
        &self.applied
    }

    /// What an operator gave to found servers that are not found at present.
    pub(super) fn weights(&self) -> &Absent<u32> {
        &self.weights
    }

    /// Begins with what the process before this one was told; to be called before anything is asked.
    pub(super) fn believe(&mut self, answers: Answers) {
        self.answers = answers;
    }

    /// Ends the resolver's thread.
    pub(super) fn stop(&mut self) {
        if let Some(resolver) = self.resolver.take() {
            resolver.stop();
        }
    }

    /// Asks `questions` from now on; those among them that were not asked before.
    pub(super) fn watch(&mut self, questions: &Questions) -> HashSet<Arc<Question>> {
        let mut steps = Vec::new();
        let mut new = HashSet::new();
        for (question, every) in questions {
            let known = self.watched.get_mut(question);
            if known.as_ref().is_some_and(|known| known.every == *every) {
                continue;
            }
            steps.push(Step::Watch {
                question: Arc::clone(question),
                every: *every,
            });
            if let Some(known) = known {
                known.every = *every;
                continue;
            }
            // What the process before this one was told is good enough until it is told again.
            let is_answered = self.answers.contains_key(question);
            let watched = Watched {
                every: *every,
                state: match is_answered {
                    true => SourceState::Good,
                    false => SourceState::Awaited,
                },
                since: Now::read(),
            };
            self.watched.insert(Arc::clone(question), watched);
            if !is_answered {
                new.insert(Arc::clone(question));
            }
        }
        if !self.change(steps) {
            // Nobody would answer: as if each had failed.
            new.clear();
        }
        new
    }

    /// Asks nothing but `questions` any more.
    pub(super) fn keep(&mut self, questions: &Questions) {
        self.watch(questions);
        let gone: Vec<_> = self
            .watched
            .extract_if(|question, _| !questions.contains_key(question))
            .map(|(question, _)| question)
            .collect();
        for question in &gone {
            self.answers.remove(question);
        }
        self.change(gone.into_iter().map(Step::Forget).collect());
    }

    /// Tells the resolver, which begins with the first question; false where it cannot be made.
    fn change(&mut self, steps: Vec<Step>) -> bool {
        if steps.is_empty() {
            return true;
        }
        if self.resolver.is_none() {
            let reports = self.reports.clone();
            // Nobody receives it only when the process is ending anyway.
            let deliver = move |report| reports.send(report).unwrap_or(());
            match resolver::spawn(deliver, Arc::clone(&self.resolutions)) {
                Ok(resolver) => self.resolver = Some(resolver),
                Err(error) => {
                    log::error!("cannot start the resolver, no server will be found: {error}");
                    return false;
                }
            }
        }
        if let Some(resolver) = &self.resolver {
            resolver.change(steps);
        }
        true
    }

    /// Takes an answer; what there is to tell about it.
    fn note(&mut self, report: Report) -> Option<(Kind, String)> {
        let Report { question, answer } = report;
        // It may have been forgotten meanwhile.
        let watched = self.watched.get_mut(&question)?;
        let was_failed = matches!(watched.state, SourceState::Failed(_));
        let is_first = watched.state == SourceState::Awaited;
        match answer {
            Ok(found) => {
                let servers = counted(found.len() as u64, "server");
                self.answers.insert(Arc::clone(&question), found.into());
                if was_failed || is_first {
                    watched.since = Now::read();
                }
                watched.state = SourceState::Good;
                was_failed.then(|| {
                    let text = match *question {
                        Question::File(_) => format!("{question} can be used again: {servers}"),
                        _ => format!("{question} is found again: {servers}"),
                    };
                    (Kind::DiscoveryBack, text)
                })
            }
            Err(failure) => {
                if !was_failed {
                    watched.since = Now::read();
                }
                watched.state = SourceState::Failed(failure.reason.as_str().into());
                let known = self.answers.get(&question).map_or(0, |found| found.len());
                log_failure(&question, &failure, known, was_failed);
                (!was_failed).then(|| {
                    let text = failure_text(&question, &failure.reason, known);
                    (Kind::DiscoveryFailed, text)
                })
            }
        }
    }

    /// Tells who is left out, once.
    fn tell_left_out(&mut self, left_out: Vec<String>) {
        let left_out: HashSet<_> = left_out.into_iter().collect();
        let mut new: Vec<_> = left_out.difference(&self.told).collect();
        new.sort_unstable();
        for line in new.iter().take(NAMED_MAX) {
            log::warn!("{line}");
        }
        if new.len() > NAMED_MAX {
            let more = counted((new.len() - NAMED_MAX) as u64, "more server");
            log::warn!("{more} left out");
        }
        self.told = left_out;
    }

    /// What is shown of the sources of each pool.
    pub(super) fn show(&self, config: &Config, roster: &mut Roster) {
        for (pool, shown) in config.pools.iter().zip(&mut roster.pools) {
            let sources = pool.templates.iter().filter_map(|template| {
                let watched = self.watched.get(&template.question)?;
                let answer = self.answers.get(&template.question);
                Some(roster::Source {
                    source: template.question.to_string().into(),
                    addresses: answer.map_or(0, |found| found.len()),
                    state: watched.state.clone(),
                    since: watched.since,
                })
            });
            shown.discovery = sources.collect();
        }
    }
}

fn failure_text(question: &Question, reason: &str, known: usize) -> String {
    let rest = match known {
        0 => "nothing is known of it yet".to_owned(),
        1 => "1 server found before stays".to_owned(),
        known => format!("{known} servers found before stay"),
    };
    let what = match question {
        Question::File(_) => "cannot be used",
        Question::Host { .. } | Question::Service(_) => "is not found",
    };
    format!("{question} {what}: {reason}; {rest}")
}

/// Once, at its beginning; but whoever repairs a file wants to hear of each try.
fn log_failure(question: &Question, failure: &Failure, known: usize, was_failed: bool) {
    if let Some(mistakes) = &failure.mistakes {
        let mut lines: Vec<_> = mistakes.lines().take(NAMED_MAX + 1).collect();
        if lines.len() > NAMED_MAX {
            lines[NAMED_MAX] = "and more";
        }
        log::warn!("{}", failure_text(question, &lines.join("; "), known));
    } else if !was_failed {
        log::warn!("{}", failure_text(question, &failure.reason, known));
    }
}

impl Running {
    /// `config` with all that is known. Where it is served, `note_applied` is to follow.
    pub(super) fn with_found(&mut self, config: &Config) -> Config {
        if !has_templates(config) {
            return config.clone();
        }
        let Expansion { config, left_out } = self.expansion(config, &self.discovery.answers);
        self.discovery.tell_left_out(left_out);
        config
    }

    /// What `pending` had running, with all that is known by now: weights that an operator had given
    /// found servers are as they were. Where it is served, `note_applied` is to follow, and
    /// `note_weights`.
    pub(super) fn with_found_again(&mut self, pending: &Pending) -> (Config, Absent<u32>) {
        let mut wanted = self.with_found(pending.running());
        let before = self.expansion(pending.running(), pending.found()).config;
        let weights = with_weights(pending.weights(), pending.running(), &before, &mut wanted);
        (wanted, weights)
    }

    /// What is served has the weights that an operator wants, but for these.
    pub(super) fn note_weights(&mut self, weights: Absent<u32>) {
        self.discovery.weights = weights;
    }

    /// `config` with what was known when what is served was made: for comparing the two.
    pub(super) fn as_found(&self, config: &Config) -> Config {
        match has_templates(config) {
            true => self.expansion(config, &self.discovery.applied).config,
            false => config.clone(),
        }
    }

    /// `wanted`, which somebody made of what is served, with what else was found and has a place in it
    /// now: its room, its name or its way may have been another's. Where it is served, `note_weights`
    /// is to follow.
    pub(super) fn with_found_still(&self, wanted: &Config) -> (Config, Absent<u32>) {
        let (applied, running) = (&self.discovery.applied, &self.serving.config);
        let before = self.expansion(running, applied).config;
        let mut next = self.expansion(wanted, applied).config;
        let weights = with_weights(&self.discovery.weights, running, &before, &mut next);
        (next, weights)
    }

    /// What is served has all that is known.
    pub(super) fn note_applied(&mut self) {
        self.discovery.applied.clone_from(&self.discovery.answers);
    }

    fn expansion(&self, config: &Config, answers: &Answers) -> Expansion {
        let ways = self.serving.ways(config);
        expand(config, answers, |config, pool, address| {
            let listener = ways.circle(config, pool, address)?;
            Some(format!("it leads back to the pool by listener {listener}"))
        })
    }

    /// The resolver has news.
    pub(super) fn take_found(&mut self, first: Report) {
        self.note_found(first);
        // Many names may change at once, and each change costs every worker a turn.
        for _ in 0..self.inbox.found.len() {
            if let Ok(report) = self.inbox.found.try_recv() {
                self.note_found(report);
            }
        }
        self.adopt_found();
        self.publish();
    }

    pub(super) fn note_found(&mut self, report: Report) {
        if let Some((kind, text)) = self.discovery.note(report) {
            if kind == Kind::DiscoveryBack {
                log::info!("{text}");
            }
            self.public.events.add(kind, text);
        }
    }

    /// Serves what was found since; to be published afterwards.
    pub(super) fn adopt_found(&mut self) {
        if self.discovery.applied == self.discovery.answers {
            return;
        }
        let running = &self.serving.config;
        let before = self.expansion(running, &self.discovery.applied).config;
        let Expansion {
            config: mut wanted,
            left_out,
        } = self.expansion(running, &self.discovery.answers);
        let weights = with_weights(&self.discovery.weights, running, &before, &mut wanted);
        let news = news(&running.pools, &wanted.pools);
        let is_same = wanted.pools == running.pools;
        self.discovery.tell_left_out(left_out);
        if is_same {
            return self.note_applied();
        }
        match self.apply(wanted, Pace::PATIENT) {
            Ok(Outcome::Applied) => {
                self.note_applied();
                self.note_weights(weights);
                for text in news {
                    self.tell(Kind::Discovered, text);
                }
            }
            // Its end is told by whoever brings it about.
            Ok(Outcome::Stopping) => {}
            Err(error) => log::error!("what was found cannot be served: {error}"),
        }
    }
}

/// Gives found servers of `next` the weights that an operator has given them: those in `running` that
/// differ from `before`, and those of servers that were `absent`. What is absent from `next`.
fn with_weights(
    absent: &Absent<u32>,
    running: &Config,
    before: &Config,
    next: &mut Config,
) -> Absent<u32> {
    let mut absent = absent.clone();
    let gone = keep_weights(running, before, next);
    for pool in &mut next.pools {
        for server in &mut pool.servers {
            if let Some(weight) = absent.take(&pool.name, server) {
                server.weight = weight;
            }
        }
    }
    for (pool, server) in gone {
        absent.note(&pool, &server, server.weight);
    }
    absent
}

fn has_templates(config: &Config) -> bool {
    config.pools.iter().any(|pool| !pool.templates.is_empty())
}

/// What differs between two states of the same pools, a line for each that does.
fn news(before: &[Pool], next: &[Pool]) -> Vec<String> {
    let pairs = before.iter().zip(next);
    let differing = pairs.filter(|(before, next)| before.servers != next.servers);
    differing
        .map(|(before, next)| {
            let known: HashMap<_, _> = before.servers.iter().map(|s| (key(s), s)).collect();
            let new: HashMap<_, _> = next.servers.iter().map(|s| (key(s), s)).collect();
            let come = next.servers.iter().filter(|s| !known.contains_key(&key(s)));
            let gone = before.servers.iter().filter(|s| !new.contains_key(&key(s)));
            let differs = |s: &&config::Server| known.get(&key(s)).is_some_and(|b| b != s);
            let changed = next.servers.iter().filter(differs);
            let parts = [
                part("found", come.collect()),
                part("gone", gone.collect()),
                part("changed", changed.collect()),
            ];
            let parts: Vec<_> = parts.into_iter().flatten().collect();
            let parts = match parts.is_empty() {
                true => "servers in another order".to_owned(),
                false => parts.join("; "),
            };
            format!("pool {}: {parts}", next.name)
        })
        .collect()
}

fn key(server: &config::Server) -> (&str, &crate::address::Address) {
    (&server.name, &server.address)
}

/// `2 servers found (10.0.0.1:80, 10.0.0.2:80)`; nothing where there is none.
fn part(what: &str, servers: Vec<&config::Server>) -> Option<String> {
    let mut names: Vec<_> = servers.iter().take(NAMED_MAX).map(|s| &*s.name).collect();
    if servers.len() > NAMED_MAX {
        names.push("...");
    }
    let count = counted(servers.len() as u64, "server");
    (!servers.is_empty()).then(|| format!("{count} {what} ({})", names.join(", ")))
}
