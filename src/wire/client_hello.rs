//! The server name in a TLS ClientHello (RFC 8446, RFC 6066), read without taking part in TLS.
//!
//! Looks at all that has come so far and remembers nothing, so the result cannot depend on how the
//! bytes were cut: into segments by the network, or into records by the client. Nothing is copied but
//! the name. A hello that is well formed as far as its lengths go is believed; what is in it
//! beside the name is the server's business.

use std::net::Ipv4Addr;

use thiserror::Error;

/// The longest hello that is read, without record headers. With post-quantum keys they have 2 KiB.
const HELLO_MAX_BYTES: usize = 16 * 1024;
/// The most that is looked at, headers of many small records included.
pub const PREFIX_MAX_BYTES: usize = 2 * HELLO_MAX_BYTES;

const RECORD_HEADER_BYTES: usize = 5;
/// The content type of handshake records.
const HANDSHAKE: u8 = 22;
/// SSL 3.0 and every TLS say 3 there, whatever the minor version.
const MAJOR_VERSION: u8 = 3;
/// What a record without encryption carries at most.
const FRAGMENT_MAX_BYTES: usize = 1 << 14;
const CLIENT_HELLO: u8 = 1;
const RANDOM_BYTES: usize = 32;
const SESSION_ID_MAX_BYTES: usize = 32;
const SERVER_NAME: usize = 0;
const HOST_NAME: u8 = 0;
/// Of a name in text form, without the dot at its end (RFC 1035).
const NAME_MAX_BYTES: usize = 253;
const LABEL_MAX_BYTES: usize = 63;

/// What a client said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The host name that it asks for, in lower case and without a dot at its end; `None` where it
    /// names none, or something that is no host name.
    pub server_name: Option<String>,
}

/// What is wrong with what should be a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HelloError {
    /// Another protocol, or another TLS record.
    #[error("not a TLS ClientHello")]
    NotTls,
    /// It states more than is read, or is cut into too many records.
    #[error("TLS ClientHello too long")]
    TooLong,
    /// Its lengths contradict each other.
    #[error("malformed TLS ClientHello")]
    Malformed,
}

/// Why there is no more to read.
enum Stop {
    /// Nothing more has come.
    Awaited,
    Wrong(HelloError),
}

impl From<HelloError> for Stop {
    fn from(error: HelloError) -> Self {
        Self::Wrong(error)
    }
}

/// Reads the hello at the beginning of `received`, which is all that has come so far; `None` where
/// more is needed. Never asks for more than [`PREFIX_MAX_BYTES`].
///
/// # Errors
/// What has come cannot become a hello.
pub fn read(received: &[u8]) -> Result<Option<ClientHello>, HelloError> {
    let window = &received[..received.len().min(PREFIX_MAX_BYTES)];
    match read_hello(window) {
        Ok(hello) => Ok(Some(hello)),
        Err(Stop::Awaited) if received.len() < PREFIX_MAX_BYTES => Ok(None),
        Err(Stop::Awaited) => Err(HelloError::TooLong),
        Err(Stop::Wrong(error)) => Err(error),
    }
}

fn read_hello(window: &[u8]) -> Result<ClientHello, Stop> {
    let mut body = Body::open(Fragments::new(window))?;
    body.skip(2 + RANDOM_BYTES)?;
    let session_id = usize::from(body.byte()?);
    body.skip_if(session_id, session_id <= SESSION_ID_MAX_BYTES)?;
    let cipher_suites = body.number()?;
    body.skip_if(cipher_suites, cipher_suites > 0 && cipher_suites % 2 == 0)?;
    let compressions = usize::from(body.byte()?);
    body.skip_if(compressions, compressions > 0)?;
    let server_name = match body.left {
        // TLS 1.2 and before it: a hello without extensions may end here.
        0 => None,
        _ => read_extensions(&mut body)?,
    };
    Ok(ClientHello { server_name })
}

/// All of them, to the end of the hello: an unfinished one must not be taken for whole.
fn read_extensions(body: &mut Body<'_>) -> Result<Option<String>, Stop> {
    if body.number()? != body.left {
        return Err(HelloError::Malformed.into());
    }
    let (mut name, mut is_named) = (None, false);
    while body.left > 0 {
        let (kind, length) = (body.number()?, body.number()?);
        // A second list of names could say something else to the server than to us.
        match (kind, is_named) {
            (SERVER_NAME, false) => name = read_names(body, length)?,
            (SERVER_NAME, true) => return Err(HelloError::Malformed.into()),
            _ => body.skip(length)?,
        }
        is_named |= kind == SERVER_NAME;
    }
    Ok(name)
}

