//! What differs between two configurations, in words: for what a reload would do, what it has done,
//! and how far the running state has moved away from its file. Pure: it changes nothing.
//!
//! Things are the same where their names are: an index means something in its own configuration
//! alone. Each struct is taken apart without `..`, so that a new field does not compile before it is
//! compared here.

mod checks;
mod listeners;
mod pair;
mod pools;
mod servers;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use super::{AccessLog, Admin, AdminSocket, Config, Log, LogFormat, ReadyWhen};
use pair::{Thing, changed, duration, or};

/// Which thing differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The listener of that name.
    Listener(Arc<str>),
    /// The pool of that name, with all its servers where it comes or goes.
    Pool(Arc<str>),
    /// One server.
    Server {
        /// The pool's name.
        pool: Arc<str>,
        /// Its own.
        server: Arc<str>,
    },
    /// The process as a whole.
    Process,
}

/// Whether the thing's living connections notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// They do not.
    Nothing,
    /// Their listener, pool or server goes, or is elsewhere from now on.
    Connections,
}

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which one; several differences may be of the same thing.
    pub what: What,
    /// Whose connections are touched: those of `what`.
    pub touch: Touch,
    /// One line for people, such as `server web/a: weight 1 -> 3`.
    pub text: String,
}

/// Everything that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// What takes effect while the process runs: the process, listeners, pools; a pool's servers
    /// right after it.
    pub changes: Vec<Difference>,
    /// What only another process can change, a line each, such as `workers auto -> 4`.
    pub restart: Vec<String>,
}

/// What has to change for `running` to become `wanted`. Takes time in proportion to both.
pub fn diff(running: &Config, wanted: &Config) -> Differences {
    let Config {
        workers,
        max_connections,
        shutdown_timeout,
        survive_restart,
        ready_when,
        admin,
        log,
        listeners: _,
        pools,
    } = running;
    let mut all = Differences::default();
    let Differences { changes, restart } = &mut all;
    restart.extend(changed("workers", workers, &wanted.workers, or("auto")));
    let survive = &wanted.survive_restart;
    let word = bool::to_string;
    restart.extend(changed("survive_restart", survive_restart, survive, word));
    restart.extend(admin_lines(admin, &wanted.admin));
    let mut process = Thing::new(What::Process, changes);
    let most = &wanted.max_connections;
    process.key("max_connections", max_connections, most, or("auto"));
    let timeout = &wanted.shutdown_timeout;
    process.key("shutdown_timeout", shutdown_timeout, timeout, duration);
    let ready = &wanted.ready_when;
    process.key("ready_when", ready_when, ready, ReadyWhen::to_string);
    restart.extend(diff_log(log, &wanted.log, &mut process));
    listeners::diff_listeners(running, wanted, changes);
    pools::diff_pools(pools, &wanted.pools, changes);
    all
}

fn admin_lines(running: &Admin, wanted: &Admin) -> impl Iterator<Item = String> {
    let Admin {
        socket,
        http,
        http_hosts,
        http_token_file,
        // No file can ask for it: it comes with the demonstration, and stays.
        is_open: _,
    } = running;
    let socket_word = |socket: &AdminSocket| match socket {
        AdminSocket::Default => "default".to_owned(),
        AdminSocket::At(path) => path.display().to_string(),
        AdminSocket::Off => "off".to_owned(),
    };
    let file_word = |path: &Option<PathBuf>| match path {
        Some(path) => path.display().to_string(),
        None => "none".to_owned(),
    };
    let host_words = |hosts: &Vec<String>| match hosts.as_slice() {
        [] => "none".to_owned(),
        hosts => hosts.join(", "),
    };
    let (hosts, file) = (&wanted.http_hosts, &wanted.http_token_file);
    let lines = [
        changed("admin.socket", socket, &wanted.socket, socket_word),
        changed("admin.http", http, &wanted.http, or("off")),
        changed("admin.http_hosts", http_hosts, hosts, host_words),
        changed("admin.http_token_file", http_token_file, file, file_word),
    ];
    lines.into_iter().flatten()
}

/// Answers what only another process can change.
fn diff_log(
    running: &Log,
    wanted: &Log,
    process: &mut Thing<'_>,
) -> impl Iterator<Item = String> + use<> {
    let Log {
        level,
        access,
        format,
    } = running;
    let level_word = |level: &log::LevelFilter| level.as_str().to_ascii_lowercase();
    process.key("log.level", level, &wanted.level, level_word);
    let format_word = |format: &LogFormat| match format {
        LogFormat::Text => "text".to_owned(),
        LogFormat::Json => "json".to_owned(),
    };
    let lines = [
        changed("log.access", access, &wanted.access, AccessLog::to_string),
        changed("log.format", format, &wanted.format, format_word),
    ];
    lines.into_iter().flatten()
}
