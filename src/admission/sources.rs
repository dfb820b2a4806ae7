//! What each source address of a listener has: how many connections it holds, and its bucket of
//! tokens. One truth for all workers.
//!
//! A source is an address cut to a prefix, the same for IPv4 and for IPv4 mapped into IPv6. Sources
//! are spread over shards, each with a lock that is held for a look at a few cache lines; two
//! workers meet at one about once in 256 connections. The hash is seeded by the process, so that
//! nobody can choose addresses that collide. Each call also sweeps a little of the next shard in turn,
//! if nobody is there: what has to be remembered no longer goes after as many connections as fill
//! a table, whoever they are from. Nothing is allocated before the first limit is set.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::{NonZeroU8, NonZeroU32};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crossbeam_utils::CachePadded;

use super::bucket::{Bucket, Pace};
use super::shard::{self, Shard};
use crate::clock::Now;

/// As many as a byte of the hash has values.
const SHARDS: usize = 256;
/// Most sources without a connection that are remembered: 16 MiB in tables.
pub const IDLE_MAX: usize = SHARDS * shard::IDLE_MAX;
/// Places swept by each call: one connection adds one source at most.
const SWEPT: usize = 32;
/// Shards swept by each call of [`Sources::tend`].
const TENDED: usize = 64;
/// Bits of an IPv6 address before an IPv4 address that is mapped there.
const MAPPED_BITS: u8 = 96;

/// What one source may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerSource {
    /// Most connections at a time.
    pub connections_max: Option<NonZeroU32>,
    /// How often it may come.
    pub pace: Option<Pace>,
    /// Leading bits of an IPv4 address that make a source, at most 32.
    pub ipv4_prefix: u8,
    /// Leading bits of an IPv6 address that make a source, at most 128.
    pub ipv6_prefix: u8,
}

/// Why a connection may not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its source came too often.
    Rate,
    /// Its source holds as many as it may.
    Full,
}

/// A connection's place among those of its source; whoever has it owes one [`Sources::release`].
/// It keeps the prefix that made the source, because a reload may change that meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Place(NonZeroU8);

impl Default for PerSource {
    /// Whatever it likes.
    fn default() -> Self {
        Self {
            connections_max: None,
            pace: None,
            ipv4_prefix: 32,
            ipv6_prefix: 128,
        }
    }
}

impl Place {
    /// A source by the first `bits` of 128.
    fn new(bits: u8) -> Self {
        Self(NonZeroU8::MIN.saturating_add(bits.min(128)))
    }

    /// The place of a source by the first `bits` of 128, as [`Place::bits`] has told the process before.
    pub fn of_bits(bits: u8) -> Self {
        Self::new(bits)
    }

    /// Leading bits of 128 that make the source.
    pub fn bits(self) -> u8 {
        self.0.get() - 1
    }

    fn key(self, address: IpAddr) -> u128 {
        let bits = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) => address.to_bits(),
        };
        let cut_off = 129 - u32::from(self.0.get());
        bits & u128::MAX.checked_shl(cut_off).unwrap_or(0)
    }
}

impl PerSource {
    fn is_off(&self) -> bool {
        self.connections_max.is_none() && self.pace.is_none()
    }

    fn place(&self, address: IpAddr) -> Place {
        Place::new(match address.to_canonical() {
            IpAddr::V4(_) => MAPPED_BITS + self.ipv4_prefix.min(32),
            IpAddr::V6(_) => self.ipv6_prefix,
        })
    }
}

/// The sources of one listener.
#[derive(Debug, Default)]
pub struct Sources(OnceLock<Shards>);

#[derive(Debug)]
struct Shards {
    seed: RandomState,
    all: Box<[CachePadded<Mutex<Shard>>]>,
    /// Which of them is swept next.
    next: CachePadded<AtomicUsize>,
}

