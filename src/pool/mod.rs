//! Pools as one worker sees them: their servers, and a pick that takes a place at one of them.
//!
//! Every worker has its own [`Pools`], which change only by messages. A [`Pool`] is made off the
//! workers, because hash tables take long; clones share those and all that stays the same. What a
//! worker knows of a server itself (`seat`) survives each change of its pool. Whoever gets a
//! server from [`Pools::pick`] owes one [`Pools::release`].

pub mod connect_time;
pub mod drain;
pub mod ledger;
mod seat;
mod server;
pub mod tally;

use std::sync::Arc;
use std::time::Duration;

use self::ledger::Ledger;
use self::seat::Seats;
use self::server::{Server, Tier};
use self::tally::{PoolTally, Reserved, ServerTally};
use crate::address::{Address, Peer};
use crate::balance::{Algorithm, Candidate, Load, Picker, ip_hash};
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
    /// What the server itself asks for.
    pub share: Share,
}

/// How much of its weight a server wants to be given, as an agent at the server says: 100 is all of
/// it, 0 takes no new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(pub u16);

impl Default for Share {
    fn default() -> Self {
        Self(100)
    }
}

/// For whom a server is picked.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The client's address.
    pub client: Peer,
    /// Servers that were tried for this connection already.
    pub tried: &'a [ServerId],
    /// The time of the pick.
    pub now: Now,
}

/// What the config does not say of a server of a pool.
#[derive(Clone, Debug)]
pub struct Member {
    /// What threads call it; never given to another server.
    pub id: ServerId,
    /// What all threads share about it.
    pub tally: Arc<ServerTally>,
    /// Whether the operator lets new connections in.
    pub is_open: bool,
}

/// What is the same for all workers until the pool is replaced.
#[derive(Debug)]
struct Plan {
    id: PoolId,
    tally: Arc<PoolTally>,
    algorithm: Algorithm,
    connect_timeout: Duration,
    retries: u32,
    send_proxy: config::SendProxy,
    hash: config::Hash,
    /// Whether verdicts decide which servers are up; else all are.
    is_checked: bool,
    servers: Vec<Server>,
}

/// One pool, to be cloned for each worker.
#[derive(Clone, Debug)]
pub struct Pool {
    plan: Arc<Plan>,
    /// One for each of `Tier::ALL`.
    pickers: [Picker; 2],
    /// True exactly while the pickers do not know of the latest verdicts.
    is_stale: bool,
    /// Picks to pass over before the first one counts.
    head_start: usize,
}

/// All pools as one worker sees them.
#[derive(Debug)]
pub struct Pools {
    /// By `PoolId`: 8 bytes for each id that was ever given.
    pools: Vec<Option<Box<Pool>>>,
    seats: Seats,
    /// Counted from 0. Each worker takes its turns from another server on, or the first connections
    /// of all workers would meet at the first server.
    worker: usize,
    ledger: Ledger,
}

impl Pools {
    /// None yet, for the `worker`-th worker, counted from 0.
    pub fn new(worker: usize, ledger: Ledger) -> Self {
        Self {
            pools: Vec::new(),
            seats: Seats::default(),
            worker,
            ledger,
        }
    }

    /// Adds a pool, or puts it in the place of the one with the same id. What is known of servers
    /// stays, and where servers and algorithm are the same, so does whose turn it is.
    pub fn install(&mut self, mut pool: Pool) {
        let index = pool.plan.id.index();
        self.seats.join(&pool.plan);
        pool.head_start = self.worker;
        if let Some(old) = self.take(pool.plan.id) {
            self.seats.part(&old.plan, Some(&pool.plan));
            pool.succeed(*old);
        }
        if index >= self.pools.len() {
            self.pools.resize_with(index + 1, || None);
        }
        self.pools[index] = Some(Box::new(pool));
    }

    /// Takes a pool away; connections to its servers go on.
    pub fn remove(&mut self, pool: PoolId) {
        if let Some(old) = self.take(pool) {
            self.seats.part(&old.plan, None);
        }
    }

    /// Forgets servers that have left their pools; one that still holds connections stays.
    ///
    /// A verdict that comes later than this makes a seat again that nobody forgets: a few bytes.
    pub fn forget(&mut self, servers: &[ServerId]) {
        for server in servers {
            self.seats.forget(*server);
        }
    }

    fn take(&mut self, pool: PoolId) -> Option<Box<Pool>> {
        self.pools.get_mut(pool.index())?.take()
    }

