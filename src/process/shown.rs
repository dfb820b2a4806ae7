//! What is served as others see it: a [`Serving`] turned into the [`Roster`] that is published.

use std::sync::Arc;

use super::serving::{PoolSeat, ServerSeat, Serving};
use crate::config::{self, Route};
use crate::ids::PoolId;
use crate::pool::ramp;
use crate::roster::{self, Origin, Roster, Stage};

impl Serving {
    /// As the admin side sees it.
    pub(super) fn roster(&self, stage: Stage, origin: Origin) -> Roster {
        let pools = self.config.pools.iter().zip(&self.pools);
        let listeners = self.config.listeners.iter().zip(&self.listeners);
        let leaving = self.leaving.iter();
        Roster {
            stage,
            has_left: false,
            ready_when: self.config.ready_when.clone(),
            origin,
            listeners: listeners
                .map(|(config, seat)| roster::Listener {
                    id: seat.id,
                    name: Arc::clone(&seat.name),
                    bind: seat.doors.iter().map(|door| door.actual.clone()).collect(),
                    pool: self.pool_name(config.pool),
                    sni: config
                        .sni
                        .iter()
                        .map(|route| self.shown_route(route))
                        .collect(),
                    max_connections: config.limits.max_connections.map(Into::into),
                    tally: Arc::clone(&seat.tally),
                })
                .collect(),
            pools: pools
                .map(|(config, seat)| pool_entry(config, seat))
                .collect(),
            leaving: leaving
                .filter(|leaving| leaving.empty_since.is_none())
                .map(|leaving| roster::Leaving {
                    pool: Arc::clone(&leaving.pool),
                    server: server_entry(None, &leaving.server),
                })
                .collect(),
            left_listeners: self
                .left_listeners
                .iter()
                .map(|left| (left.listener.id, Arc::clone(&left.listener.name)))
                .collect(),
        }
    }

    /// What users call the pool that the config calls `pool`.
    pub(super) fn pool_name(&self, pool: PoolId) -> Arc<str> {
        Arc::clone(&self.config.pools[pool.index()].name)
    }

    fn shown_route(&self, route: &Route) -> (Arc<str>, Arc<str>) {
        let names = Arc::from(route.names.to_string());
        (names, self.pool_name(route.pool))
    }
}

fn pool_entry(config: &config::Pool, seat: &PoolSeat) -> roster::Pool {
    let servers = config.servers.iter().zip(&seat.servers);
    roster::Pool {
        id: seat.id,
        name: Arc::clone(&seat.name),
        algorithm: config.algorithm,
        is_checked: config.health.is_some(),
        queue_limit: config.queue.limit,
        slow_start: ramp::slow_start(config),
        fail_open: config.fail_open,
        servers: servers
            .map(|(config, seat)| server_entry(Some(config), seat))
            .collect(),
        discovery: Vec::new(),
        tally: Arc::clone(&seat.tally),
    }
}

/// A server that has left the config has no weight any more.
fn server_entry(config: Option<&config::Server>, seat: &ServerSeat) -> roster::Server {
    roster::Server {
        id: seat.id,
        name: Arc::clone(&seat.name),
        address: seat.address.clone(),
        weight: config.map_or(0, |config| config.weight),
        max_connections: config.and_then(|config| config.max_connections.map(Into::into)),
        is_backup: config.is_some_and(|config| config.backup),
        standing: seat.standing,
        drain: seat.drain.clone(),
        tally: Arc::clone(&seat.tally),
    }
}
