//! Servers that answer by themselves, on threads: they say who they are, and echo.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use super::peers::{Peer, connect};

/// Greets each connection with its name (one byte), then echoes until the client ends.
#[derive(Debug)]
pub(crate) struct Greeter {
    address: SocketAddr,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Counts {
    stopping: AtomicBool,
    accepted: AtomicUsize,
    active: AtomicUsize,
    most: AtomicUsize,
}

impl Greeter {
    /// Listens on a free port of 127.0.0.1.
    pub(crate) fn listen(name: u8) -> Self {
        Self::serve(name, TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// Serves on a listener that exists.
    pub(crate) fn serve(name: u8, listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        let thread = thread::spawn(move || accept_all(name, &listener, &shared));
        Self {
            address,
            counts,
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// Connections now.
    pub(crate) fn active(&self) -> usize {
        self.counts.active.load(Ordering::SeqCst)
    }

    /// The most connections at one time so far.
    pub(crate) fn most(&self) -> usize {
        self.counts.most.load(Ordering::SeqCst)
    }

    /// Stops listening; connections that were accepted go on.
    pub(crate) fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.counts.stopping.store(true, Ordering::SeqCst);
            // Wakes the accept; it fails only when the listener is gone already.
            drop(TcpStream::connect(self.address));
            thread.join().unwrap();
        }
    }
}

impl Drop for Greeter {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Connects and reads the name of the server that answers.
#[track_caller]
pub(crate) fn greeted(address: SocketAddr) -> (TcpStream, u8) {
    greeting(connect(address))
}

/// Reads the name of the server that answers on `stream`.
#[track_caller]
pub(crate) fn greeting(mut stream: TcpStream) -> (TcpStream, u8) {
    let mut name = [0];
    stream.read_exact(&mut name).expect("a greeting");
    (stream, name[0])
}

/// Connects `count` times in sequence, each closed in order before the next; who answered.
#[track_caller]
pub(crate) fn visits(address: SocketAddr, count: usize) -> String {
    let mut names = String::new();
    for _ in 0..count {
        let (mut client, name) = greeted(address);
        names.push(char::from(name));
        client.end();
        client.expect_fin();
    }
    names
}

fn accept_all(name: u8, listener: &TcpListener, counts: &Arc<Counts>) {
    for stream in listener.incoming() {
        if counts.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(mut stream) = stream else { continue };
        counts.accepted.fetch_add(1, Ordering::SeqCst);
        let active = counts.active.fetch_add(1, Ordering::SeqCst) + 1;
        counts.most.fetch_max(active, Ordering::SeqCst);
        let counts = Arc::clone(counts);
        thread::spawn(move || {
            greet_and_echo(name, &mut stream);
            // Before the close that lets the program under test open the next one.
            counts.active.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// Ends when the client does, however it does.
fn greet_and_echo(name: u8, stream: &mut TcpStream) {
    let mut buffer = [0; 4096];
    let mut answer = stream.write_all(&[name]);
    while answer.is_ok() {
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => answer = stream.write_all(&buffer[..read]),
            _ => return,
        }
    }
}
