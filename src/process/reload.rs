//! Reload: a file is read and checked whole, then applied at once or not at all; what it would change
//! can be asked for before, and what it has changed can be taken back.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use super::Start;
use super::absent::Absent;
use super::apply::Outcome;
use super::preflight;
use super::serving::{PoolSeat, ServerSeat, Serving};
use super::start::Running;
use crate::admin::exhibit::Exhibit;
use crate::admin::request::{Done, Plan, PlannedChange, Refusal, Reload};
use crate::clock::Now;
use crate::config::diff::{self, Touch, What};
use crate::config::{self, Answers, Config};
use crate::pool::drain::Pace;
use crate::roster::Stage;
use crate::telemetry::events::Kind;
use crate::units::counted;

/// The config as its author wrote it: what the running one is compared with.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) config: Config,
    /// `None` where arguments gave it.
    pub(super) file: Option<PathBuf>,
    /// Of what the file said then.
    pub(super) digest: Option<String>,
}

impl Loaded {
    /// What a process starts with, and what it shows where it is a demonstration.
    pub(super) fn of(start: Start) -> (Self, Option<Arc<dyn Exhibit>>) {
        let loaded = Self {
            config: start.config,
            file: start.file,
            digest: start.digest,
        };
        (loaded, start.exhibit)
    }
}

/// What returns unless a reload is confirmed.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) until: Now,
    before: Loaded,
    /// What was running before, with all that was changed without the file.
    running: Config,
    /// What had been found by then: tells a weight that was found from one that was set.
    found: Answers,
    /// What was set of servers that were not found by then.
    weights: Absent<u32>,
}

impl Pending {
    /// What was running before.
    pub(super) fn running(&self) -> &Config {
        &self.running
    }

    /// What had been found by then.
    pub(super) fn found(&self) -> &Answers {
        &self.found
    }

    /// What was set of servers that were not found by then.
    pub(super) fn weights(&self) -> &Absent<u32> {
        &self.weights
    }
}

impl Running {
    /// What a reload of `file` would change.
    pub(super) fn plan(&self, file: Option<PathBuf>) -> Result<Plan, Refusal> {
        let (wanted, _) = load(&self.file_or_last(file)?)?;
        Ok(Plan {
            warnings: preflight::of_reload(&wanted),
            ..plan(&self.serving, &self.as_found(&wanted))
        })
    }

    /// Applies a file.
    pub(super) fn reload(&mut self, reload: Reload) -> Result<Plan, Refusal> {
        if self.pending.is_some() && reload.confirm.is_some() {
            let text = "a reload awaits its confirmation: `evenkeel confirm` keeps it";
            return Err(Refusal::Conflict(text.to_owned()));
        }
        let was_awaited = self.pending.is_some();
        self.tell_reloading();
        let outcome = self.try_reload(reload);
        match &outcome {
            Ok(plan) => {
                if was_awaited {
                    let text =
                        "the reload that awaited its confirmation stays: another followed it";
                    log::warn!("{text}");
                    self.public.events.add(Kind::Confirmed, text);
                }
                let changes = counted(plan.changes.len() as u64, "change");
                let text = format!("reloaded {}: {changes}", self.file_name());
                self.tell_serving(&text);
                self.tell(Kind::Reloaded, text);
                for line in &plan.restart {
                    log::warn!("{line} takes effect at an upgrade or a new start");
                }
            }
            Err(refusal) => {
                log::error!("reload failed, all stays as it was: {refusal}");
                // Whoever may look is not told what a file says: a mistake quotes its lines.
                let text = "reload failed, all stays as it was: the log says why";
                self.tell_not_reloaded(&refusal.to_string());
                self.public.events.add(Kind::ReloadFailed, text);
            }
        }
        outcome
    }

    fn try_reload(&mut self, reload: Reload) -> Result<Plan, Refusal> {
        let file = self.file_or_last(reload.file)?;
        let (config, digest) = load(&file)?;
        if !self.look_up(&config) {
            return Err(Refusal::Unavailable("evenkeel is stopping".to_owned()));
        }
        let complete = self.with_found(&config);
        let plan = Plan {
            warnings: preflight::of_reload(&config),
            ..plan(&self.serving, &complete)
        };
        // One that asks for no confirmation stands for one that was awaited.
        let pending = reload.confirm.map(|confirm| Pending {
            until: Now::read() + confirm,
            before: self.loaded.clone(),
            running: self.serving.config.clone(),
            found: self.discovery.applied().clone(),
            weights: self.discovery.weights().clone(),
        });
        let running = self.restrained(complete);
        let loaded = std::mem::replace(
            &mut self.loaded,
            Loaded {
                config,
                file: Some(file),
                digest: Some(digest),
            },
        );
        let outcome = match self.apply_anew(running, reload.pace) {
            Ok(Outcome::Applied) => Ok(plan),
            Ok(Outcome::Stopping) => Err(Refusal::Unavailable("evenkeel is stopping".to_owned())),
            Err(error) => Err(Refusal::Invalid(error.to_string())),
        };
        match &outcome {
            Ok(_) => {
                self.pending = pending;
                self.note_applied();
                // As with those that are found: a reload takes weights back.
                self.note_weights(Absent::default());
            }
            Err(_) => self.loaded = loaded,
        }
        self.forget_questions();
        if outcome.is_err() {
            // What was found while the reload waited is news to what goes on being served.
            self.adopt_found();
        }
        self.publish();
        outcome
    }

