//! What is kept of one connection, as cells of shared memory.
//!
//! | cell  | what                                                                     |
//! |-------|--------------------------------------------------------------------------|
//! | 0     | whether the others are true; cleared before they change, set when all are |
//! | 1, 2  | cookies of the client's and the server's socket                          |
//! | 3     | id of the connection                                                     |
//! | 4     | listener, pool                                                           |
//! | 5     | server, flags, leading bits of the source's prefix                       |
//! | 6, 7  | the client's address                                                     |
//! | 8     | ports of the client and of where it had connected to; the client's scope |
//! | 9, 10 | where it had connected to                                                |
//! | 11-13 | accepted, picked, connected                                              |
//! | 14    | bytes ahead: given, taken                                                |
//! | 15    | nothing yet                                                              |

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::proof::Ahead;
use crate::sys::shared::Cells;

/// Of one record.
pub(super) const CELLS: usize = 16;
/// What stands in cell 0 of one that is true.
const TRUE: u64 = 0x4556_4e4b_4c52_4543;

const HAS_POOL: u32 = 1;
const HAS_CLIENT: u32 = 1 << 1;
const IS_CLIENT_SIX: u32 = 1 << 2;
const HAS_DESTINATION: u32 = 1 << 3;
const IS_DESTINATION_SIX: u32 = 1 << 4;
const HAS_SOURCE: u32 = 1 << 5;
const SOURCE_SHIFT: u32 = 8;

/// The place of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(NonZeroU32);

impl Slot {
    pub(super) fn new(index: u32) -> Option<Self> {
        NonZeroU32::new(index.checked_add(1)?).map(Self)
    }

    pub(super) fn index(self) -> u32 {
        self.0.get() - 1
    }
}

/// What is kept of one connection. Numbers are those of the process that writes it, times are
/// nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// As the access log will have it.
    pub id: u64,
    /// Where it came in.
    pub listener: u32,
    /// Where it goes, if not where the listener says.
    pub pool: Option<u32>,
    /// Whose place it holds.
    pub server: u32,
    /// Of its socket, or what a PROXY header says.
    pub client: Option<SocketAddr>,
    /// Where it had connected to, by a PROXY header.
    pub destination: Option<SocketAddr>,
    /// Leading bits of 128 by which it is counted among its source's.
    pub source_bits: Option<u8>,
    /// When it came.
    pub accepted: u64,
    /// When its server was picked.
    pub picked: u64,
    /// When that had accepted.
    pub connected: u64,
    /// PROXY headers.
    pub ahead: Ahead,
}

/// Cookies of the client's and the server's socket.
pub(super) type Cookies = [u64; 2];

pub(super) fn cells(shared: &Cells, from: usize) -> Option<&[AtomicU64; CELLS]> {
    shared.get(from..)?.first_chunk()
}

/// Writes a record that is false until it is whole, wherever the process is killed.
pub(super) fn write(place: &[AtomicU64; CELLS], record: &Record, cookies: Cookies) {
    clear(place);
    let [_, cells @ ..] = place;
    for (cell, value) in cells.iter().zip(record.to_words(cookies)) {
        cell.store(value, Ordering::Relaxed);
    }
    place[0].store(TRUE, Ordering::Release);
}

/// Makes a record false.
pub(super) fn clear(place: &[AtomicU64; CELLS]) {
    place[0].store(0, Ordering::Relaxed);
    fence(Ordering::Release);
}

/// A record that is true.
pub(super) fn read(place: &[AtomicU64; CELLS]) -> Option<(Record, Cookies)> {
    if place[0].load(Ordering::Acquire) != TRUE {
        return None;
    }
    let words = place.each_ref().map(|cell| cell.load(Ordering::Relaxed));
    Some((Record::of_words(&words), [words[1], words[2]]))
}

