//! One connection to a server of the demonstration: reads requests, answers each once its delay is
//! over, and ends with its client.
//!
//! It knows no timers: it says how long an answer is to wait, and is told when that is over.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use mio::net::TcpStream;
use socket2::SockRef;

use super::dials::ServerDials;
use super::service::{Page, Request, Requests, answer};

/// Bytes that may wait to be read as requests: far more than clients send ahead.
const UNREAD_BYTES_MAX: usize = 64 * 1024;

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing, until its client sends or reads more.
    Wait,
    /// Call [`Guest::answer_delayed`] after this long.
    Delay(Duration),
    /// Drop it.
    Over,
}

/// A connection and what is under way on it.
#[derive(Debug)]
pub(super) struct Guest {
    stream: TcpStream,
    /// Whose guest this is.
    pub(super) server: usize,
    requests: Requests,
    /// The request whose answer waits; none after it is looked at meanwhile.
    delayed: Option<Request>,
    unsent: Vec<u8>,
    /// The client has ended its side, and may still read.
    has_ended: bool,
    /// It ends once all is sent.
    closes: bool,
}

impl Guest {
    pub(super) fn new(stream: TcpStream, server: usize) -> Self {
        Self {
            stream,
            server,
            requests: Requests::default(),
            delayed: None,
            unsent: Vec::new(),
            has_ended: false,
            closes: false,
        }
    }

    /// Goes on as far as the socket allows.
    pub(super) fn advance(&mut self, dials: &ServerDials, name: &str, buffer: &mut [u8]) -> Next {
        if self.read(buffer).is_err() {
            // Whatever the client has done, nobody is left to answer.
            return Next::Over;
        }
        self.answer_all(dials, name)
    }

    /// Whether an answer waits for its delay.
    pub(super) fn is_delayed(&self) -> bool {
        self.delayed.is_some()
    }

    /// The delay of the answer that waits is over.
    pub(super) fn answer_delayed(&mut self, dials: &ServerDials, name: &str) -> Next {
        if let Some(request) = self.delayed.take() {
            self.answer(request, dials, name);
        }
        self.answer_all(dials, name)
    }

    /// Ends it with a reset, as the kernel does for a process that was killed with unread bytes.
    pub(super) fn reset(self) {
        // Without the option it ends with a FIN, which is an end as well.
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap_or(());
    }

    /// Reads to the last byte that is there: the registration is edge-triggered.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        while !self.has_ended {
            match self.stream.read(buffer) {
                Ok(0) => self.has_ended = true,
                Ok(count) => self.requests.receive(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.requests.unread_bytes() > UNREAD_BYTES_MAX {
                return Err(ErrorKind::InvalidData.into());
            }
        }
        Ok(())
    }

    fn answer_all(&mut self, dials: &ServerDials, name: &str) -> Next {
        let mut delay = None;
        while self.delayed.is_none() && !self.closes {
            let Some(request) = self.requests.next() else {
                break;
            };
            match dials.delay_ms() {
                ms if ms > 0 && request.page == Page::Front => {
                    self.delayed = Some(request);
                    delay = Some(Duration::from_millis(ms.into()));
                }
                _ => self.answer(request, dials, name),
            }
        }
        if self.write().is_err() || self.is_done() {
            return Next::Over;
        }
        delay.map_or(Next::Wait, Next::Delay)
    }

    fn answer(&mut self, request: Request, dials: &ServerDials, name: &str) {
        self.unsent
            .extend_from_slice(answer(request, name).as_bytes());
        self.closes |= request.closes;
        if request.page == Page::Front {
            dials.answered.fetch_add(1, Relaxed);
        }
    }

    fn is_done(&self) -> bool {
        let ends = self.closes || (self.has_ended && self.delayed.is_none());
        ends && self.unsent.is_empty()
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
