//! From a pick to a connected server: tries, retries on other servers, and what a failure was.
//!
//! The server's socket is registered after `connect`: an unconnected socket reports OUT|HUP at once.
//! OUT without ERR or HUP means connected, and saves asking for SO_ERROR.

use std::io::{self, ErrorKind};
use std::time::Duration;

use mio::event::Event;
use socket2::Socket;

use super::Worker;
use super::connection::Phase;
use super::link::ServerSocket;
use super::source::Way;
use super::token::Key;
use crate::address::Address;
use crate::clock::Now;
use crate::config::ServerTcp;
use crate::end::{End, Side};
use crate::ids::{PoolId, ServerId};
use crate::pool::Ask;
use crate::pool::outlier::Finding;
use crate::sys;
use crate::telemetry::counters::ConnectFailure;

/// Why a try did not connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Refused, or no way there.
    Refused,
    /// No answer in time.
    TimedOut,
    /// The queue of a unix socket is full. Over TCP the kernel would try again for a while, so that it
    /// says nothing against the server; one that accepts nobody is found by its checks.
    Busy,
    /// No local port is left towards that server, or no address of ours is there to connect from;
    /// another server may do.
    NoPort,
    /// Out of descriptors or memory: another server would not help.
    Exhausted,
}

impl Failure {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::TimedOut => Self::TimedOut,
            ErrorKind::ResourceBusy => Self::Busy,
            // EAGAIN: no room for another route.
            ErrorKind::AddrNotAvailable | ErrorKind::WouldBlock => Self::NoPort,
            _ if sys::socket::is_exhausted(error) => Self::Exhausted,
            _ => Self::Refused,
        }
    }

    /// As what it is counted.
    fn cause(self) -> ConnectFailure {
        match self {
            Self::Refused => ConnectFailure::Refused,
            Self::TimedOut => ConnectFailure::TimedOut,
            Self::Busy => ConnectFailure::Busy,
            Self::NoPort | Self::Exhausted => ConnectFailure::Local,
        }
    }

    /// As what the connection ends where no other server is tried.
    fn end(self) -> End {
        match self {
            Self::Refused | Self::Busy => End::ConnectFailed,
            Self::TimedOut => End::ConnectTimeout,
            Self::NoPort | Self::Exhausted => End::Error,
        }
    }
}

/// What the kernel says of a connect that was begun.
enum Answer {
    Connected,
    Pending,
    Failed(io::Error),
    /// It was connected, and is not any more.
    Lost,
}

impl Worker {
    /// Picks servers and begins to connect until one try is on its way; where no server can take the
    /// connection, it ends as `last`, which says how the last try went.
    ///
    /// A connection that has tried none (`NoServer`) waits its turn where others wait, or where its
    /// pool has a queue; one whose tries have failed ends as they did.
    pub(super) fn connect(&mut self, key: Key, mut last: End, now: Now) {
        if last == End::NoServer && self.stands_behind(key, now) {
            return;
        }
        // Bounded: each round either returns or adds to the servers that were tried.
        loop {
            match self.try_one(key, now) {
                Ok(true) => return,
                Ok(false) if last == End::NoServer => return self.hold(key, now),
                Ok(false) => return self.end(key, last, now),
                Err(failure) if self.give_up(key, failure, now) => return,
                Err(failure) => last = failure.end(),
            }
        }
    }

    /// Begins one connect; false where no server can take the connection.
    pub(super) fn try_one(&mut self, key: Key, now: Now) -> Result<bool, Failure> {
        let Some(pool) = self.pool_of(key) else {
            return Ok(false);
        };
        let Some(connection) = self.table.find(key) else {
            return Ok(true);
        };
        let client = connection.client_address;
        let ask = Ask {
            client,
            tried: &connection.tried,
            now,
        };
        let Some(server) = self.pools.pick(pool, &ask, &mut self.random) else {
            return Ok(false);
        };
        connection.server = Some(server);
        connection.phase = Phase::Connecting { since: now };
        connection.times.picked = now;
        self.introduce(key, pool);
        if let Err(error) = self.begin(key, pool, server, now) {
            return Err(self.note_failure(&error, now));
        }
        self.timers
            .arm(key.slot, now + self.pools.connect_timeout(pool));
        Ok(true)
    }

