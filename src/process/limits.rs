//! How many connections the process may hold, from the descriptors that the kernel lets it have.

use super::{Room, StartError};
use crate::config::{Check, Config, Health};
use crate::prober::{IN_FLIGHT_MAX, PROGRAMS_MAX};
use crate::relay::pipe_cache::Quota;
use crate::resolver;
use crate::sys::limits::PipeLimits;

/// A connection is two sockets.
const PER_CONNECTION: u64 = 2;
/// Standard streams, epoll instances, eventfds, logs, and what libraries open for a moment.
const PER_PROCESS: u64 = 48;
/// Its epoll instance and the eventfd of its mailbox; its pipes and doors come on top.
const PER_WORKER: u64 = 3;
/// The admin side's sockets, its runtime's, and all the connections that it takes at once.
const ADMIN_MAX: u64 = 140;
/// Of few descriptors it leaves most to clients: it may then run out itself, and waits.
const ADMIN_SHARE: u64 = 16;
/// Most connections that are not asked for: where the descriptors are practically unlimited, as in
/// some containers, something must still bound the memory.
const AUTO_MAX: u32 = 1 << 20;
/// Each brings a reserve at least five times nearer to what it will be, of 64 bits.
const ROUNDS_MAX: usize = 32;

/// Most connections of the process.
///
/// # Errors
/// Where `limit` descriptors do not do for what the config asks for, or for a single connection.
pub(super) fn max_connections(config: &Config, room: &Room) -> Result<u32, StartError> {
    let limit = room.limit;
    let reserve = reserve(config, room.workers, limit, room.quota) + room.surplus;
    let room = room_beside(reserve, limit);
    match config.max_connections.map(std::num::NonZeroU32::get) {
        _ if room == 0 => Err(StartError::Descriptors {
            limit,
            needed: reserve + PER_CONNECTION,
        }),
        Some(asked) if asked > room => Err(StartError::TooManyConnections {
            asked,
            room,
            limit,
            needed: reserve + u64::from(asked) * PER_CONNECTION,
        }),
        asked => Ok(asked.unwrap_or(room.min(AUTO_MAX))),
    }
}

/// Connections that `limit` descriptors are enough for, whatever `config` asks for; 0 where it would
/// not start.
#[must_use]
pub fn connections_within(config: &Config, workers: usize, limit: u64, pipes: PipeLimits) -> u32 {
    let quota = Quota::new(pipes, limit, workers);
    room_beside(reserve(config, workers, limit, quota), limit).min(AUTO_MAX)
}

/// The fewest descriptors that so many connections are served with.
#[must_use]
pub fn descriptors_for(
    config: &Config,
    workers: usize,
    connections: u32,
    pipes: PipeLimits,
) -> u64 {
    let sockets = u64::from(connections) * PER_CONNECTION;
    let mut limit = sockets;
    // The reserve grows with the limit, by less than a fifth of it.
    for _ in 0..ROUNDS_MAX {
        let quota = Quota::new(pipes, limit, workers);
        let needed = sockets + reserve(config, workers, limit, quota);
        if needed <= limit {
            break;
        }
        limit = needed;
    }
    limit
}

fn room_beside(reserve: u64, limit: u64) -> u32 {
    let room = limit.saturating_sub(reserve) / PER_CONNECTION;
    u32::try_from(room).unwrap_or(u32::MAX)
}

/// Of `limit` descriptors, those that are not for connections.
fn reserve(config: &Config, workers: usize, limit: u64, quota: Quota) -> u64 {
    let binds: usize = config
        .listeners
        .iter()
        .map(|listener| listener.bind.len())
        .sum();
    let checks = checked(config, |_| true).min(IN_FLIGHT_MAX);
    // A program's second descriptor.
    let programs = checked(config, |check| matches!(check, Check::Exec(_))).min(PROGRAMS_MAX);
    let looks_up = config.pools.iter().any(|pool| !pool.templates.is_empty());
    let lookups = usize::from(looks_up) * resolver::DESCRIPTORS_MAX;
    PER_PROCESS
        + ADMIN_MAX.min(limit / ADMIN_SHARE)
        + (PER_WORKER + quota.descriptors() + binds as u64) * workers as u64
        + (checks + programs) as u64
        + lookups as u64
}

/// Servers that have a check of such a kind.
fn checked(config: &Config, is_meant: impl Fn(&Check) -> bool) -> usize {
    let is_checked = |health: &Health| is_meant(&health.check);
    let pools = config.pools.iter();
    let pools = pools.filter(|pool| pool.health.as_deref().is_some_and(is_checked));
    pools.map(|pool| pool.servers.len()).sum()
}
