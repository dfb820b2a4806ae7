//! Pools that would feed themselves: a server that is to be added may be one of our own listeners, and
//! a connection to it a connection to its pool again. A file is checked for that by `config`; here it
//! is what is served, with the ports that the kernel chose.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::serving::Serving;
use crate::address::Address;
use crate::config;
use crate::ids::PoolId;

impl Serving {
    /// The listener by which a connection to `address`, as a server of `pool`, would come back to the
    /// pool: at once or through other pools.
    pub(super) fn circle(&self, pool: usize, address: Address) -> Option<Arc<str>> {
        let listeners = self.config.listeners.iter().zip(&self.listeners);
        let doors: HashMap<_, _> = listeners
            .flat_map(|(config, seat)| {
                let listener = (config, &seat.name);
                seat.doors
                    .iter()
                    .map(move |door| (door.actual.clone(), listener))
            })
            .collect();
        let mut seen = HashSet::new();
        let mut ahead = vec![address];
        // Bounded: each pool's servers are looked at once.
        while let Some(address) = ahead.pop() {
            let mut reached = config::reached(&address);
            let Some((listener, name)) = reached.find_map(|bound| doors.get(&bound)) else {
                continue;
            };
            let mut targets = listener.pools().map(PoolId::index);
            if targets.any(|target| target == pool) {
                return Some(Arc::clone(name));
            }
            let targets = listener.pools().map(PoolId::index);
            for target in targets.filter(|target| seen.insert(*target)) {
                let servers = &self.config.pools[target].servers;
                ahead.extend(servers.iter().map(|server| server.address.clone()));
            }
        }
        None
    }
}
