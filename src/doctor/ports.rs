//! Local ports: a connection to a server takes one, and towards one server each of our addresses has
//! as many as the range. Also those that listeners want for themselves, and how soon a port is free
//! again.

use std::net::IpAddr;

use super::machine::ranges;
use super::wants::taken;
use super::{Finding, Machine, Reading, Status, Unread, Wants};
use crate::config::Pool;

const RANGE: &str = "net/ipv4/ip_local_port_range";

/// Wider ranges: one that spares the ports of well-known services, and all that any user may have.
const WIDER: [(u64, u64); 2] = [(10_240, 65_535), (1024, 65_535)];

/// How long a port stays taken after the side that ended first has closed (TIME_WAIT).
const TIME_WAIT_SECONDS: u64 = 60;

/// The ports that connects may take.
#[derive(Debug)]
struct Ports {
    first: u64,
    last: u64,
    reserved: Vec<(u64, u64)>,
}

impl Ports {
    fn read(machine: &Machine) -> Reading<Self> {
        let [first, last] = machine.counts::<2>(RANGE)?;
        let reserved = machine.parameter("net/ipv4/ip_local_reserved_ports")?;
        let unread = || Unread(format!("ip_local_reserved_ports says {reserved:?}"));
        Ok(Self {
            first,
            last,
            reserved: ranges(&reserved).ok_or_else(unread)?,
        })
    }

    fn count(&self) -> u64 {
        let all = span((self.first, self.last));
        let kept = self.reserved.iter();
        let kept = kept.map(|(first, last)| span((self.first.max(*first), self.last.min(*last))));
        all.saturating_sub(kept.sum())
    }

    fn may_take(&self, port: u64) -> bool {
        let within = |(first, last): &(u64, u64)| (*first..=*last).contains(&port);
        within(&(self.first, self.last)) && !self.reserved.iter().any(within)
    }
}

/// Ports from the first to the last, both included; none where they cross.
fn span((first, last): (u64, u64)) -> u64 {
    (last + 1).saturating_sub(first)
}

/// What one pool asks of the ports.
#[derive(Debug)]
struct Demand<'c> {
    pool: &'c Pool,
    connections: u64,
    /// Of a source and a server: each pair has all the ports.
    pairs: u64,
    /// Connections that the pairs have ports for.
    room: u64,
}

impl<'c> Demand<'c> {
    /// `None` where none of its servers takes a port.
    fn of(pool: &'c Pool, wants: &Wants<'_>, ports: u64) -> Option<Self> {
        // Backups come into play only when the others are gone.
        let in_use = |server: &&crate::config::Server| !server.backup && server.weight > 0;
        let all: Vec<_> = pool.servers.iter().filter(in_use).collect();
        let servers = match all.is_empty() {
            true => pool.servers.iter().collect(),
            false => all,
        };
        let is_local = servers.iter().any(|server| server.address.ip().is_none());
        if is_local || servers.is_empty() {
            // By a unix socket there is no end of connections.
            return None;
        }
        let connections = taken(pool).unwrap_or(u32::MAX).min(wants.connections);
        let (mut pairs, mut room) = (0, 0_u64);
        for server in servers {
            let address = server.address.ip()?.ip();
            let sources = sources(pool, address);
            pairs += sources;
            let most = server.max_connections.map_or(u32::MAX, |most| most.get());
            room = room.saturating_add((ports * sources).min(u64::from(most)));
        }
        Some(Self {
            pool,
            connections: u64::from(connections),
            pairs,
            room,
        })
    }

    /// The ports that each pair must have.
    fn needed(&self) -> u64 {
        self.connections.div_ceil(self.pairs.max(1))
    }

    /// The line that gives it enough.
    fn fix(&self) -> String {
        let needed = self.needed();
        let wide = WIDER.into_iter().find(|range| span(*range) >= needed);
        if let Some((first, last)) = wide {
            return format!("sysctl -w net.ipv4.ip_local_port_range=\"{first} {last}\"");
        }
        let most = span(WIDER[1]);
        let (servers, name) = (self.pool.servers.len() as u64, &self.pool.name);
        let sources = self.connections.div_ceil(most * servers.max(1));
        format!(
            "source: [...] of pool {name} with {sources} addresses of this machine, beside sysctl -w \
             net.ipv4.ip_local_port_range=\"{} {}\"",
            WIDER[1].0, WIDER[1].1
        )
    }
}

