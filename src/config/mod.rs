//! The configuration as the program uses it: checked, complete, ready to run. Nothing here is
//! optional that must be there, names are resolved to ids, and defaults are filled in.
//!
//! The way there: `yaml` turns text into a `tree` of values with their places (and `arguments` turns
//! the command line into one), `reader` makes of that a `file`: what the user wrote, typed; `check`
//! turns that into [`Config`] or into all [`Mistakes`] at once.

mod address;
mod arguments;
mod check;
pub mod diff;
mod file;
mod health;
mod loops;
mod mistake;
mod reader;
mod tree;
mod words;
mod yaml;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::balance::Algorithm;
use crate::ids::PoolId;

pub use arguments::{Arguments, from_arguments};
pub use check::SERVERS_MAX;
pub use loops::reached;
pub use mistake::Mistakes;
pub use words::{DURATION_MAX, NAME_BYTES_MAX, WEIGHT_MAX, is_name};

/// 1,000 pools of 10 servers with every key written out take less than 2 MiB.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The path that means standard input.
const STDIN: &str = "-";

/// Why a file gave no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is not there, or may not be read.
    #[error("cannot read {}: {source}{}", name_of(path), remedy(source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is too large to be a configuration.
    #[error("{}: the file is over {} MiB, write a shorter one", name_of(path), FILE_BYTES_MAX >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It was read, and something in it is wrong.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
}

/// What to do about it, where the kernel's words do not say so.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::IsADirectory => ", name a file in it",
        io::ErrorKind::PermissionDenied => {
            ", it must be readable by the user that evenkeel runs as"
        }
        _ => "",
    }
}

/// What messages call a file.
#[must_use]
pub fn name_of(path: &Path) -> String {
    if path == Path::new(STDIN) {
        return "standard input".to_owned();
    }
    path.display().to_string()
}

/// Reads a configuration from a file, or from standard input where the path is `-`.
///
/// # Errors
/// Where the file cannot be read, or with everything that is wrong in it.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    let unreadable = |source| LoadError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let count = read_bytes(path, &mut bytes).map_err(unreadable)?;
    if count as u64 > FILE_BYTES_MAX {
        return Err(LoadError::TooLarge {
            path: path.to_owned(),
        });
    }
    let name = name_of(path);
    let text = mistake::text(&name, &bytes)?;
    Ok(read(&name, text)?)
}

/// At most one byte more than a configuration may have.
fn read_bytes(path: &Path, bytes: &mut Vec<u8>) -> io::Result<usize> {
    // Not by the size that the file states: it may be a pipe.
    let most = FILE_BYTES_MAX + 1;
    if path == Path::new(STDIN) {
        return io::stdin().lock().take(most).read_to_end(bytes);
    }
    File::open(path)?.take(most).read_to_end(bytes)
}

/// Reads a configuration from a text; `name` is what messages call it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read(name: &str, text: &str) -> Result<Config, Mistakes> {
    let mut mistakes = Mistakes::new(name);
    let root = yaml::parse(text, &mut mistakes);
    let config = root.and_then(|root| from_tree(&root, &mut mistakes));
    mistakes.or_else_this(config)
}

fn from_tree(root: &tree::Node, mistakes: &mut Mistakes) -> Option<Config> {
    let file = reader::read(root, mistakes)?;
    check::check(&file, mistakes)
}

/// A configuration that can be run as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Event loops; `None` is one per usable core.
    pub workers: Option<NonZeroUsize>,
    /// Connections of the whole process; `None` is what the descriptor limit allows.
    pub max_connections: Option<NonZeroU32>,
    /// How long connections may go on after SIGTERM.
    pub shutdown_timeout: Duration,
    /// How the process is seen and steered.
    pub admin: Admin,
    /// Where lines go.
    pub log: Log,
    /// Indexed by `ListenerId`.
    pub listeners: Vec<Listener>,
    /// Indexed by `PoolId`.
    pub pools: Vec<Pool>,
}

