//! One connection: both sockets, both flows, and the phase that it is in. Plain data, nothing
//! allocated while it idles, so that it can be listed, moved and handed over as it stands.
//!
//! | phase      | leaves it when                            | for                             |
//! |------------|-------------------------------------------|---------------------------------|
//! | Reading    | what must come first has come, is wrong,  | Connecting, or ended            |
//! |            | or is not there in time                   |                                 |
//! | Queued     | a server can take it                      | Connecting                      |
//! |            | the client leaves, or nobody can in time  | ended                           |
//! | Connecting | the server accepts                        | Relaying                        |
//! |            | it refuses, times out, cannot be reached  | Connecting to another, or ended |
//! |            | the client resets, or the server right    | ended                           |
//! |            | after it has accepted                     |                                 |
//! | Relaying   | both flows have ended                     | ended                           |
//! |            | a socket failed, all before it delivered  | Lingering, or ended             |
//! |            | a timeout passed                          | ended                           |
//! | Lingering  | the other peer has acknowledged all bytes | ended                           |
//!
//! Invariants: a connection whose `server` is set holds one place in the ledger for it; the server's
//! socket is there while a connect is under way and from then on; pipes are held only by flows. Nothing here
//! closes a descriptor or leaves the table: methods return a [`Step`], and the worker acts on it.

use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::event::Event;
use socket2::Socket;

use super::link::{Link, ServerSocket};
use crate::address::Peer;
use crate::admission::Place;
use crate::clock::Now;
use crate::end::{End, Side};
use crate::ids::{ConnectionId, ListenerId, PoolId, ServerId};
use crate::pool::queue::Ticket;
use crate::relay::{Flow, Lent, Progress, Turn};
use crate::sys;

/// What the worker is to do with a connection next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Wait for an event or a timer.
    Wait,
    /// Give it another turn, behind the others.
    Again,
    /// End it.
    End(End),
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// What must come first at this listener is awaited, not later than `until`. It stays in the
    /// socket until it is whole.
    Reading { until: Now, awaited: Awaited },
    /// No server could take it; it waits for one, with a place in the pool's queue, not longer than
    /// `until`.
    Queued { ticket: Ticket, until: Now },
    /// A server was picked and its answer is awaited.
    Connecting { since: Now },
    /// Bytes go both ways.
    Relaying,
    /// It has ended by a failure at one side; the other side's last bytes are on their way, and a
    /// reset sent now would overtake them. `until` moves whenever fewer are left.
    Lingering { end: End, until: Now, left: usize },
}

/// What a client must begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    ProxyHeader,
    ClientHello,
}

/// One connection of a worker.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) listener: ListenerId,
    pub(super) phase: Phase,
    pub(super) client: Socket,
    /// Of its socket, or what a PROXY header says.
    pub(super) client_address: Peer,
    /// Where it had connected to, where a PROXY header says so and until a server is connected.
    pub(super) destination: Option<Box<SocketAddr>>,
    /// `None` until a server's socket was made.
    pub(super) server_socket: Option<ServerSocket>,
    /// Where it goes, once that is known; the listener says so where it is `None`.
    pub(super) pool: Option<PoolId>,
    /// The server whose place in the ledger it holds.
    pub(super) server: Option<ServerId>,
    /// Servers that did not accept; emptied when one does.
    pub(super) tried: Vec<ServerId>,
    pub(super) upstream: Flow,
    pub(super) downstream: Flow,
    pub(super) times: Times,
    pub(super) marks: Marks,
}

/// When things happened to a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) accepted: Now,
    /// When its server was picked; when it came, before that.
    pub(super) picked: Now,
    /// When it accepted; zero, which no clock shows, before that.
    pub(super) connected: Now,
    /// The last turn in which a byte was delivered, either way, or one side came to its end.
    pub(super) active: Now,
}

impl Times {
    /// From the pick of the server to its accepting, once it has.
    pub(super) fn connect(&self) -> Option<Duration> {
        let has_connected = self.connected > Now::default();
        has_connected.then(|| self.connected.since(self.picked))
    }
}

