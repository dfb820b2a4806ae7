//! The way to whoever keeps descriptors for us: systemd, or a keeper of our own. All that is said while
//! connections are served is said without waiting; only what is asked at a start waits.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

use super::message::{Answer, Message};
use crate::sys::{ancillary, socket};
use crate::systemd;

/// Descriptors in one message: below what the kernel takes, and an even number.
pub(super) const DESCRIPTORS_MAX: usize = 240;
const _: () = assert!(DESCRIPTORS_MAX <= ancillary::DESCRIPTORS_MAX);
/// Of an answer: so many names of at most a few dozen bytes.
pub(super) const PACKET_BYTES: usize = 16 * 1024;
/// A keeper answers at once, unless the machine stands still.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why nothing was given back.
#[derive(Debug, Error)]
pub enum TakeError {
    /// Another process is using them.
    #[error("the process that uses them is still there")]
    Busy,
    /// It does not answer as a keeper does.
    #[error("what answers is no keeper of connections")]
    Stranger,
    /// What the kernel says.
    #[error("{0}")]
    Kernel(#[from] io::Error),
}

/// Who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptBy {
    /// The service manager, which passes them to the next process by itself.
    Systemd,
    /// A process of ours, which is asked for them.
    Keeper,
}

/// Whoever keeps descriptors for us.
#[derive(Debug)]
pub struct Store {
    socket: Socket,
    /// Of a manager, which may make its socket anew.
    address: Option<SockAddr>,
    /// The number of a keeper.
    process: Option<u32>,
    /// Somebody has found that nothing gets through to it.
    is_lost: AtomicBool,
}

impl Store {
    /// The manager at `address`, which is as `NOTIFY_SOCKET` has it.
    ///
    /// # Errors
    /// Nobody is there.
    pub fn systemd(address: &OsStr) -> io::Result<Self> {
        let (socket, address) = systemd::datagrams(address)?;
        socket.connect(&address)?;
        Ok(Self {
            socket,
            address: Some(address),
            process: None,
            is_lost: AtomicBool::new(false),
        })
    }

    /// The keeper that answers at `path`.
    ///
    /// # Errors
    /// None does.
    pub fn keeper(path: &Path) -> io::Result<Self> {
        let (ours, theirs) = packets()?;
        let way = UnixStream::connect(path)?;
        way.set_write_timeout(Some(PATIENCE))?;
        ancillary::send(&way, b"join", &[theirs.as_fd()])?;
        Ok(Self {
            process: socket::peer_process(&way).ok(),
            ..Self::joined(ours)
        })
    }

    /// A keeper of our own, which others will find at `path`; the child is to be waited for at some time.
    /// It is not told where nothing comes of it, such as of a path that cannot be: then the store is lost.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start_keeper(program: &Path, path: &Path) -> io::Result<(Self, Child)> {
        let (ours, theirs) = packets()?;
        let child = Command::new(program)
            .arg("keeper")
            .arg(path)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn()?;
        let store = Self {
            process: Some(child.id()),
            ..Self::joined(ours)
        };
        Ok((store, child))
    }

    pub(super) fn joined(socket: Socket) -> Self {
        Self {
            socket,
            address: None,
            process: None,
            is_lost: AtomicBool::new(false),
        }
    }

    /// Who it is.
    pub fn kept_by(&self) -> KeptBy {
        match self.address {
            Some(_) => KeptBy::Systemd,
            None => KeptBy::Keeper,
        }
    }

    /// The number of a keeper, where it can be known.
    pub fn process(&self) -> Option<u32> {
        self.process
    }

    /// Nothing gets through to it.
    pub(super) fn note_lost(&self) {
        self.is_lost.store(true, Ordering::Relaxed);
    }

    /// Whether another one is needed: this one keeps nothing any more, or is not reached.
    pub fn is_lost(&self) -> bool {
        // A keeper says nothing unasked, so what can be heard of it is its end. A manager has none.
        let has_ended = || match socket::peek(&self.socket, &mut [0]) {
            Ok(bytes) => bytes == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        self.is_lost.load(Ordering::Relaxed) || (self.address.is_none() && has_ended())
    }

    /// Has it keep descriptors, which stay open here as well: at most [`DESCRIPTORS_MAX`].
    ///
    /// # Errors
    /// See [`is_passing`]; else it is gone.
    pub fn keep(&self, name: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.say(Message::Keep(name), descriptors)
    }

    /// Has it drop all that it keeps under a name.
    ///
    /// # Errors
    /// As [`Self::keep`].
    pub fn forget(&self, name: &str) -> io::Result<()> {
        self.say(Message::Forget(name), &[])
    }

    /// This process ends in order: nothing is to be kept.
    ///
    /// # Errors
    /// As [`Self::keep`].
    pub fn end(&self, names: &[&str]) -> io::Result<()> {
        match self.kept_by() {
            KeptBy::Systemd => names.iter().try_for_each(|name| self.forget(name)),
            KeptBy::Keeper => self.say(Message::End, &[]),
        }
    }

    /// Everything that a keeper keeps, by the names that it was given. It keeps them all the same. Waits.
    ///
    /// # Errors
    /// Whoever has brought them is still there; none answers.
    pub fn take(&self) -> Result<Vec<(String, OwnedFd)>, TakeError> {
        self.socket.set_nonblocking(false)?;
        self.socket.set_read_timeout(Some(PATIENCE))?;
        self.socket.set_write_timeout(Some(PATIENCE))?;
        let taken = self.take_all();
        self.socket.set_nonblocking(true)?;
        taken
    }

    fn take_all(&self) -> Result<Vec<(String, OwnedFd)>, TakeError> {
        let (mut all, mut from) = (Vec::new(), 0);
        let mut buffer = [0; PACKET_BYTES];
        loop {
            self.say(Message::Give(from), &[])?;
            let mut some = Vec::new();
            let bytes = ancillary::receive(&self.socket, &mut buffer, &mut some, DESCRIPTORS_MAX)?;
            let (next, names) = match Answer::read(&buffer[..bytes]) {
                Some(Answer::Given { next, names }) => (next, names),
                Some(Answer::Busy) => return Err(TakeError::Busy),
                None => return Err(TakeError::Stranger),
            };
            if names.is_empty() && some.is_empty() {
                return Ok(all);
            }
            // It must come to an end, whatever speaks there.
            if names.len() != some.len() || next <= from {
                return Err(TakeError::Stranger);
            }
            from = next;
            all.extend(names.into_iter().zip(some));
        }
    }

    fn say(&self, message: Message<'_>, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = message.to_string();
        let send = || ancillary::send(&self.socket, text.as_bytes(), descriptors).map(drop);
        match (send(), &self.address) {
            (Err(error), Some(address)) if is_unconnected(&error) => {
                self.socket.connect(address)?;
                send()
            }
            (outcome, _) => outcome,
        }
    }
}

