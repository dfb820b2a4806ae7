//! Listening sockets of the process before this one: who waits at them waits on, and is refused by
//! nobody.
//!
//! Until this process serves, the other one does at the same sockets, so nothing is asked of them here:
//! no option is set, no file removed.

use std::mem;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use socket2::Socket;

use crate::address::{Address, UnixName};
use crate::bind::unix::SocketFile;
use crate::handover::world::{DoorState, World};
use crate::worker::{Door, DoorId};

/// The sockets of one address.
#[derive(Debug)]
pub(in crate::process) struct InheritedDoor {
    /// Its listener's name, and whether the config had that no more.
    listener: Arc<str>,
    has_left: bool,
    written: String,
    /// All workers wait at the same one.
    pub(in crate::process) is_shared: bool,
    /// One for each of the old process's workers, or one for all.
    pub(in crate::process) sockets: Vec<Socket>,
    /// Which this process removes at its end, from when it serves on.
    file: Option<PathBuf>,
}

/// Those that are not given out, and what follows from those that are.
#[derive(Debug, Default)]
pub(in crate::process) struct InheritedDoors {
    doors: Vec<InheritedDoor>,
    /// Files of sockets that go on to be used.
    files: Vec<(DoorId, PathBuf)>,
    /// More than this process has workers.
    surplus: Vec<(DoorId, Socket)>,
}

/// Sockets at which nobody waits for anybody else, with their listeners' names.
pub(super) type LastCalls = Vec<(Arc<str>, Socket)>;

impl InheritedDoors {
    /// As many of `descriptors` as the doors say.
    pub(super) fn new(world: &World, descriptors: &mut impl Iterator<Item = OwnedFd>) -> Self {
        let listeners = &world.listeners;
        let doors = world.doors.iter().map(|state: &DoorState| {
            let sockets = descriptors.take(state.descriptors as usize);
            let sockets = sockets.map(Socket::from).collect();
            let listener = listeners.iter().find(|it| it.number == state.listener);
            InheritedDoor {
                listener: listener.map_or_else(Arc::default, |it| it.name.as_str().into()),
                has_left: listener.is_none_or(|it| it.has_left),
                written: state.written.clone(),
                is_shared: state.is_shared,
                sockets,
                file: path(state),
            }
        });
        Self {
            doors: doors.collect(),
            ..Self::default()
        }
    }

    /// The sockets for an address of a listener. A port that the kernel chose stays with its listener;
    /// any other address is the same one whichever listener it belongs to.
    pub(in crate::process) fn take(
        &mut self,
        door: DoorId,
        listener: &str,
        written: &Address,
    ) -> Option<InheritedDoor> {
        let is_chosen = written.ip().is_some_and(|ip| ip.port() == 0);
        let text = written.to_string();
        let is_meant = |known: &InheritedDoor| {
            let is_owner = !known.has_left && *known.listener == *listener;
            known.written == text && !known.sockets.is_empty() && (is_owner || !is_chosen)
        };
        let place = self.doors.iter().position(is_meant)?;
        let taken = self.doors.remove(place);
        self.files
            .extend(taken.file.clone().map(|file| (door, file)));
        Some(taken)
    }

    /// Where the sockets are that are not given out.
    pub(in crate::process) fn ports(&self) -> impl Iterator<Item = u16> {
        let sockets = self.doors.iter().filter_map(|door| door.sockets.first());
        sockets.filter_map(|socket| Some(socket.local_addr().ok()?.as_socket()?.port()))
    }

    /// Descriptors that each of so many workers has no use for at an address of its own.
    pub(in crate::process) fn surplus(&self, workers: usize) -> usize {
        let doors = self.doors.iter();
        let surplus = doors.map(|door| door.sockets.len().saturating_sub(workers));
        surplus.sum()
    }

    /// Addresses that the config does not have.
    pub(super) fn unwanted(&self) -> impl Iterator<Item = (Arc<str>, Address)> {
        let doors = self.doors.iter().filter(|door| !door.sockets.is_empty());
        doors.filter_map(|door| {
            let address = match door.written.strip_prefix("unix:") {
                Some(name) => Address::Unix(UnixName::new(name)),
                None => door.sockets.first()?.local_addr().ok()?.as_socket()?.into(),
            };
            Some((Arc::default(), address))
        })
    }

    /// Notes sockets of an address that are too many.
    pub(in crate::process) fn note_surplus(&mut self, door: DoorId, sockets: Vec<Socket>) {
        let sockets = sockets.into_iter().map(|socket| (door, socket));
        self.surplus.extend(sockets);
    }

    /// Spreads those that are too many over the workers' doors, where they stay as long as their address
    /// does: the kernel would reset whoever comes while they are closed.
    pub(super) fn join_surplus(&mut self, by_worker: &mut [Vec<Door>]) {
        let workers = by_worker.len();
        for (index, (id, socket)) in mem::take(&mut self.surplus).into_iter().enumerate() {
            let doors = by_worker[index % workers].iter_mut();
            if let Some(door) = doors.into_iter().find(|door| door.id() == id) {
                door.join(socket);
            }
        }
    }

    /// This process serves: files of sockets that go on are its own, those of others go away. Sockets at
    /// which somebody may still wait, with their listeners' names, are returned; those of listeners that
    /// are no more are closed, because nobody knows any more whom they would let in.
    pub(super) fn settle(
        self,
        is_served: impl Fn(&str) -> bool,
    ) -> (Vec<(DoorId, SocketFile)>, LastCalls) {
        let adopt = |path: &PathBuf| SocketFile::adopt(path).ok();
        let files = self.files.iter();
        let files = files.filter_map(|(door, path)| Some((*door, adopt(path)?)));
        let files = files.collect();
        let mut last_calls = LastCalls::new();
        for door in self.doors {
            // Its end removes the file.
            drop(door.file.as_ref().and_then(adopt));
            if is_served(&door.listener) && !door.has_left {
                let sockets = door.sockets.into_iter();
                last_calls.extend(sockets.map(|socket| (Arc::clone(&door.listener), socket)));
            }
        }
        (files, last_calls)
    }
}

/// Where the file is, if that is the process's business.
fn path(state: &DoorState) -> Option<PathBuf> {
    let name = state.written.strip_prefix("unix:")?;
    let path = UnixName::new(name).path()?.to_owned();
    state.has_file.then_some(path)
}