/// How one side came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It sent FIN, which was passed on.
    InOrder(Side),
    /// Its socket failed; what it had sent before is on its way to the other side.
    ByFailure(Side),
}

impl Ended {
    /// Which side.
    pub(super) fn side(self) -> Side {
        match self {
            Self::InOrder(side) | Self::ByFailure(side) => side,
        }
    }
}

/// What else is known of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks {
    /// Which side has ended first, and how; the other one may still have something to say or to get.
    pub(super) ended: Option<Ended>,
    /// True exactly while it stands in the run queue.
    pub(super) is_queued: bool,
    /// Its place among the connections of its source, if those were limited when it came.
    pub(super) place: Option<Place>,
    /// Whether its server has been judged by it.
    pub(super) is_judged: bool,
}

/// One of these is all that an idle connection costs, so its size is watched.
const _: () = assert!(size_of::<Connection>() <= 256);

impl Connection {
    /// Notes what an event says about one of the sockets.
    pub(super) fn note(&mut self, side: Side, event: &Event, now: Now) {
        let (out_of_it, into_it) = match side {
            Side::Client => (&mut self.upstream, &mut self.downstream),
            Side::Server => (&mut self.downstream, &mut self.upstream),
        };
        // EPOLLERR and EPOLLHUP come without IN and OUT at times; the next call on the socket says
        // what they mean.
        let has_failed = event.is_error() || event.is_write_closed();
        if event.is_priority() {
            out_of_it.source_is_urgent();
        }
        if event.is_readable() || has_failed {
            out_of_it.source_is_ready();
        }
        if event.is_writable() || has_failed {
            into_it.target_is_ready();
        }
        if event.is_error() {
            // RST behind queued bytes is one edge: a short read must not pass for all there is.
            out_of_it.doom();
            self.note_end(Ended::ByFailure(side), now);
        } else if event.is_read_closed() {
            out_of_it.source_is_ending();
        }
    }

    /// One side has come to its end, and its timeout begins. A failure outweighs an orderly end.
    fn note_end(&mut self, ended: Ended, now: Now) {
        let is_news = match (self.marks.ended, ended) {
            (None, _) | (Some(Ended::InOrder(_)), Ended::ByFailure(_)) => true,
            (Some(_), _) => false,
        };
        if is_news {
            self.marks.ended = Some(ended);
            self.times.active = now;
        }
    }

    /// Gives both flows a turn.
    pub(super) fn relay(&mut self, lent: &mut Lent<'_>) -> Step {
        let Some(ServerSocket {
            socket,
            is_nagle_off,
        }) = &mut self.server_socket
        else {
            debug_assert!(false, "relaying needs a server's socket");
            return Step::End(End::Error);
        };
        let before = (self.upstream.delivered(), self.downstream.delivered());
        let mut up = Link {
            source: &self.client,
            target: socket,
            is_nagle_off: Some(is_nagle_off),
        };
        let upstream = self.upstream.turn(&mut up, lent);
        let mut down = Link {
            source: socket,
            target: &self.client,
            is_nagle_off: None,
        };
        let downstream = self.downstream.turn(&mut down, lent);
        if self.delivered() != before {
            self.times.active = lent.now;
        }
        match self.settle(lent.now) {
            Step::Wait if upstream == Turn::Again || downstream == Turn::Again => Step::Again,
            step => step,
        }
    }

    /// Bytes delivered upstream and downstream.
    pub(super) fn delivered(&self) -> (u64, u64) {
        (self.upstream.delivered(), self.downstream.delivered())
    }

