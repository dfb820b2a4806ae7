//! At the door: accepting, refusing, giving a connection to another worker, and pausing while
//! descriptors are short.

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use socket2::Socket;

use super::connection::{Connection, Marks, Phase, Times};
use super::door::{Door, Knock};
use super::token::{About, Key};
use super::{BOTH_WAYS, Command, DoorId, DoorSocket, State, Worker};
use crate::address::Peer;
use crate::admission::Place;
use crate::clock::{self, Now};
use crate::config::Tcp;
use crate::end::{End, Side};
use crate::ids::{ConnectionId, ListenerId};
use crate::relay::Flow;
use crate::sys::socket;
use crate::telemetry::access_log::Record;

/// Connections accepted at a door before it closes for good.
const LAST_CALL_BUDGET: usize = 4096;
/// How long accepting pauses when descriptors or memory are short (HAProxy 100 ms, nginx 500 ms).
const PAUSE: Duration = Duration::from_millis(100);
/// How long this node counts as short after a pause: several pauses long, so that a shortage that lasts
/// is one and not many.
const SHORT: Duration = Duration::from_secs(1);
const _: () = assert!(SHORT.as_millis() > 2 * PAUSE.as_millis());
/// A lasting shortage is logged this often, not at each pause.
const PAUSES_TOLD: Duration = Duration::from_secs(10);

/// A connection between its accept and the worker that will serve it.
#[derive(Debug)]
pub struct Accepted {
    pub(super) listener: ListenerId,
    pub(super) client: Socket,
    pub(super) address: Peer,
    pub(super) at: Now,
    /// Its place of its source's, once it has been let in.
    pub(super) place: Option<Place>,
    /// A PROXY header comes first, as the rules were when it was let in.
    pub(super) has_header: bool,
}

impl Accepted {
    #[cfg(test)]
    pub(super) fn new(
        listener: ListenerId,
        client: Socket,
        address: impl Into<Peer>,
        at: Now,
    ) -> Self {
        Self {
            listener,
            client,
            address: address.into(),
            at,
            place: None,
            has_header: false,
        }
    }
}

impl Worker {
    /// Starts to accept at `doors`, unless this worker takes nobody in any more.
    pub(super) fn open(&mut self, doors: Vec<Door>) {
        if self.state != State::Serving {
            return;
        }
        for door in doors {
            // A door that nobody watches would swallow its share of the clients: closed, it leaves
            // them to the other workers' doors.
            match self.watch_door(&door) {
                Ok(()) => drop(self.doors.insert(door.id, door)),
                Err(error) => log::error!("a worker cannot watch its listening socket: {error}"),
            }
        }
    }

    fn watch_door(&self, door: &Door) -> io::Result<()> {
        // A pause is one for all doors.
        match self.paused_until {
            Some(_) => Ok(()),
            None => door.watch(&self.poll),
        }
    }

    /// Who comes in at `door` belongs to `listener` from now on.
    pub(super) fn relabel(&mut self, door: DoorId, listener: ListenerId) {
        let Some(door) = self.doors.get_mut(&door) else {
            return;
        };
        let before = self.listeners.find(door.listener);
        let next = self.listeners.find(listener);
        if let Some((before, next)) = before.zip(next) {
            door.tune(&before.rules.tcp, &next.rules.tcp);
        }
        door.listener = listener;
    }

    /// What a listener asks of the kernel is different from now on.
    pub(super) fn tune_doors(&self, listener: ListenerId, before: &Tcp, next: &Tcp) {
        if before != next {
            let doors = self.doors.values();
            doors
                .filter(|door| door.listener == listener)
                .for_each(|door| door.tune(before, next));
        }
    }

    pub(super) fn door_sockets(&self) -> Vec<DoorSocket> {
        let doors = self.doors.values();
        let sockets = doors.flat_map(|door| door.sockets().map(move |socket| (door, socket)));
        let sockets = sockets.map(|(door, socket)| DoorSocket {
            door: door.id,
            is_shared: door.is_shared,
            socket: Arc::clone(socket),
        });
        sockets.collect()
    }

