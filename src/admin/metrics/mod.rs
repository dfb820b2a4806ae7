//! Metrics in the Prometheus text format, made of the counters at each scrape. docs/metrics.md says
//! what each means; names and labels are an interface and never change their meaning.
//!
//! A scrape reads atomics and short locks alone and costs the workers nothing.

mod family;
mod process;
mod servers;

use std::time::SystemTime;

use prometheus::TextEncoder;
use prometheus::proto::MetricFamily;

use self::family::{Family, Histogram};
use super::Shared;
use super::status::accepted;
use crate::clock::Now;
use crate::end::End;
use crate::pool::tally::PoolTally;
use crate::roster::{Listener, Pool};
use crate::telemetry::counters::PoolCounters;
use crate::telemetry::histogram::{BOUNDS_MICROSECONDS, Histogram as Counted, Total};

/// The content type of the text.
pub(super) const FORMAT: &str = prometheus::TEXT_FORMAT;

/// All metrics as of `now`.
///
/// # Errors
/// Where the encoder refuses a metric, which no input of users can bring about.
pub(super) fn text(
    shared: &Shared,
    started: SystemTime,
    now: Now,
) -> Result<String, prometheus::Error> {
    let roster = shared.board.read();
    let mut all = process::families(shared, &roster, started, now);
    all.extend(listeners(&roster.listeners));
    all.extend(servers::families(&roster, now));
    all.extend(pools(&roster.pools));
    let all: Vec<MetricFamily> = all.into_iter().filter_map(Family::finish).collect();
    TextEncoder::new().encode_to_string(&all)
}

fn listeners(listeners: &[Listener]) -> [Family; 4] {
    let mut total = Family::counter(
        "evenkeel_listener_connections_total",
        "Connections accepted, refused ones included.",
    );
    let mut active = Family::gauge(
        "evenkeel_listener_connections_active",
        "Connections that live now.",
    );
    let mut refused = Family::counter(
        "evenkeel_listener_connections_refused_total",
        "Connections turned away before any server was tried, by reason.",
    );
    let mut sources = Family::gauge(
        "evenkeel_listener_sources",
        "Client addresses that are remembered for the limits of each.",
    );
    for listener in listeners {
        let (name, tally) = (&*listener.name, &listener.tally);
        total.add(&[("listener", name)], number(accepted(tally)));
        active.add(&[("listener", name)], number(tally.connections()));
        let remembered = tally.sources().count();
        sources.add(&[("listener", name)], number(remembered as u64));
        for end in End::ALL.iter().filter(|end| end.is_refusal()) {
            let counts = tally
                .workers()
                .iter()
                .map(|each| each.refused(*end).value());
            let labels = [("listener", name), ("reason", end.word())];
            refused.add(&labels, number(counts.sum()));
        }
    }
    [total, active, refused, sources]
}

fn pools(pools: &[Pool]) -> [Family; 5] {
    let mut connect = Family::histogram(
        "evenkeel_connect_seconds",
        "From the pick of a server to its accepting.",
    );
    let mut connection = Family::histogram(
        "evenkeel_connection_seconds",
        "From accepting a client to the end of its connection.",
    );
    let mut queue = Family::gauge(
        "evenkeel_pool_queue_connections",
        "Connections that wait for a server of the pool.",
    );
    let mut limit = Family::gauge(
        "evenkeel_pool_queue_limit",
        "Connections that may wait for a server of the pool at most.",
    );
    let mut failing_open = Family::gauge(
        "evenkeel_pool_failing_open",
        "1 while every server of the pool is down and they are used anyway (fail_open).",
    );
    for pool in pools {
        let labels = [("pool", &*pool.name)];
        queue.add(&labels, pool.tally.queue().waiting());
        limit.add(&labels, pool.queue_limit);
        failing_open.add(&labels, pool.is_failing_open());
        connect.add_histogram(&labels, &total(&pool.tally, |each| &each.connect));
        connection.add_histogram(&labels, &total(&pool.tally, |each| &each.connection));
    }
    [queue, limit, failing_open, connect, connection]
}

/// The histograms of all workers as one.
fn total(tally: &PoolTally, part: impl Fn(&PoolCounters) -> &Counted) -> Histogram {
    let mut total = Total::default();
    for worker in tally.workers() {
        part(worker).add_to(&mut total);
    }
    let bounds = BOUNDS_MICROSECONDS.iter().map(|bound| number(*bound) / 1e6);
    Histogram {
        buckets: cumulative(bounds.zip(total.buckets)),
        count: total.count(),
        sum: number(total.sum_microseconds) / 1e6,
    }
}

/// Each bucket with those of lower bounds added.
fn cumulative(buckets: impl Iterator<Item = (f64, u64)>) -> Vec<(f64, u64)> {
    let add = |sum: &mut u64, (bound, count): (f64, u64)| {
        *sum += count;
        Some((bound, *sum))
    };
    buckets.scan(0, add).collect()
}

/// As the format has it: exact up to 2^53, which is nine petabytes.
fn number(count: u64) -> f64 {
    count as f64
}
