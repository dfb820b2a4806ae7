//! Messages over a unix stream socket: a header, a value as JSON, and descriptors.
//!
//! | bytes | what                                           |
//! |-------|------------------------------------------------|
//! | 4     | length of the JSON that follows, little endian |
//! | 2     | count of descriptors, with the first byte      |
//! | 2     | kind of the message                            |
//!
//! This header stays as it is in every version, so that two programs of any age understand each other's
//! [`Hello`], which is the first message of each. Nothing that comes is believed: a length, a count or
//! a value that does not fit ends the exchange with words for an operator. After any error both ends
//! are out of step, and the socket is of no more use.

use std::io::{self, ErrorKind};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clock::Now;
use crate::sys::{ancillary, socket};

/// The version of what this program says. It is raised with each change that needs a newer reader, or
/// that a newer reader must know of; a field that is new and may be missing needs neither.
pub const VERSION: u32 = 1;
/// The oldest version that this program reads.
pub const OLDEST_READ: u32 = 1;
/// The oldest program that reads what this one says.
const OLDEST_READER: u32 = 1;
const _: () = assert!(OLDEST_READ <= VERSION && OLDEST_READER <= VERSION);

/// Most bytes of a message's JSON. One connection can hold a whole pipe's bytes in memory in either
/// direction, 1 MiB each, which is a third more in base64.
pub const PAYLOAD_MAX: usize = 4 * 1024 * 1024;
/// Most descriptors of a message: one call of the kernel takes no more than 253.
pub const DESCRIPTORS_MAX: usize = 240;
const _: () = assert!(DESCRIPTORS_MAX <= ancillary::DESCRIPTORS_MAX);

const HEADER_BYTES: usize = 8;
const MAGIC: &str = "evenkeel handover";

/// What can be sent: a value with a number of its own, which no other message may have.
pub trait Message: Serialize + DeserializeOwned {
    /// Its number, which stays the same in every version.
    const KIND: u16;
}

/// What each end says first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    magic: String,
    /// The version of what it says.
    pub version: u32,
    /// The oldest version of a program that reads it.
    pub oldest_reader: u32,
    /// The version of the program, for people.
    pub program: String,
    /// Its process; 0 where it does not say so.
    pub pid: u32,
}

impl Message for Hello {
    const KIND: u16 = 1;
}

impl Hello {
    /// That of this program.
    pub fn ours() -> Self {
        Self {
            magic: MAGIC.to_owned(),
            version: VERSION,
            oldest_reader: OLDEST_READER,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
        }
    }

    /// Whether this program reads what the other one will say.
    ///
    /// # Errors
    /// It is no evenkeel, or one that is too old or too new.
    pub fn check(&self) -> Result<(), FrameError> {
        if self.magic != MAGIC {
            return Err(FrameError::Stranger);
        }
        if self.version < OLDEST_READ || self.oldest_reader > VERSION {
            return Err(FrameError::Version {
                program: self.program.chars().take(40).collect(),
                theirs: self.version,
            });
        }
        Ok(())
    }
}

/// Why an exchange is over.
#[derive(Debug, Error)]
pub enum FrameError {
    /// Between two messages.
    #[error("the other process has hung up")]
    Closed,
    /// Inside of one.
    #[error("the other process has hung up in the middle of a message")]
    Short,
    /// It said nothing, or took nothing, for as long.
    #[error("the other process was silent for {0:?}")]
    TimedOut(Duration),
    /// Its JSON is too long.
    #[error("a message of {0} bytes: {PAYLOAD_MAX} are the most")]
    TooLong(usize),
    /// It has too many descriptors.
    #[error("a message with {0} descriptors: {DESCRIPTORS_MAX} are the most")]
    TooMany(usize),
    /// Descriptors are missing, or came unannounced.
    #[error("a message came with {came} descriptors, and said {announced}")]
    Count {
        /// In its header.
        announced: usize,
        /// Really.
        came: usize,
    },
    /// It is not the message that is due.
    #[error("message {came} came, where {wanted} is due")]
    Kind {
        /// The number of what is due.
        wanted: u16,
        /// Its own.
        came: u16,
    },
    /// It does not say what a message of its kind says.
    #[error("message {kind}: {source}")]
    Json {
        /// Its number.
        kind: u16,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// Not our words.
    #[error("what speaks at the other end is no evenkeel")]
    Stranger,
    /// Words of another age.
    #[error(
        "evenkeel {program} speaks version {theirs} of the handover, this program {OLDEST_READ} to {VERSION}"
    )]
    Version {
        /// The other program's version.
        program: String,
        /// That of its words.
        theirs: u32,
    },
    /// The socket has failed.
    #[error("{doing}: {source}")]
    Socket {
        /// What was being done.
        doing: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
}

