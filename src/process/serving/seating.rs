//! Who would sit where once a config is in use: whoever is known keeps the seat, others get new ones, and
//! who has none any more is remembered.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::{
    DoorSeat, Leaving, LeftListener, ListenerSeat, Numbers, PoolSeat, ServerSeat, Serving, tables,
};
use crate::address::Address;
use crate::admission::{Access, Networks};
use crate::config::{self, Config};
use crate::ids::{ListenerId, PoolId, ServerId};
use crate::pool::tally::{ListenerTally, PoolTally, ServerTally};
use crate::roster::Standing;
use crate::worker::DoorId;

impl Numbers {
    fn listener(&mut self) -> ListenerId {
        ListenerId::new(take(&mut self.listeners))
    }

    fn pool(&mut self) -> PoolId {
        PoolId::new(take(&mut self.pools))
    }

    fn server(&mut self) -> ServerId {
        let free = self.free_servers.pop_front();
        free.unwrap_or_else(|| ServerId::new(take(&mut self.servers)))
    }

    fn door(&mut self) -> DoorId {
        self.doors += 1;
        DoorId(self.doors - 1)
    }
}

impl Serving {
    /// As it is once `wanted` is in use: whoever is known keeps the seat, others get new ones. The
    /// doors of new addresses are not bound yet.
    pub(in crate::process) fn seat(&self, wanted: Config) -> Self {
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
            id: before.map_or_else(|| self.numbers.pool(), |b| b.id),
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
            free.and_then(VecDeque::pop_front)
                .unwrap_or_else(|| DoorSeat {
                    id: self.numbers.door(),
                    written: address.clone(),
                    actual: address.clone(),
                })
        });
        let doors = doors.collect();
        let workers = self.workers;
        ListenerSeat {
            id: before.map_or_else(|| self.numbers.listener(), |before| before.id),
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
        let seats = before.config.listeners.iter().zip(&before.listeners);
        let gone = seats.filter(|(_, seat)| !seated.contains(&seat.id));
        let gone = gone.map(|(config, seat)| LeftListener {
            listener: seat.clone(),
            pool: before.pool_name(config.pool),
            idle_timeout: config.idle_timeout,
            half_close_timeout: config.half_close_timeout,
            empty_since: None,
        });
        self.left_listeners.extend(gone);
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

    /// A seat for a listener that this process has never served: only connections of it are left. Whom it
    /// let in is not known any more, so nobody is let in whom it had not asked yet.
    pub(in crate::process) fn seat_left_listener(&mut self, name: &str) -> ListenerSeat {
        ListenerSeat {
            id: self.numbers.listener(),
            name: name.into(),
            tally: Arc::new(ListenerTally::new(self.workers)),
            access: Arc::new(Access {
                allow: Some(Networks::default()),
                deny: Networks::default(),
            }),
            trusted_proxies: None,
            server_names: None,
            doors: Vec::new(),
        }
    }

    /// The same for a pool: all there is is a number and its counts.
    pub(in crate::process) fn seat_left_pool(&mut self) -> (PoolId, Arc<PoolTally>) {
        let tally = Arc::new(PoolTally::new(self.workers));
        (self.numbers.pool(), tally)
    }

    /// Counts for a pool that has not even a number.
    pub(in crate::process) fn new_pool_tally(&self) -> PoolTally {
        PoolTally::new(self.workers)
    }

    /// The same for a server.
    pub(in crate::process) fn seat_left_server(
        &mut self,
        name: &str,
        address: Address,
    ) -> ServerSeat {
        ServerSeat {
            id: self.numbers.server(),
            name: name.into(),
            address,
            tally: Arc::new(ServerTally::new(self.workers)),
            standing: Standing::default(),
            drain: None,
        }
    }

    /// A number for a door that no listener's seat has.
    pub(in crate::process) fn number_door(&mut self) -> DoorId {
        self.numbers.door()
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
