//! From a tree of values to what the user wrote: each key is read as its type and checked against its
//! range, and what cannot be read is noted and left out.
//!
//! One value at a time. What depends on two values, and nearly every default, is [`super::check`]'s
//! business; a default is filled in here where a later check must tell a value that is absent from
//! one that could not be read.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::file::{Admin, CheckKind, File, Hash, Health, HealthKeys, Listener, Log, Pool, Server};
use super::mistake::{Mistakes, Place, Wrong, quoted};
use super::tree::{Key, Kind, Located, Node, Path, Section, entries, items, value};
use super::{address, words};
use crate::balance::Algorithm;

/// More event loops than any machine has cores for.
const WORKERS_MAX: usize = 1024;
const ALGORITHM: Algorithm = Algorithm::LeastConnections;
const INTERVAL: Duration = Duration::from_secs(5);
/// Answers in a row: at the default interval, a thousand are more than an hour.
const TIMES_MAX: NonZeroU32 = NonZeroU32::new(1000).expect("it is not zero");

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
    let admin = admin(&mut top, mistakes);
    let log = top.entry("log").and_then(|entry| log(entry, mistakes));
    let listeners = named("listeners", "listener", &mut top, mistakes, listener);
    let pools = named("pools", "pool", &mut top, mistakes, pool);
    top.close(mistakes);
    Some(File {
        workers: plain(workers).flatten(),
        max_connections: plain(max_connections).flatten(),
        shutdown_timeout,
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
fn count(text: &str) -> Result<NonZeroU32, Wrong> {
    words::number(text, NonZeroU32::MIN..=NonZeroU32::MAX)
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

fn listener(entry: &(Key, Node), path: &Path<'_>, mistakes: &mut Mistakes) -> Option<Listener> {
    let (name, node) = entry;
    let mut section = Section::open(node, name.place, path, mistakes)?;
    let listener = Listener {
        name: name.clone(),
        bind: bind(&mut section, mistakes),
        pool: pool_name(&mut section, mistakes),
        idle_timeout: plain(section.value("idle_timeout", mistakes, words::timeout)),
        half_close_timeout: plain(section.value("half_close_timeout", mistakes, words::timeout)),
    };
    section.close(mistakes);
    Some(listener)
}

/// One address, or a list of them.
fn bind(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Vec<Option<Located<SocketAddr>>> {
    let Some((key, node)) = section.required("bind", "0.0.0.0:5432", mistakes) else {
        return Vec::new();
    };
    let path = Path::Key(section.path, &key.text);
    let Kind::List(list) = &node.kind else {
        return vec![bind_address(node, &path, mistakes)];
    };
    if list.is_empty() {
        let wrong = Wrong::new("there is no address", "write at least one");
        mistakes.add(node.place, &path, wrong);
    }
    let read_one = |(index, item)| bind_address(item, &Path::Item(&path, index), mistakes);
    list.iter().enumerate().map(read_one).collect()
}

fn bind_address(
    node: &Node,
    path: &Path<'_>,
    mistakes: &mut Mistakes,
) -> Option<Located<SocketAddr>> {
    value(node, path, mistakes, |text| address::bind(text, node.place))
}

fn server_address(
    node: &Node,
    path: &Path<'_>,
    mistakes: &mut Mistakes,
) -> Option<Located<SocketAddr>> {
    value(node, path, mistakes, |text| {
        address::server(text, node.place)
    })
}

/// Whether there is such a pool is seen later: it may stand further down.
fn pool_name(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Option<Located<String>> {
    let (key, node) = section.required("pool", "and the name of a pool", mistakes)?;
    let path = Path::Key(section.path, &key.text);
    value(node, &path, mistakes, words::reference)
}

fn pool(entry: &(Key, Node), path: &Path<'_>, mistakes: &mut Mistakes) -> Option<Pool> {
    let (name, node) = entry;
    let Some(mut section) = Section::open(node, name.place, path, mistakes) else {
        return Some(Pool::unreadable(name));
    };
    let retries = |text: &str| words::number(text, 0..=16);
    let pool = Pool {
        name: name.clone(),
        algorithm: plain(section.value_or("algorithm", ALGORITHM, mistakes, words::algorithm)),
        hash: hash(&mut section, mistakes),
        connect_timeout: plain(section.value("connect_timeout", mistakes, words::timeout)),
        retries: plain(section.value("retries", mistakes, retries)),
        on_down: plain(section.value("on_down", mistakes, words::on_down)),
        health: health(&mut section, mistakes),
        servers: servers(&mut section, mistakes),
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

/// `off`, or keys; absent is the same as no keys.
fn health(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Option<Health> {
    let path = Path::Key(section.path, "health");
    let Some((key, node)) = section.entry("health") else {
        let absent = Section::empty(section.place, &path);
        return Some(Health::On(Box::new(health_keys(absent, mistakes))));
    };
    match &node.kind {
        Kind::Text(text) if text == "off" => Some(Health::Off),
        Kind::Text(text) => {
            let what = format!("{} is not a health check", quoted(text));
            let remedy = format!("write off, or type: {text} on a line of its own below");
            let is_type = CheckKind::ALL.iter().any(|kind| kind.name() == text);
            let remedy = if is_type {
                &remedy
            } else {
                "write off, or keys such as type: http"
            };
            mistakes.add(node.place, &path, Wrong::new(what, remedy));
            None
        }
        _ => {
            let section = Section::open(node, key.place, &path, mistakes)?;
            Some(Health::On(Box::new(health_keys(section, mistakes))))
        }
    }
}

fn health_keys(mut section: Section<'_>, mistakes: &mut Mistakes) -> HealthKeys {
    let host = |text: &str| words::http_word(text, 255);
    let times = |text: &str| words::number(text, NonZeroU32::MIN..=TIMES_MAX);
    let port = |text: &str| words::number(text, 1..=u16::MAX);
    let kind = section.value_or("type", CheckKind::Tcp, mistakes, check_kind);
    let needs_expect = kind.is_some_and(|kind| kind.value == CheckKind::SendExpect);
    if needs_expect && !section.has("expect") {
        let wrong = Wrong::new("the key expect is missing", "write expect: and the answer");
        mistakes.add(section.place, section.path, wrong);
    }
    let keys = HealthKeys {
        kind,
        path: section.value("path", mistakes, words::http_path),
        host: section.value("host", mistakes, host),
        expect_status: section.value("expect_status", mistakes, words::status_list),
        expect_body: section.value("expect_body", mistakes, words::content),
        send: section.value("send", mistakes, words::content),
        expect: section.value("expect", mistakes, words::content),
        interval: plain(section.value_or("interval", INTERVAL, mistakes, words::interval)),
        timeout: plain(section.value("timeout", mistakes, words::timeout)),
        rise: plain(section.value("rise", mistakes, times)),
        fall: plain(section.value("fall", mistakes, times)),
        port: plain(section.value("port", mistakes, port)),
    };
    section.close(mistakes);
    keys
}

fn check_kind(text: &str) -> Result<CheckKind, Wrong> {
    let found = CheckKind::ALL.into_iter().find(|kind| kind.name() == text);
    found.ok_or_else(|| {
        let names = CheckKind::ALL.map(CheckKind::name);
        words::unknown_word(text, "a type of check", &names)
    })
}

/// One entry for each item, `None` for what could not be read.
fn servers(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Vec<Option<Server>> {
    let example = "and a list of addresses under it";
    let Some((key, node)) = section.required("servers", example, mistakes) else {
        return Vec::new();
    };
    let path = Path::Key(section.path, &key.text);
    let list = items(node, &path, mistakes);
    if list.is_some_and(<[Node]>::is_empty) {
        let wrong = Wrong::new("there is no server", "write at least one address");
        mistakes.add(node.place, &path, wrong);
    }
    let read_one = |(index, item)| server(item, &Path::Item(&path, index), mistakes);
    list.unwrap_or_default()
        .iter()
        .enumerate()
        .map(read_one)
        .collect()
}

/// An address, or keys of its own.
fn server(node: &Node, path: &Path<'_>, mistakes: &mut Mistakes) -> Option<Server> {
    if let Kind::Text(_) = node.kind {
        return Some(Server {
            name: None,
            address: server_address(node, path, mistakes)?,
            weight: None,
            max_connections: None,
            backup: None,
        });
    }
    let mut section = Section::open(node, node.place, path, mistakes)?;
    let name = section.value("name", mistakes, words::name);
    let address = section.required("address", "10.0.0.11:5432", mistakes);
    let weight = section.value("weight", mistakes, words::weight);
    let max_connections = section.value("max_connections", mistakes, count);
    let backup = section.value("backup", mistakes, words::truth);
    let path = Path::Key(path, "address");
    let address = address.and_then(|(_, node)| server_address(node, &path, mistakes));
    section.close(mistakes);
    Some(Server {
        name,
        address: address?,
        weight: plain(weight),
        max_connections: plain(max_connections),
        backup: plain(backup),
    })
}
