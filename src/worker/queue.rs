//! Connections that wait for a server, because none of the pool's can take one: they hold a ticket of
//! the pool's queue, which all workers share, and their client's bytes stay in the kernel.
//!
//! Whatever may help who waits (a place given back, a verdict, a change) stirs the pool, and the front
//! of its queue is looked at when the turn ends: one of this worker's own is served, for another's
//! its worker is told. A look serves one after the other until a pick finds nobody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::connection::{Connection, Phase};
use super::token::Key;
use super::{Command, Worker};
use crate::clock::Now;
use crate::end::{End, Side};
use crate::ids::PoolId;
use crate::pool::queue::{Front, Ticket, Waiter};
use crate::pool::tally::PoolTally;

/// Connections served from queues in one turn: about as many as accepted.
const SERVES_PER_TURN: usize = 64;
/// How often the front is looked at though nobody has said so: ramps and ejections end by time alone,
/// and workers hear of a change one after the other.
const LOOK: Duration = Duration::from_millis(100);

/// Connections of this worker that wait for a server of one pool.
#[derive(Debug)]
struct Group {
    tally: Arc<PoolTally>,
    count: usize,
}

/// All of them, by pool.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pools: BTreeMap<PoolId, Group>,
    look_at: Now,
}

impl Waiting {
    /// How long the loop may wait for the next look; `None` where nobody waits.
    pub(super) fn next(&self, now: Now) -> Option<Duration> {
        (!self.pools.is_empty()).then(|| self.look_at.since(now))
    }

    fn add(&mut self, pool: PoolId, tally: &Arc<PoolTally>, now: Now) {
        if self.pools.is_empty() {
            self.look_at = now + LOOK;
        }
        let group = self.pools.entry(pool).or_insert_with(|| Group {
            tally: Arc::clone(tally),
            count: 0,
        });
        group.count += 1;
    }

    fn remove(&mut self, pool: PoolId, ticket: Ticket) {
        let Some(group) = self.pools.get_mut(&pool) else {
            return debug_assert!(false, "whoever waits is counted");
        };
        group.tally.queue().leave(ticket);
        group.count -= 1;
        if group.count == 0 {
            self.pools.remove(&pool);
        }
    }

    /// Pools whose fronts are looked at because the time has come.
    fn due(&mut self, now: Now) -> Vec<PoolId> {
        if self.pools.is_empty() || now < self.look_at {
            return Vec::new();
        }
        self.look_at = now + LOOK;
        self.pools.keys().copied().collect()
    }
}

impl Connection {
    /// Whoever has ended and left nothing to be read has left; a request with an end behind it may
    /// still be answered.
    fn has_left(&self) -> bool {
        self.upstream.is_source_ending() && self.unread_bytes(Side::Client) == 0
    }
}

impl Worker {
    /// Whether a newcomer has to stand behind others, also behind those of a queue that a reload has
    /// taken away; it does then, or is turned away.
    pub(super) fn stands_behind(&mut self, key: Key, now: Now) -> bool {
        let pool = self.pool_of(key);
        let queue = pool.and_then(|pool| self.pools.queue(pool));
        let is_behind = queue.is_some_and(|(tally, _)| tally.queue().waiting() > 0);
        if is_behind {
            self.hold(key, now);
        }
        is_behind
    }

    /// No server can take a connection that has tried none: it waits, if its pool has a queue and
    /// room in it.
    pub(super) fn hold(&mut self, key: Key, now: Now) {
        let queue = self
            .pool_of(key)
            .and_then(|pool| Some((pool, self.pools.queue(pool)?)));
        let has_queue = |tally: &PoolTally, limit| limit > 0 || tally.queue().waiting() > 0;
        let queue = queue.filter(|(_, (tally, rules))| has_queue(tally, rules.limit));
        let Some((pool, (tally, rules))) = queue else {
            return self.end(key, End::NoServer, now);
        };
        if self.table.find(key).is_some_and(|client| client.has_left()) {
            // Its end came with its PROXY header, and no edge tells of it again (trap 2).
            return self.end(key, End::closed(Side::Client), now);
        }
        let waiter = Waiter {
            worker: self.index,
            slot: key.slot,
            generation: key.generation,
        };
        let Some((ticket, is_first)) = tally.queue().join(waiter, rules.limit) else {
            return self.end(key, End::QueueFull, now);
        };
        self.waiting.add(pool, tally, now);
        let until = now + rules.timeout;
        if let Some(connection) = self.table.find(key) {
            connection.phase = Phase::Queued { ticket, until };
            // A listener that leads elsewhere from now on does not take it along.
            connection.pool = Some(pool);
        }
        self.timers.arm(key.slot, until);
        if is_first {
            // A place may have got free since the pick, when nobody waited.
            self.pools.look_soon(pool);
        }
    }