    /// Takes a place at a server that can take a connection, or says that there is none.
    pub fn pick(
        &mut self,
        pool: PoolId,
        ask: &Ask<'_>,
        random: &mut fastrand::Rng,
    ) -> Option<ServerId> {
        let pool = self.pools.get_mut(pool.index())?.as_mut()?;
        let index = pool.pick(&self.seats, ask, random)?;
        self.seats.hold(&pool.plan, index);
        Some(pool.plan.servers[index].id)
    }

    /// Gives the place of a pick back.
    pub fn release(&mut self, server: ServerId) {
        self.seats.release(server);
    }

    /// Believes the prober, which may know a server before its pool is here.
    pub fn apply(&mut self, verdict: Verdict) {
        let pool = self.seats.believe(verdict.server, verdict.is_up);
        if let Some(pool) = pool
            && let Some(Some(pool)) = self.pools.get_mut(pool.index())
        {
            pool.is_stale = true;
        }
    }

    /// Notes how long a server took to accept, or to fail to.
    pub fn observe_connect(&mut self, server: ServerId, took: Duration, now: Now) {
        self.seats.observe_connect(server, took, now);
    }

    /// Where a server listens; `None` for one that was never picked.
    pub fn address(&self, server: ServerId) -> Option<&Address> {
        self.seats.address(server)
    }

    /// What all threads share about a server that was picked, also if it has left its pool.
    pub fn tally(&self, server: ServerId) -> Option<&Arc<ServerTally>> {
        self.seats.tally(server)
    }

    /// What all threads share about the pool for which a server was picked.
    pub fn pool_tally(&self, server: ServerId) -> Option<&Arc<PoolTally>> {
        self.seats.pool_tally(server)
    }

    /// For each try; zero where there is no such pool.
    pub fn connect_timeout(&self, pool: PoolId) -> Duration {
        self.plan(pool)
            .map_or(Duration::ZERO, |plan| plan.connect_timeout)
    }

    /// Other servers tried when one does not accept.
    pub fn retries(&self, pool: PoolId) -> u32 {
        self.plan(pool).map_or(0, |plan| plan.retries)
    }

    /// How its servers are told of the client; not at all where there is no such pool.
    pub fn send_proxy(&self, pool: PoolId) -> config::SendProxy {
        self.plan(pool)
            .map_or_else(Default::default, |plan| plan.send_proxy)
    }

    /// Whether there is such a pool.
    pub fn has(&self, pool: PoolId) -> bool {
        self.plan(pool).is_some()
    }

    fn plan(&self, pool: PoolId) -> Option<&Plan> {
        Some(&self.pools.get(pool.index())?.as_ref()?.plan)
    }

    /// The counts that this worker shares with the others.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

impl Pool {
    /// A pool of the servers of `config`, to which `members` are parallel. For `ip_hash` it takes up
    /// to tenths of a second (10,000 servers), so it is made off the workers.
    ///
    /// # Panics
    /// Where there are not as many members as servers.
    pub fn new(
        id: PoolId,
        config: &config::Pool,
        tally: Arc<PoolTally>,
        members: Vec<Member>,
    ) -> Self {
        let plan = Plan::new(id, config, tally, members);
        // A server of the other tier has no share in this tier's hash table.
        let share = |server: &Server, tier| server.weight * u32::from(server.tier == tier);
        let picker = |tier| {
            let shares = plan.servers.iter().map(|server| share(server, tier));
            let names = config.servers.iter().map(|server| &*server.name);
            let named: Vec<_> = names.zip(shares).collect();
            Picker::new(config.algorithm, &named, config.hash.bounded_load)
        };
        Self::with(Tier::ALL.map(picker), plan)
    }

    /// The same pool with another config or other members. It takes long only where a hash table
    /// must be built: for other servers, tiers or weights of `ip_hash`. To be asked of a pool that
    /// was never installed, as the process keeps it.
    ///
    /// # Panics
    /// As [`Pool::new`].
    pub fn renew(&self, config: &config::Pool, members: Vec<Member>) -> Self {
        let (id, tally) = (self.plan.id, Arc::clone(&self.plan.tally));
        let plan = Plan::new(id, config, tally, members);
        if plan.hashes_like(&self.plan) {
            return Self::with(self.pickers.clone(), plan);
        }
        Self::new(
            id,
            config,
            plan.tally,
            plan.servers.into_iter().map(Server::member).collect(),
        )
    }

    fn with(pickers: [Picker; 2], plan: Plan) -> Self {
        Self {
            plan: Arc::new(plan),
            pickers,
            is_stale: true,
            head_start: 0,
        }
    }