    /// Somebody is at a door.
    pub(super) fn visit(&mut self, door: DoorId, now: Now) {
        if let Some(visited) = self.doors.get_mut(&door) {
            let batch = visited.next_batch(self.turn);
            self.accept_at(door, batch, now);
        }
    }

    fn accept_at(&mut self, id: DoorId, budget: usize, now: Now) {
        for _ in 0..budget {
            let Some(door) = self.doors.get_mut(&id) else {
                return;
            };
            match door.accept(now) {
                Knock::Came(accepted) => self.welcome(accepted, now),
                Knock::Nobody => {
                    door.batch = 1;
                    return;
                }
                Knock::Left => {}
                Knock::Short(error) => return self.pause(&error, now),
            }
            if self.paused_until.is_some() {
                return;
            }
        }
    }

    /// Out of descriptors or memory: the doors would be reported again and again, so they are not
    /// looked at until a timer says so (trap 14). What is connected already goes on.
    fn pause(&mut self, error: &io::Error, now: Now) {
        if self
            .pause_told
            .is_none_or(|told| now.since(told) > PAUSES_TOLD)
        {
            log::warn!("accepting pauses for {PAUSE:?} at a time: {error}");
            self.pause_told = Some(now);
        }
        self.counters.pauses.add(1);
        let until = (now + SHORT).as_nanoseconds();
        self.counters.short_until.set(until);
        self.paused_until = Some(now + PAUSE);
        for door in self.doors.values() {
            door.ignore(&self.poll);
        }
    }

    /// Ends a pause whose time has passed.
    pub(super) fn resume(&mut self, now: Now) {
        if self.paused_until.is_none_or(|until| until > now) {
            return;
        }
        self.paused_until = None;
        let watched = self
            .doors
            .values()
            .try_for_each(|door| door.watch(&self.poll));
        if let Err(error) = watched {
            // Memory is still short: a door that nobody watches would stay so.
            return self.pause(&error, now);
        }
        // accept4(2) takes a descriptor before it looks whether anybody waits: so a shortage that lasts
        // is known also while nobody comes, because whoever sends clients here knows of it.
        if let Some(door) = self.doors.keys().next().copied() {
            self.accept_at(door, 1, now);
        }
    }

    /// Pauses where `error` says that this process has run out of something.
    pub(super) fn pause_if_exhausted(&mut self, error: &io::Error, now: Now) {
        if socket::is_exhausted(error) {
            self.pause(error, now);
        }
    }

    /// Decides who serves a new connection, if anybody does.
    fn welcome(&mut self, mut accepted: Accepted, now: Now) {
        self.counters.accepted.add(1);
        if let Some(listener) = self.listeners.find(accepted.listener) {
            listener.tally.workers()[self.index].accepted.add(1);
        }
        if let Err(end) = self.admit(&mut accepted, now) {
            return self.refuse(&accepted, end, now);
        }
        let ledger = self.pools.ledger();
        let (other, least) = ledger.idlest_worker();
        let mine = ledger.worker_connections(self.index).saturating_sub(1);
        if other == self.index || !self.churn.is_clearly_unfair(mine, least, now) {
            return self.adopt(accepted, now);
        }
        ledger.hand_over(self.index, other);
        self.counters.handed_over.add(1);
        if let Err(Command::Adopt(accepted)) =
            self.setup.outboxes[other].send(Command::Adopt(accepted))
        {
            // That worker has stopped, and so will this one.
            self.pools.ledger().hand_over(other, self.index);
            self.adopt(accepted, now);
        }
    }

    /// Turns a connection away that was handed over to a worker that stops.
    pub(super) fn refuse_stopping(&mut self, accepted: &Accepted, now: Now) {
        let client = accepted.address;
        self.let_go(accepted.listener, client, accepted.place, now);
        self.refuse(accepted, End::Shutdown, now);
    }

    /// Turns a connection away that holds nothing, before any server is touched: it was neither watched
    /// nor put into the table, so it costs its accept, the linger that makes its close a reset, and
    /// the close.
    fn refuse(&mut self, accepted: &Accepted, end: End, now: Now) {
        let id = self.next_id();
        if let Err(error) = accepted.client.set_linger(Some(Duration::ZERO)) {
            log::debug!("set SO_LINGER: {error}");
        }
        self.record(&Record {
            time: clock::wall(),
            id,
            listener: accepted.listener,
            client: accepted.address,
            pool: None,
            server: None,
            upstream_bytes: 0,
            downstream_bytes: 0,
            connect: None,
            duration: now.since(accepted.at),
            end,
        });
    }

