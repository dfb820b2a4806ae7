//! HTTP/2's frames (RFC 9113): put together from pieces, and made.
//!
//! Only what one request on one connection needs. What a frame means at which time is the caller's
//! business; headers are read by [`super::hpack`].

use thiserror::Error;

/// What a client says first, before its SETTINGS.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The largest payload that need not be negotiated; larger ones are refused.
pub const PAYLOAD_MAX_BYTES: usize = 16 * 1024;

/// Of SETTINGS and PING: an answer to one's own.
pub const ACK: u8 = 0x1;
/// Of DATA and HEADERS: the sender's last on this stream.
pub const END_STREAM: u8 = 0x1;
/// Of HEADERS and CONTINUATION: the block is whole.
pub const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Length, kind, flags and stream.
const HEAD_BYTES: usize = 9;
const PRIORITY_BYTES: usize = 5;

/// The bytes are no frame, or one that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not an HTTP/2 frame")]
pub struct NotAFrame;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Of a body.
    Data = 0,
    /// The beginning of a header block, or all of it.
    Headers = 1,
    /// The end of a stream.
    RstStream = 3,
    /// What the sender wants to be observed.
    Settings = 4,
    /// Wants an answer.
    Ping = 6,
    /// The end of the connection, at once or soon.
    GoAway = 7,
    /// More of a header block.
    Continuation = 9,
    /// Anything else: to be passed over.
    Other = u8::MAX,
}

impl Kind {
    fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Data,
            1 => Self::Headers,
            3 => Self::RstStream,
            4 => Self::Settings,
            6 => Self::Ping,
            7 => Self::GoAway,
            9 => Self::Continuation,
            _ => Self::Other,
        }
    }
}

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub kind: Kind,
    /// What they mean depends on the kind.
    pub flags: u8,
    /// 0 is the connection.
    pub stream: u32,
    /// All after the head.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Whether a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The payload of DATA or HEADERS without padding and priority; `None` where these are longer
    /// than the frame.
    pub fn content(&self) -> Option<&'a [u8]> {
        let mut content = self.payload;
        if self.has(PADDED) {
            let (&padding, rest) = content.split_first()?;
            content = rest.get(..rest.len().checked_sub(usize::from(padding))?)?;
        }
        if self.kind == Kind::Headers && self.has(PRIORITY) {
            content = content.get(PRIORITY_BYTES..)?;
        }
        Some(content)
    }
}

/// Puts frames together.
#[derive(Debug, Default)]
pub struct FrameReader {
    held: Vec<u8>,
    /// True exactly while `held` has a frame that was given out.
    is_whole: bool,
}

impl FrameReader {
    /// Forgets what has come.
    pub fn restart(&mut self) {
        self.held.clear();
        self.is_whole = false;
    }

    /// Takes bytes up to the end of a frame, or all; the frame where it is whole.
    ///
    /// # Errors
    /// What comes is longer than [`PAYLOAD_MAX_BYTES`].
    pub fn read(&mut self, bytes: &mut &[u8]) -> Result<Option<Frame<'_>>, NotAFrame> {
        if self.is_whole {
            self.restart();
        }
        self.fill(HEAD_BYTES, bytes);
        let Some(&[a, b, c, kind, flags, ref stream @ ..]) = self.held.first_chunk::<HEAD_BYTES>()
        else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if length > PAYLOAD_MAX_BYTES {
            return Err(NotAFrame);
        }
        // The first bit means nothing.
        let stream = u32::from_be_bytes(*stream) & (u32::MAX >> 1);
        self.fill(HEAD_BYTES + length, bytes);
        self.is_whole = self.held.len() == HEAD_BYTES + length;
        Ok(self.is_whole.then(|| Frame {
            kind: Kind::of(kind),
            flags,
            stream,
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

/// A frame to be sent; a payload of more than [`PAYLOAD_MAX_BYTES`] is cut.
pub fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(PAYLOAD_MAX_BYTES)];
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind as u8, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The payload of SETTINGS: each setting by its number, with its value.
pub fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (number, value) in settings {
        payload.extend_from_slice(&number.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    payload
}

/// The word for an error code.
pub fn error_name(code: u32) -> &'static str {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    NAMES.get(code as usize).unwrap_or(&"an unknown error")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Read = Vec<(Kind, u8, u32, Vec<u8>)>;

    fn read_all(pieces: &[&[u8]]) -> Result<Read, NotAFrame> {
        let mut reader = FrameReader::default();
        let mut all = Vec::new();
        for mut piece in pieces.iter().copied() {
            while !piece.is_empty() {
                let frame = reader.read(&mut piece)?;
                all.extend(frame.map(|it| (it.kind, it.flags, it.stream, it.payload.to_vec())));
            }
        }
        Ok(all)
    }

    #[test]
    fn frames_are_read_as_they_are_made() {
        let sent = [
            frame(Kind::Settings, ACK, 0, b""),
            frame(Kind::Data, END_STREAM, 1, b"abc"),
        ]
        .concat();
        let expected = vec![
            (Kind::Settings, ACK, 0, Vec::new()),
            (Kind::Data, END_STREAM, 1, b"abc".to_vec()),
        ];
        assert_eq!(read_all(&[&sent]), Ok(expected.clone()));
        let bytes: Vec<_> = sent.iter().map(std::slice::from_ref).collect();
        assert_eq!(read_all(&bytes), Ok(expected));
    }

    #[test]
    fn long_frames_are_refused_at_their_heads() {
        assert_eq!(read_all(&[b"\0\x40\x01\0\0\0\0\0\x01"]), Err(NotAFrame));
        assert_eq!(read_all(&[b"HTTP/1.1 400"]), Err(NotAFrame));
        let stream = frame(Kind::Other, 0, u32::MAX, b"");
        assert_eq!(read_all(&[&stream]).unwrap()[0].2, u32::MAX >> 1);
    }

    #[test]
    fn padding_and_priority_are_left_out() {
        let content = |kind, flags, payload| {
            let frame = Frame {
                kind,
                flags,
                stream: 1,
                payload,
            };
            frame.content()
        };
        assert_eq!(content(Kind::Data, PADDED, b"\x02ab\0\0"), Some(&b"ab"[..]));
        assert_eq!(content(Kind::Data, PADDED, b"\x03ab"), None);
        assert_eq!(content(Kind::Data, PADDED, b""), None);
        assert_eq!(content(Kind::Data, PRIORITY, b"abcde"), Some(&b"abcde"[..]));
        let both = PADDED | PRIORITY;
        assert_eq!(
            content(Kind::Headers, both, b"\x01-----h\0"),
            Some(&b"h"[..])
        );
        assert_eq!(content(Kind::Headers, both, b"\x01----\0"), None);
    }

    proptest! {
        #[test]
        fn random_bytes_are_read_and_pieces_change_nothing(
            bytes in proptest::collection::vec(prop_oneof![3 => Just(0), 1 => any::<u8>()], 0..200),
            cut in 0_usize..200,
        ) {
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(read_all(&[head, tail]), read_all(&[&bytes]));
        }
    }
}
