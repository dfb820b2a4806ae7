//! A pool's defaults, and what is wrong among its servers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::file;
use super::super::health::health;
use super::super::mistake::{Mistakes, Place, Wrong, quoted};
use super::super::pool::RESOLVE;
use super::super::tree::Path;
use super::super::{Hash, Pool, Queue, SendProxy, Server};
use crate::address::Address;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RETRIES: u32 = 2;

/// The pool with its defaults, and what is wrong inside it.
pub(super) fn checked_pool(pool: &file::Pool, mistakes: &mut Mistakes) -> Option<Pool> {
    let path = Path::Key(&Path::Root, "pools");
    let path = Path::Key(&path, &pool.name.text);
    check_servers(pool, &path, mistakes);
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
        queue: Queue::default(),
        send_proxy: SendProxy::Off,
        slow_start: Duration::ZERO,
        on_down: pool.on_down.unwrap_or_default(),
        fail_open: false,
        outlier: None,
        source: Vec::new(),
        tcp: None,
        health: health(pool.health.as_ref(), &Path::Key(&path, "health"), mistakes).map(Arc::new),
        resolve: RESOLVE,
        templates: Vec::new(),
        servers: pool.servers.iter().flatten().map(checked_server).collect(),
    })
}

/// Names and addresses are there once, and one server at least can take a connection.
fn check_servers(pool: &file::Pool, path: &Path<'_>, mistakes: &mut Mistakes) {
    let path = Path::Key(path, "servers");
    let mut addresses: HashMap<&Address, Place> = HashMap::new();
    let mut names: HashMap<Arc<str>, Place> = HashMap::new();
    for (index, server) in pool.servers.iter().enumerate() {
        let Some(server) = server else { continue };
        let path = Path::Item(&path, index);
        let address = &server.address;
        if let Some(place) = addresses.insert(&address.value, address.place) {
            let what = format!(
                "{} is a server in {} already",
                address.value,
                place.mention(address.place)
            );
            mistakes.add(
                address.place,
                &path,
                Wrong::new(what, "remove one of the two"),
            );
            continue;
        }
        let place = server
            .name
            .as_ref()
            .map_or(address.place, |name| name.place);
        let name = server_name(server);
        if let Some(first) = names.insert(Arc::clone(&name), place) {
            let what = format!(
                "{} is a server's name in {} already",
                quoted(&name),
                first.mention(place)
            );
            mistakes.add(place, &path, Wrong::new(what, "write another name"));
        }
    }
    let is_idle = |server: &Option<file::Server>| match server {
        Some(server) => server.weight == Some(0),
        // What could not be read may well have a weight.
        None => false,
    };
    if !pool.servers.is_empty() && pool.servers.iter().all(is_idle) {
        let wrong = Wrong::new(
            "every server has weight 0",
            "write a weight from 1 to 256 for one",
        );
        mistakes.add(pool.name.place, &path, wrong);
    }
}

/// The name that logs and commands use.
fn server_name(server: &file::Server) -> Arc<str> {
    match &server.name {
        Some(name) => Arc::from(name.value.as_str()),
        None => Arc::from(server.address.value.to_string()),
    }
}

fn checked_server(server: &file::Server) -> Server {
    Server {
        name: server_name(server),
        address: server.address.value.clone(),
        weight: server.weight.unwrap_or(1),
        max_connections: server.max_connections,
        backup: server.backup.unwrap_or(false),
        found_by: None,
    }
}
