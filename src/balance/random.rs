//! At random, by weight: nothing is compared and nothing is remembered, so any number of workers
//! and of machines agree on the shares without knowing of each other.
//!
//! Loads differ by chance: with `n` connections on a server expect plus or minus `sqrt(n)`. A pick
//! grows with the logarithm of the pool.

use fastrand::Rng;

use super::weighted::Weighted;
use super::{Candidate, Load, Pick};

/// The weights.
#[derive(Clone, Debug, Default)]
pub struct Random {
    servers: Weighted,
}

impl Random {
    /// See [`super::Picker::set_candidates`].
    pub fn set_candidates(&mut self, candidates: &[Candidate]) {
        self.servers.set_candidates(candidates);
    }

    /// See [`super::Picker::pick`].
    #[inline]
    pub fn pick<L: Load>(&mut self, load: &L, rng: &mut Rng) -> Option<Pick> {
        let place = self.servers.able(load, rng)?;
        Some(Pick {
            server: self.servers.server(place),
            connections: None,
        })
    }
}
