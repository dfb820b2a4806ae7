//! What one worker knows of each server, by `ServerId`, whether a pool has the server or not: its
//! verdict, how quickly it has been accepting, and the places that this worker holds there.
//!
//! It outlives what a reload does to the pool: a server's verdict may come before its pool, and its
//! last connections end after it was removed. Tables by id cost 16 bytes for each id, of which there
//! are as many as there were ever servers at one time and a minute, and spare every pick a hash. A seat
//! is made with the first pick or verdict, because a reload that brings 10,000 servers would pause
//! its worker for 10 ms to make them all.

use std::sync::Arc;
use std::time::Duration;

use super::connect_time::ConnectTime;
use super::outlier::Record;
use super::tally::{PoolTally, ServerTally};
use super::{Left, Plan, Share, Verdict};
use crate::address::Address;
use crate::clock::Now;
use crate::ids::{PoolId, ServerId};

/// What stays true of a server that has left its pool.
#[derive(Debug)]
struct Known {
    tally: Arc<ServerTally>,
    pool_tally: Arc<PoolTally>,
    address: Address,
}

/// One server as one worker knows it.
#[derive(Debug, Default)]
struct Seat {
    /// `None` before it was picked: all there is is a verdict.
    known: Option<Known>,
    /// What the prober said last.
    is_up: Option<bool>,
    /// What the server itself asks for.
    share: Share,
    /// When its share begins to grow: it has come up, or has joined a pool that was there.
    since: Option<Now>,
    /// Places that this worker holds.
    held: u32,
    /// True exactly while `held` is part of the pool's count.
    is_counted: bool,
    connect_time: ConnectTime,
}

impl Seat {
    /// The server is the `index`-th of `plan` from now on.
    fn join(&mut self, plan: &Plan, index: usize) {
        self.count(false);
        let server = &plan.servers[index];
        self.known = Some(Known {
            tally: Arc::clone(&server.tally),
            pool_tally: Arc::clone(&plan.tally),
            address: server.address.clone(),
        });
        self.count(plan.hash.bounded_load.is_some());
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
}

/// Where a server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// An index of `PoolId`, or `NOWHERE`.
    pool: u32,
    /// Its place in the pool.
    index: u32,
}

const NOWHERE: Place = Place {
    pool: u32::MAX,
    index: 0,
};

/// All of a worker's seats, and where the servers stand.
#[derive(Debug, Default)]
pub(super) struct Seats {
    seats: Vec<Option<Box<Seat>>>,
    places: Vec<Place>,
}

impl Seats {
    fn find(&self, server: ServerId) -> Option<&Seat> {
        self.seats.get(server.index())?.as_deref()
    }

    fn find_mut(&mut self, server: ServerId) -> Option<&mut Seat> {
        self.seats.get_mut(server.index())?.as_deref_mut()
    }

    /// The server's seat, a new one where there was none.
    fn make(&mut self, server: ServerId) -> &mut Seat {
        let index = server.index();
        if index >= self.seats.len() {
            self.seats.resize_with(index + 1, || None);
        }
        self.seats[index].get_or_insert_default()
    }

    /// The pool that has the server, and its place there.
    pub(super) fn place(&self, server: ServerId) -> Option<(PoolId, usize)> {
        let place = self.places.get(server.index()).filter(|p| **p != NOWHERE)?;
        Some((PoolId::new(place.pool as usize), place.index as usize))
    }

    /// All servers of `plan` stand where it says from now on.
    pub(super) fn join(&mut self, plan: &Plan, now: Now) {
        let pool = u32::try_from(plan.id.index()).expect("an id has 32 bits");
        for (index, (place, server)) in (0..).zip(&plan.servers).enumerate() {
            let id = server.id.index();
            if id >= self.places.len() {
                self.places.resize(id + 1, NOWHERE);
            }
            self.places[id] = Place { pool, index: place };
            let Some(seat) = self.find_mut(server.id) else {
                continue;
            };
            if seat.known.is_some() {
                seat.join(plan, index);
            }
            if !plan.is_checked {
                // Nobody keeps it true any longer: should checks begin again, they begin anew.
                seat.is_up = None;
                seat.share = Share::default();
            }
        }
        let records = plan.servers.iter().map(|server| server.tally.record());
        match &plan.outlier {
            Some(rules) => plan.tally.court().let_in(records, rules, now),
            None => records.for_each(Record::pardon),
        }
    }

