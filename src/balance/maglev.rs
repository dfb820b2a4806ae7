//! Maglev's table: which server each hash belongs to (Eisenbud et al., "Maglev: A Fast and Reliable
//! Software Network Load Balancer", NSDI 2016).
//!
//! Each server's name gives a permutation of the table's entries; in turns, by weight as in Envoy's
//! Maglev, each server takes the next free entry of its own. Names are the identity of servers: not
//! addresses, and not the order of the list. Hashes and seeds are fixed, so the same names and
//! weights make the same table in every process.
//!
//! A table has at least 100 entries for each server and takes 4 bytes an entry. Filling it takes
//! about `entries x ln(entries)` steps: milliseconds for a small pool, tenths of a second for
//! 10,000 servers; so it is built off the worker threads and shared by them.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Seeds are part of the result: another value sends clients to other servers.
const OFFSET_SEED: u64 = 1;
const SKIP_SEED: u64 = 2;

const ENTRIES_PER_SERVER: usize = 100;
/// Small pools get far more, because the more entries, the fewer clients move with a new table.
const ENTRIES_MIN: usize = 65_537;
/// Where 9 of 10 servers are full, fewer than 1 pick in 10^11 walks this far.
const WALK_MAX: usize = 256;
/// Leaves a stride of at most 2^16, which no table size divides: a walk meets no entry again.
const STRIDE_SHIFT: u32 = 48;
const _: () = assert!(ENTRIES_MIN > 1 << (64 - STRIDE_SHIFT));
const FREE: u32 = u32::MAX;

/// Which server each hash belongs to. Made off the worker threads and shared by them.
#[derive(Debug)]
pub struct Table {
    /// Indexes in the pool; as many as a prime number, or none where no server has a weight.
    entries: Box<[u32]>,
    /// All servers of the pool in the order of their names, which is the same on every node.
    by_name: Box<[u32]>,
}

/// A server while the table is filled.
struct Turn {
    server: u32,
    weight: u64,
    /// It takes an entry in the round that has earned it this much.
    due: u64,
    /// The next entry that it wants.
    wanted: usize,
    /// From one wanted entry to the next; below the prime size, so that all are reached.
    skip: usize,
}

impl Table {
    /// The table of a pool whose servers have these names and weights, by index in the pool.
    /// Names are unique; a server of weight 0 has no entries, any other has one at least.
    pub fn build(members: &[(&str, u32)]) -> Self {
        let mut by_name: Vec<u32> = (0..).take(members.len()).collect();
        by_name.sort_by_key(|&server| members[server as usize].0);
        let size = prime_from(ENTRIES_MIN.max(members.len() * ENTRIES_PER_SERVER));
        let turns = by_name
            .iter()
            .map(|&server| Turn::new(server, members[server as usize], size));
        let turns = turns.filter(|turn| turn.weight > 0).collect();
        Self {
            entries: fill(turns, size),
            by_name: by_name.into(),
        }
    }

    /// The servers that a hash may go to, the first choice first, each of them possibly again. Ends
    /// after some entries and then every server by name, the same on every node.
    ///
    /// Each hash walks by its own stride: neighbours in the table are so far from random that one
    /// server could get twice its share of another's clients.
    pub(super) fn choices(&self, hash: u64) -> impl Iterator<Item = usize> {
        let size = self.entries.len();
        let stride = 1 + remainder(hash >> STRIDE_SHIFT, ENTRIES_MIN);
        let next = move |&entry: &usize| Some(wrapped(entry + stride, size));
        let walk = std::iter::successors(start(hash, size), next).take(WALK_MAX);
        let walk = walk.map(|entry| self.entries[entry]);
        walk.chain(self.by_name_from(hash))
            .map(|server| server as usize)
    }

    /// Every server once, beginning at one that depends on the hash.
    fn by_name_from(&self, hash: u64) -> impl Iterator<Item = u32> {
        let (before, after) = self
            .by_name
            .split_at(start(hash, self.by_name.len()).unwrap_or(0));
        after.iter().chain(before).copied()
    }
}

impl Turn {
    fn new(server: u32, (name, weight): (&str, u32), size: usize) -> Self {
        let hash = |seed| xxh3_64_with_seed(name.as_bytes(), seed);
        Self {
            server,
            weight: u64::from(weight),
            due: 0,
            wanted: remainder(hash(OFFSET_SEED), size),
            skip: remainder(hash(SKIP_SEED), size - 1) + 1,
        }
    }

    /// Takes the next entry of its permutation that is free; there must be one.
    fn take(&mut self, entries: &mut [u32]) {
        loop {
            let wanted = self.wanted;
            self.wanted = (wanted + self.skip) % entries.len();
            if entries[wanted] == FREE {
                entries[wanted] = self.server;
                return;
            }
        }
    }
}

/// Rounds in which the heaviest takes an entry each time, and others as often as their weight says.
fn fill(mut turns: Vec<Turn>, size: usize) -> Box<[u32]> {
    let Some(heaviest) = turns.iter().map(|turn| turn.weight).max() else {
        return Box::default();
    };
    let mut entries = vec![FREE; size];
    let mut free = size;
    let mut round = 0;
    while free > 0 {
        round += 1;
        let due = turns
            .iter_mut()
            .filter(|turn| round * turn.weight >= turn.due);
        for turn in due.take(free) {
            turn.due += heaviest;
            turn.take(&mut entries);
            free -= 1;
        }
    }
    entries.into()
}

