//! Pools as one worker sees them: their servers, and a pick that takes a place at one of them.
//!
//! Every worker has its own [`Pools`], which change only by messages. A [`Pool`] is made off the
//! workers, because hash tables take long; clones share those and all that stays the same. What a
//! worker knows of a server itself (`seat`) survives each change of its pool. Whoever gets a
//! server from [`Pools::pick`] owes one [`Pools::release`].

mod candidates;
pub mod connect_time;
pub mod drain;
pub mod ledger;
pub mod outlier;
mod plan;
pub mod queue;
pub mod ramp;
mod seat;
mod server;
pub mod tally;
mod view;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use self::candidates::Candidates;
use self::ledger::Ledger;
use self::outlier::Finding;
use self::plan::Plan;
use self::seat::Seats;
use self::server::{Server, Tier};
use self::tally::{PoolTally, ServerTally};
use self::view::{View, take_place};
use crate::address::{Address, Peer};
use crate::balance::{Algorithm, Picker, ip_hash};
use crate::clock::Now;
use crate::config;
use crate::ids::{PoolId, ServerId};

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
    /// What threads call it; another server may get it a minute after all have forgotten this one.
    pub id: ServerId,
    /// What all threads share about it.
    pub tally: Arc<ServerTally>,
    /// Whether the operator lets new connections in.
    pub is_open: bool,
}

/// A server that no pool has any more, and that still has connections.
#[derive(Clone, Debug)]
pub struct Left {
    /// What all threads share about it.
    pub tally: Arc<ServerTally>,
    /// The same about the pool that it was of.
    pub pool_tally: Arc<PoolTally>,
    /// Where it listens.
    pub address: Address,
}

/// One pool, to be cloned for each worker.
#[derive(Clone, Debug)]
pub struct Pool {
    plan: Arc<Plan>,
    /// One for each of `Tier::ALL`.
    pickers: [Picker; 2],
    /// True exactly while the pickers do not know of the latest verdicts.
    is_stale: bool,
    /// When the pickers do not know of what time alone has brought.
    stale_at: Option<Now>,
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
    /// Pools for which somebody waits who may be served now, each once.
    stirred: Vec<PoolId>,
}

impl Pools {
    /// None yet, for the `worker`-th worker, counted from 0.
    pub fn new(worker: usize, ledger: Ledger) -> Self {
        Self {
            pools: Vec::new(),
            seats: Seats::default(),
            worker,
            ledger,
            stirred: Vec::new(),
        }
    }

    /// Adds a pool, or puts it in the place of the one with the same id. What is known of servers
    /// stays, and where servers and algorithm are the same, so does whose turn it is. Servers that
    /// join a pool which was there start slowly, if it says so.
    pub fn install(&mut self, mut pool: Pool, now: Now) {
        let id = pool.plan.id;
        let old = self.take(id);
        match &old {
            Some(old) => self.seats.start(&pool.plan, &old.plan, now),
            None => self.seats.resume_ramps(&pool.plan, now),
        }
        self.seats.join(&pool.plan, now);
        pool.head_start = self.worker;
        if let Some(old) = old {
            self.seats.part(&old.plan, Some(&pool.plan));
            pool.succeed(*old);
        }
        if id.index() >= self.pools.len() {
            self.pools.resize_with(id.index() + 1, || None);
        }
        self.pools[id.index()] = Some(Box::new(pool));
        self.stir(id);
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

    /// Books a place that the process before this one has picked, however many the server may have.
    /// `left` is asked about a server that no pool has. False where nothing is known of it at all.
    pub fn take_over<'l>(
        &mut self,
        server: ServerId,
        left: impl FnOnce() -> Option<&'l Left>,
    ) -> bool {
        let place = self.seats.place(server);
        let pool =
            place.and_then(|(pool, index)| Some((self.pools.get(pool.index())?.as_ref()?, index)));
        match (pool, left) {
            (Some((pool, index)), _) => {
                pool.plan.servers[index].tally.take_over();
                self.seats.hold(&pool.plan, index);
            }
            (None, left) => {
                let Some(left) = left() else {
                    return false;
                };
                left.tally.take_over();
                self.seats.take_over_left(server, left);
            }
        }
        true
    }

    /// Gives the place of a pick back.
    pub fn release(&mut self, server: ServerId) {
        self.seats.release(server);
        if let Some((pool, _)) = self.seats.place(server) {
            self.stir(pool);
        }
    }

