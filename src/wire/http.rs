//! Reads one HTTP/1 answer as it arrives: the final status, then the body's bytes without their
//! framing, then its end. `httparse` reads heads; what it lacks stands here: reading on in the
//! middle of a head, interim answers, how long a body is, and chunks.
//!
//! The result does not depend on how the bytes were cut: a head is looked at up to its last whole
//! line only. Each byte is kept at most once, until its head is complete; a body is passed through.
//! What is expected of an answer, and how much of a body is worth reading, the caller knows.

use thiserror::Error;

/// A head that is longer than this is an error: far above what servers accept themselves (8 KiB).
pub const HEAD_MAX_BYTES: usize = 16 * 1024;

/// More headers than this are an error.
pub const HEADERS_MAX: usize = 96;

/// Interim answers (1xx) before the final one; real servers send one or two.
const INTERIM_MAX: u8 = 8;

/// How each answer begins; HTTP/2 and every other protocol differ within these bytes.
const PREFIX: &[u8] = b"HTTP/1.";

/// Hexadecimal digits of a chunk's size: what fits 64 bits.
const CHUNK_DIGITS_MAX: u8 = 16;

/// What is wrong with an answer, in words for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HttpError {
    /// Another protocol, or noise.
    #[error("not an HTTP/1 answer")]
    NotHttp,
    /// The first line begins well and goes on badly.
    #[error("malformed HTTP status line")]
    StatusLine,
    /// A header's name or value has bytes that are not allowed there.
    #[error("malformed HTTP header")]
    Header,
    /// More than [`HEADERS_MAX`] headers.
    #[error("more than {HEADERS_MAX} HTTP headers")]
    TooManyHeaders,
    /// No end of the head within [`HEAD_MAX_BYTES`].
    #[error("HTTP head longer than {} KiB", HEAD_MAX_BYTES / 1024)]
    HeadTooLong,
    /// Answers with 1xx and no final one.
    #[error("more than {INTERIM_MAX} interim HTTP answers")]
    TooManyInterim,
    /// Not a number, or two different ones.
    #[error("malformed Content-Length")]
    ContentLength,
    /// A chunk's size is not hexadecimal, or its data does not end with a line end.
    #[error("malformed HTTP chunk")]
    Chunk,
    /// The server ended before the answer did.
    #[error("connection closed before the answer was complete")]
    Truncated,
}

/// A part of an answer, in the order of this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// The final status, 100..=999; comes once.
    Status(u16),
    /// The next bytes of the body; comes any number of times, never empty.
    Body(&'a [u8]),
    /// The body is complete; comes once, and nothing after it.
    End,
}

/// Reads one answer to a GET. See the module.
#[derive(Debug)]
pub struct ResponseReader {
    state: State,
    /// The beginning of a head that has not all arrived; at most [`HEAD_MAX_BYTES`].
    head: Vec<u8>,
    /// Interim answers so far.
    interim: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// So many bytes of the body are still to come.
    Length(u64),
    Chunked(Chunk),
    UntilClose,
    Done,
}

/// Where in the chunks the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    Size {
        size: u64,
        digits: u8,
    },
    /// After the size, up to the line's end: an extension, which nobody uses.
    Extension(u64),
    /// So many bytes of the chunk's data are still to come; at least 1.
    Data(u64),
    /// After the data: CR LF, or LF alone.
    DataEnd,
    DataEndLf,
    /// After the last chunk: lines up to an empty one.
    Trailer {
        line_is_empty: bool,
    },
    Done,
}

/// A head that is complete.
struct Head {
    /// Including the empty line.
    bytes: usize,
    status: u16,
    body: State,
}

impl Default for ResponseReader {
    fn default() -> Self {
        Self::new()
    }
}

impl ResponseReader {
    /// At the beginning of an answer. Allocates nothing.
    pub const fn new() -> Self {
        Self {
            state: State::Head,
            head: Vec::new(),
            interim: 0,
        }
    }

