//! Starting the threads, and everything that `Running` holds of them. Nothing is served yet: what a
//! config asks for comes by `apply`, at the start as with every reload.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, never, unbounded};

use super::discovery::Discovery;
use super::heritage::Heir;
use super::outlook::Outlook;
use super::reload::{Loaded, Pending};
use super::serving::Serving;
use super::signals::Asked;
use super::supervision::Supervision;
use super::survival::Survival;
use super::tell::Losses;
use super::upgrade::{Progress, Upgrade};
use super::{Doing, Room, Start, StartError};
use crate::admin::request::Request;
use crate::admin::{self, Admin};
use crate::bind::unix::SocketFile;
use crate::clock::Now;
use crate::config::Config;
use crate::mailbox::Outbox;
use crate::pool::ledger::Ledger;
use crate::pool::{Share, Verdict};
use crate::prober::{self, Prober, Report};
use crate::resolver;
use crate::roster::{Board, Stage};
use crate::telemetry::access_log::{self, Names, Recorder, Writer};
use crate::telemetry::counters::Counters;
use crate::telemetry::events::Events;
use crate::worker::{Command, DoorId, Drained, Loop, Setup, Worker};

/// The process while it runs: its threads, and what it alone knows.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) threads: Threads,
    pub(super) inbox: Inbox,
    pub(super) public: Public,
    pub(super) room: Room,
    pub(super) serving: Serving,
    /// Of the doors at unix sockets that have a file.
    pub(super) socket_files: BTreeMap<DoorId, SocketFile>,
    pub(super) loaded: Loaded,
    /// A reload that is taken back unless it is confirmed.
    pub(super) pending: Option<Pending>,
    pub(super) stage: Stage,
    /// An operator wants this node to get no traffic.
    pub(super) has_left: bool,
    /// True exactly while there is news that others are shown with the next look, and not at once:
    /// thousands of servers may go down in the same moment.
    pub(super) is_unpublished: bool,
    /// What the prober has reported, by pool.
    pub(super) outlook: Outlook,
    pub(super) discovery: Discovery,
    pub(super) losses: Losses,
    pub(super) supervision: Supervision,
    pub(super) upgrade: Upgrade,
    pub(super) survival: Survival,
    /// What is taken over, until it has been.
    pub(super) heir: Option<Box<Heir>>,
    /// The admin side, before it is open.
    reception: Option<(admin::Bound, admin::Shared)>,
    /// Signals that came while a config was being applied, oldest first.
    pub(super) postponed: VecDeque<Asked>,
    /// Requests that came meanwhile and cannot be granted in the middle of it, oldest first.
    pub(super) put_off: VecDeque<Request>,
}

/// The threads, and the ways to reach them.
#[derive(Debug)]
pub(super) struct Threads {
    pub(super) outboxes: Vec<Outbox<Command>>,
    pub(super) counters: Vec<Arc<Counters>>,
    pub(super) ledger: Ledger,
    pub(super) workers: Vec<JoinHandle<()>>,
    pub(super) prober: Option<Prober>,
    /// A way to the access log beside the workers'.
    pub(super) recorder: Option<Recorder>,
    pub(super) writer: Option<Writer>,
    pub(super) admin: Option<Admin>,
}

/// What comes in, and from whom.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) asked: Receiver<Asked>,
    /// One message for each server whose state becomes known or changes.
    pub(super) reports: Receiver<Report>,
    /// One message for each source of servers whose answer becomes known or changes.
    pub(super) found: Receiver<resolver::Report>,
    pub(super) requests: Receiver<Request>,
    /// One message for each upgrade that was begun.
    pub(super) progress: Receiver<Progress>,
    pub(super) drained: Receiver<Drained>,
    pub(super) failed: Receiver<io::Error>,
}

/// What others read.
#[derive(Debug, Default)]
pub(super) struct Public {
    pub(super) board: Board,
    pub(super) events: Events,
    pub(super) names: Names,
    /// Upgrades that came to nothing, those before earlier processes of this line included.
    pub(super) upgrades_failed: Arc<AtomicU64>,
}

