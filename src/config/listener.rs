//! A listener as the program uses it: its addresses, who may come in there, and where they go.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::address::Address;
use crate::ids::PoolId;
use crate::units::Rate;

/// The kernel caps it at `net.core.somaxconn`, which is 4,096 by default.
const BACKLOG: NonZeroU32 = NonZeroU32::new(4096).expect("it is not zero");

/// An address that clients connect to, and the rules at that door.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Its key in the file.
    pub name: Arc<str>,
    /// At least one, ranges written out; port 0 asks the kernel for a free one.
    pub bind: Vec<Address>,
    /// Where its connections go that no route takes.
    pub pool: PoolId,
    /// Where TLS clients go by the server name that they ask for; with any, whoever does not speak
    /// TLS is turned away. In the order of the file.
    pub sni: Vec<Route>,
    /// Whether a PROXY header comes first.
    pub proxy_protocol: ProxyProtocol,
    /// Who may come in, in order and each once; `None` is everyone.
    pub allow: Option<Arc<[IpNet]>>,
    /// Who may not, whatever `allow` says; in order and each once.
    pub deny: Arc<[IpNet]>,
    /// How many may come in.
    pub limits: Limits,
    /// For a PROXY header or a ClientHello to be complete.
    pub header_timeout: Duration,
    /// No byte either way for this long ends a connection.
    pub idle_timeout: Duration,
    /// One side has ended and the other sends nothing for this long.
    pub half_close_timeout: Duration,
    /// What is asked of the kernel for its sockets.
    pub tcp: Tcp,
}

impl Listener {
    /// Its addresses as a config has them, ports in a row as a range; at most this many of them, and
    /// then how many more there are.
    pub fn shown_addresses(&self, most: usize) -> String {
        let runs: Vec<_> = self.bind.chunk_by(follows).collect();
        let mut words: Vec<_> = runs.iter().take(most).map(|run| shown_run(run)).collect();
        let rest = runs.get(most..).unwrap_or_default();
        if !rest.is_empty() {
            words.push(format!("and {} more", rest.concat().len()));
        }
        words.join(", ")
    }

    /// Every pool that its connections may go to, its own one first; one may come more than once.
    pub fn pools(&self) -> impl Iterator<Item = PoolId> {
        let routes = self.sni.iter().map(|route| route.pool);
        std::iter::once(self.pool).chain(routes)
    }
}

/// Whether two addresses are one host's, the second with the next port.
fn follows(first: &Address, second: &Address) -> bool {
    let (Some(first), Some(second)) = (first.ip(), second.ip()) else {
        return false;
    };
    first.ip() == second.ip() && first.port().checked_add(1) == Some(second.port())
}

/// One address, or the first with the last port.
fn shown_run(run: &[Address]) -> String {
    match run {
        [first, .., last] => {
            let last = last.ip().map_or(0, |last| last.port());
            format!("{first}-{last}")
        }
        one => one.iter().map(ToString::to_string).collect(),
    }
}

/// One way by server name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which names.
    pub names: ServerPattern,
    /// Where their connections go.
    pub pool: PoolId,
}

/// Server names, in lower case and without a dot at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerPattern {
    /// This name alone.
    Exact(Arc<str>),
    /// What ends with a dot and this, at any depth: `*.example.com` is `example.com` here.
    Below(Arc<str>),
}

impl fmt::Display for ServerPattern {
    /// As a config has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

/// Whether clients' connections begin with a PROXY header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// They do not.
    Off,
    /// They must, and only these peers may connect at all.
    Accept {
        /// Peers whose word is believed, in order and each once. Peers on unix sockets always are:
        /// only where there are no others may it be empty.
        trusted: Arc<[IpNet]>,
    },
}

/// How many may come in at a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time, over all workers; `None` is no limit of its own.
    pub max_connections: Option<NonZeroU32>,
    /// The same for one address, by `ipv4_prefix` and `ipv6_prefix`.
    pub max_connections_per_ip: Option<NonZeroU32>,
    /// New connections of one address: a token bucket that holds one second's worth, at least one.
    pub connection_rate_per_ip: Option<Rate>,
    /// Leading bits of an IPv4 address that count as one address, at most 32.
    pub ipv4_prefix: u8,
    /// Leading bits of an IPv6 address that count as one address, at most 128.
    pub ipv6_prefix: u8,
}

/// What is asked of the kernel for a listener's sockets (tcp(7)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Both sides' keepalive, unless the pool says otherwise of the server side.
    pub keepalive: Option<Keepalive>,
    /// How long sent bytes may stay unacknowledged, at both sides likewise.
    pub user_timeout: Option<Duration>,
    /// Whether clients may send with their SYN (TCP_FASTOPEN).
    pub fast_open: bool,
    /// Connections that may wait to be accepted, for each worker.
    pub backlog: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: None,
            max_connections_per_ip: None,
            connection_rate_per_ip: None,
            ipv4_prefix: 32,
            // What one customer of an access provider has (RFC 6177).
            ipv6_prefix: 64,
        }
    }
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            keepalive: None,
            user_timeout: None,
            fast_open: false,
            backlog: BACKLOG,
        }
    }
}

/// When the kernel asks a silent peer whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe, in whole seconds.
    pub idle: Duration,
    /// From one probe to the next, in whole seconds; `None` is the kernel's.
    pub interval: Option<Duration>,
    /// Probes without an answer that end the connection; `None` is the kernel's.
    pub probes: Option<NonZeroU32>,
}