impl Record {
    fn to_words(self, [client, server]: Cookies) -> [u64; CELLS - 1] {
        let flag = |is_so: bool, flag: u32| if is_so { flag } else { 0 };
        let is_six = |address: Option<SocketAddr>| address.is_some_and(|it| it.is_ipv6());
        let flags = flag(self.pool.is_some(), HAS_POOL)
            | flag(self.client.is_some(), HAS_CLIENT)
            | flag(is_six(self.client), IS_CLIENT_SIX)
            | flag(self.destination.is_some(), HAS_DESTINATION)
            | flag(is_six(self.destination), IS_DESTINATION_SIX)
            | flag(self.source_bits.is_some(), HAS_SOURCE)
            | u32::from(self.source_bits.unwrap_or(0)) << SOURCE_SHIFT;
        let port = |address: Option<SocketAddr>| address.map_or(0, |it| u32::from(it.port()));
        let scope = match self.client {
            Some(SocketAddr::V6(six)) => six.scope_id(),
            _ => 0,
        };
        let [client_high, client_low] = halves(self.client);
        let [destination_high, destination_low] = halves(self.destination);
        [
            client,
            server,
            self.id,
            joined(self.listener, self.pool.unwrap_or(0)),
            joined(self.server, flags),
            client_high,
            client_low,
            joined(port(self.client) << 16 | port(self.destination), scope),
            destination_high,
            destination_low,
            self.accepted,
            self.picked,
            self.connected,
            joined(self.ahead.given.into(), self.ahead.taken.into()),
            0,
        ]
    }

    fn of_words(words: &[u64; CELLS]) -> Self {
        let (listener, pool) = parted(words[4]);
        let (server, flags) = parted(words[5]);
        let (ports, scope) = parted(words[8]);
        let (given, taken) = parted(words[14]);
        let has = |flag: u32| flags & flag != 0;
        let address = |halves: [u64; 2], is_six: bool, port: u32, scope: u32| {
            let port = u16::try_from(port & 0xffff).unwrap_or(0);
            let six = Ipv6Addr::from((u128::from(halves[0]) << 64) | u128::from(halves[1]));
            match six.to_ipv4_mapped().filter(|_| !is_six) {
                Some(four) => SocketAddr::new(IpAddr::V4(four), port),
                None => SocketAddrV6::new(six, port, 0, scope).into(),
            }
        };
        let client = address([words[6], words[7]], has(IS_CLIENT_SIX), ports >> 16, scope);
        let destination = address([words[9], words[10]], has(IS_DESTINATION_SIX), ports, 0);
        let [_, bits, ..] = flags.to_le_bytes();
        Self {
            id: words[3],
            listener,
            pool: has(HAS_POOL).then_some(pool),
            server,
            client: has(HAS_CLIENT).then_some(client),
            destination: has(HAS_DESTINATION).then_some(destination),
            source_bits: has(HAS_SOURCE).then_some(bits),
            accepted: words[11],
            picked: words[12],
            connected: words[13],
            ahead: Ahead {
                given: u16::try_from(given).unwrap_or(u16::MAX),
                taken: u16::try_from(taken).unwrap_or(u16::MAX),
            },
        }
    }
}

/// An address as 128 bits; IPv4 is mapped into IPv6.
fn halves(address: Option<SocketAddr>) -> [u64; 2] {
    let bits = match address.map(|address| address.ip()) {
        None => 0,
        Some(IpAddr::V4(four)) => u128::from(four.to_ipv6_mapped()),
        Some(IpAddr::V6(six)) => u128::from(six),
    };
    let low = u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0);
    [u64::try_from(bits >> 64).unwrap_or(0), low]
}

fn joined(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn parted(word: u64) -> (u32, u32) {
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0);
    (half(word >> 32), half(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> [AtomicU64; CELLS] {
        [(); CELLS].map(|()| AtomicU64::new(u64::MAX))
    }

    fn full(client: &str, destination: &str) -> Record {
        Record {
            id: u64::MAX - 1,
            listener: 1,
            pool: Some(u32::MAX),
            server: 3,
            client: Some(client.parse().unwrap()),
            destination: Some(destination.parse().unwrap()),
            source_bits: Some(128),
            accepted: 5,
            picked: 6,
            connected: 7,
            ahead: Ahead {
                given: 28,
                taken: 536,
            },
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let records = [
            Record::default(),
            full("192.0.2.1:65535", "[2001:db8::1]:1"),
            full("[fe80::1%7]:2", "198.51.100.3:443"),
            // Of the family of its socket, whatever it looks like.
            full("[::ffff:192.0.2.1]:3", "[::]:4"),
        ];
        for record in records {
            let place = place();
            assert_eq!(read(&place), None);
            write(&place, &record, [8, 9]);
            assert_eq!(read(&place), Some((record, [8, 9])));
            clear(&place);
            assert_eq!(read(&place), None);
        }
    }

    #[test]
    fn a_slot_is_a_number_from_0_on_and_takes_no_room_beside_it() {
        assert_eq!(Slot::new(0).unwrap().index(), 0);
        assert_eq!(Slot::new(u32::MAX), None);
        assert_eq!(size_of::<Option<Slot>>(), 4);
    }
}
