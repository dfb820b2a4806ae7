//! From a tree of values to what the user wrote: each key is read as its type and checked against its
//! range, and what cannot be read is noted and left out.
//!
//! One value at a time. What depends on two values, and nearly every default, is [`super::check`]'s
//! business; a default is filled in here where a later check must tell a value that is absent from
//! one that could not be read.

mod health;
mod listener;
mod pool;
mod server;
mod tcp;

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};

use self::listener::listener;
use self::pool::pool;
pub(super) use self::server::server;
use super::file::{Admin, File, Log, ReadyWhen};
use super::mistake::{Mistakes, Place, Wrong};
use super::tree::{Key, Kind, Located, Node, Path, Section, entries, items, value};
use super::{address, words};

/// More event loops than any machine has cores for.
const WORKERS_MAX: usize = 1024;

/// Reads the whole tree and notes what cannot be read.
pub(super) fn read(root: &Node, mistakes: &mut Mistakes) -> Option<File> {
    if let Kind::Nothing = root.kind {
        let wrong = Wrong::new("the file is empty", "write the keys listeners and pools");
        mistakes.add(Place::START, &Path::Root, wrong);
        return None;
    }
    let mut top = Section::open(root, Place::START, &Path::Root, mistakes)?;
    let most = NonZeroUsize::new(WORKERS_MAX).expect("it is not zero");
    let workers = top.value("workers", mistakes, |text| {
        words::word_or("auto", text, |text| {
            words::number(text, NonZeroUsize::MIN..=most)
        })
    });
    let max_connections = top.value("max_connections", mistakes, |text| {
        words::word_or("auto", text, count)
    });
    let shutdown_timeout = plain(top.value("shutdown_timeout", mistakes, words::duration));
    let survive_restart = plain(top.value("survive_restart", mistakes, words::truth));
    let ready_when = ready_when(&mut top, mistakes);
    let admin = admin(&mut top, mistakes);
    let log = top.entry("log").and_then(|entry| log(entry, mistakes));
    let listeners = named("listeners", "listener", &mut top, mistakes, listener);
    let pools = named("pools", "pool", &mut top, mistakes, pool);
    top.close(mistakes);
    Some(File {
        workers: plain(workers).flatten(),
        max_connections: plain(max_connections).flatten(),
        shutdown_timeout,
        survive_restart,
        ready_when,
        admin: admin.unwrap_or_default(),
        log: log.unwrap_or_default(),
        listeners,
        pools,
    })
}

/// Without its place.
fn plain<T>(located: Option<Located<T>>) -> Option<T> {
    located.map(|located| located.value)
}

/// Connections: at least one, because none would be a server or a process without use.
pub(super) fn count(text: &str) -> Result<NonZeroU32, Wrong> {
    words::number(text, NonZeroU32::MIN..=NonZeroU32::MAX)
}

/// A word, or a list of pools. Whether there are such pools is seen later.
fn ready_when(top: &mut Section<'_>, mistakes: &mut Mistakes) -> Option<ReadyWhen> {
    let path = Path::Key(top.path, "ready_when");
    let node = top.node("ready_when")?;
    let Kind::List(list) = &node.kind else {
        return plain(value(node, &path, mistakes, words::ready_when));
    };
    if list.is_empty() {
        let remedy = "write all_pools, any_pool or the names of some";
        mistakes.add(node.place, &path, Wrong::new("there is no pool", remedy));
    }
    let items = list.iter().enumerate();
    let names = items
        .map(|(index, item)| value(item, &Path::Item(&path, index), mistakes, words::reference));
    Some(ReadyWhen::Pools(names.collect()))
}

/// The section `admin`; absent is the same as no keys.
fn admin(top: &mut Section<'_>, mistakes: &mut Mistakes) -> Option<Admin> {
    let path = Path::Key(&Path::Root, "admin");
    let Some((key, node)) = top.entry("admin") else {
        return Some(admin_keys(Section::empty(top.place, &path), mistakes));
    };
    let section = Section::open(node, key.place, &path, mistakes)?;
    Some(admin_keys(section, mistakes))
}

fn admin_keys(mut section: Section<'_>, mistakes: &mut Mistakes) -> Admin {
    let admin = Admin {
        socket: plain(section.value("socket", mistakes, words::socket)),
        http: admin_http(&mut section, mistakes),
        http_hosts: http_hosts(&mut section, mistakes),
        http_token_file: section.value("http_token_file", mistakes, words::path),
    };
    section.close(mistakes);
    admin
}

/// `off`, which is also the default, or an address.
fn admin_http(
    section: &mut Section<'_>,
    mistakes: &mut Mistakes,
) -> Option<Located<Option<SocketAddr>>> {
    let place = section.node_place("http");
    section.value_or("http", None, mistakes, |text| {
        words::word_or("off", text, |text| address::admin(text, place))
    })
}

/// A list of names, without those that could not be read.
fn http_hosts(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Option<Located<Vec<String>>> {
    let (key, node) = section.entry("http_hosts")?;
    let path = Path::Key(section.path, &key.text);
    let hosts = items(node, &path, mistakes)?.iter().enumerate();
    let read_one = |(index, item)| value(item, &Path::Item(&path, index), mistakes, words::host);
    Some(Located {
        place: node.place,
        value: hosts.filter_map(read_one).map(|host| host.value).collect(),
    })
}

/// The section `log`, which may be absent as a whole.
fn log(entry: &(Key, Node), mistakes: &mut Mistakes) -> Option<Log> {
    let (key, node) = entry;
    let path = Path::Key(&Path::Root, &key.text);
    let mut section = Section::open(node, key.place, &path, mistakes)?;
    let log = Log {
        level: plain(section.value("level", mistakes, words::level)),
        access: plain(section.value("access", mistakes, words::access)),
        format: plain(section.value("format", mistakes, words::format)),
    };
    section.close(mistakes);
    Some(log)
}

/// Reads a required map from names to things of one kind.
fn named<T>(
    key: &'static str,
    kind: &str,
    top: &mut Section<'_>,
    mistakes: &mut Mistakes,
    read: fn(&(Key, Node), &Path<'_>, &mut Mistakes) -> Option<T>,
) -> Vec<T> {
    let example = format!("and each {kind}'s name and keys under it");
    let Some((key, node)) = top.required(key, &example, mistakes) else {
        return Vec::new();
    };
    let path = Path::Key(&Path::Root, &key.text);
    let entries = entries(node, &path, mistakes).unwrap_or_default();
    if let Kind::Map(all) = &node.kind
        && all.is_empty()
    {
        let what = format!("there is no {kind}");
        mistakes.add(node.place, &path, Wrong::new(what, "write at least one"));
    }
    let read_one = |entry: &(Key, Node)| {
        let path = Path::Key(&path, &entry.0.text);
        if let Err(wrong) = words::name(&entry.0.text) {
            mistakes.add(entry.0.place, &path, wrong);
        }
        read(entry, &path, mistakes)
    };
    entries.into_iter().filter_map(read_one).collect()
}
