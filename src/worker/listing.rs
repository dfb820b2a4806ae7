//! Telling of living connections, and ending those that somebody names: errands that look at the
//! whole table, a slice in each turn.
//!
//! One errand is run at a time. A reply is one message at the end; where the worker stops before,
//! the sender is dropped, which tells whoever waits.

use std::collections::BTreeSet;

use crossbeam_channel::Sender;
use socket2::Socket;

use super::Worker;
use super::command::{Kill, Listing};
use super::connection::{Connection, Ended, Phase};
use super::limiter::{Facts, SideFacts, limited_by};
use super::sweep::Sweep;
use super::token::Key;
use crate::clock::Now;
use crate::end::{End, Side};
use crate::ids::{ConnectionId, PoolId, ServerId};
use crate::sys::{self, tcp_info};
use crate::telemetry::connection::{BothSides, ConnectionStatus, Path, Stage};

/// Connections told of in one turn: seven system calls each, about 9 us.
const LISTED_PER_TURN: usize = 128;
/// Connections killed in one turn: about 30 us each, the kernel's part included.
const KILLED_PER_TURN: usize = 32;
/// Slots looked at in one turn, most of which are of no interest.
const LOOKS_PER_TURN: usize = 8192;

/// What an errand is for, and what it has got so far.
#[derive(Debug)]
enum Task {
    Kill {
        /// Those not found yet.
        wanted: BTreeSet<ConnectionId>,
        killed: Vec<ConnectionId>,
        reply: Sender<Vec<ConnectionId>>,
    },
    List {
        servers: Option<BTreeSet<ServerId>>,
        pool: Option<PoolId>,
        found: Vec<ConnectionStatus>,
        reply: Sender<Vec<ConnectionStatus>>,
    },
}

/// What takes more than one turn.
#[derive(Debug)]
pub(super) struct Errand {
    task: Task,
    sweep: Sweep,
}

impl Errand {
    pub(super) fn kill(kill: Kill) -> Self {
        Self::new(Task::Kill {
            wanted: kill.connections.iter().copied().collect(),
            killed: Vec::new(),
            reply: kill.reply,
        })
    }

    pub(super) fn list(listing: Listing) -> Self {
        let servers = listing.servers.as_deref();
        Self::new(Task::List {
            servers: servers.map(|servers| servers.iter().copied().collect()),
            pool: listing.pool,
            found: Vec::new(),
            reply: listing.reply,
        })
    }

    fn new(task: Task) -> Self {
        Self {
            task,
            sweep: Sweep::default(),
        }
    }

    /// Tells what came of it.
    fn reply(self) {
        // Who asked may have stopped waiting.
        match self.task {
            Task::Kill { killed, reply, .. } => reply.send(killed).unwrap_or(()),
            Task::List { found, reply, .. } => reply.send(found).unwrap_or(()),
        }
    }
}

impl Task {
    /// Whether nobody else can be of interest.
    fn is_done(&self) -> bool {
        matches!(self, Self::Kill { wanted, .. } if wanted.is_empty())
    }

    fn budget(&self) -> usize {
        match self {
            Self::Kill { .. } => KILLED_PER_TURN,
            Self::List { .. } => LISTED_PER_TURN,
        }
    }

    fn concerns(&self, connection: &Connection) -> bool {
        match self {
            Self::Kill { wanted, .. } => wanted.contains(&connection.id),
            Self::List { servers, pool, .. } => match (servers, connection.server) {
                (None, _) => true,
                (Some(servers), Some(server)) => servers.contains(&server),
                (Some(_), None) => pool.is_some() && connection.pool == *pool,
            },
        }
    }
}

impl Worker {
    /// Takes an errand; it begins when those before it are done.
    pub(super) fn run_later(&mut self, mut errand: Errand) {
        if let Task::Kill { wanted, .. } = &mut errand.task {
            wanted.retain(|connection| self.has_named(*connection));
        }
        errand.sweep.begin(self.table.slots());
        self.errands.push_back(errand);
    }