    /// The next part of the answer, taken off the front of `input`; `None` asks for more input and
    /// leaves none of it. To be called until it returns `None`, and no more after an error.
    ///
    /// # Errors
    /// The answer is malformed, or one of its limits is passed.
    pub fn read<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Item<'a>>, HttpError> {
        while self.state == State::Head {
            let Some(head) = self.read_head(input)? else {
                return Ok(None);
            };
            if let Some(status) = self.begin(&head)? {
                return Ok(Some(Item::Status(status)));
            }
        }
        self.read_body(input)
    }

    /// `read` after the final head.
    fn read_body<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Item<'a>>, HttpError> {
        loop {
            let (data, state) = match self.state {
                State::Length(0) | State::Chunked(Chunk::Done) => {
                    self.state = State::Done;
                    return Ok(Some(Item::End));
                }
                State::Head | State::Done => {
                    // What follows the answer is none of it.
                    *input = &[];
                    return Ok(None);
                }
                _ if input.is_empty() => return Ok(None),
                State::UntilClose => (std::mem::take(input), State::UntilClose),
                State::Length(rest) => {
                    let (data, rest) = take(input, rest);
                    (data, State::Length(rest))
                }
                State::Chunked(Chunk::Data(rest)) => {
                    let (data, rest) = take(input, rest);
                    (data, State::Chunked(Chunk::after_data(rest)))
                }
                State::Chunked(chunk) => {
                    let (framing, _) = take(input, 1);
                    (&[][..], State::Chunked(chunk.step(framing[0])?))
                }
            };
            self.state = state;
            if !data.is_empty() {
                return Ok(Some(Item::Body(data)));
            }
        }
    }

    /// The server ended its side after all that was read.
    ///
    /// # Errors
    /// The answer was not complete.
    pub fn end(&self) -> Result<(), HttpError> {
        match self.state {
            State::UntilClose | State::Done | State::Length(0) | State::Chunked(Chunk::Done) => {
                Ok(())
            }
            State::Head | State::Length(_) | State::Chunked(_) => Err(HttpError::Truncated),
        }
    }

    /// Takes a whole head off `input`, or all of `input` where the head is not whole.
    fn read_head(&mut self, input: &mut &[u8]) -> Result<Option<Head>, HttpError> {
        let held = self.head.len();
        let fresh = &input[..input.len().min(HEAD_MAX_BYTES - held)];
        let parsed = if held == 0 {
            // The usual case: the head comes in one piece and is never copied.
            parse_head(fresh, 0)?
        } else {
            self.head.extend_from_slice(fresh);
            parse_head(&self.head, held)?
        };
        if let Some(head) = parsed {
            // A head that ended within the held bytes would have been found when they came.
            *input = input.get(head.bytes.saturating_sub(held)..).unwrap_or(&[]);
            self.head.clear();
            return Ok(Some(head));
        }
        if held + fresh.len() >= HEAD_MAX_BYTES {
            return Err(HttpError::HeadTooLong);
        }
        if held == 0 {
            self.head.extend_from_slice(fresh);
        }
        *input = &[];
        Ok(None)
    }

    /// What follows a head: its body, or another head where it is an interim one.
    fn begin(&mut self, head: &Head) -> Result<Option<u16>, HttpError> {
        // 101 is final: what follows it is another protocol.
        if (100..200).contains(&head.status) && head.status != 101 {
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Err(HttpError::TooManyInterim);
            }
            return Ok(None);
        }
        self.state = head.body;
        Ok(Some(head.status))
    }
}

/// At most `rest` bytes off the front of `input`, and how many are missing then.
fn take<'a>(input: &mut &'a [u8], rest: u64) -> (&'a [u8], u64) {
    let count = usize::try_from(rest).map_or(input.len(), |rest| rest.min(input.len()));
    let (data, after) = input.split_at(count);
    *input = after;
    (data, rest - count as u64)
}

/// Reads the head at the start of `bytes`, of which those before `fresh` were looked at before.
fn parse_head(bytes: &[u8], fresh: usize) -> Result<Option<Head>, HttpError> {
    let begun = bytes.len().min(PREFIX.len());
    if bytes[..begun] != PREFIX[..begun] {
        return Err(HttpError::NotHttp);
    }
    // Whole lines only, and only when one has become whole: the result does not depend on where
    // the bytes were cut, and a server that drips costs one look per line and not one per byte.
    let Some(line_end) = bytes[fresh..].iter().rposition(|&byte| byte == b'\n') else {
        return Ok(None);
    };
    let lines = &bytes[..=fresh + line_end];
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(lines).map_err(head_error)? else {
        return Ok(None);
    };
    let status = response.code.ok_or(HttpError::StatusLine)?;
    if status < 100 {
        return Err(HttpError::StatusLine);
    }
    Ok(Some(Head {
        bytes: length,
        status,
        body: framing(status, response.headers)?,
    }))
}

