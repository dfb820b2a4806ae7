//! What is said in a check, of whatever kind: bytes to send, bytes received, an answer as soon as
//! it is known. One file a kind does the talking; this one joins them and holds what they share.
//!
//! A script knows no socket and no time. It is made once per target and used again for each check,
//! so that a check allocates nothing. It need not bound what it receives: [`super::exchange`] does.

use super::answer::{Answer, Reason};
use super::http::Http;
use super::send_expect::SendExpect;
use crate::address::Address;
use crate::config::Check;

/// One target's side of the talk.
#[derive(Debug)]
pub(super) enum Script {
    /// Says nothing; see [`super::tcp`].
    Tcp,
    Http(Box<Http>),
    SendExpect(Box<SendExpect>),
}

impl Script {
    /// For checks of what listens at `address`.
    pub(super) fn new(check: &Check, address: &Address) -> Self {
        match check {
            Check::Tcp
            | Check::Redis(_)
            | Check::Postgres(_)
            | Check::Mysql(_)
            | Check::Grpc(_)
            | Check::Exec(_)
            | Check::Agent(_) => Self::Tcp,
            Check::Http(check) => Self::Http(Box::new(Http::new(check, address))),
            Check::SendExpect { send, expect } => {
                Self::SendExpect(Box::new(SendExpect::new(send, expect)))
            }
        }
    }

    /// Forgets the last check.
    pub(super) fn restart(&mut self) {
        match self {
            Self::Tcp => {}
            Self::Http(http) => http.restart(),
            Self::SendExpect(talk) => talk.restart(),
        }
    }

    /// Whether the connect alone is the answer.
    pub(super) fn is_connect_only(&self) -> bool {
        matches!(self, Self::Tcp)
    }

    /// The server has accepted.
    pub(super) fn connected(&self) -> Option<Answer> {
        match self {
            Self::Tcp => Some(Answer::Good(Reason::Connected)),
            Self::Http(_) => None,
            Self::SendExpect(talk) => talk.connected(),
        }
    }

    /// What is to be sent next; empty where the server has to speak.
    pub(super) fn to_send(&self) -> &[u8] {
        match self {
            Self::Tcp => &[],
            Self::Http(http) => http.request.rest(),
            Self::SendExpect(talk) => talk.request.rest(),
        }
    }

    /// The first `count` bytes of `to_send` are sent.
    pub(super) fn sent(&mut self, count: usize) {
        match self {
            Self::Tcp => {}
            Self::Http(http) => http.request.sent += count,
            Self::SendExpect(talk) => talk.request.sent += count,
        }
    }

    /// The server sent `bytes`, which follow those of the last call.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Option<Answer> {
        match self {
            Self::Tcp => None,
            Self::Http(http) => http.receive(bytes),
            Self::SendExpect(talk) => talk.receive(bytes),
        }
    }

    /// The server sends no more, so there is always an answer now.
    pub(super) fn closed(&self) -> Answer {
        match self {
            Self::Tcp => Answer::Good(Reason::Connected),
            Self::Http(http) => http.closed(),
            Self::SendExpect(_) => Answer::Bad(Reason::Closed),
        }
    }
}

/// Bytes that are sent in each check, and how many of them were in this one.
#[derive(Debug)]
pub(super) struct Request {
    bytes: Box<[u8]>,
    /// At most the length of `bytes`.
    sent: usize,
}

impl Request {
    pub(super) fn new(bytes: impl Into<Box<[u8]>>) -> Self {
        Self {
            bytes: bytes.into(),
            sent: 0,
        }
    }

    pub(super) fn restart(&mut self) {
        self.sent = 0;
    }

    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or(&[])
    }
}