impl Running {
    /// Starts every thread but the admin side's; nothing is served yet.
    pub(super) fn start(
        start: Start,
        bound: admin::Bound,
        asked: Receiver<Asked>,
        (room, survival): (Room, Survival),
    ) -> Result<Self, StartError> {
        let (loaded, exhibit) = Loaded::of(start);
        let config = &loaded.config;
        let public = Public::default();
        let (recorder, writer) = access_log(config, public.names.clone())?.unzip();
        let ledger = Ledger::new(room.workers, room.max_connections);
        let upgrade = Upgrade::new(exhibit.is_some(), Now::read());
        let (loops, outboxes) = loops(room.workers)?;
        let (discovery, found) = Discovery::new();
        let (inbox, senders) = inbox(asked, found);
        let setup = Setup {
            outboxes: outboxes.clone(),
            ledger: ledger.clone(),
            quota: room.quota,
            recorder: recorder.clone(),
            reports: senders.drained,
            parking: survival.parking.clone(),
        };
        let (counters, workers) = spawn_workers(loops, &setup, &senders.failed)?;
        let prober = spawn_prober(outboxes.clone(), senders.reports)?;
        let shared = admin::Shared {
            started: upgrade.started,
            board: public.board.clone(),
            events: public.events.clone(),
            counters: counters.clone(),
            ledger: ledger.clone(),
            lag: prober.lag(),
            resolutions: discovery.resolutions(),
            requests: senders.requests,
            upgrades: upgrade.before,
            upgrades_failed: Arc::clone(&public.upgrades_failed),
            exhibit,
        };
        Ok(Self {
            serving: Serving::nothing(config, room.workers),
            socket_files: BTreeMap::new(),
            loaded,
            threads: Threads {
                outboxes,
                counters,
                ledger,
                workers,
                prober: Some(prober),
                recorder,
                writer,
                admin: None,
            },
            inbox,
            public,
            room,
            pending: None,
            stage: Stage::Starting,
            has_left: false,
            is_unpublished: false,
            outlook: Outlook::default(),
            discovery,
            losses: Losses::default(),
            supervision: Supervision::default(),
            upgrade,
            survival,
            heir: None,
            reception: Some((bound, shared)),
            postponed: VecDeque::new(),
            put_off: VecDeque::new(),
        })
    }

    /// The admin side answers from now on.
    pub(super) fn open_admin(&mut self) -> Result<(), StartError> {
        let Some((bound, shared)) = self.reception.take() else {
            return Ok(());
        };
        let http = bound.http();
        let shared = admin::Shared {
            started: self.upgrade.started,
            upgrades: self.upgrade.before,
            ..shared
        };
        let admin = bound.serve(shared).doing("start the admin thread")?;
        self.threads.admin = Some(admin);
        if let Some(address) = http {
            log::info!("admin: http://{address}");
        }
        Ok(())
    }
}

/// Where others put what the main thread is to hear of.
struct Senders {
    reports: Sender<Report>,
    requests: Sender<Request>,
    drained: Sender<Drained>,
    failed: Sender<io::Error>,
}

fn inbox(asked: Receiver<Asked>, found: Receiver<resolver::Report>) -> (Inbox, Senders) {
    let (reports_sender, reports) = unbounded();
    let (requests_sender, requests) = unbounded();
    let (drained_sender, drained) = unbounded();
    let (failed_sender, failed) = unbounded();
    let inbox = Inbox {
        asked,
        reports,
        found,
        requests,
        progress: never(),
        drained,
        failed,
    };
    let senders = Senders {
        reports: reports_sender,
        requests: requests_sender,
        drained: drained_sender,
        failed: failed_sender,
    };
    (inbox, senders)
}

fn access_log(config: &Config, names: Names) -> Result<Option<(Recorder, Writer)>, StartError> {
    let log = &config.log;
    access_log::start(&log.access, log.format, names).map_err(|source| StartError::AccessLog {
        path: log.access.to_string(),
        source,
    })
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

/// The prober tells the workers itself: a verdict must not wait for what this thread is doing.
fn spawn_prober(
    outboxes: Vec<Outbox<Command>>,
    reports: Sender<Report>,
) -> Result<Prober, StartError> {
    let deliver = move |report: Report| {
        let verdict = Verdict {
            share: Share(report.share_percent),
            server: report.server,
            is_up: report.is_up,
        };
        for outbox in &outboxes {
            // A worker that has stopped needs no verdicts.
            outbox.send(Command::Verdict(verdict)).unwrap_or(());
        }
        reports.send(report).unwrap_or(());
    };
    prober::spawn(deliver).doing("start the prober")
}

/// Where workers and the recorder's clones go when the process ends.
pub(super) fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        // A panic has ended the process long before.
        thread.join().unwrap_or(());
    }
}
