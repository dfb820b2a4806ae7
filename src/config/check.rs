//! From what the user wrote to what can run: defaults are filled in, names become ids, and whatever
//! depends on more than one value is checked. Every mistake is noted; nothing stops at the first.
//!
//! `None` means that a mistake has been noted, here or in [`super::reader`]: a check that rests on
//! such a value is left out, so that one slip is one message.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::file::{self, File};
use super::health::health;
use super::loops;
use super::mistake::{Mistakes, Place, Wrong, nearest, quoted};
use super::tree::{Located, Path};
use super::{AccessLog, Admin, Config, Hash, Listener, Log, LogFormat, Pool, Server};
use crate::ids::PoolId;

/// Each opens a socket in every worker.
const ADDRESSES_MAX: usize = 10_000;
/// Each has a row of counters in every worker.
const POOLS_MAX: usize = 10_000;
/// Over all pools: each is probed, and has a row of counters in every worker.
pub const SERVERS_MAX: usize = 100_000;

const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RETRIES: u32 = 2;

/// Makes a configuration of what was written, and notes what stands in the way.
pub(super) fn check(file: &File, mistakes: &mut Mistakes) -> Option<Config> {
    check_counts(file, mistakes)?;
    check_addresses(file, mistakes);
    check_admin(&file.admin, mistakes);
    // A pool that cannot be read is among them: to name it is right all the same.
    let ids: HashMap<&str, usize> = file
        .pools
        .iter()
        .enumerate()
        .map(|(index, pool)| (pool.name.text.as_str(), index))
        .collect();
    loops::check(file, &ids, mistakes);
    let mut listeners = Vec::new();
    for listener in &file.listeners {
        if let Some(index) = pool_index(listener, &ids, &file.pools, mistakes) {
            listeners.push(checked_listener(listener, PoolId::new(index)));
        }
    }
    let pools = file
        .pools
        .iter()
        .filter_map(|pool| checked_pool(pool, mistakes))
        .collect();
    Some(Config {
        workers: file.workers,
        max_connections: file.max_connections,
        shutdown_timeout: file.shutdown_timeout.unwrap_or(SHUTDOWN_TIMEOUT),
        admin: checked_admin(&file.admin),
        log: Log {
            level: file.log.level.unwrap_or(log::LevelFilter::Info),
            access: file.log.access.clone().unwrap_or(AccessLog::Stdout),
            format: file.log.format.unwrap_or(LogFormat::Text),
        },
        listeners,
        pools,
    })
}

/// `None` where there is too much of something: the other checks would take too long.
fn check_counts(file: &File, mistakes: &mut Mistakes) -> Option<()> {
    let addresses = file
        .listeners
        .iter()
        .map(|listener| listener.bind.len())
        .sum();
    let servers = file.pools.iter().map(|pool| pool.servers.len()).sum();
    let mut is_bounded = true;
    for (key, count, thing, most) in [
        ("listeners", addresses, "addresses", ADDRESSES_MAX),
        ("pools", file.pools.len(), "pools", POOLS_MAX),
        ("pools", servers, "servers", SERVERS_MAX),
    ] {
        if count > most {
            let what = format!("there are {count} {thing}");
            let wrong = Wrong::new(what, format!("write at most {most}"));
            mistakes.add(Place::START, &Path::Key(&Path::Root, key), wrong);
            is_bounded = false;
        }
    }
    is_bounded.then_some(())
}

/// Two sockets cannot have one address, nor one the wildcard of its family and the other the same
/// port. `[::]` leaves IPv4 alone, because the sockets are made with IPV6_V6ONLY.
fn check_addresses(file: &File, mistakes: &mut Mistakes) {
    let mut bound = Bound::default();
    for listener in &file.listeners {
        let path = Path::Key(&Path::Root, "listeners");
        let path = Path::Key(&path, &listener.name.text);
        let path = Path::Key(&path, "bind");
        for (index, address) in listener.bind.iter().enumerate() {
            let Some(address) = address else { continue };
            if listener.bind.len() > 1 {
                bound.add(address, &Path::Item(&path, index), mistakes);
            } else {
                bound.add(address, &path, mistakes);
            }
        }
    }
    let path = Path::Key(&Path::Root, "admin");
    let http = file.admin.http.and_then(|http| {
        let (place, value) = (http.place, http.value?);
        Some(Located { place, value })
    });
    if let Some(http) = http {
        bound.add(&http, &Path::Key(&path, "http"), mistakes);
    }
}

/// Addresses that have been seen, by family and port.
#[derive(Debug, Default)]
struct Bound(HashMap<(bool, u16), Vec<(IpAddr, Place)>>);