/// Where a hash points to in a list of that size; `None` where the list is empty.
fn start(hash: u64, size: usize) -> Option<usize> {
    (size > 0).then(|| remainder(hash, size))
}

fn wrapped(place: usize, size: usize) -> usize {
    if place < size { place } else { place - size }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the result is less than a usize"
)]
fn remainder(hash: u64, size: usize) -> usize {
    (hash % size as u64) as usize
}

/// The first prime number that is not below `least`.
fn prime_from(least: usize) -> usize {
    let is_prime = |n: &usize| {
        (2..)
            .take_while(|d| d * d <= *n)
            .all(|d| !n.is_multiple_of(d))
    };
    (least..)
        .find(is_prime)
        .expect("there is a prime between any number and its double")
}

#[cfg(test)]
mod tests {
    use super::super::tests::weights;
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (1..=count)
            .map(|server| format!("10.0.{}.{}:5432", server / 250, server % 250))
            .collect()
    }

    fn build(names: &[String], weights: &[u32]) -> Table {
        let members: Vec<_> = names
            .iter()
            .map(String::as_str)
            .zip(weights.to_vec())
            .collect();
        Table::build(&members)
    }

    /// How many entries each server has.
    fn counts(table: &Table, servers: usize) -> Vec<u32> {
        let mut counts = vec![0; servers];
        table
            .entries
            .iter()
            .for_each(|&server| counts[server as usize] += 1);
        counts
    }

    #[test]
    fn entries_are_shared_by_weight() {
        for (servers, size) in [(1, 65_537), (7, 65_537), (1000, 100_003)] {
            let weights: Vec<u32> = (0..servers).map(|server| 1 + server % 5).collect();
            let table = build(&names(weights.len()), &weights);
            assert_eq!(table.entries.len(), size);
            let total: u32 = weights.iter().sum();
            for (count, weight) in counts(&table, weights.len()).iter().zip(weights) {
                let ideal = f64::from(weight) * size as f64 / f64::from(total);
                assert!(
                    (f64::from(*count) - ideal).abs() <= 2.0,
                    "{count} for {ideal}"
                );
            }
        }
    }

    #[test]
    fn the_lightest_has_an_entry_and_weight_0_has_none() {
        let weights = weights(&[(256, 300), (1, 1), (0, 1)]);
        let counts = counts(&build(&names(302), &weights), 302);
        assert!(counts[300] > 0);
        assert_eq!(counts[301], 0);
    }

    #[test]
    fn an_empty_table_has_no_entries() {
        assert!(Table::build(&[]).choices(7).next().is_none());
        let all_zero = Table::build(&[("a", 0), ("b", 0)]);
        assert_eq!(all_zero.choices(7).count(), 2);
    }

    #[test]
    fn the_order_of_the_list_does_not_matter() {
        let names = names(50);
        let weights: Vec<u32> = (0..50).map(|server| server % 4).collect();
        let forwards = build(&names, &weights);
        let mut order: Vec<usize> = (0..50).collect();
        fastrand::Rng::with_seed(4).shuffle(&mut order);
        let shuffled_names: Vec<_> = order.iter().map(|&server| names[server].clone()).collect();
        let shuffled_weights: Vec<_> = order.iter().map(|&server| weights[server]).collect();
        let shuffled = build(&shuffled_names, &shuffled_weights);
        for hash in (0..u64::MAX).step_by(usize::MAX / 5000) {
            let ours = forwards.choices(hash).take(3).map(|server| &names[server]);
            let theirs = shuffled
                .choices(hash)
                .take(3)
                .map(|server| &shuffled_names[server]);
            assert!(ours.eq(theirs));
        }
    }

    #[test]
    fn the_table_is_what_it_always_was() {
        // A change here sends clients elsewhere while nodes of two versions run side by side.
        let table = Table::build(&[("a", 1), ("b", 2), ("10.0.0.1:5432", 3)]);
        let bytes: Vec<u8> = table
            .entries
            .iter()
            .flat_map(|entry| entry.to_le_bytes())
            .collect();
        assert_eq!(xxh3_64_with_seed(&bytes, 0), 8_659_009_761_102_882_678);
    }

    #[test]
    fn removal_moves_few_of_the_others() {
        let names = names(10);
        let whole = build(&names, &[1; 10]);
        for removed in 0..10 {
            let mut weights = [1; 10];
            weights[removed] = 0;
            let without = build(&names, &weights);
            let pairs = whole.entries.iter().zip(&without.entries);
            let others = pairs.filter(|(before, _)| **before as usize != removed);
            let (total, moved) = others.fold((0, 0), |(total, moved), (before, after)| {
                (total + 1, moved + u32::from(before != after))
            });
            assert!(moved * 100 <= total * 2, "{moved} of {total}");
        }
    }

    #[test]
    fn sizes_are_prime() {
        let primes = [(2, 2), (90, 97), (65_537, 65_537), (100_000, 100_003)];
        primes
            .iter()
            .for_each(|&(least, prime)| assert_eq!(prime_from(least), prime));
    }
}
