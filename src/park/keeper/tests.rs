//! A keeper in a thread of its own, and the processes that talk to it as stores.

use std::io::{self, ErrorKind, Read};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use super::*;
use crate::park::proof::tests::{Carried, say};
use crate::park::store::{Store, TakeError, packets};
use crate::sys::shared;

const LONG: Duration = Duration::from_secs(600);

struct Kept {
    _folder: tempfile::TempDir,
    path: PathBuf,
    thread: JoinHandle<io::Result<()>>,
}

fn keeper(patience: Duration) -> (Kept, Store) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("k");
    let (ours, theirs) = packets().unwrap();
    let keeper = Keeper::new(OwnedFd::from(theirs), &path, patience).unwrap();
    let thread = thread::spawn(move || keeper.run());
    let kept = Kept {
        _folder: folder,
        path,
        thread,
    };
    (kept, Store::joined(ours))
}

impl Kept {
    /// As the next process does it.
    fn take(&self, wanted: impl Fn(&[String]) -> bool) -> (Store, Vec<(String, OwnedFd)>) {
        let store = Store::keeper(&self.path).unwrap();
        loop {
            let all = match store.take() {
                Ok(all) => all,
                // It has not heard of the other one's end yet.
                Err(TakeError::Busy) => continue,
                Err(error) => panic!("{error}"),
            };
            let mut names: Vec<_> = all.iter().map(|(name, _)| name.clone()).collect();
            names.sort();
            if wanted(&names) {
                return (store, all);
            }
            thread::yield_now();
        }
    }
}

#[test]
fn what_one_process_leaves_the_next_one_gets() {
    let (kept, first) = keeper(LONG);
    let Carried {
        mut client_peer,
        client,
        server,
        ..
    } = Carried::new();
    let memory = shared::memory_file("x", 4096).unwrap();
    first.keep("+", &[client.as_fd(), server.as_fd()]).unwrap();
    first.keep("evenkeel+1", &[memory.as_fd()]).unwrap();
    // Said again by a successor, and the same all the same.
    first.keep("+", &[server.as_fd(), client.as_fd()]).unwrap();
    drop((first, client, server, memory));
    let (_store, all) = kept.take(|names| names == ["+", "+", "evenkeel+1"]);
    say(&mut client_peer, &client_peer_of(&all), 1);
}

/// The first socket is the client's.
fn client_peer_of(all: &[(String, OwnedFd)]) -> std::net::TcpStream {
    let (_, socket) = all.iter().find(|(name, _)| name == "+").unwrap();
    let stream = std::net::TcpStream::from(socket.try_clone().unwrap());
    stream.set_nonblocking(false).unwrap();
    stream
}

#[test]
fn nothing_is_given_while_its_owner_lives() {
    let (kept, first) = keeper(LONG);
    let it = Carried::new();
    first.keep("+", &[it.client.as_fd()]).unwrap();
    let second = Store::keeper(&kept.path).unwrap();
    loop {
        match second.take() {
            Err(TakeError::Busy) => break,
            // What was said first is heard first, but on another way.
            Ok(all) => assert!(all.is_empty()),
            Err(error) => panic!("{error}"),
        }
    }
    drop(first);
    kept.take(|names| names == ["+"]);
}

#[test]
fn more_than_a_message_holds_are_given_in_several() {
    let (kept, first) = keeper(LONG);
    let pairs: Vec<_> = (0..DESCRIPTORS_MAX).map(|_| Carried::new()).collect();
    for it in &pairs {
        let both = [it.client.as_fd(), it.server.as_fd()];
        while first.keep("+", &both).is_err() {
            thread::yield_now();
        }
    }
    drop(first);
    let (_, all) = kept.take(|names| names.len() == 2 * pairs.len());
    let cookies = |sockets: &mut dyn Iterator<Item = u64>| {
        let mut cookies: Vec<_> = sockets.collect();
        cookies.sort_unstable();
        cookies
    };
    let ours = pairs.iter().flat_map(|it| [&it.client, &it.server]);
    assert_eq!(
        cookies(&mut all.iter().map(|(_, it)| socket::cookie(it).unwrap())),
        cookies(&mut ours.map(|it| socket::cookie(it).unwrap()))
    );
}

#[test]
fn what_has_ended_or_is_forgotten_is_dropped() {
    let (kept, first) = keeper(LONG);
    let mut it = Carried::new();
    let memory = shared::memory_file("x", 4096).unwrap();
    first
        .keep("+", &[it.client.as_fd(), it.server.as_fd()])
        .unwrap();
    first.keep("evenkeel+1", &[memory.as_fd()]).unwrap();
    first.keep("evenkeel+2", &[memory.as_fd()]).unwrap();
    first.forget("evenkeel+1").unwrap();
    socket::disconnect(&it.client).unwrap();
    let error = it.client_peer.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    drop((first, it.client));
    kept.take(|names| names == ["+", "evenkeel+2"]);
    it.server.shutdown(std::net::Shutdown::Both).unwrap();
    it.server_peer.shutdown(std::net::Shutdown::Both).unwrap();
    kept.take(|names| names == ["evenkeel+2"]);
}

#[test]
fn where_nobody_comes_back_all_are_reset() {
    let (kept, first) = keeper(Duration::ZERO);
    let mut it = Carried::new();
    first
        .keep("+", &[it.client.as_fd(), it.server.as_fd()])
        .unwrap();
    drop((first, it.client, it.server));
    for peer in [&mut it.client_peer, &mut it.server_peer] {
        let error = peer.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    kept.thread.join().unwrap().unwrap();
    assert!(!kept.path.exists());
}

#[test]
fn it_ends_when_its_process_ends_in_order_and_minds_no_nonsense() {
    let (kept, first) = keeper(LONG);
    let stranger = Store::keeper(&kept.path).unwrap();
    stranger.forget("nothing").unwrap();
    drop(std::os::unix::net::UnixStream::connect(&kept.path).unwrap());
    first.keep("without one", &[]).unwrap();
    first.end(&[]).unwrap();
    kept.thread.join().unwrap().unwrap();
    assert!(first.forget("x").is_err());
    assert!(Store::keeper(&kept.path).is_err());
}
