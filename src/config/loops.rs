//! Pools that feed themselves: a connection that comes back to a listener is a connection to its pool
//! again, and so on until nothing is left to connect with.
//!
//! Knows the addresses as they are written; that a packet filter sends another address back here is
//! beyond it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::file::{self, File};
use super::mistake::{Mistakes, Place, Wrong};
use super::tree::{Located, Path};
use crate::address::Address;

/// From a pool by one of its servers to a listener, or from a listener to one of its pools.
#[derive(Debug)]
struct Edge {
    /// A node: pools come first, then listeners.
    target: usize,
    /// Which server, where it comes from a pool.
    server: Option<Server>,
}

/// A server that is a listener.
#[derive(Debug)]
struct Server {
    /// In its pool.
    index: usize,
    place: Place,
    address: Address,
}

/// How far the walk has come with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visit {
    Never,
    /// It is on the way from where the walk began to where it stands.
    Open,
    Done,
}

/// A node on the way, and where the walk goes on from it.
#[derive(Debug)]
struct Stop<'e> {
    node: usize,
    /// By which the walk came; `None` where it began.
    by: Option<&'e Server>,
    rest: std::slice::Iter<'e, Edge>,
}

/// What is known of each node.
#[derive(Debug)]
struct Known {
    visits: Vec<Visit>,
    /// Of a listener, the pool on the way at that time that it was found to lead to.
    back: Vec<Option<usize>>,
}

/// A server, and the way round from its pool: to the listener that it reaches, and on to a pool.
#[derive(Debug)]
struct Circle<'e> {
    pool: usize,
    server: &'e Server,
    listener: usize,
    target: usize,
}

/// Notes a server of each circle: the one that leads back to a pool that the walk has come from.
/// `ids` has the index of each pool by its name. Takes time in proportion to the file.
pub(super) fn check(file: &File, ids: &HashMap<&str, usize>, mistakes: &mut Mistakes) {
    let edges = edges(file, ids);
    let mut known = Known {
        visits: vec![Visit::Never; edges.len()],
        back: vec![None; edges.len()],
    };
    let enter = |node: usize, by| Stop {
        node,
        by,
        rest: edges[node].iter(),
    };
    // Not by recursion: ten thousand pools in a row are as many calls.
    let mut way = Vec::new();
    for start in 0..file.pools.len() {
        if known.visits[start] == Visit::Never {
            known.visits[start] = Visit::Open;
            way.push(enter(start, None));
        }
        while let Some(stop) = way.last_mut() {
            let Some(edge) = stop.rest.next() else {
                known.visits[stop.node] = Visit::Done;
                way.pop();
                continue;
            };
            if known.visits[edge.target] == Visit::Never {
                known.visits[edge.target] = Visit::Open;
                way.push(enter(edge.target, edge.server.as_ref()));
            } else if let Some(circle) = known.circle(&way, edge) {
                note(file, &circle, mistakes);
            }
        }
    }
}

impl Known {
    fn is_open(&self, node: usize) -> bool {
        self.visits[node] == Visit::Open
    }

    /// The circle that an edge from the end of the way closes, if it does.
    fn circle<'e>(&mut self, way: &[Stop<'e>], edge: &'e Edge) -> Option<Circle<'e>> {
        let last = way.last()?;
        let Some(server) = edge.server.as_ref() else {
            // From a listener, which is never where a walk begins. One way back is enough to say.
            let before = way.get(way.len().checked_sub(2)?)?;
            let back = &mut self.back[last.node];
            let is_first = back.is_none() && self.visits[edge.target] == Visit::Open;
            let target = is_first.then_some(edge.target)?;
            *back = Some(target);
            return Some(Circle {
                pool: before.node,
                server: last.by?,
                listener: last.node,
                target,
            });
        };
        let listener = edge.target;
        let target = if self.is_open(listener) {
            let at = way.iter().rposition(|stop| stop.node == listener)?;
            way.get(at + 1)?.node
        } else {
            // It is not walked through again for each server that leads there.
            self.back[listener].filter(|pool| self.is_open(*pool))?
        };
        Some(Circle {
            pool: last.node,
            server,
            listener,
            target,
        })
    }
}

/// For each pool its servers that are listeners, then for each listener its pools.
fn edges(file: &File, ids: &HashMap<&str, usize>) -> Vec<Vec<Edge>> {
    let mut listeners = HashMap::new();
    for (index, listener) in file.listeners.iter().enumerate() {
        for bound in listener.bind.iter().flatten() {
            let addresses = bound.value.addresses();
            listeners.extend(addresses.map(|address| (address, file.pools.len() + index)));
        }
    }
    let to_listener = |index: usize, place: Place, address: Address| {
        let target = reached(&address).find_map(|bound| listeners.get(&bound).copied())?;
        let server = Some(Server {
            index,
            place,
            address,
        });
        Some(Edge { target, server })
    };
    // What a name leads to is not known before it has been looked up.
    let of_item = |(index, server): (usize, &Option<file::Server>)| {
        let target = server.as_ref().map(|server| &server.address);
        let reached = target.into_iter().flat_map(|target| {
            let addresses = target.value.addresses();
            addresses.filter_map(|address| to_listener(index, target.place, address))
        });
        reached.collect::<Vec<_>>()
    };
    let of_pool = |pool: &file::Pool| {
        let servers = pool.servers.iter().enumerate();
        servers.flat_map(of_item).collect()
    };
    let to_pool = |name: &Located<String>| {
        let target = *ids.get(name.value.as_str())?;
        let server = None;
        Some(Edge { target, server })
    };
    let of_listener = |listener: &file::Listener| {
        let routes = listener.sni.iter().filter_map(|route| route.pool.as_ref());
        let names = listener.pool.iter().chain(routes);
        names.filter_map(to_pool).collect()
    };
    let pools = file.pools.iter().map(of_pool);
    pools
        .chain(file.listeners.iter().map(of_listener))
        .collect()
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

fn note(file: &File, circle: &Circle<'_>, mistakes: &mut Mistakes) {
    let pool = &file.pools[circle.pool].name.text;
    let listener = &file.listeners[circle.listener - file.pools.len()];
    let (address, listener) = (&circle.server.address, &listener.name.text);
    let what = if circle.target == circle.pool {
        format!("{address} is this pool's own listener {listener}")
    } else {
        let target = &file.pools[circle.target].name.text;
        format!("{address} is listener {listener}, whose pool {target} leads back to this one")
    };
    let path = Path::Key(&Path::Root, "pools");
    let path = Path::Key(&path, pool);
    let path = Path::Key(&path, "servers");
    let wrong = Wrong::new(what, "write another address or port");
    let place = circle.server.place;
    mistakes.add(place, &Path::Item(&path, circle.server.index), wrong);
}
