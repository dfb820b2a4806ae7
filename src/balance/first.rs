//! The first server of the list that can take the connection: servers fill up one after the other,
//! to `max_connections` each, and those at the end of the list stay free to be switched off. This
//! is HAProxy's `balance first`. Weights do not matter, except that 0 is never picked.
//!
//! A pick asks the full servers at the front of the list and one more: it grows with how many are
//! full, about 1 ns each. No place is remembered, because any of them may have room again.

use super::{Candidate, Load, Pick};

/// The order of the list.
#[derive(Clone, Debug, Default)]
pub struct First {
    /// Those that may be picked, in the order of the pool.
    servers: Vec<u32>,
}

impl First {
    /// See [`super::Picker::set_candidates`].
    pub fn set_candidates(&mut self, candidates: &[Candidate]) {
        let numbered = (0..).zip(candidates);
        let eligible = numbered.filter(|(_, candidate)| candidate.share() > 0);
        self.servers.clear();
        self.servers.extend(eligible.map(|(server, _)| server));
    }

    /// See [`super::Picker::pick`].
    #[inline]
    pub fn pick<L: Load>(&mut self, load: &L) -> Option<Pick> {
        let mut servers = self.servers.iter().map(|&server| server as usize);
        let server = servers.find(|&server| load.can_take(server))?;
        Some(Pick {
            server,
            connections: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fake, candidates};
    use super::*;

    #[test]
    fn fills_in_order_and_returns_to_the_front() {
        let mut picker = First::default();
        picker.set_candidates(&candidates(&[1, 0, 9, 1]));
        let mut load = Fake::new(4);
        for (server, next) in [(0, Some(2)), (2, Some(3)), (3, None)] {
            assert_eq!(picker.pick(&load).map(|pick| pick.server), Some(server));
            load.full[server] = true;
            assert_eq!(picker.pick(&load).map(|pick| pick.server), next);
        }
        load.full[0] = false;
        assert_eq!(picker.pick(&load).map(|pick| pick.server), Some(0));
    }
}
