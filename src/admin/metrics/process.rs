//! Metrics of the process and of its workers, the prober's among them.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::family::{Family, Histogram};
use super::number;
use crate::admin::{Shared, readiness};
use crate::clock::Now;
use crate::end::End;
use crate::roster::Roster;
use crate::telemetry::counters::Counters;
use crate::telemetry::lag::Lag;

pub(super) fn families(
    shared: &Shared,
    roster: &Roster,
    started: SystemTime,
    now: Now,
) -> Vec<Family> {
    let mut all = vec![build(), connections(shared)];
    all.extend(state(shared, roster, started, now));
    all.extend(counts(shared));
    all.push(resolutions(shared));
    all.extend(upgrades(shared));
    all.extend([
        workers(shared),
        pipes(shared),
        ends(shared),
        lag(&shared.lag),
    ]);
    all
}

/// Over all workers; each counts on cache lines of its own.
fn sum(shared: &Shared, count: impl Fn(&Counters) -> u64) -> f64 {
    number(shared.counters.iter().map(|each| count(each)).sum())
}

/// Prometheus joins other metrics with its label.
fn build() -> Family {
    let mut build = Family::gauge(
        "evenkeel_build_info",
        "1; the label says which version runs.",
    );
    build.add(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    build
}

fn connections(shared: &Shared) -> Family {
    Family::gauge(
        "evenkeel_connections_active",
        "Connections of the process that live now.",
    )
    .of(shared.ledger.process_connections())
}

fn state(shared: &Shared, roster: &Roster, started: SystemTime, now: Now) -> [Family; 6] {
    let since_epoch = started
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    [
        Family::gauge(
            "evenkeel_connections_max",
            "Connections that the process takes at most.",
        )
        .of(shared.ledger.process_max()),
        Family::gauge(
            "evenkeel_ready",
            "1 while this node should get traffic, as /readyz says.",
        )
        .of(readiness::reasons(shared, roster).is_empty()),
        Family::gauge(
            "evenkeel_left",
            "1 while an operator has taken this node out with evenkeel leave.",
        )
        .of(roster.has_left),
        Family::gauge(
            "evenkeel_config_differs",
            "1 while the running state differs from the file that was loaded.",
        )
        .of(!roster.origin.differences.is_empty()),
        Family::gauge("evenkeel_uptime_seconds", "Time since the process began.")
            .of(now.since(shared.started).as_secs_f64()),
        Family::gauge(
            "process_start_time_seconds",
            "When the process began, in seconds since 1970.",
        )
        .of(since_epoch.as_secs_f64()),
    ]
}

fn counts(shared: &Shared) -> [Family; 4] {
    [
        Family::counter(
            "evenkeel_connections_total",
            "Connections accepted by the process, refused ones included.",
        )
        .of(sum(shared, |each| each.accepted.value())),
        Family::counter(
            "evenkeel_connections_handed_over_total",
            "Connections that a worker gave to one with fewer.",
        )
        .of(sum(shared, |each| each.handed_over.value())),
        Family::counter(
            "evenkeel_accept_pauses_total",
            "Times that accepting was paused for want of descriptors or memory.",
        )
        .of(sum(shared, |each| each.pauses.value())),
        Family::counter(
            "evenkeel_access_log_lines_dropped_total",
            "Access log lines that were lost because their writer was behind.",
        )
        .of(sum(shared, |each| each.lines_dropped.value())),
    ]
}

fn resolutions(shared: &Shared) -> Family {
    let mut resolutions = Family::counter(
        "evenkeel_resolutions_total",
        "Lookups of names and readings of servers files, by result.",
    );
    for (result, count) in shared.resolutions.by_result() {
        resolutions.add(&[("result", result)], number(count));
    }
    resolutions
}

fn upgrades(shared: &Shared) -> [Family; 2] {
    [
        Family::counter(
            "evenkeel_upgrades_total",
            "Processes that have handed over, one to the next, up to the one that runs.",
        )
        .of(number(shared.upgrades)),
        Family::counter(
            "evenkeel_upgrades_failed_total",
            "Upgrades that came to nothing and left all as it was.",
        )
        .of(number(shared.upgrades_failed.load(Ordering::Relaxed))),
    ]
}

fn workers(shared: &Shared) -> Family {
    let mut workers = Family::gauge("evenkeel_worker_connections", "Connections of each worker.");
    for worker in 0..shared.counters.len() {
        let index = worker.to_string();
        let count = shared.ledger.worker_connections(worker);
        workers.add(&[("worker", &index)], count);
    }
    workers
}

fn pipes(shared: &Shared) -> Family {
    let mut pipes = Family::gauge(
        "evenkeel_pipes",
        "Pipes of bulk transfers: lent to one that holds bytes, or idle.",
    );
    let lent = sum(shared, |each| each.pipes_lent.value());
    let idle = sum(shared, |each| each.pipes_idle.value());
    pipes.add(&[("state", "lent")], lent);
    pipes.add(&[("state", "idle")], idle);
    pipes
}

/// Every end has its series from the start: a rate over one that appears later would miss its first.
fn ends(shared: &Shared) -> Family {
    let mut ends = Family::counter(
        "evenkeel_connections_ended_total",
        "Connections by how they ended, in the words of the access log.",
    );
    for end in End::ALL {
        let count = sum(shared, |each| each.ended(*end).value());
        ends.add(&[("end", end.word())], count);
    }
    ends
}

/// The prober counts in powers of two of a microsecond.
fn lag(lag: &Lag) -> Family {
    let mut family = Family::histogram(
        "evenkeel_prober_lag_seconds",
        "How late health checks began.",
    );
    // Finer and coarser bounds tell nothing of a prober.
    let telling = |(bound, _): &(f64, u64)| (60e-6..20.0).contains(bound);
    let bounds = lag
        .buckets()
        .map(|(bound, count)| (bound.as_secs_f64(), count));
    let histogram = Histogram {
        buckets: bounds.filter(telling).collect(),
        count: lag.checks(),
        sum: Duration::from_micros(lag.sum_microseconds()).as_secs_f64(),
    };
    family.add_histogram(&[], &histogram);
    family
}
