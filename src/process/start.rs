//! Starting the threads, and everything that `Running` holds of them.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::outlook::Outlook;
use super::{Doing, StartError};
use crate::config::Config;
use crate::ids::{ListenerId, PoolId, ServerId};
use crate::mailbox::Outbox;
use crate::pool::ledger::Ledger;
use crate::pool::tally::{ListenerTally, PoolTally, ServerTally};
use crate::pool::{Member, Pool, Verdict};
use crate::prober::{self, Prober, Report};
use crate::relay::pipe_cache::Quota;
use crate::telemetry::access_log::{self, Names, Writer};
use crate::telemetry::counters::Counters;
use crate::worker::{Change, Command, Drained, Listener, Loop, Setup, Worker};

/// The threads of a process, and the ways to reach them.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) outboxes: Vec<Outbox<Command>>,
    pub(super) counters: Vec<Arc<Counters>>,
    pub(super) ledger: Ledger,
    pub(super) shutdown_timeout: Duration,
    /// Of the whole process.
    pub(super) max_connections: u32,
    /// What the prober has reported.
    pub(super) outlook: Outlook,
    /// How long the slowest first answer may take.
    pub(super) answer_timeout: Duration,
    /// One message for each server whose state becomes known or changes.
    pub(super) reports: Receiver<Report>,
    pub(super) drained: Receiver<Drained>,
    pub(super) failed: Receiver<io::Error>,
    pub(super) threads: Vec<JoinHandle<()>>,
    pub(super) prober: Option<Prober>,
    pub(super) writer: Option<Writer>,
    pub(super) told: Told,
}

/// What was lost, as far as the log has told it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    /// Access log lines that found no room.
    pub(super) dropped: u64,
    /// Connections over `max_connections`.
    pub(super) refused: u64,
}

impl Running {
    /// Starts everything but listening.
    pub(super) fn start(
        config: Config,
        workers: usize,
        max_connections: u32,
        quota: Quota,
    ) -> Result<Self, StartError> {
        let ledger = Ledger::new(workers, max_connections);
        let log = &config.log;
        let access =
            access_log::start(&log.access, log.format, Names::new(&config)).map_err(|source| {
                StartError::AccessLog {
                    path: log.access.to_string(),
                    source,
                }
            })?;
        let (recorder, writer) = access.unzip();
        let (loops, outboxes) = loops(workers)?;
        let (drained_sender, drained) = unbounded();
        let (failed_sender, failed) = unbounded();
        let setup = Setup {
            outboxes: outboxes.clone(),
            ledger: ledger.clone(),
            quota,
            recorder,
            reports: drained_sender,
        };
        tell_config(&config, &outboxes);
        let (counters, threads) = spawn_workers(loops, &setup, &failed_sender)?;
        let (reports_sender, reports) = unbounded();
        let prober = spawn_prober(&config, outboxes.clone(), reports_sender)?;
        Ok(Self {
            outboxes,
            counters,
            ledger,
            shutdown_timeout: config.shutdown_timeout,
            max_connections,
            outlook: Outlook::new(&config),
            answer_timeout: slowest_answer(&config),
            reports,
            drained,
            failed,
            threads,
            prober,
            writer,
            told: Told::default(),
        })
    }
}

/// Tells each worker of all listeners and pools.
fn tell_config(config: &Config, outboxes: &[Outbox<Command>]) {
    let workers = outboxes.len();
    let mut servers = (0..).map(ServerId::new);
    let pools = (0..).map(PoolId::new).zip(&config.pools);
    let pools: Vec<Pool> = pools
        .map(|(id, pool)| {
            let members = servers.by_ref().take(pool.servers.len()).map(|id| Member {
                id,
                tally: Arc::new(ServerTally::new(workers)),
                is_open: true,
            });
            Pool::new(
                id,
                pool,
                Arc::new(PoolTally::new(workers)),
                members.collect(),
            )
        })
        .collect();
    let listeners = (0..).map(ListenerId::new).zip(&config.listeners);
    let listeners: Vec<_> = listeners
        .map(|(id, listener)| {
            let seen = Listener {
                pool: listener.pool,
                idle_timeout: listener.idle_timeout,
                half_close_timeout: listener.half_close_timeout,
                tally: Arc::new(ListenerTally::new(workers)),
            };
            (id, seen)
        })
        .collect();
    for outbox in outboxes {
        let change = Change {
            listeners: listeners.clone(),
            pools: pools.clone(),
            ..Change::default()
        };
        outbox.send(Command::Change(Box::new(change))).unwrap_or(());
    }
}

type Loops = (Vec<Loop>, Vec<Outbox<Command>>);

fn loops(workers: usize) -> Result<Loops, StartError> {
    let pairs: io::Result<Vec<_>> = (0..workers).map(|_| Loop::new()).collect();
    let (outboxes, loops) = pairs.doing("make a worker's loop")?.into_iter().unzip();
    Ok((loops, outboxes))
}

type Workers = (Vec<Arc<Counters>>, Vec<JoinHandle<()>>);

fn spawn_workers(
    loops: Vec<Loop>,
    setup: &Setup,
    failed: &Sender<io::Error>,
) -> Result<Workers, StartError> {
    let mut counters = Vec::new();
    let mut threads = Vec::new();
    for (index, ready) in loops.into_iter().enumerate() {
        let counted = Arc::new(Counters::default());
        counters.push(Arc::clone(&counted));
        let (setup, failed) = (setup.clone(), failed.clone());
        let body = move || {
            if let Err(error) = Worker::new(index, ready, setup, counted).run() {
                // Nobody receives it only when the process is ending anyway.
                failed.send(error).unwrap_or(());
            }
        };
        let builder = thread::Builder::new().name(format!("worker-{index}"));
        threads.push(builder.spawn(body).doing("start a worker")?);
    }
    Ok((counters, threads))
}

/// Starts the prober where there is anything to check.
fn spawn_prober(
    config: &Config,
    outboxes: Vec<Outbox<Command>>,
    reports: Sender<Report>,
) -> Result<Option<Prober>, StartError> {
    let targets = targets(config);
    if targets.is_empty() {
        return Ok(None);
    }
    let deliver = move |report: Report| {
        let verdict = Verdict {
            server: report.server,
            is_up: report.is_up,
        };
        for outbox in &outboxes {
            // A worker that has stopped needs no verdicts.
            outbox.send(Command::Verdict(verdict)).unwrap_or(());
        }
        reports.send(report).unwrap_or(());
    };
    prober::spawn(targets, deliver)
        .map(Some)
        .doing("start the prober")
}

/// Every server of a pool with health checks; servers count over all pools in order.
fn targets(config: &Config) -> Vec<prober::Target> {
    let mut targets = Vec::new();
    let mut index = 0;
    for pool in &config.pools {
        for server in &pool.servers {
            targets.extend(pool.health.as_ref().map(|health| prober::Target {
                server: ServerId::new(index),
                name: format!("{}/{}", pool.name, server.name).into(),
                address: server.address,
                health: Arc::clone(health),
            }));
            index += 1;
        }
    }
    targets
}

fn slowest_answer(config: &Config) -> Duration {
    let checks = config.pools.iter().filter_map(|pool| pool.health.as_ref());
    checks
        .map(|health| health.timeout)
        .max()
        .unwrap_or_default()
}

/// Where workers and the recorder's clones go when the process ends.
pub(super) fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        // A panic has ended the process long before.
        thread.join().unwrap_or(());
    }
}
