//! What the page reads and turns, as atomics: the API's thread never waits for a loop, and a loop
//! never for the API's thread.
//!
//! Wishes are written by the API and read by the loops; counts are each written by one loop. Nothing
//! here knows how a wish is met.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::Duration;

/// Connections a second when the demonstration begins: enough to see a share move within a second.
const RATE_AT_START: u32 = 200;
/// How long a server takes over an answer when the demonstration begins: some connections are active
/// at any time, as with real servers, and there is something to count for those who count them.
const DELAY_AT_START_MS: u32 = 20;
/// Stands for "no server yet" and "no latency yet".
const NONE: u64 = u64::MAX;

/// All of them.
#[derive(Debug)]
pub(super) struct Dials {
    pub(super) load: LoadDials,
    /// Named s1, s2 and so on in this order.
    pub(super) servers: Vec<ServerDials>,
    pub(super) clients: Vec<ClientDials>,
    /// Set once, when the loops are to end.
    is_ending: AtomicBool,
}

impl Dials {
    pub(super) fn new(servers: Vec<SocketAddr>, clients: Vec<IpAddr>) -> Self {
        Self {
            load: LoadDials::default(),
            servers: servers.into_iter().map(ServerDials::new).collect(),
            clients: clients.into_iter().map(ClientDials::new).collect(),
            is_ending: AtomicBool::new(false),
        }
    }

    pub(super) fn end(&self) {
        self.is_ending.store(true, Release);
    }

    pub(super) fn is_ending(&self) -> bool {
        self.is_ending.load(Acquire)
    }
}

/// The name of the server at `index`.
pub(super) fn server_name(index: usize) -> String {
    format!("s{}", index + 1)
}

/// The place of a server by its name, were there as many servers as that.
pub(super) fn server_index(name: &str) -> Option<usize> {
    let number: usize = name.strip_prefix('s')?.parse().ok()?;
    let index = number.checked_sub(1)?;
    // Not `s01`, nor `s+1`.
    (server_name(index) == name).then_some(index)
}

/// The load generator's.
#[derive(Debug)]
pub(super) struct LoadDials {
    is_running: AtomicBool,
    /// Connections a second, 1 to 2,000.
    rate: AtomicU32,
    /// Always the sum of answered, errors and those in flight, but for a moment.
    pub(super) opened: AtomicU64,
    pub(super) answered: AtomicU64,
    pub(super) errors: AtomicU64,
    /// Due, and not opened: too many were in flight, or descriptors were out.
    pub(super) skipped: AtomicU64,
    pub(super) in_flight: AtomicU64,
    pub(super) errors_recent: AtomicU64,
    p50_us: AtomicU64,
    p99_us: AtomicU64,
}

impl Default for LoadDials {
    fn default() -> Self {
        Self {
            is_running: AtomicBool::new(true),
            rate: AtomicU32::new(RATE_AT_START),
            opened: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            errors_recent: AtomicU64::new(0),
            p50_us: AtomicU64::new(NONE),
            p99_us: AtomicU64::new(NONE),
        }
    }
}

impl LoadDials {
    pub(super) fn is_running(&self) -> bool {
        self.is_running.load(Acquire)
    }

    pub(super) fn run(&self, is_running: bool) {
        self.is_running.store(is_running, Release);
    }

    /// Connections a second.
    pub(super) fn rate(&self) -> u32 {
        self.rate.load(Acquire)
    }

    pub(super) fn turn_rate(&self, per_second: u32) {
        self.rate.store(per_second, Release);
    }

    /// The 50th and 99th percentile of the last seconds' answers.
    pub(super) fn latencies(&self) -> [Option<Duration>; 2] {
        [&self.p50_us, &self.p99_us].map(|dial| {
            let us = dial.load(Relaxed);
            (us != NONE).then_some(Duration::from_micros(us))
        })
    }

    pub(super) fn set_latencies(&self, latencies: [Option<Duration>; 2]) {
        for (dial, latency) in [&self.p50_us, &self.p99_us].into_iter().zip(latencies) {
            let us = latency.map(|latency| u64::try_from(latency.as_micros()).unwrap_or(NONE));
            dial.store(us.unwrap_or(NONE), Relaxed);
        }
    }
}

/// One server's.
#[derive(Debug)]
pub(super) struct ServerDials {
    pub(super) address: SocketAddr,
    is_alive: AtomicBool,
    delay_ms: AtomicU32,
    /// Requests for `/`; health checks are not among them.
    pub(super) answered: AtomicU64,
}

impl ServerDials {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            is_alive: AtomicBool::new(true),
            delay_ms: AtomicU32::new(DELAY_AT_START_MS),
            answered: AtomicU64::new(0),
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.is_alive.load(Acquire)
    }

    pub(super) fn turn_alive(&self, is_alive: bool) {
        self.is_alive.store(is_alive, Release);
    }

    /// Before it answers a request for `/`.
    pub(super) fn delay_ms(&self) -> u32 {
        self.delay_ms.load(Acquire)
    }

    pub(super) fn turn_delay(&self, ms: u32) {
        self.delay_ms.store(ms, Release);
    }
}

/// One client address of the load.
#[derive(Debug)]
pub(super) struct ClientDials {
    pub(super) address: IpAddr,
    server: AtomicU64,
    changes: AtomicU64,
}

impl ClientDials {
    fn new(address: IpAddr) -> Self {
        Self {
            address,
            server: AtomicU64::new(NONE),
            changes: AtomicU64::new(0),
        }
    }

    /// Which server answered last.
    pub(super) fn server(&self) -> Option<usize> {
        usize::try_from(self.server.load(Relaxed))
            .ok()
            .filter(|index| *index as u64 != NONE)
    }

    /// How often another server answered than the time before.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }

    pub(super) fn note(&self, server: usize) {
        let before = self.server.swap(server as u64, Relaxed);
        if before != NONE && before != server as u64 {
            self.changes.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_one_name_each() {
        for index in 0..20 {
            assert_eq!(server_index(&server_name(index)), Some(index));
        }
        for wrong in ["", "s", "s0", "s01", "s+1", "S1", "1", "s1 "] {
            assert_eq!(server_index(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_client_counts_how_often_its_server_changes() {
        let client = ClientDials::new(IpAddr::from([127, 0, 0, 11]));
        assert_eq!(client.server(), None);
        for server in [0, 0, 1, 1, 0] {
            client.note(server);
        }
        assert_eq!((client.server(), client.changes()), (Some(0), 2));
    }
}
