//! The configuration as the program uses it: checked, complete, ready to run. Nothing here is
//! optional that must be there, names are resolved to ids, and defaults are filled in.
//!
//! The way there: `yaml` turns text into a `tree` of values with their places (and `arguments` turns
//! the command line into one), `reader` makes of that a `file`: what the user wrote, typed; `check`
//! turns that into [`Config`] or into all [`Mistakes`] at once.

mod address;
mod arguments;
mod check;
mod checks;
pub mod diff;
mod elsewhere;
mod file;
mod found;
mod health;
mod listener;
mod loops;
mod mistake;
mod networks;
mod pool;
mod reader;
mod ready_when;
mod server_names;
mod servers_file;
mod target;
mod terms;
mod tree;
mod useless;
mod words;
mod yaml;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use crate::address::Address;

pub use arguments::{Arguments, from_arguments};
pub use check::SERVERS_MAX;
pub use checks::{
    AgentCheck, Check, ExecCheck, GrpcCheck, Health, HttpCheck, MysqlCheck, PostgresCheck,
    PostgresRole, RedisCheck, Tls,
};
pub use found::{Answers, Expansion, Found, expand, keep_weights};
pub use listener::{Keepalive, Limits, Listener, ProxyProtocol, Route, ServerPattern, Tcp};
pub use loops::reached;
pub use mistake::Mistakes;
pub use pool::{
    Hash, OnDown, Outlier, Pool, Question, Queue, SendProxy, Server, ServerTcp, Template,
};
pub use ready_when::ReadyWhen;
pub use servers_file::read_servers;
pub use useless::useless;
pub use words::{DURATION_MAX, NAME_BYTES_MAX, WEIGHT_MAX, is_name};

/// A server's address as a config has it, for whoever else may name one: `10.0.0.11:5432`,
/// `[2001:db8::1]:80`, `unix:/path`.
///
/// # Errors
/// What is wrong with it, and what to write.
pub fn server_address(text: &str) -> Result<Address, String> {
    let address = address::server(text, mistake::Place::START);
    address.map_err(|wrong| wrong.text())
}

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
    load_with_digest(path).map(|(config, _)| config)
}

/// The same, with the [`digest`] of what was read.
///
/// # Errors
/// As [`load`].
pub fn load_with_digest(path: &Path) -> Result<(Config, String), LoadError> {
    let bytes = bytes_of(path)?;
    let name = name_of(path);
    let text = mistake::text(&name, &bytes)?;
    Ok((read(&name, text)?, digest(&bytes)))
}

/// Whether a file says what it said before: another digest means that it does not. Two programs must
/// agree on it, so it stays as it is in every version.
#[must_use]
pub fn digest(text: &[u8]) -> String {
    format!("{:016x}", xxh3_64(text))
}

/// Reads the servers of a `servers_file`.
///
/// # Errors
/// Where the file cannot be read, or with everything that is wrong in it.
pub fn load_servers(path: &Path) -> Result<Vec<Found>, LoadError> {
    // A pipe would hold us up for as long as nobody writes to it.
    let is_file = std::fs::metadata(path).map(|metadata| metadata.is_file());
    let ordinary = is_file.and_then(|is_file| match is_file {
        true => Ok(()),
        false => Err(io::Error::other("it is no ordinary file")),
    });
    ordinary.map_err(|source| LoadError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    Ok(servers_file::read_servers(path, &bytes_of(path)?)?)
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, LoadError> {
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
    Ok(bytes)
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
    /// Whether connections outlive a process that is killed.
    pub survive_restart: bool,
    /// Which pools must have a server for this node to get traffic.
    pub ready_when: ReadyWhen,
    /// How the process is seen and steered.
    pub admin: Admin,
    /// Where lines go.
    pub log: Log,
    /// Indexed by `ListenerId`.
    pub listeners: Vec<Listener>,
    /// Indexed by `PoolId`.
    pub pools: Vec<Pool>,
}

impl Config {
    /// The files with servers, each once, in the order of the pools.
    #[must_use]
    pub fn servers_files(&self) -> Vec<&Path> {
        let templates = self.pools.iter().flat_map(|pool| &pool.templates);
        let mut seen = HashSet::new();
        templates
            .filter_map(|template| match &*template.question {
                Question::File(path) => Some(path.as_path()),
                Question::Host { .. } | Question::Service(_) => None,
            })
            .filter(|path| seen.insert(*path))
            .collect()
    }
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
