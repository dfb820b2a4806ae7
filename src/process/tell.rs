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
const REFUSALS_TOLD: Duration = Duration::from_secs(10);

/// What was lost, as far as the log has told it.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Access log lines that found no room.
    dropped: u64,
    /// Connections over `max_connections` of the process.
    refused: u64,
    /// Connections that a listener has turned away, and when that was told.
    refused_at: HashMap<ListenerId, (Refusals, Now)>,
}

/// What a listener turns away by itself, whatever its pools can take, by reason.
type Refusals = [u64; REFUSALS.len() + 1];

/// Told with the word of the access log; what is over limits comes before them.
const REFUSALS: [(End, &str); 3] = [
    (End::Denied, "denied"),
    (
        End::BadProxyHeader,
        "without a good PROXY header (bad_proxy_header)",
    ),
    (
        End::BadClientHello,
        "without a good ClientHello (bad_client_hello)",
    ),
];

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

    /// What was lost before this process has been told by another one.
    pub(super) fn begin_to_tell_anew(&mut self) {
        self.losses.dropped = self.sum(|counters| counters.lines_dropped.value());
        self.losses.refused = self.sum(|counters| counters.over_process_max.value());
        let now = Now::read();
        let listeners = self.serving.listeners.iter();
        let counts = listeners.map(|seat| (seat.id, (refusals(&seat.tally), now)));
        self.losses.refused_at = counts.collect();
        self.note_ejections(now);
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
        self.tell_refusals(Now::read());
    }

    /// The same of each listener. It may turn somebody away all day long, so it is told when it
    /// begins, and then now and then.
    fn tell_refusals(&mut self, now: Now) {
        let told = std::mem::take(&mut self.losses.refused_at);
        for seat in &self.serving.listeners {
            let counts = refusals(&seat.tally);
            let mut entry = told.get(&seat.id).copied();
            let is_due = entry.is_none_or(|(_, at)| now.since(at) >= REFUSALS_TOLD);
            let (last, _) = entry.unwrap_or_default();
            if let Some(text) = in_words(last, counts).filter(|_| is_due) {
                log::warn!("listener {}: {text}", seat.name);
                entry = Some((counts, now));
            }
            let entry = entry.map(|entry| (seat.id, entry));
            self.losses.refused_at.extend(entry);
        }
    }

    /// What was done, in one line.
    pub(super) fn summary(&self) -> String {
        let mut parts = vec![
            counted(self.sum(|c| c.accepted.value()), "connection"),
            format!(
                "{} moved between workers",
                self.sum(|c| c.handed_over.value())
            ),
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

    /// Of all workers.
    pub(super) fn sum(&self, count: impl Fn(&Counters) -> u64) -> u64 {
        self.threads.counters.iter().map(|c| count(c)).sum()
    }
}

fn refusals(tally: &ListenerTally) -> Refusals {
    let mut counts = Refusals::default();
    for worker in tally.workers() {
        let ends = REFUSALS.iter().map(|(end, _)| worker.refused(*end));
        let all = std::iter::once(&worker.over_limits).chain(ends);
        for (count, counter) in counts.iter_mut().zip(all) {
            *count += counter.value();
        }
    }
    counts
}

/// What has come since `last`; `None` where that is nothing.
fn in_words(last: Refusals, now: Refusals) -> Option<String> {
    let words = REFUSALS.iter().map(|(_, words)| *words);
    let words = std::iter::once("refused by its limits").chain(words);
    let mut text = String::new();
    for (words, (now, last)) in words.zip(now.into_iter().zip(last)) {
        let count = now.saturating_sub(last);
        text.push_str(&match (count, text.is_empty()) {
            (0, _) => String::new(),
            (count, true) => format!("{} {words}", counted(count, "connection")),
            (count, false) => format!(", {count} {words}"),
        });
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_listener_turned_away_is_told_by_reason() {
        assert_eq!(in_words([1, 2, 3, 4], [1, 2, 3, 4]), None);
        let text = |now| in_words([1, 0, 0, 0], now).unwrap();
        assert_eq!(text([2, 0, 0, 0]), "1 connection refused by its limits");
        assert_eq!(text([1, 7, 0, 0]), "7 connections denied");
        assert_eq!(
            text([3, 0, 1, 5]),
            "2 connections refused by its limits, 1 without a good PROXY header \
             (bad_proxy_header), 5 without a good ClientHello (bad_client_hello)"
        );
    }
}
