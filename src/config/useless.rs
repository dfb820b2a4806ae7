//! What a good config says without any effect: a key that waits for another one, or a number that
//! comes to nothing. No mistake, because what runs may change without the file (a server is added, an
//! algorithm picked); but as it is written, its author is mistaken about it.
//!
//! Pure. Keys that were left out and keys with their default are the same here, and never useless.

use std::collections::HashSet;

use super::check::HEADER_TIMEOUT;
use super::{Config, Limits, Listener, Pool, ProxyProtocol, ReadyWhen};
use crate::balance::Algorithm;
use crate::ids::PoolId;
use crate::units::counted;

/// A line for each key that has no effect, in the order of the file.
#[must_use]
pub fn useless(config: &Config) -> Vec<String> {
    let listeners = config.listeners.iter().flat_map(|listener| {
        let lines = of_listener(listener).into_iter().flatten();
        lines.map(|line| format!("listener {}: {line}", listener.name))
    });
    let pools = config.pools.iter().flat_map(|pool| {
        let lines = of_pool(pool).into_iter().flatten();
        lines.map(|line| format!("pool {}: {line}", pool.name))
    });
    let ready_when = uncounted(config).into_iter();
    ready_when.chain(listeners).chain(pools).collect()
}

/// Pools that are named and never count.
fn uncounted(config: &Config) -> Vec<String> {
    let ReadyWhen::Pools(names) = &config.ready_when else {
        return Vec::new();
    };
    let used: HashSet<_> = config.listeners.iter().flat_map(Listener::pools).collect();
    let pools = config.pools.iter().enumerate();
    let unused: HashSet<_> = pools
        .filter(|(index, _)| !used.contains(&PoolId::new(*index)))
        .map(|(_, pool)| &pool.name)
        .collect();
    let useless = names.iter().filter(|name| unused.contains(name));
    useless
        .map(|name| format!("ready_when: pool {name} never counts, no listener leads to it"))
        .collect()
}

fn of_listener(listener: &Listener) -> [Option<String>; 2] {
    let has_header = listener.proxy_protocol != ProxyProtocol::Off || !listener.sni.is_empty();
    let header = !has_header && listener.header_timeout != HEADER_TIMEOUT;
    let (limits, usual) = (&listener.limits, Limits::default());
    let prefixes = |limits: &Limits| (limits.ipv4_prefix, limits.ipv6_prefix);
    let is_counted =
        limits.max_connections_per_ip.is_some() || limits.connection_rate_per_ip.is_some();
    let per_ip = !is_counted && prefixes(limits) != prefixes(&usual);
    let line = |line: &str| Some(line.to_owned());
    [
        line("header_timeout has no effect without proxy_protocol: accept or sni")
            .filter(|_| header),
        line("per_ip has no effect without max_connections_per_ip or connection_rate_per_ip")
            .filter(|_| per_ip),
    ]
}

fn of_pool(pool: &Pool) -> [Option<String>; 4] {
    [
        outlier(pool),
        slow_start(pool),
        weights(pool),
        fail_open(pool),
    ]
}

/// Names and files may bring more servers.
fn outlier(pool: &Pool) -> Option<String> {
    let rules = pool.outlier.filter(|_| pool.templates.is_empty())?;
    let servers = pool.servers.len();
    if rules.ejected_max(servers) > 0 {
        return None;
    }
    if servers < 2 {
        return Some("outlier has no effect, the only server is never left alone".to_owned());
    }
    Some(format!(
        "outlier has no effect, max_ejected_percent: {} of {} is less than one, write at least {}",
        rules.max_ejected_percent,
        counted(servers as u64, "server"),
        100_usize.div_ceil(servers)
    ))
}

fn slow_start(pool: &Pool) -> Option<String> {
    let ignores = matches!(pool.algorithm, Algorithm::IpHash | Algorithm::First);
    let is_useless = ignores && !pool.slow_start.is_zero();
    is_useless.then(|| format!("slow_start has no effect with algorithm {}", pool.algorithm))
}

/// A weight of 0 is heeded by all.
fn weights(pool: &Pool) -> Option<String> {
    let mut weights = pool
        .servers
        .iter()
        .map(|server| server.weight)
        .filter(|weight| *weight > 0);
    let first = weights.next()?;
    let is_useless = pool.algorithm == Algorithm::First && weights.any(|weight| weight != first);
    is_useless.then(|| {
        "weights have no effect with algorithm first, which goes by the order of the list"
            .to_owned()
    })
}

