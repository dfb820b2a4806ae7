//! The fewest connections for its weight, exactly: `connections / weight` is compared by
//! cross-multiplying, and the count that the pick rests on is returned, so that the caller notices
//! when another worker was quicker.
//!
//! Servers that are equal take turns: the scan begins where [`RoundRobin`] stands and only a
//! strictly lower server displaces an earlier one. So an idle pool behaves like weighted round
//! robin instead of sending every short connection to the first server of the list.
//!
//! A pick reads each server's count once: it grows with the pool, about 1 ns a server while the
//! counts fit the cache. It ends early at a server without connections, which nothing can beat.
//! A heap would be quicker alone, but each of its updates would be shared by all workers.

use super::{Candidate, Load, Pick, RoundRobin};

/// A server that may be picked. Densely packed, because a pick walks over all of them.
#[derive(Clone, Copy, Debug)]
struct Entry {
    server: u32,
    weight: u32,
}

/// The best so far: `connections / weight` of `server`.
#[derive(Clone, Copy)]
struct Best {
    server: usize,
    connections: u32,
    weight: u32,
}

/// The servers to compare, and whose turn it is among equals.
#[derive(Clone, Debug, Default)]
pub struct LeastConnections {
    turns: RoundRobin,
    /// In the order of the pool.
    entries: Vec<Entry>,
    /// By server: its place in `entries`, or that of the next one that has a place.
    places: Vec<u32>,
}

impl LeastConnections {
    /// See [`super::Picker::set_candidates`].
    pub fn set_candidates(&mut self, candidates: &[Candidate]) {
        self.turns.set_candidates(candidates);
        self.entries.clear();
        self.places.clear();
        let mut place = 0;
        for (server, candidate) in (0..).zip(candidates) {
            self.places.push(place);
            let weight = candidate.share();
            if weight > 0 {
                self.entries.push(Entry { server, weight });
                place += 1;
            }
        }
    }

    /// See [`super::Picker::pick`].
    #[inline]
    pub fn pick<L: Load>(&mut self, load: &L) -> Option<Pick> {
        let start = self.places[self.turns.turn()?] as usize;
        let (before, after) = self.entries.split_at(start);
        // 1/0: any server is lower.
        let mut best = Best {
            server: 0,
            connections: 1,
            weight: 0,
        };
        for entries in [after, before] {
            best = least(entries, load, best);
            if best.connections == 0 {
                break;
            }
        }
        let Best {
            server,
            connections,
            weight,
        } = best;
        (weight > 0).then_some(Pick {
            server,
            connections: Some(connections),
        })
    }
}

/// The first of `entries` that is lower than `best` and than all the others, or `best`.
fn least<L: Load>(entries: &[Entry], load: &L, mut best: Best) -> Best {
    for entry in entries {
        let server = entry.server as usize;
        let connections = load.connections(server);
        let ours = u64::from(connections) * u64::from(best.weight);
        let theirs = u64::from(best.connections) * u64::from(entry.weight);
        if ours < theirs && load.can_take(server) {
            best = Best {
                server,
                connections,
                weight: entry.weight,
            };
            if connections == 0 {
                break;
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fake, candidates};
    use super::*;

    fn picker(weights: &[u32]) -> LeastConnections {
        let mut picker = LeastConnections::default();
        picker.set_candidates(&candidates(weights));
        picker
    }

    #[test]
    fn idle_pool_is_smooth_round_robin() {
        let mut picker = picker(&[5, 1, 1]);
        let load = Fake::new(3);
        let order: Vec<_> = (0..7).map(|_| picker.pick(&load).unwrap().server).collect();
        assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn every_pick_is_a_least_one_and_says_its_count() {
        let weights = [3, 0, 1, 7, 2, 5];
        let mut picker = picker(&weights);
        let mut load = Fake::new(6);
        for step in 0..5_000 {
            let pick = picker.pick(&load).unwrap();
            assert_eq!(pick.connections, Some(load.connections[pick.server]));
            for other in (0..6).filter(|&other| weights[other] > 0) {
                let ours = load.connections[pick.server] * weights[other];
                assert!(ours <= load.connections[other] * weights[pick.server]);
            }
            load.connections[pick.server] += 1;
            // Some end, so that not only equal loads are seen.
            let ended = step * 7 % 6;
            load.connections[ended] = load.connections[ended].saturating_sub(1);
        }
    }

    #[test]
    fn large_counts_do_not_overflow() {
        let mut picker = picker(&[1, u32::MAX]);
        let mut load = Fake::new(2);
        load.connections = vec![u32::MAX - 1, u32::MAX];
        assert_eq!(picker.pick(&load).unwrap().server, 1);
    }

    #[test]
    fn equally_loaded_servers_take_turns_as_idle_ones_do() {
        let mut picker = picker(&[5, 1, 1]);
        let mut load = Fake::new(3);
        load.connections = vec![20, 4, 4];
        let order: Vec<_> = (0..7).map(|_| picker.pick(&load).unwrap().server).collect();
        assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
    }
}
