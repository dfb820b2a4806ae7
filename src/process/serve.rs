//! What the main thread does while the others work: it waits for signals and failures, tells what
//! the workers may not stop to tell, and brings everything to an end.

use std::time::Duration;

use crossbeam_channel::{Receiver, after, never, select, tick};

use super::listen::Bound;
use super::signals::StopAsked;
use super::start::{Running, join};
use super::{Doing, StartError};
use crate::end::End;
use crate::worker::Command;

/// How often dropped log lines are looked for, and a drain is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Beyond their timeout, first answers may be late by the prober's own spreading and shortages.
const ANSWER_GRACE: Duration = Duration::from_secs(3);

impl Running {
    /// Waits until each server has had its first answer, or its timeout; false where the process
    /// was told to stop meanwhile.
    pub(super) fn await_first_answers(&mut self, stop_asked: &Receiver<StopAsked>) -> bool {
        let timeout = after(self.answer_timeout + ANSWER_GRACE);
        while self.unanswered > 0 {
            select! {
                recv(self.reports) -> report => {
                    self.unanswered = if report.is_ok() { self.unanswered - 1 } else { 0 };
                }
                recv(stop_asked) -> _ => return false,
                recv(timeout) -> _ => {
                    log::warn!("{} servers have not been checked yet", self.unanswered);
                    self.unanswered = 0;
                }
            }
        }
        // Later reports are the workers' business alone.
        self.reports = never();
        true
    }

    /// Listens, and tells the workers to accept.
    pub(super) fn open(&mut self, bound: Vec<Bound>) -> Result<(), StartError> {
        let mut doors: Vec<Vec<_>> = self.outboxes.iter().map(|_| Vec::new()).collect();
        for address in bound {
            let (name, at) = (address.name.clone(), address.address);
            let listening = address.listen().doing("listen")?;
            for (mine, door) in doors.iter_mut().zip(listening) {
                mine.push(door);
            }
            log::info!("listening on {at} (listener {name})");
        }
        for (outbox, doors) in self.outboxes.iter().zip(doors) {
            // A worker that has ended is reported through `failed`.
            outbox.send(Command::Open(doors)).unwrap_or(());
        }
        log::info!("ready: {} workers", self.outboxes.len());
        Ok(())
    }

    /// Serves until the process is told to stop.
    ///
    /// # Errors
    /// Where a worker has failed.
    pub(super) fn serve(&mut self, stop_asked: &Receiver<StopAsked>) -> Result<(), StartError> {
        let looks = tick(LOOK);
        loop {
            select! {
                recv(stop_asked) -> _ => return Ok(()),
                recv(self.failed) -> error => {
                    return error.map_or(Ok(()), |error| Err(StartError::Worker(error)));
                }
                recv(looks) -> _ => self.tell_dropped(),
            }
        }
    }

    /// Lets connections come to their end, until the timeout or a second signal.
    pub(super) fn drain(&mut self, stop_asked: &Receiver<StopAsked>) {
        let timeout = self.shutdown_timeout;
        let connections = self.ledger.process_connections();
        log::info!("draining {connections} connections for at most {timeout:?}");
        self.tell_all(|| Command::Drain);
        let (deadline, looks) = (after(timeout), tick(LOOK));
        let mut draining = self.outboxes.len();
        // A worker that is drained may still be handed a connection by one that is not: only the
        // count of the process says that all is done.
        while draining > 0 || self.ledger.process_connections() > 0 {
            select! {
                recv(self.drained) -> _ => draining = draining.saturating_sub(1),
                recv(stop_asked) -> _ => return,
                recv(deadline) -> _ => return,
                recv(looks) -> _ => self.tell_dropped(),
            }
        }
    }

    /// Ends every thread, and what connections are left.
    pub(super) fn stop(mut self) {
        if let Some(prober) = self.prober.take() {
            prober.stop();
        }
        self.tell_all(|| Command::Stop);
        join(std::mem::take(&mut self.threads));
        if self.writer.take().is_some_and(|writer| !writer.finish()) {
            log::warn!("access log: the last lines were not written in time");
        }
        self.tell_dropped();
        log::info!("stopped: {}", self.summary());
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        for outbox in &self.outboxes {
            // A worker that has ended has nothing left to do.
            outbox.send(command()).unwrap_or(());
        }
    }

    /// A worker never stops to log, so that lines it dropped are told here.
    fn tell_dropped(&mut self) {
        let dropped: u64 = self.counters.iter().map(|c| c.lines_dropped.value()).sum();
        if dropped > self.dropped_told {
            let more = dropped - self.dropped_told;
            log::warn!("access log: {more} lines dropped, as it is not written quickly enough");
            self.dropped_told = dropped;
        }
    }

    /// What was done, in one line.
    fn summary(&self) -> String {
        let sum = |count: &dyn Fn(&crate::telemetry::counters::Counters) -> u64| -> u64 {
            self.counters.iter().map(|counters| count(counters)).sum()
        };
        let mut parts = vec![
            format!("{} connections", sum(&|c| c.accepted.value())),
            format!("{} handed over", sum(&|c| c.handed_over.value())),
            format!("{} accept pauses", sum(&|c| c.pauses.value())),
            format!("{} bytes upstream", sum(&|c| c.upstream_bytes.value())),
            format!("{} bytes downstream", sum(&|c| c.downstream_bytes.value())),
        ];
        for end in End::ALL {
            let ended = sum(&|c| c.ended(*end).value());
            parts.extend((ended > 0).then(|| format!("{end} {ended}")));
        }
        parts.join(", ")
    }
}