impl Sources {
    /// Lets a connection from `address` in, if its source may have one more now. The place is to be
    /// given back; there is none where connections are not limited. Who is refused, for whatever
    /// reason, has taken no token: a client that comes too often gets in at its rate.
    ///
    /// # Errors
    /// Which limit is reached.
    pub fn admit(
        &self,
        address: IpAddr,
        limits: &PerSource,
        now: Now,
    ) -> Result<Option<Place>, Refused> {
        if limits.is_off() {
            return Ok(None);
        }
        let shards = self.0.get_or_init(Shards::new);
        shards.sweep(now);
        let place = limits.place(address);
        let key = place.key(address);
        let (mut shard, hash) = shards.lock(key);
        let mut source = shard.look_up(key, hash);
        if let Some(pace) = &limits.pace {
            if !source.bucket.has_token(pace, now) {
                // What it owes may have become less with another rate.
                shard.put(source, now);
                return Err(Refused::Rate);
            }
            source.bucket.take(pace, now);
        }
        if let Some(max) = limits.connections_max {
            if source.connections >= max.get() {
                return Err(Refused::Full);
            }
            source.connections += 1;
        }
        shard.put(source, now);
        Ok(limits.connections_max.map(|_| place))
    }

    /// Counts a connection from `address` that the process before this one has let in, however many its
    /// source may have.
    pub fn take_over(&self, address: IpAddr, place: Place, now: Now) {
        let shards = self.0.get_or_init(Shards::new);
        let key = place.key(address);
        let (mut shard, hash) = shards.lock(key);
        let mut source = shard.look_up(key, hash);
        source.connections += 1;
        shard.put(source, now);
    }

    /// What a source owes by the process before this one; `key` is its address cut to its prefix, as 128
    /// bits.
    pub fn restore(&self, key: u128, full_at: Now, now: Now) {
        let shards = self.0.get_or_init(Shards::new);
        let (mut shard, hash) = shards.lock(key);
        let mut source = shard.look_up(key, hash);
        source.bucket = Bucket::full_at(full_at);
        shard.put(source, now);
    }

    /// Gives the place of a connection from `address` back.
    pub fn release(&self, address: IpAddr, place: Place, now: Now) {
        let Some(shards) = self.0.get() else {
            debug_assert!(false, "a place was given");
            return;
        };
        let key = place.key(address);
        let (mut shard, hash) = shards.lock(key);
        let mut source = shard.look_up(key, hash);
        debug_assert!(source.connections > 0, "each place is given back once");
        source.connections = source.connections.saturating_sub(1);
        shard.put(source, now);
        drop(shard);
        shards.sweep(now);
    }

    /// Sweeps a little, for times when nobody comes: at a few calls a second, what a flood has left is
    /// gone a minute after the buckets are full.
    pub fn tend(&self, now: Now) {
        if let Some(shards) = self.0.get() {
            (0..TENDED).for_each(|_| shards.sweep(now));
        }
    }

    /// At most `most` of those that owe something, as [`Self::restore`] takes them.
    pub fn owing(&self, most: usize, now: Now) -> Vec<(u128, Now)> {
        let shards = self.0.get().map_or(&[][..], |shards| &shards.all);
        let mut owing = Vec::new();
        for shard in shards {
            owing.extend(lock(shard).owing(now).take(most - owing.len()));
        }
        owing
    }

    /// Sources that are remembered.
    pub fn count(&self) -> usize {
        let shards = self.0.get().map_or(&[][..], |shards| &shards.all);
        shards.iter().map(|shard| lock(shard).len()).sum()
    }
}

impl Shards {
    fn new() -> Self {
        Self {
            seed: RandomState::new(),
            all: std::iter::repeat_with(CachePadded::default)
                .take(SHARDS)
                .collect(),
            next: CachePadded::default(),
        }
    }

    /// The shard of a source, and the source's hash there.
    fn lock(&self, key: u128) -> (MutexGuard<'_, Shard>, NonZeroU32) {
        let [shard, _, _, _, hash @ ..] = self.seed.hash_one(key).to_le_bytes();
        let hash = NonZeroU32::MIN.saturating_add(u32::from_le_bytes(hash));
        (lock(&self.all[usize::from(shard)]), hash)
    }

    fn sweep(&self, now: Now) {
        let next = self.next.fetch_add(1, Relaxed) % SHARDS;
        if let Ok(mut shard) = self.all[next].try_lock() {
            shard.sweep(SWEPT, now);
        }
    }
}

/// A panic ends the process, so nobody sees a poisoned lock outside tests.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
