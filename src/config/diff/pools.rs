//! What differs in pools: their own keys, each in the words of the file. Their health checks and their
//! servers are compared elsewhere.

use std::fmt::Display;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::checks::diff_health;
use super::listeners::{keepalive_words, user_timeout_words};
use super::pair::{Pair, Thing, duration, or, pairs};
use super::servers::{diff_servers, diff_templates, keep_their_order, written};
use super::{Difference, Touch, What};
use crate::balance::Algorithm;
use crate::config::{Hash, OnDown, Outlier, Pool, Queue, SendProxy, ServerTcp};
use crate::units::counted;

pub(super) fn diff_pools(running: &[Pool], wanted: &[Pool], changes: &mut Vec<Difference>) {
    for pair in pairs(running, wanted, |pool| &pool.name) {
        let mut thing = Thing::new(What::Pool(Arc::clone(&pair.either().name)), changes);
        match pair {
            // Most pools of a large file stay as they are, and this is the fast way to see it.
            Pair::Both(old, new) if old == new => {}
            Pair::Both(old, new) => diff_pool(old, new, changes),
            Pair::Gone(_) => thing.say(Touch::Connections, " removed"),
            Pair::New(new) => {
                let mut words = counted(new.servers.len() as u64, "server");
                if !new.templates.is_empty() {
                    let lookups = counted(new.templates.len() as u64, "lookup");
                    words.push_str(&format!(", {lookups}"));
                }
                let algorithm = new.algorithm.name();
                thing.say(Touch::Nothing, &format!(" added ({words}, {algorithm})"));
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
        queue,
        send_proxy,
        slow_start,
        on_down,
        fail_open,
        outlier,
        source,
        tcp,
        health,
        resolve,
        templates,
        servers,
    } = running;
    let mut thing = Thing::new(What::Pool(Arc::clone(name)), changes);
    let algorithm_word = |algorithm: &Algorithm| algorithm.name().to_owned();
    thing.key("algorithm", algorithm, &wanted.algorithm, algorithm_word);
    diff_hash(hash, &wanted.hash, &mut thing);
    let timeout = &wanted.connect_timeout;
    thing.key("connect_timeout", connect_timeout, timeout, duration);
    thing.key("retries", retries, &wanted.retries, u32::to_string);
    diff_queue(queue, &wanted.queue, &mut thing);
    let proxy_word = |version: &SendProxy| version.name().to_owned();
    thing.key("send_proxy", send_proxy, &wanted.send_proxy, proxy_word);
    thing.key("slow_start", slow_start, &wanted.slow_start, duration);
    let on_down_word = |on_down: &OnDown| match on_down {
        OnDown::Keep => "keep".to_owned(),
        OnDown::Close => "close".to_owned(),
    };
    thing.key("on_down", on_down, &wanted.on_down, on_down_word);
    thing.key("fail_open", fail_open, &wanted.fail_open, bool::to_string);
    diff_outlier(outlier.as_ref(), wanted.outlier.as_ref(), &mut thing);
    thing.key("source", source, &wanted.source, |all| source_words(all));
    diff_tcp(tcp.as_ref(), wanted.tcp.as_ref(), &mut thing);
    diff_health(health.as_deref(), wanted.health.as_deref(), &mut thing);
    thing.key("resolve", resolve, &wanted.resolve, duration);
    diff_templates(templates, &wanted.templates, &mut thing);
    let is_ordered = wanted.algorithm == Algorithm::First;
    if is_ordered && !keep_their_order(&written(servers), &written(&wanted.servers)) {
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

fn diff_queue(running: &Queue, wanted: &Queue, thing: &mut Thing<'_>) {
    let Queue { limit, timeout } = running;
    thing.key("queue.limit", limit, &wanted.limit, u32::to_string);
    thing.key("queue.timeout", timeout, &wanted.timeout, duration);
}

fn diff_outlier(running: Option<&Outlier>, wanted: Option<&Outlier>, thing: &mut Thing<'_>) {
    let (Some(running), Some(wanted)) = (running, wanted) else {
        return thing.key("outlier", &running, &wanted, |outlier| match outlier {
            Some(one) => format!("after {}", counted(one.failures.get().into(), "failure")),
            None => "off".to_owned(),
        });
    };
    let Outlier {
        failures,
        ejection,
        max_ejected_percent,
    } = running;
    let new = &wanted.failures;
    thing.key("outlier.failures", failures, new, NonZeroU32::to_string);
    thing.key("outlier.ejection", ejection, &wanted.ejection, duration);
    let (old, new) = (max_ejected_percent, &wanted.max_ejected_percent);
    thing.key("outlier.max_ejected_percent", old, new, u8::to_string);
}

fn source_words(source: &[IpAddr]) -> String {
    match source {
        [] => "the kernel's choice".to_owned(),
        source => joined(source),
    }
}

fn joined(words: &[impl Display]) -> String {
    let words: Vec<_> = words.iter().map(ToString::to_string).collect();
    words.join(", ")
}

fn diff_tcp(running: Option<&ServerTcp>, wanted: Option<&ServerTcp>, thing: &mut Thing<'_>) {
    let (Some(running), Some(wanted)) = (running, wanted) else {
        return thing.key("tcp", &running, &wanted, |tcp| match tcp {
            Some(tcp) => tcp_words(tcp),
            None => "the listener's".to_owned(),
        });
    };
    let ServerTcp {
        keepalive,
        user_timeout,
    } = running;
    let new = &wanted.keepalive;
    thing.key("tcp.keepalive", keepalive, new, keepalive_words);
    let new = &wanted.user_timeout;
    thing.key("tcp.user_timeout", user_timeout, new, user_timeout_words);
}

fn tcp_words(tcp: &ServerTcp) -> String {
    let ServerTcp {
        keepalive,
        user_timeout,
    } = tcp;
    let (keepalive, timeout) = (keepalive_words(keepalive), user_timeout_words(user_timeout));
    format!("keepalive {keepalive}, user_timeout {timeout}")
}