/// How the process is seen and steered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admin {
    /// Where the unix socket appears.
    pub socket: AdminSocket,
    /// Where HTTP is answered over TCP; `None` is `off`.
    pub http: Option<SocketAddr>,
    /// Host names, besides the socket's own address and `localhost`, that requests over TCP may be
    /// for.
    pub http_hosts: Vec<String>,
    /// A file whose content lets HTTP requests over TCP change things.
    pub http_token_file: Option<PathBuf>,
    /// Whether HTTP requests over TCP may change things without a token: a demonstration alone.
    pub is_open: bool,
}

/// Where the admin socket appears.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdminSocket {
    /// At the usual place, if that can be made.
    #[default]
    Default,
    /// Here, or the process does not start.
    At(PathBuf),
    /// Nowhere.
    Off,
}

/// What happens to the connections of a server that goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDown {
    /// They go on for as long as the peers do.
    #[default]
    Keep,
    /// They are closed.
    Close,
}

/// The process log and the access log.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// The least urgent level that the process log (stderr) shows.
    pub level: log::LevelFilter,
    /// Where access lines go.
    pub access: AccessLog,
    /// How an access line looks.
    pub format: LogFormat,
}

/// Where access lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Nowhere.
    Off,
    /// Appended to this file.
    File(PathBuf),
}

impl std::fmt::Display for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::Off => f.write_str("off"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// How an access line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value`, separated by blanks.
    Text,
    /// One JSON object.
    Json,
}

/// An address that clients connect to, and the rules at that door.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Its key in the file.
    pub name: Arc<str>,
    /// At least one; port 0 asks the kernel for a free one.
    pub bind: Vec<SocketAddr>,
    /// Where its connections go.
    pub pool: PoolId,
    /// No byte either way for this long ends a connection.
    pub idle_timeout: Duration,
    /// One side has ended and the other sends nothing for this long.
    pub half_close_timeout: Duration,
}

/// Servers that are interchangeable, and how one is picked.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Its key in the file.
    pub name: Arc<str>,
    /// How a server is picked.
    pub algorithm: Algorithm,
    /// Used by `ip_hash` alone.
    pub hash: Hash,
    /// For each try.
    pub connect_timeout: Duration,
    /// Other servers tried when one does not accept.
    pub retries: u32,
    /// What happens to the connections of a server that goes down.
    pub on_down: OnDown,
    /// `None` is `health: off`: every server counts as up.
    pub health: Option<Arc<Health>>,
    /// At least one, and one of them with a weight above zero.
    pub servers: Vec<Server>,
}

/// What of a client's address `ip_hash` looks at, and how full it may make a server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hash {
    /// Leading bits of an IPv4 address, at most 32.
    pub ipv4_prefix: u8,
    /// Leading bits of an IPv6 address, at most 128.
    pub ipv6_prefix: u8,
    /// A server takes at most this many times its fair share of the pool's connections; at least 1.
    pub bounded_load: Option<f64>,
}

/// One backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Unique in its pool; the address where none is given.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share against the others; 0 takes no new connection.
    pub weight: u32,
    /// Over all workers; `None` is no limit.
    pub max_connections: Option<NonZeroU32>,
    /// Only picked while no other server can take the connection.
    pub backup: bool,
}

/// How a pool's servers are checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// What is sent, and which answer is good.
    pub check: Check,
    /// From one check's start to the next one's.
    pub interval: Duration,
    /// For the whole exchange.
    pub timeout: Duration,
    /// Good answers in a row that make a server up.
    pub rise: NonZeroU32,
    /// Bad answers in a row that make a server down.
    pub fall: NonZeroU32,
    /// Where it differs from the server's own.
    pub port: Option<u16>,
}

/// What is sent, and which answer is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// The connect succeeds.
    Tcp,
    /// An HTTP/1.1 GET is answered as expected.
    Http(HttpCheck),
    /// Bytes are sent, and the answer contains what is expected.
    SendExpect {
        /// Sent once connected; may be empty.
        send: Vec<u8>,
        /// Looked for in what the server sends.
        expect: Vec<u8>,
    },
}

/// An HTTP/1.1 GET and the answer that is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// Begins with `/`.
    pub path: String,
    /// The Host header; the checked address where `None`.
    pub host: Option<String>,
    /// Inclusive ranges within 100..=599.
    pub expect_status: Vec<std::ops::RangeInclusive<u16>>,
    /// Looked for in the body.
    pub expect_body: Option<String>,
}