    /// A slice of the errand whose turn it is.
    pub(super) fn run_errand(&mut self, now: Now) {
        let Some(mut errand) = self.errands.pop_front() else {
            return;
        };
        let mut budget = errand.task.budget();
        for _ in 0..LOOKS_PER_TURN {
            if budget == 0 || errand.task.is_done() {
                break;
            }
            let Some(slot) = errand.sweep.step() else {
                break;
            };
            let key = self.table.at(slot);
            budget -= usize::from(key.is_some_and(|key| self.do_one(&mut errand.task, key, now)));
        }
        if errand.sweep.is_under_way() && !errand.task.is_done() {
            self.errands.push_front(errand);
        } else {
            errand.reply();
        }
    }

    /// Does to one connection what the errand is for; false where it is not concerned.
    fn do_one(&mut self, task: &mut Task, key: Key, now: Now) -> bool {
        let connection = self.table.find(key);
        let Some(connection) = connection.filter(|connection| task.concerns(connection)) else {
            return false;
        };
        match task {
            Task::List { found, .. } => found.push(connection.status(now)),
            Task::Kill { wanted, killed, .. } => {
                wanted.remove(&connection.id);
                killed.push(connection.id);
                self.end(key, End::Killed, now);
            }
        }
        true
    }
}

impl Connection {
    /// What is to be told of it.
    fn status(&self, now: Now) -> ConnectionStatus {
        let is_connecting = matches!(self.phase, Phase::Queued { .. } | Phase::Connecting { .. });
        let server = self.server_socket.as_ref().filter(|_| !is_connecting);
        let infos = BothSides {
            client: tcp_info::path(&self.client).ok(),
            server: server.and_then(|server| tcp_info::path(&server.socket).ok()),
        };
        let (upstream_bytes, downstream_bytes) = self.delivered();
        let facts = Facts {
            is_reading: matches!(self.phase, Phase::Reading { .. }),
            is_connecting,
            ended: self.marks.ended.map(Ended::side),
            sides: BothSides {
                client: SideFacts {
                    is_awaited: self.downstream.is_holding(),
                    has_spoken: upstream_bytes > 0,
                    ..side_facts(Some(&self.client), infos.client)
                },
                server: SideFacts {
                    is_awaited: self.upstream.is_holding(),
                    has_spoken: downstream_bytes > 0,
                    ..side_facts(self.socket(Side::Server), infos.server)
                },
            },
        };
        let local = server.and_then(|server| server.socket.local_addr().ok());
        ConnectionStatus {
            id: self.id,
            listener: self.listener,
            client: self.client_address,
            pool: self.pool,
            server: self.server,
            local: local.and_then(|address| address.as_socket()),
            stage: self.stage(),
            age: now.since(self.times.accepted),
            idle: now.since(self.times.active),
            upstream_bytes,
            downstream_bytes,
            limited_by: limited_by(&facts),
            paths: BothSides {
                client: infos.client.map(shown),
                server: infos.server.map(shown),
            },
        }
    }

    fn stage(&self) -> Stage {
        match (self.phase, self.marks.ended) {
            (Phase::Reading { .. }, _) => Stage::ReadingHeader,
            (Phase::Queued { .. }, _) => Stage::Queued,
            (Phase::Connecting { .. }, _) => Stage::Connecting,
            (Phase::Lingering { .. }, _) | (_, Some(Ended::ByFailure(_))) => Stage::Lingering,
            (Phase::Relaying, Some(Ended::InOrder(_))) => Stage::HalfClosed,
            (Phase::Relaying, None) => Stage::Relaying,
        }
    }
}

fn side_facts(socket: Option<&Socket>, info: Option<tcp_info::TcpInfo>) -> SideFacts {
    let Some(socket) = socket else {
        return SideFacts::default();
    };
    // Only a socket that has failed does not answer, and nothing waits for that one.
    let queued_bytes = sys::socket::unacknowledged(socket).unwrap_or(0);
    // A unix socket has no way on which bytes could be: its peer has not read what is queued.
    let beside_tcp = || tcp_info::TcpInfo {
        unsent_bytes: u32::try_from(queued_bytes).ok(),
        ..tcp_info::TcpInfo::default()
    };
    SideFacts {
        info: info.unwrap_or_else(beside_tcp),
        unread_bytes: sys::socket::unread(socket).unwrap_or(0),
        queued_bytes,
        ..SideFacts::default()
    }
}

fn shown(info: tcp_info::TcpInfo) -> Path {
    Path {
        round_trip: info.round_trip,
        retransmits: info.retransmits,
        unsent_bytes: info.unsent_bytes.unwrap_or(0),
    }
}
