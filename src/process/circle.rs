//! Pools that would feed themselves: a server that is to be added may be one of our own listeners, and
//! a connection to it a connection to its pool again. A file is checked for that by `config`; here it
//! is what is served, with the ports that the kernel chose, and what was found since.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::serving::Serving;
use crate::address::Address;
use crate::config::{self, Config};
use crate::ids::PoolId;

/// The listeners of a config by the addresses that they answer at.
#[derive(Debug)]
pub(super) struct Ways(HashMap<Address, Way>);

/// A listener.
#[derive(Clone, Debug)]
struct Way {
    name: Arc<str>,
    /// The pools that it leads to, by their indexes.
    pools: Vec<usize>,
}

impl Way {
    fn of(listener: &config::Listener) -> Self {
        Self {
            name: Arc::clone(&listener.name),
            pools: listener.pools().map(PoolId::index).collect(),
        }
    }
}

impl Ways {
    /// The listener by which a connection to `address`, as a server of `pool`, would come back to the
    /// pool: at once or through other pools of `config`.
    pub(super) fn circle(
        &self,
        config: &Config,
        pool: usize,
        address: &Address,
    ) -> Option<Arc<str>> {
        let mut seen = HashSet::new();
        let mut ahead = vec![address.clone()];
        // Bounded: each pool's servers are looked at once.
        while let Some(address) = ahead.pop() {
            let mut reached = config::reached(&address);
            let Some(way) = reached.find_map(|bound| self.0.get(&bound)) else {
                continue;
            };
            if way.pools.contains(&pool) {
                return Some(Arc::clone(&way.name));
            }
            for target in way.pools.iter().filter(|target| seen.insert(**target)) {
                let servers = &config.pools[*target].servers;
                ahead.extend(servers.iter().map(|server| server.address.clone()));
            }
        }
        None
    }
}

impl Serving {
    /// The ways of `config`, which is served or is to be: where the kernel chose a port that stays,
    /// it is known.
    pub(super) fn ways(&self, config: &Config) -> Ways {
        let seats: HashMap<_, _> = self.listeners.iter().map(|s| (&*s.name, s)).collect();
        let mut ways = HashMap::new();
        for listener in &config.listeners {
            let seat = seats.get(&*listener.name);
            let doors = seat.into_iter().flat_map(|seat| &seat.doors);
            let actual = doors
                .filter(|door| listener.bind.contains(&door.written))
                .map(|door| door.actual.clone());
            for address in listener.bind.iter().cloned().chain(actual) {
                ways.insert(address, Way::of(listener));
            }
        }
        Ways(ways)
    }

    /// The same of what is served.
    pub(super) fn circle(&self, pool: usize, address: &Address) -> Option<Arc<str>> {
        self.ways(&self.config).circle(&self.config, pool, address)
    }
}
