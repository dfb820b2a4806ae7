//! Pools that feed themselves: a connection that comes back to a listener is a connection to its pool
//! again, and so on until nothing is left to connect with.
//!
//! Knows the addresses as they are written; that a packet filter sends another address back here is
//! beyond it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::file::{self, File};
use super::mistake::{Mistakes, Place, Wrong};
use super::tree::Path;
use crate::address::Address;

/// A server that is a listener of a pool.
#[derive(Debug)]
struct Edge<'f> {
    /// In its pool.
    index: usize,
    place: Place,
    address: Address,
    listener: &'f file::Listener,
    /// The pool that the listener leads to.
    target: usize,
}

/// How far the walk has come with a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visit {
    Never,
    /// It is on the way from where the walk began to where it stands.
    Open,
    Done,
}

/// Notes a server of each circle: the one that leads back to a pool that the walk has come from.
/// `ids` has the index of each pool by its name. Takes time in proportion to the file.
pub(super) fn check(file: &File, ids: &HashMap<&str, usize>, mistakes: &mut Mistakes) {
    let edges = edges(file, ids);
    let mut visits = vec![Visit::Never; file.pools.len()];
    // Not by recursion: ten thousand pools in a row are as many calls.
    let mut way = Vec::new();
    for start in 0..file.pools.len() {
        if visits[start] == Visit::Never {
            visits[start] = Visit::Open;
            way.push((start, edges[start].iter()));
        }
        while let Some((pool, rest)) = way.last_mut() {
            let Some(edge) = rest.next() else {
                visits[*pool] = Visit::Done;
                way.pop();
                continue;
            };
            match visits[edge.target] {
                Visit::Never => {
                    visits[edge.target] = Visit::Open;
                    way.push((edge.target, edges[edge.target].iter()));
                }
                Visit::Open => note(edge, *pool, &file.pools, mistakes),
                Visit::Done => {}
            }
        }
    }
}

/// For each pool, its servers that are listeners.
fn edges<'f>(file: &'f File, ids: &HashMap<&str, usize>) -> Vec<Vec<Edge<'f>>> {
    let mut listeners = HashMap::new();
    for listener in &file.listeners {
        let target = listener.pool.as_ref().map(|pool| pool.value.as_str());
        let Some(target) = target.and_then(|name| ids.get(name).copied()) else {
            continue;
        };
        for address in listener.bind.iter().flatten() {
            listeners.insert(address.value.clone(), (listener, target));
        }
    }
    let edge = |index: usize, place: Place, address: Address| {
        let found = reached(&address).find_map(|bound| listeners.get(&bound));
        let (listener, target) = *found?;
        Some(Edge {
            index,
            place,
            address,
            listener,
            target,
        })
    };
    // What a name leads to is not known before it has been looked up.
    let edges_at = |(index, server): (usize, &'f Option<file::Server>)| {
        let target = server.as_ref().map(|server| &server.address);
        let addresses =
            target.map(|target| target.value.addresses().map(|one| (target.place, one)));
        let addresses = addresses.into_iter().flatten();
        addresses.filter_map(move |(place, address)| edge(index, place, address))
    };
    let edges_of =
        |pool: &'f file::Pool| pool.servers.iter().enumerate().flat_map(edges_at).collect();
    file.pools.iter().map(edges_of).collect()
}

/// The addresses of listeners that a connection to `target` would reach, in words of `bind`. Of those that a wildcard
/// stands for, only loopback is known here.
pub fn reached(target: &Address) -> impl Iterator<Item = Address> {
    let loopback = target.ip().filter(|target| target.ip().is_loopback());
    let wildcard = loopback.map(|target| match target {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, target.port())),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, target.port())),
    });
    std::iter::once(target.clone()).chain(wildcard.map(Address::from))
}

fn note(edge: &Edge<'_>, pool: usize, pools: &[file::Pool], mistakes: &mut Mistakes) {
    let (address, listener) = (&edge.address, &edge.listener.name.text);
    let what = if edge.target == pool {
        format!("{address} is this pool's own listener {listener}")
    } else {
        let target = &pools[edge.target].name.text;
        format!("{address} is listener {listener}, whose pool {target} leads back to this one")
    };
    let path = Path::Key(&Path::Root, "pools");
    let path = Path::Key(&path, &pools[pool].name.text);
    let path = Path::Key(&path, "servers");
    let wrong = Wrong::new(what, "write another address or port");
    mistakes.add(edge.place, &Path::Item(&path, edge.index), wrong);
}
