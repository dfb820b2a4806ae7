//! From one [`Serving`] to the next: what the workers and the prober have to be told. Pure, and only
//! what differs: a reload that changes one pool of a thousand sends each worker that one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::serving::{DoorSeat, ListenerSeat, PoolSeat, ServerSeat, Serving};
use crate::admission::networks::Networks;
use crate::admission::server_names::ServerNames;
use crate::config::{self, Health, ProxyProtocol, ServerPattern};
use crate::ids::{ListenerId, PoolId, ServerId};
use crate::pool::{Member, Pool};
use crate::prober::{Step, Target};
use crate::roster::Standing;
use crate::worker::{DoorId, Listener, Rules};

/// Listeners that are new or differ, as workers see them.
pub(super) fn listeners(before: &Serving, next: &Serving) -> Vec<(ListenerId, Listener)> {
    let known: HashMap<_, _> = views(before).collect();
    views(next)
        .filter(|(id, view)| known.get(id) != Some(view))
        .map(|(id, view)| {
            let rules = before.rules.get(&id).map(|rules| &**rules);
            (id, view.listener(known.get(&id).zip(rules)))
        })
        .collect()
}

/// What of a listener reaches the workers.
struct View<'a> {
    pool: PoolId,
    routes: Vec<(&'a ServerPattern, PoolId)>,
    config: &'a config::Listener,
    seat: &'a ListenerSeat,
}

impl PartialEq for View<'_> {
    /// Pools by who they are: their places in the config change with any pool before them.
    fn eq(&self, other: &Self) -> bool {
        let without_pools = |config: &config::Listener| config::Listener {
            pool: PoolId::new(0),
            sni: Vec::new(),
            ..config.clone()
        };
        self.pool == other.pool
            && self.routes == other.routes
            && without_pools(self.config) == without_pools(other.config)
    }
}

impl View<'_> {
    /// `before` is what the workers have.
    fn listener(&self, before: Option<(&Self, &Rules)>) -> Listener {
        Listener {
            pool: self.pool,
            idle_timeout: self.config.idle_timeout,
            half_close_timeout: self.config.half_close_timeout,
            rules: Arc::new(self.rules(before)),
            tally: Arc::clone(&self.seat.tally),
        }
    }

    /// Tables are those of before where they would be the same: large ones take long to make.
    fn rules(&self, before: Option<(&Self, &Rules)>) -> Rules {
        let proxies = |view: &Self| view.config.proxy_protocol.clone();
        let same_proxies = before.filter(|(view, _)| proxies(view) == proxies(self));
        let same_routes = before.filter(|(view, _)| view.routes == self.routes);
        Rules {
            header_timeout: self.config.header_timeout,
            trusted_proxies: match same_proxies {
                Some((_, rules)) => rules.trusted_proxies.clone(),
                None => trusted_proxies(self.config),
            },
            server_names: match same_routes {
                Some((_, rules)) => rules.server_names.clone(),
                None => server_names(&self.routes),
            },
            limits: self.config.limits.clone(),
            tcp: self.config.tcp.clone(),
        }
    }
}

fn trusted_proxies(config: &config::Listener) -> Option<Arc<Networks>> {
    match &config.proxy_protocol {
        ProxyProtocol::Off => None,
        ProxyProtocol::Accept { trusted } => Some(Arc::new(Networks::new(trusted.iter().copied()))),
    }
}

fn server_names(routes: &[(&ServerPattern, PoolId)]) -> Option<Arc<ServerNames>> {
    let names = || ServerNames::new(routes.iter().copied());
    (!routes.is_empty()).then(|| Arc::new(names()))
}

fn views(serving: &Serving) -> impl Iterator<Item = (ListenerId, View<'_>)> {
    let pairs = serving.config.listeners.iter().zip(&serving.listeners);
    pairs.map(|(config, seat)| {
        let routes = config.sni.iter();
        let view = View {
            pool: serving.pool_id(config.pool),
            routes: routes
                .map(|route| (&route.names, serving.pool_id(route.pool)))
                .collect(),
            config,
            seat,
        };
        (seat.id, view)
    })
}

/// Pools that are new or differ, ready for the workers: their hash tables are built here.
pub(super) fn pools(before: &Serving, next: &Serving) -> Vec<Pool> {
    let known: HashMap<_, _> = pairs(before).map(|pair| (pair.1.id, pair)).collect();
    let differs = |(config, seat): &(&config::Pool, &PoolSeat)| match known.get(&seat.id) {
        Some((old_config, old_seat)) => old_config != config || !sits_same(old_seat, seat),
        None => true,
    };
    pairs(next)
        .filter(differs)
        .map(|(config, seat)| built(before, config, seat))
        .collect()
}

fn pairs(serving: &Serving) -> impl Iterator<Item = (&config::Pool, &PoolSeat)> {
    serving.config.pools.iter().zip(&serving.pools)
}

/// Whether the workers would see no difference between two seatings of a pool.
fn sits_same(before: &PoolSeat, next: &PoolSeat) -> bool {
    let view = |server: &ServerSeat| (server.id, server.standing == Standing::Ready);
    before.servers.len() == next.servers.len()
        && (before.servers.iter().map(view)).eq(next.servers.iter().map(view))
}

/// The pool as workers take it; made from what they have where that is the same, because a hash table
/// takes milliseconds to build.
fn built(before: &Serving, config: &config::Pool, seat: &PoolSeat) -> Pool {
    let member = |server: &ServerSeat| Member {
        id: server.id,
        tally: Arc::clone(&server.tally),
        is_open: server.standing == Standing::Ready,
    };
    let members = seat.servers.iter().map(member).collect();
    match before.built.get(&seat.id) {
        Some(pool) => pool.renew(config, members),
        None => Pool::new(seat.id, config, Arc::clone(&seat.tally), members),
    }
}

