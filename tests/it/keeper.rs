//! The process that holds parked connections, as evenkeel starts it.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use evenkeel::park::{SOCKET_NAME, Store, TakeError};

const PROGRAM: &str = env!("CARGO_BIN_EXE_evenkeel");

/// As soon as it has heard that the process before is gone.
fn take(store: &Store) -> Vec<(String, OwnedFd)> {
    loop {
        match store.take() {
            Err(TakeError::Busy) => std::thread::yield_now(),
            taken => return taken.unwrap(),
        }
    }
}

#[test]
fn it_outlives_its_parent_s_way_to_it_and_ends_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock.keeper");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();

    let (store, mut child) = Store::start_keeper(Path::new(PROGRAM), &path).unwrap();
    // What is sent before it listens waits for it.
    store.keep(SOCKET_NAME, &[socket.as_fd()]).unwrap();
    assert!(take(&store).len() == 1);
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let session = stat.rsplit(')').next().unwrap().split(' ').nth(4).unwrap();
    assert_eq!(session, child.id().to_string(), "{stat}");
    drop((store, socket));

    let store = Store::keeper(&path).unwrap();
    let kept = take(&store);
    let mut socket = TcpStream::from(kept.into_iter().next().unwrap().1);
    socket.write_all(b"still here").unwrap();
    let mut heard = [0; 10];
    client.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"still here");
    store.end(&[]).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!path.exists());
}
