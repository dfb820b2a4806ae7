//! Two servers at random by weight, and the one of them that has fewer connections for its weight.
//!
//! The second look turns the longest queue from about `log n` above the mean into about
//! `log log n` (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 1996), and
//! unlike the least of all servers it does not herd when counts are a moment old. A pick grows with
//! the logarithm of the pool and reads two counts.

use fastrand::Rng;

use super::weighted::Weighted;
use super::{Candidate, Load, Pick};

/// The weights.
#[derive(Clone, Debug, Default)]
pub struct PowerOfTwo {
    servers: Weighted,
}

impl PowerOfTwo {
    /// See [`super::Picker::set_candidates`].
    pub fn set_candidates(&mut self, candidates: &[Candidate]) {
        self.servers.set_candidates(candidates);
    }

    /// See [`super::Picker::pick`].
    #[inline]
    pub fn pick<L: Load>(&mut self, load: &L, rng: &mut Rng) -> Option<Pick> {
        let first = self.servers.able(load, rng)?;
        let pick = self.look(load, first);
        let Some(second) = self.servers.able_other(load, rng, first) else {
            return Some(pick.0);
        };
        let other = self.look(load, second);
        // Of equals the first: it was drawn by weight.
        let is_lower = other.1 * self.servers.weight(first) < pick.1 * self.servers.weight(second);
        Some(if is_lower { other.0 } else { pick.0 })
    }

    /// The pick that a place would make, and its connections.
    fn look<L: Load>(&self, load: &L, place: usize) -> (Pick, u64) {
        let server = self.servers.server(place);
        let connections = load.connections(server);
        (
            Pick {
                server,
                connections: Some(connections),
            },
            u64::from(connections),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fake, candidates};
    use super::*;

    #[test]
    fn of_two_the_less_loaded_for_its_weight() {
        let mut picker = PowerOfTwo::default();
        picker.set_candidates(&candidates(&[3, 1]));
        let mut rng = Rng::with_seed(5);
        let mut load = Fake::new(2);
        for (connections, least) in [([2, 1], 0), ([4, 1], 1), ([29, 10], 0), ([31, 10], 1)] {
            load.connections = connections.to_vec();
            for _ in 0..50 {
                let pick = picker.pick(&load, &mut rng).unwrap();
                assert_eq!(
                    pick,
                    Pick {
                        server: least,
                        connections: Some(connections[least])
                    }
                );
            }
        }
    }
}
