//! MySQL's packets at the beginning of a session: the server's greeting, the answer to it, and what
//! the server makes of that.
//!
//! A packet is a length of three bytes, the lowest first, a number that counts packets, and a
//! payload. What is not well-formed is `None`; which answer is good is the caller's business.

use thiserror::Error;

/// More than a server says before a session begins: a greeting has some 100 bytes.
pub const PACKET_MAX_BYTES: usize = 8 * 1024;

/// Ends the session in order.
pub const QUIT: &[u8] = b"\x01\0\0\0\x01";

const HEAD_BYTES: usize = 4;

const PROTOCOL_VERSION: u8 = 10;
const LONG_PASSWORD: u32 = 1;
const PROTOCOL_41: u32 = 0x200;
const TRANSACTIONS: u32 = 0x2000;
const SECURE_CONNECTION: u32 = 0x8000;
const PLUGIN_AUTH: u32 = 0x8_0000;
/// What we can do; each server of the last twenty years can, up to the plugins.
const CAPABILITIES: u32 =
    LONG_PASSWORD | PROTOCOL_41 | TRANSACTIONS | SECURE_CONNECTION | PLUGIN_AUTH;

/// utf8 in every version.
const CHARACTER_SET: u8 = 33;

/// The bytes are no packet of a length that is expected here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a MySQL packet")]
pub struct NotAPacket;

/// One packet from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The answer has the next number.
    pub number: u8,
    /// What it carries.
    pub payload: &'a [u8],
}

/// Puts packets together.
#[derive(Debug, Default)]
pub struct PacketReader {
    held: Vec<u8>,
    is_whole: bool,
}

impl PacketReader {
    /// Forgets what has come.
    pub fn restart(&mut self) {
        self.held.clear();
        self.is_whole = false;
    }

    /// Takes bytes up to the end of a packet, or all; the packet where it is whole.
    ///
    /// # Errors
    /// It is empty, or longer than [`PACKET_MAX_BYTES`].
    pub fn read(&mut self, bytes: &mut &[u8]) -> Result<Option<Packet<'_>>, NotAPacket> {
        if self.is_whole {
            self.restart();
        }
        self.fill(HEAD_BYTES, bytes);
        let Some(&[low, middle, high, number]) = self.held.first_chunk() else {
            return Ok(None);
        };
        let length = usize::from(low) | usize::from(middle) << 8 | usize::from(high) << 16;
        if !(1..=PACKET_MAX_BYTES).contains(&length) {
            return Err(NotAPacket);
        }
        self.fill(HEAD_BYTES + length, bytes);
        self.is_whole = self.held.len() == HEAD_BYTES + length;
        Ok(self.is_whole.then(|| Packet {
            number,
            payload: &self.held[HEAD_BYTES..],
        }))
    }

    /// Holds `length` bytes, or as many as there are.
    fn fill(&mut self, length: usize, bytes: &mut &[u8]) {
        let missing = length.saturating_sub(self.held.len()).min(bytes.len());
        let (mine, rest) = bytes.split_at(missing);
        self.held.extend_from_slice(mine);
        *bytes = rest;
    }
}

/// The first packet of a server that takes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting<'a> {
    /// Twenty bytes, new for each connection.
    pub challenge: [u8; 20],
    /// How the server would like to be logged in to; empty where it does not say.
    pub plugin: &'a [u8],
}

impl<'a> Greeting<'a> {
    /// Of protocol version 10, with all that [`response`] needs.
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let (&version, rest) = payload.split_first()?;
        let (_, rest) = until_zero(rest)?;
        let (_thread, rest) = rest.split_first_chunk::<4>()?;
        let (first, rest) = rest.split_first_chunk::<8>()?;
        let (&[_, low, high], rest) = rest.split_first_chunk::<3>()?;
        let (&[_, _, _, third, fourth, _], rest) = rest.split_first_chunk::<6>()?;
        let capabilities = u32::from_le_bytes([low, high, third, fourth]);
        if version != PROTOCOL_VERSION || capabilities & PROTOCOL_41 == 0 {
            return None;
        }
        let (_reserved, rest) = rest.split_first_chunk::<10>()?;
        let (second, rest) = rest.split_first_chunk::<12>()?;
        let mut challenge = [0; 20];
        challenge[..8].copy_from_slice(first);
        challenge[8..].copy_from_slice(second);
        let plugin = match rest.split_first() {
            Some((0, name)) if capabilities & PLUGIN_AUTH != 0 => {
                // An old server left out the zero after the name.
                until_zero(name).map_or(name, |(name, _)| name)
            }
            _ => &[],
        };
        Some(Self { challenge, plugin })
    }
}

/// What the server makes of an answer, or says instead of its greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The session has begun.
    Ok,
    /// It will not.
    Error {
        /// As MySQL's manual lists them.
        code: u16,
        /// For people.
        message: &'a [u8],
    },
    /// To be answered in another way.
    Switch {
        /// Which.
        plugin: &'a [u8],
        /// What the other way begins with.
        data: &'a [u8],
    },
    /// The way that was chosen goes on.
    More(&'a [u8]),
}

