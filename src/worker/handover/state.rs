//! A connection as plain values with its descriptors beside them, and back: what goes over of it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use socket2::Socket;

use crate::address::Peer;
use crate::admission::Place;
use crate::clock::Now;
use crate::end::{End, Side};
use crate::handover::connection::has_pipe;
use crate::handover::{ConnectionState, EndedState, PhaseState};
use crate::ids::{ConnectionId, ListenerId, PoolId, ServerId};
use crate::pool::queue::Ticket;
use crate::relay::Flow;
use crate::relay::pipe_cache::PipeCache;
use crate::worker::accept::Accepted;
use crate::worker::connection::{Awaited, Connection, Ended, Marks, Phase, Times};
use crate::worker::link::ServerSocket;

impl Accepted {
    pub(super) fn freeze(&self) -> (ConnectionState, BorrowedFd<'_>) {
        let at = self.at.as_nanoseconds();
        let state = ConnectionState {
            listener: number(self.listener.index()),
            phase: match self.has_header {
                true => PhaseState::AcceptedWithHeader,
                false => PhaseState::Accepted,
            },
            client: self.address.ip_port(),
            accepted: at,
            active: at,
            source_bits: self.place.map(Place::bits),
            ..ConnectionState::default()
        };
        (state, self.client.as_fd())
    }

    pub(super) fn thaw(state: &ConnectionState, client: OwnedFd) -> Self {
        Self {
            listener: ListenerId::new(state.listener as usize),
            client: client.into(),
            address: state.client.map_or(Peer::Unix, Peer::Ip),
            at: Now::from_nanoseconds(state.accepted),
            place: state.source_bits.map(Place::of_bits),
            has_header: state.phase == PhaseState::AcceptedWithHeader,
        }
    }
}

impl Connection {
    /// As it goes over, and its descriptors in that order.
    pub(super) fn freeze(&self) -> (ConnectionState, [Option<BorrowedFd<'_>>; 6]) {
        let (upstream, up) = self.upstream.freeze();
        let (downstream, down) = self.downstream.freeze();
        let [up_read, up_write] = up.map_or([None; 2], |pipe| pipe.map(Some));
        let [down_read, down_write] = down.map_or([None; 2], |pipe| pipe.map(Some));
        let server = self.server_socket.as_ref();
        let state = ConnectionState {
            id: self.id.0,
            listener: number(self.listener.index()),
            phase: self.phase.freeze(),
            client: self.client_address.ip_port(),
            destination: self.destination.as_deref().copied(),
            pool: self.pool.map(|pool| number(pool.index())),
            server: self.server.map(|server| number(server.index())),
            tried: self
                .tried
                .iter()
                .map(|server| number(server.index()))
                .collect(),
            has_server_socket: server.is_some(),
            is_nagle_off: server.is_some_and(|server| server.is_nagle_off),
            upstream,
            downstream,
            accepted: self.times.accepted.as_nanoseconds(),
            picked: self.times.picked.as_nanoseconds(),
            connected: self.times.connected.as_nanoseconds(),
            active: self.times.active.as_nanoseconds(),
            ended: self.marks.ended.map(Into::into),
            source_bits: self.marks.place.map(Place::bits),
            is_judged: self.marks.is_judged,
            // What is known of its being parked, the worker knows.
            ..ConnectionState::default()
        };
        let client = Some(self.client.as_fd());
        let server = server.map(|server| server.socket.as_fd());
        let descriptors = [client, server, up_read, up_write, down_read, down_write];
        (state, descriptors)
    }

    /// The connection that `state` tells of.
    pub(super) fn thaw(
        state: ConnectionState,
        descriptors: Vec<OwnedFd>,
        pipes: &mut PipeCache,
    ) -> io::Result<Self> {
        let mut descriptors = Descriptors(descriptors.into_iter());
        let client = Socket::from(descriptors.next()?);
        let server_socket = match state.has_server_socket {
            true => Some(ServerSocket {
                socket: Socket::from(descriptors.next()?),
                is_nagle_off: state.is_nagle_off,
            }),
            false => None,
        };
        let upstream = descriptors.pipe(has_pipe(&state.upstream))?;
        let downstream = descriptors.pipe(has_pipe(&state.downstream))?;
        let server = |number: &u32| ServerId::new(*number as usize);
        Ok(Self {
            id: ConnectionId(state.id),
            listener: ListenerId::new(state.listener as usize),
            phase: Phase::thaw(state.phase),
            client,
            client_address: peer(&state),
            destination: state.destination.map(Box::new),
            server_socket,
            pool: state.pool.map(|number| PoolId::new(number as usize)),
            server: state.server.as_ref().map(server),
            tried: state.tried.iter().map(server).collect(),
            upstream: Flow::thaw(state.upstream, upstream, pipes).map_err(io::Error::other)?,
            downstream: Flow::thaw(state.downstream, downstream, pipes)
                .map_err(io::Error::other)?,
            times: Times {
                accepted: Now::from_nanoseconds(state.accepted),
                picked: Now::from_nanoseconds(state.picked),
                connected: Now::from_nanoseconds(state.connected),
                active: Now::from_nanoseconds(state.active),
            },
            marks: Marks {
                ended: state.ended.map(Into::into),
                is_queued: false,
                place: state.source_bits.map(Place::of_bits),
                is_judged: state.is_judged,
            },
        })
    }
}

impl Phase {
    pub(super) fn freeze(self) -> PhaseState {
        let nanoseconds = Now::as_nanoseconds;
        match self {
            Self::Reading { until, awaited } => {
                let until = nanoseconds(until);
                match awaited {
                    Awaited::ProxyHeader => PhaseState::ProxyHeader { until },
                    Awaited::ClientHello => PhaseState::ClientHello { until },
                }
            }
            Self::Queued { ticket, until } => PhaseState::Queued {
                ticket: ticket.number(),
                until: nanoseconds(until),
            },
            Self::Connecting { since } => PhaseState::Connecting {
                since: nanoseconds(since),
            },
            Self::Relaying => PhaseState::Relaying,
            Self::Lingering { end, until, left } => PhaseState::Lingering {
                side: match end {
                    End::ServerReset => Side::Server.into(),
                    _ => Side::Client.into(),
                },
                until: nanoseconds(until),
                left: left as u64,
            },
        }
    }

