//! What the admin side asks of the process, and what it is answered. The process alone changes
//! things; whatever can be read without it (names, counts, findings) is not asked for here.

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::address::Address;
use crate::balance::Algorithm;
use crate::ids::ConnectionId;
use crate::pool::drain::Pace;
use crate::roster::Standing;
use crate::telemetry::connection::ConnectionStatus;

/// A server by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerName {
    /// Its pool.
    pub pool: String,
    /// Its name in it.
    pub server: String,
}

/// A server to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewServer {
    /// The address where none is given.
    pub name: Option<String>,
    /// Where it listens.
    pub address: Address,
    /// Its share against the others, 0 to 256.
    pub weight: u32,
    /// `None` is no limit.
    pub max_connections: Option<NonZeroU32>,
    /// Only picked while no other server can take the connection.
    pub backup: bool,
}

/// What is to be changed about a server; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerChange {
    /// With the pace at which its connections end, where the new standing ends any.
    pub standing: Option<(Standing, Pace)>,
    /// Its share against the others, 0 to 256.
    pub weight: Option<u32>,
}

/// A file to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// `None` is the file of the last time.
    pub file: Option<PathBuf>,
    /// Taken back after this long unless confirmed.
    pub confirm: Option<Duration>,
    /// How the connections of removed servers end.
    pub pace: Pace,
}

/// What the process is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Change a server's standing or weight.
    ChangeServer(ServerName, ServerChange),
    /// Add a server to a pool; answered when it is in use, or known to be down.
    AddServer {
        /// The pool's name.
        pool: String,
        /// What to add.
        server: NewServer,
    },
    /// Remove a server; its connections end at the pace.
    RemoveServer(ServerName, Pace),
    /// Pick servers of a pool in another way from now on.
    ChangeAlgorithm {
        /// The pool's name.
        pool: String,
        /// The other way.
        algorithm: Algorithm,
    },
    /// Say what a reload would change.
    Plan(Option<PathBuf>),
    /// Apply a file.
    Reload(Reload),
    /// Keep what was reloaded.
    Confirm,
    /// Let this node count as not ready, or no longer; nothing else changes.
    Leave(bool),
    /// Start this program, or the one that runs, in the place of this process, and hand everything over
    /// to it; answered when it serves, or when all is as before.
    Upgrade(Option<PathBuf>),
    /// End these connections.
    Kill(Vec<ConnectionId>),
    /// List living connections.
    Connections(Filter),
}

/// Which connections are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this pool alone.
    pub pool: Option<String>,
    /// Of this server alone; with `pool`, or of any pool.
    pub server: Option<String>,
}

/// What a request that was granted led to.
#[derive(Clone, Debug)]
pub enum Done {
    /// It is in effect; the roster shows it.
    Changed,
    /// What changes, a line each, and what a reload cannot change.
    Plan(Plan),
    /// Those that were found and ended.
    Killed(Vec<ConnectionId>),
    /// Living connections, in no order.
    Connections(Vec<ConnectionStatus>),
    /// Another process serves; this one ends as soon as this is said.
    Upgraded(Successor),
}

/// The process that has taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Successor {
    /// Its number.
    pub pid: u32,
    /// The version of its program.
    pub version: String,
    /// Connections that went over.
    pub connections: u64,
}

/// The difference that a file makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which users read it: listeners, pools, servers.
    pub changes: Vec<PlannedChange>,
    /// Settings that take effect at an upgrade or a new start alone, a line each.
    pub restart: Vec<String>,
    /// What of the file has no effect or cannot work as it stands, a line each.
    pub warnings: Vec<String>,
}

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedChange {
    /// Such as `server web/a: weight 1 -> 3`.
    pub text: String,
    /// Living connections that it touches: those whose server or listener goes or changes.
    pub connections: u64,
}

/// Why a request was not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such thing.
    NotFound(String),
    /// It cannot be done so: a mistake in what was asked for, or in the file.
    Invalid(String),
    /// It cannot be done now.
    Conflict(String),
    /// The process is ending, or a worker has not answered in time.
    Unavailable(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(text)
            | Self::Invalid(text)
            | Self::Conflict(text)
            | Self::Unavailable(text) => f.write_str(text),
        }
    }
}

/// What the process answers.
pub type Answer = Result<Done, Refusal>;

/// A question and the way back; dropped without an answer, it counts as [`Refusal::Unavailable`].
pub struct Request {
    /// What is asked for.
    pub ask: Ask,
    /// Never blocks; may be called from any thread.
    pub reply: Box<dyn FnOnce(Answer) + Send>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ask.fmt(f)
    }
}