    /// The config with the settings that only another process can change as they are now.
    fn restrained(&self, config: Config) -> Config {
        let running = &self.serving.config;
        let log = config::Log {
            level: config.log.level,
            ..running.log.clone()
        };
        Config {
            workers: running.workers,
            admin: running.admin.clone(),
            log,
            ..config
        }
    }

    /// Keeps what was reloaded.
    pub(super) fn confirm(&mut self) -> Result<Done, Refusal> {
        if self.pending.take().is_none() {
            let text = "no reload awaits a confirmation";
            return Err(Refusal::Conflict(text.to_owned()));
        }
        self.forget_questions();
        self.tell(Kind::Confirmed, "the reload is confirmed");
        self.publish();
        Ok(Done::Changed)
    }

    /// Takes a reload back that nobody has confirmed in time.
    pub(super) fn roll_back_if_due(&mut self) {
        if self
            .pending
            .as_ref()
            .is_none_or(|pending| Now::read() < pending.until)
        {
            return;
        }
        let Some(pending) = self.pending.take() else {
            return;
        };
        self.tell_reloading();
        let (running, weights) = self.with_found_again(&pending);
        let loaded = std::mem::replace(&mut self.loaded, pending.before);
        match self.apply(running, Pace::PATIENT) {
            Ok(Outcome::Applied) => {
                self.note_applied();
                self.note_weights(weights);
                self.forget_questions();
                self.publish();
                let text = "the reload was not confirmed and is taken back";
                self.tell_serving(text);
                self.tell(Kind::RolledBack, text);
            }
            // Its end is told by whoever brings it about.
            Ok(Outcome::Stopping) => {}
            Err(error) => {
                let text =
                    format!("the reload was not confirmed and cannot be taken back: {error}");
                log::error!("{text}");
                self.tell_serving(&text);
                self.public.events.add(Kind::ReloadFailed, text);
                self.loaded = loaded;
                self.forget_questions();
                self.publish();
            }
        }
    }

    /// How what runs differs from what was loaded, a line each; nothing does before it runs.
    pub(super) fn differences_from_file(&self) -> Vec<String> {
        if self.stage == Stage::Starting {
            return Vec::new();
        }
        let loaded = self.as_found(&self.loaded.config);
        let differences = diff::diff(&loaded, &self.serving.config);
        let restart = differences.restart.into_iter();
        let restart = restart
            .map(|line| format!("{line} (the file's takes effect at an upgrade or a new start)"));
        let changes = differences.changes.into_iter().map(|change| change.text);
        changes.chain(restart).collect()
    }

    fn file_or_last(&self, file: Option<PathBuf>) -> Result<PathBuf, Refusal> {
        file.or_else(|| self.loaded.file.clone()).ok_or_else(|| {
            let text = "evenkeel was started without a file: name one with -c FILE";
            Refusal::Conflict(text.to_owned())
        })
    }

    fn file_name(&self) -> String {
        let file = self.loaded.file.as_deref();
        file.map_or_else(|| "the arguments".to_owned(), config::name_of)
    }
}

/// Reads and checks a file. A pipe has been read before, or would hold this thread up for as long as
/// nobody writes to it; what is left of `/dev/fd/3` by now may even be a connection.
fn load(file: &Path) -> Result<(Config, String), Refusal> {
    let unreadable = |error: io::Error| {
        let name = config::name_of(file);
        Refusal::Invalid(format!("cannot read {name}: {error}"))
    };
    if !fs::metadata(file).map_err(unreadable)?.is_file() {
        let name = config::name_of(file);
        let text = format!("{name} is no ordinary file and can be read only once: name one");
        return Err(Refusal::Invalid(text));
    }
    config::load_with_digest(file).map_err(|error| Refusal::Invalid(error.to_string()))
}

/// The difference, with the living connections that each change touches.
fn plan(serving: &Serving, wanted: &Config) -> Plan {
    let differences = diff::diff(&serving.config, wanted);
    let changes = differences.changes.into_iter();
    let pools = serving.pools.iter().map(|pool| (&*pool.name, pool));
    let pools: HashMap<_, _> = pools.collect();
    Plan {
        changes: changes
            .map(|change| PlannedChange {
                connections: match change.touch {
                    Touch::Nothing => 0,
                    Touch::Connections => connections(serving, &pools, &change.what),
                },
                text: change.text,
            })
            .collect(),
        restart: differences.restart,
        warnings: Vec::new(),
    }
}

/// Living connections of one thing; `pools` has those of `serving` by name.
fn connections(serving: &Serving, pools: &HashMap<&str, &PoolSeat>, what: &What) -> u64 {
    match what {
        What::Process => 0,
        What::Listener(name) => {
            let listener = serving.listeners.iter().find(|seat| seat.name == *name);
            listener.map_or(0, |listener| listener.tally.connections())
        }
        What::Pool(name) => of_servers(pools.get(&**name), |_| true),
        What::Server { pool, server } => {
            of_servers(pools.get(&**pool), |member| member.name == *server)
        }
    }
}

fn of_servers(pool: Option<&&PoolSeat>, is_meant: impl Fn(&ServerSeat) -> bool) -> u64 {
    let servers = pool.into_iter().flat_map(|pool| &pool.servers);
    servers
        .filter(|server| is_meant(server))
        .map(|server| u64::from(server.tally.connections()))
        .sum()
}