/// The manager's socket was closed: that is told once, and from then on there is no other end.
fn is_unconnected(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::NotConnected
    )
}

/// Whether the same message may get through a moment later: the queue is full, too many descriptors are
/// on their way already, or the kernel is short of memory.
pub(super) fn is_passing(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
        || ancillary::is_too_many_on_the_way(error)
        || socket::is_exhausted(error)
}

/// Two ends of a way on which a message stays one, whoever reads how much.
pub(super) fn packets() -> io::Result<(Socket, Socket)> {
    Socket::pair(Domain::UNIX, Type::SEQPACKET.nonblocking(), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn a_manager_is_told_in_its_own_words_also_once_it_has_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        assert!(Store::systemd(path.as_os_str()).is_err());
        let manager = UnixDatagram::bind(&path).unwrap();
        let store = Store::systemd(path.as_os_str()).unwrap();
        assert_eq!(store.kept_by(), KeptBy::Systemd);
        let (read, mut write) = io::pipe().unwrap();
        let heard = |manager: &UnixDatagram| {
            let (mut buffer, mut came) = ([0; 128], Vec::new());
            let bytes = ancillary::receive(manager, &mut buffer, &mut came, 8).unwrap();
            (
                String::from_utf8(buffer[..bytes].to_vec()).unwrap(),
                came.len(),
            )
        };
        store.keep("+", &[read.as_fd(), write.as_fd()]).unwrap();
        assert_eq!(heard(&manager), ("FDSTORE=1\nFDNAME=+".to_owned(), 2));
        drop(manager);
        assert!(store.forget("+").is_err());
        std::fs::remove_file(&path).unwrap();
        let manager = UnixDatagram::bind(&path).unwrap();
        store.end(&["+", "evenkeel+3"]).unwrap();
        let forget = |name: &str| (format!("FDSTOREREMOVE=1\nFDNAME={name}"), 0);
        assert_eq!(heard(&manager), forget("+"));
        assert_eq!(heard(&manager), forget("evenkeel+3"));
        write.write_all(b"x").unwrap();
    }

    #[test]
    fn a_keeper_that_has_ended_is_missed() {
        let (ours, theirs) = packets().unwrap();
        let store = Store::joined(ours);
        assert!(!store.is_lost());
        drop(theirs);
        assert!(store.is_lost());
        let (ours, _theirs) = packets().unwrap();
        let store = Store::joined(ours);
        store.note_lost();
        assert!(store.is_lost());
    }

    #[test]
    fn what_is_no_keeper_is_found_out() {
        for answer in ["hello", "NEXT=0\nNAMES=+", "NEXT=9\nNAMES=+:+"] {
            let (ours, theirs) = packets().unwrap();
            theirs.send(answer.as_bytes()).unwrap();
            let taken = Store::joined(ours).take();
            assert!(matches!(taken, Err(TakeError::Stranger)), "{answer}");
        }
        let (ours, theirs) = packets().unwrap();
        drop(theirs);
        assert!(matches!(
            Store::joined(ours).take(),
            Err(TakeError::Kernel(_))
        ));
    }
}
