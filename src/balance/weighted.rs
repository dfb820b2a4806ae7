//! Drawing servers at random by weight, for the algorithms that rest on it: prefix sums of the
//! weights, and a binary search for where a random number falls.
//!
//! A draw grows with the logarithm of the pool. While servers cannot take a connection a few more
//! draws are made; then the list is searched, so that one that can is found if there is one.

use fastrand::Rng;

use super::{Candidate, Load};

/// Draws before the list is searched: with half the pool full, 1 pick in 16 comes to that.
const DRAWS: usize = 4;

/// The servers that may be picked. A server's *place* is its index in here, not in the pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Weighted {
    servers: Vec<u32>,
    /// Parallel to `servers`: the sum of the weights up to and with this one.
    ends: Vec<u64>,
}

impl Weighted {
    pub(super) fn set_candidates(&mut self, candidates: &[Candidate]) {
        self.servers.clear();
        self.ends.clear();
        let mut end = 0;
        for (server, candidate) in (0..).zip(candidates) {
            let weight = candidate.share();
            if weight > 0 {
                end += u64::from(weight);
                self.servers.push(server);
                self.ends.push(end);
            }
        }
    }

    /// The server at a place, as an index in the pool.
    pub(super) fn server(&self, place: usize) -> usize {
        self.servers[place] as usize
    }

    pub(super) fn weight(&self, place: usize) -> u64 {
        self.ends[place] - self.start(place)
    }

    /// The place of a server that can take the connection; `None` where there is no such server.
    #[inline]
    pub(super) fn able<L: Load>(&self, load: &L, rng: &mut Rng) -> Option<usize> {
        let mut place = 0;
        for _ in 0..DRAWS {
            place = self.draw(rng)?;
            if load.can_take(self.server(place)) {
                return Some(place);
            }
        }
        self.able_from(load, place)
    }

    /// The place of a second one. `None` does not mean that there is none: it need not be found.
    #[inline]
    pub(super) fn able_other<L: Load>(
        &self,
        load: &L,
        rng: &mut Rng,
        first: usize,
    ) -> Option<usize> {
        let mut draws = (0..DRAWS).map_while(|_| self.draw_other(rng, first));
        draws.find(|&place| load.can_take(self.server(place)))
    }

    fn draw(&self, rng: &mut Rng) -> Option<usize> {
        let &total = self.ends.last()?;
        Some(self.place(rng.u64(..total)))
    }

    /// By weight among the others: the number is drawn from a line that `first` was cut out of.
    fn draw_other(&self, rng: &mut Rng, first: usize) -> Option<usize> {
        let others = self.ends.last()? - self.weight(first);
        if others == 0 {
            return None;
        }
        let mut number = rng.u64(..others);
        if number >= self.start(first) {
            number += self.weight(first);
        }
        Some(self.place(number))
    }

    /// The first one that can take the connection, from `start` on and around.
    #[cold]
    fn able_from<L: Load>(&self, load: &L, start: usize) -> Option<usize> {
        let mut places = (start..self.servers.len()).chain(0..start);
        places.find(|&place| load.can_take(self.server(place)))
    }

    fn place(&self, number: u64) -> usize {
        self.ends.partition_point(|&end| end <= number)
    }

    fn start(&self, place: usize) -> u64 {
        if place == 0 { 0 } else { self.ends[place - 1] }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fake, candidates};
    use super::*;

    fn weighted(weights: &[u32]) -> Weighted {
        let mut weighted = Weighted::default();
        weighted.set_candidates(&candidates(weights));
        weighted
    }

    #[test]
    fn numbers_fall_by_weight() {
        let weighted = weighted(&[0, 2, 0, 1, 3]);
        let servers: Vec<_> = (0..6)
            .map(|number| weighted.server(weighted.place(number)))
            .collect();
        assert_eq!(servers, [1, 1, 3, 4, 4, 4]);
    }

    #[test]
    fn the_other_is_another_by_weight() {
        let weighted = weighted(&[4, 5, 1, 3]);
        let mut rng = Rng::with_seed(1);
        let mut counts = [0_u32; 4];
        for _ in 0..80_000 {
            counts[weighted.draw_other(&mut rng, 1).unwrap()] += 1;
        }
        assert_eq!(counts[1], 0);
        for (count, weight) in [(counts[0], 4), (counts[2], 1), (counts[3], 3)] {
            assert!(count.abs_diff(weight * 10_000) < 500, "{counts:?}");
        }
    }

    #[test]
    fn alone_has_no_other() {
        let weighted = weighted(&[0, 9]);
        let mut rng = Rng::with_seed(1);
        assert_eq!(weighted.able(&Fake::new(2), &mut rng), Some(0));
        assert_eq!(weighted.able_other(&Fake::new(2), &mut rng, 0), None);
    }
}
