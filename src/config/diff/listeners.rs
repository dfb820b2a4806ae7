//! What differs in listeners: their addresses, where they lead, and the rules at the door. What is a
//! set may be large, and is told in full only where it is small.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::pair::{Pair, Thing, duration, or, pairs};
use super::{Difference, Touch, What};
use crate::address::Address;
use crate::config::{
    Config, Keepalive, Limits, Listener, ProxyProtocol, Route, ServerPattern, Tcp,
};
use crate::units::{counted, show_duration};

/// Of addresses, networks and names: what fits a line that people read.
const SHOWN_MAX: usize = 8;

pub(super) fn diff_listeners(running: &Config, wanted: &Config, changes: &mut Vec<Difference>) {
    for pair in pairs(&running.listeners, &wanted.listeners, |one| &one.name) {
        let name = Arc::clone(&pair.either().name);
        let mut thing = Thing::new(What::Listener(name), changes);
        match pair {
            Pair::Both(old, new) => {
                let pools = [pool_of(old, running), pool_of(new, wanted)];
                diff_bind(old, new, &mut thing);
                thing.key("pool", pools[0], pools[1], |name| name.to_string());
                diff_routes(routes(old, running), &routes(new, wanted), &mut thing);
                diff_listener(old, new, thing);
            }
            Pair::Gone(_) => thing.say(Touch::Connections, " removed"),
            Pair::New(new) => {
                let (bind, pool) = (new.shown_addresses(SHOWN_MAX), pool_of(new, wanted));
                thing.say(Touch::Nothing, &format!(" added ({bind} to pool {pool})"));
            }
        }
    }
}

fn diff_listener(running: &Listener, wanted: &Listener, mut thing: Thing<'_>) {
    let Listener {
        name: _,
        bind: _,
        // Indexes into their own configuration's list: the names are compared elsewhere.
        pool: _,
        sni: _,
        proxy_protocol,
        allow,
        deny,
        limits,
        header_timeout,
        idle_timeout,
        half_close_timeout,
        tcp,
    } = running;
    diff_proxy_protocol(proxy_protocol, &wanted.proxy_protocol, &mut thing);
    let sets = [allow.as_deref(), wanted.allow.as_deref()];
    diff_networks("allow", "everyone", sets, &mut thing);
    let sets = [some(deny), some(&wanted.deny)];
    diff_networks("deny", "nobody", sets, &mut thing);
    diff_limits(limits, &wanted.limits, &mut thing);
    for (key, old, new) in [
        ("header_timeout", header_timeout, &wanted.header_timeout),
        ("idle_timeout", idle_timeout, &wanted.idle_timeout),
        (
            "half_close_timeout",
            half_close_timeout,
            &wanted.half_close_timeout,
        ),
    ] {
        thing.key(key, old, new, duration);
    }
    diff_tcp(tcp, &wanted.tcp, &mut thing);
}

/// The name of a listener's pool in its own configuration.
fn pool_of<'c>(listener: &Listener, config: &'c Config) -> &'c Arc<str> {
    &config.pools[listener.pool.index()].name
}

/// Connections are touched where an address goes.
fn diff_bind(running: &Listener, wanted: &Listener, thing: &mut Thing<'_>) {
    let (old, new) = (sorted(&running.bind), sorted(&wanted.bind));
    if old == new {
        return;
    }
    let [added, removed] = counts(&old, &new);
    let touch = if removed == 0 {
        Touch::Nothing
    } else {
        Touch::Connections
    };
    // A range is short however many addresses it has, so the words decide what fits.
    let [shown, wished] = [running, wanted].map(|one| one.shown_addresses(usize::MAX));
    let is_short = [&shown, &wished]
        .iter()
        .all(|words| words.matches(", ").count() < SHOWN_MAX);
    if is_short {
        thing.say(touch, &format!(": bind {shown} -> {wished}"));
    } else {
        thing.say(touch, &count_line("bind", "address", "es", added, removed));
    }
}

fn sorted(addresses: &[Address]) -> Vec<Address> {
    let mut addresses = addresses.to_vec();
    addresses.sort_unstable();
    addresses
}

/// How many are only in the second of two that are in order, and how many only in the first.
fn counts<T: Ord>(old: &[T], new: &[T]) -> [usize; 2] {
    let missing = |these: &[T], those: &[T]| {
        let is_missing = |one: &&T| those.binary_search(one).is_err();
        these.iter().filter(is_missing).count()
    };
    [missing(new, old), missing(old, new)]
}

/// `: KEY 3 THINGS added, 1 removed`.
fn count_line(key: &str, thing: &str, plural: &str, added: usize, removed: usize) -> String {
    let things = |count: usize| {
        let plural = if count == 1 { "" } else { plural };
        format!("{count} {thing}{plural}")
    };
    match (added, removed) {
        (added, 0) => format!(": {key} {} added", things(added)),
        (0, removed) => format!(": {key} {} removed", things(removed)),
        _ => format!(": {key} {} added, {removed} removed", things(added)),
    }
}

fn some(networks: &[IpNet]) -> Option<&[IpNet]> {
    (!networks.is_empty()).then_some(networks)
}

/// `none` is what stands for no list.
fn diff_networks(
    key: &str,
    none: &str,
    [running, wanted]: [Option<&[IpNet]>; 2],
    thing: &mut Thing<'_>,
) {
    if running == wanted {
        return;
    }
    let line = match (running, wanted) {
        (Some(old), Some(new)) if old.len().max(new.len()) > SHOWN_MAX => {
            let [added, removed] = counts(old, new);
            count_line(key, "network", "s", added, removed)
        }
        _ => {
            let [old, new] = [running, wanted].map(|set| network_words(set, none));
            format!(": {key} {old} -> {new}")
        }
    };
    thing.say(Touch::Nothing, &line);
}

