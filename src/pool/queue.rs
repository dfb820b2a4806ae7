//! Who waits for a server of a pool: one [`Queue`] for all workers, first come first served, and
//! never longer than its limit. It knows connections by plain numbers, and no worker: who may be
//! served is told to the worker whose connection is at the front, and that one alone serves it.
//!
//! # No wake-up is lost
//! Whoever makes a server able to take a connection does so first and asks [`Queue::is_waited_for`]
//! afterwards; whoever comes joins first and has the front looked at afterwards, where the queue was
//! empty. Both have a fence in between, so at least one of the two sees the other. From then on the
//! queue is never left alone with a free place: a look ends with a pick that finds nobody, or with
//! another worker told. A worker that was told takes that note away *before* it picks, so that a
//! place which gets free during its pick makes it look once more.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_utils::CachePadded;

/// A place in the queue: lower ones are served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

impl Ticket {
    /// The ticket of that number, which a handover has brought.
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// Lower ones are served first.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// A connection that waits, as its worker knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// Whose it is, counted from 0.
    pub worker: usize,
    /// Its place in that worker's table.
    pub slot: u32,
    /// Which one it is of those that have had this place.
    pub generation: u32,
}

/// What a look at the front finds, for the worker that looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// Nobody waits.
    Nobody,
    /// One of its own: to be served, if a server can take it.
    Own(Ticket, Waiter),
    /// One of this worker's, which is to be told to look.
    Other(usize),
    /// One of another worker's, which was told and has not looked yet.
    Told,
}

/// Clients that wait for a server of one pool.
#[derive(Debug, Default)]
pub struct Queue {
    /// How many; written with the lock held, read without it on the way of each connection.
    waiting: CachePadded<AtomicU32>,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    /// The number of the next ticket.
    next: u64,
    waiting: BTreeMap<Ticket, Waiter>,
    /// The worker that was told that its connection is at the front, until it looks.
    told: Option<usize>,
}

impl Queue {
    /// How many wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether somebody waits whom the caller's latest change may help.
    pub fn is_waited_for(&self) -> bool {
        fence(Ordering::SeqCst);
        self.waiting() > 0
    }

    /// Takes the last place, if fewer than `limit` wait. True beside the ticket where nobody waited
    /// before: then the caller has the front looked at.
    pub fn join(&self, waiter: Waiter, limit: u32) -> Option<(Ticket, bool)> {
        // A crowd that is turned away does not queue for the lock.
        if self.waiting() >= limit {
            return None;
        }
        let mut line = self.lock();
        if line.waiting.len() >= limit as usize {
            return None;
        }
        let is_first = line.waiting.is_empty();
        let ticket = Ticket(line.next);
        line.next += 1;
        line.waiting.insert(ticket, waiter);
        self.note_length(&line);
        drop(line);
        fence(Ordering::SeqCst);
        Some((ticket, is_first))
    }

    /// Takes the place that `ticket` was given by the process before this one, whatever the limit is.
    /// To be followed by a look at the front.
    pub fn take_over(&self, ticket: Ticket, waiter: Waiter) {
        let mut line = self.lock();
        line.next = line.next.max(ticket.0.saturating_add(1));
        line.waiting.insert(ticket, waiter);
        self.note_length(&line);
    }

    /// Gives a place up: it was served, or does not want to wait any longer.
    pub fn leave(&self, ticket: Ticket) {
        let mut line = self.lock();
        let left = line.waiting.remove(&ticket);
        debug_assert!(left.is_some(), "a ticket is given up once");
        self.note_length(&line);
    }

    /// Who is at the front, asked by `worker`, which counts as having looked.
    pub fn look(&self, worker: usize) -> Front {
        let mut line = self.lock();
        line.told.take_if(|told| *told == worker);
        let Some((ticket, waiter)) = line.waiting.first_key_value() else {
            return Front::Nobody;
        };
        let (ticket, waiter) = (*ticket, *waiter);
        if waiter.worker == worker {
            return Front::Own(ticket, waiter);
        }
        match line.told.replace(waiter.worker) {
            Some(told) if told == waiter.worker => Front::Told,
            Some(_) | None => Front::Other(waiter.worker),
        }
    }

