//! What this thread tells for others: workers never stop to log.

use super::start::Running;
use crate::end::End;
use crate::telemetry::counters::Counters;
use crate::telemetry::events::Kind;
use crate::units::counted;
use crate::worker::Command;

/// What was lost, as far as the log has told it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    /// Access log lines that found no room.
    dropped: u64,
    /// Connections over `max_connections`.
    refused: u64,
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
        let refused = self.sum(|counters| counters.ended(End::Limit).value());
        let told = std::mem::replace(&mut self.losses, Losses { dropped, refused });
        if dropped > told.dropped {
            let lines = counted(dropped - told.dropped, "line");
            log::warn!("access log: {lines} dropped, as its writer is behind");
        }
        if refused > told.refused {
            let connections = counted(refused - told.refused, "connection");
            let most = self.room.max_connections;
            log::warn!("{connections} refused: max_connections of the process is {most}");
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