/// A message as it came.
#[derive(Debug)]
pub struct Frame {
    kind: u16,
    payload: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Frame {
    /// The number of its message.
    pub fn kind(&self) -> u16 {
        self.kind
    }

    /// The message and its descriptors.
    ///
    /// # Errors
    /// It is another one, or its JSON does not fit; the descriptors are closed.
    pub fn read<M: Message>(self) -> Result<(M, Vec<OwnedFd>), FrameError> {
        if self.kind != M::KIND {
            return Err(FrameError::Kind {
                wanted: M::KIND,
                came: self.kind,
            });
        }
        let message = serde_json::from_slice(&self.payload);
        let message = message.map_err(|source| FrameError::Json {
            kind: M::KIND,
            source,
        })?;
        Ok((message, self.descriptors))
    }
}

/// Makes a socket into the two ends of an exchange. A whole message may take `timeout`, either way.
///
/// # Errors
/// Where the kernel refuses the timeout, or a second descriptor.
pub fn channel(socket: UnixStream, timeout: Duration) -> io::Result<(Sender, Receiver)> {
    socket.set_nonblocking(false)?;
    let mut sender = Sender {
        socket: socket.try_clone()?,
        timeout,
        bytes: Vec::new(),
    };
    let mut receiver = Receiver { socket, timeout };
    sender.set_timeout(timeout)?;
    receiver.set_timeout(timeout)?;
    Ok((sender, receiver))
}

/// Where messages go in.
#[derive(Debug)]
pub struct Sender {
    socket: UnixStream,
    timeout: Duration,
    /// The message under way; kept for its memory.
    bytes: Vec<u8>,
}

impl Sender {
    /// From now on, how long a whole message may take; not zero.
    ///
    /// # Errors
    /// Where it is zero.
    pub fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.timeout = timeout;
        self.socket.set_write_timeout(Some(timeout))
    }

    /// Sends a message, and with it copies of descriptors, which stay open here as well.
    ///
    /// # Errors
    /// Where it is too large, nothing was sent, and the exchange can go on with others; else the other
    /// end is gone or takes nothing.
    pub fn send<M: Message>(
        &mut self,
        message: &M,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), FrameError> {
        self.bytes.clear();
        self.bytes.extend([0; HEADER_BYTES]);
        serde_json::to_writer(&mut self.bytes, message).map_err(|source| FrameError::Json {
            kind: M::KIND,
            source,
        })?;
        let header = Header {
            length: self.bytes.len() - HEADER_BYTES,
            descriptors: descriptors.len(),
            kind: M::KIND,
        };
        self.bytes[..HEADER_BYTES].copy_from_slice(&header.check()?.to_bytes());
        self.write(descriptors)
    }

    fn write(&self, descriptors: &[BorrowedFd<'_>]) -> Result<(), FrameError> {
        let begun = Now::read();
        let (mut rest, mut descriptors) = (self.bytes.as_slice(), descriptors);
        while !rest.is_empty() {
            let sent = ancillary::send(&self.socket, rest, descriptors)
                .map_err(|source| failed("send to the other process", source, self.timeout))?;
            // They went with the first byte.
            (rest, descriptors) = (&rest[sent..], &[]);
            check_time(begun, self.timeout, rest.is_empty())?;
        }
        Ok(())
    }
}

/// Where messages come out.
#[derive(Debug)]
pub struct Receiver {
    socket: UnixStream,
    timeout: Duration,
}

impl Receiver {
    /// From now on, how long to wait for a whole message; not zero.
    ///
    /// # Errors
    /// Where it is zero.
    pub fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.timeout = timeout;
        self.socket.set_read_timeout(Some(timeout))
    }

