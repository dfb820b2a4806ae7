//! The admin side: HTTP over a unix socket and, where configured, over TCP, on a thread of its own
//! that no worker ever waits for. tokio and axum live here and nowhere else.
//!
//! It reads what all threads share (`roster`, counters, events) and asks the process for everything
//! else ([`request`]).

mod access;
mod bounds;
pub mod client;
mod connections;
mod dashboard;
mod desk;
pub mod exhibit;
mod extract;
mod fault;
mod handover;
mod listen;
mod metrics;
mod phase;
mod pools;
mod readiness;
mod reload;
mod reply;
pub mod request;
mod routes;
mod serve;
mod status;
mod stream;
#[cfg(test)]
mod tests;
mod token;
mod upgrade;
mod visit;
mod wishes;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use self::access::Rules;
use self::bounds::Bounds;
use self::desk::Desk;
use self::exhibit::Exhibit;
use self::handover::{BoundUnix, File, Http, Left};
pub use self::handover::{HttpSocket, Sockets, bind_with};
use self::request::Request;
use self::serve::{Doors, Ending, Listeners, Order};
use self::token::Token;
use crate::bind::unix::SocketFile;
use crate::clock::Now;
use crate::config;
use crate::pool::ledger::Ledger;
use crate::roster::Board;
use crate::telemetry::counters::Counters;
use crate::telemetry::events::Events;
use crate::telemetry::lag::Lag;
use crate::telemetry::resolutions::Resolutions;

/// Where the admin socket is unless the config says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/evenkeel/admin.sock";

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
    /// How often names and files were looked at.
    pub resolutions: Arc<Resolutions>,
    /// Where requests go; the process answers them on its main thread.
    pub requests: Sender<Request>,
    /// Processes of this line that have handed over before this one.
    pub upgrades: u64,
    /// Upgrades of this line that came to nothing.
    pub upgrades_failed: Arc<AtomicU64>,
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
pub struct Bound {
    unix: Option<BoundUnix>,
    http: Option<Http>,
    rules: Rules,
    /// What was inherited and is wanted no more.
    left: Option<Left>,
}

/// Binds what the config asks for. The unix socket appears with its mode already set; a stale one,
/// which nobody answers at, is replaced.
///
/// # Errors
/// Where an address that was asked for cannot be had, or the token cannot be read. A default socket
/// path that cannot be made is logged once instead.
pub fn bind(config: &config::Admin) -> Result<Bound, AdminError> {
    bind_with(config, Sockets::default())
}

/// Who may ask for what.
fn rules(config: &config::Admin) -> Result<Rules, AdminError> {
    let (token, doubts) = token(config)?;
    for doubt in doubts {
        log::warn!("{doubt}");
    }
    if let Some(address) = config.http.filter(|http| !http.ip().is_loopback()) {
        log::warn!(
            "admin.http: whoever reaches {address} sees everything, without TLS and without a token: \
             let it be a network for management"
        );
    }
    Ok(Rules {
        token,
        hosts: config.http_hosts.clone(),
        is_open: config.is_open,
    })
}

/// What [`bind`] would doubt, a line each, as far as that can be seen without a socket. A token that
/// is not there is one of them: a secret is often not where a config is written and checked.
///
/// # Errors
/// What it would refuse.
pub fn foresee(config: &config::Admin) -> Result<Vec<String>, AdminError> {
    if let Err(error) = listen::foresee(&config.socket) {
        return match &error {
            AdminError::Bind { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Ok(vec![refuses(&error)])
            }
            _ => Err(error),
        };
    }
    let file = config.http_token_file.as_deref();
    match token(config) {
        Ok((_, doubts)) => Ok(doubts),
        Err(error) if file.is_some_and(|file| matches!(file.try_exists(), Ok(false))) => {
            Ok(vec![refuses(&error)])
        }
        Err(error) => Err(error),
    }
}

/// A warning of what `run` would say here and now.
pub fn refuses(error: &impl std::fmt::Display) -> String {
    format!("`run` refuses to start: {error}")
}

/// The folder that [`bind`] makes for its socket where it is not there.
pub fn socket_folder(config: &config::Admin) -> Option<&Path> {
    match &config.socket {
        config::AdminSocket::Off => None,
        config::AdminSocket::At(path) => path.parent(),
        config::AdminSocket::Default => Path::new(DEFAULT_SOCKET).parent(),
    }
}

/// The token, and what makes it a weak one.
fn token(config: &config::Admin) -> Result<(Option<Token>, Vec<String>), AdminError> {
    let Some(path) = &config.http_token_file else {
        return Ok((None, Vec::new()));
    };
    let token = Token::read(path)?;
    let doubts = token.doubts(path);
    Ok((Some(token), doubts))
}

impl Bound {
    /// Where HTTP over TCP is answered; port 0 has become a real one.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http.as_ref()?.listener.local_addr().ok()
    }

    /// Where the unix socket is; `None` where there is none.
    pub fn socket(&self) -> Option<&Path> {
        self.unix.as_ref().map(|(_, file)| file.path())
    }

    /// Serves on a new thread.
    ///
    /// # Errors
    /// Where the thread or its runtime cannot be made.
    pub fn serve(self, shared: Shared) -> io::Result<Admin> {
        self.serve_within(Bounds::USUAL, shared)
    }

    fn serve_within(self, bounds: Bounds, shared: Shared) -> io::Result<Admin> {
        let (stop, stopping) = watch::channel(Ending::default());
        let (unix, file) = self.unix.unzip();
        let (written, http) = self.http.map(|http| (http.written, http.listener)).unzip();
        let desk = Desk::new(shared, self.rules, bounds, stopping);
        let served = serve::spawn(Listeners { unix, http }, desk)?;
        if let Some((mut file, _socket)) = self.left {
            drop(file.take());
        }
        Ok(Admin {
            thread: served.thread,
            doors: served.doors,
            orders: served.orders,
            stop,
            socket: file.and_then(File::take),
            written,
            bounds,
        })
    }
}

/// The thread; it ends with [`Admin::stop`], or with [`Admin::let_go`] where another process goes on.
#[derive(Debug)]
pub struct Admin {
    thread: JoinHandle<()>,
    /// What it listens at, for whoever takes it over.
    doors: Doors,
    orders: UnboundedSender<Order>,
    stop: watch::Sender<Ending>,
    /// Its file goes away with this.
    socket: Option<SocketFile>,
    /// The address of HTTP as the config has it.
    written: Option<SocketAddr>,
    bounds: Bounds,
}

impl Admin {
    /// Ends it, open streams too, within little more than a second, and removes the socket's file
    /// where it still is ours.
    pub fn stop(self) {
        // Before the end of the thread: who finds no file is told that nobody runs here.
        drop(self.socket);
        drop(self.doors);
        self.stop.send_replace(Ending(Some(self.bounds.goodbye)));
        // A panic has ended the process long before.
        self.thread.join().unwrap_or(());
    }
}
