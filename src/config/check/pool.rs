//! A pool's defaults, and what is wrong between its keys.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::super::file;
use super::super::health::health;
use super::super::mistake::{Mistakes, Place, Wrong};
use super::super::pool::RESOLVE;
use super::super::tree::{Located, Path};
use super::super::{Hash, Pool, Question, Template};
use super::server::{check_servers, checked_servers, checked_template};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RETRIES: u32 = 2;

/// The pool with its defaults, and what is wrong inside it.
pub(super) fn checked_pool(pool: &file::Pool, mistakes: &mut Mistakes) -> Option<Pool> {
    let path = Path::Key(&Path::Root, "pools");
    let path = Path::Key(&path, &pool.name.text);
    check_servers(pool, &path, mistakes);
    check_sources(pool, &path, mistakes);
    // Allowed with every algorithm: which one it is may change while the pool runs.
    let hash = pool.hash.as_ref();
    Some(Pool {
        name: Arc::from(pool.name.text.as_str()),
        algorithm: pool.algorithm?,
        hash: Hash {
            ipv4_prefix: hash.and_then(|hash| hash.ipv4_prefix).unwrap_or(32),
            ipv6_prefix: hash.and_then(|hash| hash.ipv6_prefix).unwrap_or(64),
            bounded_load: hash.and_then(|hash| hash.bounded_load),
        },
        connect_timeout: pool.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
        retries: pool.retries.unwrap_or(RETRIES),
        queue: pool.queue.unwrap_or_default(),
        send_proxy: pool.send_proxy.unwrap_or_default(),
        slow_start: pool.slow_start.unwrap_or_default(),
        on_down: pool.on_down.unwrap_or_default(),
        fail_open: pool.fail_open.unwrap_or(false),
        outlier: pool.outlier,
        source: pool.source.iter().flatten().map(|one| one.value).collect(),
        tcp: pool.tcp.clone(),
        health: health(pool.health.as_ref(), &Path::Key(&path, "health"), mistakes).map(Arc::new),
        resolve: pool.resolve.map_or(RESOLVE, |resolve| resolve.value),
        templates: templates(pool),
        servers: pool
            .servers
            .iter()
            .flatten()
            .flat_map(checked_servers)
            .collect(),
    })
}

/// The names among the servers, and the file.
fn templates(pool: &file::Pool) -> Vec<Template> {
    let names = pool.servers.iter().flatten().filter_map(checked_template);
    let file = pool.servers_file.as_ref().map(|path| Template {
        question: Arc::new(Question::File(path.value.clone())),
        name: None,
        weight: 1,
        max_connections: None,
        backup: false,
    });
    names.chain(file).collect()
}

/// Each is there once, and there is one for each server.
fn check_sources(pool: &file::Pool, path: &Path<'_>, mistakes: &mut Mistakes) {
    let source_path = Path::Key(path, "source");
    let mut places: HashMap<IpAddr, Place> = HashMap::new();
    for (index, source) in pool.source.iter().enumerate() {
        let Some(Located { place, value }) = *source else {
            continue;
        };
        if let Some(first) = places.insert(value, place) {
            let what = format!("{value} is a source in {} already", first.mention(place));
            let wrong = Wrong::new(what, "remove one of the two");
            mistakes.add(place, &Path::Item(&source_path, index), wrong);
        }
    }
    // One that could not be read may well be of the family that is missing.
    if pool.source.is_empty() || pool.source.contains(&None) {
        return;
    }
    let path = Path::Key(path, "servers");
    for (index, server) in pool.servers.iter().enumerate() {
        let Some(server) = server else { continue };
        let first = server.address.value.addresses().next();
        let Some(ip) = first.and_then(|address| address.ip()) else {
            continue;
        };
        if !places.keys().any(|source| source.is_ipv4() == ip.is_ipv4()) {
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let what = format!("no source is an {family} address, as {ip} is");
            let wrong = Wrong::new(what, "write one more under source");
            mistakes.add(server.address.place, &Path::Item(&path, index), wrong);
        }
    }
}