/// Our addresses towards a server; without any of its family the kernel picks one.
fn sources(pool: &Pool, server: IpAddr) -> u64 {
    let fitting = pool.source.iter();
    let fitting = fitting.filter(|source| source.is_ipv4() == server.is_ipv4());
    (fitting.count() as u64).max(1)
}

/// Any connection may go to any pool, so each pool is measured against all of them.
pub(super) fn range(machine: &Machine, wants: &Wants<'_>) -> Reading<Finding> {
    const NAME: &str = "net.ipv4.ip_local_port_range";
    let ports = Ports::read(machine)?.count();
    let demands = wants
        .pools()
        .filter_map(|pool| Demand::of(pool, wants, ports));
    // Of those that have enough, the one that is nearest to its end.
    let key = |demand: &Demand<'_>| (demand.room < demand.connections, demand.needed());
    let Some(worst) = demands.max_by_key(key) else {
        let why = "no server that is known takes a local port";
        return Ok(Finding::fine(NAME, ports, why));
    };
    let name = &worst.pool.name;
    let why = format!(
        "ports, for each pair of source and server ({} in pool {name}): {}",
        worst.pairs,
        wants.said()
    );
    let is_enough = worst.room >= worst.connections;
    if !is_enough && !worst.pool.templates.is_empty() {
        return Err(Unread(format!(
            "servers of pool {name} are looked up while it runs: {} pairs of source and server do \
             for {}",
            worst.connections.div_ceil(ports.max(1)),
            wants.said()
        )));
    }
    let effect = format!(
        "beyond {} connections in pool {name} there is no local port left: they end as `error`, \
         counted as `local` in evenkeel_server_connections_failed_total",
        worst.room
    );
    let finding = Finding::fine(NAME, ports, why).needing(worst.needed());
    Ok(finding.unless(is_enough, effect, worst.fix()))
}

/// A connect that got a listener's port keeps it from being bound again.
pub(super) fn reserved(machine: &Machine, wants: &Wants<'_>) -> Reading<Finding> {
    const NAME: &str = "net.ipv4.ip_local_reserved_ports";
    let ports = Ports::read(machine)?;
    let is_open = |port: &u16| *port > 0 && ports.may_take(u64::from(*port));
    let mut open: Vec<u16> = wants.doors().map(|(_, address)| address.port()).collect();
    open.retain(is_open);
    open.sort_unstable();
    open.dedup();
    let kept = match ports.reserved.as_slice() {
        [] => "none".to_owned(),
        kept => shown(kept),
    };
    if open.is_empty() {
        let why = "no listener's port is one that a connect may take";
        return Ok(Finding::fine(NAME, kept, why));
    }
    let open: Vec<_> = open.iter().map(|port| u64::from(*port)).collect();
    let mut runs: Vec<(u64, u64)> = open
        .chunk_by(|port, next| port + 1 == *next)
        .filter_map(|run| Some((*run.first()?, *run.last()?)))
        .collect();
    let open = shown(&runs);
    runs.extend(&ports.reserved);
    runs.sort_unstable();
    let why = format!(
        "listeners' ports in the range {}-{}",
        ports.first, ports.last
    );
    Ok(Finding::fine(NAME, kept, why).needing(&open).faulty(
        Status::Wrong,
        format!(
            "a connection of this machine may have taken {open} when evenkeel starts or reloads: \
             \"address in use\""
        ),
        format!(
            "sysctl -w net.ipv4.ip_local_reserved_ports={}",
            shown(&runs)
        ),
    ))
}

/// As the kernel has them.
fn shown(runs: &[(u64, u64)]) -> String {
    let words = runs.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    words.collect::<Vec<_>>().join(",")
}

/// For information: no config says how many connections there are in a second.
pub(super) fn reuse(machine: &Machine, wants: &Wants<'_>) -> Reading<Finding> {
    let value = machine.count("net/ipv4/tcp_tw_reuse")?;
    let rate = Ports::read(machine)?.count() / TIME_WAIT_SECONDS;
    let is_soon = value == 1 || (value == 2 && !wants.goes_out());
    let why = match is_soon {
        true => "a port is free again a second after a client has ended its connection".to_owned(),
        false => format!(
            "a port stays taken for {TIME_WAIT_SECONDS} s after a client has ended its connection: \
             some {rate} such a second to each server; with 1 for a second"
        ),
    };
    Ok(Finding::fine("net.ipv4.tcp_tw_reuse", value, why))
}
