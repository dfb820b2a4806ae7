//! Standing still between two events, so that another process can take every connection over, and
//! taking connections in that another process has handed over.
//!
//! A worker that stands still changes nothing: it neither waits on its epoll instance, which would
//! take edges away that nobody has seen, nor reads its mail. What it sends out are descriptors of the
//! same sockets and pipes, so until the new process is told to go on, this one can, as if nothing had
//! happened. The first worker must not send anything out before the last one stands still: until
//! then one may still hand a connection to another.
//!
//! Readiness does not go over: EPOLL_CTL_ADD reports what a socket is ready for at that moment, also
//! with edges (epoll(7)).

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::{io, mem};

use crossbeam_channel::{Receiver, Sender};
use socket2::Socket;

use super::accept::{Accepted, Door};
use super::connection::{Awaited, Connection, Ended, Marks, Phase, Times};
use super::link::ServerSocket;
use super::token::Key;
use super::{Command, Worker};
use crate::address::Peer;
use crate::admission::Place;
use crate::clock::Now;
use crate::end::{End, Side};
use crate::handover::connection::has_pipe;
use crate::handover::{self, ConnectionState, Connections, EndedState, FrameError, PhaseState};
use crate::ids::{ConnectionId, ListenerId, PoolId, ServerId};
use crate::pool::Left;
use crate::pool::queue::Ticket;
use crate::relay::Flow;
use crate::relay::pipe_cache::PipeCache;

/// Descriptors in one message; the kernel takes 253 (SCM_MAX_FD).
const DESCRIPTORS_PER_FRAME: usize = handover::frame::DESCRIPTORS_MAX;
/// Bytes of flows in one message, beside those of one more connection: far below what it may have.
const HELD_BYTES_PER_FRAME: usize = 256 * 1024;
/// Of one connection: both sockets and two pipes.
const DESCRIPTORS_MAX: usize = 6;

/// Has a worker stand still.
#[derive(Debug)]
pub struct Still {
    /// Told when it does.
    pub reached: Sender<()>,
    /// What it does meanwhile; that nobody can order anything any more is [`Order::GoOn`].
    pub orders: Receiver<Order>,
}

/// What a worker that stands still is told.
#[derive(Debug)]
pub enum Order {
    /// Send every connection out; the outlet comes back, with how many there were.
    SendOut(
        handover::Sender,
        Sender<(handover::Sender, Result<usize, FrameError>)>,
    ),
    /// Take these in.
    TakeIn(Box<Intake>),
    /// Serve again.
    GoOn,
}

/// What a worker takes over.
#[derive(Debug)]
pub struct Intake {
    /// Start to accept at these.
    pub doors: Vec<Door>,
    /// By this process's numbers.
    pub connections: Vec<Parcel>,
    /// Servers of connections that no pool has any more.
    pub left: Arc<HashMap<ServerId, Left>>,
    /// How many were taken in.
    pub reply: Sender<io::Result<usize>>,
}

/// One connection on its way in.
#[derive(Debug)]
pub struct Parcel {
    /// What is known of it.
    pub state: ConnectionState,
    /// In the order that the state says.
    pub descriptors: Vec<OwnedFd>,
}

impl Parcel {
    /// Connections that came together, each with its own descriptors.
    ///
    /// # Errors
    /// There are other descriptors than the connections say.
    pub fn unpack(
        message: Connections,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Vec<Self>, FrameError> {
        let connections = message.connections;
        let announced = connections.iter().map(ConnectionState::descriptors).sum();
        let came = descriptors.len();
        if came != announced {
            return Err(FrameError::Count { announced, came });
        }
        let mut rest = descriptors.into_iter();
        let parcel = |state: ConnectionState| Self {
            descriptors: rest.by_ref().take(state.descriptors()).collect(),
            state,
        };
        Ok(connections.into_iter().map(parcel).collect())
    }
}

impl Worker {
    /// Stands still until it is told to go on.
    pub(super) fn stand_still(&mut self, still: Still) {
        // Whoever asked has gone where nobody receives it; then nobody orders anything either.
        still.reached.send(()).unwrap_or(());
        // Bounded by whoever asked: each handover ends in this or in the end of the process.
        while let Ok(order) = still.orders.recv() {
            match order {
                Order::SendOut(mut outlet, reply) => {
                    let sent = self.send_out(&mut outlet);
                    drop(reply.send((outlet, sent)));
                }
                Order::TakeIn(intake) => self.take_in(*intake, Now::read()),
                Order::GoOn => break,
            }
        }
        let now = Now::read();
        for key in mem::take(&mut self.homeless) {
            self.end(key, End::NoServer, now);
        }
        for command in mem::take(&mut self.put_off) {
            self.obey(command, now);
        }
    }

    fn send_out(&mut self, outlet: &mut handover::Sender) -> Result<usize, FrameError> {
        // What another worker handed over in the last moment goes over as well; all other mail is for
        // this process, if it goes on.
        self.put_off.extend(self.mailbox.take(usize::MAX));
        let handed_over = self.put_off.iter().filter_map(|command| match command {
            Command::Adopt(accepted) => Some(accepted),
            _ => None,
        });
        let accepted = self.early.iter().chain(handed_over).map(Accepted::freeze);
        let mut frames = Frames::new(outlet);
        for (state, client) in accepted {
            frames.put(state, [Some(client)])?;
        }
        for connection in self.table.all() {
            let (state, descriptors) = connection.freeze();
            frames.put(state, descriptors)?;
        }
        frames.finish()
    }