impl<'a> Reply<'a> {
    /// `None` for anything else.
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = payload.split_first()?;
        match kind {
            0x00 => Some(Self::Ok),
            0x01 => Some(Self::More(rest)),
            0xfe => {
                let (plugin, data) = until_zero(rest).unwrap_or((rest, &[]));
                let data = data.strip_suffix(&[0]).unwrap_or(data);
                Some(Self::Switch { plugin, data })
            }
            0xff => {
                let (code, rest) = rest.split_first_chunk()?;
                // Before the handshake there is no SQL state.
                let message = match rest.split_first() {
                    Some((b'#', rest)) => rest.get(5..)?,
                    _ => rest,
                };
                let code = u16::from_le_bytes(*code);
                Some(Self::Error { code, message })
            }
            _ => None,
        }
    }
}

/// The payload that answers a greeting. Zeros in `user` would end it: it ends there.
pub fn response(user: &str, plugin: &str, proof: &[u8]) -> Vec<u8> {
    let mut payload = CAPABILITIES.to_le_bytes().to_vec();
    payload.extend_from_slice(&(1_u32 << 24).to_le_bytes());
    payload.push(CHARACTER_SET);
    payload.extend_from_slice(&[0; 23]);
    payload.extend(user.bytes().take_while(|&byte| byte != 0));
    payload.push(0);
    // Proofs have 20 or 32 bytes.
    payload.push(u8::try_from(proof.len()).unwrap_or(u8::MAX));
    payload.extend(proof.iter().take(usize::from(u8::MAX)));
    payload.extend_from_slice(plugin.as_bytes());
    payload.push(0);
    payload
}

/// What is sent; the payload has less than 64 KiB.
pub fn packet(number: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let [low, middle] = length.to_le_bytes();
    let mut packet = vec![low, middle, 0, number];
    packet.extend_from_slice(&payload[..usize::from(length)]);
    packet
}

fn until_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As a server of today greets.
    pub(crate) fn greeting(plugin: &str) -> Vec<u8> {
        let mut payload = b"\x0a11.4.2-MariaDB\0\x07\0\0\0abcdefgh\0".to_vec();
        let capabilities = CAPABILITIES.to_le_bytes();
        payload.extend_from_slice(&capabilities[..2]);
        payload.extend_from_slice(&[33, 2, 0]);
        payload.extend_from_slice(&capabilities[2..]);
        payload.push(21);
        payload.extend_from_slice(&[0; 10]);
        payload.extend_from_slice(b"ijklmnopqrst\0");
        payload.extend_from_slice(plugin.as_bytes());
        payload.push(0);
        payload
    }

    #[test]
    fn greetings_are_read_and_may_not_be_short() {
        let bytes = greeting("mysql_native_password");
        let greeting = Greeting::parse(&bytes).unwrap();
        assert_eq!(&greeting.challenge, b"abcdefghijklmnopqrst");
        assert_eq!(greeting.plugin, b"mysql_native_password");
        let needed = bytes.len() - "\0mysql_native_password\0".len();
        for length in 0..needed {
            assert_eq!(Greeting::parse(&bytes[..length]), None, "{length}");
        }
    }

    #[test]
    fn replies_are_told_apart() {
        let error = Reply::parse(b"\xff\x15\x04#28000Access denied");
        let denied = |message| Reply::Error {
            code: 1045,
            message,
        };
        assert_eq!(error, Some(denied(b"Access denied".as_slice())));
        let early = Reply::parse(b"\xff\x15\x04Access denied");
        assert_eq!(early, Some(denied(b"Access denied".as_slice())));
        let (plugin, data): (&[u8], &[u8]) = (b"p", b"data");
        let switch = Reply::Switch { plugin, data };
        assert_eq!(Reply::parse(b"\xfep\0data\0"), Some(switch));
        assert_eq!(Reply::parse(b"\xff\x15"), None);
        assert_eq!(Reply::parse(b"HTTP"), None);
    }

    fn read_all(pieces: &[&[u8]]) -> Result<Vec<(u8, Vec<u8>)>, NotAPacket> {
        let mut reader = PacketReader::default();
        let mut all = Vec::new();
        for mut piece in pieces.iter().copied() {
            while !piece.is_empty() {
                let packet = reader.read(&mut piece)?;
                all.extend(packet.map(|packet| (packet.number, packet.payload.to_vec())));
            }
        }
        Ok(all)
    }

    proptest! {
        #[test]
        fn random_bytes_are_read_and_pieces_change_nothing(
            bytes in proptest::collection::vec(prop_oneof![0_u8..8, any::<u8>()], 0..200),
            cut in 0_usize..200,
        ) {
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(read_all(&[head, tail]), read_all(&[&bytes]));
            let is_greeting = Greeting::parse(&bytes).is_some();
            prop_assert!(!is_greeting || bytes[0] == PROTOCOL_VERSION);
            prop_assert!(Reply::parse(&bytes).is_none() || !bytes.is_empty());
        }
    }
}
