//! The running state as the API shows it: listeners, pools and servers in the order of the config,
//! with what is counted and found of them. Reads the roster and the counters; asks nobody.

use std::path::Path;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::Shared;
use crate::clock::Now;
use crate::end::End;
use crate::pool::drain::Drain;
use crate::pool::tally::{ListenerTally, ServerTally};
use crate::roster::{Leaving, Listener, Pool, Roster, Server};
use crate::telemetry::checkup::Findings;
use crate::telemetry::counters::{ConnectFailure, Counters};

/// Pairs that become an object in their own order, which a map would not keep.
#[derive(Debug)]
struct Ordered<K, V>(Vec<(K, V)>);

impl<K: Serialize, V: Serialize> Serialize for Ordered<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// Bytes delivered.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Bytes {
    pub(super) upstream: u64,
    pub(super) downstream: u64,
}

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Status<'a> {
    version: &'static str,
    uptime_seconds: f64,
    ready: bool,
    reasons: Vec<String>,
    stage: &'static str,
    workers: usize,
    connections: ProcessConnections,
    bytes: Bytes,
    worker_connections: Vec<u32>,
    pipes: Pipes,
    ends: Ordered<&'static str, u64>,
    config: ShownOrigin<'a>,
    listeners: Ordered<&'a str, ShownListener<'a>>,
    pools: Ordered<&'a str, ShownPool<'a>>,
    leaving: Vec<ShownLeaving<'a>>,
    demo: bool,
}

#[derive(Debug, Serialize)]
struct ProcessConnections {
    active: u32,
    total: u64,
    refused: u64,
    max: u32,
}

#[derive(Debug, Serialize)]
struct Pipes {
    lent: u64,
    idle: u64,
}

#[derive(Debug, Serialize)]
struct ShownOrigin<'a> {
    file: Option<String>,
    differs: &'a [String],
    confirm_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct ShownListener<'a> {
    bind: Vec<String>,
    pool: &'a str,
    connections: ListenerConnections,
}

#[derive(Debug, Serialize)]
struct ListenerConnections {
    active: u64,
    total: u64,
    refused: u64,
}

#[derive(Debug, Serialize)]
struct ShownPool<'a> {
    algorithm: &'static str,
    servers: Ordered<&'a str, ShownServer>,
}

#[derive(Debug, Serialize)]
struct ShownServer {
    address: String,
    state: &'static str,
    weight: u32,
    backup: bool,
    max_connections: Option<u32>,
    connections: ServerConnections,
    bytes: Bytes,
    health: Health,
    drain: Option<ShownDrain>,
}

#[derive(Debug, Serialize)]
struct ServerConnections {
    active: u32,
    total: u64,
    failed: u64,
}

#[derive(Debug, Serialize)]
struct Health {
    last: &'static str,
    reason: String,
    since_seconds: f64,
}

#[derive(Debug, Serialize)]
struct ShownDrain {
    began_with: u32,
    left: u32,
    closed: u32,
    rate: Option<String>,
    quiet_seconds: f64,
    deadline_seconds: Option<f64>,
    estimate_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct ShownLeaving<'a> {
    pool: &'a str,
    server: &'a str,
    address: String,
    connections: ServerConnections,
    bytes: Bytes,
    drain: Option<ShownDrain>,
}

/// A pool on its own.
#[derive(Debug, Serialize)]
pub(super) struct NamedPool<'a> {
    name: &'a str,
    #[serde(flatten)]
    pool: ShownPool<'a>,
}

impl<'a> NamedPool<'a> {
    pub(super) fn new(pool: &'a Pool, now: Now) -> Self {
        Self {
            name: &pool.name,
            pool: shown_pool(pool, now),
        }
    }
}

/// A server on its own.
#[derive(Debug, Serialize)]
pub(super) struct NamedServer<'a> {
    name: &'a str,
    pool: &'a str,
    #[serde(flatten)]
    server: ShownServer,
}

impl<'a> NamedServer<'a> {
    pub(super) fn new(pool: &'a Pool, server: &'a Server, now: Now) -> Self {
        Self {
            name: &server.name,
            pool: &pool.name,
            server: shown_server(server, pool.is_checked, now),
        }
    }
}

/// The status as JSON.
pub(super) fn text(shared: &Shared, now: Now) -> Vec<u8> {
    let roster = shared.board.read();
    serde_json::to_vec(&status(shared, &roster, now))
        .expect("maps have text keys and numbers are finite")
}

/// Everything as of `now`.
pub(super) fn status<'a>(shared: &Shared, roster: &'a Roster, now: Now) -> Status<'a> {
    let counters = &shared.counters;
    let sum = |count: fn(&Counters) -> u64| sum(counters.iter().map(|each| count(each)));
    let ended = |end: &End| self::sum(counters.iter().map(|each| each.ended(*end).value()));
    let reasons = roster.reasons_against_traffic();
    let ends = End::ALL.iter().map(|end| (end.word(), ended(end)));
    let refusals = End::ALL.iter().filter(|end| end.is_refusal());
    let ledger = &shared.ledger;
    Status {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: seconds(now.since(shared.started)),
        ready: reasons.is_empty(),
        reasons,
        stage: roster.stage.word(),
        workers: counters.len(),
        connections: ProcessConnections {
            active: ledger.process_connections(),
            total: sum(|each| each.accepted.value()),
            refused: refusals.map(ended).sum(),
            max: ledger.process_max(),
        },
        bytes: Bytes {
            upstream: sum(|each| each.upstream_bytes.value()),
            downstream: sum(|each| each.downstream_bytes.value()),
        },
        worker_connections: (0..counters.len())
            .map(|worker| ledger.worker_connections(worker))
            .collect(),
        pipes: Pipes {
            lent: sum(|each| each.pipes_lent.value()),
            idle: sum(|each| each.pipes_idle.value()),
        },
        ends: Ordered(ends.filter(|(_, count)| *count > 0).collect()),
        config: shown_origin(roster, now),
        listeners: Ordered(roster.listeners.iter().map(shown_listener).collect()),
        pools: Ordered(
            roster
                .pools
                .iter()
                .map(|pool| (&*pool.name, shown_pool(pool, now)))
                .collect(),
        ),
        leaving: roster
            .leaving
            .iter()
            .map(|gone| shown_leaving(gone, now))
            .collect(),
        demo: shared.exhibit.is_some(),
    }
}

