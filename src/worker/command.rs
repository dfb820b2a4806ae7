//! What a worker is told, and what it answers. Nothing here acts; the worker never waits for whoever
//! reads an answer.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use socket2::Socket;

use super::accept::Accepted;
use super::door::Door;
use super::handover::Still;
use crate::address::Peer;
use crate::admission::{Access, Networks, PerSource, ServerNames};
use crate::config::Tcp;
use crate::ids::{ConnectionId, ListenerId, PoolId, ServerId};
use crate::mailbox::Outbox;
use crate::park::{Parking, Store};
use crate::pool::drain::Drain;
use crate::pool::ledger::Ledger;
use crate::pool::tally::ListenerTally;
use crate::pool::{Pool, Verdict};
use crate::relay::pipe_cache::Quota;
use crate::telemetry::access_log::Recorder;
use crate::telemetry::connection::ConnectionStatus;

/// One of a listener's sockets at one worker: given by the process, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DoorId(pub u32);

/// A listener as a worker sees it.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Where its connections go.
    pub pool: PoolId,
    /// No byte either way.
    pub idle_timeout: Duration,
    /// One side has ended and the other sends nothing.
    pub half_close_timeout: Duration,
    /// Who may come in, and where they go.
    pub rules: Arc<Rules>,
    /// What is counted of it.
    pub tally: Arc<ListenerTally>,
}

/// What is asked at a door, ready to be looked things up in: made off the workers, because tables of
/// a hundred thousand networks take long.
#[derive(Debug)]
pub struct Rules {
    /// For a PROXY header and a ClientHello to be complete, both together.
    pub header_timeout: Duration,
    /// Whose PROXY headers are believed; nobody else may connect. `None` is that there are none: with
    /// them, the client's address stands in the header, and rules about it wait for that.
    pub trusted_proxies: Option<Arc<Networks>>,
    /// Where TLS clients go by name; `None` is that nobody looks.
    pub server_names: Option<Arc<ServerNames>>,
    /// Which addresses may come in.
    pub access: Arc<Access>,
    /// Connections of the listener at a time.
    pub max_connections: Option<NonZeroU32>,
    /// What one address may do.
    pub per_source: PerSource,
    /// What is asked of the kernel for both sides' sockets.
    pub tcp: Tcp,
}

impl Rules {
    /// Those of a listener of which only connections are left, and of which nothing else is known than who
    /// may still come in: those whose header is on its way.
    pub fn of_left(access: Arc<Access>) -> Self {
        /// As a config has it that says nothing else.
        const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
        Self {
            header_timeout: HEADER_TIMEOUT,
            trusted_proxies: None,
            server_names: None,
            access,
            max_connections: None,
            per_source: PerSource::default(),
            tcp: Tcp::default(),
        }
    }

    /// Whether `peer` may connect: where PROXY headers are taken, only those whose word is believed.
    pub(super) fn trusts(&self, peer: Peer) -> bool {
        // Who may open a unix socket is said by its permissions.
        let is_trusted = |trusted: &Networks| peer.ip().is_none_or(|ip| trusted.contains(ip));
        self.trusted_proxies.as_deref().is_none_or(is_trusted)
    }
}

/// What changes at one worker, in one turn of its loop; more than 128 doors are closed in further
/// turns, and what stands after them follows then. It is applied in the order of the fields.
///
/// A worker whose door is open may hand a connection to one that has not had its change yet: it
/// waits there until the change comes. Pools that go are told of in a second round, when all
/// workers have closed the doors that led there.
#[derive(Debug, Default)]
pub struct Change {
    /// New ones, and those that are different from now on. A shorter timeout holds for a living
    /// connection from the next time that its timer is looked at: when the old one has passed, or
    /// one of its sides has ended.
    pub listeners: Vec<(ListenerId, Listener)>,
    /// New ones, and those that are different from now on.
    pub pools: Vec<Pool>,
    /// Start to accept at these.
    pub open: Vec<Door>,
    /// Connections that come in here belong to another listener from now on.
    pub relabel: Vec<(DoorId, ListenerId)>,
    /// Accept who waits at these, then close them.
    pub close: Vec<DoorId>,
    /// Nobody is sent there any more; connections to their servers go on.
    pub gone_pools: Vec<PoolId>,
    /// Told when all of it is done.
    pub done: Option<Sender<()>>,
}

/// Ends connections at once, as [`End::Killed`](crate::end::End::Killed).
#[derive(Debug)]
pub struct Kill {
    /// Of any worker: each ends its own.
    pub connections: Arc<[ConnectionId]>,
    /// Gets one message: those that this worker had, which have ended by then.
    pub reply: Sender<Vec<ConnectionId>>,
}

/// Tells of living connections.
#[derive(Debug)]
pub struct Listing {
    /// Those of these servers alone; `None` for all.
    pub servers: Option<Arc<[ServerId]>>,
    /// Beside them, those that have no server and are known to go to this pool.
    pub pool: Option<PoolId>,
    /// Gets one message. It is gathered over several turns, so it is not of one instant.
    pub reply: Sender<Vec<ConnectionStatus>>,
}

/// The socket of one of a worker's doors, which stays open for as long as this is there.
#[derive(Debug)]
pub struct DoorSocket {
    /// Which door.
    pub door: DoorId,
    /// Whether other workers have the same socket.
    pub is_shared: bool,
    /// The very same descriptor.
    pub socket: Arc<Socket>,
}

/// What a worker is told.
#[derive(Debug)]
pub enum Command {
    /// The config, or something in it, is different from now on.
    Change(Box<Change>),
    /// These have neither connections nor doors nor pools any more.
    Forget {
        /// No connection of theirs lives.
        listeners: Vec<ListenerId>,
        /// The same.
        servers: Vec<ServerId>,
    },
    /// The prober has found out.
    Verdict(Verdict),
    /// What all workers share about a pool's servers has changed.
    Reconsider(PoolId),
    /// The front of the pool's queue is, or was, one of this worker's: to be served if a server can
    /// take it.
    Serve(PoolId),
    /// Serve a connection that another worker accepted.
    Adopt(Accepted),
    /// Bring connections to their end at a pace, until it is cancelled. A later one for the same
    /// scope takes the place of an earlier one.
    Drain(Arc<Drain>),
    /// End these connections.
    Kill(Kill),
    /// Tell of connections.
    List(Listing),
    /// Give away further descriptors of the sockets of all doors; this worker goes on with its own.
    Doors(Sender<Vec<DoorSocket>>),
    /// Keep connections there from now on; whoever kept them before has gone.
    ParkAt(Arc<Store>),
    /// Stand still after this turn, for a handover.
    Still(Still),
    /// Make a turn, so that somebody sees it in [`Counters::turns`](crate::telemetry::counters::Counters::turns).
    Turn,
    /// Accept what waits, close the doors, and report when no connection is left.
    Leave,
    /// End every connection and return.
    Stop,
}

/// What a worker reports after [`Command::Leave`]: no connection is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained;

/// What a worker has in common with the other ones, and with the process.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How many workers there are, this one included, and how to reach each.
    pub outboxes: Vec<Outbox<Command>>,
    /// The counts that all workers share.
    pub ledger: Ledger,
    /// This worker's share of pipe memory.
    pub quota: Quota,
    /// Where records of ended connections go, unless the access log is off.
    pub recorder: Option<Recorder>,
    /// Where it reports.
    pub reports: Sender<Drained>,
    /// Where connections are parked, should the process be killed.
    pub parking: Option<Parking>,
}
