//! Who is who: seats that a new config has made get the past of those who had the same names before, and
//! who has no seat any more is remembered for as long as connections need it.
//!
//! Names decide, as with a reload. Pure: threads hear of it from `apply` and from `heritage`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::clock::Now;
use crate::config;
use crate::end::End;
use crate::handover::world::{DrainState, FindingsState, ListenerState, ServerState, World};
use crate::ids::{ConnectionId, ListenerId, PoolId, ServerId};
use crate::pool::drain::{Drain, Pace, Scope};
use crate::pool::tally::{ListenerTally, PoolTally, ServerTally};
use crate::pool::{Left, Share, Verdict};
use crate::process::serving::{Leaving, LeftListener, ListenerSeat, ServerSeat, Serving};
use crate::roster::Standing;
use crate::telemetry::checkup::{Checked, Findings};
use crate::units::Rate;
use crate::worker::{Listener, Rules};

/// How long a connection may be silent whose listener nobody has said it of.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// What this process calls something that the other one had a number for, and what is counted of it.
type Known<I, T> = HashMap<u32, (I, Arc<T>)>;

/// Who is who, by the numbers of the process before this one.
#[derive(Debug, Default)]
pub(super) struct Past {
    pub(super) listeners: Known<ListenerId, ListenerTally>,
    pub(super) pools: Known<PoolId, PoolTally>,
    pub(super) servers: Known<ServerId, ServerTally>,
    /// Servers that no pool has.
    pub(super) left: Arc<HashMap<ServerId, Left>>,
    /// Listeners that the config does not have, as workers see them.
    pub(super) left_listeners: Vec<(ListenerId, Listener)>,
    /// Pools that the config does not have.
    pub(super) left_pools: Vec<(PoolId, Arc<str>)>,
    /// What is known of servers that are checked.
    pub(super) verdicts: Vec<Verdict>,
    /// The last id that a connection was given.
    pub(super) last_id: ConnectionId,
}

impl Past {
    /// Gives the seats of `next`, which are all new, what `world` knows of them. Who has no seat there
    /// gets one among those who have left.
    pub(super) fn give(world: &World, next: &mut Serving, now: Now) -> Self {
        let mut past = Self::default();
        past.give_pools(world, next, now);
        past.give_listeners(world, next, now);
        past.give_servers(world, next, now);
        past
    }

    fn give_pools(&mut self, world: &World, next: &mut Serving, now: Now) {
        for state in &world.pools {
            let seat = next.pools.iter().find(|seat| *seat.name == *state.name);
            let (id, tally) = match seat.filter(|_| !state.has_left) {
                Some(seat) => (seat.id, Arc::clone(&seat.tally)),
                None => {
                    let (id, tally) = next.seat_left_pool();
                    next.left_pools.push((id, now));
                    self.left_pools.push((id, state.name.as_str().into()));
                    (id, tally)
                }
            };
            self.pools.insert(state.number, (id, tally));
        }
    }

    fn give_listeners(&mut self, world: &World, next: &mut Serving, now: Now) {
        for state in &world.listeners {
            let seat = next.listeners.iter().find(|seat| *seat.name == *state.name);
            let (id, tally) = match seat.filter(|_| !state.has_left) {
                Some(seat) => (seat.id, Arc::clone(&seat.tally)),
                None => {
                    let left = left_listener(state, next.seat_left_listener(&state.name));
                    let (id, tally) = (left.listener.id, Arc::clone(&left.listener.tally));
                    let shown = self.shown(world, next, &left);
                    self.left_listeners.push((id, shown));
                    next.left_listeners.push(left);
                    (id, tally)
                }
            };
            restore_debts(state, &tally, now);
            self.listeners.insert(state.number, (id, tally));
        }
    }

    /// A listener that the config does not have, as workers see it.
    fn shown(&self, world: &World, next: &mut Serving, left: &LeftListener) -> Listener {
        let seated = next.pools.iter().map(|pool| (&*pool.name, pool.id));
        let gone = world.pools.iter().filter_map(|pool| {
            let (id, _) = self.pools.get(&pool.number)?;
            Some((pool.name.as_str(), *id))
        });
        let pool = seated.chain(gone).find(|(name, _)| **name == *left.pool);
        let pool = pool.map(|(_, id)| id);
        Listener {
            // Else one that nobody has: whoever has no server yet finds none.
            pool: pool.unwrap_or_else(|| next.seat_left_pool().0),
            idle_timeout: left.idle_timeout,
            half_close_timeout: left.half_close_timeout,
            rules: Arc::new(Rules::of_left(Arc::clone(&left.listener.access))),
            tally: Arc::clone(&left.listener.tally),
        }
    }

    fn give_servers(&mut self, world: &World, next: &mut Serving, now: Now) {
        let places = places(next);
        let mut left = HashMap::new();
        let mut left_tallies = HashMap::new();
        for state in &world.servers {
            let Ok(address) = config::server_address(&state.address) else {
                continue;
            };
            let key = (state.pool.clone(), state.name.clone(), address.clone());
            if let Some((pool, place)) = places.get(&key).copied() {
                let is_checked = next.config.pools[pool].health.is_some();
                let seat = &mut next.pools[pool].servers[place];
                endow(seat, state, now);
                self.verdicts.extend(findings(seat, state, is_checked));
                self.servers
                    .insert(state.number, (seat.id, Arc::clone(&seat.tally)));
                continue;
            }
            let mut server = next.seat_left_server(&state.name, address.clone());
            server.drain = drain(state.drain.as_ref(), server.id, now);
            let pool_tally = self.tally_of(world, &state.pool, next, &mut left_tallies);
            let tally = Arc::clone(&server.tally);
            self.servers
                .insert(state.number, (server.id, Arc::clone(&tally)));
            let gone = Left {
                tally,
                pool_tally,
                address,
            };
            left.insert(server.id, gone);
            next.leaving.push(Leaving {
                pool: state.pool.as_str().into(),
                server,
                empty_since: None,
            });
        }
        self.left = Arc::new(left);
    }