fn network_words(networks: Option<&[IpNet]>, none: &str) -> String {
    match networks {
        None => none.to_owned(),
        Some(networks) if networks.len() > SHOWN_MAX => counted(networks.len() as u64, "network"),
        Some(networks) => {
            let words: Vec<_> = networks.iter().map(ToString::to_string).collect();
            words.join(", ")
        }
    }
}

fn diff_proxy_protocol(running: &ProxyProtocol, wanted: &ProxyProtocol, thing: &mut Thing<'_>) {
    fn trusted(protocol: &ProxyProtocol) -> Option<&[IpNet]> {
        match protocol {
            ProxyProtocol::Off => None,
            ProxyProtocol::Accept { trusted } => some(trusted),
        }
    }
    let word = |protocol: &ProxyProtocol| match protocol {
        ProxyProtocol::Off => "off",
        ProxyProtocol::Accept { .. } => "accept",
    };
    thing.key("proxy_protocol", &word(running), &word(wanted), |word| {
        (*word).to_owned()
    });
    let sets = [trusted(running), trusted(wanted)];
    diff_networks("trusted_proxies", "nobody", sets, thing);
}

/// Where each server name leads.
fn routes<'c>(
    listener: &'c Listener,
    config: &'c Config,
) -> HashMap<&'c ServerPattern, &'c Arc<str>> {
    let name = |route: &'c Route| (&route.names, &config.pools[route.pool.index()].name);
    listener.sni.iter().map(name).collect()
}

fn diff_routes<'c>(
    mut running: HashMap<&'c ServerPattern, &'c Arc<str>>,
    wanted: &HashMap<&'c ServerPattern, &'c Arc<str>>,
    thing: &mut Thing<'_>,
) {
    let mut lines = Vec::new();
    for (names, pool) in wanted {
        match running.remove(names) {
            Some(old) if old == *pool => {}
            Some(old) => lines.push(format!("sni {names} to pool {old} -> {pool}")),
            None => lines.push(format!("sni {names} to pool {pool} added")),
        }
    }
    let gone = running.keys();
    lines.extend(gone.map(|names| format!("sni {names} removed")));
    lines.sort_unstable();
    for line in lines.iter().take(SHOWN_MAX) {
        thing.say(Touch::Nothing, &format!(": {line}"));
    }
    if lines.len() > SHOWN_MAX {
        let more = counted((lines.len() - SHOWN_MAX) as u64, "more name");
        thing.say(Touch::Nothing, &format!(": sni changes for {more}"));
    }
}

fn diff_limits(running: &Limits, wanted: &Limits, thing: &mut Thing<'_>) {
    let Limits {
        max_connections,
        max_connections_per_ip,
        connection_rate_per_ip,
        ipv4_prefix,
        ipv6_prefix,
    } = running;
    let (key, new) = ("max_connections", &wanted.max_connections);
    thing.key(key, max_connections, new, or("no limit"));
    let (key, new) = ("max_connections_per_ip", &wanted.max_connections_per_ip);
    thing.key(key, max_connections_per_ip, new, or("no limit"));
    let (key, new) = ("connection_rate_per_ip", &wanted.connection_rate_per_ip);
    thing.key(key, connection_rate_per_ip, new, or("no limit"));
    let (ipv4, ipv6) = (&wanted.ipv4_prefix, &wanted.ipv6_prefix);
    thing.key("per_ip.ipv4_prefix", ipv4_prefix, ipv4, u8::to_string);
    thing.key("per_ip.ipv6_prefix", ipv6_prefix, ipv6, u8::to_string);
}

fn diff_tcp(running: &Tcp, wanted: &Tcp, thing: &mut Thing<'_>) {
    let Tcp {
        keepalive,
        user_timeout,
        fast_open,
        backlog,
    } = running;
    let new = &wanted.keepalive;
    thing.key("tcp.keepalive", keepalive, new, keepalive_words);
    let new = &wanted.user_timeout;
    thing.key("tcp.user_timeout", user_timeout, new, user_timeout_words);
    let new = &wanted.fast_open;
    thing.key("tcp.fast_open", fast_open, new, bool::to_string);
    thing.key("tcp.backlog", backlog, &wanted.backlog, shown);
}

fn shown(value: &impl Display) -> String {
    value.to_string()
}

/// As a config has it.
pub(super) fn keepalive_words(keepalive: &Option<Keepalive>) -> String {
    let Some(keepalive) = keepalive else {
        return "off".to_owned();
    };
    let Keepalive {
        idle,
        interval,
        probes,
    } = keepalive;
    let idle = show_duration(*idle);
    if interval.is_none() && probes.is_none() {
        return idle;
    }
    let interval = interval.map(|interval| format!(", interval: {}", show_duration(interval)));
    let probes = probes.map(|probes| format!(", probes: {probes}"));
    let (interval, probes) = (interval.unwrap_or_default(), probes.unwrap_or_default());
    format!("{{idle: {idle}{interval}{probes}}}")
}

/// As a config has it.
pub(super) fn user_timeout_words(timeout: &Option<Duration>) -> String {
    timeout.map_or_else(|| "off".to_owned(), show_duration)
}
