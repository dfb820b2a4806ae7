//! What connections tell of their servers, for pools that leave failing ones alone (`outlier`). Each
//! connection speaks once, when it first knows: at its first byte from the server, or at its end.

use std::time::Duration;

use super::connection::{Connection, Ended};
use super::{Command, Worker};
use crate::clock::Now;
use crate::end::{End, Side};
use crate::ids::ServerId;
use crate::pool::outlier::Finding;
use crate::relay::Progress;

/// A server that ends a connection sooner than this without a byte has not served it.
const EARLY: Duration = Duration::from_secs(1);

impl Connection {
    /// What it tells of its server, the first time that it can tell anything; `end` is its own end,
    /// where that has come.
    pub(super) fn tell(&mut self, end: Option<End>, now: Now) -> Option<(ServerId, Finding)> {
        // One that was not connected has told how that went.
        let server = self.server.filter(|_| self.times.connect().is_some())?;
        let finding = self.finding(end, now).filter(|_| !self.marks.is_judged)?;
        self.marks.is_judged = true;
        Some((server, finding))
    }

    fn finding(&self, end: Option<End>, now: Now) -> Option<Finding> {
        if self.downstream.delivered() > 0 || now.since(self.times.connected) >= EARLY {
            return Some(Finding::Good);
        }
        let has_client_ended = self.marks.ended == Some(Ended::InOrder(Side::Client))
            || self.upstream.progress() == Progress::Ended;
        let has_server_ended = match end {
            Some(end) => matches!(end, End::ServerClosed | End::ServerReset),
            None => self.marks.ended.map(Ended::side) == Some(Side::Server),
        };
        (has_server_ended && !has_client_ended).then_some(Finding::Bad)
    }
}

impl Worker {
    /// Takes a finding about a server; where that ejects it, every other worker is told.
    pub(super) fn note_finding(&mut self, server: ServerId, finding: Finding, now: Now) {
        let Some(pool) = self.pools.observe(server, finding, now) else {
            return;
        };
        let others = self.setup.outboxes.iter().enumerate();
        for (_, outbox) in others.filter(|(index, _)| *index != self.index) {
            // A worker that has stopped picks nobody.
            outbox.send(Command::Reconsider(pool)).unwrap_or(());
        }
    }
}
