//! Telling of servers that workers leave alone for what connections have found: workers decide, and
//! never stop to log, so this thread looks at what they have decided.

use std::collections::HashMap;

use super::serving::{PoolSeat, ServerSeat};
use super::start::Running;
use crate::clock::Now;
use crate::config;
use crate::ids::ServerId;
use crate::telemetry::events::Kind;
use crate::units::show_duration;

/// Servers that were ejected at some time, as far as that was told.
#[derive(Debug, Default)]
pub(super) struct Ejections(HashMap<ServerId, Told>);

/// What was told of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    ejections: u32,
    is_out: bool,
}

impl Ejections {
    /// What is to be told of a server now, if there is news.
    fn news(
        &mut self,
        pool: (&config::Pool, &PoolSeat),
        server: &ServerSeat,
        now: Now,
    ) -> Option<String> {
        let record = server.tally.record();
        let seen = Told {
            ejections: record.ejections(),
            is_out: record.ejected_for(now).is_some(),
        };
        if seen.ejections == 0 {
            return None;
        }
        let told = self.0.insert(server.id, seen).unwrap_or_default();
        let name = format!("{}/{}", pool.1.name, server.name);
        match (&pool.0.outlier, told.is_out, seen.is_out) {
            (Some(rules), ..) if seen.is_out && told.ejections != seen.ejections => Some(format!(
                "server {name} is left alone for {}: {} of its connections failed in a row",
                show_duration(rules.ejection),
                rules.failures
            )),
            (_, true, false) => Some(format!("server {name} is let in again after its failures")),
            _ => None,
        }
    }
}

impl Running {
    /// What workers have decided so far has been told.
    pub(super) fn note_ejections(&mut self, now: Now) {
        let pools = self.serving.config.pools.iter().zip(&self.serving.pools);
        for pool in pools {
            for server in &pool.1.servers {
                self.outlook.ejections.news(pool, server, now);
            }
        }
    }

    /// Tells what workers have decided since the last look.
    pub(super) fn tell_ejections(&mut self) {
        let now = Now::read();
        let serving = &self.serving;
        let ejections = &mut self.outlook.ejections;
        ejections.0.retain(|id, _| serving.place_of(*id).is_some());
        let mut news = Vec::new();
        for pool in serving.config.pools.iter().zip(&serving.pools) {
            // Where the rule has just gone, those who are let in for it are told of.
            if pool.0.outlier.is_some() || !ejections.0.is_empty() {
                let servers = pool.1.servers.iter();
                news.extend(servers.filter_map(|server| ejections.news(pool, server, now)));
            }
        }
        for text in news {
            self.tell(Kind::ServerEjected, text);
        }
    }
}
