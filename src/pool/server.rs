//! One server as its pool has it: what the config and the operator say of it. The same for all
//! workers; what a worker has found out itself stands in its [`seat`](super::seat).

use std::sync::Arc;

use super::Member;
use super::tally::ServerTally;
use crate::address::Address;
use crate::config;
use crate::ids::ServerId;

/// Whether a pick may choose a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier {
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

/// One server of a pool.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) id: ServerId,
    pub(super) tally: Arc<ServerTally>,
    pub(super) address: Address,
    pub(super) tier: Tier,
    /// Most connections, over all workers.
    pub(super) max: u32,
    pub(super) weight: u32,
    /// Whether the operator lets new connections in.
    pub(super) is_open: bool,
}

impl Server {
    pub(super) fn new(server: &config::Server, member: Member) -> Self {
        Self {
            id: member.id,
            tally: member.tally,
            address: server.address.clone(),
            tier: Tier::of(server),
            max: server
                .max_connections
                .map_or(u32::MAX, std::num::NonZeroU32::get),
            weight: server.weight,
            is_open: member.is_open,
        }
    }

    /// What the config does not say of it.
    pub(super) fn member(self) -> Member {
        Member {
            id: self.id,
            tally: self.tally,
            is_open: self.is_open,
        }
    }
}
