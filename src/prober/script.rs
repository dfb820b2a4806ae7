//! What is said in a check, of whatever kind: bytes to send, bytes received, an answer as soon as
//! it is known. One file a kind does the talking; this one joins them and holds what they share.
//!
//! A script knows no socket and no time. It is made once per target and used again for each check,
//! so that a check allocates next to nothing. It need not bound what it receives in all:
//! [`super::exchange`] does.

use std::fmt;

use super::agent::Agent;
use super::answer::{Answer, Reason};
use super::grpc::Grpc;
use super::http::Http;
use super::kit::Kit;
use super::mysql::Mysql;
use super::postgres::Postgres;
use super::redis::Redis;
use super::send_expect::SendExpect;
use crate::address::Address;
use crate::config::{Check, Health};

/// One target's side of the talk.
#[derive(Debug)]
pub(super) enum Script {
    /// Says nothing; see [`super::tcp`].
    Tcp,
    /// Says nothing once TLS is agreed on.
    Handshake,
    Talk(Box<dyn Talk>),
}

/// A kind of check that says something. `restart` comes first, then the others as it goes.
pub(super) trait Talk: fmt::Debug + Send {
    /// Forgets the last check.
    fn restart(&mut self);

    /// The server has accepted.
    fn connected(&self) -> Option<Answer> {
        None
    }

    /// What is said.
    fn request(&self) -> &Request;

    /// What is said, to be counted as sent.
    fn request_mut(&mut self) -> &mut Request;

    /// The server sent `bytes`, which follow those of the last call. May add to the request.
    fn receive(&mut self, bytes: &[u8]) -> Option<Answer>;

    /// The server sends no more, so there is always an answer now.
    fn closed(&self) -> Answer {
        Answer::Bad(Reason::Closed)
    }

    /// What ends the talk in order, once there is an answer or no more time.
    fn farewell(&self) -> &[u8] {
        &[]
    }
}

impl Script {
    /// For checks of what listens at `address`.
    pub(super) fn new(health: &Health, address: &Address, kit: &Kit) -> Self {
        let password = kit.password();
        match &health.check {
            // `exec` runs a program and says nothing to anybody.
            Check::Tcp | Check::Exec(_) => match health.tls {
                None => Self::Tcp,
                Some(_) => Self::Handshake,
            },
            Check::Http(check) => Self::talk(Http::new(check, address)),
            Check::SendExpect { send, expect } => Self::talk(SendExpect::new(send, expect)),
            Check::Redis(_) => Self::talk(Redis::new(password)),
            Check::Postgres(check) => Self::talk(Postgres::new(check, password)),
            Check::Mysql(check) => Self::talk(Mysql::new(check, password)),
            Check::Grpc(check) => Self::talk(Grpc::new(check, health, address)),
            Check::Agent(check) => Self::talk(Agent::new(&check.send)),
        }
    }

    fn talk(talk: impl Talk + 'static) -> Self {
        Self::Talk(Box::new(talk))
    }

    /// Forgets the last check.
    pub(super) fn restart(&mut self) {
        if let Self::Talk(talk) = self {
            talk.restart();
        }
    }

    /// Whether the connect alone is the answer.
    pub(super) fn is_connect_only(&self) -> bool {
        matches!(self, Self::Tcp)
    }

    /// The server has accepted, and TLS is agreed on where it is spoken.
    pub(super) fn connected(&self) -> Option<Answer> {
        match self {
            Self::Tcp | Self::Handshake => Some(self.closed()),
            Self::Talk(talk) => talk.connected(),
        }
    }

    /// What is to be sent next; empty where the server has to speak.
    pub(super) fn to_send(&self) -> &[u8] {
        match self {
            Self::Tcp | Self::Handshake => &[],
            Self::Talk(talk) => talk.request().rest(),
        }
    }

    /// The first `count` bytes of `to_send` are sent.
    pub(super) fn sent(&mut self, count: usize) {
        if let Self::Talk(talk) = self {
            talk.request_mut().count_sent(count);
        }
    }

    /// The server sent `bytes`, which follow those of the last call.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Option<Answer> {
        match self {
            Self::Tcp | Self::Handshake => None,
            Self::Talk(talk) => talk.receive(bytes),
        }
    }

    /// The server sends no more, so there is always an answer now.
    pub(super) fn closed(&self) -> Answer {
        match self {
            Self::Tcp => Answer::Good(Reason::Connected),
            Self::Handshake => Answer::Good(Reason::Fact("tls handshake completed")),
            Self::Talk(talk) => talk.closed(),
        }
    }

    /// What is to be said before the connection is closed.
    pub(super) fn farewell(&self) -> &[u8] {
        match self {
            Self::Talk(talk) if talk.request().rest().is_empty() => talk.farewell(),
            // In the middle of a request it would be taken for a part of that.
            Self::Talk(_) | Self::Tcp | Self::Handshake => &[],
        }
    }
}

/// Bytes that are sent in a check, and how many of them were.
pub(super) struct Request {
    bytes: Vec<u8>,
    /// At most the length of `bytes`.
    sent: usize,
}

impl Request {
    pub(super) fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            bytes: bytes.into(),
            sent: 0,
        }
    }

    /// The same once more.
    pub(super) fn restart(&mut self) {
        self.sent = 0;
    }

    /// Nothing, so far.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.sent = 0;
    }

    /// The first `count` bytes of the rest are sent.
    pub(super) fn count_sent(&mut self, count: usize) {
        self.sent += count;
    }

    /// These as well, after what is to be sent already.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.sent);
        self.sent = 0;
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or(&[])
    }
}

/// A request may hold a password, so its bytes are never shown.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("bytes", &self.bytes.len())
            .field("sent", &self.sent)
            .finish()
    }
}
