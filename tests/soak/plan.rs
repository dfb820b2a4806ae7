//! What the two ends of one connection do, made from the run's seed and the connection's number
//! alone: so both ends know it, and a failure can be run again.

use std::collections::VecDeque;
use std::time::Duration;

use crate::harness::blocks::mix;

/// Bytes that a client sends first: the connection's number, twice.
pub(crate) const GREETING_BYTES: u64 = 16;

/// One connection.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) ending: Ending,
    pub(crate) upstream: Direction,
    pub(crate) downstream: Direction,
}

/// Who ends, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The server keeps its last part until it has seen the client's FIN.
    ClientFirst,
    /// The client keeps its last part until it has seen the server's FIN.
    ServerFirst,
    /// Neither waits.
    Both,
    /// The client resets where its direction's parts end.
    ClientReset,
    /// The server resets where its direction's parts end.
    ServerReset,
}

/// One direction: what its sender sends and how its receiver reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Direction {
    /// The block stream's.
    pub(crate) seed: u64,
    pub(crate) parts: VecDeque<Part>,
    /// One urgent byte goes out once this many bytes have.
    pub(crate) urgent_at: Option<u64>,
    /// At this many received bytes the receiver looks away for so long.
    pub(crate) stalls: VecDeque<(u64, Duration)>,
    /// The receiver reads at most this much at once.
    pub(crate) read_bytes: usize,
}

/// Bytes that are sent in pieces of one size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) bytes: u64,
    pub(crate) piece: usize,
}

impl Plan {
    /// The plan of connection `number` in the run with `seed`.
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(mix(seed ^ mix(number)));
        let ending = match random.u8(..100) {
            0..35 => Ending::ClientFirst,
            35..70 => Ending::ServerFirst,
            70..80 => Ending::Both,
            80..90 => Ending::ClientReset,
            _ => Ending::ServerReset,
        };
        let upstream = Direction::new(&mut random);
        Self {
            ending,
            upstream,
            downstream: Direction::new(&mut random),
        }
    }
}

impl Direction {
    fn new(random: &mut fastrand::Rng) -> Self {
        let count = if random.u8(..10) == 0 {
            0
        } else {
            random.usize(1..5)
        };
        let parts: VecDeque<Part> = (0..count).map(|_| Part::new(random)).collect();
        let bytes = parts.iter().map(|part| part.bytes).sum::<u64>();
        let mut stalls: Vec<_> = (0..if random.u8(..10) < 3 {
            random.u8(1..4)
        } else {
            0
        })
            .map(|_| {
                (
                    random.u64(..=bytes),
                    Duration::from_millis(random.u64(1..100)),
                )
            })
            .collect();
        stalls.sort_unstable();
        Self {
            seed: random.u64(..),
            urgent_at: (random.u8(..10) == 0).then(|| random.u64(..=bytes)),
            stalls: stalls.into(),
            read_bytes: if random.u8(..10) == 0 {
                random.usize(1..5_000)
            } else {
                1 << 18
            },
            parts,
        }
    }

    /// All that its sender sends, but for a greeting and an urgent byte.
    pub(crate) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }
}

impl Part {
    /// Half are small messages, half bulk; most bulk is small enough for many to go by.
    fn new(random: &mut fastrand::Rng) -> Self {
        if random.bool() {
            let piece = random.usize(1..1_500);
            return Self {
                bytes: random.u64(1..100) * piece as u64,
                piece,
            };
        }
        let magnitude = if random.u8(..50) == 0 {
            26
        } else {
            random.u32(14..25)
        };
        Self {
            bytes: random.u64(1..1 << magnitude),
            piece: 1 << 18,
        }
    }
}
