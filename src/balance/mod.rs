//! Picking a server: pure decisions, no sockets, no clock, no atomics.
//!
//! [`Picker`] holds an algorithm's own place (whose turn it is, the prefix sums of weights, a hash
//! table); what changes with each connection it asks of [`Load`]. Servers are known by their index
//! in the pool.

/// How a server is picked. Each is a file of this folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Smooth weighted round robin.
    RoundRobin,
    /// The fewest connections for its weight.
    LeastConnections,
    /// Two at random, the less loaded of them.
    PowerOfTwo,
    /// At random, by weight.
    Random,
    /// Maglev consistent hashing of the client's address.
    IpHash,
    /// The least peak-EWMA connect time x connections, of two at random.
    LeastTime,
    /// The first in the list that is not full.
    First,
}

impl Algorithm {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::RoundRobin,
        Self::LeastConnections,
        Self::PowerOfTwo,
        Self::Random,
        Self::IpHash,
        Self::LeastTime,
        Self::First,
    ];

    /// As the config has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
            Self::PowerOfTwo => "power_of_two",
            Self::Random => "random",
            Self::IpHash => "ip_hash",
            Self::LeastTime => "least_time",
            Self::First => "first",
        }
    }
}

impl std::str::FromStr for Algorithm {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let found = Self::ALL.iter().find(|each| each.name() == text);
        found.copied().ok_or(())
    }
}

/// One server as an algorithm sees it, until the next change of weight or health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// 0 is never picked.
    pub weight: u32,
    /// Up, and of the tier (ordinary or backup) that is being picked from.
    pub is_eligible: bool,
}

/// What an algorithm asks about the servers at the moment of a pick.
pub trait Load {
    /// Connections that the server holds, over all workers.
    fn connections(&self, server: usize) -> u32;
    /// False while it is at its maximum or was already tried for this connection.
    fn can_take(&self, server: usize) -> bool;
    /// Peak EWMA of its connect time in nanoseconds; 0 where none was measured yet.
    fn connect_time(&self, server: usize) -> u64;
    /// Connections of the whole pool; asked only where `bounded_load` is set.
    fn pool_connections(&self) -> u32;
}

/// A pick, and what it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Index in the pool.
    pub server: usize,
    /// The server's count that the choice rests on: if it has changed when the count is raised,
    /// another worker was quicker and the pick should be made again. `None` where counts are not
    /// compared.
    pub connections: Option<u32>,
}
