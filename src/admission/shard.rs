//! A part of the sources of a listener: an open-addressed table whose entries are 32 bytes in one
//! piece of memory, so that it can be swept a few places at a time, which a `HashMap` cannot.
//!
//! An entry is there while its source holds a connection or its bucket is not full. One that holds
//! nothing is *idle*: idle ones are dropped when their bucket is full, and there are at most
//! [`IDLE_MAX`] of them, so that a flood of distinct sources costs no more than that. Those with
//! connections are as many as the connections, which have a limit of their own.
//!
//! Linear probing; a dropped entry's place is closed by moving those behind it up, so that there are
//! no tombstones to clean. Hashes come from outside, seeded, and are kept for that move.

use std::num::NonZeroU32;

use super::bucket::Bucket;
use crate::clock::Now;

/// Most idle entries of a shard.
pub(super) const IDLE_MAX: usize = 1024;
/// The smallest table: 512 bytes.
const PLACES_MIN: usize = 16;
/// Places among which the fullest is chosen when one has to go.
const SAMPLE: usize = 32;

/// What is known of one source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    key: u128,
    /// Never zero, which makes an empty place as large as a taken one.
    hash: NonZeroU32,
    /// Connections that hold a place.
    pub(super) connections: u32,
    pub(super) bucket: Bucket,
}

const _: () = assert!(size_of::<Option<Entry>>() == 32);

/// Some of the sources.
#[derive(Debug, Default)]
pub(super) struct Shard {
    /// A power of two of them, or none; at most three quarters are taken.
    places: Vec<Option<Entry>>,
    taken: usize,
    idle: usize,
    /// Where the next sweep goes on.
    swept: usize,
}

impl Shard {
    /// Sources that it remembers.
    pub(super) fn len(&self) -> usize {
        self.taken
    }

    /// What is known of a source: nothing of one that is not remembered.
    pub(super) fn look_up(&self, key: u128, hash: NonZeroU32) -> Entry {
        let place = self.place_of(key, hash);
        let known = place.and_then(|place| self.places[place]);
        known.unwrap_or(Entry {
            key,
            hash,
            connections: 0,
            bucket: Bucket::default(),
        })
    }

    /// Remembers an entry as far as there is a reason to. Where too many are idle, one of those that
    /// are nearest to full is forgotten: its source gets back the least.
    pub(super) fn put(&mut self, entry: Entry, now: Now) {
        let place = self.place_of(entry.key, entry.hash);
        let before = place.and_then(|place| self.places[place]);
        self.idle -= usize::from(before.is_some_and(|entry| entry.is_idle()));
        if entry.is_idle() && entry.bucket.is_full(now) {
            if let Some(place) = place {
                self.vacate(place);
            }
            return;
        }
        self.idle += usize::from(entry.is_idle());
        match place {
            Some(place) => self.places[place] = Some(entry),
            None => self.insert(entry),
        }
        if self.idle > IDLE_MAX {
            self.forget_an_idle_one();
        }
    }

    /// Sources whose bucket is not full, and when it will be.
    pub(super) fn owing(&self, now: Now) -> impl Iterator<Item = (u128, Now)> {
        let entries = self.places.iter().flatten();
        let owing = entries.filter(move |entry| !entry.bucket.is_full(now));
        owing.map(|entry| (entry.key, entry.bucket.until()))
    }

    /// Looks at the next `budget` places and drops what nothing needs to be remembered of. A table
    /// that has become much too large for the rest is made smaller, once a round.
    pub(super) fn sweep(&mut self, budget: usize, now: Now) {
        for _ in 0..budget.min(self.places.len()) {
            match self.places[self.swept] {
                // Another one may have moved up to this place: it is looked at again.
                Some(entry) if entry.is_idle() && entry.bucket.is_full(now) => {
                    self.vacate(self.swept);
                    self.idle -= 1;
                }
                _ => self.step(),
            }
            if self.swept == 0 && self.places.len() > PLACES_MIN.max(8 * self.taken) {
                return self.resize(PLACES_MIN.max((2 * self.taken).next_power_of_two()));
            }
        }
    }

    /// Of the next idle ones, the fullest.
    fn forget_an_idle_one(&mut self) {
        let mut fullest: Option<(Bucket, usize)> = None;
        for looked_at in 0..self.places.len() {
            if looked_at >= SAMPLE && fullest.is_some() {
                break;
            }
            if let Some(entry) = self.places[self.swept].filter(|entry| entry.is_idle()) {
                let this = (entry.bucket, self.swept);
                fullest = Some(fullest.map_or(this, |other| other.min(this)));
            }
            self.step();
        }
        if let Some((_, place)) = fullest {
            self.vacate(place);
            self.idle -= 1;
        }
    }

    fn step(&mut self) {
        self.swept = (self.swept + 1) & self.mask();
    }

    /// Where a source is remembered.
    fn place_of(&self, key: u128, hash: NonZeroU32) -> Option<usize> {
        if self.places.is_empty() {
            return None;
        }
        let mut place = self.home(hash);
        while let Some(entry) = &self.places[place] {
            if entry.key == key {
                return Some(place);
            }
            place = (place + 1) & self.mask();
        }
        None
    }

