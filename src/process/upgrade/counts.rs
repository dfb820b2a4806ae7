//! What was counted, over all workers, once they stand still.
//!
//! Names of counts are those of the fields of [`Counters`]; they stay the same in every version.

use std::sync::atomic::Ordering;

use super::super::serving::{ServerSeat, Serving};
use super::super::start::Running;
use super::snapshot::{self, number};
use crate::end::End;
use crate::handover::world::{
    Counts, DrainCounts, HistogramState, ListenerCounts, PoolCounts as PoolCount, ServerCounts,
};
use crate::pool::tally::{ListenerTally, PoolTally, ServerTally};
use crate::telemetry::checkup::Checked;
use crate::telemetry::counters::{ConnectFailure, Counter, Counters};
use crate::telemetry::histogram::{BOUNDS_MICROSECONDS, Histogram, Total};

/// A count and its name.
type Named = (&'static str, fn(&Counters) -> &Counter);

/// Each count of the process.
const PROCESS: [Named; 7] = [
    ("accepted", |counters| &counters.accepted),
    ("handed_over", |counters| &counters.handed_over),
    ("pauses", |counters| &counters.pauses),
    ("upstream_bytes", |counters| &counters.upstream_bytes),
    ("downstream_bytes", |counters| &counters.downstream_bytes),
    ("over_process_max", |counters| &counters.over_process_max),
    ("lines_dropped", |counters| &counters.lines_dropped),
];
/// The last id that any connection was given, whether it lives or not.
const LAST_CONNECTION: &str = "last_connection";
/// Before the words for how a look-up went.
const RESOLUTIONS: &str = "resolutions_";
/// Upgrades that came to nothing.
const UPGRADES_FAILED: &str = "upgrades_failed";

impl Running {
    /// All that was counted; to be asked for while the workers stand still.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts {
            ends: words(End::ALL, End::word, |end| {
                self.sum(|counters| counters.ended(end).value())
            }),
            events: snapshot::events(&self.public.events),
            ..of_serving(&self.serving)
        };
        for (name, count) in PROCESS {
            let sum = self.sum(|counters| count(counters).value());
            counts.process.insert(name.to_owned(), sum);
        }
        let ids = self.threads.counters.iter().map(|c| c.last_id.value());
        let last = ids.max().unwrap_or_default();
        counts.process.insert(LAST_CONNECTION.to_owned(), last);
        let failed = self.public.upgrades_failed.load(Ordering::Relaxed);
        counts.process.insert(UPGRADES_FAILED.to_owned(), failed);
        if let Some(prober) = &self.threads.prober {
            let lag = prober.lag();
            counts.lag = HistogramState {
                buckets: lag.counts().collect(),
                sum_microseconds: lag.sum_microseconds(),
            };
        }
        for (word, count) in self.discovery.resolutions().by_result() {
            counts.process.insert(format!("{RESOLUTIONS}{word}"), count);
        }
        counts
    }
}

fn of_serving(serving: &Serving) -> Counts {
    let left = serving.left_listeners.iter().map(|left| &left.listener);
    let listeners = serving.listeners.iter().chain(left);
    let leaving = serving.leaving.iter().map(|leaving| &leaving.server);
    let servers = serving.servers().map(|(_, server)| server).chain(leaving);
    let pools = serving.pools.iter();
    Counts {
        listeners: listeners
            .map(|seat| (number(seat.id.index()), of_listener(&seat.tally)))
            .collect(),
        pools: pools
            .map(|seat| (number(seat.id.index()), of_pool(&seat.tally)))
            .collect(),
        servers: servers
            .map(|seat| (number(seat.id.index()), of_seat(seat)))
            .collect(),
        ..Counts::default()
    }
}

/// What is more than nothing, by its word.
fn words<T: Copy>(
    all: &[T],
    word: impl Fn(T) -> &'static str,
    count: impl Fn(T) -> u64,
) -> std::collections::BTreeMap<String, u64> {
    let counted = all.iter().map(|one| (word(*one).to_owned(), count(*one)));
    counted.filter(|(_, count)| *count > 0).collect()
}

fn of_listener(tally: &ListenerTally) -> ListenerCounts {
    let workers = tally.workers();
    ListenerCounts {
        accepted: workers.iter().map(|worker| worker.accepted.value()).sum(),
        ended: workers.iter().map(|worker| worker.ended.value()).sum(),
        over_limits: workers.iter().map(|w| w.over_limits.value()).sum(),
        refused: words(End::ALL, End::word, |end| {
            workers.iter().map(|w| w.refused(end).value()).sum()
        }),
    }
}

