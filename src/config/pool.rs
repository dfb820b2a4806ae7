//! A pool as the program uses it: its servers, where they come from, and how one is picked.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Health;
use super::listener::Keepalive;
use crate::address::Address;
use crate::balance::Algorithm;

const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often names are looked up again where nothing is said.
pub(super) const RESOLVE: Duration = Duration::from_secs(10);

/// Servers that are interchangeable, and how one is picked.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Its key in the file.
    pub name: Arc<str>,
    /// How a server is picked.
    pub algorithm: Algorithm,
    /// Used by `ip_hash` alone.
    pub hash: Hash,
    /// For each try.
    pub connect_timeout: Duration,
    /// Other servers tried when one does not accept.
    pub retries: u32,
    /// Clients that are held while no server can take them.
    pub queue: Queue,
    /// Whether servers are told of the client by a PROXY header.
    pub send_proxy: SendProxy,
    /// How long the share of a recovered or new server grows; zero is at once.
    pub slow_start: Duration,
    /// What happens to the connections of a server that goes down.
    pub on_down: OnDown,
    /// Whether all servers are used while every one is down.
    pub fail_open: bool,
    /// When a server is left alone for what connections have found; `None` is never.
    pub outlier: Option<Outlier>,
    /// Our own addresses towards the servers, one for each connection; none leaves it to the kernel.
    pub source: Vec<IpAddr>,
    /// What is asked of the kernel for the server side; `None` is what the listener says.
    pub tcp: Option<ServerTcp>,
    /// `None` is `health: off`: every server counts as up.
    pub health: Option<Arc<Health>>,
    /// How often names are looked up again.
    pub resolve: Duration,
    /// What is to be looked up: each answer stands for servers beside those of `servers`.
    pub templates: Vec<Template>,
    /// At least one, and one of them with a weight above zero, unless there are templates. Those
    /// that templates have brought are among them while the process runs.
    pub servers: Vec<Server>,
}

#[cfg(test)]
impl Pool {
    /// One with every default, but for health checks, which it has none of.
    pub(crate) fn plain(name: &str, servers: Vec<Server>) -> Self {
        Self {
            name: Arc::from(name),
            algorithm: Algorithm::LeastConnections,
            hash: Hash {
                ipv4_prefix: 32,
                ipv6_prefix: 64,
                bounded_load: None,
            },
            connect_timeout: Duration::from_secs(2),
            retries: 2,
            queue: Queue::default(),
            send_proxy: SendProxy::Off,
            slow_start: Duration::ZERO,
            on_down: OnDown::Keep,
            fail_open: false,
            outlier: None,
            source: Vec::new(),
            tcp: None,
            health: None,
            resolve: RESOLVE,
            templates: Vec::new(),
            servers,
        }
    }
}

/// What of a client's address `ip_hash` looks at, and how full it may make a server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hash {
    /// Leading bits of an IPv4 address, at most 32.
    pub ipv4_prefix: u8,
    /// Leading bits of an IPv6 address, at most 128.
    pub ipv6_prefix: u8,
    /// A server takes at most this many times its fair share of the pool's connections; at least 1.
    pub bounded_load: Option<f64>,
}

/// Clients that are held while no server can take them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// How many, over all workers; 0 holds nobody.
    pub limit: u32,
    /// How long each.
    pub timeout: Duration,
}

impl Queue {
    /// Each costs two descriptors and what a connection does; more than this is no queue.
    pub(super) const LIMIT_MAX: u32 = 1_000_000;
}

impl Default for Queue {
    /// Nobody is held.
    fn default() -> Self {
        Self {
            limit: 0,
            timeout: QUEUE_TIMEOUT,
        }
    }
}

/// Whether servers are told of the client by a PROXY header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SendProxy {
    /// They are not.
    #[default]
    Off,
    /// In one line of text.
    V1,
    /// In binary.
    V2,
}

impl SendProxy {
    pub(super) const ALL: [Self; 3] = [Self::Off, Self::V1, Self::V2];

    /// The word for it in the config.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// What happens to the connections of a server that goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDown {
    /// They go on for as long as the peers do.
    #[default]
    Keep,
    /// They are closed.
    Close,
}

/// When a server is left alone for what real connections have found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// Failures in a row: connects that failed, and connections that the server ended at once.
    pub failures: NonZeroU32,
    /// For how long.
    pub ejection: Duration,
    /// At most so many of 100 servers at a time, rounded down.
    pub max_ejected_percent: u8,
}

impl Outlier {
    /// Most of a pool's servers that may be ejected at a time; never the only one.
    #[must_use]
    pub fn ejected_max(&self, servers: usize) -> usize {
        if servers < 2 {
            return 0;
        }
        servers * usize::from(self.max_ejected_percent.min(100)) / 100
    }
}

impl Default for Outlier {
    /// What a key that is not written has, where any is.
    fn default() -> Self {
        Self {
            failures: NonZeroU32::new(5).expect("it is not zero"),
            ejection: Duration::from_secs(30),
            max_ejected_percent: 50,
        }
    }
}

/// What is asked of the kernel for server connections (tcp(7)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTcp {
    /// Keepalive; `None` is off.
    pub keepalive: Option<Keepalive>,
    /// How long sent bytes may stay unacknowledged; `None` is the kernel's.
    pub user_timeout: Option<Duration>,
}

/// One backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Unique in its pool; the address where none is given.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: Address,
    /// Its share against the others; 0 takes no new connection.
    pub weight: u32,
    /// Over all workers; `None` is no limit.
    pub max_connections: Option<NonZeroU32>,
    /// Only picked while no other server can take the connection.
    pub backup: bool,
    /// The template that brought it; `None` where it was written, or added by an operator.
    pub found_by: Option<Arc<Question>>,
}

/// What is looked up while the process runs, and what its answers have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// What is looked up.
    pub question: Arc<Question>,
    /// Goes before a dash and the address in the names of its servers; those of a file have names
    /// of their own.
    pub name: Option<Arc<str>>,
    /// Each server's, where the answer does not say another one.
    pub weight: u32,
    /// Of each server.
    pub max_connections: Option<NonZeroU32>,
    /// Of each server.
    pub backup: bool,
}

/// What is looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// Addresses (A and AAAA) of a host name; each with the port.
    Host {
        /// In lower case.
        name: Arc<str>,
        /// As the config has it.
        port: u16,
    },
    /// A service (RFC 2782): targets with their ports, weights and priorities.
    Service(Arc<str>),
    /// A file with servers in it, one a line or YAML.
    File(PathBuf),
}

impl fmt::Display for Question {
    /// As a config has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { name, port } => write!(f, "{name}:{port}"),
            Self::Service(name) => write!(f, "srv:{name}"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}
