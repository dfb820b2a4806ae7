//! Connections that outlive a process that was killed: their sockets lie with somebody else as well,
//! and what is to be known of them in memory that outlives it.
//!
//! ```text
//! worker -- Lot ---> store    duplicates of both sockets: systemd's file descriptor store, or a keeper
//!           `------> shelf    one record a connection; who is who by name; shared memory, in the store
//! next start: store -> parked: the records whose bytes are proved to be all there (proof), as a
//!                              handover would bring them; all others are reset
//! ```
//! A record is written once, and nothing at all is done for a byte: what was carried, the kernel has
//! counted. Short connections cost nothing either: one is parked when it has lived for [`AGE`].
//!
//! As duplicates keep a socket alive, closing one ends nothing any more: whoever ends a parked connection
//! shuts it down both ways first, or disconnects it. Its store then drops the duplicates by itself,
//! for they hang up.
//!
//! It knows sockets and records, and neither what a worker is nor what else a process does at its start.

mod keeper;
mod lot;
mod message;
mod parked;
mod proof;
mod record;
mod shelf;
mod store;

use std::sync::Arc;
use std::time::Duration;

pub use keeper::{Keeper, KeeperError, PATIENCE as KEEPER_PATIENCE};
pub use lot::Lot;
pub use parked::{Parked, is_ours};
pub use proof::{Ahead, delivered, exchanged_ahead};
pub use record::{Record, Slot};
pub use shelf::{Shelf, ShelfError};
pub use store::{KeptBy, Store, TakeError};

/// Where a process parks its connections.
#[derive(Clone, Debug)]
pub struct Parking {
    /// What is known of them.
    pub shelf: Arc<Shelf>,
    /// Who has their sockets.
    pub store: Arc<Store>,
    /// Among how many workers the places are shared out.
    pub workers: usize,
}

impl Parking {
    /// What the worker `index` has of it.
    pub fn lot<K: Copy + PartialEq>(&self, index: usize) -> Lot<K> {
        let (shelf, store) = (Arc::clone(&self.shelf), Arc::clone(&self.store));
        Lot::new(shelf, store, index, self.workers)
    }
}

/// How old a connection is when it is parked. Most connections are gone by then, and each that is parked
/// is work for others too: systemd compares it with all that it holds.
pub const AGE: Duration = Duration::from_millis(100);

/// What a store calls the sockets. Short, because systemd gives the names of all of them to the next
/// process in one variable of the environment, which has 128 KiB (MAX_ARG_STRLEN); and no name that
/// somebody would give to a socket unit.
pub const SOCKET_NAME: &str = "+";
/// What a store calls the memory, with the number of its generation behind it.
pub const MEMORY_NAME: &str = "evenkeel+";

/// Most connections in systemd's store: two names each, with a colon, in 128 KiB, and some to spare for
/// other names and for those that have ended and were not dropped yet. With more, the service could not
/// be started.
pub const SYSTEMD_MAX: u32 = 30_000;
const _: () = assert!(SYSTEMD_MAX as usize * 2 * (SOCKET_NAME.len() + 1) <= 120 * 1024);

/// Most connections in a keeper: half of what a process may have open at most (the kernel's default
/// `fs.nr_open`).
pub const KEEPER_MAX: u32 = 1 << 19;
/// Descriptors of a keeper's own: standard streams, an epoll instance, where it is found, a few processes
/// and the memory that they have left.
const KEEPER_OWN: u64 = 16;

/// Connections that a keeper holds which may have `limit` descriptors.
#[must_use]
pub fn keeper_room(limit: u64) -> u32 {
    let room = limit.saturating_sub(KEEPER_OWN) / 2;
    u32::try_from(room).map_or(KEEPER_MAX, |room| room.min(KEEPER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_holds_two_descriptors_for_each() {
        for (limit, room) in [
            (0, 0),
            (17, 0),
            (18, 1),
            (1024, 504),
            (u64::MAX, KEEPER_MAX),
        ] {
            assert_eq!(keeper_room(limit), room, "{limit}");
        }
    }
}
