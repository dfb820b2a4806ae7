//! What one worker parks. Each has places of its own on the shelf, so that no two ever write one.
//!
//! Nothing here waits: what the store does not take now is tried again at the next turn, and whatever
//! becomes of a connection meanwhile, a record without its sockets is believed by nobody.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use super::record::{Record, Slot};
use super::shelf::Shelf;
use super::store::{DESCRIPTORS_MAX, Store, is_passing};
use super::{AGE, SOCKET_NAME};
use crate::clock::Now;
use crate::sys::socket;

/// How long to wait for a store that takes nothing.
const RETRY: Duration = Duration::from_millis(10);
/// Moments at which connections are parked lie so far apart, in nanoseconds.
const STEP_NS: u64 = 20_000_000;

/// What one worker parks, each connection under a key of the worker's.
#[derive(Debug)]
pub struct Lot<K> {
    shelf: Arc<Shelf>,
    store: Arc<Store>,
    /// Never used so far.
    next: u32,
    end: u32,
    /// Used before.
    free: Vec<Slot>,
    /// Too young so far; the oldest first.
    young: VecDeque<(K, Now)>,
    /// On their way to the store; the oldest first.
    unsent: VecDeque<K>,
    is_lost: bool,
}

impl<K: Copy + PartialEq> Lot<K> {
    /// That of the worker `index` of `workers`.
    pub fn new(shelf: Arc<Shelf>, store: Arc<Store>, index: usize, workers: usize) -> Self {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
        let each = shelf.places() / workers;
        let first = u32::try_from(index)
            .unwrap_or(u32::MAX)
            .saturating_mul(each);
        Self {
            shelf,
            store,
            next: first,
            end: first.saturating_add(each),
            free: Vec::new(),
            young: VecDeque::new(),
            unsent: VecDeque::new(),
            is_lost: false,
        }
    }

    /// A connection has begun to relay: it is parked if it lives on.
    pub fn note(&mut self, key: K, now: Now) {
        if !self.is_lost {
            // Rounded up, so that one turn of the worker and one message do for many.
            let due = (now + AGE).as_nanoseconds().next_multiple_of(STEP_NS);
            self.young.push_back((key, Now::from_nanoseconds(due)));
        }
    }

    /// The next one that is old enough, to be written if it still lives.
    pub fn next_due(&mut self, now: Now) -> Option<K> {
        self.young.front().filter(|(_, due)| *due <= now)?;
        self.young.pop_front().map(|(key, _)| key)
    }

    /// How long until there is something to do.
    pub fn patience(&self, now: Now) -> Option<Duration> {
        let next = self.young.front().map(|(_, due)| due.since(now));
        let retry = (!self.unsent.is_empty()).then_some(RETRY);
        next.into_iter().chain(retry).min()
    }

    /// Writes a connection's record; `None` where there is no place left, or the sockets are not such as
    /// can be known again.
    pub fn write(
        &mut self,
        record: &Record,
        client: BorrowedFd<'_>,
        server: BorrowedFd<'_>,
    ) -> Option<Slot> {
        let cookies = [socket::cookie(client).ok()?, socket::cookie(server).ok()?];
        let slot = self.free.pop().or_else(|| self.unused())?;
        self.shelf.write(slot, record, cookies);
        Some(slot)
    }

    /// Another store is there, which has nothing yet: what is to be parked is to be said again.
    pub fn begin_anew(&mut self, store: Arc<Store>) {
        self.store = store;
        self.is_lost = false;
        self.young.clear();
        self.unsent.clear();
    }

    /// Has the sockets of one that was written be kept, which the store does not have yet.
    pub fn send_soon(&mut self, key: K) {
        self.unsent.push_back(key);
    }

    /// Whether the store does not have it yet.
    pub fn is_unsent(&self, key: K) -> bool {
        self.unsent.contains(&key)
    }

    /// Sends what there is to be sent; `find` has the client's and the server's socket of each that still
    /// lives.
    pub fn flush<'s>(&mut self, find: impl Fn(K) -> Option<[BorrowedFd<'s>; 2]>) {
        let mut descriptors = Vec::new();
        while !self.unsent.is_empty() {
            let some = self.unsent.len().min(DESCRIPTORS_MAX / 2);
            descriptors.clear();
            let sockets = self.unsent.iter().take(some).filter_map(|key| find(*key));
            descriptors.extend(sockets.flatten());
            let outcome = match descriptors.is_empty() {
                true => Ok(()),
                false => self.store.keep(SOCKET_NAME, &descriptors),
            };
            match outcome {
                Ok(()) => drop(self.unsent.drain(..some)),
                Err(error) if is_passing(&error) => return,
                Err(error) => return self.give_up(&error),
            }
        }
    }

    /// A connection has ended; its peers were told beforehand.
    pub fn ended(&mut self, slot: Slot) {
        self.shelf.clear(slot);
        self.free.push(slot);
    }

    fn unused(&mut self) -> Option<Slot> {
        let index = Some(self.next).filter(|next| *next < self.end)?;
        self.next += 1;
        Slot::new(index)
    }

    fn give_up(&mut self, error: &io::Error) {
        self.is_lost = true;
        self.unsent.clear();
        self.young.clear();
        self.store.note_lost();
        log::debug!("who keeps connections is gone: {error}");
    }
}

#[cfg(test)]
mod tests;