    /// Not to be asked for those that were only accepted.
    pub(super) fn thaw(state: PhaseState) -> Self {
        let now = Now::from_nanoseconds;
        let reading = |until, awaited| Self::Reading {
            until: now(until),
            awaited,
        };
        match state {
            PhaseState::ProxyHeader { until } => reading(until, Awaited::ProxyHeader),
            PhaseState::ClientHello { until } => reading(until, Awaited::ClientHello),
            PhaseState::Queued { ticket, until } => Self::Queued {
                ticket: Ticket::new(ticket),
                until: now(until),
            },
            PhaseState::Connecting { since } => Self::Connecting { since: now(since) },
            PhaseState::Relaying | PhaseState::Accepted | PhaseState::AcceptedWithHeader => {
                Self::Relaying
            }
            PhaseState::Lingering { side, until, left } => Self::Lingering {
                end: End::reset(side.into()),
                until: now(until),
                left: usize::try_from(left).unwrap_or(usize::MAX),
            },
        }
    }
}

impl From<Ended> for EndedState {
    fn from(ended: Ended) -> Self {
        Self {
            side: ended.side().into(),
            by_failure: matches!(ended, Ended::ByFailure(_)),
        }
    }
}

impl From<EndedState> for Ended {
    fn from(state: EndedState) -> Self {
        match state.by_failure {
            true => Self::ByFailure(state.side.into()),
            false => Self::InOrder(state.side.into()),
        }
    }
}

/// Descriptors that came with one connection, in their order.
pub(super) struct Descriptors(pub(super) std::vec::IntoIter<OwnedFd>);

impl Descriptors {
    pub(super) fn next(&mut self) -> io::Result<OwnedFd> {
        let missing = || io::Error::other("a connection has lost a descriptor");
        self.0.next().ok_or_else(missing)
    }

    fn pipe(&mut self, is_there: bool) -> io::Result<Option<[OwnedFd; 2]>> {
        match is_there {
            true => Ok(Some([self.next()?, self.next()?])),
            false => Ok(None),
        }
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("an id has 32 bits")
}

fn peer(state: &ConnectionState) -> Peer {
    state.client.map_or(Peer::Unix, Peer::Ip)
}
