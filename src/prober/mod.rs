//! The prober: one thread that checks every server at its interval and reports when one goes up or
//! down. It alone owns the truth about health; whoever picks servers has copies of its reports.
//!
//! ```text
//! schedule -> rounds -> probe -> exchange <-> tls <-> script (tcp, or a talk: http, redis, ...)
//!               |         |       or a program
//!               |         +----> verdict -> Report
//!             attention: was it the server that was late, or were we?
//! ```
//! `rounds` is the loop, `probe` one target, `exchange` one check's socket, `program` one that is
//! run. Everything else is pure: scripts see bytes, `verdict` answers, `schedule` and `attention`
//! times. Probes live in `places`. It knows no pool and no worker: targets come and go, reports go
//! out.

mod agent;
mod answer;
mod attention;
mod exchange;
mod grpc;
mod http;
mod kit;
mod means;
mod mysql;
mod needle;
mod pinned;
mod places;
mod postgres;
mod probe;
mod program;
mod redis;
mod rounds;
mod said;
mod schedule;
mod scram;
mod script;
mod send_expect;
#[cfg(test)]
mod talks;
mod tcp;
mod tls;
mod told;
mod trust;
mod verdict;

#[cfg(fuzzing)]
pub mod fuzzing;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use mio::{Poll, Token};

use crate::address::Address;
use crate::clock::Now;
use crate::config::Health;
use crate::ids::ServerId;
use crate::mailbox::{Mailbox, Outbox};
use crate::sys::process;
use crate::telemetry::checkup::Checkup;
use crate::telemetry::counters::Gauge;
use crate::telemetry::lag::Lag;

pub use answer::{Reason, Shortage};
pub use kit::Kit;
pub use program::PROGRAMS_MAX;
use rounds::Rounds;
pub use said::Said;

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
    pub address: Address,
    /// Our own addresses to ask from: the first one of the server's family that this machine has. Where
    /// none is of that family the kernel picks one.
    pub sources: Vec<IpAddr>,
    /// What is asked, and how often.
    pub health: Arc<Health>,
    /// What that needs of files.
    pub kit: Arc<Kit>,
    /// Where each check and each change of state is noted.
    pub checkup: Arc<Checkup>,
}

/// What changes about the targets.
#[derive(Clone, Debug)]
pub enum Step {
    /// Checks a server from now on. One that is checked already keeps its state and goes on with these
    /// settings, also with another kind of check: rise and fall are counted anew then. A server's
    /// address stays the same for as long as it has its id.
    Watch(Target),
    /// Checks it no more: a check under way comes to nothing, and its checkup is reset.
    Forget(ServerId),
}

/// What the thread is told.
#[derive(Debug)]
enum Order {
    Change(Vec<Step>),
    /// Make a turn, so that somebody sees that it was made.
    Turn,
    Stop,
}

/// What a report brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The server's state has become known, or has changed.
    State,
    /// Only how much of its weight it wants has changed.
    Share,
}

/// A server's state, or what it wants, has become known or has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whose.
    pub server: ServerId,
    /// What has changed.
    pub news: News,
    /// Its state from now on.
    pub is_up: bool,
    /// How much of its weight the server wants: less than 100 percent only where it is asked for
    /// that (`agent`), and a change of it alone is a report, too.
    pub share_percent: u16,
    /// The answer that decided.
    pub reason: Reason,
}

/// The thread that checks. It ends with [`Prober::stop`] or with the process.
#[derive(Debug)]
pub struct Prober {
    thread: JoinHandle<()>,
    outbox: Outbox<Order>,
    lag: Arc<Lag>,
    turns: Arc<Gauge>,
}

/// Starts the thread, without a target. `deliver` is called on the prober's thread and must not
/// block: no check begins or ends meanwhile. What is reported is in the target's checkup already.
///
/// # Errors
/// No epoll instance, no eventfd or no thread could be made.
pub fn spawn(deliver: impl FnMut(Report) + Send + 'static) -> io::Result<Prober> {
    // Programs that checks run are waited for.
    process::await_children()?;
    let poll = Poll::new()?;
    let (outbox, mailbox) = Mailbox::new(poll.registry(), WAKE)?;
    let rounds = Rounds::new(poll, mailbox, Box::new(deliver), Now::read());
    let (lag, turns) = (rounds.lag(), rounds.turns());
    let thread = thread::Builder::new()
        .name("prober".to_owned())
        .spawn(move || rounds.run())?;
    Ok(Prober {
        thread,
        outbox,
        lag,
        turns,
    })
}

impl Prober {
    /// Takes the steps in their order, after those of earlier calls; does not wait for it. The first
    /// check of a new target begins at once where it is alone, and within a second for every 10,000
    /// that come together; its answer decides alone, a timeout too. A report that was made before
    /// its server was forgotten may still be on its way.
    pub fn change(&self, steps: Vec<Step>) {
        self.tell(Order::Change(steps));
    }

    /// How late checks begin.
    pub fn lag(&self) -> Arc<Lag> {
        Arc::clone(&self.lag)
    }

    /// Turns of its loop so far.
    pub fn turns(&self) -> u64 {
        self.turns.value()
    }

    /// Has it make a turn soon, also where nothing is to be checked; does not wait for it.
    pub fn turn(&self) {
        self.tell(Order::Turn);
    }

    /// Ends the thread and waits for it; checks under way come to nothing.
    pub fn stop(self) {
        self.tell(Order::Stop);
        // A panic there has ended the process, or is reported where threads may panic: in tests.
        if self.thread.join().is_err() {
            log::error!("the prober had panicked");
        }
    }

    fn tell(&self, order: Order) {
        // It is gone only after a panic, which has ended the process.
        self.outbox.send(order).unwrap_or(());
    }
}

#[cfg(test)]
mod tests;
