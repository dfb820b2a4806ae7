//! The keys of a pool; those of its servers and of its health checks are elsewhere.

use std::net::IpAddr;

use super::super::file::{Hash, Pool};
use super::super::mistake::{Mistakes, Wrong, quoted};
use super::super::tree::{Key, Kind, Located, Node, Path, Section, value};
use super::super::{Outlier, Queue, ServerTcp, terms, words};
use super::health::health;
use super::plain;
use super::server::servers;
use super::tcp::{keepalive, user_timeout};
use crate::balance::Algorithm;

const ALGORITHM: Algorithm = Algorithm::LeastConnections;

/// Each gives 28,000 connections more to each server: enough for all that a process can have.
const SOURCES_MAX: usize = 64;

pub(super) fn pool(entry: &(Key, Node), path: &Path<'_>, mistakes: &mut Mistakes) -> Option<Pool> {
    let (name, node) = entry;
    let Some(mut section) = Section::open(node, name.place, path, mistakes) else {
        return Some(Pool::unreadable(name));
    };
    let retries = |text: &str| words::number(text, 0..=16);
    let servers_file = |text: &str| terms::file(text, "servers.txt");
    let are_servers_needed = !section.has("servers_file");
    let pool = Pool {
        name: name.clone(),
        algorithm: plain(section.value_or("algorithm", ALGORITHM, mistakes, words::algorithm)),
        hash: hash(&mut section, mistakes),
        connect_timeout: plain(section.value("connect_timeout", mistakes, words::timeout)),
        retries: plain(section.value("retries", mistakes, retries)),
        queue: queue(&mut section, mistakes),
        send_proxy: plain(section.value("send_proxy", mistakes, terms::send_proxy)),
        slow_start: plain(section.value("slow_start", mistakes, words::duration)),
        on_down: plain(section.value("on_down", mistakes, words::on_down)),
        fail_open: plain(section.value("fail_open", mistakes, words::truth)),
        outlier: outlier(&mut section, mistakes),
        source: sources(&mut section, mistakes),
        tcp: tcp(&mut section, mistakes),
        health: health(&mut section, mistakes),
        resolve: section.value("resolve", mistakes, terms::resolve),
        servers_file: section.value("servers_file", mistakes, servers_file),
        servers: servers(are_servers_needed, &mut section, mistakes),
    };
    section.close(mistakes);
    Some(pool)
}

fn hash(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Option<Hash> {
    let (key, node) = section.entry("hash")?;
    let path = Path::Key(section.path, &key.text);
    let mut section = Section::open(node, key.place, &path, mistakes)?;
    let bits = |most| move |text: &str| words::number(text, 1..=most);
    let bounded_load = section.value("bounded_load", mistakes, |text| {
        words::word_or("off", text, words::factor)
    });
    let hash = Hash {
        ipv4_prefix: plain(section.value("ipv4_prefix", mistakes, bits(32))),
        ipv6_prefix: plain(section.value("ipv6_prefix", mistakes, bits(128))),
        bounded_load: plain(bounded_load).flatten(),
    };
    section.close(mistakes);
    Some(hash)
}

fn queue(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Option<Queue> {
    let (key, node) = section.entry("queue")?;
    let path = Path::Key(section.path, &key.text);
    let mut section = Section::open(node, key.place, &path, mistakes)?;
    if section.has("timeout") && !section.has("limit") {
        let wrong = Wrong::new(
            "timeout has no effect without limit",
            "write limit: 1000 beside it",
        );
        let place = section.node_place("timeout");
        mistakes.add(place, &Path::Key(&path, "timeout"), wrong);
    }
    let limit = |text: &str| words::number(text, 0..=Queue::LIMIT_MAX);
    let default = Queue::default();
    let queue = Queue {
        limit: plain(section.value("limit", mistakes, limit)).unwrap_or(default.limit),
        timeout: plain(section.value("timeout", mistakes, words::timeout))
            .unwrap_or(default.timeout),
    };
    section.close(mistakes);
    Some(queue)
}

/// `off`, which is also the default, or keys, each with a default of its own.
fn outlier(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Option<Outlier> {
    let (key, node) = section.entry("outlier")?;
    let path = Path::Key(section.path, &key.text);
    if let Kind::Text(text) = &node.kind {
        if text != "off" {
            let what = format!("{} is not off", quoted(text));
            let wrong = Wrong::new(what, "write off, or keys such as failures: 5");
            mistakes.add(node.place, &path, wrong);
        }
        return None;
    }
    let mut section = Section::open(node, key.place, &path, mistakes)?;
    let percent = |text: &str| words::number(text, 1..=100);
    let default = Outlier::default();
    let failures = plain(section.value("failures", mistakes, terms::times));
    let ejection = plain(section.value("ejection", mistakes, words::timeout));
    let most = plain(section.value("max_ejected_percent", mistakes, percent));
    section.close(mistakes);
    Some(Outlier {
        failures: failures.unwrap_or(default.failures),
        ejection: ejection.unwrap_or(default.ejection),
        max_ejected_percent: most.unwrap_or(default.max_ejected_percent),
    })
}

/// One address, or a list of them.
fn sources(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Vec<Option<Located<IpAddr>>> {
    let Some((key, node)) = section.entry("source") else {
        return Vec::new();
    };
    let path = Path::Key(section.path, &key.text);
    let Kind::List(list) = &node.kind else {
        return vec![value(node, &path, mistakes, terms::source)];
    };
    if list.is_empty() {
        let wrong = Wrong::new(
            "there is no address",
            "write at least one or remove the key",
        );
        mistakes.add(node.place, &path, wrong);
    }
    if list.len() > SOURCES_MAX {
        let what = format!("there are {} addresses", list.len());
        let wrong = Wrong::new(what, format!("write at most {SOURCES_MAX}"));
        mistakes.add(node.place, &path, wrong);
    }
    let read_one = |(index, item)| value(item, &Path::Item(&path, index), mistakes, terms::source);
    let list = list.iter().take(SOURCES_MAX).enumerate();
    list.map(read_one).collect()
}

/// The section `tcp`, which may be absent as a whole.
fn tcp(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Option<ServerTcp> {
    let (key, node) = section.entry("tcp")?;
    let path = Path::Key(section.path, &key.text);
    let mut section = Section::open(node, key.place, &path, mistakes)?;
    let tcp = ServerTcp {
        keepalive: keepalive(&mut section, mistakes),
        user_timeout: user_timeout(&mut section, mistakes),
    };
    section.close(mistakes);
    Some(tcp)
}