/// Pools that no longer are.
pub(super) fn gone_pools(before: &Serving, next: &Serving) -> Vec<PoolId> {
    let stay: HashSet<_> = next.pools.iter().map(|pool| pool.id).collect();
    let all = before.pools.iter().map(|pool| pool.id);
    all.filter(|id| !stay.contains(id)).collect()
}

/// Servers that no longer have a seat.
pub(super) fn leavers(before: &Serving, next: &Serving) -> HashSet<ServerId> {
    let all = before.servers().map(|(_, server)| server.id);
    all.filter(|id| next.place_of(*id).is_none()).collect()
}

/// What happens to doors.
#[derive(Debug, Default)]
pub(super) struct Doors {
    /// To be bound and opened.
    pub(super) new: Vec<(ListenerId, DoorSeat)>,
    /// They belong to another listener now.
    pub(super) relabelled: Vec<(DoorId, ListenerId)>,
    pub(super) gone: Vec<DoorSeat>,
}

/// What happens to doors between two servings.
pub(super) fn doors(before: &Serving, next: &Serving) -> Doors {
    let known: HashMap<_, _> = owned(before)
        .map(|(owner, door)| (door.id.0, owner))
        .collect();
    let stay: HashSet<_> = owned(next).map(|(_, door)| door.id.0).collect();
    let mut doors = Doors::default();
    for (owner, door) in owned(next) {
        match known.get(&door.id.0) {
            None => doors.new.push((owner, door)),
            Some(before) if *before != owner => doors.relabelled.push((door.id, owner)),
            Some(_) => {}
        }
    }
    let gone = owned(before).filter(|(_, door)| !stay.contains(&door.id.0));
    doors.gone = gone.map(|(_, door)| door).collect();
    doors
}

fn owned(serving: &Serving) -> impl Iterator<Item = (ListenerId, DoorSeat)> {
    let listeners = serving.listeners.iter();
    listeners.flat_map(|listener| {
        listener
            .doors
            .iter()
            .map(|door| (listener.id, door.clone()))
    })
}

type Checked<'a> = (&'a Arc<Health>, &'a PoolSeat, &'a ServerSeat);

fn checked(serving: &Serving) -> impl Iterator<Item = Checked<'_>> {
    pairs(serving)
        .filter_map(|(config, seat)| Some((config.health.as_ref()?, seat)))
        .flat_map(|(health, pool)| {
            pool.servers
                .iter()
                .map(move |server| (health, pool, server))
        })
}

/// What the prober is to begin.
#[derive(Debug, Default)]
pub(super) struct Watches {
    /// Servers that nobody has checked before.
    pub(super) first: Vec<Step>,
    /// Servers that are checked in another way from now on.
    pub(super) changed: Vec<Step>,
}

/// Servers whose checks begin, or begin to be made in another way.
pub(super) fn watched(before: &Serving, next: &Serving) -> Watches {
    let known: HashMap<_, _> = checked(before)
        .map(|(health, _, s)| (s.id, health))
        .collect();
    let mut watches = Watches::default();
    for (health, pool, server) in checked(next) {
        let kind = match known.get(&server.id) {
            Some(before) if *before == health => continue,
            Some(_) => &mut watches.changed,
            None => &mut watches.first,
        };
        kind.push(Step::Watch(Target {
            server: server.id,
            name: format!("{}/{}", pool.name, server.name).into(),
            address: server.address.clone(),
            health: Arc::clone(health),
            checkup: Arc::clone(server.tally.checkup()),
        }));
    }
    watches
}

/// Servers that nobody checks any more.
pub(super) fn unwatched(before: &Serving, next: &Serving) -> Vec<ServerId> {
    let stay: HashSet<_> = checked(next).map(|(_, _, server)| server.id).collect();
    let all = checked(before).map(|(_, _, server)| server.id);
    all.filter(|id| !stay.contains(id)).collect()
}

/// Checked servers that nothing is known of yet.
pub(super) fn unanswered(next: &Serving) -> Vec<ServerId> {
    let is_unknown = |server: &ServerSeat| server.tally.checkup().findings().is_up.is_none();
    let all = checked(next).map(|(_, _, server)| server);
    all.filter(|server| is_unknown(server))
        .map(|server| server.id)
        .collect()
}

/// Servers whose first answer must be there before `next` may be served, or clients would be turned
/// away for the change alone: those of pools that a listener uses and that keep no usable server.
pub(super) fn awaited(before: &Serving, next: &Serving) -> Vec<ServerId> {
    let used: HashSet<_> = next
        .config
        .listeners
        .iter()
        .flat_map(config::Listener::pools)
        .map(PoolId::index)
        .collect();
    let old: HashSet<_> = before.servers().map(|(_, server)| server.id).collect();
    let is_up = |server: &ServerSeat| server.tally.checkup().findings().is_up;
    let mut awaited = Vec::new();
    for (index, (config, seat)) in pairs(next).enumerate() {
        let stays =
            |server: &&ServerSeat| old.contains(&server.id) && server.standing == Standing::Ready;
        let keeps_one = seat
            .servers
            .iter()
            .filter(stays)
            .any(|server| is_up(server) == Some(true));
        if config.health.is_some() && used.contains(&index) && !keeps_one {
            let unknown = seat.servers.iter().filter(|server| is_up(server).is_none());
            awaited.extend(unknown.map(|server| server.id));
        }
    }
    awaited
}

#[cfg(test)]
mod tests;
