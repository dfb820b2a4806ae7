//! From one [`Serving`] to the next: what the workers and the prober have to be told. Pure, and only
//! what differs: a reload that changes one pool of a thousand sends each worker that one.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::serving::{DoorSeat, ListenerSeat, PoolSeat, ServerSeat, Serving};
use crate::admission::{Pace, PerSource};
use crate::config::{self, Health, Limits};
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
        .map(|(id, view)| (id, view.listener()))
        .collect()
}

/// What of a listener reaches the workers.
struct View<'a> {
    pool: PoolId,
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
            && self.seat.server_names == other.seat.server_names
            && without_pools(self.config) == without_pools(other.config)
    }
}

impl View<'_> {
    fn listener(&self) -> Listener {
        Listener {
            pool: self.pool,
            idle_timeout: self.config.idle_timeout,
            half_close_timeout: self.config.half_close_timeout,
            rules: Arc::new(rules(self.config, self.seat)),
            tally: Arc::clone(&self.seat.tally),
        }
    }
}

fn rules(config: &config::Listener, seat: &ListenerSeat) -> Rules {
    Rules {
        header_timeout: config.header_timeout,
        trusted_proxies: seat.trusted_proxies.clone(),
        server_names: seat.server_names.clone(),
        access: Arc::clone(&seat.access),
        max_connections: config.limits.max_connections,
        per_source: per_source(&config.limits),
        tcp: config.tcp.clone(),
    }
}

fn per_source(limits: &Limits) -> PerSource {
    PerSource {
        connections_max: limits.max_connections_per_ip,
        pace: limits.connection_rate_per_ip.map(Pace::of),
        ipv4_prefix: limits.ipv4_prefix,
        ipv6_prefix: limits.ipv6_prefix,
    }
}

fn views(serving: &Serving) -> impl Iterator<Item = (ListenerId, View<'_>)> {
    let pairs = serving.config.listeners.iter().zip(&serving.listeners);
    pairs.map(|(config, seat)| {
        let pool = serving.pool_id(config.pool);
        (seat.id, View { pool, config, seat })
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

/// How a server is checked: from where, and what is asked.
type How<'a> = (&'a [IpAddr], &'a Arc<Health>);
type Checked<'a> = (How<'a>, &'a PoolSeat, &'a ServerSeat);

fn checked(serving: &Serving) -> impl Iterator<Item = Checked<'_>> {
    pairs(serving)
        .filter_map(|(config, seat)| Some((config, config.health.as_ref()?, seat)))
        .flat_map(|(config, health, pool)| {
            let servers = pool.servers.iter();
            servers.map(move |server| ((&*config.source, health), pool, server))
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
        .map(|(how, pool, s)| (s.id, (how, &pool.kit)))
        .collect();
    let mut watches = Watches::default();
    for (how, pool, server) in checked(next) {
        let kind = match known.get(&server.id) {
            // What was read anew and is the same has stayed where it was.
            Some((before, kit)) if *before == how && Arc::ptr_eq(kit, &pool.kit) => continue,
            Some(_) => &mut watches.changed,
            None => &mut watches.first,
        };
        kind.push(Step::Watch(Target {
            server: server.id,
            name: format!("{}/{}", pool.name, server.name).into(),
            address: server.address.clone(),
            sources: how.0.to_vec(),
            health: Arc::clone(how.1),
            kit: Arc::clone(&pool.kit),
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
