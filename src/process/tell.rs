//! What this thread tells for others: workers never stop to log.

use std::collections::HashMap;
use std::time::Duration;

use super::start::Running;
use crate::clock::Now;
use crate::end::End;
use crate::ids::ListenerId;
use crate::pool::tally::ListenerTally;
use crate::telemetry::counters::Counters;
use crate::telemetry::events::Kind;
use crate::units::counted;
use crate::worker::Command;

/// How often a listener's refusals are told.
const LIMITED_TOLD: Duration = Duration::from_secs(10);

/// What was lost, as far as the log has told it.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Access log lines that found no room.
    dropped: u64,
    /// Connections over `max_connections` of the process.
    refused: u64,
    /// Connections over a listener's own limits, and when that was told.
    limited: HashMap<ListenerId, (u64, Now)>,
}

impl Running {
    /// Tells the log and those who watch.
    pub(super) fn tell(&self, kind: Kind, text: impl Into<String>) {
        let text = text.into();
        log::info!("{text}");
        self.public.events.add(kind, text);
    }

    /// Tells every worker.
    pub(super) fn tell_all(&self, command: impl Fn() -> Command) {
        for outbox in &self.threads.outboxes {
            // A worker that has ended has nothing left to do.
            outbox.send(command()).unwrap_or(());
        }
    }

    /// Tells what was lost since the last time.
    pub(super) fn tell_losses(&mut self) {
        let dropped = self.sum(|counters| counters.lines_dropped.value());
        let refused = self.sum(|counters| counters.over_process_max.value());
        let told = std::mem::replace(&mut self.losses.dropped, dropped);
        if dropped > told {
            let lines = counted(dropped - told, "line");
            log::warn!("access log: {lines} dropped, as its writer is behind");
        }
        let told = std::mem::replace(&mut self.losses.refused, refused);
        if refused > told {
            let connections = counted(refused - told, "connection");
            let most = self.room.max_connections;
            log::warn!("{connections} refused: max_connections of the process is {most}");
        }
        self.tell_limited(Now::read());
    }

    /// The same of listeners' own limits. Those may turn somebody away all day long, so it is told when
    /// it begins, and then now and then.
    fn tell_limited(&mut self, now: Now) {
        let told = std::mem::take(&mut self.losses.limited);
        for seat in &self.serving.listeners {
            let count = over_limits(&seat.tally);
            let mut entry = told.get(&seat.id).copied();
            let last = entry.map_or(0, |(last, _)| last);
            if count > last && entry.is_none_or(|(_, at)| now.since(at) >= LIMITED_TOLD) {
                let connections = counted(count - last, "connection");
                let name = &seat.name;
                log::warn!("listener {name}: {connections} refused by its limits");
                entry = Some((count, now));
            }
            self.losses
                .limited
                .extend(entry.map(|entry| (seat.id, entry)));
        }
    }

    /// What was done, in one line.
    pub(super) fn summary(&self) -> String {
        let mut parts = vec![
            counted(self.sum(|c| c.accepted.value()), "connection"),
            format!("{} handed over", self.sum(|c| c.handed_over.value())),
            counted(self.sum(|c| c.pauses.value()), "accept pause"),
            format!("{} bytes upstream", self.sum(|c| c.upstream_bytes.value())),
            format!(
                "{} bytes downstream",
                self.sum(|c| c.downstream_bytes.value())
            ),
        ];
        for end in End::ALL {
            let ended = self.sum(|c| c.ended(*end).value());
            parts.extend((ended > 0).then(|| format!("{end} {ended}")));
        }
        parts.join(", ")
    }

    fn sum(&self, count: impl Fn(&Counters) -> u64) -> u64 {
        self.threads.counters.iter().map(|c| count(c)).sum()
    }
}

fn over_limits(tally: &ListenerTally) -> u64 {
    let workers = tally.workers().iter();
    workers.map(|worker| worker.over_limits.value()).sum()
}
