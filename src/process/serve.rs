//! What the main thread does while the others work: it waits for signals, requests and failures,
//! looks after what takes time, and brings everything to an end.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, after, never, select, tick};

use super::StartError;
use super::apply::Outcome;
use super::signals::Asked;
use super::start::{Running, join};
use super::upgrade::{Asker, Leave};
use crate::admin::request::{Ask, Refusal, Reload, Request};
use crate::clock::Now;
use crate::end::End;
use crate::pool::drain::{Drain, Pace, Scope};
use crate::prober::{News, Report};
use crate::resolver;
use crate::roster::Stage;
use crate::telemetry::events::Kind;
use crate::units::{counted, show_duration};
use crate::worker::Command;

/// How often drains, dropped log lines and the like are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Workers close what is left at the deadline in slices.
const CLOSING_TIME: Duration = Duration::from_secs(2);

/// How a life comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Every connection has had its time.
    Stopped,
    /// Another process has taken over.
    Upgraded(Leave),
}

impl Running {
    /// From the first checks to the last connection, or to a failure.
    ///
    /// # Errors
    /// Where a listening socket or a worker fails.
    pub(super) fn live(&mut self) -> Result<Ended, StartError> {
        if self.stage == Stage::Starting && self.open()? == Outcome::Stopping {
            // Some listeners may have been open while others waited.
            if self.serving.listeners.is_empty() {
                self.tell_stopping("stopping before anything was served", CLOSING_TIME);
            } else {
                self.drain();
            }
            return Ok(Ended::Stopped);
        }
        if let Some(leave) = self.serve()? {
            return Ok(Ended::Upgraded(leave));
        }
        self.drain();
        Ok(Ended::Stopped)
    }

    /// Begins to serve; one that has taken over from another process does already.
    fn open(&mut self) -> Result<Outcome, StartError> {
        self.publish();
        self.tell_starting();
        let config = self.loaded.config.clone();
        let outcome = self.begin_or_take_up(&config);
        self.settle_passed();
        if matches!(outcome, Ok(Outcome::Applied)) {
            self.stage = Stage::Serving;
            self.publish();
            self.tell_ready();
            self.begin_to_park();
        }
        outcome
    }

    fn tell_ready(&mut self) {
        let workers = counted(self.room.workers as u64, "worker");
        let most = counted(self.room.max_connections.into(), "connection");
        let (up, checked) = self.outlook.up();
        let text = format!("{workers}, at most {most}, {up} of {checked} checked servers up");
        let text = format!("ready: {text}");
        self.tell_serving(&text);
        self.tell(Kind::Started, text);
    }

    /// Serves until the process is told to stop, or another one has taken over.
    fn serve(&mut self) -> Result<Option<Leave>, StartError> {
        let looks = tick(LOOK);
        loop {
            if self.postponed.contains(&Asked::Stop) {
                return Ok(None);
            }
            if self.do_postponed() {
                continue;
            }
            if let Some(request) = self.put_off.pop_front() {
                self.answer(request);
                continue;
            }
            select! {
                recv(self.inbox.progress) -> progress => {
                    let text = "its thread has ended".to_owned();
                    let progress = progress.unwrap_or(Err(text));
                    if let Some(leave) = self.take_progress(progress) {
                        return Ok(Some(leave));
                    }
                }
                recv(self.inbox.asked) -> asked => {
                    self.postponed.push_back(asked.unwrap_or(Asked::Stop));
                }
                recv(self.inbox.failed) -> error => {
                    return error.map_or(Ok(None), |error| Err(StartError::Worker(error)));
                }
                recv(self.inbox.reports) -> report => match report {
                    Ok(report) => self.note(report),
                    Err(_) => self.inbox.reports = never(),
                },
                recv(self.found()) -> report => match report {
                    Ok(report) => self.take_found(report),
                    Err(_) => self.inbox.found = never(),
                },
                recv(self.inbox.requests) -> request => match request {
                    Ok(request) => self.answer(request),
                    Err(_) => self.inbox.requests = never(),
                },
                recv(self.supervision.looks) -> _ => self.feed_watchdog(),
                recv(looks) -> _ => self.look_after(),
            }
        }
    }

    /// Does what a signal has asked for and could not be done at once; false where that is nothing.
    fn do_postponed(&mut self) -> bool {
        if self.upgrade.is_under_way() {
            return false;
        }
        match self.postponed.pop_front() {
            Some(Asked::HangUp) => self.reload_unasked(),
            Some(Asked::Upgrade) => self.begin_upgrade(None, Asker::nobody()),
            Some(Asked::Stop) | None => return false,
        }
        true
    }

    /// Whoever takes over was told what is found now: what is found since has to wait.
    fn found(&self) -> Receiver<resolver::Report> {
        match self.upgrade.is_under_way() {
            true => never(),
            false => self.inbox.found.clone(),
        }
    }

    /// What is due whoever has asked for it.
    fn look_after(&mut self) {
        self.keep_shelf();
        self.look_after_store();
        self.roll_back_if_due();
        self.look_after_drains();
        self.tell_ejections();
        self.tell_losses();
        self.tell_again();
        let now = Now::read();
        for listener in &self.serving.listeners {
            listener.tally.sources().tend(now);
        }
    }