    /// Believes the prober, which may know a server before its pool is here.
    pub fn apply(&mut self, verdict: Verdict, now: Now) {
        let before = self.seats.since(verdict.server);
        let Some(pool) = self.seats.believe(verdict, now) else {
            return;
        };
        if self.seats.since(verdict.server) != before {
            self.tell_of_ramp(verdict.server, now);
        }
        self.reconsider(pool);
    }

    /// For others to show: the share of a server begins to grow.
    fn tell_of_ramp(&self, server: ServerId, now: Now) {
        let place = self.seats.place(server);
        let plan = place.and_then(|(pool, index)| Some((self.plan(pool)?, index)));
        if let Some(server) = plan.and_then(|(plan, index)| plan.servers.get(index)) {
            server.tally.note_ramp(now);
        }
    }

    /// What is shared about the servers of a pool has changed.
    pub fn reconsider(&mut self, pool: PoolId) {
        if let Some(Some(known)) = self.pools.get_mut(pool.index()) {
            known.is_stale = true;
            self.stir(pool);
        }
    }

    /// Takes what a connection has found of its server. The pool whose picks leave the server alone
    /// from now on, of which all other workers are to be told.
    pub fn observe(&mut self, server: ServerId, finding: Finding, now: Now) -> Option<PoolId> {
        let (id, index) = self.seats.place(server)?;
        let pool = self.pools.get_mut(id.index())?.as_mut()?;
        let is_ejected = pool.plan.note(index, finding, now);
        pool.is_stale |= is_ejected;
        is_ejected.then_some(id)
    }

    /// Something has changed that may help who waits for a server of the pool.
    fn stir(&mut self, pool: PoolId) {
        let is_waited_for = self.plan(pool).is_some_and(|plan| {
            let queue = plan.tally.queue();
            match plan.queue.limit {
                // Nobody joins it: who waits has been there since before a reload, and no fence is
                // needed to see that.
                0 => queue.waiting() > 0,
                _ => queue.is_waited_for(),
            }
        });
        if is_waited_for {
            self.look_soon(pool);
        }
    }

    /// Has the front of a pool's queue looked at.
    pub fn look_soon(&mut self, pool: PoolId) {
        if !self.stirred.contains(&pool) {
            self.stirred.push(pool);
        }
    }

    /// Whether the front of any queue is to be looked at.
    pub fn is_stirred(&self) -> bool {
        !self.stirred.is_empty()
    }

    /// Pools the front of whose queue is to be looked at now.
    pub fn take_stirred(&mut self) -> Vec<PoolId> {
        std::mem::take(&mut self.stirred)
    }

    /// Who waits for a pool's servers, and how many may, how long; `None` where there is no such
    /// pool.
    pub fn queue(&self, pool: PoolId) -> Option<(&Arc<PoolTally>, config::Queue)> {
        self.plan(pool).map(|plan| (&plan.tally, plan.queue))
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

    /// Our own addresses towards the pool's servers; none leaves it to the kernel.
    pub fn sources(&self, pool: PoolId) -> &[IpAddr] {
        self.plan(pool).map_or(&[], |plan| &plan.source)
    }

    /// What is asked of the kernel for connections to the pool's servers, unless that is the
    /// listener's business.
    pub fn tcp(&self, pool: PoolId) -> Option<&config::ServerTcp> {
        self.plan(pool)?.tcp.as_ref()
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
            stale_at: None,
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
    fn refresh(&mut self, seats: &Seats, now: Now) {
        let is_due = self.stale_at.is_some_and(|at| at <= now);
        if !std::mem::take(&mut self.is_stale) && !is_due {
            return;
        }
        let candidates = Candidates::of(&self.plan, seats, now);
        self.stale_at = candidates.until;
        for (tier, picker) in Tier::ALL.into_iter().zip(&mut self.pickers) {
            picker.set_scale(candidates.scale);
            picker.set_candidates(&candidates.of_tier(&self.plan, tier));
        }
    }

    /// The index of a server at which a place was taken.
    fn pick(&mut self, seats: &Seats, ask: &Ask<'_>, random: &mut fastrand::Rng) -> Option<usize> {
        self.refresh(seats, ask.now);
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

#[cfg(test)]
mod tests;
