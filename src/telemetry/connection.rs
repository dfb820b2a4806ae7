//! A living connection as people see it: what a worker tells of one on demand, and who is to blame
//! where bytes do not flow.

use std::net::SocketAddr;
use std::time::Duration;

use crate::address::Peer;
use crate::ids::{ConnectionId, ListenerId, PoolId, ServerId};

/// Something known of each of a connection's two sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BothSides<T> {
    /// Of the client's socket.
    pub client: T,
    /// Of the server's socket.
    pub server: T,
}

/// Where a connection stands, in the words of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A PROXY header or a ClientHello is awaited.
    ReadingHeader,
    /// No server can take it; it waits for one.
    Queued,
    /// A server's answer is awaited.
    Connecting,
    /// Bytes go both ways.
    Relaying,
    /// One side has ended, the other may still send.
    HalfClosed,
    /// One side has failed, and the other one's last bytes are on their way.
    Lingering,
}

impl Stage {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ReadingHeader => "reading_header",
            Self::Queued => "queued",
            Self::Connecting => "connecting",
            Self::Relaying => "relaying",
            Self::HalfClosed => "half_closed",
            Self::Lingering => "lingering",
        }
    }
}

/// Who keeps a connection from being faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limiter {
    /// It does not read what waits for it, or it is its turn to say something.
    Client,
    /// The same of the server.
    Server,
    /// Packets are lost or await their acknowledgement.
    Network,
    /// Bytes wait here although their way is free.
    Evenkeel,
}

impl Limiter {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Network => "network",
            Self::Evenkeel => "evenkeel",
        }
    }
}

/// What the kernel tells of a socket's way to its peer (tcp(7), TCP_INFO), as far as people ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// Smoothed round-trip time.
    pub round_trip: Duration,
    /// Segments sent again since the connection began.
    pub retransmits: u32,
    /// Bytes that we have written and the kernel has not sent yet.
    pub unsent_bytes: u32,
}

/// One living connection.
#[derive(Clone, Debug)]
pub struct ConnectionStatus {
    /// Which one.
    pub id: ConnectionId,
    /// Where it came in.
    pub listener: ListenerId,
    /// The client's address.
    pub client: Peer,
    /// Where it goes, if that is known of itself; else where its server is.
    pub pool: Option<PoolId>,
    /// The server whose place it holds; `None` before one was picked.
    pub server: Option<ServerId>,
    /// Our own address towards the server, where connected.
    pub local: Option<SocketAddr>,
    /// Where it stands.
    pub stage: Stage,
    /// Since accept.
    pub age: Duration,
    /// Since the last byte either way.
    pub idle: Duration,
    /// Bytes delivered to the server.
    pub upstream_bytes: u64,
    /// Bytes delivered to the client.
    pub downstream_bytes: u64,
    /// Who keeps it from being faster.
    pub limited_by: Limiter,
    /// What TCP_INFO says; `None` where there is no such socket, or it has failed.
    pub paths: BothSides<Option<Path>>,
}
