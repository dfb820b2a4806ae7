//! Pools as one worker sees them: their servers, and a pick that takes a place at one of them.
//!
//! Every worker has its own [`Pools`], which change only by messages; clones share nothing but the
//! [`Ledger`] and the hash tables. Whoever gets a server from [`Pools::pick`] owes
//! one [`Pools::release`].

pub mod connect_time;
pub mod drain;
pub mod ledger;
pub mod server;
pub mod tally;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use self::ledger::{Ledger, Reserved};
use self::server::{Server, Tier};
use crate::balance::{Candidate, Load, Picker, ip_hash};
use crate::clock::Now;
use crate::config;
use crate::ids::{PoolId, ServerId};

/// How often a pick is made again because another worker was quicker, before it is simply taken.
const RACES_MAX: usize = 8;

/// A server is up or down, as the prober found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which server.
    pub server: ServerId,
    /// Whether it may be picked.
    pub is_up: bool,
}

/// For whom a server is picked.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// Servers that were tried for this connection already.
    pub tried: &'a [ServerId],
    /// The time of the pick.
    pub now: Now,
}

/// One pool as one worker sees it.
#[derive(Clone, Debug)]
struct Pool {
    id: PoolId,
    connect_timeout: Duration,
    retries: u32,
    hash: config::Hash,
    servers: Vec<Server>,
    /// One for each of `Tier::ALL`.
    pickers: [Picker; 2],
    /// True exactly while the pickers do not know of the latest verdicts.
    is_stale: bool,
    /// Picks to pass over before the first one counts.
    head_start: usize,
}

/// All pools as one worker sees them.
#[derive(Clone, Debug)]
pub struct Pools {
    pools: Vec<Pool>,
    /// Which pool, and which place in it, by `ServerId`.
    places: Vec<(PoolId, usize)>,
    ledger: Ledger,
}

impl Pools {
    /// Those of `config`. Builds hash tables, so it is made once, off the workers, and cloned.
    pub fn new(config: &config::Config, ledger: Ledger) -> Self {
        let mut places = Vec::new();
        let mut pools = Vec::new();
        for (index, pool) in config.pools.iter().enumerate() {
            let first = places.len();
            let id = PoolId::new(index);
            places.extend((0..pool.servers.len()).map(|place| (id, place)));
            pools.push(Pool::new(id, pool, first));
        }
        Self {
            pools,
            places,
            ledger,
        }
    }

    /// For the `worker`-th worker, counted from 0: each takes its turns from another server on, or
    /// the first connections of all workers would meet at the first server.
    pub fn for_worker(mut self, worker: usize) -> Self {
        for pool in &mut self.pools {
            pool.head_start = worker;
        }
        self
    }

    /// Takes a place at a server that can take a connection, or says that there is none.
    pub fn pick(
        &mut self,
        pool: PoolId,
        ask: &Ask<'_>,
        random: &mut fastrand::Rng,
    ) -> Option<ServerId> {
        let pool = &mut self.pools[pool.index()];
        let server = pool.pick(&self.ledger, ask, random)?;
        if pool.hash.bounded_load.is_some() {
            self.ledger.enter_pool(pool.id);
        }
        Some(server)
    }

    /// Gives the place of a pick back.
    pub fn release(&self, server: ServerId) {
        let (pool, _) = self.places[server.index()];
        self.ledger.release(server);
        if self.pools[pool.index()].hash.bounded_load.is_some() {
            self.ledger.leave_pool(pool);
        }
    }

    /// Believes the prober.
    pub fn apply(&mut self, verdict: Verdict) {
        let (pool, place) = self.places[verdict.server.index()];
        let pool = &mut self.pools[pool.index()];
        pool.servers[place].is_up = verdict.is_up;
        pool.is_stale = true;
    }

    /// Notes how long a server took to accept, or to fail to.
    pub fn observe_connect(&mut self, server: ServerId, took: Duration, now: Now) {
        let (pool, place) = self.places[server.index()];
        self.pools[pool.index()].servers[place]
            .connect_time
            .observe(took, now);
    }

    /// Where a server listens.
    pub fn address(&self, server: ServerId) -> SocketAddr {
        let (pool, place) = self.places[server.index()];
        self.pools[pool.index()].servers[place].address
    }

