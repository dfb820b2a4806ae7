//! Streams of numbered, hashed blocks: the oracle for "every byte, once, in order".
//!
//! A stream is fixed by its seed. Each block opens with the seed, its number and a hash of both,
//! and goes on with bytes from a place that the hash picks in one random page. So a receiver that
//! knows the seed notices a lost, doubled, swapped or foreign byte at once, knows after every read
//! that it holds a prefix, and pays a memcmp for it.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::OnceLock;

/// Bytes of a block, header included. Odd, so that no buffer size divides it.
const BLOCK_BYTES: usize = 16_381;
const HEADER_BYTES: usize = 24;
/// Where block bodies are cut from.
const PAGE_BYTES: usize = 64 * 1024;

/// A place in a stream; the sender's and the receiver's are the same thing.
#[derive(Clone, Debug)]
pub(crate) struct Blocks {
    seed: u64,
    number: u64,
    /// Within the block, below `BLOCK_BYTES`.
    offset: usize,
    header: [u8; HEADER_BYTES],
    body_start: usize,
}

/// How a receiver saw its stream end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// In order.
    Fin,
    /// By RST.
    Reset,
}

/// What a receiver holds: a verified prefix, and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) bytes: u64,
    pub(crate) finish: Finish,
}

impl Blocks {
    /// The beginning of the stream with this seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut stream = Self {
            seed,
            number: 0,
            offset: 0,
            header: [0; HEADER_BYTES],
            body_start: 0,
        };
        stream.open_block(0);
        stream
    }

    /// Bytes behind this place.
    pub(crate) fn position(&self) -> u64 {
        self.number * BLOCK_BYTES as u64 + self.offset as u64
    }

    /// Fills `buffer` with the next bytes and moves on.
    pub(crate) fn fill(&mut self, mut buffer: &mut [u8]) {
        while !buffer.is_empty() {
            let piece = self.piece();
            let length = piece.len().min(buffer.len());
            buffer[..length].copy_from_slice(&piece[..length]);
            self.advance(length);
            buffer = &mut buffer[length..];
        }
    }

    /// Whether `received` are the next bytes; moves on where they are.
    pub(crate) fn check(&mut self, mut received: &[u8]) -> Result<(), String> {
        while !received.is_empty() {
            let piece = self.piece();
            let length = piece.len().min(received.len());
            if piece[..length] != received[..length] {
                return Err(format!(
                    "stream {:x} differs within {length} bytes of byte {} (block {})",
                    self.seed,
                    self.position(),
                    self.number
                ));
            }
            self.advance(length);
            received = &received[length..];
        }
        Ok(())
    }

    /// Moves on by `bytes` that were sent from a clone.
    pub(crate) fn skip(&mut self, bytes: u64) {
        let place = self.position() + bytes;
        self.open_block(place / BLOCK_BYTES as u64);
        self.offset = usize::try_from(place % BLOCK_BYTES as u64).expect("below a block's size");
    }

    /// Writes the next `bytes` in large pieces.
    pub(crate) fn send(&mut self, target: &mut impl Write, bytes: u64) -> io::Result<()> {
        self.send_pieces(target, bytes, 256 * 1024)
    }

    /// Writes the next `bytes`, at most `piece` a write.
    pub(crate) fn send_pieces(
        &mut self,
        target: &mut impl Write,
        bytes: u64,
        piece: usize,
    ) -> io::Result<()> {
        let mut buffer = vec![0; piece];
        let mut left = bytes;
        while left > 0 {
            let length = usize::try_from(left).map_or(piece, |left| left.min(piece));
            self.fill(&mut buffer[..length]);
            target.write_all(&buffer[..length])?;
            left -= length as u64;
        }
        Ok(())
    }

    /// Reads and checks exactly `bytes` more.
    #[track_caller]
    pub(crate) fn receive(&mut self, source: &mut impl Read, bytes: u64) {
        let mut buffer = vec![0; 256 * 1024];
        let mut left = bytes;
        while left > 0 {
            let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            let read = source.read(&mut buffer[..length]);
            let read = read.unwrap_or_else(|error| panic!("{left} of {bytes} bytes left: {error}"));
            assert!(read > 0, "the stream ended {left} of {bytes} bytes early");
            self.check(&buffer[..read]).unwrap();
            left -= read as u64;
        }
    }

    /// Reads and checks whatever comes until the stream ends.
    #[track_caller]
    pub(crate) fn receive_to_end(&mut self, source: &mut impl Read) -> Received {
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let finish = match source.read(&mut buffer) {
                Ok(0) => Finish::Fin,
                Ok(read) => {
                    self.check(&buffer[..read]).unwrap();
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::ConnectionReset => Finish::Reset,
                Err(error) => panic!("after {} bytes: {error}", self.position()),
            };
            return Received {
                bytes: self.position(),
                finish,
            };
        }
    }

    /// The rest of the header or of the body that this place is in.
    fn piece(&self) -> &[u8] {
        if self.offset < HEADER_BYTES {
            return &self.header[self.offset..];
        }
        let rest = self.offset - HEADER_BYTES..BLOCK_BYTES - HEADER_BYTES;
        &page()[self.body_start..][rest]
    }

    fn advance(&mut self, bytes: usize) {
        self.offset += bytes;
        if self.offset == BLOCK_BYTES {
            self.offset = 0;
            self.open_block(self.number + 1);
        }
    }

    fn open_block(&mut self, number: u64) {
        let hash = mix(self.seed ^ mix(number));
        self.number = number;
        self.body_start = usize::try_from(hash % PAGE_BYTES as u64).expect("below the page's size");
        self.header[..8].copy_from_slice(&self.seed.to_le_bytes());
        self.header[8..16].copy_from_slice(&number.to_le_bytes());
        self.header[16..].copy_from_slice(&hash.to_le_bytes());
    }
}

/// The finaliser of SplitMix64: every bit of the result depends on every bit of `value`.
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Random, the same in every process, with room for a body at every start.
fn page() -> &'static [u8] {
    static PAGE: OnceLock<Vec<u8>> = OnceLock::new();
    PAGE.get_or_init(|| {
        let mut page = vec![0; PAGE_BYTES + BLOCK_BYTES];
        fastrand::Rng::with_seed(0x6576_656e).fill(&mut page);
        page
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_checks_its_own_bytes_and_no_other() {
        let mut bytes = vec![0; 100_000];
        Blocks::new(7).fill(&mut bytes);
        assert!(Blocks::new(7).check(&bytes).is_ok());
        assert!(Blocks::new(8).check(&bytes).is_err());
        bytes.remove(50_000);
        assert!(Blocks::new(7).check(&bytes).is_err());
    }

    #[test]
    fn a_stream_is_the_same_in_pieces_of_any_size() {
        let mut whole = vec![0; 50_000];
        Blocks::new(3).fill(&mut whole);
        let mut receiver = Blocks::new(3);
        let mut random = fastrand::Rng::with_seed(1);
        let mut rest = &whole[..];
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(random.usize(1..=rest.len().min(700)));
            receiver.check(piece).unwrap();
            rest = behind;
        }
        assert_eq!(receiver.position(), 50_000);
    }
}
