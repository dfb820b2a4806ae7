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
