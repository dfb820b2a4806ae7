//! What a worker does so that its connections outlive the process, where that is wanted: once for each,
//! and nothing while bytes go.
//!
//! Only two TCP sockets can be proved to have lost nothing, so a connection with a unix socket at either
//! side is not parked.

use std::mem;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket};

use super::Worker;
use super::command::Setup;
use super::connection::{Connection, Phase};
use super::ending::Farewell;
use super::token::Key;
use crate::admission::Place;
use crate::clock::Now;
use crate::end::Side;
use crate::handover::ConnectionState;
use crate::park::{Ahead, KeptBy, Lot, Record, Slot, Store, exchanged_ahead};
use crate::sys;

/// The connections of a worker that are parked.
#[derive(Debug)]
pub(super) struct Parked {
    lot: Lot<Key>,
    is_kept_by_keeper: bool,
    /// By their slot in the worker's table.
    notes: Vec<Note>,
}

/// What is known of a connection beside itself.
#[derive(Clone, Copy, Debug, Default)]
struct Note {
    /// Its record.
    slot: Option<Slot>,
    /// PROXY headers, which its flows do not count.
    ahead: Ahead,
    /// Another process has begun it, and has not counted those.
    is_ahead_unknown: bool,
    /// Its sockets lie with somebody else as well: closing them ends nothing.
    is_parked: bool,
}

impl Parked {
    /// `None` where that is not wanted.
    pub(super) fn new(setup: &Setup, index: usize) -> Option<Self> {
        let parking = setup.parking.as_ref()?;
        Some(Self {
            lot: parking.lot(index),
            is_kept_by_keeper: parking.store.kept_by() == KeptBy::Keeper,
            notes: Vec::new(),
        })
    }

    /// How long until there is something to do.
    pub(super) fn patience(&self, now: Now) -> Option<Duration> {
        self.lot.patience(now)
    }

    /// As it goes over to another process.
    pub(super) fn tell(&self, key: Key, state: &mut ConnectionState) {
        let note = self.notes.get(key.slot as usize);
        let note = note.copied().unwrap_or_default();
        state.knows_ahead = !note.is_ahead_unknown;
        state.given_ahead = note.ahead.given;
        state.taken_ahead = note.ahead.taken;
        state.is_parked = note.is_parked && !self.lot.is_unsent(key);
    }

    fn note(&mut self, key: Key) -> &mut Note {
        let place = key.slot as usize;
        if place >= self.notes.len() {
            self.notes.resize(place + 1, Note::default());
        }
        &mut self.notes[place]
    }

    /// Whether there is a record of it now.
    fn write(&mut self, key: Key, connection: &Connection) -> bool {
        let Some([client, server]) = connection.to_park() else {
            return false;
        };
        let note = self.note(key);
        if note.is_ahead_unknown {
            let Some(ahead) = connection.exchanged_ahead([client, server]) else {
                return false;
            };
            (note.ahead, note.is_ahead_unknown) = (ahead, false);
        }
        let record = connection.record(note.ahead);
        let slot = self.lot.write(&record, client, server);
        self.note(key).slot = slot;
        slot.is_some()
    }
}

impl Worker {
    /// So many bytes go to its server before those of its client.
    pub(super) fn note_given_ahead(&mut self, key: Key, bytes: usize) {
        if let Some(parked) = &mut self.parked {
            parked.note(key).ahead.given = u16::try_from(bytes).unwrap_or(u16::MAX);
        }
    }

    /// So many bytes have come from its client that its server does not get.
    pub(super) fn note_taken_ahead(&mut self, key: Key, bytes: usize) {
        if let Some(parked) = &mut self.parked {
            parked.note(key).ahead.taken = u16::try_from(bytes).unwrap_or(u16::MAX);
        }
    }

    /// A connection has begun to relay.
    pub(super) fn park_later(&mut self, key: Key, now: Now) {
        if let Some(parked) = &mut self.parked {
            parked.lot.note(key, now);
        }
    }

    /// Parks those that have lived long enough, and sends what the store did not take before.
    pub(super) fn park(&mut self, now: Now) {
        let Some(parked) = &mut self.parked else {
            return;
        };
        while let Some(key) = parked.lot.next_due(now) {
            let connection = self.table.look_at(key);
            if let Some(connection) = connection.filter(|it| it.phase == Phase::Relaying)
                && parked.note(key).slot.is_none()
                && parked.write(key, connection)
            {
                parked.note(key).is_parked = true;
                parked.lot.send_soon(key);
            }
        }
        let table = &self.table;
        parked.lot.flush(|key| table.look_at(key)?.to_park());
    }

