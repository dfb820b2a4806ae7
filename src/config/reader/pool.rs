//! The keys of a pool and of its servers.

use super::super::file::{Hash, Pool, Server};
use super::super::mistake::{Mistakes, Wrong};
use super::super::tree::{Key, Kind, Located, Node, Path, Section, items, value};
use super::super::{address, words};
use super::health::health;
use super::{count, plain};
use crate::address::Address;
use crate::balance::Algorithm;

const ALGORITHM: Algorithm = Algorithm::LeastConnections;

pub(super) fn pool(entry: &(Key, Node), path: &Path<'_>, mistakes: &mut Mistakes) -> Option<Pool> {
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
pub(in crate::config) fn server(
    node: &Node,
    path: &Path<'_>,
    mistakes: &mut Mistakes,
) -> Option<Server> {
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

fn server_address(
    node: &Node,
    path: &Path<'_>,
    mistakes: &mut Mistakes,
) -> Option<Located<Address>> {
    value(node, path, mistakes, |text| {
        address::server(text, node.place).map(Address::from)
    })
}