    /// Whether a message begins, or the exchange ends, within `timeout`, which is not zero. Nothing is
    /// taken. A signal ends the wait.
    ///
    /// # Errors
    /// Where the kernel refuses the timeout.
    pub fn comes_within(&mut self, timeout: Duration) -> io::Result<bool> {
        self.socket.set_read_timeout(Some(timeout))?;
        let came = socket::peek(&self.socket, &mut [0]);
        self.socket.set_read_timeout(Some(self.timeout))?;
        // Whoever receives is told of an error.
        let is_over = |error: io::Error| {
            !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
        };
        Ok(came.map_or_else(is_over, |_| true))
    }

    /// The next message, whichever it is.
    ///
    /// # Errors
    /// None came in time, or one that does not fit; what came with it is closed.
    pub fn receive(&mut self) -> Result<Frame, FrameError> {
        let begun = Now::read();
        let (mut header, mut descriptors) = ([0; HEADER_BYTES], Vec::new());
        match self.fill(&mut header, begun, &mut descriptors)? {
            0 => return Err(FrameError::Closed),
            HEADER_BYTES => {}
            _ => return Err(FrameError::Short),
        }
        let header = Header::of_bytes(header).check()?;
        if descriptors.len() != header.descriptors {
            return Err(FrameError::Count {
                announced: header.descriptors,
                came: descriptors.len(),
            });
        }
        let (mut payload, mut late) = (vec![0; header.length], Vec::new());
        if self.fill(&mut payload, begun, &mut late)? < header.length {
            return Err(FrameError::Short);
        }
        if !late.is_empty() {
            return Err(FrameError::Count {
                announced: header.descriptors,
                came: header.descriptors + late.len(),
            });
        }
        Ok(Frame {
            kind: header.kind,
            payload,
            descriptors,
        })
    }

    /// The next message, which must be this one.
    ///
    /// # Errors
    /// As of [`Self::receive`] and [`Frame::read`].
    pub fn expect<M: Message>(&mut self) -> Result<(M, Vec<OwnedFd>), FrameError> {
        self.receive()?.read()
    }

    /// Reads no more than that, so that the descriptors of the next message stay with it; returns how
    /// much there was before the end.
    fn fill(
        &self,
        buffer: &mut [u8],
        begun: Now,
        descriptors: &mut Vec<OwnedFd>,
    ) -> Result<usize, FrameError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let room = DESCRIPTORS_MAX.saturating_sub(descriptors.len());
            let rest = &mut buffer[filled..];
            let came = ancillary::receive(&self.socket, rest, descriptors, room)
                .map_err(|source| failed("receive from the other process", source, self.timeout))?;
            if came == 0 {
                break;
            }
            filled += came;
            check_time(begun, self.timeout, filled == buffer.len())?;
        }
        Ok(filled)
    }
}

/// The kernel's timeout is that of one call: who sends a byte now and then would be waited for all day.
fn check_time(begun: Now, timeout: Duration, is_done: bool) -> Result<(), FrameError> {
    if is_done || Now::read().since(begun) < timeout {
        Ok(())
    } else {
        Err(FrameError::TimedOut(timeout))
    }
}

fn failed(doing: &'static str, source: io::Error, timeout: Duration) -> FrameError {
    match source.kind() {
        // What a blocking socket says when its timeout is over.
        ErrorKind::WouldBlock | ErrorKind::TimedOut => FrameError::TimedOut(timeout),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => FrameError::Closed,
        _ => FrameError::Socket { doing, source },
    }
}

/// What stands before each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    length: usize,
    descriptors: usize,
    kind: u16,
}

impl Header {
    fn of_bytes([a, b, c, d, e, f, g, h]: [u8; HEADER_BYTES]) -> Self {
        Self {
            length: u32::from_le_bytes([a, b, c, d]) as usize,
            descriptors: u16::from_le_bytes([e, f]).into(),
            kind: u16::from_le_bytes([g, h]),
        }
    }

    /// Only one that was checked fits into its bytes.
    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let length = u32::try_from(self.length).unwrap_or(u32::MAX);
        let descriptors = u16::try_from(self.descriptors).unwrap_or(u16::MAX);
        let [a, b, c, d] = length.to_le_bytes();
        let [e, f] = descriptors.to_le_bytes();
        let [g, h] = self.kind.to_le_bytes();
        [a, b, c, d, e, f, g, h]
    }

    fn check(self) -> Result<Self, FrameError> {
        if self.length > PAYLOAD_MAX {
            return Err(FrameError::TooLong(self.length));
        }
        if self.descriptors > DESCRIPTORS_MAX {
            return Err(FrameError::TooMany(self.descriptors));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