fn shown_origin(roster: &Roster, now: Now) -> ShownOrigin<'_> {
    let origin = &roster.origin;
    let show = |path: &Path| path.display().to_string();
    ShownOrigin {
        file: origin.file.as_deref().map(show),
        differs: &origin.differences,
        confirm_seconds: origin.confirm_until.map(|until| seconds(until.since(now))),
    }
}

fn shown_listener(listener: &Listener) -> (&str, ShownListener<'_>) {
    let shown = ShownListener {
        bind: listener.bind.iter().map(ToString::to_string).collect(),
        pool: &listener.pool,
        connections: ListenerConnections {
            active: listener.tally.connections(),
            total: accepted(&listener.tally),
            refused: refused(&listener.tally),
        },
    };
    (&listener.name, shown)
}

fn shown_pool(pool: &Pool, now: Now) -> ShownPool<'_> {
    let servers = pool.servers.iter();
    let shown = |server: &Server| shown_server(server, pool.is_checked, now);
    ShownPool {
        algorithm: pool.algorithm.name(),
        servers: Ordered(
            servers
                .map(|server| (&*server.name, shown(server)))
                .collect(),
        ),
    }
}

fn shown_server(server: &Server, is_checked: bool, now: Now) -> ShownServer {
    let findings = server.tally.checkup().findings();
    ShownServer {
        address: server.address.to_string(),
        state: server.state(is_checked),
        weight: server.weight,
        backup: server.is_backup,
        max_connections: server.max_connections,
        connections: server_connections(&server.tally),
        bytes: server_bytes(&server.tally),
        health: shown_health(&findings, is_checked, now),
        drain: shown_drain(server, now),
    }
}

fn shown_health(findings: &Findings, is_checked: bool, now: Now) -> Health {
    let (last, reason) = match (is_checked, findings.last) {
        (false, _) => ("off", "health: off"),
        (true, None) => ("none", "not checked yet"),
        (true, Some(last)) => (last.word(), &*findings.reason),
    };
    Health {
        last,
        reason: reason.to_owned(),
        since_seconds: seconds(now.since(findings.since)),
    }
}

fn shown_drain(server: &Server, now: Now) -> Option<ShownDrain> {
    let drain: &Drain = server.drain.as_deref()?;
    let left = server.tally.connections();
    Some(ShownDrain {
        began_with: drain.began_with(),
        left,
        closed: drain.closed(),
        rate: drain.pace().rate.map(|rate| rate.to_string()),
        quiet_seconds: seconds(drain.pace().quiet),
        deadline_seconds: drain.until_deadline(now).map(seconds),
        estimate_seconds: drain.estimate(left, now).map(seconds),
    })
}

fn shown_leaving(gone: &Leaving, now: Now) -> ShownLeaving<'_> {
    ShownLeaving {
        pool: &gone.pool,
        server: &gone.server.name,
        address: gone.server.address.to_string(),
        connections: server_connections(&gone.server.tally),
        bytes: server_bytes(&gone.server.tally),
        drain: shown_drain(&gone.server, now),
    }
}

fn server_connections(tally: &ServerTally) -> ServerConnections {
    let failures = ConnectFailure::ALL.iter();
    ServerConnections {
        active: tally.connections(),
        total: sum(tally.workers().iter().map(|each| each.connected.value())),
        failed: failures.map(|failure| failed(tally, *failure)).sum(),
    }
}

/// Delivered to a server, and from it.
pub(super) fn server_bytes(tally: &ServerTally) -> Bytes {
    let workers = tally.workers().iter();
    Bytes {
        upstream: sum(workers.clone().map(|each| each.upstream_bytes.value())),
        downstream: sum(workers.map(|each| each.downstream_bytes.value())),
    }
}

/// Tries to connect that failed so.
pub(super) fn failed(tally: &ServerTally, failure: ConnectFailure) -> u64 {
    sum(tally
        .workers()
        .iter()
        .map(|each| each.failed(failure).value()))
}

/// Connections accepted, refused ones included.
pub(super) fn accepted(tally: &ListenerTally) -> u64 {
    sum(tally.workers().iter().map(|each| each.accepted.value()))
}

fn refused(tally: &ListenerTally) -> u64 {
    let refusals = End::ALL.iter().filter(|end| end.is_refusal());
    let of = |end: &End| {
        sum(tally
            .workers()
            .iter()
            .map(|each| each.refused(*end).value()))
    };
    refusals.map(of).sum()
}

fn sum(counts: impl Iterator<Item = u64>) -> u64 {
    // Counters wrap one by one; a sum in a debug build must not panic for it.
    counts.fold(0, u64::wrapping_add)
}

/// Seconds to the millisecond: more digits are noise to read.
pub(super) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round() / 1e3
}

/// Milliseconds to the microsecond.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
