//! What differs in pools: their own keys, their health checks in words, and their servers.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::pair::{Pair, Thing, changed, duration, or, pairs};
use super::{Difference, Touch, What};
use crate::balance::Algorithm;
use crate::config::mistake::quoted;
use crate::config::{Check, Hash, Health, HttpCheck, OnDown, Pool, Server};
use crate::units::{counted, show_duration};

pub(super) fn diff_pools(running: &[Pool], wanted: &[Pool], changes: &mut Vec<Difference>) {
    for pair in pairs(running, wanted, |pool| &pool.name) {
        let mut thing = Thing::new(What::Pool(Arc::clone(&pair.either().name)), changes);
        match pair {
            // Most pools of a large file stay as they are, and this is the fast way to see it.
            Pair::Both(old, new) if old == new => {}
            Pair::Both(old, new) => diff_pool(old, new, changes),
            Pair::Gone(_) => thing.say(Touch::Connections, " removed"),
            Pair::New(new) => {
                let servers = counted(new.servers.len() as u64, "server");
                let algorithm = new.algorithm.name();
                thing.say(Touch::Nothing, &format!(" added ({servers}, {algorithm})"));
            }
        }
    }
}

fn diff_pool(running: &Pool, wanted: &Pool, changes: &mut Vec<Difference>) {
    let Pool {
        name,
        algorithm,
        hash,
        connect_timeout,
        retries,
        on_down,
        health,
        servers,
        queue: _,
        send_proxy: _,
        slow_start: _,
        fail_open: _,
        outlier: _,
        source: _,
        tcp: _,
        resolve: _,
        templates: _,
    } = running;
    let mut thing = Thing::new(What::Pool(Arc::clone(name)), changes);
    let algorithm_word = |algorithm: &Algorithm| algorithm.name().to_owned();
    thing.key("algorithm", algorithm, &wanted.algorithm, algorithm_word);
    diff_hash(hash, &wanted.hash, &mut thing);
    let timeout = &wanted.connect_timeout;
    thing.key("connect_timeout", connect_timeout, timeout, duration);
    thing.key("retries", retries, &wanted.retries, u32::to_string);
    let on_down_word = |on_down: &OnDown| match on_down {
        OnDown::Keep => "keep".to_owned(),
        OnDown::Close => "close".to_owned(),
    };
    thing.key("on_down", on_down, &wanted.on_down, on_down_word);
    diff_health(health.as_deref(), wanted.health.as_deref(), &mut thing);
    let is_ordered = wanted.algorithm == Algorithm::First;
    if is_ordered && !keep_their_order(servers, &wanted.servers) {
        thing.say(Touch::Nothing, ": servers in another order");
    }
    diff_servers(name, servers, &wanted.servers, changes);
}

fn diff_hash(running: &Hash, wanted: &Hash, thing: &mut Thing<'_>) {
    let Hash {
        ipv4_prefix,
        ipv6_prefix,
        bounded_load,
    } = running;
    let (ipv4, ipv6) = (&wanted.ipv4_prefix, &wanted.ipv6_prefix);
    thing.key("hash.ipv4_prefix", ipv4_prefix, ipv4, u8::to_string);
    thing.key("hash.ipv6_prefix", ipv6_prefix, ipv6, u8::to_string);
    let load = &wanted.bounded_load;
    thing.key("hash.bounded_load", bounded_load, load, or("off"));
}

/// Whether those that stay follow one another as they did.
fn keep_their_order(running: &[Server], wanted: &[Server]) -> bool {
    let places = running.iter().enumerate();
    let places: HashMap<_, _> = places
        .map(|(place, server)| (&server.name, place))
        .collect();
    wanted
        .iter()
        .filter_map(|server| places.get(&server.name))
        .is_sorted()
}

fn diff_servers(
    pool: &Arc<str>,
    running: &[Server],
    wanted: &[Server],
    changes: &mut Vec<Difference>,
) {
    for pair in pairs(running, wanted, |server| &server.name) {
        let what = What::Server {
            pool: Arc::clone(pool),
            server: Arc::clone(&pair.either().name),
        };
        let mut thing = Thing::new(what, changes);
        match pair {
            Pair::Both(old, new) => diff_server(old, new, thing),
            Pair::Gone(_) => thing.say(Touch::Connections, " removed"),
            Pair::New(new) => {
                let words = server_words(new);
                thing.say(Touch::Nothing, &format!(" added ({words})"));
            }
        }
    }
}

