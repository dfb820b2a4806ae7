//! PostgreSQL's messages, version 3.0: those that begin a session, ask one question and end it.
//!
//! A message is a letter, a length of four bytes that counts itself, and a body. What the server
//! sends is read from pieces; the bodies are parsed by functions that give `None` for what is not
//! well-formed. What is said when is the caller's business.

use thiserror::Error;

/// More than a server says before a session begins; a parameter or an error may be some 1,000.
pub const MESSAGE_MAX_BYTES: usize = 16 * 1024;

/// Ends the session: without it the server logs an unexpected end.
pub const TERMINATE: &[u8] = b"X\0\0\0\x04";

/// Letter and length.
const HEAD_BYTES: usize = 5;
const VERSION: i32 = 3 << 16;

/// The bytes are no message, or one that is longer than any that is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a PostgreSQL message")]
pub struct NotAMessage;

/// One message from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The letter that says what it is.
    pub kind: u8,
    /// All after the length.
    pub body: &'a [u8],
}

/// Puts messages together.
#[derive(Debug, Default)]
pub struct MessageReader {
    held: Vec<u8>,
    is_whole: bool,
}

impl MessageReader {
    /// Forgets what has come.
    pub fn restart(&mut self) {
        self.held.clear();
        self.is_whole = false;
    }

