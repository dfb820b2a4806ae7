//! Bringing connections to their end at a pace: the drains that this worker was told of, and its
//! looks at the connections that they are about.
//!
//! A look is one walk over the table, for all drains at once, in slices of a turn each. It ends early
//! where no drain may close anything for now, and is not begun where none may: a drain that only
//! waits costs nothing. The pace itself is kept by [`Drain`], which all workers share.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Worker;
use super::connection::{Connection, Phase};
use super::ending::Farewell;
use super::sweep::Sweep;
use crate::clock::Now;
use crate::end::End;
use crate::ids::ServerId;
use crate::pool::drain::{Drain, Scope};

/// Slots looked at in one turn, of which each that is quiet costs four system calls.
const LOOKS_PER_TURN: usize = 1024;
/// Connections closed in one turn: about 30 us each, the kernel's part included.
const CLOSES_PER_TURN: usize = 32;

/// A drain under way.
#[derive(Debug)]
struct Watched {
    drain: Arc<Drain>,
    /// Whether it may still close something during this look.
    is_active: bool,
}

/// The drains of one worker.
#[derive(Debug, Default)]
pub(super) struct Drains {
    servers: HashMap<ServerId, Watched>,
    everything: Option<Watched>,
    /// Of all of them, those that are active.
    active: usize,
    /// When the next look begins, unless one is under way.
    look_at: Now,
    sweep: Sweep,
}

impl Drains {
    /// Takes one more, which is looked at in this turn.
    pub(super) fn add(&mut self, drain: Arc<Drain>, now: Now) {
        let scope = drain.scope();
        let watched = Watched {
            drain,
            is_active: false,
        };
        match scope {
            Scope::Server(server) => drop(self.servers.insert(server, watched)),
            Scope::Everything => self.everything = Some(watched),
        }
        // A look that is under way did not begin with this one.
        self.sweep.rest();
        self.look_at = now;
    }

    /// How long the loop may wait for the next look; `None` where there is nothing to look at.
    pub(super) fn next(&self, now: Now) -> Option<Duration> {
        if self.is_empty() {
            return None;
        }
        Some(match self.sweep.is_under_way() {
            true => Duration::ZERO,
            false => self.look_at.since(now),
        })
    }

    fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.everything.is_none()
    }

    /// Whether this turn walks on; begins a new look when it is time.
    fn is_looking(&mut self, slots: usize, now: Now) -> bool {
        if self.is_empty() {
            return false;
        }
        if !self.sweep.is_under_way() && self.look_at <= now {
            self.begin(slots, now);
        }
        self.sweep.is_under_way()
    }

    fn begin(&mut self, slots: usize, now: Now) {
        self.servers.retain(|_, watched| !watched.drain.is_over());
        self.everything.take_if(|watched| watched.drain.is_over());
        self.active = 0;
        let mut wait = Duration::MAX;
        for watched in self.servers.values_mut().chain(&mut self.everything) {
            let drain = &watched.drain;
            wait = wait.min(drain.look_again(now));
            watched.is_active = drain.pace().rate.is_some() || drain.is_past_deadline(now);
            self.active += usize::from(watched.is_active);
        }
        self.look_at = now + wait;
        if self.active > 0 {
            self.sweep.begin(slots);
        }
    }

    /// The next connection's slot, while any drain may close one.
    fn step(&mut self) -> Option<u32> {
        if self.active == 0 {
            self.sweep.rest();
        }
        self.sweep.step()
    }

    /// Whether a connection is to be closed now, as what, and how.
    fn judge(&mut self, connection: &Connection, now: Now) -> Option<(End, Farewell)> {
        let server = connection.server;
        let by_server = server.and_then(|server| self.servers.get_mut(&server));
        let mut watched = by_server.into_iter().chain(&mut self.everything);
        watched.find_map(|watched| {
            let was_active = watched.is_active;
            let closing = watched.judge(connection, now);
            self.active -= usize::from(was_active && !watched.is_active);
            closing
        })
    }
}

impl Watched {
    fn judge(&mut self, connection: &Connection, now: Now) -> Option<(End, Farewell)> {
        let drain = &self.drain;
        if !self.is_active || drain.is_over() || drain.spares(connection.times.picked) {
            return None;
        }
        if drain.is_past_deadline(now) {
            drain.note_closed();
            // What has failed already is not the drain's doing.
            return Some(match connection.phase {
                Phase::Lingering { end, .. } => (end, Farewell::Reset),
                Phase::Reading { .. }
                | Phase::Queued { .. }
                | Phase::Connecting { .. }
                | Phase::Relaying => (drain.end(), Farewell::Reset),
            });
        }
        if !connection.is_quiet(drain.pace().quiet, now) {
            return None;
        }
        if !drain.may_close_one(now) {
            self.is_active = false;
            return None;
        }
        drain.note_closed();
        // Both flows are empty and both peers have got all: nobody loses anything by a FIN.
        Some((drain.end(), Farewell::Fin))
    }
}

impl Worker {
    /// A slice of the look at connections that are to end, if one is due.
    pub(super) fn look_at_drains(&mut self, now: Now) {
        if !self.drains.is_looking(self.table.slots(), now) {
            return;
        }
        let mut closes_left = CLOSES_PER_TURN;
        for _ in 0..LOOKS_PER_TURN {
            let Some(slot) = self.drains.step() else {
                return;
            };
            let Some(key) = self.table.at(slot) else {
                continue;
            };
            let connection = self.table.find(key);
            let Some((end, farewell)) = connection.and_then(|c| self.drains.judge(c, now)) else {
                continue;
            };
            self.close(key, end, farewell, now);
            closes_left -= 1;
            if closes_left == 0 {
                return;
            }
        }
    }
}