    fn take_in(&mut self, intake: Intake, now: Now) {
        let mut taken = 0;
        let mut outcome = Ok(());
        for parcel in intake.connections {
            outcome = self.take_in_one(parcel, &intake.left, now);
            if outcome.is_err() {
                break;
            }
            taken += 1;
        }
        self.open(intake.doors);
        drop(intake.reply.send(outcome.map(|()| taken)));
    }

    fn take_in_one(
        &mut self,
        parcel: Parcel,
        left: &HashMap<ServerId, Left>,
        now: Now,
    ) -> io::Result<()> {
        let Parcel { state, descriptors } = parcel;
        let id = ConnectionId(state.id);
        if state.phase.is_accepted() {
            return self.take_in_accepted(&state, descriptors);
        }
        let connection = Connection::thaw(state, descriptors, &mut self.pipes)?;
        let Some(listener) = self.listeners.find(connection.listener) else {
            return Err(io::Error::other(format!("connection {id} has no listener")));
        };
        self.pools.ledger().take_over(self.index);
        listener
            .tally
            .take_over(connection.client_address, connection.marks.place, now);
        if let Some(server) = connection.server
            && !self.pools.take_over(server, || left.get(&server))
        {
            return Err(io::Error::other(format!("connection {id} has no server")));
        }
        self.note_id(id);
        let has_server = connection.server_socket.is_some();
        let phase = connection.phase;
        let key = self.table.insert(connection);
        self.register(key, Side::Client)?;
        if has_server {
            self.register(key, Side::Server)?;
        }
        self.arm(key, phase);
        Ok(())
    }

    /// Begins to wait for whatever the connection waits for.
    fn arm(&mut self, key: Key, phase: Phase) {
        match phase {
            Phase::Reading { until, .. } | Phase::Lingering { until, .. } => {
                self.timers.arm(key.slot, until);
            }
            Phase::Queued { ticket, until } => {
                self.timers.arm(key.slot, until);
                self.queue_again(key, ticket);
            }
            Phase::Connecting { since } => {
                let timeout = self
                    .pool_of(key)
                    .map(|pool| self.pools.connect_timeout(pool));
                self.timers
                    .arm(key.slot, since + timeout.unwrap_or_default());
            }
            Phase::Relaying => self.watch(key),
        }
    }

    fn take_in_accepted(
        &mut self,
        state: &ConnectionState,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<()> {
        let accepted = Accepted::thaw(state, Descriptors(descriptors.into_iter()).next()?);
        let Some(listener) = self.listeners.find(accepted.listener) else {
            return Err(io::Error::other("a connection has no listener"));
        };
        self.pools.ledger().take_over(self.index);
        listener
            .tally
            .take_over(accepted.address, accepted.place, Now::read());
        // Served when this worker goes on, as if another one had handed it over.
        self.put_off.push(Command::Adopt(accepted));
        Ok(())
    }
}

impl Connection {
    /// As it goes over, and its descriptors in that order.
    fn freeze(&self) -> (ConnectionState, [Option<BorrowedFd<'_>>; 6]) {
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
        };
        let client = Some(self.client.as_fd());
        let server = server.map(|server| server.socket.as_fd());
        let descriptors = [client, server, up_read, up_write, down_read, down_write];
        (state, descriptors)
    }

    /// The connection that `state` tells of.
    fn thaw(
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
    fn freeze(self) -> PhaseState {
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
    fn thaw(state: PhaseState) -> Self {
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

/// Connections on their way out, several to a frame.
struct Frames<'o> {
    outlet: &'o mut handover::Sender,
    message: Connections,
    /// Bytes that flows hold in memory, which go along in base64.
    held_bytes: usize,
    descriptors: Vec<BorrowedFd<'o>>,
    sent: usize,
}

impl<'o> Frames<'o> {
    fn new(outlet: &'o mut handover::Sender) -> Self {
        Self {
            outlet,
            message: Connections::default(),
            held_bytes: 0,
            descriptors: Vec::new(),
            sent: 0,
        }
    }

    fn put(
        &mut self,
        state: ConnectionState,
        descriptors: impl IntoIterator<Item = Option<BorrowedFd<'o>>>,
    ) -> Result<(), FrameError> {
        debug_assert!(state.descriptors() <= DESCRIPTORS_MAX);
        let is_full = self.descriptors.len() + DESCRIPTORS_MAX > DESCRIPTORS_PER_FRAME;
        if is_full || self.held_bytes > HELD_BYTES_PER_FRAME {
            self.flush()?;
        }
        self.held_bytes += state.held_bytes();
        self.message.connections.push(state);
        self.descriptors.extend(descriptors.into_iter().flatten());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), FrameError> {
        self.outlet.send(&self.message, &self.descriptors)?;
        self.sent += self.message.connections.len();
        self.message.connections.clear();
        self.held_bytes = 0;
        self.descriptors.clear();
        Ok(())
    }

    /// How many went out.
    fn finish(mut self) -> Result<usize, FrameError> {
        if !self.message.connections.is_empty() {
            self.flush()?;
        }
        Ok(self.sent)
    }
}

/// Descriptors that came with one connection, in their order.
struct Descriptors(std::vec::IntoIter<OwnedFd>);

impl Descriptors {
    fn next(&mut self) -> io::Result<OwnedFd> {
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