impl Bound {
    fn add(&mut self, address: &Located<SocketAddr>, path: &Path<'_>, mistakes: &mut Mistakes) {
        let (ip, port) = (address.value.ip(), address.value.port());
        // The kernel gives each a port of its own.
        if port == 0 {
            return;
        }
        let others = self.0.entry((ip.is_ipv4(), port)).or_default();
        let clash = others
            .iter()
            .find(|(other, _)| *other == ip || other.is_unspecified() || ip.is_unspecified());
        if let Some((other, place)) = clash {
            let other = SocketAddr::new(*other, port);
            let mention = place.mention(address.place);
            let what = format!("{} is taken by {other} in {mention}", address.value);
            let wrong = Wrong::new(what, "write another address or port");
            mistakes.add(address.place, path, wrong);
        }
        others.push((ip, address.place));
    }
}

/// Notes each key that would do nothing without HTTP over TCP.
fn check_admin(admin: &file::Admin, mistakes: &mut Mistakes) {
    let is_off = admin.http.is_some_and(|http| http.value.is_none());
    let path = Path::Key(&Path::Root, "admin");
    let hosts = admin.http_hosts.as_ref().map(|hosts| hosts.place);
    let token_file = admin.http_token_file.as_ref().map(|file| file.place);
    for (key, place) in [("http_hosts", hosts), ("http_token_file", token_file)] {
        if let Some(place) = place.filter(|_| is_off) {
            let what = format!("{key} has no effect without http");
            let remedy = "write http: 127.0.0.1:9900 beside it or remove the key";
            mistakes.add(place, &Path::Key(&path, key), Wrong::new(what, remedy));
        }
    }
}

fn checked_admin(admin: &file::Admin) -> Admin {
    let hosts = admin.http_hosts.as_ref().map(|hosts| hosts.value.clone());
    let token_file = admin.http_token_file.as_ref();
    Admin {
        socket: admin.socket.clone().unwrap_or_default(),
        http: admin.http.and_then(|http| http.value),
        http_hosts: hosts.unwrap_or_default(),
        http_token_file: token_file.map(|file| file.value.clone()),
        // No file can ask for it.
        is_open: false,
    }
}

/// The pool that a listener names.
fn pool_index(
    listener: &file::Listener,
    ids: &HashMap<&str, usize>,
    pools: &[file::Pool],
    mistakes: &mut Mistakes,
) -> Option<usize> {
    let pool = listener.pool.as_ref()?;
    let index = ids.get(pool.value.as_str()).copied();
    // Without pools, that alone is the mistake, and it has been noted.
    if index.is_none() && !ids.is_empty() {
        let likely = if mistakes.is_full() {
            None
        } else {
            nearest(
                &pool.value,
                pools.iter().map(|pool| pool.name.text.as_str()),
            )
        };
        let remedy = match likely {
            Some(name) => format!("write {name}"),
            None => "write the name of one, or add it under pools".to_owned(),
        };
        let what = format!("no pool is called {}", quoted(&pool.value));
        let path = Path::Key(&Path::Root, "listeners");
        let path = Path::Key(&path, &listener.name.text);
        mistakes.add(
            pool.place,
            &Path::Key(&path, "pool"),
            Wrong::new(what, remedy),
        );
    }
    index
}

fn checked_listener(listener: &file::Listener, pool: PoolId) -> Listener {
    Listener {
        name: Arc::from(listener.name.text.as_str()),
        bind: listener
            .bind
            .iter()
            .flatten()
            .map(|bound| bound.value)
            .collect(),
        pool,
        idle_timeout: listener.idle_timeout.unwrap_or(IDLE_TIMEOUT),
        half_close_timeout: listener.half_close_timeout.unwrap_or(HALF_CLOSE_TIMEOUT),
    }
}

/// The pool with its defaults, and what is wrong inside it.
fn checked_pool(pool: &file::Pool, mistakes: &mut Mistakes) -> Option<Pool> {
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
        on_down: pool.on_down.unwrap_or_default(),
        health: health(pool.health.as_ref(), &Path::Key(&path, "health"), mistakes).map(Arc::new),
        servers: pool.servers.iter().flatten().map(checked_server).collect(),
    })
}

/// Names and addresses are there once, and one server at least can take a connection.
fn check_servers(pool: &file::Pool, path: &Path<'_>, mistakes: &mut Mistakes) {
    let path = Path::Key(path, "servers");
    let mut addresses: HashMap<SocketAddr, Place> = HashMap::new();
    let mut names: HashMap<Arc<str>, Place> = HashMap::new();
    for (index, server) in pool.servers.iter().enumerate() {
        let Some(server) = server else { continue };
        let path = Path::Item(&path, index);
        let address = server.address;
        if let Some(place) = addresses.insert(address.value, address.place) {
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
        address: server.address.value,
        weight: server.weight.unwrap_or(1),
        max_connections: server.max_connections,
        backup: server.backup.unwrap_or(false),
    }
}