    /// A connection waits on that has waited for the process before this one; its pool may have gone
    /// meanwhile.
    pub(super) fn queue_again(&mut self, key: Key, ticket: Ticket) {
        // Wherever its listener leads now does not take it along: its ticket is of that pool's queue.
        let pool = self.table.find(key).and_then(|waiting| waiting.pool);
        let queue = pool.and_then(|pool| Some((pool, Arc::clone(self.pools.queue(pool)?.0))));
        let Some((pool, tally)) = queue else {
            if let Some(connection) = self.table.find(key) {
                // It holds no place in a queue, so it must not give one back.
                connection.phase = Phase::Connecting {
                    since: connection.times.accepted,
                };
            }
            return self.homeless.push(key);
        };
        let waiter = Waiter {
            worker: self.index,
            slot: key.slot,
            generation: key.generation,
        };
        tally.queue().take_over(ticket, waiter);
        self.waiting.add(pool, &tally, Now::default());
        self.pools.look_soon(pool);
    }

    /// A connection does not wait any longer, for whatever reason.
    pub(super) fn unqueue(&mut self, pool: Option<PoolId>, ticket: Ticket) {
        match pool {
            Some(pool) => self.waiting.remove(pool, ticket),
            None => debug_assert!(false, "whoever waits knows for what"),
        }
    }

    /// The client of a connection that waits has sent something, its end included.
    pub(super) fn on_waiting_client(&mut self, key: Key, has_failed: bool, now: Now) {
        let Some(connection) = self.table.find(key) else {
            return;
        };
        if has_failed {
            self.end(key, End::reset(Side::Client), now);
        } else if connection.has_left() {
            self.end(key, End::closed(Side::Client), now);
        }
    }

    /// Looks at the fronts of the queues for which something has changed.
    pub(super) fn serve_queues(&mut self, now: Now) {
        for pool in self.waiting.due(now) {
            self.pools.look_soon(pool);
        }
        let mut budget = SERVES_PER_TURN;
        // Bounded: what is stirred by serving is looked at while the budget lasts, then in the next
        // turn.
        while budget > 0 && self.pools.is_stirred() {
            for pool in self.pools.take_stirred() {
                self.serve_queue(pool, &mut budget, now);
            }
        }
    }

    fn serve_queue(&mut self, pool: PoolId, budget: &mut usize, now: Now) {
        let own = self.waiting.pools.get(&pool).map(|group| &group.tally);
        let known = self.pools.queue(pool).map(|(tally, _)| tally);
        let is_gone = known.is_none();
        let Some(tally) = own.or(known).cloned() else {
            return;
        };
        while *budget > 0 {
            let (ticket, waiter) = match tally.queue().look(self.index) {
                Front::Nobody | Front::Told => return,
                Front::Other(worker) => {
                    // A worker that has stopped has nobody who waits any more.
                    let told = self.setup.outboxes[worker].send(Command::Serve(pool));
                    return told.unwrap_or(());
                }
                Front::Own(ticket, waiter) => (ticket, waiter),
            };
            let key = Key {
                slot: waiter.slot,
                generation: waiter.generation,
            };
            *budget -= 1;
            if is_gone {
                self.end(key, End::NoServer, now);
            } else if !self.serve(key, pool, ticket, now) {
                return;
            }
        }
        self.pools.look_soon(pool);
    }

    /// Connects the first of those who wait; false where no server can take it yet.
    fn serve(&mut self, key: Key, pool: PoolId, ticket: Ticket, now: Now) -> bool {
        match self.try_one(key, now) {
            Ok(true) => self.waiting.remove(pool, ticket),
            Ok(false) => return false,
            Err(failure) => {
                self.waiting.remove(pool, ticket);
                self.retry(key, failure, now);
            }
        }
        true
    }
}