    /// Which pool.
    pub fn id(&self) -> PoolId {
        self.plan.id
    }

    /// Goes on where `old` was, as far as both pick alike from the same servers. `ip_hash` has no
    /// place to go on from, and its new table may have other weights.
    fn succeed(&mut self, old: Pool) {
        if self.plan.algorithm != Algorithm::IpHash && self.plan.picks_like(&old.plan) {
            self.pickers = old.pickers;
            self.head_start = old.head_start;
        }
    }

    /// Verdicts often come in bursts: the pickers learn of all of them at the next pick.
    fn refresh(&mut self, seats: &Seats) {
        if !std::mem::take(&mut self.is_stale) {
            return;
        }
        let plan = &self.plan;
        for (tier, picker) in Tier::ALL.into_iter().zip(&mut self.pickers) {
            let candidate = |server: &Server| Candidate {
                weight: server.weight,
                is_eligible: server.tier == tier && plan.is_usable(server, seats),
            };
            let candidates: Vec<Candidate> = plan.servers.iter().map(candidate).collect();
            picker.set_candidates(&candidates);
        }
    }

    /// The index of a server at which a place was taken.
    fn pick(&mut self, seats: &Seats, ask: &Ask<'_>, random: &mut fastrand::Rng) -> Option<usize> {
        self.refresh(seats);
        let config::Hash {
            ipv4_prefix,
            ipv6_prefix,
            ..
        } = self.plan.hash;
        let hash = |ip| ip_hash::client_hash(ip, ipv4_prefix, ipv6_prefix);
        // Clients on unix sockets are all this machine.
        let client = ask.client.ip().map_or(0, hash);
        let view = View {
            plan: &self.plan,
            seats,
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

impl Plan {
    fn new(id: PoolId, config: &config::Pool, tally: Arc<PoolTally>, members: Vec<Member>) -> Self {
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
            is_checked: config.health.is_some(),
            servers: servers.map(|(s, member)| Server::new(s, member)).collect(),
        }
    }

    /// Whether the place of an algorithm means the same in both.
    fn picks_like(&self, other: &Self) -> bool {
        let mut servers = self.servers.iter().zip(&other.servers);
        self.algorithm == other.algorithm
            && self.servers.len() == other.servers.len()
            && servers.all(|(one, other)| (one.id, one.tier) == (other.id, other.tier))
    }

    /// Whether both have the same hash table. (An id stands for a name.)
    fn hashes_like(&self, other: &Self) -> bool {
        let mut servers = self.servers.iter().zip(&other.servers);
        self.picks_like(other)
            && self.hash.bounded_load == other.hash.bounded_load
            && servers.all(|(one, other)| one.weight == other.weight)
    }

    /// Whether new connections may go to a server, as far as this worker has heard.
    fn is_usable(&self, server: &Server, seats: &Seats) -> bool {
        let is_up = || seats.is_up(server.id) == Some(true);
        server.is_open && (!self.is_checked || is_up())
    }
}

/// Picks and reserves until both agree, or no server of the tier can take the connection.
fn take_place(
    picker: &mut Picker,
    view: &View<'_>,
    client: u64,
    random: &mut fastrand::Rng,
) -> Option<usize> {
    for round in 0.. {
        let pick = picker.pick(view, client, random)?;
        let server = &view.plan.servers[pick.server];
        let seen = pick.connections.filter(|_| round < RACES_MAX);
        // Full or raced: the next round sees the new counts. A server that filled up meanwhile can
        // no longer take a connection, so the pool bounds the rounds.
        if server.tally.reserve(server.max, seen) == Reserved::Yes {
            return Some(pick.server);
        }
    }
    None
}

/// The servers of a pool at the moment of a pick.
struct View<'a> {
    plan: &'a Plan,
    seats: &'a Seats,
    ask: &'a Ask<'a>,
}

impl Load for View<'_> {
    fn connections(&self, server: usize) -> u32 {
        self.plan.servers[server].tally.connections()
    }

    fn can_take(&self, server: usize) -> bool {
        let server = &self.plan.servers[server];
        (server.max == u32::MAX || server.tally.connections() < server.max)
            && !self.ask.tried.contains(&server.id)
    }

    fn connect_time(&self, server: usize) -> u64 {
        let server = &self.plan.servers[server];
        self.seats.connect_time(server.id, self.ask.now)
    }

    fn pool_connections(&self) -> u32 {
        self.plan.tally.connections()
    }
}

#[cfg(test)]
mod tests;
