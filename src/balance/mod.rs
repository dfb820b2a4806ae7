//! Picking a server: pure decisions, no sockets, no clock, no atomics.
//!
//! [`Picker`] holds an algorithm's own place (whose turn it is, the prefix sums of weights, a hash
//! table); what changes with each connection it asks of [`Load`]. Servers are known by their index
//! in the pool. A pick allocates nothing and ends in bounded time.

mod first;
pub mod ip_hash;
mod least_connections;
mod least_time;
mod maglev;
mod power_of_two;
mod random;
mod round_robin;
#[cfg(test)]
mod tests;
mod weighted;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use first::First;
pub use ip_hash::IpHash;
pub use least_connections::LeastConnections;
pub use least_time::LeastTime;
pub use power_of_two::PowerOfTwo;
pub use random::Random;
pub use round_robin::RoundRobin;

/// How a server is picked. Each is a file of this folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Smooth weighted round robin.
    RoundRobin,
    /// The fewest connections for its weight.
    #[default]
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
    /// Each of them, in the order in which help and messages list them.
    pub const ALL: &'static [Self] = &[
        Self::RoundRobin,
        Self::LeastConnections,
        Self::PowerOfTwo,
        Self::Random,
        Self::IpHash,
        Self::LeastTime,
        Self::First,
    ];

    /// The word for it in the config and in the API.
    pub const fn name(self) -> &'static str {
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

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    /// # Errors
    /// Where `name` is not exactly one of [`Algorithm::name`].
    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        let mut all = Self::ALL.iter().copied();
        all.find(|algorithm| algorithm.name() == name)
            .ok_or_else(|| UnknownAlgorithm(name.into()))
    }
}

/// A word that names no algorithm. The message lists those that there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownAlgorithm(String);

impl std::error::Error for UnknownAlgorithm {}

impl fmt::Display for UnknownAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no algorithm; write one of", self.0)?;
        let mut separator = " ";
        for algorithm in Algorithm::ALL {
            write!(f, "{separator}{algorithm}")?;
            separator = ", ";
        }
        Ok(())
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

impl Candidate {
    /// What it counts for: its weight, or 0 where it must not be picked.
    const fn share(self) -> u32 {
        if self.is_eligible { self.weight } else { 0 }
    }
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

/// An algorithm and its place. Each worker owns one for each pool; clones share the hash table, so
/// the process makes one picker, off the worker threads, and sends each worker a clone.
#[derive(Clone, Debug)]
pub enum Picker {
    /// See [`Algorithm::RoundRobin`].
    RoundRobin(RoundRobin),
    /// See [`Algorithm::LeastConnections`].
    LeastConnections(LeastConnections),
    /// See [`Algorithm::PowerOfTwo`].
    PowerOfTwo(PowerOfTwo),
    /// See [`Algorithm::Random`].
    Random(Random),
    /// See [`Algorithm::IpHash`].
    IpHash(IpHash),
    /// See [`Algorithm::LeastTime`].
    LeastTime(LeastTime),
    /// See [`Algorithm::First`].
    First(First),
}

impl Picker {
    /// A picker for the pool whose servers are `members`, by index: name and weight. It picks
    /// nothing until [`Picker::set_candidates`]. Members and `bounded_load` matter to `ip_hash`
    /// alone, for which this takes up to tenths of a second (10,000 servers) and must be done
    /// again when a name or a configured weight changes.
    pub fn new(algorithm: Algorithm, members: &[(&str, u32)], bounded_load: Option<f64>) -> Self {
        match algorithm {
            Algorithm::RoundRobin => Self::RoundRobin(RoundRobin::default()),
            Algorithm::LeastConnections => Self::LeastConnections(LeastConnections::default()),
            Algorithm::PowerOfTwo => Self::PowerOfTwo(PowerOfTwo::default()),
            Algorithm::Random => Self::Random(Random::default()),
            Algorithm::IpHash => {
                let table = Arc::new(ip_hash::Table::build(members));
                Self::IpHash(IpHash::new(table, bounded_load))
            }
            Algorithm::LeastTime => Self::LeastTime(LeastTime::default()),
            Algorithm::First => Self::First(First::default()),
        }
    }

    /// Tells every server's weight and whether it may be picked, by index. To be called after any
    /// change of those; it costs time in proportion to the pool, and whose turn it is survives.
    pub fn set_candidates(&mut self, candidates: &[Candidate]) {
        match self {
            Self::RoundRobin(picker) => picker.set_candidates(candidates),
            Self::LeastConnections(picker) => picker.set_candidates(candidates),
            Self::PowerOfTwo(picker) => picker.set_candidates(candidates),
            Self::Random(picker) => picker.set_candidates(candidates),
            Self::IpHash(picker) => picker.set_candidates(candidates),
            Self::LeastTime(picker) => picker.set_candidates(candidates),
            Self::First(picker) => picker.set_candidates(candidates),
        }
    }

    /// Weights are told as so many times what they are, so that parts of one can be told; 1 before
    /// this. To most algorithms that is all the same, `least_time` alone weighs a connection against
    /// a weight of 1.
    pub fn set_scale(&mut self, scale: u32) {
        if let Self::LeastTime(picker) = self {
            picker.set_scale(scale);
        }
    }

    /// A server for a new connection; `None` exactly where no eligible server of weight above 0
    /// can take it. `client` comes from [`ip_hash::client_hash`]; only `ip_hash` reads it.
    #[inline]
    pub fn pick<L: Load>(
        &mut self,
        load: &L,
        client: u64,
        rng: &mut fastrand::Rng,
    ) -> Option<Pick> {
        match self {
            Self::RoundRobin(picker) => picker.pick(load),
            Self::LeastConnections(picker) => picker.pick(load),
            Self::PowerOfTwo(picker) => picker.pick(load, rng),
            Self::Random(picker) => picker.pick(load, rng),
            Self::IpHash(picker) => picker.pick(load, client),
            Self::LeastTime(picker) => picker.pick(load, rng),
            Self::First(picker) => picker.pick(load),
        }
    }
}
