//! Pools and servers as the API shows them, within the status and alone.

use serde::Serialize;

use super::{Bytes, Ordered, seconds, sum};
use crate::clock::Now;
use crate::pool::drain::Drain;
use crate::pool::tally::ServerTally;
use crate::roster::{Leaving, Pool, Server, Source};
use crate::telemetry::checkup::Findings;
use crate::telemetry::counters::ConnectFailure;

/// A pool, its servers in the order of the config.
#[derive(Debug, Serialize)]
pub(super) struct ShownPool<'a> {
    algorithm: &'static str,
    queue: ShownQueue,
    failing_open: bool,
    discovery: Vec<ShownSource<'a>>,
    servers: Ordered<&'a str, ShownServer>,
}

/// Clients that are held for a server of the pool.
#[derive(Debug, Serialize)]
struct ShownQueue {
    waiting: u32,
    limit: u32,
}

/// A name or a file that servers are found by. `addresses` are those of the last good answer;
/// `since_seconds` is of `last`, not of the last look.
#[derive(Debug, Serialize)]
struct ShownSource<'a> {
    source: &'a str,
    addresses: usize,
    last: &'static str,
    reason: &'a str,
    since_seconds: f64,
}

/// A server. Its state is what an operator wants of it or, where that is nothing, what the prober
/// found; its health says what the last check found, whatever the state.
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
    ejected: Option<Ejected>,
    slow_start: Option<SlowStart>,
    drain: Option<ShownDrain>,
}

/// Left alone for what connections have found, whatever its state.
#[derive(Debug, Serialize)]
struct Ejected {
    until_seconds: f64,
}

/// On its way to all of its share; `percent` of it are reached.
#[derive(Debug, Serialize)]
struct SlowStart {
    percent: u32,
    until_seconds: f64,
}

/// `active` is one exact count over all workers; the others are sums that a moment may tear.
#[derive(Debug, Serialize)]
struct ServerConnections {
    active: u32,
    total: u64,
    failed: u64,
}

/// `since_seconds` is of the verdict (up or down), not of the last check. `share_percent` is there
/// only while the server wants another share of its weight than all of it.
#[derive(Debug, Serialize)]
struct Health {
    last: &'static str,
    reason: String,
    since_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    share_percent: Option<u16>,
}

/// A drain under way. Some connections end by themselves, hence `closed` and `left` need not add up
/// to what it began with.
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

/// A server that is in no pool any more and still has connections.
#[derive(Debug, Serialize)]
pub(super) struct ShownLeaving<'a> {
    pool: &'a str,
    server: &'a str,
    address: String,
    connections: ServerConnections,
    bytes: Bytes,
    drain: Option<ShownDrain>,
}

/// A pool on its own.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct NamedPool<'a> {
    name: &'a str,
    #[serde(flatten)]
    pool: ShownPool<'a>,
}

impl<'a> NamedPool<'a> {
    pub(in crate::admin) fn new(pool: &'a Pool, now: Now) -> Self {
        Self {
            name: &pool.name,
            pool: shown_pool(pool, now),
        }
    }
}

/// A server on its own.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct NamedServer<'a> {
    name: &'a str,
    pool: &'a str,
    #[serde(flatten)]
    server: ShownServer,
}

impl<'a> NamedServer<'a> {
    pub(in crate::admin) fn new(pool: &'a Pool, server: &'a Server, now: Now) -> Self {
        Self {
            name: &server.name,
            pool: &pool.name,
            server: shown_server(pool, server, now),
        }
    }
}

pub(super) fn shown_pool(pool: &Pool, now: Now) -> ShownPool<'_> {
    let servers = pool.servers.iter();
    let shown = |server: &Server| shown_server(pool, server, now);
    ShownPool {
        algorithm: pool.algorithm.name(),
        queue: ShownQueue {
            waiting: pool.tally.queue().waiting(),
            limit: pool.queue_limit,
        },
        failing_open: pool.is_failing_open(),
        discovery: pool
            .discovery
            .iter()
            .map(|s| shown_source(s, now))
            .collect(),
        servers: Ordered(
            servers
                .map(|server| (&*server.name, shown(server)))
                .collect(),
        ),
    }
}

fn shown_source(source: &Source, now: Now) -> ShownSource<'_> {
    ShownSource {
        source: &source.source,
        addresses: source.addresses,
        last: source.state.word(),
        reason: source.state.reason(),
        since_seconds: seconds(now.since(source.since)),
    }
}

fn shown_server(pool: &Pool, server: &Server, now: Now) -> ShownServer {
    let is_checked = pool.is_checked;
    let is_usable = server.is_usable(is_checked);
    let ramp = server.tally.ramp(pool.slow_start, now);
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
        ejected: server.tally.record().ejected_for(now).map(|left| Ejected {
            until_seconds: seconds(left),
        }),
        slow_start: ramp.filter(|_| is_usable).map(|(percent, left)| SlowStart {
            percent,
            until_seconds: seconds(left),
        }),
        drain: shown_drain(server, now),
    }
}

fn shown_health(findings: &Findings, is_checked: bool, now: Now) -> Health {
    let (last, reason) = match (is_checked, findings.last) {
        (false, _) => ("off", "health: off"),
        (true, None) => ("none", "not checked yet"),
        (true, Some(last)) => (last.word(), &*findings.reason),
    };
    // Before the first verdict there is nothing that could have lasted.
    let is_settled = findings.since > Now::default();
    let since = if is_settled { findings.since } else { now };
    Health {
        last,
        reason: reason.to_owned(),
        since_seconds: seconds(now.since(since)),
        share_percent: Some(findings.share_percent).filter(|share| *share != 100),
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

pub(super) fn shown_leaving(gone: &Leaving, now: Now) -> ShownLeaving<'_> {
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
pub(in crate::admin) fn server_bytes(tally: &ServerTally) -> Bytes {
    let workers = tally.workers().iter();
    Bytes {
        upstream: sum(workers.clone().map(|each| each.upstream_bytes.value())),
        downstream: sum(workers.map(|each| each.downstream_bytes.value())),
    }
}

/// Tries to connect that failed so.
pub(in crate::admin) fn failed(tally: &ServerTally, failure: ConnectFailure) -> u64 {
    sum(tally
        .workers()
        .iter()
        .map(|each| each.failed(failure).value()))
}
