//! The prober: one thread that checks every server at its interval and reports when one goes up or
//! down. It alone owns the truth about health; whoever picks servers has copies of its reports.
//!
//! ```text
//! schedule -> rounds -> probe -> exchange <-> script (tcp, http, send_expect)
//!               |         +----> verdict -> Report
//!             attention: was it the server that was late, or were we?
//! ```
//! `rounds` is the loop, `probe` one target, `exchange` one check's socket. Everything else is
//! pure: scripts see bytes, `verdict` answers, `schedule` and `attention` times. It knows no pool
//! and no worker: targets come in, reports go out.

mod answer;
mod attention;
mod exchange;
mod http;

mod needle;
mod probe;
mod rounds;
mod schedule;
mod script;
mod send_expect;
mod tcp;
mod verdict;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use mio::{Poll, Token, Waker};

use crate::clock::Now;
use crate::config::Health;
use crate::ids::ServerId;

use crate::telemetry::lag::Lag;
pub use answer::{Reason, Shortage};
use rounds::Rounds;

/// Checks that run at once, each with a descriptor; the rest wait for their turn. Reached only
/// where thousands of servers neither accept nor refuse.
pub const IN_FLIGHT_MAX: usize = 4096;

/// No probe has this token: its generation would have to be the last one of the last key.
const WAKE: Token = Token(usize::MAX);

/// A server to be checked.
#[derive(Clone, Debug)]
pub struct Target {
    /// Comes back in reports.
    pub server: ServerId,
    /// `pool/server`, for logs.
    pub name: Arc<str>,
    /// Where the server listens; `health.port` goes before its port.
    pub address: SocketAddr,
    /// What is asked, and how often.
    pub health: Arc<Health>,
}

/// A server's state has become known, or has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whose.
    pub server: ServerId,
    /// Its state from now on.
    pub is_up: bool,
    /// The answer that decided.
    pub reason: Reason,
}

/// The thread that checks. It ends with [`Prober::stop`] or with the process.
#[derive(Debug)]
pub struct Prober {
    thread: JoinHandle<()>,
    is_stopping: Arc<AtomicBool>,
    waker: Waker,
    lag: Arc<Lag>,
}

/// Starts the thread. Each target's first check begins within a second for every 10,000 targets,
/// and its answer decides alone, a timeout too. `deliver` is called on the prober's thread and must
/// not block: no check begins or ends meanwhile.
///
/// # Errors
/// No epoll instance or no thread could be made.
pub fn spawn(
    targets: Vec<Target>,
    deliver: impl FnMut(Report) + Send + 'static,
) -> io::Result<Prober> {
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), WAKE)?;
    let rounds = Rounds::new(poll, targets, Box::new(deliver), Now::read());
    let lag = rounds.lag();
    let is_stopping = Arc::new(AtomicBool::new(false));
    let thread = thread::Builder::new().name("prober".to_owned()).spawn({
        let is_stopping = Arc::clone(&is_stopping);
        move || rounds.run(&is_stopping)
    })?;
    Ok(Prober {
        thread,
        is_stopping,
        waker,
        lag,
    })
}

impl Prober {
    /// How late checks begin.
    pub fn lag(&self) -> &Lag {
        &self.lag
    }

    /// Ends the thread and waits for it; checks under way come to nothing.
    pub fn stop(self) {
        self.is_stopping.store(true, Ordering::Release);
        self.waker
            .wake()
            .expect("an eventfd takes a wake while it is open");
        // A panic there has ended the process, or is reported where threads may panic: in tests.
        if self.thread.join().is_err() {
            log::error!("the prober had panicked");
        }
    }
}

#[cfg(test)]
mod tests;