    /// Takes bytes up to the end of a message, or all; the message where it is whole.
    ///
    /// # Errors
    /// What comes is no message, or a longer one than [`MESSAGE_MAX_BYTES`].
    pub fn read(&mut self, bytes: &mut &[u8]) -> Result<Option<Message<'_>>, NotAMessage> {
        if self.is_whole {
            self.restart();
        }
        self.fill(HEAD_BYTES, bytes);
        if self.held.len() < HEAD_BYTES {
            return Ok(None);
        }
        let length = length_of(&self.held).ok_or(NotAMessage)?;
        self.fill(length, bytes);
        self.is_whole = self.held.len() == length;
        Ok(self.is_whole.then(|| Message {
            kind: self.held[0],
            body: &self.held[HEAD_BYTES..],
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

/// Of a whole message, by its head.
fn length_of(held: &[u8]) -> Option<usize> {
    let head: &[u8; HEAD_BYTES] = held.first_chunk()?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let length = usize::try_from(length).ok()?;
    let is_well = head[0].is_ascii_alphabetic() && (4..=MESSAGE_MAX_BYTES).contains(&length);
    is_well.then_some(length + 1)
}

/// What the server wants before a session begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// Nothing more.
    Ok,
    /// The password as it is.
    Cleartext,
    /// Its MD5 with this salt.
    Md5([u8; 4]),
    /// One of these mechanisms, each ended by a zero.
    Sasl(&'a [u8]),
    /// An answer to the first SASL message.
    SaslContinue(&'a [u8]),
    /// The proof of the server.
    SaslFinal(&'a [u8]),
    /// Anything else, by its number.
    Other(u32),
}

impl<'a> Authentication<'a> {
    /// Of a message `R`.
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let (number, rest) = body.split_first_chunk()?;
        Some(match u32::from_be_bytes(*number) {
            0 => Self::Ok,
            3 => Self::Cleartext,
            5 => Self::Md5(*rest.first_chunk()?),
            10 => Self::Sasl(rest),
            11 => Self::SaslContinue(rest),
            12 => Self::SaslFinal(rest),
            other => Self::Other(other),
        })
    }
}

/// Whether a list of mechanisms has this one.
pub fn has_mechanism(list: &[u8], name: &str) -> bool {
    list.split(|&byte| byte == 0)
        .any(|each| each == name.as_bytes())
}

/// The error code (SQLSTATE) and the message of a message `E`; empty where it has none.
pub fn error(body: &[u8]) -> (&[u8], &[u8]) {
    let mut found: (&[u8], &[u8]) = (&[], &[]);
    for field in body.split(|&byte| byte == 0) {
        match field.split_first() {
            Some((b'C', code)) => found.0 = code,
            Some((b'M', message)) => found.1 = message,
            _ => {}
        }
    }
    found
}

/// Name and value of a message `S`.
pub fn parameter(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = body.split(|&byte| byte == 0);
    Some((parts.next()?, parts.next()?))
}

/// The first two columns of a message `D`, as text.
pub fn two_columns(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (count, rest) = body.split_first_chunk()?;
    if u16::from_be_bytes(*count) < 2 {
        return None;
    }
    let (first, rest) = column(rest)?;
    Some((first, column(rest)?.0))
}

fn column(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = body.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

/// What begins a session. Zeros within `user` and `database` would end them: they end there.
pub fn startup(user: &str, database: &str) -> Vec<u8> {
    let mut body = VERSION.to_be_bytes().to_vec();
    for (name, value) in [
        ("user", user),
        ("database", database),
        ("application_name", "evenkeel"),
    ] {
        text(&mut body, name);
        text(&mut body, value);
    }
    body.push(0);
    let mut message = Vec::new();
    with_length(&mut message, &body);
    message
}

/// A password, or a later message of SASL.
pub fn password(body: &[u8]) -> Vec<u8> {
    message(b'p', body)
}

/// A password in the clear or as a hash.
pub fn password_text(password: &[u8]) -> Vec<u8> {
    self::password(&[password, b"\0"].concat())
}

/// The first message of SASL.
pub fn sasl_initial(mechanism: &str, first: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, mechanism);
    body.extend_from_slice(&length(first).to_be_bytes());
    body.extend_from_slice(first);
    password(&body)
}

/// A question in SQL.
pub fn query(sql: &str) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, sql);
    message(b'Q', &body)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    with_length(&mut message, body);
    message
}

fn with_length(message: &mut Vec<u8>, body: &[u8]) {
    message.extend_from_slice(&(length(body) + 4).to_be_bytes());
    message.extend_from_slice(body);
}

/// What we send is made of config values, far below this.
fn length(body: &[u8]) -> u32 {
    u32::try_from(body.len()).unwrap_or(u32::MAX - 4)
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend(text.bytes().take_while(|&byte| byte != 0));
    body.push(0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(pieces: &[&[u8]]) -> Result<Vec<(u8, Vec<u8>)>, NotAMessage> {
        let mut reader = MessageReader::default();
        let mut all = Vec::new();
        for mut piece in pieces.iter().copied() {
            while !piece.is_empty() {
                let message = reader.read(&mut piece)?;
                all.extend(message.map(|message| (message.kind, message.body.to_vec())));
            }
        }
        Ok(all)
    }

    #[test]
    fn messages_are_read_as_they_are_written() {
        let sent = [message(b'R', b"\0\0\0\0"), TERMINATE.to_vec()].concat();
        let expected = vec![(b'R', b"\0\0\0\0".to_vec()), (b'X', Vec::new())];
        assert_eq!(read_all(&[&sent]), Ok(expected.clone()));
        let bytes: Vec<_> = sent.iter().map(std::slice::from_ref).collect();
        assert_eq!(read_all(&bytes), Ok(expected));
    }

    #[test]
    fn what_is_no_message_is_told_at_its_head() {
        for bytes in [
            b"HTTP/1.1 400".as_slice(),
            b"\0\0\0\0\x08",
            b"R\0\0\0\x03",
            b"R\0\x01\0\0",
        ] {
            assert_eq!(read_all(&[bytes]), Err(NotAMessage), "{bytes:?}");
        }
    }

    #[test]
    fn bodies_are_parsed() {
        let md5 = Authentication::parse(b"\0\0\0\x05salt");
        assert_eq!(md5, Some(Authentication::Md5(*b"salt")));
        assert_eq!(Authentication::parse(b"\0\0\0\x05sal"), None);
        let body = b"SFATAL\0C57P03\0Mthe database system is starting up\0\0";
        let expected: (&[u8], &[u8]) = (b"57P03", b"the database system is starting up");
        assert_eq!(error(body), expected);
        let columns = two_columns(b"\0\x02\0\0\0\x01t\0\0\0\x02on");
        assert_eq!(columns, Some((b"t".as_slice(), b"on".as_slice())));
        assert_eq!(two_columns(b"\0\x02\0\0\0\x01t\xff\xff\xff\xffon"), None);
    }

    proptest! {
        #[test]
        fn random_bytes_are_read_and_pieces_change_nothing(
            bytes in proptest::collection::vec(prop_oneof![0_u8..8, any::<u8>()], 0..200),
            cut in 0_usize..200,
        ) {
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(read_all(&[head, tail]), read_all(&[&bytes]));
            let parsed = (Authentication::parse(&bytes), parameter(&bytes), two_columns(&bytes));
            prop_assert!(parsed.0.is_none() || bytes.len() >= 4);
            error(&bytes);
        }
    }
}
