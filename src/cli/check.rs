//! `evenkeel check`: a summary of a configuration that is good, or every mistake in one that is not.
//!
//! Reads only, the file and what it names: no socket is opened, no server and no name server is
//! asked.

use std::collections::HashSet;
use std::path::Path;

use super::output::print;
use crate::config::{
    self, Check, Config, Health, Listener, LoadError, Pool, PostgresRole, ProxyProtocol,
};
use crate::ids::PoolId;
use crate::process::{Preflight, preflight};
use crate::units::{counted, show_duration};

/// Listeners, and pools, that are told one by one.
const SHOWN_MAX: usize = 50;

/// Addresses of one listener.
const BIND_SHOWN_MAX: usize = 8;

/// Prints what the file would do, and what of it cannot work as it stands.
///
/// # Errors
/// Where it cannot be read, or with everything that is wrong in it or that `run` would refuse.
pub(super) fn check(path: &Path) -> anyhow::Result<()> {
    let config = super::load(path)?;
    let Preflight {
        mut refusals,
        warnings,
    } = preflight(&config);
    let mut summary = summary(&config::name_of(path), &config);
    summary.push_str(&servers_files(&config, &mut refusals));
    for warning in warnings {
        summary.push_str(&format!("warning: {warning}\n"));
    }
    match refusals.is_empty() {
        true => print(&summary),
        false => Err(anyhow::anyhow!(refusals.join("\n"))),
    }
}

/// A line for each file with servers in it; mistakes in them go to `refusals`. A file that is not
/// there may come later, and evenkeel starts without it.
fn servers_files(config: &Config, refusals: &mut Vec<String>) -> String {
    let mut lines = String::new();
    for path in config.servers_files() {
        let text = match config::load_servers(path) {
            Ok(servers) if servers.is_empty() => "warning, there is no server in it".to_owned(),
            Ok(servers) => counted(servers.len() as u64, "server"),
            Err(LoadError::Mistakes(wrong)) => {
                refusals.push(wrong.to_string());
                continue;
            }
            Err(error) => format!("warning, no server from it for now: {error}"),
        };
        lines.push_str(&format!("  servers_file {}: {text}\n", path.display()));
    }
    lines
}

fn summary(name: &str, config: &Config) -> String {
    let mut summary = format!(
        "{name}: good, {}, {}, {}\n",
        counted(config.listeners.len() as u64, "listener"),
        counted(config.pools.len() as u64, "pool"),
        server_words(&config.pools),
    );
    let listeners = config
        .listeners
        .iter()
        .map(|listener| listener_line(listener, config));
    add_lines(&mut summary, "listener", listeners);
    let used: HashSet<usize> = config
        .listeners
        .iter()
        .flat_map(Listener::pools)
        .map(PoolId::index)
        .collect();
    let pools = config.pools.iter().enumerate();
    let pools = pools.map(|(index, pool)| pool_line(pool, used.contains(&index)));
    add_lines(&mut summary, "pool", pools);
    summary
}

fn add_lines(summary: &mut String, thing: &str, mut lines: impl ExactSizeIterator<Item = String>) {
    for line in lines.by_ref().take(SHOWN_MAX) {
        summary.push_str(&format!("  {thing} {line}\n"));
    }
    if lines.len() > 0 {
        summary.push_str(&format!(
            "  and {}\n",
            counted(lines.len() as u64, &format!("more {thing}"))
        ));
    }
}

fn listener_line(listener: &Listener, config: &Config) -> String {
    let bind = listener.shown_addresses(BIND_SHOWN_MAX);
    let pool = &config.pools[listener.pool.index()].name;
    let mut line = format!("{}: {bind} to pool {pool}", listener.name);
    let mut add = |count: usize, thing: &str, rest: &str| {
        if count > 0 {
            let count = counted(count as u64, thing);
            line.push_str(&format!(", {count}{rest}"));
        }
    };
    add(listener.sni.len(), "server name", "");
    if let ProxyProtocol::Accept { trusted } = &listener.proxy_protocol {
        add(trusted.len(), "network", " of proxies");
    }
    let allowed = listener.allow.as_ref().map_or(0, |allow| allow.len());
    add(allowed, "network", " allowed");
    add(listener.deny.len(), "network", " denied");
    line
}

fn pool_line(pool: &Pool, is_used: bool) -> String {
    let mut line = format!(
        "{}: {}, {}",
        pool.name,
        server_words(std::slice::from_ref(pool)),
        pool.algorithm.name()
    );
    let backups = pool.servers.iter().filter(|server| server.backup).count();
    if backups > 0 {
        line.push_str(&format!(", {}", counted(backups as u64, "backup")));
    }
    line.push_str(&health_words(pool.health.as_deref()));
    if !is_used {
        line.push_str(", which no listener uses");
    }
    line
}

/// How many servers there are, and how many names and files will bring more.
fn server_words(pools: &[Pool]) -> String {
    let servers: usize = pools.iter().map(|pool| pool.servers.len()).sum();
    let lookups: usize = pools.iter().map(|pool| pool.templates.len()).sum();
    let servers = counted(servers as u64, "server");
    match lookups {
        0 => servers,
        _ => format!("{servers}, {}", counted(lookups as u64, "lookup")),
    }
}

fn health_words(health: Option<&Health>) -> String {
    let Some(health) = health else {
        return ", no health checks".to_owned();
    };
    let interval = show_duration(health.interval);
    let check = match &health.check {
        Check::Http(http) => format!("http check of {}", http.path),
        Check::Postgres(postgres) if postgres.role != PostgresRole::Any => {
            format!("postgres check for a {}", postgres.role.name())
        }
        Check::Grpc(grpc) if !grpc.service.is_empty() => {
            format!("grpc check of {}", grpc.service)
        }
        Check::Exec(exec) => match exec.command.first() {
            Some(program) => format!("exec check by {program}"),
            None => "exec check".to_owned(),
        },
        check => format!("{} check", check.name()),
    };
    let tls = if health.tls.is_some() {
        " over TLS"
    } else {
        ""
    };
    format!(", {check}{tls} every {interval}")
}
