//! The process that does nothing but hold descriptors, where there is no service manager that does.
//!
//! It is started by the first evenkeel that needs it, stays when that one dies, and gives everything to
//! the next one that asks. What hangs up is dropped. It ends when it is told that the last process ends
//! in order, and also when nobody has come back for [`PATIENCE`]: then all connections are reset, because
//! their peers wait for nobody.
//!
//! A process talks to it over packets (`message`); one that the keeper did not begin with brings an end of
//! such a way of its own through the socket in the file system, which is its user's and root's alone.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Poll, Token};
use slab::Slab;
use socket2::Socket;
use thiserror::Error;

use super::message::{Answer, Message};
use super::store::{DESCRIPTORS_MAX, PACKET_BYTES};
use crate::bind::unix::{self, SocketFile};
use crate::clock::Now;
use crate::sys::{ancillary, epoll, socket};

/// How long connections wait for a process to come back.
pub const PATIENCE: Duration = Duration::from_secs(60);

const MODE: u32 = 0o600;
const ROOT: u32 = 0;
const BACKLOG: i32 = 8;
const EVENTS_MAX: usize = 256;
/// Far more than processes that follow each other; whoever comes then is sent away.
const VISITORS_MAX: usize = 64;
const LISTENING: Token = Token(usize::MAX - 1);

/// Why it could not begin.
#[derive(Debug, Error)]
pub enum KeeperError {
    /// Its place is another's.
    #[error("{path}: {source}: {hint}")]
    Bind {
        /// Where it would be found.
        path: String,
        /// What the kernel said.
        source: io::Error,
        /// What to do.
        hint: String,
    },
    /// What the kernel says.
    #[error("{0}")]
    Kernel(#[from] io::Error),
}

/// Something that is kept.
#[derive(Debug)]
struct Item {
    name: Box<str>,
    descriptor: OwnedFd,
    /// Of a socket.
    cookie: Option<u64>,
}

/// Whoever talks to the keeper.
#[derive(Debug)]
struct Visitor {
    socket: Socket,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It came through the file system, and is to bring the end of another way.
    Guest,
    /// It has asked at most.
    Process,
    /// It has brought something.
    Owner,
}

/// What an event is about.
#[derive(Clone, Copy)]
enum About {
    Listening,
    Visitor(usize),
    Item(usize),
}

/// All that is kept, and who talks about it.
#[derive(Debug)]
pub struct Keeper {
    poll: Poll,
    listening: Socket,
    /// Whose sockets are kept: nobody else but root is let in.
    user: u32,
    /// Removed when the keeper ends.
    _file: SocketFile,
    visitors: Slab<Visitor>,
    items: Slab<Item>,
    /// What is there already is not kept twice.
    known: HashMap<u64, usize>,
    /// Since when no process is there.
    alone_since: Option<Now>,
    patience: Duration,
    is_over: bool,
}

impl Keeper {
    /// One that already has a process to talk to, and is found at `path` by others.
    ///
    /// # Errors
    /// Somebody else is found there; no descriptor is left.
    pub fn new(first: OwnedFd, path: &Path, patience: Duration) -> Result<Self, KeeperError> {
        let (listening, file) =
            unix::file(path, MODE, "admin.socket").map_err(|obstacle| KeeperError::Bind {
                path: path.display().to_string(),
                source: obstacle.source,
                hint: obstacle.hint,
            })?;
        listening.listen(BACKLOG)?;
        let user = socket::peer_user(&first)?;
        let poll = Poll::new()?;
        epoll::add_level_triggered(&poll, &listening, LISTENING, false)?;
        let mut keeper = Self {
            poll,
            listening,
            user,
            _file: file,
            visitors: Slab::new(),
            items: Slab::new(),
            known: HashMap::new(),
            alone_since: None,
            patience,
            is_over: false,
        };
        keeper.welcome(Socket::from(first), Kind::Process)?;
        Ok(keeper)
    }