    /// Begins to connect to `server` and watches the socket.
    fn begin(&mut self, key: Key, pool: PoolId, server: ServerId, now: Now) -> io::Result<()> {
        let tcp = self.server_tcp(key, pool);
        let address = self.pools.address(server).ok_or(ErrorKind::NotFound)?;
        let way = Way {
            server: address,
            sources: self.pools.sources(pool),
            tcp,
        };
        let socket = self.sources.connect(&way, &mut self.random, now)?;
        // Unix sockets know no Nagle's algorithm.
        let is_nagle_off = address.ip().is_none();
        if let Some(connection) = self.table.find(key) {
            connection.server_socket = Some(ServerSocket {
                socket,
                is_nagle_off,
            });
        }
        self.register(key, Side::Server)
    }

    /// The pool's word goes before the listener's.
    fn server_tcp(&mut self, key: Key, pool: PoolId) -> ServerTcp {
        if let Some(tcp) = self.pools.tcp(pool) {
            return tcp.clone();
        }
        let listener = self.table.find(key).map(|connection| connection.listener);
        let listener = listener.and_then(|listener| self.listeners.find(listener));
        let tcp = listener.map(|listener| &listener.rules.tcp);
        ServerTcp {
            keepalive: tcp.and_then(|tcp| tcp.keepalive),
            user_timeout: tcp.and_then(|tcp| tcp.user_timeout),
        }
    }

    fn note_failure(&mut self, error: &io::Error, now: Now) -> Failure {
        self.pause_if_exhausted(error, now);
        Failure::of(error)
    }

    /// Books a failed try. True where the connection was ended: no retry is left, or none can help.
    fn give_up(&mut self, key: Key, failure: Failure, now: Now) -> bool {
        // The pool of a reload that came meanwhile, if it has another one.
        let pool = self.pool_of(key);
        let retries = pool.map_or(0, |pool| self.pools.retries(pool)) as usize;
        let timeout = pool.map(|pool| self.pools.connect_timeout(pool));
        let Some(connection) = self.table.find(key) else {
            return true;
        };
        connection.server_socket = None;
        let tried = connection.server.take();
        connection.tried.extend(tried);
        let is_last = connection.tried.len() > retries || failure == Failure::Exhausted;
        if let (Some(server), Phase::Connecting { since }) = (tried, connection.phase) {
            if matches!(
                failure,
                Failure::Refused | Failure::TimedOut | Failure::Busy
            ) {
                // The server's failure weighs as much as its slowest success would.
                let cost = timeout.unwrap_or_default().max(now.since(since));
                self.pools.observe_connect(server, cost, now);
            }
            if matches!(failure, Failure::Refused | Failure::TimedOut) {
                self.note_finding(server, Finding::Bad, now);
                self.proven.remove(&server);
            }
            if let Some(tally) = self.pools.tally(server) {
                let counters = &tally.workers()[self.index];
                counters.failed(failure.cause()).add(1);
            }
            self.pools.release(server);
        }
        if is_last {
            self.end(key, failure.end(), now);
        }
        is_last
    }

    /// Books a failed try, and makes another one where that may help.
    pub(super) fn retry(&mut self, key: Key, failure: Failure, now: Now) {
        if !self.give_up(key, failure, now) {
            self.connect(key, failure.end(), now);
        }
    }

    /// The server's socket has an event while it connects.
    pub(super) fn on_connect_event(&mut self, key: Key, event: &Event, since: Now, now: Now) {
        let is_plain = event.is_writable() && !event.is_error() && !event.is_write_closed();
        let answer = if is_plain {
            Answer::Connected
        } else {
            self.ask_socket(key)
        };
        match answer {
            Answer::Connected if self.is_connected_to_itself(key) => {
                self.retry(key, Failure::Refused, now);
            }
            Answer::Connected => self.on_connected(key, event, since, now),
            Answer::Pending => {}
            Answer::Lost => {
                if let Some(server) = self.table.find(key).and_then(|c| c.server) {
                    self.note_finding(server, Finding::Bad, now);
                }
                self.end(key, End::reset(Side::Server), now);
            }
            Answer::Failed(error) => {
                let failure = self.note_failure(&error, now);
                self.retry(key, failure, now);
            }
        }
    }