fn of_pool(tally: &PoolTally) -> PoolCount {
    let workers = tally.workers().iter();
    PoolCount {
        connect: of_histograms(workers.clone().map(|worker| &worker.connect)),
        connection: of_histograms(workers.map(|worker| &worker.connection)),
    }
}

fn of_histograms<'h>(histograms: impl Iterator<Item = &'h Histogram>) -> HistogramState {
    let mut total = Total::default();
    histograms.for_each(|histogram| histogram.add_to(&mut total));
    let bounds = BOUNDS_MICROSECONDS.into_iter().chain([u64::MAX]);
    let buckets = bounds.zip(total.buckets);
    HistogramState {
        buckets: buckets.filter(|(_, count)| *count > 0).collect(),
        sum_microseconds: total.sum_microseconds,
    }
}

fn of_seat(seat: &ServerSeat) -> ServerCounts {
    let drain = seat.drain.as_ref().map(|drain| {
        let (closed, next_at) = drain.progress();
        DrainCounts { closed, next_at }
    });
    ServerCounts {
        drain,
        ..of_server(&seat.tally)
    }
}

fn of_server(tally: &ServerTally) -> ServerCounts {
    let workers = tally.workers();
    let (record, findings) = (tally.record(), tally.checkup().findings());
    ServerCounts {
        connected: workers.iter().map(|worker| worker.connected.value()).sum(),
        upstream_bytes: workers.iter().map(|w| w.upstream_bytes.value()).sum(),
        downstream_bytes: workers.iter().map(|w| w.downstream_bytes.value()).sum(),
        failed: words(&ConnectFailure::ALL, ConnectFailure::word, |failure| {
            workers.iter().map(|w| w.failed(failure).value()).sum()
        }),
        checks: words(&Checked::ALL, Checked::word, |checked| {
            findings.counts[checked as usize]
        }),
        bad_in_a_row: record.bad_in_a_row(),
        ejected_until: record.ejected_until().as_nanoseconds(),
        ejections: record.ejections(),
        drain: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_server_s_counts_are_the_sums_over_all_workers() {
        let tally = ServerTally::new(2);
        for (worker, bytes) in tally.workers().iter().zip([3, 4]) {
            worker.connected.add(1);
            worker.upstream_bytes.add(bytes);
            worker.failed(ConnectFailure::TimedOut).add(bytes);
        }
        tally
            .record()
            .take_over(2, crate::clock::Now::from_nanoseconds(9), 5);
        tally.checkup().note_check(Checked::Ok, true, String::new);
        let counts = of_server(&tally);
        assert_eq!((counts.connected, counts.upstream_bytes), (2, 7));
        assert_eq!(counts.failed, [("timed_out".to_owned(), 7)].into());
        assert_eq!(counts.checks, [("ok".to_owned(), 1)].into());
        let record = (counts.bad_in_a_row, counts.ejected_until, counts.ejections);
        assert_eq!(record, (2, 9, 5));
    }

    #[test]
    fn of_a_histogram_only_what_is_there_is_said() {
        let tally = PoolTally::new(2);
        for (worker, seconds) in tally.workers().iter().zip([1, 7200]) {
            worker.connection.observe(Duration::from_secs(seconds));
        }
        let counts = of_pool(&tally);
        assert_eq!(counts.connect, HistogramState::default());
        let HistogramState {
            buckets,
            sum_microseconds,
        } = counts.connection;
        assert_eq!(buckets, [(1_000_000, 1), (u64::MAX, 1)]);
        assert_eq!(sum_microseconds, 7_201_000_000);
    }

    #[test]
    fn each_count_of_a_listener_goes_over() {
        let tally = ListenerTally::new(1);
        let worker = &tally.workers()[0];
        worker.accepted.add(5);
        worker.ended.add(3);
        worker.over_limits.add(1);
        worker.refused(End::Denied).add(2);
        let counts = of_listener(&tally);
        let sums = (counts.accepted, counts.ended, counts.over_limits);
        assert_eq!(sums, (5, 3, 1));
        assert_eq!(counts.refused, [("denied".to_owned(), 2)].into());
    }
}
