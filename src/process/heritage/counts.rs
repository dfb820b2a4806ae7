//! What was counted before, added to what is counted here: sums go on as if nothing had happened.
//!
//! They go to the counters of worker 0, whose thread alone may write them: only while that stands still.
//! What this version does not know is passed over.

use std::collections::HashMap;
use std::sync::Arc;

use super::past::Past;
use crate::clock::Now;
use crate::end::End;
use crate::handover::world::{Counts, HistogramState, ListenerCounts, PoolCounts, ServerCounts};
use crate::pool::tally::{ListenerTally, PoolTally, ServerTally};
use crate::process::serving::ServerSeat;
use crate::telemetry::checkup::Checked;
use crate::telemetry::counters::{ConnectFailure, Counters};
use crate::telemetry::histogram::Histogram;
use crate::telemetry::lag::Lag;
use crate::telemetry::resolutions::Resolutions;

/// The last id that was given to a connection, among the counts of the process.
pub(super) const LAST_CONNECTION: &str = "last_connection";
/// Upgrades that came to nothing, among the counts of the process.
pub(super) const UPGRADES_FAILED: &str = "upgrades_failed";

/// Adds what was counted of everything. The workers stand still.
pub(super) fn add(counts: &Counts, past: &Past, counters: &Counters, resolutions: &Resolutions) {
    add_process(counts, counters, resolutions);
    for (number, counts) in &counts.listeners {
        if let Some((_, tally)) = past.listeners.get(number) {
            add_listener(counts, tally);
        }
    }
    for (number, counts) in &counts.pools {
        if let Some((_, tally)) = past.pools.get(number) {
            add_pool(counts, tally);
        }
    }
    for (number, counts) in &counts.servers {
        if let Some((_, tally)) = past.servers.get(number) {
            add_server(counts, tally);
        }
    }
}

fn add_process(counts: &Counts, counters: &Counters, resolutions: &Resolutions) {
    let known = [
        ("accepted", &counters.accepted),
        ("handed_over", &counters.handed_over),
        ("pauses", &counters.pauses),
        ("upstream_bytes", &counters.upstream_bytes),
        ("downstream_bytes", &counters.downstream_bytes),
        ("over_process_max", &counters.over_process_max),
        ("lines_dropped", &counters.lines_dropped),
    ];
    let count = |name| counts.process.get(name).copied().unwrap_or_default();
    for (name, counter) in known {
        counter.add(count(name));
    }
    resolutions.add(true, count("resolutions_ok"));
    resolutions.add(false, count("resolutions_failed"));
    for end in End::ALL {
        let ended = counts.ends.get(end.word());
        counters.ended(*end).add(ended.copied().unwrap_or_default());
    }
}

fn add_listener(counts: &ListenerCounts, tally: &Arc<ListenerTally>) {
    let Some(counters) = tally.workers().first() else {
        return;
    };
    counters.accepted.add(counts.accepted);
    counters.ended.add(counts.ended);
    counters.over_limits.add(counts.over_limits);
    for end in End::ALL {
        let refused = counts.refused.get(end.word());
        counters
            .refused(*end)
            .add(refused.copied().unwrap_or_default());
    }
}

fn add_pool(counts: &PoolCounts, tally: &Arc<PoolTally>) {
    if let Some(counters) = tally.workers().first() {
        add_histogram(&counts.connect, &counters.connect);
        add_histogram(&counts.connection, &counters.connection);
    }
}

fn add_histogram(state: &HistogramState, histogram: &Histogram) {
    for (bound, count) in &state.buckets {
        histogram.add_bucket(*bound, *count);
    }
    histogram.add_sum(state.sum_microseconds);
}

/// How late health checks began.
pub(super) fn add_lag(counts: &Counts, lag: &Lag) {
    for (bound, count) in &counts.lag.buckets {
        lag.add_bucket(*bound, *count);
    }
    lag.add_sum(counts.lag.sum_microseconds);
}

fn add_server(counts: &ServerCounts, tally: &Arc<ServerTally>) {
    if let Some(counters) = tally.workers().first() {
        counters.connected.add(counts.connected);
        counters.upstream_bytes.add(counts.upstream_bytes);
        counters.downstream_bytes.add(counts.downstream_bytes);
        for failure in ConnectFailure::ALL {
            let failed = counts.failed.get(failure.word());
            counters
                .failed(failure)
                .add(failed.copied().unwrap_or_default());
        }
    }
    for checked in Checked::ALL {
        let count = counts.checks.get(checked.word());
        tally
            .checkup()
            .add_checks(checked, count.copied().unwrap_or_default());
    }
    let until = Now::from_nanoseconds(counts.ejected_until);
    tally
        .record()
        .take_over(counts.bad_in_a_row, until, counts.ejections);
}

