//! Where probes live: numbered places that are used again, so that timer keys stay small however
//! many servers come and go.
//!
//! A place's generation grows with each check and each occupant. Whatever refers to a check, an
//! epoll event or a place in the queue, carries place and generation in a token, and a token whose
//! generation is over leads nowhere: here, and only here, what is stale is dropped.
//!
//! It knows which server has which probe, and nothing of checks.

use std::collections::HashMap;

use mio::Token;

use super::probe::Probe;
use crate::ids::ServerId;

/// All probes, by place and by server.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Indexed by timer key.
    places: Vec<Place>,
    /// Keys of empty places.
    free: Vec<u32>,
    keys: HashMap<ServerId, u32>,
}

#[derive(Debug, Default)]
struct Place {
    /// Wraps after 4 billion checks: no event is on its way for that long.
    generation: u32,
    probe: Option<Probe>,
}

impl Places {
    /// Probes that there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Every place that is taken.
    #[cfg(test)]
    pub(super) fn keys(&self) -> Vec<u32> {
        self.keys.values().copied().collect()
    }

    /// Where the server's probe is.
    pub(super) fn find(&self, server: ServerId) -> Option<u32> {
        self.keys.get(&server).copied()
    }

    /// Takes a free place for the probe of `server`, which has none.
    pub(super) fn put(&mut self, server: ServerId, make: impl FnOnce(u32) -> Probe) -> u32 {
        let key = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            u32::try_from(self.places.len() - 1).expect("the config's limits are far below 2^32")
        });
        let place = &mut self.places[key as usize];
        debug_assert!(place.probe.is_none(), "a free place is empty");
        place.probe = Some(make(key));
        self.keys.insert(server, key);
        key
    }

    /// Takes the server's probe out; tokens for it lead nowhere from now on.
    pub(super) fn remove(&mut self, server: ServerId) -> Option<(u32, Probe)> {
        let key = self.keys.remove(&server)?;
        let place = &mut self.places[key as usize];
        place.generation = place.generation.wrapping_add(1);
        self.free.push(key);
        Some((key, place.probe.take()?))
    }

    /// The probe at a place.
    pub(super) fn probe(&mut self, key: u32) -> Option<&mut Probe> {
        self.places.get_mut(key as usize)?.probe.as_mut()
    }

    /// What leads to the probe at a place until its next check, or until it is removed.
    pub(super) fn token(&self, key: u32) -> Token {
        token(key, self.places[key as usize].generation)
    }

    /// The same for the check that begins now: earlier tokens lead nowhere from now on.
    pub(super) fn renew(&mut self, key: u32) -> Token {
        let place = &mut self.places[key as usize];
        place.generation = place.generation.wrapping_add(1);
        token(key, place.generation)
    }

    /// The probe that a token leads to.
    pub(super) fn follow(&mut self, token: Token) -> Option<(u32, &mut Probe)> {
        let (key, generation) = parts(token);
        let place = self.places.get_mut(key as usize)?;
        if place.generation != generation {
            return None;
        }
        Some((key, place.probe.as_mut()?))
    }
}

/// The place in the low half, the generation in the high one.
fn token(key: u32, generation: u32) -> Token {
    Token((generation as usize) << 32 | key as usize)
}

fn parts(token: Token) -> (u32, u32) {
    let half = |bits: usize| u32::try_from(bits).expect("a half of 64 bits fits 32");
    (half(token.0 & u32::MAX as usize), half(token.0 >> 32))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::address::Address;
    use crate::clock::Now;
    use crate::config::{Check, Health};
    use crate::prober::Target;
    use crate::prober::schedule::Pace;

    fn put(places: &mut Places, server: usize) -> u32 {
        let health = Health {
            check: Check::Tcp,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: NonZeroU32::MIN,
            fall: NonZeroU32::MIN,
            port: None,
            tls: None,
        };
        let server = ServerId::new(server);
        let target = Target {
            server,
            name: "pool/server".into(),
            address: Address::local(1),
            sources: Vec::new(),
            health: Arc::new(health),
            kit: Arc::default(),
            checkup: Arc::default(),
        };
        let now = Now::default();
        places.put(server, |key| {
            Probe::new(target, key, now, &mut Pace::new(now))
        })
    }

    #[test]
    fn a_token_leads_to_its_check_and_never_to_a_later_one() {
        let mut places = Places::default();
        let key = put(&mut places, 7);
        let queued = places.token(key);
        assert_eq!(places.follow(queued).unwrap().0, key);
        let first = places.renew(key);
        let second = places.renew(key);
        for stale in [queued, first] {
            assert!(places.follow(stale).is_none());
        }
        assert!(places.follow(second).is_some());
        assert!(places.follow(crate::prober::WAKE).is_none());
    }

    #[test]
    fn a_place_is_used_again_and_its_tokens_are_not() {
        let mut places = Places::default();
        for server in 0..3 {
            assert_eq!(put(&mut places, server) as usize, server);
        }
        let token = places.renew(1);
        assert_eq!(places.remove(ServerId::new(1)).unwrap().0, 1);
        assert!(places.remove(ServerId::new(1)).is_none());
        assert!(places.follow(token).is_none() && places.probe(1).is_none());
        assert_eq!(put(&mut places, 100), 1);
        assert!(places.follow(token).is_none());
        assert_eq!(places.find(ServerId::new(100)), Some(1));
        assert_eq!((places.find(ServerId::new(1)), places.len()), (None, 3));
    }
}
