//! A connection that is never left in peace: a thread sends numbered messages through it and reads
//! them back, whatever else goes on. It shows that the data path goes on, too.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use super::eventually;
use super::servers::greeted;

/// Beats that count as going on.
const GOING_ON: u64 = 20;

/// The thread; it ends with this.
#[derive(Debug)]
pub(crate) struct Pulse {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    beats: AtomicU64,
    is_over: AtomicBool,
}

impl Pulse {
    /// Through a new connection to `address`, behind which greeters echo.
    #[track_caller]
    pub(crate) fn start(address: SocketAddr) -> Self {
        let (mut stream, _) = greeted(address);
        let shared = Arc::new(Shared::default());
        let beating = Arc::clone(&shared);
        let body = move || {
            while !beating.is_over.load(Ordering::SeqCst) {
                let number = beating.beats.load(Ordering::SeqCst);
                let mut answer = [0; 8];
                stream.write_all(&number.to_be_bytes()).unwrap();
                stream.read_exact(&mut answer).unwrap();
                assert_eq!(u64::from_be_bytes(answer), number);
                beating.beats.store(number + 1, Ordering::SeqCst);
            }
        };
        let thread = Some(thread::spawn(body));
        Self { shared, thread }
    }

    /// Messages that came back so far.
    pub(crate) fn beats(&self) -> u64 {
        self.shared.beats.load(Ordering::SeqCst)
    }

    /// Waits for some more messages to come back.
    #[track_caller]
    pub(crate) fn goes_on(&self) {
        let before = self.beats();
        eventually("messages go on through the data path", || {
            self.beats() > before + GOING_ON
        });
    }

    /// Ends it; panics where a message was lost.
    #[track_caller]
    pub(crate) fn end(mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("it ends once");
        thread.join().expect("every message came back");
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
    }
}
