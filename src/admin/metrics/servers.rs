//! Metrics with the labels `pool` and `server`.
//!
//! A server that was removed and still has connections counts as long as it has them. Where its name
//! has been given to another one meanwhile, the two are one in the metrics: the same labels must not
//! come twice.

use std::collections::HashMap;

use super::family::Family;
use super::number;
use crate::admin::status::{failed, server_bytes};
use crate::clock::Now;
use crate::pool::tally::ServerTally;
use crate::roster::{Pool, Roster, Server, Standing};
use crate::telemetry::checkup::Checked;
use crate::telemetry::counters::ConnectFailure;

/// All that go by one name.
struct Bearers<'a> {
    pool: &'a str,
    server: &'a str,
    tallies: Vec<&'a ServerTally>,
}

impl Bearers<'_> {
    fn sum(&self, count: impl Fn(&ServerTally) -> u64) -> f64 {
        number(self.tallies.iter().map(|tally| count(tally)).sum())
    }

    /// Health checks by how they ended, with one look at each server's findings.
    fn checks(&self) -> [u64; Checked::ALL.len()] {
        let mut sums = [0; Checked::ALL.len()];
        for tally in &self.tallies {
            let counts = tally.checkup().findings().counts;
            sums.iter_mut()
                .zip(counts)
                .for_each(|(sum, count)| *sum += count);
        }
        sums
    }
}

pub(super) fn families(roster: &Roster, now: Now) -> Vec<Family> {
    let bearers = bearers(roster);
    let mut all = counts(&bearers);
    all.extend(listed(&roster.pools, now));
    all.push(drains(roster));
    all
}

/// By name, in the order of the config, then those that are leaving and have no namesake.
fn bearers(roster: &Roster) -> Vec<Bearers<'_>> {
    let listed = roster.pools.iter().flat_map(|pool| {
        let servers = pool.servers.iter();
        servers.map(|server| (&*pool.name, server))
    });
    let leaving = roster
        .leaving
        .iter()
        .map(|gone| (&*gone.pool, &gone.server));
    let mut places = HashMap::new();
    let mut all: Vec<Bearers<'_>> = Vec::new();
    for (pool, server) in listed.chain(leaving) {
        let place = *places.entry((pool, &*server.name)).or_insert(all.len());
        if place == all.len() {
            all.push(Bearers {
                pool,
                server: &server.name,
                tallies: Vec::new(),
            });
        }
        all[place].tallies.push(&server.tally);
    }
    all
}

fn counts(all: &[Bearers<'_>]) -> Vec<Family> {
    let mut total = Family::counter(
        "evenkeel_server_connections_total",
        "Connections that the server accepted.",
    );
    let mut active = Family::gauge(
        "evenkeel_server_connections_active",
        "Connections that the server holds, those included that are being connected.",
    );
    let mut failures = Family::counter(
        "evenkeel_server_connections_failed_total",
        "Tries to connect that came to nothing, by reason.",
    );
    let mut bytes = Family::counter(
        "evenkeel_bytes_total",
        "Bytes delivered, live: upstream to the server, downstream from it to clients.",
    );
    let mut checks = Family::counter(
        "evenkeel_health_checks_total",
        "Health checks by how they ended.",
    );
    let mut ejections = Family::counter(
        "evenkeel_server_ejections_total",
        "Times that the server was left alone for what connections had found (outlier).",
    );
    for each in all {
        let names = [("pool", each.pool), ("server", each.server)];
        let with = |name, value| [names[0], names[1], (name, value)];
        let connected = |tally: &ServerTally| {
            let workers = tally.workers().iter();
            workers.map(|worker| worker.connected.value()).sum()
        };
        total.add(&names, each.sum(connected));
        active.add(&names, each.sum(|tally| tally.connections().into()));
        ejections.add(&names, each.sum(|tally| tally.record().ejections().into()));
        for failure in ConnectFailure::ALL {
            let count = each.sum(|tally| failed(tally, failure));
            failures.add(&with("reason", failure.word()), count);
        }
        let upstream = each.sum(|tally| server_bytes(tally).upstream);
        let downstream = each.sum(|tally| server_bytes(tally).downstream);
        bytes.add(&with("direction", "upstream"), upstream);
        bytes.add(&with("direction", "downstream"), downstream);
        for (checked, count) in Checked::ALL.iter().zip(each.checks()) {
            checks.add(&with("result", checked.word()), number(count));
        }
    }
    vec![total, active, failures, bytes, checks, ejections]
}

/// What only a server has that may be picked.
fn listed(pools: &[Pool], now: Now) -> [Family; 5] {
    let mut up = Family::gauge(
        "evenkeel_server_up",
        "1 while new connections may go to the server: it is up, neither draining nor in \
         maintenance, and wants some.",
    );
    let mut weight = Family::gauge(
        "evenkeel_server_weight",
        "The server's share against the others of its pool.",
    );
    let mut ejected = Family::gauge(
        "evenkeel_server_ejected",
        "1 while the server is left alone for what connections have found (outlier).",
    );
    let mut share = Family::gauge(
        "evenkeel_server_share",
        "The part of its weight that the server wants, as an agent check found: 1 is all of it.",
    );
    let mut taken_out = Family::gauge(
        "evenkeel_server_taken_out",
        "1 while an operator has the server out: draining or in maintenance.",
    );
    for pool in pools {
        for server in &pool.servers {
            let names = [("pool", &*pool.name), ("server", &*server.name)];
            let percent = server.tally.checkup().findings().share_percent;
            share.add(&names, f64::from(percent) / 100.0);
            up.add(&names, server.is_usable(pool.is_checked));
            taken_out.add(&names, server.standing != Standing::Ready);
            weight.add(&names, server.weight);
            let is_ejected = server.tally.record().ejected_for(now).is_some();
            ejected.add(&names, is_ejected);
        }
    }
    [up, taken_out, weight, share, ejected]
}

/// Progress of drains; a leaving server whose name another one has is not shown, as it would be
/// taken for that one.
fn drains(roster: &Roster) -> Family {
    let mut drains = Family::gauge(
        "evenkeel_server_drain_connections",
        "Connections of a drain under way: those it began with, those it has closed, those left.",
    );
    let mut add = |pool: &str, server: &Server| {
        let Some(drain) = server.drain.as_deref() else {
            return;
        };
        let left = server.tally.connections();
        let counts = [
            ("began_with", drain.began_with()),
            ("closed", drain.closed()),
            ("left", left),
        ];
        for (state, count) in counts {
            drains.add(
                &[("pool", pool), ("server", &server.name), ("state", state)],
                count,
            );
        }
    };
    for pool in &roster.pools {
        for server in &pool.servers {
            add(&pool.name, server);
        }
    }
    let mut shown: Vec<(&str, &str)> = Vec::new();
    for gone in &roster.leaving {
        let name = (&*gone.pool, &*gone.server.name);
        if roster.server(name.0, name.1).is_none() && !shown.contains(&name) {
            shown.push(name);
            add(&gone.pool, &gone.server);
        }
    }
    drains
}