fn diff_server(running: &Server, wanted: &Server, mut thing: Thing<'_>) {
    let Server {
        name: _,
        address,
        weight,
        max_connections,
        backup,
        found_by: _,
    } = running;
    if let Some(line) = changed("address", address, &wanted.address, ToString::to_string) {
        thing.say(Touch::Connections, &format!(": {line}"));
    }
    thing.key("weight", weight, &wanted.weight, u32::to_string);
    let most = &wanted.max_connections;
    thing.key("max_connections", max_connections, most, or("no limit"));
    thing.key("backup", backup, &wanted.backup, bool::to_string);
}

/// Where a server is, and what is special about it.
fn server_words(server: &Server) -> String {
    let mut words = server.address.to_string();
    if server.weight != 1 {
        words.push_str(&format!(", weight {}", server.weight));
    }
    if let Some(most) = server.max_connections {
        words.push_str(&format!(
            ", at most {}",
            counted(most.get().into(), "connection")
        ));
    }
    if server.backup {
        words.push_str(", backup");
    }
    words
}

fn diff_health(running: Option<&Health>, wanted: Option<&Health>, thing: &mut Thing<'_>) {
    let (Some(running), Some(wanted)) = (running, wanted) else {
        let words = |health: &Option<&Health>| health.map_or("off".to_owned(), health_words);
        return thing.key("health", &running, &wanted, words);
    };
    let Health {
        check,
        interval,
        timeout,
        rise,
        fall,
        port,
        tls: _,
    } = running;
    diff_check(check, &wanted.check, thing);
    thing.key("health.interval", interval, &wanted.interval, duration);
    thing.key("health.timeout", timeout, &wanted.timeout, duration);
    thing.key("health.rise", rise, &wanted.rise, ToString::to_string);
    thing.key("health.fall", fall, &wanted.fall, ToString::to_string);
    let port_words = or("the server's own");
    thing.key("health.port", port, &wanted.port, port_words);
}

fn diff_check(running: &Check, wanted: &Check, thing: &mut Thing<'_>) {
    match (running, wanted) {
        (Check::Http(old), Check::Http(new)) => diff_http(old, new, thing),
        (
            Check::SendExpect { send, expect },
            Check::SendExpect {
                send: new_send,
                expect: new_expect,
            },
        ) => {
            thing.key("health.send", send, new_send, |bytes| bytes_words(bytes));
            thing.key("health.expect", expect, new_expect, |bytes| {
                bytes_words(bytes)
            });
        }
        _ => {
            thing.key("health.type", running, wanted, check_words);
        }
    }
}

fn diff_http(running: &HttpCheck, wanted: &HttpCheck, thing: &mut Thing<'_>) {
    let HttpCheck {
        path,
        host,
        expect_status,
        expect_body,
    } = running;
    thing.key("health.path", path, &wanted.path, String::clone);
    let host_words = or("the checked address");
    thing.key("health.host", host, &wanted.host, host_words);
    let status = &wanted.expect_status;
    thing.key("health.expect_status", expect_status, status, |ranges| {
        status_words(ranges)
    });
    let body_words = |body: &Option<String>| match body {
        Some(body) => quoted(body),
        None => "any".to_owned(),
    };
    let body = &wanted.expect_body;
    thing.key("health.expect_body", expect_body, body, body_words);
}

fn health_words(health: &Health) -> String {
    let interval = show_duration(health.interval);
    format!("{} every {interval}", check_words(&health.check))
}

fn check_words(check: &Check) -> String {
    match check {
        Check::Http(http) => format!("http {}", http.path),
        check => check.name().to_owned(),
    }
}

fn bytes_words(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "nothing".to_owned();
    }
    quoted(&String::from_utf8_lossy(bytes))
}

/// `200-299,304`.
fn status_words(ranges: &[RangeInclusive<u16>]) -> String {
    let word = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    let words: Vec<_> = ranges.iter().map(word).collect();
    words.join(",")
}
