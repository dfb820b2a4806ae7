//! What the config says of a pool, as all workers have it: made anew with each change of the pool, and
//! never changed after that. What differs from worker to worker is beside it, in [`super::Pool`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Member;
use super::outlier::Finding;
use super::server::Server;
use super::tally::PoolTally;
use crate::balance::Algorithm;
use crate::clock::Now;
use crate::config;
use crate::ids::PoolId;

/// What is the same for all workers until the pool is replaced.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) id: PoolId,
    pub(super) tally: Arc<PoolTally>,
    pub(super) algorithm: Algorithm,
    pub(super) connect_timeout: Duration,
    pub(super) retries: u32,
    pub(super) send_proxy: config::SendProxy,
    pub(super) hash: config::Hash,
    pub(super) queue: config::Queue,
    pub(super) slow_start: Duration,
    pub(super) fail_open: bool,
    pub(super) outlier: Option<config::Outlier>,
    pub(super) source: Vec<IpAddr>,
    pub(super) tcp: Option<config::ServerTcp>,
    /// Whether verdicts decide which servers are up; else all are.
    pub(super) is_checked: bool,
    pub(super) servers: Vec<Server>,
}

impl Plan {
    pub(super) fn new(
        id: PoolId,
        config: &config::Pool,
        tally: Arc<PoolTally>,
        members: Vec<Member>,
    ) -> Self {
        assert_eq!(config.servers.len(), members.len(), "one for each server");
        let servers = config.servers.iter().zip(members);
        Self {
            id,
            tally,
            algorithm: config.algorithm,
            connect_timeout: config.connect_timeout,
            retries: config.retries,
            send_proxy: config.send_proxy,
            hash: config.hash,
            queue: config.queue,
            slow_start: config.slow_start,
            fail_open: config.fail_open,
            outlier: config.outlier,
            source: config.source.clone(),
            tcp: config.tcp.clone(),
            is_checked: config.health.is_some(),
            servers: servers.map(|(s, member)| Server::new(s, member)).collect(),
        }
    }

    /// Whether the place of an algorithm means the same in both.
    pub(super) fn picks_like(&self, other: &Self) -> bool {
        let mut servers = self.servers.iter().zip(&other.servers);
        self.algorithm == other.algorithm
            && self.servers.len() == other.servers.len()
            && servers.all(|(one, other)| (one.id, one.tier) == (other.id, other.tier))
    }

    /// Whether both have the same hash table. (An id stands for a name.)
    pub(super) fn hashes_like(&self, other: &Self) -> bool {
        let mut servers = self.servers.iter().zip(&other.servers);
        self.picks_like(other)
            && self.hash.bounded_load == other.hash.bounded_load
            && servers.all(|(one, other)| one.weight == other.weight)
    }

    /// Takes what a connection has found of the `index`-th server; true where it is ejected for it.
    pub(super) fn note(&self, index: usize, finding: Finding, now: Now) -> bool {
        let Some(rules) = &self.outlier else {
            return false;
        };
        let record = self.servers[index].tally.record();
        let all = self.servers.iter().map(|server| server.tally.record());
        record.note(finding, rules.failures.get())
            && self.tally.court().eject(record, all, rules, now)
    }
}
