//! A worker's connections by slot, each slot with a generation that changes when it is freed.

use slab::Slab;

use super::connection::Connection;
use super::token::Key;

/// The connections of one worker.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Slab<Connection>,
    /// By slot; as long as the table ever was.
    generations: Vec<u32>,
}

impl Table {
    pub(super) fn insert(&mut self, connection: Connection) -> Key {
        let slot = self.slots.insert(connection);
        if slot >= self.generations.len() {
            self.generations.resize(slot + 1, 0);
        }
        self.key(slot)
    }

    /// `None` for a key whose connection is gone, whoever has the slot now.
    pub(super) fn find(&mut self, key: Key) -> Option<&mut Connection> {
        if self.generations.get(key.slot as usize) != Some(&key.generation) {
            return None;
        }
        self.slots.get_mut(key.slot as usize)
    }

    /// As [`Self::find`], to be looked at.
    pub(super) fn look_at(&self, key: Key) -> Option<&Connection> {
        if self.generations.get(key.slot as usize) != Some(&key.generation) {
            return None;
        }
        self.slots.get(key.slot as usize)
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Connection> {
        self.find(key)?;
        let generation = &mut self.generations[key.slot as usize];
        *generation = generation.wrapping_add(1);
        self.slots.try_remove(key.slot as usize)
    }

    /// The key of whoever has the slot now.
    pub(super) fn at(&self, slot: u32) -> Option<Key> {
        self.slots
            .contains(slot as usize)
            .then(|| self.key(slot as usize))
    }

    /// Slots there have ever been: each below may have a connection.
    pub(super) fn slots(&self) -> usize {
        self.generations.len()
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.slots.iter().map(|(slot, _)| self.key(slot)).collect()
    }

    /// Every connection.
    pub(super) fn all(&self) -> impl Iterator<Item = (Key, &Connection)> {
        let slots = self.slots.iter();
        slots.map(|(slot, connection)| (self.key(slot), connection))
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn key(&self, slot: usize) -> Key {
        let generation = self.generations[slot];
        Key {
            slot: u32::try_from(slot).expect("descriptors are fewer than 2^31"),
            generation,
        }
    }
}
