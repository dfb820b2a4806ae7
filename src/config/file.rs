//! What the user wrote: every key with its type, absent where it was not written, and with its place
//! where a later check may point at it. Field by field the same as the file, so that each key is
//! found under its own name; what a key does stands at the field of [`super::Config`] that it fills.
//!
//! Read by [`super::reader`], completed and checked by [`super::check`].

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use log::LevelFilter;

use super::address::Bind;
use super::checks::CheckKind;
use super::target::Target;
use super::tree::{Key, Located};
use super::{
    AccessLog, AdminSocket, Keepalive, LogFormat, OnDown, Outlier, PostgresRole, Queue, SendProxy,
    ServerPattern, ServerTcp, Tls,
};
use crate::balance::Algorithm;
use crate::units::Rate;

/// The whole file. `None` in a list stands for what could not be read, so that indexes stay right.
#[derive(Debug, Default)]
pub(super) struct File {
    /// Absent is `auto` as well.
    pub(super) workers: Option<NonZeroUsize>,
    /// Absent is `auto` as well.
    pub(super) max_connections: Option<NonZeroU32>,
    pub(super) shutdown_timeout: Option<Duration>,
    pub(super) survive_restart: Option<bool>,
    pub(super) ready_when: Option<ReadyWhen>,
    pub(super) admin: Admin,
    pub(super) log: Log,
    pub(super) listeners: Vec<Listener>,
    pub(super) pools: Vec<Pool>,
}

#[derive(Debug)]
pub(super) enum ReadyWhen {
    AllPools,
    AnyPool,
    Pools(Vec<Option<Located<String>>>),
}

#[derive(Debug, Default)]
pub(super) struct Admin {
    pub(super) socket: Option<AdminSocket>,
    /// Unreadable where it is `None`: the reader fills in `off`.
    pub(super) http: Option<Located<Option<SocketAddr>>>,
    pub(super) http_hosts: Option<Located<Vec<String>>>,
    pub(super) http_token_file: Option<Located<PathBuf>>,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) level: Option<LevelFilter>,
    pub(super) access: Option<AccessLog>,
    pub(super) format: Option<LogFormat>,
}

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) name: Key,
    pub(super) bind: Vec<Option<Located<Bind>>>,
    pub(super) pool: Option<Located<String>>,
    pub(super) sni: Vec<Route>,
    /// Whether it is `accept`. Unreadable where it is `None`: the reader fills in `off`.
    pub(super) proxy_protocol: Option<Located<bool>>,
    /// Whether that stands in the file.
    pub(super) is_proxy_protocol_written: bool,
    /// Without those networks that could not be read, as are the next two.
    pub(super) trusted_proxies: Option<Located<Vec<IpNet>>>,
    pub(super) allow: Option<Located<Vec<IpNet>>>,
    pub(super) deny: Option<Located<Vec<IpNet>>>,
    pub(super) max_connections: Option<NonZeroU32>,
    pub(super) max_connections_per_ip: Option<NonZeroU32>,
    pub(super) connection_rate_per_ip: Option<Rate>,
    pub(super) per_ip: Option<PerIp>,
    pub(super) header_timeout: Option<Duration>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) half_close_timeout: Option<Duration>,
    pub(super) tcp: Option<Tcp>,
}

/// One line of `sni`.
#[derive(Debug)]
pub(super) struct Route {
    /// As it was written, for messages.
    pub(super) key: Key,
    pub(super) names: Option<ServerPattern>,
    pub(super) pool: Option<Located<String>>,
}

#[derive(Debug)]
pub(super) struct PerIp {
    pub(super) ipv4_prefix: Option<u8>,
    pub(super) ipv6_prefix: Option<u8>,
}

#[derive(Debug)]
pub(super) struct Tcp {
    /// Absent is `off` as well.
    pub(super) keepalive: Option<Keepalive>,
    /// Absent is `off` as well.
    pub(super) user_timeout: Option<Duration>,
    pub(super) fast_open: Option<bool>,
    pub(super) backlog: Option<NonZeroU32>,
}

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) name: Key,
    /// Unreadable where it is `None`: the reader fills in the default.
    pub(super) algorithm: Option<Algorithm>,
    pub(super) hash: Option<Hash>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) retries: Option<u32>,
    pub(super) queue: Option<Queue>,
    pub(super) send_proxy: Option<SendProxy>,
    pub(super) slow_start: Option<Duration>,
    pub(super) on_down: Option<OnDown>,
    pub(super) fail_open: Option<bool>,
    /// Absent is `off` as well.
    pub(super) outlier: Option<Outlier>,
    pub(super) source: Vec<Option<Located<IpAddr>>>,
    pub(super) tcp: Option<ServerTcp>,
    pub(super) health: Option<Health>,
    pub(super) resolve: Option<Located<Duration>>,
    pub(super) servers_file: Option<Located<PathBuf>>,
    pub(super) servers: Vec<Option<Server>>,
}

impl Pool {
    /// It exists all the same: a listener that names it is right to do so.
    pub(super) fn unreadable(name: &Key) -> Self {
        Self {
            name: name.clone(),
            algorithm: None,
            hash: None,
            connect_timeout: None,
            retries: None,
            queue: None,
            send_proxy: None,
            slow_start: None,
            on_down: None,
            fail_open: None,
            outlier: None,
            source: Vec::new(),
            tcp: None,
            health: None,
            resolve: None,
            servers_file: None,
            servers: Vec::new(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Hash {
    pub(super) ipv4_prefix: Option<u8>,
    pub(super) ipv6_prefix: Option<u8>,
    /// Absent is `off` as well.
    pub(super) bounded_load: Option<f64>,
}

/// An address alone is a server too. One item stands for several servers where it has a range of
/// ports, and for any number where it has a name.
#[derive(Debug)]
pub(super) struct Server {
    /// Absent is the address.
    pub(super) name: Option<Located<String>>,
    pub(super) address: Located<Target>,
    pub(super) weight: Option<u32>,
    pub(super) max_connections: Option<NonZeroU32>,
    pub(super) backup: Option<bool>,
}

#[derive(Debug)]
pub(super) enum Health {
    Off,
    On(Box<HealthKeys>),
}

/// The keys of every type of check together: which belong to which is checked later.
#[derive(Debug, Default)]
pub(super) struct HealthKeys {
    /// Unreadable where it is `None`, as is `interval`: the reader fills in the default.
    pub(super) kind: Option<Located<CheckKind>>,
    pub(super) path: Option<Located<String>>,
    pub(super) host: Option<Located<String>>,
    pub(super) expect_status: Option<Located<Vec<RangeInclusive<u16>>>>,
    pub(super) expect_body: Option<Located<String>>,
    pub(super) send: Option<Located<String>>,
    pub(super) expect: Option<Located<String>>,
    pub(super) user: Option<Located<String>>,
    pub(super) database: Option<Located<String>>,
    pub(super) role: Option<Located<PostgresRole>>,
    pub(super) password_file: Option<Located<PathBuf>>,
    pub(super) service: Option<Located<String>>,
    pub(super) command: Option<Located<Vec<String>>>,
    /// Plain where there is no `Tls` in it.
    pub(super) tls: Option<Located<Option<Tls>>>,
    pub(super) interval: Option<Duration>,
    pub(super) timeout: Option<Duration>,
    pub(super) rise: Option<NonZeroU32>,
    pub(super) fall: Option<NonZeroU32>,
    pub(super) port: Option<Located<u16>>,
}
