//! What a config may need of a machine: connections, workers, ports of its listeners, addresses. Where
//! the file says how many connections there may be, that is what counts; where it leaves it to the
//! machine, what its listeners and queues promise; else a round number that the report names.
//!
//! Reads the machine only for how many connections and workers fit into it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::Machine;
use crate::config::{Config, Pool, Server};
use crate::process::connections_within;

/// Connections that a machine is measured against where nothing says how many are meant: what a small
/// machine has by the kernel's defaults, and more than most services see.
const ASSUMED: u32 = 10_000;

/// Where the number of connections comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// `max_connections` of the file.
    Written,
    /// Limits of listeners and servers, and queues.
    Promised,
    /// Nothing says it.
    Assumed,
}

/// What a config may need.
#[derive(Debug)]
pub struct Wants<'c> {
    /// All of it.
    pub config: &'c Config,
    /// Connections at a time.
    pub connections: u32,
    /// Where that comes from.
    pub basis: Basis,
    /// Event loops.
    pub workers: usize,
}

impl<'c> Wants<'c> {
    pub(super) fn of(config: &'c Config, machine: &Machine) -> Self {
        let workers = config.workers.map_or_else(|| usable(machine), |w| w.get());
        let (connections, basis) = match (config.max_connections, promised(config)) {
            (Some(written), _) => (written.get(), Basis::Written),
            (None, 0) => (assumed(config, workers, machine), Basis::Assumed),
            (None, promised) => (promised, Basis::Promised),
        };
        Self {
            config,
            connections,
            basis,
            workers,
        }
    }

    /// The connections and where they come from, in words.
    #[must_use]
    pub fn said(&self) -> String {
        let connections = self.connections;
        match self.basis {
            Basis::Written => format!("max_connections {connections}"),
            Basis::Promised => {
                format!("the {connections} connections that listeners and queues allow")
            }
            Basis::Assumed => format!("{connections} connections, assumed"),
        }
    }

    /// Pools that a listener leads to, each once.
    pub(super) fn pools(&self) -> impl Iterator<Item = &'c Pool> {
        let listeners = self.config.listeners.iter();
        let used: BTreeSet<usize> = listeners
            .flat_map(|listener| listener.pools().map(|pool| pool.index()))
            .collect();
        used.into_iter().map(|index| &self.config.pools[index])
    }

    /// Addresses that listeners take at an IP address, each with its listener.
    pub(super) fn doors(&self) -> impl Iterator<Item = (&'c str, SocketAddr)> {
        let listeners = self.config.listeners.iter();
        listeners.flat_map(|listener| {
            let addresses = listener.bind.iter().filter_map(|address| address.ip());
            addresses.map(|address| (&*listener.name, address))
        })
    }

    /// Whether some server is on another machine, or may be.
    pub(super) fn goes_out(&self) -> bool {
        let is_away = |server: &Server| {
            let address = server.address.ip();
            address.is_some_and(|address| !address.ip().is_loopback())
        };
        let is_open = |pool: &Pool| !pool.templates.is_empty() || pool.servers.iter().any(is_away);
        self.pools().any(is_open)
    }

    /// Our own addresses that servers are reached from, but for loopback.
    pub(super) fn sources(&self) -> BTreeSet<IpAddr> {
        let all = self.pools().flat_map(|pool| pool.source.iter().copied());
        all.filter(|source| !source.is_loopback()).collect()
    }
}

/// As many workers as `workers: auto` makes: what the standard library finds, of any process.
fn usable(machine: &Machine) -> usize {
    let cores = machine.cores().unwrap_or(1).max(1);
    match machine.quota() {
        // Rounded down as there; no number of cores is near what this would cut off.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, and is compared with cores at once"
        )]
        Ok(Some(quota)) => cores.min((quota as usize).max(1)),
        _ => cores,
    }
}

/// What the listeners let in, or pools take and hold: the larger one. 0 where nothing says it.
fn promised(config: &Config) -> u32 {
    let listeners = config.listeners.iter();
    let let_in: u32 = listeners
        .filter_map(|listener| listener.limits.max_connections)
        .fold(0, |sum, limit| sum.saturating_add(limit.get()));
    let held = config.pools.iter().map(|pool| {
        let taken = taken(pool).unwrap_or(0);
        pool.queue.limit.saturating_add(taken)
    });
    let_in.max(held.fold(0, u32::saturating_add))
}

/// Connections that the servers of a pool take at a time; `None` where one of them has no limit.
pub(super) fn taken(pool: &Pool) -> Option<u32> {
    let is_closed = pool.templates.is_empty() && !pool.servers.is_empty();
    let mut servers = pool.servers.iter();
    let sum = servers.try_fold(0_u32, |sum, server| {
        Some(sum.saturating_add(server.max_connections?.get()))
    });
    sum.filter(|_| is_closed)
}

/// No more than what `max_connections: auto` would come to.
fn assumed(config: &Config, workers: usize, machine: &Machine) -> u32 {
    let Ok(limit) = machine.descriptors() else {
        return ASSUMED;
    };
    let fitting = connections_within(config, workers, limit, machine.pipes());
    fitting.clamp(1, ASSUMED)
}
