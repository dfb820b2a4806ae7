//! What the main thread does while the others work: it waits for signals and failures, tells what
//! the workers may not stop to tell, and brings everything to an end.

use std::time::Duration;

use crossbeam_channel::{Receiver, after, never, select, tick};

use super::listen::Bound;
use super::signals::Asked;
use super::start::{Running, Told, join};
use super::{Doing, StartError};
use crate::end::End;
use crate::telemetry::counters::Counters;
use crate::units::{counted, show_duration};
use crate::worker::{Change, Command, DoorId};

/// How often dropped log lines are looked for, and a drain is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// First checks that take longer are worth a line.
const PATIENCE: Duration = Duration::from_secs(1);
/// Beyond their timeout, first answers may be late by the prober's own spreading and shortages.
const ANSWER_GRACE: Duration = Duration::from_secs(3);

impl Running {
    /// From the first checks to the last connection, or to a failure.
    ///
    /// # Errors
    /// Where a listening socket or a worker fails.
    pub(super) fn live(
        &mut self,
        bound: Vec<Bound>,
        asked: &Receiver<Asked>,
    ) -> Result<(), StartError> {
        if self.await_first_answers(asked) {
            self.open(bound)?;
            self.serve(asked)?;
            self.drain(asked);
        }
        Ok(())
    }

    /// Waits until each server has had its first answer, or its timeout; false where the process
    /// was told to stop meanwhile.
    fn await_first_answers(&mut self, asked: &Receiver<Asked>) -> bool {
        let timeout = after(self.answer_timeout + ANSWER_GRACE);
        let hint = after(PATIENCE);
        while self.outlook.unanswered() > 0 {
            let waiting = counted(self.outlook.unanswered() as u64, "server");
            select! {
                recv(self.reports) -> report => match report {
                    Ok(report) => self.outlook.note(report),
                    Err(_) => return true,
                },
                recv(asked) -> asked => if asked.is_ok_and(Asked::stops) { return false },
                recv(hint) -> _ => log::info!("waiting for the first check of {waiting}"),
                recv(timeout) -> _ => {
                    log::warn!("{waiting} not checked yet");
                    return true;
                }
            }
        }
        true
    }

    /// Listens, and tells the workers to accept.
    fn open(&mut self, bound: Vec<Bound>) -> Result<(), StartError> {
        let mut doors: Vec<Vec<_>> = self.outboxes.iter().map(|_| Vec::new()).collect();
        for (id, address) in (0..).zip(bound) {
            let (name, at) = (address.name.clone(), address.address);
            let listening = address.listen(DoorId(id)).doing("listen")?;
            for (mine, door) in doors.iter_mut().zip(listening) {
                mine.push(door);
            }
            log::info!("listening on {at} (listener {name})");
        }
        for (outbox, doors) in self.outboxes.iter().zip(doors) {
            // A worker that has ended is reported through `failed`.
            let change = Change {
                open: doors,
                ..Change::default()
            };
            outbox.send(Command::Change(Box::new(change))).unwrap_or(());
        }
        let workers = counted(self.outboxes.len() as u64, "worker");
        let most = counted(self.max_connections.into(), "connection");
        let (up, checked) = self.outlook.up();
        log::info!("ready: {workers}, at most {most}, {up} of {checked} checked servers up");
        Ok(())
    }

    /// Serves until the process is told to stop.
    fn serve(&mut self, asked: &Receiver<Asked>) -> Result<(), StartError> {
        let looks = tick(LOOK);
        loop {
            select! {
                recv(asked) -> asked => if asked.is_ok_and(Asked::stops) { return Ok(()) },
                recv(self.failed) -> error => {
                    return error.map_or(Ok(()), |error| Err(StartError::Worker(error)));
                }
                recv(self.reports) -> report => match report {
                    Ok(report) => self.outlook.note(report),
                    // There is no prober where nothing is checked.
                    Err(_) => self.reports = never(),
                },
                recv(looks) -> _ => self.tell_losses(),
            }
        }
    }

    /// Lets connections come to their end, until the timeout or a second signal.
    fn drain(&mut self, asked: &Receiver<Asked>) {
        let timeout = self.shutdown_timeout;
        let connections = counted(self.ledger.process_connections().into(), "connection");
        log::info!(
            "draining {connections} for at most {}",
            show_duration(timeout)
        );
        self.tell_all(|| Command::Leave);
        let (deadline, looks) = (after(timeout), tick(LOOK));
        let mut draining = self.outboxes.len();
        // A worker that is drained may still be handed a connection by one that is not: only the
        // count of the process says that all is done.
        while draining > 0 || self.ledger.process_connections() > 0 {
            select! {
                recv(self.drained) -> _ => draining = draining.saturating_sub(1),
                recv(asked) -> asked => if asked.is_ok_and(Asked::stops) { return },
                recv(deadline) -> _ => return,
                recv(looks) -> _ => self.tell_losses(),
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
        self.tell_losses();
        log::info!("stopped: {}", self.summary());
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        for outbox in &self.outboxes {
            // A worker that has ended has nothing left to do.
            outbox.send(command()).unwrap_or(());
        }
    }

    /// A worker never stops to log, so that what it lost is told here.
    fn tell_losses(&mut self) {
        let sum = |count: fn(&Counters) -> u64| self.counters.iter().map(|c| count(c)).sum::<u64>();
        let dropped = sum(|counters| counters.lines_dropped.value());
        let refused = sum(|counters| counters.ended(End::Limit).value());
        let told = std::mem::replace(&mut self.told, Told { dropped, refused });
        if dropped > told.dropped {
            let lines = counted(dropped - told.dropped, "line");
            log::warn!("access log: {lines} dropped, as its writer is behind");
        }
        if refused > told.refused {
            let connections = counted(refused - told.refused, "connection");
            let most = self.max_connections;
            log::warn!("{connections} refused: max_connections of the process is {most}");
        }
    }

    /// What was done, in one line.
    fn summary(&self) -> String {
        let sum = |count: &dyn Fn(&Counters) -> u64| -> u64 {
            self.counters.iter().map(|counters| count(counters)).sum()
        };
        let mut parts = vec![
            counted(sum(&|c| c.accepted.value()), "connection"),
            format!("{} handed over", sum(&|c| c.handed_over.value())),
            counted(sum(&|c| c.pauses.value()), "accept pause"),
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
