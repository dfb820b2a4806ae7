//! The servers: one thread with one loop for all of them, behind real sockets.
//!
//! A kill closes the listening socket and resets what is open; a revival listens at the same port,
//! which `Place` has held meanwhile. Wishes come through the dials, followed by a wake. The loop
//! knows nothing of HTTP and nothing of the load.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::dials::{Dials, server_name};
use super::guest::{Guest, Next};
use super::place::Place;
use super::{WAKE, wait};
use crate::clock::Now;
use crate::timers::Timers;

/// Events taken in one poll.
const EVENTS: usize = 256;
/// Connections to all servers; what comes beyond is closed at once.
const GUESTS_MAX: usize = 8192;
/// A connection on which nothing is asked for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How soon an accept is tried again that failed for want of descriptors.
const RETRY: Duration = Duration::from_millis(50);
/// Read at once; requests are far smaller.
const BUFFER_BYTES: usize = 4096;

/// One server's door.
#[derive(Debug)]
struct Door {
    place: Place,
    name: String,
    /// Open while the server is alive.
    listener: Option<TcpListener>,
    /// An accept has failed, and no edge will tell when it could succeed.
    is_behind: bool,
}

/// The loop's state.
pub(super) struct Servers {
    poll: Poll,
    dials: Arc<Dials>,
    /// In the order of the dials. The token of a door is its index and 1.
    doors: Vec<Door>,
    /// The token of a guest is its key and 1 and the number of doors.
    guests: Slab<Guest>,
    /// By the guests' keys: the delay of an answer, else the idle timeout.
    timers: Timers,
    buffer: Box<[u8]>,
}

impl Servers {
    /// Listens at all places.
    pub(super) fn new(poll: Poll, dials: Arc<Dials>, places: Vec<Place>) -> io::Result<Self> {
        let door = |(index, place)| Door {
            place,
            name: server_name(index),
            listener: None,
            is_behind: false,
        };
        let mut servers = Self {
            poll,
            dials,
            doors: places.into_iter().enumerate().map(door).collect(),
            guests: Slab::new(),
            timers: Timers::new(Now::read()),
            buffer: vec![0; BUFFER_BYTES].into(),
        };
        for index in 0..servers.doors.len() {
            servers.open(index)?;
        }
        Ok(servers)
    }

    /// Turns until the dials say that it is over.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.dials.is_ending() {
            let mut rest = self.timers.next(Now::read());
            if self.doors.iter().any(|door| door.is_behind) {
                rest = Some(rest.map_or(RETRY, |rest| rest.min(RETRY)));
            }
            wait(&mut self.poll, &mut events, rest)?;
            self.turn(&events, Now::read());
        }
        Ok(())
    }

    fn turn(&mut self, events: &Events, now: Now) {
        self.heed_dials();
        for event in events {
            match event.token() {
                WAKE => {}
                Token(token) if token <= self.doors.len() => self.accept(token - 1, now),
                Token(token) => self.advance(token - 1 - self.doors.len(), now),
            }
        }
        for index in 0..self.doors.len() {
            if self.doors[index].is_behind {
                self.accept(index, now);
            }
        }
        while let Some(key) = self.timers.expire(now) {
            self.expire(key as usize, now);
        }
    }

    /// Kills and revives.
    fn heed_dials(&mut self) {
        for index in 0..self.doors.len() {
            let is_open = self.doors[index].listener.is_some();
            match (self.dials.servers[index].is_alive(), is_open) {
                (true, false) => self.revive(index),
                (false, true) => self.kill(index),
                _ => {}
            }
        }
    }

    fn revive(&mut self, index: usize) {
        if let Err(error) = self.open(index) {
            // The port is held, so only descriptors or memory can be missing.
            let name = &self.doors[index].name;
            log::warn!("demo: cannot revive {name}: {error}; try again");
            self.dials.servers[index].turn_alive(false);
        }
    }

    fn open(&mut self, index: usize) -> io::Result<()> {
        let door = &mut self.doors[index];
        let mut listener = door.place.listen()?;
        let registry = self.poll.registry();
        registry.register(&mut listener, Token(index + 1), Interest::READABLE)?;
        door.listener = Some(listener);
        Ok(())
    }

    fn kill(&mut self, index: usize) {
        // With the socket go the connections that were not accepted yet: the kernel resets them.
        self.doors[index].listener = None;
        self.doors[index].is_behind = false;
        let guests = self.guests.iter();
        let its = guests.filter(|(_, guest)| guest.server == index);
        let keys: Vec<_> = its.map(|(key, _)| key).collect();
        for key in keys {
            if let Some(guest) = self.remove(key) {
                guest.reset();
            }
        }
    }

    /// Takes all that wait at a door.
    fn accept(&mut self, index: usize, now: Now) {
        loop {
            let door = &mut self.doors[index];
            // An event of a door that was shut in this turn.
            let Some(listener) = &door.listener else {
                return;
            };
            match listener.accept() {
                Ok((stream, _)) => self.admit(stream, index, now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    door.is_behind = false;
                    return;
                }
                // ECONNABORTED: that client has gone, the next may be there.
                Err(error) if is_passing(&error) => {}
                Err(_) => {
                    door.is_behind = true;
                    return;
                }
            }
        }
    }

    fn admit(&mut self, mut stream: TcpStream, server: usize, now: Now) {
        if self.guests.len() >= GUESTS_MAX {
            return;
        }
        let token = Token(self.guests.vacant_key() + 1 + self.doors.len());
        let both = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        // Without an event nothing could be served: the connection is closed.
        if registry.register(&mut stream, token, both).is_ok() {
            let key = self.guests.insert(Guest::new(stream, server));
            self.arm(key, now + IDLE_TIMEOUT);
        }
    }

    /// An event may be meant for an earlier guest of the same key: then there is nothing to read.
    fn advance(&mut self, key: usize, now: Now) {
        let Some(guest) = self.guests.get_mut(key) else {
            return;
        };
        let (dials, name) = (
            &self.dials.servers[guest.server],
            &self.doors[guest.server].name,
        );
        let next = guest.advance(dials, name, &mut self.buffer);
        self.go_on(key, next, now);
    }

    fn expire(&mut self, key: usize, now: Now) {
        let Some(guest) = self.guests.get_mut(key) else {
            return;
        };
        let (dials, name) = (
            &self.dials.servers[guest.server],
            &self.doors[guest.server].name,
        );
        let next = if guest.is_delayed() {
            guest.answer_delayed(dials, name)
        } else {
            Next::Over
        };
        self.go_on(key, next, now);
    }

    fn go_on(&mut self, key: usize, next: Next, now: Now) {
        match next {
            Next::Delay(delay) => self.arm(key, now + delay),
            Next::Over => drop(self.remove(key)),
            // Its timer is that of the answer that waits, and stays.
            Next::Wait if self.guests[key].is_delayed() => {}
            Next::Wait => self.arm(key, now + IDLE_TIMEOUT),
        }
    }

    fn arm(&mut self, key: usize, at: Now) {
        let key = u32::try_from(key).expect("keys are below GUESTS_MAX");
        self.timers.arm(key, at);
    }

    fn remove(&mut self, key: usize) -> Option<Guest> {
        let guest = self.guests.try_remove(key)?;
        self.timers
            .disarm(u32::try_from(key).expect("keys are below GUESTS_MAX"));
        Some(guest)
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::Interrupted
    )
}
