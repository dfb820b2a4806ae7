//! What is served, by name and by id: the config in use, and an identity for everything in it.
//!
//! Names decide. A pool or listener of the same name is the same one; so is a server of the same name
//! and address in the same pool: it keeps its id, its counts, its health and what the operator wants of
//! it through every change. What leaves the config is remembered until it has no connection left.
//!
//! Pure: [`Serving::seat`] only says who would sit where. Sockets, threads and messages are `apply`'s.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::absent::Absent;
use super::tables;
use crate::address::Address;
use crate::admission::{Access, Networks, ServerNames};
use crate::clock::Now;
use crate::config::{self, Config};
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

impl Numbers {
    fn server(&mut self) -> ServerId {
        let free = self.free_servers.pop_front();
        free.unwrap_or_else(|| ServerId::new(take(&mut self.servers)))
    }
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
    absent: Absent<Standing>,
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

    /// As it is once `wanted` is in use: whoever is known keeps the seat, others get new ones. The
    /// doors of new addresses are not bound yet.
    pub(super) fn seat(&self, wanted: Config) -> Self {
        let mut next = Self {
            config: wanted,
            listeners: Vec::new(),
            pools: Vec::new(),
            leaving: self.leaving.clone(),
            absent: self.absent.clone(),
            left_listeners: self.left_listeners.clone(),
            left_pools: self.left_pools.clone(),
            built: self.built.clone(),
            places: HashMap::new(),
            numbers: self.numbers.clone(),
            workers: self.workers,
        };
        let known: HashMap<_, _> = self.pools.iter().map(|p| (&*p.name, p)).collect();
        let leavers = leavers(&self.leaving);
        for index in 0..next.config.pools.len() {
            let before = known.get(&*next.config.pools[index].name).copied();
            let seat = next.seat_pool(index, before, &leavers);
            next.pools.push(seat);
        }
        let seated = self.config.listeners.iter().zip(&self.listeners);
        let known: HashMap<_, _> = seated.map(|pair| (&*pair.1.name, pair)).collect();
        let mut free = self.free_doors();
        for index in 0..next.config.listeners.len() {
            let before = known.get(&*next.config.listeners[index].name).copied();
            let seat = next.seat_listener(index, before, &mut free);
            next.listeners.push(seat);
        }
        next.places = places(&next.pools);
        let places = &next.places;
        next.leaving
            .retain(|leaving| !places.contains_key(&leaving.server.id));
        next.remember_leavers(self);
        next
    }

    fn seat_pool(
        &mut self,
        index: usize,
        before: Option<&PoolSeat>,
        leavers: &Leavers<'_>,
    ) -> PoolSeat {
        let pool = self.config.pools[index].clone();
        let known: HashMap<_, _> = before
            .iter()
            .flat_map(|before| &before.servers)
            .map(|server| (&*server.name, server))
            .collect();
        let servers = pool
            .servers
            .iter()
            .map(|server| {
                let same = known.get(&*server.name).copied();
                match same.filter(|same| same.address == server.address) {
                    Some(same) => same.clone(),
                    None => self.come_back_or_join(&pool.name, server, leavers),
                }
            })
            .collect();
        let workers = self.workers;
        PoolSeat {
            id: before.map_or_else(|| PoolId::new(take(&mut self.numbers.pools)), |b| b.id),
            tally: before.map_or_else(
                || Arc::new(PoolTally::new(workers)),
                |before| Arc::clone(&before.tally),
            ),
            kit: before.map_or_else(Arc::default, |before| Arc::clone(&before.kit)),
            name: pool.name,
            servers,
        }
    }

    /// A server that had left and is wanted again is the one that it was, without the drain of its
    /// leaving. One that is found again is also as it was wanted.
    fn come_back_or_join(
        &mut self,
        pool: &str,
        server: &config::Server,
        leavers: &Leavers<'_>,
    ) -> ServerSeat {
        let standing = self.absent.take(pool, server).unwrap_or_default();
        if let Some(back) = leavers.get(&(pool, &*server.name, &server.address)) {
            let drain = back.drain.clone();
            return ServerSeat {
                standing,
                drain: drain.filter(|_| standing != Standing::Ready),
                ..(*back).clone()
            };
        }
        ServerSeat {
            id: self.numbers.server(),
            name: Arc::clone(&server.name),
            address: server.address.clone(),
            tally: Arc::new(ServerTally::new(self.workers)),
            standing,
            drain: None,
        }
    }