    fn note_length(&self, line: &Line) {
        let length = u32::try_from(line.waiting.len()).unwrap_or(u32::MAX);
        self.waiting.store(length, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        // A panic ends the process, so nobody sees a poisoned lock outside tests.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::VecDeque;
    use std::sync::atomic::AtomicI64;
    use std::thread;

    const WORKERS: usize = 3;

    fn waiter(worker: usize, slot: u32) -> Waiter {
        Waiter {
            worker,
            slot,
            generation: 0,
        }
    }

    #[test]
    fn the_first_is_served_first_whoever_s_it_is_and_the_limit_is_exact() {
        let queue = Queue::default();
        let (first, was_empty) = queue.join(waiter(1, 7), 2).unwrap();
        assert!(was_empty);
        let (second, was_empty) = queue.join(waiter(0, 8), 2).unwrap();
        assert!(!was_empty);
        assert_eq!(queue.join(waiter(0, 9), 2), None);
        assert_eq!(queue.look(0), Front::Other(1));
        assert_eq!(queue.look(0), Front::Told);
        assert_eq!(queue.look(2), Front::Told);
        assert_eq!(queue.look(1), Front::Own(first, waiter(1, 7)));
        // It has looked, and found no server: the next place is news again.
        assert_eq!(queue.look(0), Front::Other(1));
        queue.leave(first);
        assert_eq!(queue.look(1), Front::Other(0));
        assert_eq!(queue.look(0), Front::Own(second, waiter(0, 8)));
        queue.leave(second);
        assert_eq!((queue.look(0), queue.waiting()), (Front::Nobody, 0));
    }

    #[test]
    fn who_was_told_and_left_does_not_keep_others_from_being_told() {
        let queue = Queue::default();
        let (first, _) = queue.join(waiter(1, 1), 9).unwrap();
        queue.join(waiter(2, 2), 9).unwrap();
        assert_eq!(queue.look(0), Front::Other(1));
        queue.leave(first);
        assert_eq!(queue.look(0), Front::Other(2));
        assert_eq!(queue.look(1), Front::Told);
    }

    /// Workers, places and messages of a made-up process, in which every step is one of a worker.
    struct Simulation {
        queue: Queue,
        free: u32,
        places: u32,
        limit: u32,
        /// By worker: messages on their way to it, and looks that it owes itself.
        mail: Vec<VecDeque<()>>,
        looks: Vec<bool>,
        /// By worker: one that has found no free place and has not joined yet.
        undecided: Vec<bool>,
        /// Each one's number, by ticket; in the order of coming.
        waiting: BTreeMap<Ticket, u32>,
        held: u32,
        came: u32,
        served: Vec<u32>,
        left: u32,
        refused: u32,
    }

    impl Simulation {
        fn new(places: u32, limit: u32) -> Self {
            Self {
                queue: Queue::default(),
                free: places,
                places,
                limit,
                mail: vec![VecDeque::new(); WORKERS],
                looks: vec![false; WORKERS],
                undecided: vec![false; WORKERS],
                waiting: BTreeMap::new(),
                held: 0,
                came: 0,
                served: Vec::new(),
                left: 0,
                refused: 0,
            }
        }

        /// A place may get free between the pick that finds none and the joining.
        fn come(&mut self, worker: usize) {
            if self.undecided[worker] {
                return;
            }
            if self.queue.waiting() == 0 && self.free > 0 {
                self.came += 1;
                return self.serve(self.came);
            }
            self.undecided[worker] = true;
        }

        fn join(&mut self, worker: usize) {
            if !std::mem::take(&mut self.undecided[worker]) {
                return;
            }
            self.came += 1;
            let number = self.came;
            match self.queue.join(waiter(worker, number), self.limit) {
                Some((ticket, is_first)) => {
                    self.waiting.insert(ticket, number);
                    self.looks[worker] |= is_first;
                }
                None => self.refused += 1,
            }
            let waiting = self.waiting.len();
            assert!(waiting <= self.limit as usize && self.queue.waiting() as usize == waiting);
        }

        fn serve(&mut self, number: u32) {
            self.free -= 1;
            self.held += 1;
            self.served.push(number);
        }

        fn end_one(&mut self, worker: usize) {
            if self.held > 0 {
                self.held -= 1;
                self.free += 1;
                self.looks[worker] |= self.queue.is_waited_for();
            }
        }

        fn give_up(&mut self, rng: &mut fastrand::Rng) {
            let tickets: Vec<_> = self.waiting.keys().copied().collect();
            if let Some(ticket) = rng.choice(tickets) {
                self.waiting.remove(&ticket);
                self.queue.leave(ticket);
                self.left += 1;
            }
        }

        /// One look, which serves at most one; false where nothing was to be done.
        fn look(&mut self, worker: usize) -> bool {
            let is_told = self.mail[worker].pop_front().is_some();
            if !std::mem::take(&mut self.looks[worker]) && !is_told {
                return false;
            }
            match self.queue.look(worker) {
                Front::Nobody | Front::Told => {}
                Front::Other(other) => self.mail[other].push_back(()),
                Front::Own(ticket, waiter) if self.free > 0 => {
                    assert_eq!(
                        self.waiting.first_key_value(),
                        Some((&ticket, &waiter.slot))
                    );
                    self.waiting.remove(&ticket);
                    self.queue.leave(ticket);
                    self.serve(waiter.slot);
                    self.looks[worker] = true;
                }
                Front::Own(..) => {}
            }
            true
        }

        fn settle(&mut self) {
            (0..WORKERS).for_each(|worker| self.join(worker));
            while (0..WORKERS).any(|worker| self.look(worker)) {}
            assert!(
                self.free == 0 || self.waiting.is_empty(),
                "{} places are free and {} wait",
                self.free,
                self.waiting.len()
            );
        }
    }

    #[test]
    fn in_any_order_of_steps_all_are_served_in_turn_and_nobody_is_forgotten() {
        for seed in 0..500 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut all = Simulation::new(rng.u32(1..4), rng.u32(1..9));
            for _ in 0..400 {
                let worker = rng.usize(..WORKERS);
                match rng.u32(..10) {
                    0..2 => all.come(worker),
                    2..4 => all.join(worker),
                    4..6 => all.end_one(worker),
                    6 => all.give_up(&mut rng),
                    7 if rng.u32(..8) == 0 => all.settle(),
                    _ => drop(all.look(worker)),
                }
            }
            all.settle();
            while all.held > 0 || !all.waiting.is_empty() {
                all.end_one(rng.usize(..WORKERS));
                all.settle();
            }
            assert!(all.served.is_sorted(), "seed {seed}: {:?}", all.served);
            let ended = u32::try_from(all.served.len()).unwrap() + all.left + all.refused;
            assert_eq!((ended, all.free), (all.came, all.places), "seed {seed}");
        }
    }

    /// The race that the fences are for, with real threads: a place gets free while somebody joins.
    #[test]
    fn a_place_that_gets_free_while_somebody_joins_is_seen_by_one_of_the_two() {
        for round in 0..20_000 {
            let queue = Queue::default();
            let free = AtomicI64::new(0);
            let take = || {
                let is_free = |free| (free > 0).then(|| free - 1);
                free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_free)
                    .is_ok()
            };
            let release = || {
                free.fetch_add(1, Ordering::Relaxed);
                queue.is_waited_for()
            };
            let is_seen = thread::scope(|scope| {
                let releasing = scope.spawn(release);
                queue.join(waiter(0, 0), 1).unwrap();
                let is_taken = take();
                releasing.join().unwrap() || is_taken
            });
            assert!(is_seen, "round {round}");
        }
    }
}
