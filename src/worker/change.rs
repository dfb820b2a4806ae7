//! Applying what the process changes while connections live: listeners, pools, doors.
//!
//! One [`Change`] is applied within one turn, so it must be cheap: pools come ready-made, and
//! nothing here looks at each connection. Only closing very many doors goes on in further turns.

use super::command::{Change, Command, Listener};
use super::{Worker, accept};
use crate::clock::Now;
use crate::ids::{ListenerId, ServerId};

/// Doors closed in one turn: each takes the kernel about 10 us.
const DOORS_PER_TURN: usize = 128;

/// A worker's listeners by id: ids are never reused, so this costs a few bytes for each ever given.
#[derive(Debug, Default)]
pub(super) struct Listeners(Vec<Option<Box<Listener>>>);

impl Listeners {
    pub(super) fn find(&self, id: ListenerId) -> Option<&Listener> {
        self.0.get(id.index())?.as_deref()
    }

    fn put(&mut self, id: ListenerId, listener: Listener) {
        if id.index() >= self.0.len() {
            self.0.resize_with(id.index() + 1, || None);
        }
        self.0[id.index()] = Some(Box::new(listener));
    }

    fn forget(&mut self, id: ListenerId) {
        if let Some(listener) = self.0.get_mut(id.index()) {
            *listener = None;
        }
    }
}

impl Worker {
    /// Applies a change in the order of its fields: a door opens when the listener and the pool
    /// behind it are there, and a pool goes when no door leads to it any more.
    pub(super) fn change(&mut self, mut change: Change, now: Now) {
        for (id, listener) in change.listeners {
            if let Some(before) = self.listeners.find(id) {
                self.tune_doors(id, &before.rules.tcp, &listener.rules.tcp);
            }
            self.listeners.put(id, listener);
        }
        for pool in change.pools {
            self.pools.install(pool, now);
        }
        self.open(change.open);
        for (door, listener) in change.relabel {
            self.relabel(door, listener);
        }
        self.adopt_early(now);
        let later = change
            .close
            .split_off(DOORS_PER_TURN.min(change.close.len()));
        for door in change.close {
            self.close_door(door, now);
        }
        let rest = Change {
            close: later,
            gone_pools: change.gone_pools,
            done: change.done,
            ..Change::default()
        };
        if rest.close.is_empty() {
            return self.finish(rest);
        }
        let mine = &self.setup.outboxes[self.index];
        // The rest is mail like any other, and comes in the next turn. Nobody who could give it back
        // is here once the worker has stopped.
        mine.send(Command::Change(Box::new(rest))).unwrap_or(());
    }

    fn finish(&mut self, change: Change) {
        for pool in change.gone_pools {
            self.pools.remove(pool);
            // Whoever still waits for it waits in vain.
            self.pools.look_soon(pool);
        }
        if let Some(done) = change.done {
            // Who asked may have stopped waiting.
            done.send(()).unwrap_or(());
        }
    }

    /// Serves those that were handed over before this worker knew their listener.
    fn adopt_early(&mut self, now: Now) {
        // Those whose listener is still unknown come back by themselves.
        for accepted in std::mem::take(&mut self.early) {
            self.adopt(accepted, now);
        }
    }

    /// Turns those away, because the worker stops.
    pub(super) fn refuse_early(&mut self, now: Now) {
        let early: Vec<accept::Accepted> = std::mem::take(&mut self.early);
        for accepted in early {
            self.refuse_stopping(&accepted, now);
        }
    }

    /// Forgets what has no connection any more.
    pub(super) fn forget(&mut self, listeners: &[ListenerId], servers: &[ServerId]) {
        for listener in listeners {
            self.listeners.forget(*listener);
        }
        self.pools.forget(servers);
        for server in servers {
            self.proven.remove(server);
        }
    }
}