    fn seat_listener(
        &mut self,
        index: usize,
        before: Option<(&config::Listener, &ListenerSeat)>,
        free: &mut FreeDoors,
    ) -> ListenerSeat {
        let listener = self.config.listeners[index].clone();
        let access = tables::access(&listener, before);
        let trusted_proxies = tables::trusted_proxies(&listener, before);
        let routes = listener.sni.iter();
        let routes = routes.map(|route| (&route.names, self.pool_id(route.pool)));
        let server_names = tables::server_names(routes, before.map(|(_, seat)| seat));
        let before = before.map(|(_, seat)| seat);
        let doors = listener.bind.iter().map(|address| {
            let free = free.get_mut(&door_name(before.map(|b| b.id), address));
            free.and_then(VecDeque::pop_front).unwrap_or_else(|| {
                let id = DoorId(self.numbers.doors);
                self.numbers.doors += 1;
                DoorSeat {
                    id,
                    written: address.clone(),
                    actual: address.clone(),
                }
            })
        });
        let doors = doors.collect();
        let workers = self.workers;
        ListenerSeat {
            id: before.map_or_else(
                || ListenerId::new(take(&mut self.numbers.listeners)),
                |before| before.id,
            ),
            tally: before.map_or_else(
                || Arc::new(ListenerTally::new(workers)),
                |before| Arc::clone(&before.tally),
            ),
            access,
            trusted_proxies,
            server_names,
            name: listener.name,
            doors,
        }
    }

    /// Whoever sat in `before` and has no seat now.
    fn remember_leavers(&mut self, before: &Self) {
        let pools = before.config.pools.iter().zip(&before.pools);
        let seats = pools.flat_map(|(config, seat)| {
            let servers = config.servers.iter().zip(&seat.servers);
            servers.map(move |(server, seat)| (&config.name, server, seat))
        });
        let is_spared = |seat: &ServerSeat| seat.standing != Standing::Ready;
        for (pool, server, seat) in seats.filter(|(.., seat)| is_spared(seat)) {
            if !self.places.contains_key(&seat.id) {
                self.absent.note(pool, server, seat.standing);
            }
        }
        self.absent.keep_for(&self.config);
        let gone = before
            .servers()
            .filter(|(_, s)| !self.places.contains_key(&s.id));
        let gone = gone.map(|(pool, server)| Leaving {
            pool: Arc::clone(&pool.name),
            server: server.clone(),
            empty_since: None,
        });
        self.leaving.extend(gone);
        let seated: HashSet<_> = self.listeners.iter().map(|l| l.id).collect();
        let gone = before.listeners.iter().filter(|l| !seated.contains(&l.id));
        let gone = gone.map(|listener| LeftListener {
            listener: listener.clone(),
            empty_since: None,
        });
        self.left_listeners.extend(gone);
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

    fn free_doors(&self) -> FreeDoors {
        let mut free = FreeDoors::default();
        for listener in &self.listeners {
            for door in &listener.doors {
                let name = door_name(Some(listener.id), &door.written);
                free.entry(name).or_default().push_back(door.clone());
            }
        }
        free
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

/// Doors that somebody may take over.
type FreeDoors = HashMap<DoorName, VecDeque<DoorSeat>>;
type DoorName = (Address, Option<ListenerId>);

/// A port that the kernel chose stays with its listener; any other address is the same one whichever
/// listener it belongs to.
fn door_name(listener: Option<ListenerId>, written: &Address) -> DoorName {
    let is_chosen = written.ip().is_some_and(|ip| ip.port() == 0);
    (written.clone(), listener.filter(|_| is_chosen))
}

/// Servers that have left, by pool, name and address.
type Leavers<'a> = HashMap<(&'a str, &'a str, &'a Address), &'a ServerSeat>;

fn leavers(leaving: &[Leaving]) -> Leavers<'_> {
    let named = leaving.iter().map(|Leaving { pool, server, .. }| {
        let name = (&**pool, &*server.name, &server.address);
        (name, server)
    });
    named.collect()
}

fn places(pools: &[PoolSeat]) -> HashMap<ServerId, (usize, usize)> {
    let pools = pools.iter().enumerate();
    let places = pools.flat_map(|(pool, seat)| {
        let servers = seat.servers.iter().enumerate();
        servers.map(move |(place, server)| (server.id, (pool, place)))
    });
    places.collect()
}

/// The number to give, and the next one after it.
fn take(number: &mut usize) -> usize {
    *number += 1;
    *number - 1
}
