//! One connection as it goes over: everything that is known of it beside its descriptors.
//!
//! Every field has a default and unknown ones are passed over, so that a newer program reads what an
//! older one has sent. Listeners, pools and servers are numbers of whoever sends, which the table at
//! the beginning of a handover gives names to; times are nanoseconds of CLOCK_MONOTONIC, which all
//! processes of one boot share.
//!
//! Its descriptors stand in the order: client, server (where there is a socket), then both ends of the
//! pipe that the upstream flow holds, and of the one that the downstream flow holds.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Message;
use crate::end::Side;
use crate::relay::FlowState;
use crate::relay::state::HeldState;

/// Connections of one worker, with their descriptors one after the other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connections {
    /// Each between two events.
    pub connections: Vec<ConnectionState>,
}

impl Message for Connections {
    const KIND: u16 = 16;
}

/// A connection between two events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionState {
    /// As the access log will have it.
    pub id: u64,
    /// Where it came in.
    pub listener: u32,
    /// Where it stands.
    pub phase: PhaseState,
    /// Of its socket, or what a PROXY header says; `None` is a peer on a unix socket.
    pub client: Option<SocketAddr>,
    /// Where it had connected to, by a PROXY header.
    pub destination: Option<SocketAddr>,
    /// Where it goes, once that is known.
    pub pool: Option<u32>,
    /// Whose place it holds.
    pub server: Option<u32>,
    /// Servers that did not accept.
    pub tried: Vec<u32>,
    /// Whether a server's socket stands among the descriptors.
    pub has_server_socket: bool,
    /// Whether Nagle's algorithm was switched off at it.
    pub is_nagle_off: bool,
    /// From the client to the server.
    pub upstream: FlowState,
    /// The other way.
    pub downstream: FlowState,
    /// When it came.
    pub accepted: u64,
    /// When its server was picked.
    pub picked: u64,
    /// When that had accepted; 0 before.
    pub connected: u64,
    /// When a byte was delivered last, or a side came to its end.
    pub active: u64,
    /// Which side has ended first, and how.
    pub ended: Option<EndedState>,
    /// Leading bits of 128 by which it is counted among its source's, where those are limited.
    pub source_bits: Option<u8>,
    /// Whether its server has been judged by it.
    pub is_judged: bool,
    /// Whether the next two are known: only a process that parks connections counts them.
    pub knows_ahead: bool,
    /// Bytes of the PROXY header that its server got.
    pub given_ahead: u16,
    /// Bytes of the PROXY header that its client began with.
    pub taken_ahead: u16,
    /// Whether its sockets lie with somebody else as well, so that closing them ends nothing.
    pub is_parked: bool,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseState {
    /// It was let in and nothing else has happened: it was on its way between two workers.
    #[default]
    Accepted,
    /// The same, where a PROXY header is to come first.
    AcceptedWithHeader,
    /// A PROXY header is awaited.
    ProxyHeader {
        /// Not later than this.
        until: u64,
    },
    /// A ClientHello is awaited.
    ClientHello {
        /// Not later than this.
        until: u64,
    },
    /// It waits for a server.
    Queued {
        /// Lower ones of the same pool are served first.
        ticket: u64,
        /// Not longer than this.
        until: u64,
    },
    /// A server's answer is awaited.
    Connecting {
        /// Since then.
        since: u64,
    },
    /// Bytes go both ways.
    Relaying,
    /// It has ended by a failure at one side; the other side's last bytes are on their way.
    Lingering {
        /// The side that has failed.
        side: SideState,
        /// Not later than this.
        until: u64,
        /// Bytes that were not acknowledged at the last look.
        left: u64,
    },
}

impl PhaseState {
    /// Whether nothing has happened since it was let in.
    pub fn is_accepted(self) -> bool {
        matches!(self, Self::Accepted | Self::AcceptedWithHeader)
    }
}

/// A side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SideState {
    /// Who came in.
    Client,
    /// Who was connected to.
    Server,
}

/// How one side came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedState {
    /// Which.
    pub side: SideState,
    /// Its socket failed, or else it sent FIN.
    pub by_failure: bool,
}

impl From<Side> for SideState {
    fn from(side: Side) -> Self {
        match side {
            Side::Client => Self::Client,
            Side::Server => Self::Server,
        }
    }
}

impl From<SideState> for Side {
    fn from(side: SideState) -> Self {
        match side {
            SideState::Client => Self::Client,
            SideState::Server => Self::Server,
        }
    }
}

/// Whether a pipe goes along with a flow.
pub(crate) fn has_pipe(flow: &FlowState) -> bool {
    matches!(flow.held, HeldState::Pipe(_))
}

impl ConnectionState {
    /// How many bytes its flows hold in memory.
    pub fn held_bytes(&self) -> usize {
        let flows = [&self.upstream, &self.downstream];
        let held = flows.map(|flow| match &flow.held {
            HeldState::Header(bytes) | HeldState::Stash(bytes) => bytes.len(),
            HeldState::Nothing | HeldState::Pipe(_) => 0,
        });
        held.iter().sum()
    }

    /// How many descriptors go with it.
    pub fn descriptors(&self) -> usize {
        let pipes = [&self.upstream, &self.downstream];
        let pipes = pipes.iter().filter(|flow| has_pipe(flow)).count();
        1 + usize::from(self.has_server_socket) + 2 * pipes
    }
}