    /// What follows from how far both flows have come. The order matters: a failure is judged before
    /// an end, and what came before a failure has been delivered by then.
    fn settle(&mut self, now: Now) -> Step {
        use Progress::{Flowing, SourceFailed, TargetFailed};
        match (self.upstream.progress(), self.downstream.progress()) {
            (SourceFailed, _) => Step::End(End::reset(Side::Client)),
            (_, SourceFailed) => Step::End(End::reset(Side::Server)),
            (TargetFailed, TargetFailed) => match self.marks.ended {
                Some(Ended::ByFailure(first)) => Step::End(End::reset(first)),
                Some(Ended::InOrder(_)) | None => Step::End(End::reset(Side::Server)),
            },
            // A socket failed while it was written to; what it had sent before is still delivered.
            (TargetFailed, _) => {
                let is_new = self.downstream.doom();
                self.after_doom(Side::Server, is_new, now)
            }
            (_, TargetFailed) => {
                let is_new = self.upstream.doom();
                self.after_doom(Side::Client, is_new, now)
            }
            (Progress::Ended, Progress::Ended) => match self.marks.ended {
                Some(Ended::InOrder(first)) => Step::End(End::closed(first)),
                Some(Ended::ByFailure(side)) => Step::End(End::reset(side)),
                None => Step::End(End::closed(Side::Client)),
            },
            (Progress::Ended, Flowing) => self.pass_end_on(Side::Client, now),
            (Flowing, Progress::Ended) => self.pass_end_on(Side::Server, now),
            (Flowing, Flowing) => Step::Wait,
        }
    }

    /// The socket at `failed` is dead in one direction: the other one gets a turn to deliver the
    /// rest, and goes on for as long as the peer takes any of it.
    fn after_doom(&mut self, failed: Side, is_new: bool, now: Now) -> Step {
        self.note_end(Ended::ByFailure(failed), now);
        if is_new { Step::Again } else { Step::Wait }
    }

    /// `from` has sent all that it will: the other side is told by FIN, once.
    fn pass_end_on(&mut self, from: Side, now: Now) -> Step {
        if self.marks.ended.is_none() {
            self.note_end(Ended::InOrder(from), now);
            if let Some(target) = self.socket(from.other()) {
                // ENOTCONN: it was reset meanwhile, which its next event reports.
                target.shutdown(Shutdown::Write).unwrap_or(());
            }
        }
        Step::Wait
    }

    /// The socket at one side.
    pub(super) fn socket(&self, side: Side) -> Option<&Socket> {
        match side {
            Side::Client => Some(&self.client),
            Side::Server => self.server_socket.as_ref().map(|server| &server.socket),
        }
    }

    /// Bytes that the peer at `side` has not acknowledged yet: a reset now would destroy them, because
    /// closing with SO_LINGER 0 empties the send queue (tcp(7), `tcp_disconnect` in the kernel).
    pub(super) fn bytes_on_the_way(&self, side: Side) -> usize {
        let Some(socket) = self.socket(side) else {
            return 0;
        };
        match sys::socket::unacknowledged(socket) {
            Ok(bytes) if bytes > 0 && !is_without_peer(socket) => bytes,
            _ => 0,
        }
    }

    /// Whether no byte has gone either way for as long as `quiet`, and none is on its way: neither
    /// held here, nor unread, nor unacknowledged by a peer. So whoever closes it now with FIN takes
    /// nothing from anybody.
    pub(super) fn is_quiet(&self, quiet: Duration, now: Now) -> bool {
        let is_empty = |side| self.bytes_on_the_way(side) == 0 && self.unread_bytes(side) == 0;
        self.phase == Phase::Relaying
            && now.since(self.times.active) >= quiet
            && !self.upstream.is_holding()
            && !self.downstream.is_holding()
            && is_empty(Side::Client)
            && is_empty(Side::Server)
    }

    /// Bytes of the peer at `side` that we have not read, of which its event may be still to come.
    pub(super) fn unread_bytes(&self, side: Side) -> usize {
        let unread = self.socket(side).map(sys::socket::unread);
        unread.and_then(Result::ok).unwrap_or(0)
    }

    /// Makes the closing that follows a reset at both sides, where the end is not an orderly one.
    pub(super) fn reset_on_close(&self) {
        for socket in [Side::Client, Side::Server].map(|side| self.socket(side)) {
            if let Some(Err(error)) = socket.map(|socket| socket.set_linger(Some(Duration::ZERO))) {
                log::debug!("set SO_LINGER: {error}");
            }
        }
    }
}

/// Whether the peer has reset: nobody will acknowledge anything any more, but `tcp_reset` in the kernel
/// leaves the count of unacknowledged bytes as it was.
fn is_without_peer(socket: &Socket) -> bool {
    sys::tcp_info::path(socket).is_ok_and(|path| path.is_closed)
}