/// Without checks a server is out only while it is ejected.
fn fail_open(pool: &Pool) -> Option<String> {
    let is_useless = pool.fail_open && pool.health.is_none() && pool.outlier.is_none();
    is_useless
        .then(|| "fail_open has no effect with health: off, no server is ever down".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines about a listener and a pool with these keys.
    fn told(listener: &str, pool: &str) -> Vec<String> {
        let text = format!(
            "listeners: {{a: {{bind: 127.0.0.1:80, pool: p, {listener}}}}}\n\
             pools: {{p: {{{pool}}}}}\n"
        );
        useless(&super::super::read("x", &text).unwrap())
    }

    #[test]
    fn a_pool_that_never_counts_is_told() {
        let text = "ready_when: [p, spare]\n\
            listeners: {a: {bind: 127.0.0.1:80, pool: q, sni: {x.test: p}}}\n\
            pools: {p: {servers: [10.0.0.1:80]}, q: {servers: [10.0.0.1:80]}, \
            spare: {servers: [10.0.0.1:80]}}\n";
        let config = super::super::read("x", text).unwrap();
        assert_eq!(
            useless(&config),
            ["ready_when: pool spare never counts, no listener leads to it"]
        );
    }

    #[test]
    fn an_outlier_that_can_eject_nobody_is_told() {
        let two = "servers: [10.0.0.1:80-81]";
        let (one, none) = ("servers: [10.0.0.1:80]", "servers_file: ./s");
        for (pool, part) in [
            (format!("outlier: {{}}, {one}"), "the only server"),
            (
                format!("outlier: {{max_ejected_percent: 100}}, {one}"),
                "the only server",
            ),
            (
                format!("outlier: {{max_ejected_percent: 49}}, {two}"),
                "max_ejected_percent: 49 of 2 servers is less than one, write at least 50",
            ),
        ] {
            let lines = told("", &pool);
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert!(
                lines[0].starts_with("pool p: outlier has no effect, "),
                "{lines:?}"
            );
            assert!(lines[0].contains(part), "{lines:?}");
        }
        for pool in [
            format!("outlier: off, {one}"),
            format!("outlier: {{}}, {two}"),
            format!("outlier: {{}}, {none}"),
            format!("outlier: {{}}, {none}, {one}"),
        ] {
            assert_eq!(told("", &pool), [""; 0], "{pool}");
        }
    }

    #[test]
    fn keys_that_wait_for_another_are_told() {
        let server = "servers: [10.0.0.1:80]";
        let weights = "servers: [{address: 10.0.0.1:80, weight: 2}, 10.0.0.2:80]";
        for (listener, pool, line) in [
            (
                "header_timeout: 1s",
                server.to_owned(),
                "listener a: header_timeout has no effect without proxy_protocol: accept or sni",
            ),
            (
                "per_ip: {ipv4_prefix: 24}",
                server.to_owned(),
                "listener a: per_ip has no effect without max_connections_per_ip or \
                 connection_rate_per_ip",
            ),
            (
                "",
                format!("algorithm: ip_hash, slow_start: 5s, {server}"),
                "pool p: slow_start has no effect with algorithm ip_hash",
            ),
            (
                "",
                format!("algorithm: first, {weights}"),
                "pool p: weights have no effect with algorithm first, which goes by the order of \
                 the list",
            ),
            (
                "",
                format!("fail_open: true, health: off, {server}"),
                "pool p: fail_open has no effect with health: off, no server is ever down",
            ),
        ] {
            assert_eq!(told(listener, &pool), [line]);
        }
    }

    #[test]
    fn keys_that_have_what_they_need_are_not_told() {
        let listener = "header_timeout: 1s, sni: {a.example: p}, connection_rate_per_ip: 1/s, \
                        per_ip: {ipv4_prefix: 24}";
        let weights = "servers: [{address: 10.0.0.1:80, weight: 2}, 10.0.0.2:80]";
        for pool in [
            format!("slow_start: 5s, {weights}"),
            format!("algorithm: ip_hash, {weights}"),
            format!("fail_open: true, {weights}"),
            format!("fail_open: true, health: off, outlier: {{}}, {weights}"),
            "algorithm: first, servers: [{address: 10.0.0.1:80, weight: 0}, 10.0.0.2:80]"
                .to_owned(),
        ] {
            assert_eq!(told(listener, &pool), [""; 0], "{pool}");
        }
    }
}
