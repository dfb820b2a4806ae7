//! What the next start finds: the connections that go on, as a handover would bring them, and how many
//! cannot. Those are reset here and now, because nobody will ever say more on them.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use socket2::SockRef;

use super::record::{Cookies, Record};
use super::shelf::{Shelf, ShelfError};
use super::{MEMORY_NAME, SOCKET_NAME, proof};
use crate::clock::Now;
use crate::handover::world::{AdminState, World};
use crate::handover::{ConnectionState, PhaseState};
use crate::relay::FlowState;
use crate::sys::socket;

/// What a process that was killed has left.
#[derive(Debug, Default)]
pub struct Parked {
    /// Who is who by name, as that process had it; there is no descriptor to it.
    pub world: World,
    /// Those that go on: by that process's numbers, with the client's and the server's socket.
    pub connections: Vec<(ConnectionState, Vec<OwnedFd>)>,
    /// Which shelf they were on; the next one must have a higher number.
    pub generation: u64,
    /// What the shelves are called in the store, to be dropped once there is a new one.
    pub shelves: Vec<String>,
    /// Connections whose bytes are not all there, or of which only one socket is; reset.
    pub reset: usize,
}

/// Whether a descriptor that was passed by a service manager is one of those that were parked.
pub fn is_ours(name: &str) -> bool {
    name == SOCKET_NAME || name.starts_with(MEMORY_NAME)
}

type Sockets = HashMap<u64, OwnedFd>;

impl Parked {
    /// Reads what a store has given back.
    pub fn read(found: Vec<(String, OwnedFd)>, now: Now) -> Self {
        let mut parked = Self::default();
        let mut sockets = Sockets::new();
        let mut newest = None;
        for (name, descriptor) in found {
            if name != SOCKET_NAME {
                newest = newer(newest, Shelf::open(File::from(descriptor)), &name);
                parked.shelves.push(name);
            } else if let Ok(cookie) = socket::cookie(&descriptor) {
                sockets.insert(cookie, descriptor);
            }
        }
        if let Some(shelf) = newest {
            parked.generation = shelf.generation();
            if let Err(error) = parked.take_from(&shelf, &mut sockets, now) {
                log::warn!("connections of the process before cannot go on: {error}");
            }
        }
        parked.reset += pairs_of(sockets.len());
        sockets.values().for_each(reset);
        parked
    }

    /// Ends a connection that will not go on after all.
    pub fn reset_pair((_, sockets): &(ConnectionState, Vec<OwnedFd>)) {
        sockets.iter().for_each(reset);
    }

    fn take_from(
        &mut self,
        shelf: &Shelf,
        sockets: &mut Sockets,
        now: Now,
    ) -> Result<(), ShelfError> {
        let mut world = shelf.world()?;
        // All of these are bound anew.
        world.doors.clear();
        world.passed.clear();
        world.admin = AdminState::default();
        let known = Known::of(&world);
        self.world = world;
        for (record, cookies) in shelf.records() {
            let Some(pair) = take(sockets, cookies) else {
                continue;
            };
            match known
                .checked(record)
                .and_then(|record| state(&record, &pair, now))
            {
                Some(state) => self.connections.push((state, Vec::from(pair))),
                None => {
                    pair.iter().for_each(reset);
                    self.reset += 1;
                }
            }
        }
        Ok(())
    }
}

/// Numbers that names are known of.
struct Known {
    listeners: HashSet<u32>,
    pools: HashSet<u32>,
    servers: HashSet<u32>,
}

impl Known {
    fn of(world: &World) -> Self {
        Self {
            listeners: world.listeners.iter().map(|it| it.number).collect(),
            pools: world.pools.iter().map(|it| it.number).collect(),
            servers: world.servers.iter().map(|it| it.number).collect(),
        }
    }

    /// One that can be told whose it is. Its pool may be gone: it needs none any more.
    fn checked(&self, mut record: Record) -> Option<Record> {
        record.pool = record.pool.filter(|pool| self.pools.contains(pool));
        let is_known =
            self.listeners.contains(&record.listener) && self.servers.contains(&record.server);
        is_known.then_some(record)
    }
}

/// The one that counts: the last that was complete.
fn newer(before: Option<Shelf>, opened: Result<Shelf, ShelfError>, name: &str) -> Option<Shelf> {
    match opened {
        Ok(shelf) => {
            let is_newer = |before: &Shelf| shelf.generation() > before.generation();
            if before.as_ref().is_none_or(is_newer) {
                return Some(shelf);
            }
        }
        // The process before was killed at its start, and the one before that has left another.
        Err(ShelfError::Incomplete) => {}
        Err(error) => log::warn!("{name} cannot be read: {error}"),
    }
    before
}

/// Both or none: where one is missing, the other is left to be reset.
fn take(sockets: &mut Sockets, [client, server]: Cookies) -> Option<[OwnedFd; 2]> {
    if client == server || !sockets.contains_key(&server) {
        return None;
    }
    Some([sockets.remove(&client)?, sockets.remove(&server)?])
}

fn reset(socket: &OwnedFd) {
    // One whose two ways were ended in order has bytes on the way at most, which RST would take away.
    if socket::has_hung_up(socket) {
        return;
    }
    if let Err(error) = socket::disconnect(socket) {
        log::debug!("reset a connection of the process before: {error}");
    }
}

/// Of sockets that are left, mostly two are one connection's.
fn pairs_of(sockets: usize) -> usize {
    sockets.div_ceil(2)
}

/// As a handover would bring it; `None` where bytes are missing.
fn state(record: &Record, [client, server]: &[OwnedFd; 2], now: Now) -> Option<ConnectionState> {
    let proved = proof::delivered(client.as_fd(), server.as_fd(), record.ahead);
    let (upstream, downstream) = proved.ok().flatten()?;
    let flow = |delivered| FlowState {
        delivered,
        ..FlowState::default()
    };
    Some(ConnectionState {
        id: record.id,
        listener: record.listener,
        phase: PhaseState::Relaying,
        client: record.client,
        destination: record.destination,
        pool: record.pool,
        server: Some(record.server),
        has_server_socket: true,
        is_nagle_off: SockRef::from(server).tcp_nodelay().unwrap_or(false),
        upstream: flow(upstream),
        downstream: flow(downstream),
        accepted: record.accepted,
        picked: record.picked,
        connected: record.connected,
        active: now.as_nanoseconds(),
        source_bits: record.source_bits,
        // By what it did before, if it was at all; its end now says nothing about the server.
        is_judged: true,
        knows_ahead: true,
        given_ahead: record.ahead.given,
        taken_ahead: record.ahead.taken,
        is_parked: true,
        ..ConnectionState::default()
    })
}

#[cfg(test)]
mod tests;
