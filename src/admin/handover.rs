//! Handing the admin side over to another process, and taking it over from one: the listening sockets go
//! along, so that whoever comes in between waits in the kernel's queue and is refused by nobody.
//!
//! Until the new process serves, everything can still stay with the old one. Hence the old one only
//! pauses, the new one binds what it lacks and removes nothing, and the socket's file changes its owner
//! when the new one begins to serve.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::bounded;

use super::listen::{self, Unix};
use super::serve::Order;
use super::{Admin, AdminError, Bound, DEFAULT_SOCKET, Ending, rules};
use crate::bind::unix::SocketFile;
use crate::config::{self, AdminSocket};

/// How long the thread may be about something else.
const ORDER_TIMEOUT: Duration = Duration::from_secs(1);

/// Listening sockets of an admin side, to be given to another process.
#[derive(Debug, Default)]
pub struct Sockets {
    /// The unix socket, and where its file is.
    pub socket: Option<(PathBuf, OwnedFd)>,
    /// That of HTTP over TCP.
    pub http: Option<HttpSocket>,
}

/// The listening socket of HTTP over TCP.
#[derive(Debug)]
pub struct HttpSocket {
    /// Its address as the config has it: the port may be 0.
    pub written: SocketAddr,
    /// What listens there.
    pub socket: OwnedFd,
}

/// Binds what the config asks for, as [`super::bind`] does, but for what is inherited: the same path and
/// the same written address go on with their sockets. Files of inherited sockets stay as they are until
/// [`Bound::serve`], and for ever where it does not come to that; from then on the one that goes on is
/// this process's, and one that is wanted no more is gone.
///
/// # Errors
/// As [`super::bind`]; what was inherited is as it was.
pub fn bind_with(config: &config::Admin, inherited: Sockets) -> Result<Bound, AdminError> {
    let rules = rules(config)?;
    let (unix, left) = unix(&config.socket, inherited.socket)?;
    Ok(Bound {
        rules,
        nodes: config.nodes.clone(),
        http: http(config.http, inherited.http)?,
        unix,
        left,
    })
}

/// A unix socket that listens, and whose its file is.
pub(super) type BoundUnix = (UnixListener, File);
/// A unix socket that is wanted no more, file first: with it goes the socket.
pub(super) type Left = (Lent, OwnedFd);

fn unix(
    wanted: &AdminSocket,
    inherited: Option<(PathBuf, OwnedFd)>,
) -> Result<(Option<BoundUnix>, Option<Left>), AdminError> {
    let bound = |(listener, file): Unix| (listener, File::Own(file));
    // A file that is gone leads nobody to its socket.
    let inherited = inherited.and_then(|(path, socket)| Some((Lent::look(&path)?, socket)));
    match inherited {
        Some((file, socket)) if path(wanted) == file.path() => {
            let listener = UnixListener::from(socket);
            Ok((Some((listener, File::Lent(file))), None))
        }
        left => Ok((listen::unix(wanted)?.map(bound), left)),
    }
}

/// Where the config wants the unix socket.
fn path(wanted: &AdminSocket) -> Option<&Path> {
    match wanted {
        AdminSocket::Off => None,
        AdminSocket::At(path) => Some(path),
        AdminSocket::Default => Some(Path::new(DEFAULT_SOCKET)),
    }
}

/// HTTP over TCP that listens.
#[derive(Debug)]
pub(super) struct Http {
    /// As the config has it.
    pub(super) written: SocketAddr,
    pub(super) listener: TcpListener,
}

fn http(
    wanted: Option<SocketAddr>,
    inherited: Option<HttpSocket>,
) -> Result<Option<Http>, AdminError> {
    let Some(written) = wanted else {
        return Ok(None);
    };
    let inherited = inherited.filter(|inherited| inherited.written == written);
    let listener = match inherited {
        Some(inherited) => inherited.socket.into(),
        None => listen::tcp(written)?,
    };
    Ok(Some(Http { written, listener }))
}

/// The file of a unix socket.
#[derive(Debug)]
pub(super) enum File {
    /// It goes away with this.
    Own(SocketFile),
    /// It is inherited.
    Lent(Lent),
}

impl File {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Own(file) => file.path(),
            Self::Lent(file) => file.path().unwrap_or(Path::new("")),
        }
    }

    /// From now on it is this process's.
    pub(super) fn take(self) -> Option<SocketFile> {
        match self {
            Self::Own(file) => Some(file),
            Self::Lent(mut file) => file.take(),
        }
    }
}

/// A file that another process would remove at its end, and that stays where this one does not come to
/// serve. It is there until it is taken.
#[derive(Debug)]
pub(super) struct Lent(Option<SocketFile>);

impl Lent {
    /// `None` where nothing is at `path`.
    fn look(path: &Path) -> Option<Self> {
        let file = SocketFile::adopt(path).ok()?;
        Some(Self(Some(file)))
    }

    fn path(&self) -> Option<&Path> {
        self.0.as_ref().map(SocketFile::path)
    }

    /// From now on it is this process's; dropped, it is gone.
    pub(super) fn take(&mut self) -> Option<SocketFile> {
        self.0.take()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(file) = self.0.take() {
            file.let_go();
        }
    }
}

impl Admin {
    /// Duplicates of what it listens at; it goes on as before.
    ///
    /// # Errors
    /// EMFILE, ENFILE.
    pub fn sockets(&self) -> io::Result<Sockets> {
        let copy = |door: &super::serve::Door| door.as_fd().try_clone_to_owned();
        let mut sockets = Sockets::default();
        if let (Some(file), Some(door)) = (&self.socket, &self.doors.unix) {
            sockets.socket = Some((file.path().to_owned(), copy(door)?));
        }
        if let (Some(written), Some(door)) = (self.written, &self.doors.http) {
            let socket = copy(door)?;
            sockets.http = Some(HttpSocket { written, socket });
        }
        Ok(sockets)
    }

    /// Accepts nobody from now on: who comes waits in the kernel's queue. Requests and streams under way
    /// go on. Waits until that is so: for what the thread does at the moment, milliseconds, and never long.
    pub fn pause(&self) {
        self.order(Order::Pause);
    }

    /// Accepts again, those first who have waited.
    pub fn resume(&self) {
        self.order(Order::Resume);
    }

    fn order(&self, order: impl FnOnce(crossbeam_channel::Sender<()>) -> Order) {
        let (sender, done) = bounded(1);
        if self.orders.send(order(sender)).is_ok() {
            // A thread that has ended accepts nobody either, and whom a late one lets in has come too late
            // for an answer: nobody else is to wait for that.
            done.recv_timeout(ORDER_TIMEOUT).unwrap_or(());
        }
    }

    /// Ends it within a quarter of a second, for another process to go on with its sockets: what has been
    /// answered is written, streams end in order, and the socket's file stays.
    pub fn let_go(self) {
        if let Some(file) = self.socket {
            file.let_go();
        }
        drop(self.doors);
        self.stop.send_replace(Ending(Some(self.bounds.letting_go)));
        // A panic has ended the process long before.
        self.thread.join().unwrap_or(());
    }
}