    /// For each try.
    pub fn connect_timeout(&self, pool: PoolId) -> Duration {
        self.pools[pool.index()].connect_timeout
    }

    /// Other servers tried when one does not accept.
    pub fn retries(&self, pool: PoolId) -> u32 {
        self.pools[pool.index()].retries
    }

    /// The counts that this worker shares with the others.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

impl Pool {
    fn new(id: PoolId, pool: &config::Pool, first: usize) -> Self {
        let is_up = pool.health.is_none();
        let servers: Vec<_> = (first..)
            .zip(&pool.servers)
            .map(|(index, server)| Server::new(ServerId::new(index), server, is_up))
            .collect();
        // A server of the other tier has no share in this tier's hash table.
        let share =
            |server: &config::Server, tier| server.weight * u32::from(Tier::of(server) == tier);
        let picker = |tier| {
            let members: Vec<_> = pool
                .servers
                .iter()
                .map(|s| (&*s.name, share(s, tier)))
                .collect();
            Picker::new(pool.algorithm, &members, pool.hash.bounded_load)
        };
        Self {
            id,
            connect_timeout: pool.connect_timeout,
            retries: pool.retries,
            hash: pool.hash,
            pickers: Tier::ALL.map(picker),
            servers,
            is_stale: true,
            head_start: 0,
        }
    }

    /// Verdicts often come in bursts: the pickers learn of all of them at the next pick.
    fn refresh(&mut self) {
        if !std::mem::take(&mut self.is_stale) {
            return;
        }
        for (tier, picker) in Tier::ALL.into_iter().zip(&mut self.pickers) {
            let candidates: Vec<Candidate> = self
                .servers
                .iter()
                .map(|server| server.candidate(tier))
                .collect();
            picker.set_candidates(&candidates);
        }
    }

    fn pick(
        &mut self,
        ledger: &Ledger,
        ask: &Ask<'_>,
        random: &mut fastrand::Rng,
    ) -> Option<ServerId> {
        self.refresh();
        let config::Hash {
            ipv4_prefix,
            ipv6_prefix,
            ..
        } = self.hash;
        let client = ip_hash::client_hash(ask.client, ipv4_prefix, ipv6_prefix);
        let view = View {
            servers: &self.servers,
            ledger,
            pool: self.id,
            ask,
        };
        for _ in 0..std::mem::take(&mut self.head_start) {
            for picker in &mut self.pickers {
                picker.pick(&view, client, random);
            }
        }
        let mut tiers = self.pickers.iter_mut();
        tiers.find_map(|picker| take_place(picker, &view, client, random))
    }
}

/// Picks and reserves until both agree, or no server of the tier can take the connection.
fn take_place(
    picker: &mut Picker,
    view: &View<'_>,
    client: u64,
    random: &mut fastrand::Rng,
) -> Option<ServerId> {
    for round in 0.. {
        let pick = picker.pick(view, client, random)?;
        let server = &view.servers[pick.server];
        let seen = pick.connections.filter(|_| round < RACES_MAX);
        // Full or raced: the next round sees the new counts. A server that filled up meanwhile can
        // no longer take a connection, so the pool bounds the rounds.
        if view.ledger.reserve(server.id, server.max, seen) == Reserved::Yes {
            return Some(server.id);
        }
    }
    None
}

/// The servers of a pool at the moment of a pick.
struct View<'a> {
    servers: &'a [Server],
    ledger: &'a Ledger,
    pool: PoolId,
    ask: &'a Ask<'a>,
}

impl Load for View<'_> {
    fn connections(&self, server: usize) -> u32 {
        self.ledger.connections(self.servers[server].id)
    }

    fn can_take(&self, server: usize) -> bool {
        let server = &self.servers[server];
        (server.max == u32::MAX || self.ledger.connections(server.id) < server.max)
            && !self.ask.tried.contains(&server.id)
    }

    fn connect_time(&self, server: usize) -> u64 {
        self.servers[server].connect_time.nanoseconds(self.ask.now)
    }

    fn pool_connections(&self) -> u32 {
        self.ledger.pool_connections(self.pool)
    }
}

#[cfg(test)]
mod tests;
