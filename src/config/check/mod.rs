//! From what the user wrote to what can run: defaults are filled in, names become ids, and whatever
//! depends on more than one value is checked. Every mistake is noted; nothing stops at the first.
//!
//! `None` means that a mistake has been noted, here or in [`super::reader`]: a check that rests on
//! such a value is left out, so that one slip is one message.

mod addresses;
mod listener;
mod pool;
mod server;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use self::addresses::check_addresses;
pub(super) use self::listener::HEADER_TIMEOUT;
use self::listener::{Pools, checked_listener};
use self::pool::checked_pool;
pub(super) use self::server::{Seen, checked_servers};
use super::file::{self, File};
use super::loops;
use super::mistake::{Mistakes, Place, Wrong};
use super::tree::Path;
use super::{AccessLog, Admin, Config, Log, LogFormat, ReadyWhen};

/// Each opens a socket in every worker.
const ADDRESSES_MAX: usize = 10_000;
/// Each has a row of counters in every worker.
const POOLS_MAX: usize = 10_000;
/// Over all pools: each is probed, and has a row of counters in every worker.
pub const SERVERS_MAX: usize = 100_000;

const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

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
    let names = Pools {
        ids: &ids,
        pools: &file.pools,
    };
    let ready_when = checked_ready_when(file.ready_when.as_ref(), &names, mistakes);
    let listeners = file
        .listeners
        .iter()
        .filter_map(|listener| checked_listener(listener, &names, mistakes))
        .collect();
    let pools = file
        .pools
        .iter()
        .filter_map(|pool| checked_pool(pool, mistakes))
        .collect();
    Some(Config {
        workers: file.workers,
        max_connections: file.max_connections,
        shutdown_timeout: file.shutdown_timeout.unwrap_or(SHUTDOWN_TIMEOUT),
        survive_restart: file.survive_restart.unwrap_or(false),
        ready_when,
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
    let bound = file.listeners.iter().flat_map(|one| &one.bind);
    // What could not be read counts as well: a list of nothing else takes as long.
    let addresses = bound
        .map(|bound| bound.as_ref().map_or(1, |bound| bound.value.count()))
        .sum();
    // An item that could not be read counts as well: what there is too much of must not depend on it.
    let servers = file.pools.iter().flat_map(|pool| &pool.servers);
    let servers = servers
        .map(|server| server.as_ref().map_or(1, servers_of))
        .sum();
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

/// A name is one at least: each costs as much as a server while nothing is found.
fn servers_of(server: &file::Server) -> usize {
    server.address.value.count().max(1)
}

/// Notes each name that is no pool's.
fn checked_ready_when(
    written: Option<&file::ReadyWhen>,
    pools: &Pools<'_>,
    mistakes: &mut Mistakes,
) -> ReadyWhen {
    let names = match written {
        None | Some(file::ReadyWhen::AllPools) => return ReadyWhen::AllPools,
        Some(file::ReadyWhen::AnyPool) => return ReadyWhen::AnyPool,
        Some(file::ReadyWhen::Pools(names)) => names,
    };
    let path = Path::Key(&Path::Root, "ready_when");
    for (index, name) in names.iter().enumerate() {
        if let Some(name) = name {
            pools.id(name, &Path::Item(&path, index), mistakes);
        }
    }
    let names = names.iter().flatten();
    ReadyWhen::Pools(names.map(|name| name.value.as_str().into()).collect())
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
