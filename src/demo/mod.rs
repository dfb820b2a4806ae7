//! A demonstration: real servers behind real sockets and a load on a real listener, all in this
//! process, with dials to turn while it runs. Everything between the two is the production path, to
//! which nothing here belongs.
//!
//! ```text
//!  API --- dials ---> servers (one thread) <--- connections --- listener, pool, checks
//!              \----> load (one thread) ---- connections ----------^
//! ```
//! Neither thread knows the other; the load only sees the listener, as any client does.

mod dials;
mod exhibit;
mod guest;
mod load;
mod place;
mod recent;
mod servers;
mod service;
mod setting;
#[cfg(test)]
mod tests;
mod token;
mod visit;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mio::{Events, Poll, Waker};

use self::dials::Dials;
use self::load::Load;
use self::servers::Servers;
use crate::config::{Config, Mistakes};
use crate::sys;

pub use self::place::Place;
pub use self::token::Token;

/// Client addresses of the load: 127.0.0.11 to 127.0.0.34. So many that a hash over them spreads.
const CLIENTS: u8 = 24;
const FIRST_CLIENT: u8 = 11;
/// Visits at once: 50 a second and server wait for a server with a delay of 10 s.
const IN_FLIGHT_MAX: u64 = 512;
/// The event by which a loop is woken.
const WAKE: mio::Token = mio::Token(0);

/// Why there is no demonstration.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The kernel refused.
    #[error("demo: {doing}: {source}")]
    System {
        /// What we were doing.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The configuration that we wrote.
    #[error(transparent)]
    Config(#[from] Mistakes),
}

/// A demonstration that runs; it ends when this is dropped.
#[derive(Debug)]
pub struct Demo {
    dials: Arc<Dials>,
    loops: Vec<Running>,
}

/// A loop on its thread.
#[derive(Debug)]
struct Running {
    waker: Waker,
    /// Taken when it is joined.
    thread: Option<JoinHandle<()>>,
}

impl Demo {
    /// Starts so many servers, and a load on `listen` that begins once somebody accepts there. Gives
    /// also the configuration that brings the two together; where it is seen and steered is left to
    /// the caller.
    ///
    /// # Errors
    /// Where the kernel has no ports, descriptors or threads.
    pub fn start(listen: SocketAddr, servers: usize) -> Result<(Self, Config), DemoError> {
        let system = |doing| move |source| DemoError::System { doing, source };
        let limit =
            sys::limits::raise_descriptors().map_err(system("read the descriptor limit"))?;
        let connections_max = setting::connections_max(limit);
        let places = (0..servers).map(|_| Place::take((Ipv4Addr::LOCALHOST, 0).into()));
        let places: Vec<_> = places
            .collect::<io::Result<_>>()
            .map_err(system("find free ports"))?;
        let addresses: Vec<_> = places.iter().map(Place::address).collect();
        let config = setting::config(&setting::text(listen, &addresses, connections_max))?;
        // A quarter is left for whoever tries the listener by hand.
        let most = IN_FLIGHT_MAX.min(connections_max.div_ceil(4) * 3);
        let demo = Self::start_loops(listen, places, usize::try_from(most).unwrap_or(1))
            .map_err(system("start its threads"))?;
        Ok((demo, config))
    }

    fn start_loops(listen: SocketAddr, places: Vec<Place>, most: usize) -> io::Result<Self> {
        let target = reachable(listen);
        let addresses = places.iter().map(Place::address).collect();
        let dials = Arc::new(Dials::new(addresses, clients(target)));
        let mut demo = Self {
            dials: Arc::clone(&dials),
            loops: Vec::new(),
        };
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let servers = Servers::new(poll, Arc::clone(&dials), places)?;
        demo.run("demo-servers", waker, || servers.run())?;
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let load = Load::new(poll, dials, target, most);
        demo.run("demo-load", waker, || load.run())?;
        Ok(demo)
    }

    /// Puts a loop on a thread of its own.
    fn run(
        &mut self,
        name: &'static str,
        waker: Waker,
        run: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            if let Err(error) = run() {
                log::error!("{name} has ended: {error}");
            }
        })?;
        self.loops.push(Running {
            waker,
            thread: Some(thread),
        });
        Ok(())
    }

    /// Makes the loops look at the dials.
    fn wake(&self) {
        for running in &self.loops {
            // An eventfd that cannot be written is woken already.
            running.waker.wake().unwrap_or(());
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.dials.end();
        self.wake();
        for thread in self.loops.iter_mut().filter_map(|l| l.thread.take()) {
            // A panic has ended the process before.
            thread.join().unwrap_or(());
        }
    }
}

/// Where a client reaches a listener that may be bound to every address.
#[must_use]
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// The addresses that the load comes from. Only IPv4 has a whole network of loopback addresses.
fn clients(target: SocketAddr) -> Vec<IpAddr> {
    match target.ip() {
        IpAddr::V4(_) => (FIRST_CLIENT..FIRST_CLIENT + CLIENTS)
            .map(|last| Ipv4Addr::new(127, 0, 0, last).into())
            .collect(),
        address @ IpAddr::V6(_) => vec![address],
    }
}

/// Waits for events; a signal in between is none.
fn wait(poll: &mut Poll, events: &mut Events, rest: Option<Duration>) -> io::Result<()> {
    match poll.poll(events, rest) {
        Err(error) if error.kind() == ErrorKind::Interrupted => {
            events.clear();
            Ok(())
        }
        outcome => outcome,
    }
}