    /// Takes the first free place for an entry that is not there.
    fn insert(&mut self, entry: Entry) {
        if 4 * (self.taken + 1) > 3 * self.places.len() {
            self.resize(PLACES_MIN.max(2 * self.places.len()));
        }
        self.settle(entry);
        self.taken += 1;
    }

    fn settle(&mut self, entry: Entry) {
        let mut place = self.home(entry.hash);
        while self.places[place].is_some() {
            place = (place + 1) & self.mask();
        }
        self.places[place] = Some(entry);
    }

    /// Empties a place, and moves up those behind it that are not where they would be at best.
    fn vacate(&mut self, place: usize) {
        let mask = self.mask();
        let mut hole = place;
        let mut next = (hole + 1) & mask;
        self.places[hole] = None;
        self.taken -= 1;
        while let Some(entry) = self.places[next] {
            let from_home = next.wrapping_sub(self.home(entry.hash)) & mask;
            let from_hole = next.wrapping_sub(hole) & mask;
            if from_home >= from_hole {
                self.places.swap(hole, next);
                hole = next;
            }
            next = (next + 1) & mask;
        }
    }

    /// Gives everybody a place in a new table.
    fn resize(&mut self, places: usize) {
        let before = std::mem::replace(&mut self.places, vec![None; places]);
        self.swept = 0;
        for entry in before.into_iter().flatten() {
            self.settle(entry);
        }
    }

    fn home(&self, hash: NonZeroU32) -> usize {
        hash.get() as usize & self.mask()
    }

    fn mask(&self) -> usize {
        self.places.len() - 1
    }
}

impl Entry {
    fn is_idle(&self) -> bool {
        self.connections == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::time::Duration;

    /// A hash so bad that entries crowd.
    fn hash(key: u128) -> NonZeroU32 {
        NonZeroU32::new(1 + u32::try_from(key % 7).unwrap()).unwrap()
    }

    fn at(seconds: u64) -> Now {
        Now::default() + Duration::from_secs(seconds)
    }

    /// Owes a token until then.
    fn owing(shard: &Shard, key: u128, until: u64) -> Entry {
        let pace = super::super::Pace::of("1/s".parse().unwrap());
        let mut entry = shard.look_up(key, hash(key));
        entry.bucket = Bucket::default();
        entry.bucket.take(&pace, at(until - 1));
        entry
    }

    #[test]
    fn what_owes_nothing_and_holds_nothing_is_forgotten_by_a_sweep() {
        let mut shard = Shard::default();
        for key in 0..100 {
            let entry = owing(&shard, key, 10 + u64::try_from(key).unwrap());
            shard.put(entry, at(1));
        }
        assert_eq!((shard.len(), shard.places.len()), (100, 256));
        for _ in 0..20 {
            shard.sweep(32, at(59));
        }
        assert_eq!(shard.len(), 50);
        for _ in 0..20 {
            shard.sweep(32, at(200));
        }
        assert_eq!((shard.len(), shard.idle), (0, 0));
        assert_eq!(shard.places.len(), PLACES_MIN, "its memory goes, too");
    }

    #[test]
    fn too_many_idle_ones_make_the_fullest_go_and_never_one_with_a_connection() {
        let mut shard = Shard::default();
        for key in 0..5000 {
            let mut entry = owing(&shard, key, 10_000 + u64::try_from(key).unwrap());
            entry.connections = u32::from(key % 10 == 0);
            shard.put(entry, at(1));
        }
        assert_eq!(shard.idle, IDLE_MAX);
        assert_eq!(shard.len(), IDLE_MAX + 500);
        let holding = (0..5000).filter(|key| shard.look_up(*key, hash(*key)).connections == 1);
        assert_eq!(holding.count(), 500);
        let newest = shard.look_up(4999, hash(4999));
        assert!(!newest.bucket.is_full(at(1)), "who owes most is remembered");
    }

    proptest! {
        #[test]
        fn it_remembers_what_a_map_does(
            steps in proptest::collection::vec((0_u128..60, 0_u32..3, 0_u64..4, 0_u64..2), 1..400),
        ) {
            let (mut shard, mut model) = (Shard::default(), HashMap::new());
            let mut second = 0;
            for (key, connections, owed, passed) in steps {
                second += passed;
                let until = second + owed;
                let mut entry = shard.look_up(key, hash(key));
                let (held, full_at) = model.get(&key).copied().unwrap_or((0, 0));
                prop_assert_eq!(entry.connections, held);
                prop_assert_eq!(entry.bucket.is_full(at(second)), full_at <= second);
                entry.bucket = match until {
                    0 => Bucket::default(),
                    _ => owing(&shard, key, until).bucket,
                };
                entry.connections = connections;
                shard.put(entry, at(second));
                model.insert(key, (connections, until));
                shard.sweep(3, at(second));
                let busy = model.values().filter(|(held, full_at)| *held > 0 || *full_at > second);
                prop_assert!(shard.len() >= busy.count());
                let all = shard.places.iter().flatten();
                prop_assert_eq!(all.clone().count(), shard.taken);
                prop_assert_eq!(all.filter(|entry| entry.is_idle()).count(), shard.idle);
            }
        }
    }
}
