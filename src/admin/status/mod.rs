//! The running state as the API shows it: listeners, pools and servers in the order of the config,
//! with what is counted and found of them. Reads the roster and the counters; asks nobody.

mod servers;

use std::path::Path;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::{Shared, readiness};
use crate::clock::Now;
use crate::end::End;
use crate::pool::tally::ListenerTally;
use crate::roster::{Listener, Roster};
use crate::telemetry::counters::Counters;

pub(super) use self::servers::{NamedPool, NamedServer, failed, server_bytes};
use self::servers::{ShownLeaving, ShownPool, shown_leaving, shown_pool};

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

/// Everything. Fields are in the order in which people read them; new ones may come at any place.
#[derive(Debug, Serialize)]
pub(super) struct Status<'a> {
    version: &'static str,
    pid: u32,
    uptime_seconds: f64,
    upgrades: u64,
    ready: bool,
    left: bool,
    /// The same as `reasons`, which is what the first versions had.
    not_ready: Vec<String>,
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

/// `refused` has those over a limit and those for whom no server was there.
#[derive(Debug, Serialize)]
struct ProcessConnections {
    active: u32,
    total: u64,
    refused: u64,
    max: u32,
}

/// Pipes of bulk transfers.
#[derive(Debug, Serialize)]
struct Pipes {
    lent: u64,
    idle: u64,
}

/// Where the config comes from; `file` is null where arguments gave it.
#[derive(Debug, Serialize)]
struct ShownOrigin<'a> {
    file: Option<String>,
    differs: &'a [String],
    confirm_seconds: Option<f64>,
}

/// A listener; ports that the kernel chose are filled in.
#[derive(Debug, Serialize)]
struct ShownListener<'a> {
    bind: Vec<String>,
    pool: &'a str,
    /// Pools by server name; empty where nobody looks at it.
    sni: Ordered<&'a str, &'a str>,
    connections: ListenerConnections,
}

/// `total` has the refused ones, too; `max` is there where the listener has one of its own.
#[derive(Debug, Serialize)]
struct ListenerConnections {
    active: u64,
    total: u64,
    refused: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<u32>,
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
    let reasons = readiness::reasons(shared, roster);
    let ends = End::ALL.iter().map(|end| (end.word(), ended(end)));
    let refusals = End::ALL.iter().filter(|end| end.is_refusal());
    let ledger = &shared.ledger;
    Status {
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        uptime_seconds: seconds(now.since(shared.started)),
        upgrades: shared.upgrades,
        ready: reasons.is_empty(),
        left: roster.has_left,
        not_ready: reasons.clone(),
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
        sni: Ordered(
            listener
                .sni
                .iter()
                .map(|(names, pool)| (&**names, &**pool))
                .collect(),
        ),
        connections: ListenerConnections {
            active: listener.tally.connections(),
            total: accepted(&listener.tally),
            refused: refused(&listener.tally),
            max: listener.max_connections,
        },
    };
    (&listener.name, shown)
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

/// Over workers.
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