    /// SIGHUP: nobody waits for the answer, the log has it.
    fn reload_unasked(&mut self) {
        let reload = Reload {
            file: None,
            confirm: None,
            pace: Pace::PATIENT,
        };
        // It has been logged either way.
        drop(self.reload(reload));
    }

    /// The prober has found a server up or down, or that it wants another share.
    pub(super) fn note(&mut self, report: Report) {
        let Some(name) = self.serving.name_of(report.server) else {
            // It has left the config, or is not in it yet.
            return;
        };
        if report.news == News::Share {
            let (percent, reason) = (report.share_percent, report.reason);
            let text = format!("server {name} takes {percent}% of its weight: {reason}");
            self.tell(Kind::ServerShare, text);
            return self.note_outlook(&report);
        }
        let state = if report.is_up { "up" } else { "down" };
        let kind = if report.is_up {
            Kind::ServerUp
        } else {
            Kind::ServerDown
        };
        let text = format!("server {name} is {state}: {}", report.reason);
        self.public.events.add(kind, text);
        self.note_outlook(&report);
        if report.is_up {
            self.spare_if_up(report.server);
        } else {
            self.close_if_down(report.server);
        }
    }

    /// The same for the pool of that server.
    fn note_outlook(&mut self, report: &Report) {
        let Some(change) = self.outlook.note(report) else {
            return;
        };
        change.log();
        if change.concerns_fail_open() {
            self.public.events.add(Kind::PoolState, change.to_string());
        }
    }

    /// Lets connections come to their end, until the timeout or a second signal.
    fn drain(&mut self) {
        self.abort_upgrade();
        self.stage = Stage::Draining;
        self.pending = None;
        self.publish();
        let timeout = self.serving.config.shutdown_timeout;
        let left = self.threads.ledger.process_connections();
        let connections = counted(left.into(), "connection");
        let text = format!(
            "draining {connections} for at most {}",
            show_duration(timeout)
        );
        self.tell_stopping(&text, timeout + CLOSING_TIME);
        self.tell(Kind::Stopping, text);
        for request in std::mem::take(&mut self.put_off) {
            self.answer_late(request);
        }
        // Before the doors are closed: whoever comes too late then finds nobody, and is not reset.
        self.socket_files.clear();
        self.tell_all(|| Command::Leave);
        let pace = Pace {
            deadline: Some(timeout),
            ..Pace::PATIENT
        };
        let drain = Drain::new(Scope::Everything, End::Shutdown, pace, left, Now::read());
        self.send_drain(&Arc::new(drain));
        let (deadline, looks) = (after(timeout + CLOSING_TIME), tick(LOOK));
        let mut draining = self.threads.outboxes.len();
        // A worker that is drained may still be handed a connection by one that is not: only the
        // count of the process says that all is done.
        while draining > 0 || self.threads.ledger.process_connections() > 0 {
            select! {
                recv(self.inbox.drained) -> _ => draining = draining.saturating_sub(1),
                recv(self.inbox.asked) -> asked => if asked.is_ok_and(Asked::stops) { return },
                recv(self.inbox.requests) -> request => match request {
                    Ok(request) => self.answer_late(request),
                    Err(_) => self.inbox.requests = never(),
                },
                recv(self.inbox.reports) -> report => if report.is_err() {
                    self.inbox.reports = never();
                },
                recv(deadline) -> _ => return,
                recv(self.supervision.looks) -> _ => self.feed_watchdog(),
                recv(looks) -> _ => {
                    self.tell_losses();
                    self.tell_again();
                }
            }
        }
    }

    /// While the process drains, one may still look at connections and kill them. It gets no traffic
    /// already, and whoever wants that is told that it is so.
    fn answer_late(&mut self, request: Request) {
        match request.ask {
            Ask::Connections(_) | Ask::Kill(_) | Ask::Leave(true) => self.answer(request),
            _ => (request.reply)(Err(Refusal::Unavailable("evenkeel is stopping".to_owned()))),
        }
    }

    /// Ends every thread, and what connections are left. A start that failed is told in one line, by
    /// whoever was told to start.
    pub(super) fn stop(mut self, is_in_order: bool) {
        self.abort_upgrade();
        self.discovery.stop();
        if let Some(prober) = self.threads.prober.take() {
            prober.stop();
        }
        self.tell_all(|| Command::Stop);
        join(std::mem::take(&mut self.threads.workers));
        // A start that failed has served nobody: what is kept waits for the next one.
        if is_in_order || self.stage != Stage::Starting {
            self.end_parking();
        }
        // Nobody answers any more: whoever still waits is told so.
        self.inbox.requests = never();
        // Not before the last connection: until then somebody may want to see how it goes.
        if let Some(admin) = self.threads.admin.take() {
            admin.stop();
        }
        drop(self.threads.recorder.take());
        let writer = self.threads.writer.take();
        if writer.is_some_and(|writer| !writer.finish()) {
            log::warn!("access log: the last lines were not written in time");
        }
        self.tell_losses();
        if is_in_order || self.stage != Stage::Starting {
            log::info!("stopped: {}", self.summary());
        }
    }
}