    /// HUP or ERR came with the answer or instead of one: SO_ERROR says which, and where it says
    /// nothing (HAProxy issue 1863), a second connect does.
    fn ask_socket(&mut self, key: Key) -> Answer {
        let connection = self.table.find(key);
        let both = connection.and_then(|c| {
            let address = self.pools.address(c.server?)?;
            Some((c.server_socket.as_ref()?, address))
        });
        let Some((ServerSocket { socket, .. }, address)) = both else {
            return Answer::Pending;
        };
        let error = match socket.take_error() {
            Ok(None) => match address
                .to_kernel()
                .and_then(|address| socket.connect(&address))
            {
                Ok(()) => return Answer::Connected,
                Err(error) => error,
            },
            Ok(Some(error)) | Err(error) => error,
        };
        match error.kind() {
            // RST answers a SYN with ECONNREFUSED, so that this one came after the handshake.
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Answer::Lost,
            _ if sys::socket::is_connected(&error) => Answer::Connected,
            _ if sys::socket::is_in_progress(&error) => Answer::Pending,
            _ => Answer::Failed(error),
        }
    }

    /// Where nobody listens any more on a port of this machine from which the kernel takes local
    /// ports, a connect may get that very port as its own, and TCP then connects the socket to itself
    /// (the prober knows that, too). That is one try of some 28,000, and the others are refused: so a
    /// server whose last try went well is not worth the call, and ordinary connections pay nothing.
    fn is_connected_to_itself(&mut self, key: Key) -> bool {
        let Some(connection) = self.table.find(key) else {
            return false;
        };
        let Some(server) = connection.server.filter(|s| !self.proven.contains(s)) else {
            return false;
        };
        let own = connection.socket(Side::Server).map(Socket::local_addr);
        let own = own.and_then(Result::ok).and_then(|own| own.as_socket());
        let is_itself = own.is_some() && own == self.pools.address(server).and_then(Address::ip);
        if !is_itself {
            self.proven.insert(server);
        }
        is_itself
    }

    fn on_connected(&mut self, key: Key, event: &Event, since: Now, now: Now) {
        let Some(connection) = self.table.find(key) else {
            return;
        };
        let took = now.since(since);
        connection.note(Side::Server, event, now);
        connection.phase = Phase::Relaying;
        connection.times.connected = now;
        connection.times.active = now;
        connection.tried = Vec::new();
        connection.destination = None;
        if let Some(server) = connection.server {
            self.count_connect(server, took, now);
        }
        self.watch(key);
        self.park_later(key, now);
        self.relay(key, now);
    }

    /// The server has not answered within `connect_timeout`.
    pub(super) fn on_connect_timeout(&mut self, key: Key, since: Now, now: Now) {
        log::debug!("connect took longer than {:?}", now.since(since));
        self.retry(key, Failure::TimedOut, now);
    }

    fn count_connect(&mut self, server: ServerId, took: Duration, now: Now) {
        self.pools.observe_connect(server, took, now);
        if let Some(tally) = self.pools.tally(server) {
            tally.workers()[self.index].connected.add(1);
        }
        if let Some(tally) = self.pools.pool_tally(server) {
            tally.workers()[self.index].connect.observe(took);
        }
    }

    /// Where it goes: by its route, unless a reload has taken that pool away, else as its listener says.
    pub(super) fn pool_of(&mut self, key: Key) -> Option<PoolId> {
        let connection = self.table.find(key)?;
        connection.pool = connection.pool.filter(|pool| self.pools.has(*pool));
        let by_listener = || Some(self.listeners.find(connection.listener)?.pool);
        connection.pool.or_else(by_listener)
    }
}
