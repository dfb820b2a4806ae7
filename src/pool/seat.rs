//! What one worker knows of each server, by `ServerId`, whether a pool has the server or not: its
//! verdict, how quickly it has been accepting, and the places that this worker holds there.
//!
//! It outlives what a reload does to the pool: a server's verdict may come before its pool, and its
//! last connections end after it was removed. A table by id costs 8 bytes for each id that was ever
//! given, which a process that reloads all day long can afford, and spares every pick a hash.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Plan;
use super::connect_time::ConnectTime;
use super::server::Server;
use super::tally::{PoolTally, ServerTally};
use crate::clock::Now;
use crate::ids::{PoolId, ServerId};

/// What stays true of a server that has left its pool.
#[derive(Debug)]
struct Known {
    tally: Arc<ServerTally>,
    pool_tally: Arc<PoolTally>,
    address: SocketAddr,
}

/// One server as one worker knows it.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// `None` before a pool has had it: all there is is a verdict.
    known: Option<Known>,
    /// Its pool and the place in it; `None` exactly while no pool has it.
    pub(super) place: Option<(PoolId, usize)>,
    /// What the prober said last.
    pub(super) is_up: Option<bool>,
    /// Places that this worker holds.
    held: u32,
    /// True exactly while `held` is part of the pool's count.
    is_counted: bool,
    connect_time: ConnectTime,
}

impl Seat {
    /// The server has the `index`-th place of `plan` from now on.
    pub(super) fn join(&mut self, plan: &Plan, index: usize, server: &Server) {
        self.count(false);
        self.known = Some(Known {
            tally: Arc::clone(&server.tally),
            pool_tally: Arc::clone(&plan.tally),
            address: server.address,
        });
        self.place = Some((plan.id, index));
        self.count(plan.hash.bounded_load.is_some());
        if !plan.is_checked {
            // Nobody keeps it true any longer: should checks begin again, they begin anew.
            self.is_up = None;
        }
    }

    /// No pool has the server any longer; the places held at it still count for it.
    pub(super) fn part(&mut self) {
        self.count(false);
        self.place = None;
    }

    /// Makes the held places part of the pool's count, or not. Turning `bounded_load` on or off, or
    /// removing the server, would leave the count wrong for ever if only new picks followed.
    fn count(&mut self, is_counted: bool) {
        let Some(known) = &self.known else {
            return;
        };
        match (self.is_counted, is_counted) {
            (false, true) => known.pool_tally.enter(self.held),
            (true, false) => known.pool_tally.leave(self.held),
            _ => {}
        }
        self.is_counted = is_counted;
    }

    /// A place was reserved in the server's tally.
    fn hold(&mut self) {
        self.held += 1;
        if let Some(known) = self.known.as_ref().filter(|_| self.is_counted) {
            known.pool_tally.enter(1);
        }
    }

    fn release(&mut self) {
        debug_assert!(self.held > 0, "a place is released once");
        self.held = self.held.saturating_sub(1);
        if let Some(known) = &self.known {
            known.tally.release();
            if self.is_counted {
                known.pool_tally.leave(1);
            }
        }
    }

    fn is_in_use(&self) -> bool {
        self.held > 0 || self.place.is_some()
    }
}

/// All of a worker's seats.
#[derive(Debug, Default)]
pub(super) struct Seats(Vec<Option<Box<Seat>>>);

impl Seats {
    pub(super) fn find(&self, server: ServerId) -> Option<&Seat> {
        self.0.get(server.index())?.as_deref()
    }

    pub(super) fn find_mut(&mut self, server: ServerId) -> Option<&mut Seat> {
        self.0.get_mut(server.index())?.as_deref_mut()
    }

    /// The server's seat, a new one where there was none.
    pub(super) fn make(&mut self, server: ServerId) -> &mut Seat {
        let index = server.index();
        if index >= self.0.len() {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index].get_or_insert_default()
    }

    pub(super) fn hold(&mut self, server: ServerId) {
        if let Some(seat) = self.find_mut(server) {
            seat.hold();
        }
    }

    pub(super) fn release(&mut self, server: ServerId) {
        match self.find_mut(server) {
            Some(seat) => seat.release(),
            None => debug_assert!(false, "who holds a place keeps the seat"),
        }
    }

    /// Forgets a server; one that is still in use stays.
    pub(super) fn forget(&mut self, server: ServerId) {
        if let Some(seat) = self.0.get_mut(server.index()) {
            seat.take_if(|seat| !seat.is_in_use());
        }
    }

    /// Nanoseconds; 0 where nothing is known.
    pub(super) fn connect_time(&self, server: ServerId, now: Now) -> u64 {
        self.find(server)
            .map_or(0, |seat| seat.connect_time.nanoseconds(now))
    }

    pub(super) fn observe_connect(&mut self, server: ServerId, took: Duration, now: Now) {
        if let Some(seat) = self.find_mut(server) {
            seat.connect_time.observe(took, now);
        }
    }

    pub(super) fn address(&self, server: ServerId) -> Option<SocketAddr> {
        Some(self.find(server)?.known.as_ref()?.address)
    }

    pub(super) fn tally(&self, server: ServerId) -> Option<&Arc<ServerTally>> {
        Some(&self.find(server)?.known.as_ref()?.tally)
    }

    pub(super) fn pool_tally(&self, server: ServerId) -> Option<&Arc<PoolTally>> {
        Some(&self.find(server)?.known.as_ref()?.pool_tally)
    }
}