/// Drains of `servers` go on from where they have come to, at their pace.
pub(super) fn go_on_with_drains<'s>(
    counts: &Counts,
    past: &Past,
    servers: impl Iterator<Item = &'s ServerSeat>,
) {
    let progress = counts.servers.iter().filter_map(|(number, counts)| {
        let (id, _) = past.servers.get(number)?;
        Some((*id, counts.drain?))
    });
    let progress: HashMap<_, _> = progress.collect();
    for server in servers {
        if let (Some(drain), Some(from)) = (&server.drain, progress.get(&server.id)) {
            drain.go_on_from(from.closed, from.next_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ListenerId, PoolId, ServerId};
    use crate::telemetry::histogram::Total;

    #[test]
    fn sums_go_on_where_they_were() {
        let mut past = Past::default();
        let listener = Arc::new(ListenerTally::new(2));
        let pool = Arc::new(PoolTally::new(2));
        let server = Arc::new(ServerTally::new(2));
        past.listeners
            .insert(5, (ListenerId::new(0), Arc::clone(&listener)));
        past.pools.insert(6, (PoolId::new(0), Arc::clone(&pool)));
        past.servers
            .insert(7, (ServerId::new(0), Arc::clone(&server)));
        let counts: Counts = serde_json::from_value(serde_json::json!({
            "process": {"accepted": 9, "upstream_bytes": 4, "resolutions_ok": 2, "novelty": 1},
            "ends": {"killed": 3, "astonished": 1},
            "listeners": {"5": {"accepted": 9, "ended": 7, "over_limits": 1, "refused": {"denied": 2}}},
            "pools": {"6": {"connect": {"buckets": [[100, 2]], "sum_microseconds": 50}}},
            "servers": {"7": {"connected": 8, "failed": {"refused": 2}, "checks": {"ok": 11},
                              "bad_in_a_row": 2, "ejected_until": 77, "ejections": 1},
                        "8": {"connected": 1}},
        }))
        .unwrap();
        let (counters, resolutions) = (Counters::default(), Resolutions::default());
        counters.accepted.add(1);
        add(&counts, &past, &counters, &resolutions);
        assert_eq!(counters.accepted.value(), 10);
        assert_eq!(counters.ended(End::Killed).value(), 3);
        assert_eq!(resolutions.by_result(), [("ok", 2), ("failed", 0)]);
        assert_eq!(listener.connections(), 2);
        assert_eq!(listener.workers()[0].refused(End::Denied).value(), 2);
        let mut total = Total::default();
        pool.workers()[0].connect.add_to(&mut total);
        assert_eq!((total.count(), total.sum_microseconds), (2, 50));
        assert_eq!(server.workers()[0].connected.value(), 8);
        let refused = server.workers()[0].failed(ConnectFailure::Refused);
        assert_eq!(refused.value(), 2);
        assert_eq!(server.checkup().findings().counts, [11, 0, 0]);
        let record = server.record();
        assert_eq!((record.bad_in_a_row(), record.ejections()), (2, 1));
        assert_eq!(record.ejected_until(), Now::from_nanoseconds(77));
    }

    #[test]
    fn a_drain_goes_on_from_where_it_was_last() {
        use crate::pool::drain::{Drain, Pace, Scope};
        let (now, second) = (Now::from_nanoseconds, 1_000_000_000);
        let id = ServerId::new(0);
        let tally = Arc::new(ServerTally::new(1));
        let mut past = Past::default();
        past.servers.insert(7, (id, Arc::clone(&tally)));
        let pace = Pace {
            rate: "1/s".parse().ok(),
            ..Pace::PATIENT
        };
        let begun = Drain::new(Scope::Server(id), End::Drained, pace, 9, now(0));
        let drain = Arc::new(begun.resumed(now(0), 1, now(second / 2)));
        let seat = ServerSeat {
            id,
            name: "a".into(),
            address: crate::config::server_address("127.0.0.1:1").unwrap(),
            tally,
            standing: crate::roster::Standing::Draining,
            drain: Some(Arc::clone(&drain)),
        };
        let counts: Counts = serde_json::from_value(serde_json::json!({
            "servers": {"7": {"drain": {"closed": 3, "next_at": 3 * second}}},
        }))
        .unwrap();
        go_on_with_drains(&counts, &past, [&seat].into_iter());
        assert_eq!(drain.closed(), 3);
        assert!(!drain.may_close_one(now(3 * second - 1)));
        assert!(drain.may_close_one(now(3 * second)));
    }
}
