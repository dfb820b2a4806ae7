//! One server as one worker sees it: what the config says of it, its health as last told, and how
//! quickly it has been accepting. Only its count of connections is shared ([`Ledger`]).
//!
//! [`Ledger`]: super::ledger::Ledger

use std::net::SocketAddr;

use super::connect_time::ConnectTime;
use crate::balance::Candidate;
use crate::config;
use crate::ids::ServerId;

/// Whether a pick may choose a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// As a matter of course.
    Ordinary,
    /// Only while no ordinary one can take the connection.
    Backup,
}

impl Tier {
    /// In the order in which they are asked.
    pub(super) const ALL: [Self; 2] = [Self::Ordinary, Self::Backup];

    /// The one that the config puts a server into.
    pub(super) fn of(server: &config::Server) -> Self {
        match server.backup {
            true => Self::Backup,
            false => Self::Ordinary,
        }
    }
}

/// One server as one worker sees it.
#[derive(Clone, Debug)]
pub struct Server {
    pub(super) id: ServerId,
    pub(super) address: SocketAddr,
    pub(super) tier: Tier,
    /// Most connections, over all workers.
    pub(super) max: u32,
    pub(super) weight: u32,
    pub(super) is_up: bool,
    pub(super) connect_time: ConnectTime,
}

impl Server {
    /// Down until a verdict comes, unless nobody will ever give one.
    pub(super) fn new(id: ServerId, server: &config::Server, is_up: bool) -> Self {
        Self {
            id,
            address: server.address,
            tier: Tier::of(server),
            max: server
                .max_connections
                .map_or(u32::MAX, std::num::NonZeroU32::get),
            weight: server.weight,
            is_up,
            connect_time: ConnectTime::default(),
        }
    }

    /// As the picker of `tier` sees it.
    pub(super) fn candidate(&self, tier: Tier) -> Candidate {
        Candidate {
            weight: self.weight,
            is_eligible: self.is_up && self.tier == tier,
        }
    }
}