fn head_error(error: httparse::Error) -> HttpError {
    match error {
        httparse::Error::Version => HttpError::NotHttp,
        httparse::Error::TooManyHeaders => HttpError::TooManyHeaders,
        httparse::Error::HeaderName | httparse::Error::HeaderValue | httparse::Error::NewLine => {
            HttpError::Header
        }
        httparse::Error::Status | httparse::Error::Token => HttpError::StatusLine,
    }
}

/// How long the body is, by RFC 9112, 6.3: chunks win over a length.
fn framing(status: u16, headers: &[httparse::Header<'_>]) -> Result<State, HttpError> {
    if matches!(status, 100..=199 | 204 | 304) {
        return Ok(State::Length(0));
    }
    if let Some(encoding) = values(headers, "transfer-encoding").last() {
        let last = encoding.rsplit(|&byte| byte == b',').next();
        let is_chunked =
            last.is_some_and(|name| name.trim_ascii().eq_ignore_ascii_case(b"chunked"));
        return Ok(if is_chunked {
            State::Chunked(Chunk::START)
        } else {
            State::UntilClose
        });
    }
    let mut length = None;
    // Equal repetitions are allowed, as lines or as a list.
    for value in values(headers, "content-length").flat_map(|all| all.split(|&byte| byte == b',')) {
        let value = decimal(value.trim_ascii()).ok_or(HttpError::ContentLength)?;
        if length
            .replace(value)
            .is_some_and(|earlier| earlier != value)
        {
            return Err(HttpError::ContentLength);
        }
    }
    Ok(length.map_or(State::UntilClose, State::Length))
}

fn values<'a>(
    headers: &'a [httparse::Header<'_>],
    name: &'static str,
) -> impl Iterator<Item = &'a [u8]> {
    let named = headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| header.value)
}

/// Digits alone: `str::parse` would take a sign too.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, byte| {
        let digit = char::from(*byte).to_digit(10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

impl Chunk {
    const START: Self = Self::Size { size: 0, digits: 0 };

    const fn after_data(rest: u64) -> Self {
        match rest {
            0 => Self::DataEnd,
            _ => Self::Data(rest),
        }
    }

    /// A chunk of no bytes is the last one.
    const fn after_size(size: u64) -> Self {
        match size {
            0 => Self::Trailer {
                line_is_empty: true,
            },
            _ => Self::Data(size),
        }
    }

    /// One byte further, anywhere but in data.
    fn step(self, byte: u8) -> Result<Self, HttpError> {
        Ok(match (self, byte) {
            (Self::Size { size, digits }, _) => return Self::size(size, digits, byte),
            (Self::Extension(size), b'\n') => Self::after_size(size),
            (Self::DataEnd, b'\r') => Self::DataEndLf,
            (Self::DataEnd | Self::DataEndLf, b'\n') => Self::START,
            (Self::DataEnd | Self::DataEndLf, _) => return Err(HttpError::Chunk),
            (Self::Trailer { line_is_empty }, b'\n') => match line_is_empty {
                true => Self::Done,
                false => Self::after_size(0),
            },
            (Self::Trailer { .. }, byte) if byte != b'\r' => Self::Trailer {
                line_is_empty: false,
            },
            (unmoved @ (Self::Extension(_) | Self::Trailer { .. }), _) => unmoved,
            (unmoved @ (Self::Data(_) | Self::Done), _) => unmoved,
        })
    }

    fn size(size: u64, digits: u8, byte: u8) -> Result<Self, HttpError> {
        match char::from(byte).to_digit(16) {
            Some(digit) if digits < CHUNK_DIGITS_MAX => Ok(Self::Size {
                size: size << 4 | u64::from(digit),
                digits: digits + 1,
            }),
            None if digits > 0 && byte == b'\n' => Ok(Self::after_size(size)),
            None if digits > 0 && matches!(byte, b';' | b' ' | b'\t' | b'\r') => {
                Ok(Self::Extension(size))
            }
            Some(_) | None => Err(HttpError::Chunk),
        }
    }
}

#[cfg(test)]
mod tests;