    /// Begins the ramps of those of `next` whom `old`, which had its place, did not have or kept
    /// closed. To be told before `next` joins.
    pub(super) fn start(&mut self, next: &Plan, old: &Plan, now: Now) {
        if next.slow_start.is_zero() {
            return;
        }
        for server in &next.servers {
            let place = self.place(server.id).filter(|(pool, _)| *pool == old.id);
            let before = place.and_then(|(_, index)| old.servers.get(index));
            if server.is_open && !before.is_some_and(|before| before.is_open) {
                self.make(server.id).since = Some(now);
                server.tally.note_ramp(now);
            }
        }
    }

    /// Goes on with ramps that the process before this one has begun. To be told before `next` joins, at
    /// a worker that has had no such pool.
    pub(super) fn resume_ramps(&mut self, next: &Plan, now: Now) {
        if next.slow_start.is_zero() {
            return;
        }
        for server in &next.servers {
            if let Some(began) = server.tally.ramp_under_way(next.slow_start, now) {
                self.make(server.id).since = Some(began);
            }
        }
    }

    /// Those of `old` whom `new` does not have stand nowhere from now on; places held at them still
    /// count for them. To be told after `new` has joined.
    pub(super) fn part(&mut self, old: &Plan, new: Option<&Plan>) {
        for server in &old.servers {
            let place = self.place(server.id);
            let stays = new.zip(place).is_some_and(|(new, (_, index))| {
                let there = new.servers.get(index);
                there.is_some_and(|there| there.id == server.id)
            });
            if stays || place.is_none() {
                continue;
            }
            self.places[server.id.index()] = NOWHERE;
            if let Some(seat) = self.find_mut(server.id) {
                seat.count(false);
                // Nobody checks it any more: should it come back, it is checked first.
                seat.is_up = None;
                seat.share = Share::default();
            }
        }
    }

    /// Takes a verdict, and says which pool it concerns. One that makes a server come up begins its
    /// ramp, and so does the first one of a server that has joined.
    pub(super) fn believe(&mut self, verdict: Verdict, now: Now) -> Option<PoolId> {
        let seat = self.make(verdict.server);
        let before = seat.is_up.replace(verdict.is_up);
        let has_joined = before.is_none() && seat.since.is_some();
        if verdict.is_up && (before == Some(false) || has_joined) {
            seat.since = Some(now);
        }
        seat.share = verdict.share;
        self.place(verdict.server).map(|(pool, _)| pool)
    }

    /// What the server itself asks for.
    pub(super) fn share(&self, server: ServerId) -> Share {
        self.find(server).map_or_else(Share::default, |s| s.share)
    }

    /// When its ramp has begun; `None` where it was there from the start.
    pub(super) fn since(&self, server: ServerId) -> Option<Now> {
        self.find(server)?.since
    }

    /// What the prober said last.
    pub(super) fn is_up(&self, server: ServerId) -> Option<bool> {
        self.find(server)?.is_up
    }

    /// Books the place that was reserved at the `index`-th server of `plan`.
    pub(super) fn hold(&mut self, plan: &Plan, index: usize) {
        let seat = self.make(plan.servers[index].id);
        if seat.known.is_none() {
            seat.join(plan, index);
        }
        seat.hold();
    }

    /// Books a place that was taken before this process at a server that has left its pool.
    pub(super) fn take_over_left(&mut self, server: ServerId, left: &Left) {
        let seat = self.make(server);
        seat.known.get_or_insert_with(|| Known {
            tally: Arc::clone(&left.tally),
            pool_tally: Arc::clone(&left.pool_tally),
            address: left.address.clone(),
        });
        seat.hold();
    }

    pub(super) fn release(&mut self, server: ServerId) {
        match self.find_mut(server) {
            Some(seat) => seat.release(),
            None => debug_assert!(false, "who holds a place keeps the seat"),
        }
    }

    /// Forgets a server; one that is still in use stays.
    pub(super) fn forget(&mut self, server: ServerId) {
        if self.place(server).is_none()
            && let Some(seat) = self.seats.get_mut(server.index())
        {
            seat.take_if(|seat| seat.held == 0);
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

    pub(super) fn address(&self, server: ServerId) -> Option<&Address> {
        Some(&self.find(server)?.known.as_ref()?.address)
    }

    pub(super) fn tally(&self, server: ServerId) -> Option<&Arc<ServerTally>> {
        Some(&self.find(server)?.known.as_ref()?.tally)
    }

    pub(super) fn pool_tally(&self, server: ServerId) -> Option<&Arc<PoolTally>> {
        Some(&self.find(server)?.known.as_ref()?.pool_tally)
    }
}
