//! What an epoll event is about, packed into the 64 bits that the kernel gives back.
//!
//! A socket's token carries the generation of its table slot: events of one batch may speak of a
//! descriptor that was closed, and reused, while the batch was worked on (trap 15).

use mio::Token;

use super::command::DoorId;
use crate::end::Side;

/// A connection's place in the table, good until the connection is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    Mailbox,
    /// One of the worker's doors, or one that was: ids are never reused, so that an event of a door
    /// that was closed in the same batch finds nobody.
    Door(DoorId),
    Socket(Key, Side),
}

/// Slots that no connection has: the table ends well below.
const SLOT_MAX: u32 = (1 << 31) - 4;
const MAILBOX: u32 = SLOT_MAX + 1;
const DOOR: u32 = SLOT_MAX + 2;
const SLOT_BITS: u32 = 31;
/// The lowest bit says which side; slot and generation follow.
const SIDE_BITS: u32 = 1;

const _: () = assert!(usize::BITS == 64);

impl About {
    pub(super) fn token(self) -> Token {
        let (slot, generation, side) = match self {
            Self::Mailbox => (MAILBOX, 0, Side::Client),
            Self::Door(door) => (DOOR, door.0 as usize, Side::Client),
            Self::Socket(key, side) => (key.slot, key.generation as usize, side),
        };
        let side = usize::from(side == Side::Server);
        Token(generation << (SLOT_BITS + SIDE_BITS) | (slot as usize) << SIDE_BITS | side)
    }

    #[allow(
        clippy::cast_possible_truncation,
        reason = "takes 31 and 32 bits apart"
    )]
    pub(super) fn of(token: Token) -> Self {
        let generation = token.0 >> (SLOT_BITS + SIDE_BITS);
        let slot = (token.0 >> SIDE_BITS) as u32 & ((1 << SLOT_BITS) - 1);
        let side = if token.0 & 1 == 1 {
            Side::Server
        } else {
            Side::Client
        };
        match slot {
            MAILBOX => Self::Mailbox,
            DOOR => Self::Door(DoorId(generation as u32)),
            slot => Self::Socket(
                Key {
                    slot,
                    generation: generation as u32,
                },
                side,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let mut all = vec![
            About::Mailbox,
            About::Door(DoorId(0)),
            About::Door(DoorId(u32::MAX)),
        ];
        for (slot, generation) in [(0, 0), (SLOT_MAX, u32::MAX), (7, 1)] {
            let key = Key { slot, generation };
            all.extend([
                About::Socket(key, Side::Client),
                About::Socket(key, Side::Server),
            ]);
        }
        for about in all {
            assert_eq!(About::of(about.token()), about);
        }
    }
}