/// The list of names in an extension of `length` bytes.
fn read_names(body: &mut Body<'_>, length: usize) -> Result<Option<String>, Stop> {
    let list = length.checked_sub(2).ok_or(HelloError::Malformed)?;
    if body.number()? != list {
        return Err(HelloError::Malformed.into());
    }
    let (mut left, mut name, mut is_named) = (list, None, false);
    while left > 0 {
        let (kind, bytes) = (body.byte()?, body.number()?);
        left = left.checked_sub(3 + bytes).ok_or(HelloError::Malformed)?;
        if kind != HOST_NAME {
            body.skip(bytes)?;
            continue;
        }
        // RFC 6066 allows one of a kind.
        if std::mem::replace(&mut is_named, true) {
            return Err(HelloError::Malformed.into());
        }
        name = read_name(body, bytes)?;
    }
    Ok(name)
}

fn read_name(body: &mut Body<'_>, bytes: usize) -> Result<Option<String>, Stop> {
    if bytes > NAME_MAX_BYTES + 1 {
        return body.skip(bytes).map(|()| None);
    }
    let mut name = String::with_capacity(bytes);
    let mut is_ascii = true;
    for _ in 0..bytes {
        let byte = body.byte()?;
        is_ascii &= byte.is_ascii();
        name.push(char::from(byte.to_ascii_lowercase()));
    }
    if name.ends_with('.') {
        name.pop();
    }
    Ok((is_ascii && is_host_name(&name)).then_some(name))
}

/// Whether `name`, in lower case, could stand in a config and be asked of DNS. Underscores occur.
fn is_host_name(name: &str) -> bool {
    let is_allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    let is_label =
        |label: &str| (1..=LABEL_MAX_BYTES).contains(&label.len()) && label.bytes().all(is_allowed);
    name.len() <= NAME_MAX_BYTES
        && name.split('.').all(is_label)
        // RFC 6066: an address is no name.
        && name.parse::<Ipv4Addr>().is_err()
}

/// The bytes of handshake messages, however they are spread over records.
struct Fragments<'a> {
    /// Behind what was read.
    rest: &'a [u8],
    /// Bytes of the open record that were not read.
    record_left: usize,
}

impl<'a> Fragments<'a> {
    fn new(received: &'a [u8]) -> Self {
        Self {
            rest: received,
            record_left: 0,
        }
    }

    /// The next bytes: at least one, at most `most`, which is not 0.
    fn next(&mut self, most: usize) -> Result<&'a [u8], Stop> {
        if self.record_left == 0 {
            self.open_record()?;
        }
        let bytes = most.min(self.record_left).min(self.rest.len());
        if bytes == 0 {
            return Err(Stop::Awaited);
        }
        let (next, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        self.record_left -= bytes;
        Ok(next)
    }

    /// What is not TLS is told from its first bytes: its sender may be waiting for an answer.
    fn open_record(&mut self) -> Result<(), Stop> {
        let expected = [HANDSHAKE, MAJOR_VERSION];
        let common = expected.len().min(self.rest.len());
        if self.rest[..common] != expected[..common] {
            return Err(HelloError::NotTls.into());
        }
        let Some((&[_, _, _, high, low], rest)) =
            self.rest.split_first_chunk::<RECORD_HEADER_BYTES>()
        else {
            return Err(Stop::Awaited);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 || length > FRAGMENT_MAX_BYTES {
            // RFC 8446, 5.1: none of a handshake is empty.
            return Err(HelloError::Malformed.into());
        }
        self.rest = rest;
        self.record_left = length;
        Ok(())
    }
}

/// What the hello has behind its own header.
struct Body<'a> {
    fragments: Fragments<'a>,
    /// Bytes of it that were not read.
    left: usize,
}

impl<'a> Body<'a> {
    fn open(fragments: Fragments<'a>) -> Result<Self, Stop> {
        // The handshake message's header counts as a part until it is read.
        let mut body = Self { fragments, left: 4 };
        if body.byte()? != CLIENT_HELLO {
            return Err(HelloError::NotTls.into());
        }
        let length = usize::from(body.byte()?) << 16 | body.number()?;
        if length > HELLO_MAX_BYTES {
            return Err(HelloError::TooLong.into());
        }
        body.left = length;
        Ok(body)
    }

    /// Goes on behind `bytes`, which must be there by the hello's own length.
    fn skip(&mut self, bytes: usize) -> Result<(), Stop> {
        self.left = self.left.checked_sub(bytes).ok_or(HelloError::Malformed)?;
        let mut ahead = bytes;
        while ahead > 0 {
            ahead -= self.fragments.next(ahead)?.len();
        }
        Ok(())
    }

    fn skip_if(&mut self, bytes: usize, is_right: bool) -> Result<(), Stop> {
        match is_right {
            true => self.skip(bytes),
            false => Err(HelloError::Malformed.into()),
        }
    }

    fn byte(&mut self) -> Result<u8, Stop> {
        self.left = self.left.checked_sub(1).ok_or(HelloError::Malformed)?;
        Ok(self.fragments.next(1)?[0])
    }

    /// Two bytes, the higher one first.
    fn number(&mut self) -> Result<usize, Stop> {
        let high = self.byte()?;
        Ok(usize::from(u16::from_be_bytes([high, self.byte()?])))
    }
}

#[cfg(test)]
mod tests;
