//! What can be seen of a config before it runs: what the start would refuse, and what would run but
//! cannot work as it stands. Files are looked at, no socket is opened and nobody is asked.
//!
//! What it sees is true of this machine and this user, at this moment.

use std::path::Path;
use std::{fs, io};

use super::{Room, StartError, limits, worker_count};
use crate::address::Address;
use crate::config::{self, Check, Config, Health, Listener, LoadError};
use crate::prober::Kit;
use crate::relay::pipe_cache::Quota;
use crate::sys::file::{self, Right};
use crate::sys::limits::{PipeLimits, raise_descriptors};
use crate::telemetry::access_log;
use crate::{admin, bind};

/// What was seen, each in the order of the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Preflight {
    /// The start would end with one of these.
    pub refusals: Vec<String>,
    /// The process would run, and not as its author thinks.
    pub warnings: Vec<String>,
}

impl Preflight {
    /// The start would end with `refusal`, here and now. What is not there at all may be on the machine
    /// that the config is for, or be made by whoever starts the process, as systemd does.
    fn refuse(&mut self, kind: io::ErrorKind, refusal: &StartError) {
        match kind {
            io::ErrorKind::NotFound => self.warnings.push(admin::refuses(refusal)),
            _ => self.refusals.push(refusal.to_string()),
        }
    }
}

/// Looks at everything that a start with `config` would need, but for files with servers.
#[must_use]
pub fn preflight(config: &Config) -> Preflight {
    let mut seen = Preflight::default();
    match admin::foresee(&config.admin) {
        Ok(doubts) => seen.warnings.extend(doubts),
        Err(error) => seen.refusals.push(error.to_string()),
    }
    if let Err(source) = access_log::foresee(&config.log.access) {
        let (path, kind) = (config.log.access.to_string(), source.kind());
        seen.refuse(kind, &StartError::AccessLog { path, source });
    }
    // Whoever starts the process may give it other limits, as systemd does.
    if let Err(error) = room(config) {
        seen.warnings.push(error.to_string());
    }
    let listeners = config.listeners.iter();
    let made = admin::socket_folder(&config.admin);
    for (kind, refusal) in listeners.flat_map(|listener| refused_sockets(listener, made)) {
        seen.refuse(kind, &refusal);
    }
    seen.warnings.extend(warnings(config));
    seen
}

/// Whether there are descriptors enough.
fn room(config: &Config) -> Result<u32, StartError> {
    let Ok(limit) = raise_descriptors() else {
        return Ok(0);
    };
    let workers = worker_count(config);
    let room = Room {
        workers,
        limit,
        surplus: 0,
        quota: Quota::new(PipeLimits::read(), limit, workers),
        max_connections: 0,
    };
    limits::max_connections(config, &room)
}

/// The files of a listener's unix sockets that could not be made. The folder `made` is there by then.
fn refused_sockets<'c>(
    listener: &'c Listener,
    made: Option<&'c Path>,
) -> impl Iterator<Item = (io::ErrorKind, StartError)> + 'c {
    listener.bind.iter().filter_map(move |address| {
        let Address::Unix(name) = address else {
            return None;
        };
        let obstacle = bind::unix::foresee_named(name).err()?;
        let kind = obstacle.source.kind();
        let is_missing = kind == io::ErrorKind::NotFound;
        if is_missing && made.is_some() && name.path()?.parent() == made {
            return None;
        }
        let refusal = StartError::Bind {
            listener: listener.name.to_string(),
            address: address.clone(),
            source: obstacle.source,
            hint: obstacle.hint,
        };
        Some((kind, refusal))
    })
}

/// What a reload of `config` would apply without effect or in vain.
pub(super) fn of_reload(config: &Config) -> Vec<String> {
    let mut warnings = warnings(config);
    warnings.extend(servers_files(config));
    warnings
}

fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = config::useless(config);
    let mut kits: Vec<(&Health, Option<String>)> = Vec::new();
    for pool in &config.pools {
        if let Some(health) = pool.health.as_deref() {
            let obstacle = kit_obstacle(health, &mut kits).or_else(|| program_obstacle(health));
            let warning = |why| format!("pool {}: it cannot be checked: {why}", pool.name);
            warnings.extend(obstacle.map(warning));
        }
    }
    warnings
}

/// What stands in the way of reading a password or authorities. Those that many pools share are read
/// once: all authorities of a machine take milliseconds.
fn kit_obstacle<'c>(
    health: &'c Health,
    kits: &mut Vec<(&'c Health, Option<String>)>,
) -> Option<String> {
    if !Kit::is_needed(health) {
        return None;
    }
    if let Some((_, obstacle)) = kits.iter().find(|(known, _)| Kit::is_shared(known, health)) {
        return obstacle.clone();
    }
    let obstacle = Kit::read(health).obstacle().map(|said| said.to_string());
    kits.push((health, obstacle.clone()));
    obstacle
}

/// What stands in the way of running the program of a check.
fn program_obstacle(health: &Health) -> Option<String> {
    let Check::Exec(exec) = &health.check else {
        return None;
    };
    let program = exec.command.first()?;
    let error = runnable(Path::new(program)).err()?;
    Some(format!("command: cannot run {program}: {error}"))
}

fn runnable(program: &Path) -> io::Result<()> {
    if !fs::metadata(program)?.is_file() {
        return Err(io::Error::other("it is no ordinary file"));
    }
    file::demand(program, Right::Execute)
}

/// A line for each file with servers that gives none, and for each mistake in it. What was found in
/// it before stays in use.
fn servers_files(config: &Config) -> Vec<String> {
    let of_file = |path: &Path| match config::load_servers(path) {
        Ok(servers) if !servers.is_empty() => Vec::new(),
        Ok(_) => vec![unused(path, "there is no server in it")],
        Err(LoadError::Mistakes(mistakes)) => {
            let mut lines = vec![unused(path, "there are mistakes in it")];
            lines.extend(mistakes.to_string().lines().map(str::to_owned));
            lines
        }
        Err(error) => vec![unused(path, &error.to_string())],
    };
    config
        .servers_files()
        .into_iter()
        .flat_map(of_file)
        .collect()
}

fn unused(path: &Path, why: &str) -> String {
    format!(
        "servers_file {}: no server from it for now: {why}",
        path.display()
    )
}
