//! What is served, by name and by id: the config in use, and an identity for everything in it.
//!
//! Names decide. A pool or listener of the same name is the same one; so is a server of the same name
//! and address in the same pool: it keeps its id, its counts, its health and what the operator wants of
//! it through every change. What leaves the config is remembered until it has no connection left.
//!
//! Pure: [`Serving::seat`] (`seating`) only says who would sit where. Sockets, threads and messages are `apply`'s.

mod seating;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::absent::Absent;
use super::tables;
use crate::address::Address;
use crate::admission::{Access, Networks, ServerNames};
use crate::clock::Now;
use crate::config::{Config, Server};
use crate::ids::{ListenerId, PoolId, ServerId};
use crate::pool::Pool;
use crate::pool::drain::Drain;
use crate::pool::tally::{ListenerTally, PoolTally, ServerTally};
use crate::prober::Kit;
use crate::roster::Standing;
use crate::worker::DoorId;

/// One address of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DoorSeat {
    pub(super) id: DoorId,
    /// As the config has it.
    pub(super) written: Address,
    /// As the kernel has it: port 0 has become a real one.
    pub(super) actual: Address,
}

#[derive(Clone, Debug)]
pub(super) struct ListenerSeat {
    pub(super) id: ListenerId,
    pub(super) name: Arc<str>,
    pub(super) tally: Arc<ListenerTally>,
    /// Made of `allow` and `deny`, and kept while those are the same.
    pub(super) access: Arc<Access>,
    /// The same of `trusted_proxies`.
    pub(super) trusted_proxies: Option<Arc<Networks>>,
    /// The same of `sni`.
    pub(super) server_names: Option<Arc<ServerNames>>,
    /// In the order of the config's `bind`.
    pub(super) doors: Vec<DoorSeat>,
}

#[derive(Clone, Debug)]
pub(super) struct ServerSeat {
    pub(super) id: ServerId,
    pub(super) name: Arc<str>,
    pub(super) address: Address,
    pub(super) tally: Arc<ServerTally>,
    pub(super) standing: Standing,
    pub(super) drain: Option<Arc<Drain>>,
}

#[derive(Clone, Debug)]
pub(super) struct PoolSeat {
    pub(super) id: PoolId,
    pub(super) name: Arc<str>,
    pub(super) tally: Arc<PoolTally>,
    /// What its checks need of files, as `apply` has read them.
    pub(super) kit: Arc<Kit>,
    /// In the order of the config.
    pub(super) servers: Vec<ServerSeat>,
}

/// A server that has left the config.
#[derive(Clone, Debug)]
pub(super) struct Leaving {
    pub(super) pool: Arc<str>,
    pub(super) server: ServerSeat,
    /// Since when it has had no connection.
    pub(super) empty_since: Option<Now>,
}

/// A listener that has left the config.
#[derive(Clone, Debug)]
pub(super) struct LeftListener {
    pub(super) listener: ListenerSeat,
    /// Where those of its connections went that no route took.
    pub(super) pool: Arc<str>,
    /// As its config had it, for connections that go on.
    pub(super) idle_timeout: Duration,
    /// The same.
    pub(super) half_close_timeout: Duration,
    /// Since when it has had no connection.
    pub(super) empty_since: Option<Now>,
}

/// The next number of each kind. Those of servers alone are given again: names and files may bring
/// new servers all day long, and every worker has a table by their numbers.
#[derive(Clone, Debug, Default)]
struct Numbers {
    listeners: usize,
    pools: usize,
    servers: usize,
    /// Of servers that every thread has forgotten, the longest ago first.
    free_servers: VecDeque<ServerId>,
    doors: u32,
}

/// The config in use, and who is who in it.
#[derive(Clone, Debug)]
pub(super) struct Serving {
    pub(super) config: Config,
    /// Parallel to `config.listeners`.
    pub(super) listeners: Vec<ListenerSeat>,
    /// Parallel to `config.pools`.
    pub(super) pools: Vec<PoolSeat>,
    pub(super) leaving: Vec<Leaving>,
    /// Of found servers that are not found at present and were not to be used.
    pub(super) absent: Absent<Standing>,
    pub(super) left_listeners: Vec<LeftListener>,
    /// Pools that have left the config, and when.
    pub(super) left_pools: Vec<(PoolId, Now)>,
    /// Pools as the workers got them.
    pub(super) built: HashMap<PoolId, Pool>,
    /// Pool and place in it, by server.
    places: HashMap<ServerId, (usize, usize)>,
    numbers: Numbers,
    workers: usize,
}

impl Serving {
    /// Nothing yet, with the settings of `config` that are the process's own.
    pub(super) fn nothing(config: &Config, workers: usize) -> Self {
        Self {
            config: Config {
                listeners: Vec::new(),
                pools: Vec::new(),
                ..config.clone()
            },
            listeners: Vec::new(),
            pools: Vec::new(),
            leaving: Vec::new(),
            absent: Absent::default(),
            left_listeners: Vec::new(),
            left_pools: Vec::new(),
            built: HashMap::new(),
            places: HashMap::new(),
            numbers: Numbers::default(),
            workers,
        }
    }