    /// What is counted of the pool that a server was of.
    fn tally_of(
        &self,
        world: &World,
        name: &str,
        next: &Serving,
        others: &mut HashMap<String, Arc<PoolTally>>,
    ) -> Arc<PoolTally> {
        if let Some(seat) = next.pools.iter().find(|seat| *seat.name == *name) {
            return Arc::clone(&seat.tally);
        }
        let gone = world.pools.iter().find(|pool| pool.name == name);
        let gone = gone.and_then(|pool| self.pools.get(&pool.number));
        match gone {
            Some((_, tally)) => Arc::clone(tally),
            None => {
                let tally = others.entry(name.to_owned());
                Arc::clone(tally.or_insert_with(|| Arc::new(next.new_pool_tally())))
            }
        }
    }
}

fn left_listener(state: &ListenerState, listener: ListenerSeat) -> LeftListener {
    let timeout = |nanoseconds| match nanoseconds {
        0 => IDLE_TIMEOUT,
        nanoseconds => Duration::from_nanos(nanoseconds),
    };
    LeftListener {
        listener,
        pool: state.pool.as_str().into(),
        idle_timeout: timeout(state.idle_timeout),
        half_close_timeout: timeout(state.half_close_timeout),
        empty_since: None,
    }
}

/// What sources owe a listener.
fn restore_debts(state: &ListenerState, tally: &ListenerTally, now: Now) {
    for bucket in &state.buckets {
        if let Ok(source) = bucket.source.parse() {
            let full_at = Now::from_nanoseconds(bucket.full_at);
            tally.sources().restore(source, full_at, now);
        }
    }
}

/// Pool, name and address of a server.
type Key = (String, String, Address);

/// The places of all servers: pool, and place in it.
fn places(next: &Serving) -> HashMap<Key, (usize, usize)> {
    let pools = next.pools.iter().enumerate();
    let places = pools.flat_map(|(index, pool)| {
        let servers = pool.servers.iter().enumerate();
        servers.map(move |(place, server)| {
            let key = (
                pool.name.to_string(),
                server.name.to_string(),
                server.address.clone(),
            );
            (key, (index, place))
        })
    });
    places.collect()
}

/// Gives a seat what an operator wants of its server, and how far its share has grown. One that had left
/// is back, without the drain of its leaving, as with a reload.
fn endow(seat: &mut ServerSeat, state: &ServerState, now: Now) {
    if !state.has_left {
        seat.standing = standing(state.standing.as_deref());
    }
    let is_over = state.has_left && seat.standing == Standing::Ready;
    if !is_over {
        seat.drain = drain(state.drain.as_ref(), seat.id, now);
    }
    seat.tally
        .note_ramp(Now::from_nanoseconds(state.ramp_began));
}

/// The standing with that word; one that this version does not know is none.
pub(super) fn standing(word: Option<&str>) -> Standing {
    let all = Standing::ALL.into_iter();
    all.into_iter()
        .find(|standing| Some(standing.word()) == word)
        .unwrap_or_default()
}

fn drain(state: Option<&DrainState>, server: ServerId, now: Now) -> Option<Arc<Drain>> {
    let state = state?;
    let end = End::ALL.iter().find(|end| end.word() == state.end);
    let pace = Pace {
        rate: state
            .interval
            .map(|interval| Rate::of_interval(Duration::from_nanos(interval))),
        quiet: Duration::from_nanos(state.quiet),
        deadline: state.deadline.map(Duration::from_nanos),
    };
    let end = end.copied().unwrap_or(End::Drained);
    let drain = Drain::new(Scope::Server(server), end, pace, state.began_with, now);
    let begun = Now::from_nanoseconds(state.begun);
    Some(Arc::new(drain.resumed(begun, state.closed, now)))
}

/// Gives a seat what health checks have found, where its server is checked; what workers are to hear.
fn findings(seat: &ServerSeat, state: &ServerState, is_checked: bool) -> Option<Verdict> {
    let found = state.findings.as_ref().filter(|_| is_checked)?;
    let is_up = found.is_up?;
    let known = restored(found);
    let share = Share(known.share_percent);
    seat.tally.checkup().restore(known);
    Some(Verdict {
        server: seat.id,
        is_up,
        share,
    })
}

fn restored(found: &FindingsState) -> Findings {
    let last = found.last.as_deref();
    let mut all = Checked::ALL.into_iter();
    let known = Findings::default();
    Findings {
        is_up: found.is_up,
        since: Now::from_nanoseconds(found.since),
        last: all.find(|checked| Some(checked.word()) == last),
        share_percent: found.share_percent.unwrap_or(known.share_percent),
        reason: found.reason.as_str().into(),
        ..known
    }
}
