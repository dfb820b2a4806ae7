//! One door of a worker: its listening sockets, how they are watched, and what an accept there tells.
//!
//! It knows sockets and their options, and nothing of who is let in: that is `accept`'s and `admit`'s.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use mio::Poll;
use socket2::{Domain, Socket};

use super::accept::Accepted;
use super::token::About;
use super::{DoorId, tuning};
use crate::address::Peer;
use crate::clock::Now;
use crate::config::Tcp;
use crate::ids::ListenerId;
use crate::sys::{epoll, socket};

/// Most connections accepted at one door in one turn.
const ACCEPT_BUDGET: usize = 16;

/// One of a listener's sockets; each worker has its own for each address (SO_REUSEPORT), but for a unix
/// address and for a socket that was passed to the process, where all have the same one.
///
/// Doors alone are watched level-triggered: with edges, each visit would have to end with an accept
/// that finds nobody, which costs the kernel a socket and a file made in vain.
#[derive(Debug)]
pub struct Door {
    pub(super) id: DoorId,
    pub(super) listener: ListenerId,
    /// Whoever hands over to another process has a part in it meanwhile: a listener may have thousands of
    /// ports, and a descriptor more for each is not to be had everywhere.
    pub(super) socket: Arc<Socket>,
    /// Of workers that an earlier process had, and this one has not: clients are on their way to them,
    /// whom the kernel would reset if they were closed.
    more: Vec<Arc<Socket>>,
    /// Which of the sockets is asked first at the next accept, or a crowd at one would keep the others
    /// waiting.
    first: usize,
    /// Whether other workers have the same socket: more than one may be woken for a connection, and one
    /// of them finds nobody.
    pub(super) is_shared: bool,
    /// Connections to accept at the next visit.
    pub(super) batch: usize,
    /// The turn of the loop in which it was visited last.
    visited: u64,
}

impl Door {
    /// A socket that listens already and is non-blocking; connections may wait at it.
    pub fn new(id: DoorId, listener: ListenerId, socket: impl Into<OwnedFd>) -> Self {
        let socket = Socket::from(socket.into());
        Self {
            id,
            listener,
            is_shared: socket.domain().is_ok_and(|domain| domain == Domain::UNIX),
            socket: Arc::new(socket),
            more: Vec::new(),
            first: 0,
            batch: 1,
            visited: u64::MAX - 1,
        }
    }

    /// Accepts at a further socket as well; not while it is open.
    pub fn join(&mut self, socket: Socket) {
        self.more.push(Arc::new(socket));
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = &Arc<Socket>> + Clone {
        std::iter::once(&self.socket).chain(&self.more)
    }

    /// The same socket is at other workers' doors, too.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.is_shared = true;
        self
    }

    /// Which one it is.
    pub fn id(&self) -> DoorId {
        self.id
    }

    /// Begins to listen as `tcp` says, or goes on with that where it listens already, whatever was asked
    /// of the kernel before.
    ///
    /// # Errors
    /// What the kernel says to an option, or to `listen`.
    pub fn listen(&self, tcp: &Tcp) -> io::Result<()> {
        self.sockets()
            .try_for_each(|socket| tuning::listen_anew(socket, tcp))
    }

    /// How many to accept in turn `turn`: one, and twice as many each time that others still waited
    /// after the last visit.
    pub(super) fn next_batch(&mut self, turn: u64) -> usize {
        let still_waited = self.visited.wrapping_add(1) == turn;
        self.batch = if still_waited {
            (2 * self.batch).min(ACCEPT_BUDGET)
        } else {
            1
        };
        self.visited = turn;
        self.batch
    }
}

/// What one call of accept tells about the next one.
pub(super) enum Knock {
    /// Somebody came.
    Came(Accepted),
    /// Nobody waits.
    Nobody,
    /// Whoever waited has left; the next one may be there.
    Left,
    /// Nothing can be accepted for a while.
    Short(io::Error),
}

impl Door {
    /// Has events come for as long as somebody waits there; it may be watched already.
    pub(super) fn watch(&self, poll: &Poll) -> io::Result<()> {
        let token = About::Door(self.id).token();
        self.sockets().try_for_each(|socket| {
            match epoll::add_level_triggered(poll, socket, token, self.is_shared) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
                outcome => outcome,
            }
        })
    }

    /// Has no events come any more.
    pub(super) fn ignore(&self, poll: &Poll) {
        for socket in self.sockets() {
            match epoll::remove(poll, socket) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    log::error!("cannot ignore a listening socket: {error}");
                }
                // ENOENT: there is a pause already.
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// What the listener asks of the kernel is different from now on.
    pub(super) fn tune(&self, before: &Tcp, next: &Tcp) {
        for socket in self.sockets() {
            if let Err(error) = tuning::change(socket, before, next) {
                log::error!("cannot change the tcp options of a listening socket: {error}");
            }
        }
    }

    /// Takes one in who waits, if anybody does.
    pub(super) fn accept(&mut self, now: Now) -> Knock {
        let count = 1 + self.more.len();
        let first = self.first % count;
        self.first = first + 1;
        let mut knock = Knock::Nobody;
        for socket in self.sockets().cycle().skip(first).take(count) {
            knock = self.accept_at(socket, now);
            if !matches!(knock, Knock::Nobody) {
                break;
            }
        }
        knock
    }

    fn accept_at(&self, socket: &Socket, now: Now) -> Knock {
        match socket::accept(socket) {
            Ok((client, address)) => Knock::Came(Accepted {
                listener: self.listener,
                client: Socket::from(client),
                address: address.map_or(Peer::Unix, Peer::Ip),
                at: now,
                place: None,
                has_header: false,
            }),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => Knock::Nobody,
                // accept(2): an error that is pending on the new socket is delivered here.
                ErrorKind::Interrupted
                | ErrorKind::ConnectionAborted
                | ErrorKind::ConnectionReset
                | ErrorKind::NetworkDown
                | ErrorKind::NetworkUnreachable
                | ErrorKind::HostUnreachable => Knock::Left,
                _ => Knock::Short(error),
            },
        }
    }
}