    /// Serves a connection that holds a place in this worker's count.
    ///
    /// Another worker may have heard of a new listener before this one, and have handed over one of
    /// its connections already: that one waits for the change, which is on its way. Nothing else
    /// can be meant, because a listener is forgotten only after its last connection has ended.
    pub(super) fn adopt(&mut self, accepted: Accepted, now: Now) {
        if self.listeners.find(accepted.listener).is_none() {
            return self.early.push(accepted);
        }
        let Accepted {
            listener,
            client,
            address,
            at,
            place,
            has_header,
        } = accepted;
        let id = self.next_id();
        let key = self.table.insert(Connection {
            id,
            listener,
            phase: Phase::Connecting { since: now },
            client,
            client_address: address,
            destination: None,
            server_socket: None,
            pool: None,
            server: None,
            tried: Vec::new(),
            upstream: Flow::default(),
            downstream: Flow::default(),
            times: Times {
                accepted: at,
                picked: now,
                connected: Now::default(),
                active: now,
            },
            marks: Marks {
                place,
                ..Marks::default()
            },
        });
        match self.register(key, Side::Client) {
            Ok(()) => self.greet(key, has_header, now),
            Err(error) => {
                self.pause_if_exhausted(&error, now);
                self.end(key, End::Error, now);
            }
        }
    }

    /// Watches one of a connection's sockets for the rest of its life. Closing it ends that without
    /// another call, because no descriptor of it is ever duplicated.
    ///
    /// # Errors
    /// ENOMEM, or ENOSPC over `fs.epoll.max_user_watches`.
    pub(super) fn register(&mut self, key: Key, side: Side) -> io::Result<()> {
        let socket = self
            .table
            .find(key)
            .and_then(|connection| connection.socket(side));
        let Some(socket) = socket else {
            return Err(ErrorKind::NotFound.into());
        };
        let token = About::Socket(key, side).token();
        self.poll
            .registry()
            .register(&mut SourceFd(&socket.as_raw_fd()), token, BOTH_WAYS)
    }

    /// Unique over all workers of the process, and small.
    fn next_id(&mut self) -> ConnectionId {
        let id = self.named * self.setup.outboxes.len() as u64 + self.index as u64 + 1;
        self.named += 1;
        ConnectionId(id)
    }

    /// The last id given; 0 before the first.
    pub(super) fn last_id(&self) -> u64 {
        let workers = self.setup.outboxes.len() as u64;
        let before = self.named.checked_sub(1);
        before.map_or(0, |number| number * workers + self.index as u64 + 1)
    }

    /// Gives no id from now on that is not above `id`, which came with a connection.
    pub(super) fn note_id(&mut self, id: ConnectionId) {
        let workers = self.setup.outboxes.len() as u64;
        self.named = self.named.max(id.0.div_ceil(workers));
    }

    /// Whether this worker gave that id.
    pub(super) fn has_named(&self, id: ConnectionId) -> bool {
        let workers = self.setup.outboxes.len() as u64;
        id.0.checked_sub(1).map(|number| number % workers) == Some(self.index as u64)
    }

    /// Accepts whoever waits and closes a door: closing a listening socket resets the rest.
    pub(super) fn close_door(&mut self, door: DoorId, now: Now) {
        // The last call is made even while accepting pauses; the other doors' pause goes on.
        let pause = self.paused_until.take();
        self.accept_at(door, LAST_CALL_BUDGET, now);
        self.paused_until = self.paused_until.max(pause);
        if let Some(door) = self.doors.remove(&door) {
            // Other workers may have descriptors of the same socket, which keep it in our epoll set.
            door.ignore(&self.poll);
        }
    }

    /// The same for all doors.
    pub(super) fn close_doors(&mut self, now: Now) {
        for door in self.doors.keys().copied().collect::<Vec<_>>() {
            self.close_door(door, now);
        }
        self.paused_until = None;
    }
}