    /// Keeps until there is nobody to keep for.
    ///
    /// # Errors
    /// Where epoll itself fails.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        while !self.is_over {
            let waited = self.alone_since.map(|since| Now::read().since(since));
            let left = waited.map(|waited| self.patience.saturating_sub(waited));
            match self.poll.poll(&mut events, left) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
                outcome => outcome?,
            }
            self.attend(&events);
            let now = Now::read();
            if self
                .alone_since
                .is_some_and(|since| now.since(since) >= self.patience)
            {
                self.give_up();
                return Ok(());
            }
        }
        Ok(())
    }

    /// What hung up comes first: its number may be another's after a message.
    fn attend(&mut self, events: &Events) {
        for event in events {
            if let About::Item(index) = about(event) {
                self.drop_item(index);
            }
        }
        for event in events {
            match about(event) {
                About::Listening => self.let_in(),
                About::Visitor(index) => self.listen_to(index),
                About::Item(_) => {}
            }
        }
    }

    fn let_in(&mut self) {
        // Whoever has left again is no loss, and whoever finds no descriptor asks again.
        let Ok((guest, _)) = socket::accept(&self.listening) else {
            return;
        };
        // The mode of the file says the same, but somebody may change that.
        let user = socket::peer_user(&guest);
        let is_welcome = user.is_ok_and(|user| user == self.user || user == ROOT);
        if is_welcome && self.visitors.len() < VISITORS_MAX {
            drop(self.welcome(Socket::from(guest), Kind::Guest));
        }
    }

    fn welcome(&mut self, socket: Socket, kind: Kind) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let entry = self.visitors.vacant_entry();
        let token = Token(entry.key() << 1);
        epoll::add_level_triggered(&self.poll, &socket, token, false)?;
        entry.insert(Visitor { socket, kind });
        if kind != Kind::Guest {
            self.alone_since = None;
        }
        Ok(())
    }

    fn dismiss(&mut self, index: usize) {
        let visitor = self.visitors.remove(index);
        // Closing would do it, were there no other descriptor of it.
        drop(epoll::remove(&self.poll, &visitor.socket));
        if self.visitors.iter().all(|(_, it)| it.kind == Kind::Guest) {
            self.alone_since.get_or_insert_with(Now::read);
        }
    }

    fn listen_to(&mut self, index: usize) {
        let Some(visitor) = self.visitors.get(index) else {
            return;
        };
        let (mut buffer, mut came) = ([0; PACKET_BYTES], Vec::new());
        let outcome = ancillary::receive(
            &visitor.socket,
            &mut buffer,
            &mut came,
            ancillary::DESCRIPTORS_MAX,
        );
        match (visitor.kind, outcome) {
            (_, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            (Kind::Guest, outcome) => {
                self.dismiss(index);
                for end in came.into_iter().filter(|_| outcome.is_ok()) {
                    drop(self.welcome(Socket::from(end), Kind::Process));
                }
            }
            (_, Ok(0)) => self.dismiss(index),
            // Descriptors were lost, because no more may be open: their connections will not be kept.
            (_, Err(error)) if error.raw_os_error().is_none() => {}
            (_, Err(_)) => self.dismiss(index),
            (_, Ok(bytes)) => self.obey(index, &buffer[..bytes], came),
        }
    }

    fn obey(&mut self, index: usize, text: &[u8], came: Vec<OwnedFd>) {
        match Message::read(text) {
            Some(Message::Keep(name)) => {
                self.visitors[index].kind = Kind::Owner;
                for descriptor in came {
                    // What cannot be watched for want of memory is not kept.
                    drop(self.keep(name, descriptor));
                }
            }
            Some(Message::Forget(name)) => {
                let named = self.items.iter().filter(|(_, item)| *item.name == *name);
                let named: Vec<_> = named.map(|(key, _)| key).collect();
                named.into_iter().for_each(|key| self.drop_item(key));
            }
            Some(Message::Give(from)) => self.give(index, from),
            Some(Message::End) => self.is_over = true,
            // Of a newer program, which does without an answer.
            None => {}
        }
    }

    fn keep(&mut self, name: &str, descriptor: OwnedFd) -> io::Result<()> {
        let cookie = socket::cookie(&descriptor).ok();
        if cookie.is_some_and(|cookie| self.known.contains_key(&cookie)) {
            return Ok(());
        }
        let entry = self.items.vacant_entry();
        let key = entry.key();
        if let Some(cookie) = cookie {
            epoll::add_for_hang_up(&self.poll, &descriptor, Token(key << 1 | 1))?;
            self.known.insert(cookie, key);
        }
        entry.insert(Item {
            name: name.into(),
            descriptor,
            cookie,
        });
        Ok(())
    }

    fn drop_item(&mut self, key: usize) {
        let Some(item) = self.items.try_remove(key) else {
            return;
        };
        if let Some(cookie) = item.cookie {
            self.known.remove(&cookie);
            // There are other descriptors of it, so that closing this one would leave it watched.
            drop(epoll::remove(&self.poll, &item.descriptor));
        }
    }

    /// Answers with as many as fit into a message, which stay here as well.
    fn give(&self, index: usize, from: u64) {
        let visitors = self.visitors.iter();
        let is_busy = visitors
            .filter(|(other, _)| *other != index)
            .any(|(_, visitor)| visitor.kind == Kind::Owner);
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let rest = self.items.iter().filter(|(key, _)| *key >= from);
        let some: Vec<_> = rest.take(DESCRIPTORS_MAX).collect();
        let (answer, descriptors) = match is_busy {
            true => (Answer::Busy, Vec::new()),
            false => {
                let answer = Answer::Given {
                    next: some.last().map_or(0, |(key, _)| *key as u64 + 1),
                    names: some.iter().map(|(_, it)| it.name.to_string()).collect(),
                };
                let descriptors = some.iter().map(|(_, it)| it.descriptor.as_fd());
                (answer, descriptors.collect())
            }
        };
        let socket = &self.visitors[index].socket;
        // Each answer is asked for, so there is room, unless who asks does not read: it gives up then.
        drop(ancillary::send(
            socket,
            answer.to_string().as_bytes(),
            &descriptors,
        ));
    }

    fn give_up(self) {
        for (_, item) in &self.items {
            // Also a file is there, and listening sockets could be.
            drop(socket::disconnect(&item.descriptor));
        }
    }
}

fn about(event: &Event) -> About {
    match event.token() {
        LISTENING => About::Listening,
        Token(number) if number & 1 == 0 => About::Visitor(number >> 1),
        Token(number) => About::Item(number >> 1),
    }
}

#[cfg(test)]
mod tests;