    /// One that another process has begun: its sockets may lie with somebody else already, but its record
    /// was that process's.
    pub(super) fn park_anew(&mut self, key: Key, past: ParkedState, now: Now) {
        let (Some(parked), Some(connection)) = (&mut self.parked, self.table.look_at(key)) else {
            return;
        };
        *parked.note(key) = Note {
            slot: None,
            ahead: past.ahead,
            is_ahead_unknown: past.is_ahead_unknown,
            is_parked: past.is_parked,
        };
        if past.is_parked {
            // A keeper may be another one than that which has it; systemd never is.
            if parked.write(key, connection) && parked.is_kept_by_keeper {
                parked.lot.send_soon(key);
            }
        } else if connection.phase == Phase::Relaying {
            parked.lot.note(key, now);
        }
    }

    /// Another store is there, which has nothing yet.
    pub(super) fn park_at(&mut self, store: Arc<Store>, now: Now) {
        let Some(parked) = &mut self.parked else {
            return;
        };
        parked.lot.begin_anew(store);
        for (key, connection) in self.table.all() {
            if parked.note(key).slot.is_some() {
                parked.lot.send_soon(key);
            } else if connection.phase == Phase::Relaying {
                parked.lot.note(key, now);
            }
        }
    }

    /// Tells the peers of a connection that is about to be closed, which closing alone does not do.
    pub(super) fn unpark(&mut self, key: Key, connection: &Connection, farewell: Farewell) {
        let Some(parked) = &mut self.parked else {
            return;
        };
        let note = mem::take(parked.note(key));
        if let Some(slot) = note.slot {
            parked.lot.ended(slot);
        }
        if note.is_parked {
            connection.end_for_good(farewell);
        }
    }
}

/// What another process has said of a connection's being parked.
#[derive(Clone, Copy, Debug)]
pub(super) struct ParkedState {
    ahead: Ahead,
    is_ahead_unknown: bool,
    is_parked: bool,
}

impl ParkedState {
    pub(super) fn of(state: &ConnectionState) -> Self {
        Self {
            ahead: Ahead {
                given: state.given_ahead,
                taken: state.taken_ahead,
            },
            is_ahead_unknown: !state.knows_ahead,
            is_parked: state.is_parked,
        }
    }
}

impl Connection {
    /// Ends it for its peers, however many descriptors of its sockets there are.
    fn end_for_good(&self, farewell: Farewell) {
        for socket in [Side::Client, Side::Server].map(|side| self.socket(side)) {
            let told = socket.map(|socket| match farewell {
                Farewell::Fin => socket.shutdown(Shutdown::Both),
                Farewell::Reset => sys::socket::disconnect(socket),
            });
            // ENOTCONN: its peer has ended it meanwhile.
            if let Some(Err(error)) = told {
                log::debug!("end a parked connection: {error}");
            }
        }
    }

    /// What went beside the bytes of its flows, as the kernel has counted it.
    fn exchanged_ahead(&self, [client, server]: [BorrowedFd<'_>; 2]) -> Option<Ahead> {
        let flows = [&self.upstream, &self.downstream].map(|flow| flow.freeze().0);
        let [upstream, downstream] = &flows;
        exchanged_ahead(client, server, [upstream, downstream])
            .ok()
            .flatten()
    }

    /// What the next process has to know of it.
    fn record(&self, ahead: Ahead) -> Record {
        let number = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
        Record {
            id: self.id.0,
            listener: number(self.listener.index()),
            pool: self.pool.map(|pool| number(pool.index())),
            server: self
                .server
                .map_or(u32::MAX, |server| number(server.index())),
            client: self.client_address.ip_port(),
            destination: self.destination.as_deref().copied(),
            source_bits: self.marks.place.map(Place::bits),
            accepted: self.times.accepted.as_nanoseconds(),
            picked: self.times.picked.as_nanoseconds(),
            connected: self.times.connected.as_nanoseconds(),
            ahead,
        }
    }

    /// Both sockets, if they are such as can be parked.
    fn to_park(&self) -> Option<[BorrowedFd<'_>; 2]> {
        let server = &self.server_socket.as_ref()?.socket;
        let is_tcp = |socket: &Socket| socket.domain().is_ok_and(|domain| domain != Domain::UNIX);
        let pair = [&self.client, server];
        pair.iter()
            .all(|it| is_tcp(it))
            .then(|| pair.map(|it| it.as_fd()))
    }
}
