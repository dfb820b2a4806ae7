//! Two servers at random by weight, and the one of them that should answer sooner: the lower
//! `connect time x (connections / weight + 1)`. Idle servers that are equally quick cost the same
//! at any weight, so that the draw alone decides and shares follow weights.
//!
//! The idea is peak EWMA as Finagle and linkerd have it; the average, its peaks and its decay over
//! time are [`Load::connect_time`]'s business: it must decay, or a server that was slow once is not
//! tried again.
//!
//! A server that was never measured costs nothing to hope for, but a hundred connections may come
//! before its first measurement does. So as long as one of the two has no time, times are left out
//! and connections alone decide; of equals the unmeasured one wins. It is measured as soon as it
//! has fewer connections than another, and is never filled above the others.
//!
//! A pick grows with the logarithm of the pool and reads two servers.

use fastrand::Rng;

use super::weighted::Weighted;
use super::{Candidate, Load, Pick};

/// The weights.
#[derive(Clone, Debug)]
pub struct LeastTime {
    servers: Weighted,
    /// What a weight of 1 is told as.
    scale: u32,
}

impl Default for LeastTime {
    fn default() -> Self {
        Self {
            servers: Weighted::default(),
            scale: 1,
        }
    }
}

/// One of the two, and what its cost is made of.
struct Choice {
    server: usize,
    connections: u32,
    scale: u32,
    /// Nanoseconds; 0 where none was measured.
    connect_time: u64,
    weight: u64,
}

impl LeastTime {
    /// See [`super::Picker::set_candidates`].
    pub fn set_candidates(&mut self, candidates: &[Candidate]) {
        self.servers.set_candidates(candidates);
    }

    /// See [`super::Picker::set_scale`].
    pub fn set_scale(&mut self, scale: u32) {
        self.scale = scale;
    }

    /// See [`super::Picker::pick`].
    #[inline]
    pub fn pick<L: Load>(&mut self, load: &L, rng: &mut Rng) -> Option<Pick> {
        let place = self.servers.able(load, rng)?;
        let mut choice = self.look(load, place);
        if let Some(second) = self.servers.able_other(load, rng, place) {
            let other = self.look(load, second);
            if other.is_better(&choice) {
                choice = other;
            }
        }
        Some(Pick {
            server: choice.server,
            connections: Some(choice.connections),
        })
    }

    fn look<L: Load>(&self, load: &L, place: usize) -> Choice {
        let server = self.servers.server(place);
        Choice {
            server,
            connections: load.connections(server),
            scale: self.scale,
            connect_time: load.connect_time(server),
            weight: self.servers.weight(place),
        }
    }
}

impl Choice {
    fn is_better(&self, other: &Self) -> bool {
        if self.connect_time == 0 || other.connect_time == 0 {
            let (ours, theirs) = (self.cost(1, other.weight), other.cost(1, self.weight));
            return ours < theirs || (ours == theirs && self.connect_time < other.connect_time);
        }
        let ours = self.cost(self.connect_time, other.weight);
        ours < other.cost(other.connect_time, self.weight)
    }

    /// Multiplied by both weights, where the formula divides by one's own. Saturates at times that
    /// no connect takes.
    fn cost(&self, time: u64, other_weight: u64) -> u128 {
        let connections = u128::from(self.connections) * u128::from(self.scale);
        let load = (connections + u128::from(self.weight)).saturating_mul(time.into());
        load.saturating_mul(other_weight.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fake, candidates};
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    /// Picks and holds `count` connections; how many each server got.
    fn hold(picker: &mut LeastTime, load: &mut Fake, count: usize) -> Vec<u32> {
        let mut rng = Rng::with_seed(11);
        let before = load.connections.clone();
        for _ in 0..count {
            let server = picker.pick(load, &mut rng).unwrap().server;
            load.connections[server] += 1;
        }
        load.connections
            .iter()
            .zip(before)
            .map(|(after, before)| after - before)
            .collect()
    }

    fn picker(weights: &[u32]) -> LeastTime {
        let mut picker = LeastTime::default();
        picker.set_candidates(&candidates(weights));
        picker
    }

    #[test]
    fn moves_away_from_a_slow_server_and_comes_back() {
        let mut picker = picker(&[1; 4]);
        let mut load = Fake::new(4);
        load.connect_times = vec![MILLISECOND; 4];
        load.connect_times[2] = 20 * MILLISECOND;
        let got = hold(&mut picker, &mut load, 4_000);
        assert!(got[2] < 100, "{got:?}");
        load.connect_times[2] = MILLISECOND;
        // It has the fewest connections now, so it wins whenever it is one of the two.
        let got = hold(&mut picker, &mut load, 1_000);
        assert!(got[2] > 450, "{got:?}");
    }

    #[test]
    fn an_unmeasured_server_is_tried_and_not_flooded() {
        let mut picker = picker(&[1; 3]);
        let mut load = Fake::new(3);
        load.connect_times = vec![MILLISECOND, MILLISECOND, 0];
        load.connections = vec![50, 50, 0];
        // No answer ever comes: it is filled up to the others and not beyond.
        hold(&mut picker, &mut load, 300);
        let fullest = load.connections[0].max(load.connections[1]);
        assert!(load.connections[2] > 50 && load.connections[2] <= fullest + 2);
    }

    #[test]
    fn of_equals_the_unmeasured_is_measured() {
        let mut picker = picker(&[1, 1]);
        let mut load = Fake::new(2);
        load.connect_times = vec![1, 0];
        let mut rng = Rng::with_seed(3);
        assert!((0..50).all(|_| picker.pick(&load, &mut rng).unwrap().server == 1));
    }

    #[test]
    fn large_values_do_not_overflow() {
        let mut picker = picker(&[u32::MAX, 1]);
        let mut load = Fake::new(2);
        load.connect_times = vec![u64::MAX >> 8; 2];
        load.connections = vec![u32::MAX; 2];
        assert_eq!(
            picker.pick(&load, &mut Rng::with_seed(1)).unwrap().server,
            0
        );
    }
}