    /// Every server with its pool, in the order of the config.
    pub(super) fn servers(&self) -> impl Iterator<Item = (&PoolSeat, &ServerSeat)> {
        let pools = self.pools.iter();
        pools.flat_map(|pool| pool.servers.iter().map(move |server| (pool, server)))
    }

    /// Every door with its listener's name.
    pub(super) fn doors(&self) -> Vec<(Arc<str>, DoorSeat)> {
        let all = self.listeners.iter().flat_map(|listener| {
            let doors = listener.doors.iter();
            doors.map(|door| (Arc::clone(&listener.name), door.clone()))
        });
        all.collect()
    }

    /// The seat of a server by names.
    pub(super) fn server_mut(&mut self, pool: &str, server: &str) -> Option<&mut ServerSeat> {
        let pool = self.pools.iter_mut().find(|seat| &*seat.name == pool)?;
        pool.servers.iter_mut().find(|seat| &*seat.name == server)
    }

    /// Where the kernel has put doors.
    pub(super) fn note_addresses(&mut self, addresses: impl Iterator<Item = (DoorId, Address)>) {
        let addresses: HashMap<_, _> = addresses.map(|(id, address)| (id.0, address)).collect();
        for door in self.listeners.iter_mut().flat_map(|l| &mut l.doors) {
            if let Some(address) = addresses.get(&door.id.0) {
                door.actual.clone_from(address);
            }
        }
    }

    /// What was found of servers is void where nobody checks them any more.
    pub(super) fn reset_unchecked(&self, now: Now) {
        for (config, seat) in self.config.pools.iter().zip(&self.pools) {
            if config.health.is_none() {
                seat.servers
                    .iter()
                    .for_each(|server| server.tally.checkup().reset(now));
            }
        }
    }

    /// How long the slowest first answer may take.
    pub(super) fn slowest_answer(&self) -> Duration {
        let checks = self.config.pools.iter().filter_map(|p| p.health.as_ref());
        checks
            .map(|health| health.timeout)
            .max()
            .unwrap_or_default()
    }

    /// What an operator wants of a found server that is not found at present.
    pub(super) fn note_absent(&mut self, pool: &Arc<str>, server: &Server, standing: Standing) {
        self.absent.note(pool, server, standing);
    }

    /// Servers go down and come up while first answers are awaited: drains are those that `served`
    /// has by then. A drain that nobody knew of would go on for ever.
    pub(super) fn take_over_drains(&mut self, served: &Self) {
        let seated = self.pools.iter_mut().flat_map(|pool| &mut pool.servers);
        let left = self.leaving.iter_mut().map(|leaving| &mut leaving.server);
        for server in seated.chain(left) {
            if let Some((pool, place)) = served.place_of(server.id) {
                server
                    .drain
                    .clone_from(&served.pools[pool].servers[place].drain);
            }
        }
    }

    /// `next` comes to nothing: what it gave ids to has been told of them, so nobody else gets them.
    pub(super) fn retire_ids_of(&mut self, next: &Self) {
        self.numbers.clone_from(&next.numbers);
    }

    /// Everyone has been told to forget these servers, and has had no reason to speak of them for a
    /// minute: the next ones may have their ids.
    pub(super) fn free(&mut self, servers: &[ServerId]) {
        self.numbers.free_servers.extend(servers);
    }

    /// Those who had left before and are back in `next`: the drains of their leaving, which nobody
    /// wants any more.
    pub(super) fn drains_of_returners(&self, next: &Self) -> impl Iterator<Item = &Arc<Drain>> {
        let is_over = |id| {
            let place = next.place_of(id);
            place.is_some_and(|(pool, server)| next.pools[pool].servers[server].drain.is_none())
        };
        let back = self.leaving.iter().map(|leaving| &leaving.server);
        let back = back.filter(move |server| is_over(server.id));
        back.filter_map(|server| server.drain.as_ref())
    }

    /// Notes what the workers get, for later changes.
    pub(super) fn note_built(&mut self, pools: &[Pool], gone: &[PoolId]) {
        self.built
            .extend(pools.iter().map(|pool| (pool.id(), pool.clone())));
        gone.iter().for_each(|pool| drop(self.built.remove(pool)));
    }

    /// Notes which pools have left just now.
    pub(super) fn note_gone(&mut self, pools: &[PoolId], now: Now) {
        self.left_pools
            .extend(pools.iter().map(|pool| (*pool, now)));
    }

    /// The places of a pool and of a server in it, for whoever is in the config.
    pub(super) fn place_of(&self, server: ServerId) -> Option<(usize, usize)> {
        self.places.get(&server).copied()
    }

    /// `pool/server` of whoever is in the config.
    pub(super) fn name_of(&self, server: ServerId) -> Option<String> {
        let (pool, server) = self.place_of(server)?;
        let pool = &self.pools[pool];
        Some(format!("{}/{}", pool.name, pool.servers[server].name))
    }

    /// The running id of the pool that the config calls `pool`.
    pub(super) fn pool_id(&self, pool: PoolId) -> PoolId {
        self.pools[pool.index()].id
    }
}
