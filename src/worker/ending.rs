//! How connections end, and how the worker does: what is given back, counted and recorded.
//!
//! [`Worker::close`] is the one place where a connection leaves the table.

use std::time::Duration;

use super::change::Listeners;
use super::command::Drained;
use super::connection::{Connection, Ended, Phase};
use super::token::Key;
use super::{State, Worker};
use crate::clock::{self, Now};
use crate::end::{End, Side};
use crate::sys;
use crate::telemetry::access_log::Record;

/// How often a lingering connection looks whether its bytes have arrived.
const LINGER_STEP: Duration = Duration::from_millis(10);
/// How long a peer may take nothing of what the failed one had sent before: it must not hold the
/// descriptors for ever.
const LINGER_MAX: Duration = Duration::from_secs(2);

/// What the peers of a connection see of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    Fin,
    Reset,
}

impl Worker {
    /// Ends a connection, once the peer opposite to a failed one has got what was sent before.
    pub(super) fn linger(&mut self, key: Key, end: End, now: Now) {
        let Some(connection) = self.table.find(key) else {
            return;
        };
        let left = match end {
            End::ClientReset => connection.bytes_on_the_way(Side::Server),
            End::ServerReset => connection.bytes_on_the_way(Side::Client),
            _ => 0,
        };
        let until = match connection.phase {
            Phase::Lingering {
                until,
                left: before,
                ..
            } if left >= before => until,
            _ => now + LINGER_MAX,
        };
        if left > 0 && now < until {
            connection.phase = Phase::Lingering { end, until, left };
            self.timers.arm(key.slot, now + LINGER_STEP);
        } else {
            self.end(key, end, now);
        }
    }

    /// Ends a connection as `end` says.
    pub(super) fn end(&mut self, key: Key, end: End, now: Now) {
        let farewell = if end.is_orderly() {
            Farewell::Fin
        } else {
            Farewell::Reset
        };
        self.close(key, end, farewell, now);
    }

    /// The one place where a connection leaves the table: places, pipes and timers are given back,
    /// the record is written, and the sockets are closed.
    pub(super) fn close(&mut self, key: Key, end: End, farewell: Farewell, now: Now) {
        let Some(mut connection) = self.table.remove(key) else {
            return;
        };
        self.timers.disarm(key.slot);
        if let Phase::Queued { ticket, .. } = connection.phase {
            self.unqueue(connection.pool, ticket);
        }
        if let Some((server, finding)) = connection.tell(Some(end), now) {
            self.note_finding(server, finding, now);
        }
        connection.upstream.release(&mut self.pipes);
        connection.downstream.release(&mut self.pipes);
        if let Some(server) = connection.server {
            self.pools.release(server);
        }
        let place = connection.marks.place;
        self.let_go(connection.listener, connection.client_address, place, now);
        self.unpark(key, &connection, farewell);
        if farewell == Farewell::Reset {
            connection.reset_on_close();
        }
        self.churn.note_end(connection.times.accepted, now);
        self.record(&Record {
            time: clock::wall(),
            id: connection.id,
            listener: connection.listener,
            client: connection.client_address,
            pool: connection.pool,
            server: connection.server.or(connection.tried.last().copied()),
            upstream_bytes: connection.upstream.delivered(),
            downstream_bytes: connection.downstream.delivered(),
            connect: connection.times.connect(),
            duration: now.since(connection.times.accepted),
            end,
        });
        if let Some(server) = connection.server_socket {
            sys::socket::close_pair(connection.client.into(), server.socket.into());
        }
    }

    /// Counts and logs a connection that has ended.
    pub(super) fn record(&self, record: &Record) {
        let end = record.end;
        self.counters.ended(end).add(1);
        if let Some(listener) = self.listeners.find(record.listener) {
            let counters = &listener.tally.workers()[self.index];
            counters.ended.add(1);
            if end.is_refusal() {
                counters.refused(end).add(1);
            }
        }
        if let Some(tally) = record
            .server
            .and_then(|server| self.pools.pool_tally(server))
        {
            let counters = &tally.workers()[self.index];
            counters.connection.observe(record.duration);
        }
        let recorder = self.setup.recorder.as_ref();
        if recorder.is_some_and(|recorder| !recorder.put(*record)) {
            self.counters.lines_dropped.add(1);
        }
    }

    /// Takes nobody in any more.
    pub(super) fn leave(&mut self, now: Now) {
        self.close_doors(now);
        self.state = State::Leaving;
    }

    pub(super) fn stop(&mut self, now: Now) {
        self.close_doors(now);
        self.refuse_early(now);
        for key in self.table.keys() {
            self.end(key, End::Shutdown, now);
        }
        self.state = State::Stopped;
    }

    /// Tells once when the last connection has ended after [`Worker::leave`].
    pub(super) fn report(&mut self) {
        if self.state == State::Leaving && self.table.is_empty() && self.early.is_empty() {
            self.state = State::Left;
            // Nobody listens any more only when the process is ending anyway.
            self.setup.reports.send(Drained).unwrap_or(());
        }
    }
}

/// When a relaying connection ends if no byte comes, and as what.
pub(super) fn deadline(connection: &Connection, listeners: &Listeners) -> (Now, End) {
    let Some(listener) = listeners.find(connection.listener) else {
        debug_assert!(false, "a listener is forgotten after its last connection");
        return (Now::default(), End::Error);
    };
    let (timeout, end) = match connection.marks.ended {
        None => (listener.idle_timeout, End::IdleTimeout),
        Some(Ended::InOrder(_)) => (listener.half_close_timeout, End::HalfCloseTimeout),
        Some(Ended::ByFailure(side)) => (LINGER_MAX, End::reset(side)),
    };
    (connection.times.active + timeout, end)
}
