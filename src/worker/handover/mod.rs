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

mod frames;
mod state;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::{io, mem};

use crossbeam_channel::{Receiver, Sender};

use self::frames::Frames;
use self::state::Descriptors;
use super::accept::Accepted;
use super::connection::{Connection, Phase};
use super::parking::ParkedState;
use super::table::Table;
use super::token::Key;
use super::{Command, Worker};
use crate::clock::Now;
use crate::end::{End, Side};
use crate::handover::{self, ConnectionState, Connections, FrameError};
use crate::ids::{ConnectionId, ServerId};
use crate::pool::Left;

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
    /// Close every connection and door without a word to anybody: another process has them, and the peers
    /// of those that end there hear of it only once nobody else has them open.
    LetGo,
    /// Serve again.
    GoOn,
}

/// What a worker takes over.
#[derive(Debug)]
pub struct Intake {
    /// By this process's numbers.
    pub connections: Vec<Parcel>,
    /// Servers of connections that no pool has any more.
    pub left: Arc<HashMap<ServerId, Left>>,
    /// New connections get ids above this one.
    pub last_id: ConnectionId,
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
                Order::LetGo => self.let_all_go(),
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
        for (key, connection) in self.table.all() {
            let (mut state, descriptors) = connection.freeze();
            if let Some(parked) = &self.parked {
                parked.tell(key, &mut state);
            }
            // Of one that has a server, its pool is asked about no more, and one that has left the
            // config is named for a while only.
            let is_settled = !matches!(connection.phase, Phase::Connecting { .. });
            let has_gone = |pool| state.has_server_socket && is_settled && !self.pools.has(pool);
            if connection.pool.is_some_and(has_gone) {
                state.pool = None;
            }
            frames.put(state, descriptors)?;
        }
        frames.finish()
    }

    fn let_all_go(&mut self) {
        self.table = Table::default();
        self.doors.clear();
        self.early.clear();
        self.put_off
            .retain(|command| !matches!(command, Command::Adopt(_)));
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
        self.note_id(intake.last_id);
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
        let past = ParkedState::of(&state);
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
        self.park_anew(key, past, now);
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
