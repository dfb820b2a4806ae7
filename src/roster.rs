//! What the process serves right now: listeners, pools and servers by name, each with what all
//! threads share about it. The process publishes a new [`Roster`] with each change, and the admin side
//! reads it. Workers have their own view (`pool`) and never look here.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::address::Address;
use crate::balance::Algorithm;
use crate::clock::Now;
use crate::config::ReadyWhen;
use crate::ids::{ListenerId, PoolId, ServerId};
use crate::pool::drain::Drain;
use crate::pool::tally::{ListenerTally, PoolTally, ServerTally};

/// Why a node gets no traffic that an operator has taken out.
const LEFT: &str = "left: evenkeel leave was asked for";

/// How far the process has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// First health checks or answers are awaited; not all that is to listen does.
    #[default]
    Starting,
    /// Connections are accepted.
    Serving,
    /// Told to stop: established connections come to their end.
    Draining,
}

impl Stage {
    /// The word for it in the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

/// What an operator wants of a server, whatever its health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// New connections while it is up.
    #[default]
    Ready,
    /// No new connections; the old ones go on, or end at a pace.
    Draining,
    /// No connections.
    Maintenance,
}

impl Standing {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Ready, Self::Draining, Self::Maintenance];

    /// The word for it in the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
        }
    }
}

/// One listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// What threads call it.
    pub id: ListenerId,
    /// What users call it.
    pub name: Arc<str>,
    /// Where it listens: ports that the kernel chose are filled in.
    pub bind: Vec<Address>,
    /// Where its connections go that no route takes.
    pub pool: Arc<str>,
    /// Where TLS clients go by server name: patterns and pools, in the order of the config.
    pub sni: Vec<(Arc<str>, Arc<str>)>,
    /// Most connections at a time; `None` is no limit of its own.
    pub max_connections: Option<u32>,
    /// What is counted of it.
    pub tally: Arc<ListenerTally>,
}

impl Listener {
    /// Every pool that its connections may go to; one may come more than once.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<str>> {
        let routes = self.sni.iter().map(|(_, pool)| pool);
        std::iter::once(&self.pool).chain(routes)
    }
}

/// One pool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// What threads call it.
    pub id: PoolId,
    /// What users call it.
    pub name: Arc<str>,
    /// How a server is picked.
    pub algorithm: Algorithm,
    /// Whether its servers are checked; else each counts as up.
    pub is_checked: bool,
    /// Most clients that are held while no server can take them.
    pub queue_limit: u32,
    /// Whether all servers are used while every one is down.
    pub fail_open: bool,
    /// How long the share of a server grows that has come up or joined; zero where it does not.
    pub slow_start: Duration,
    /// In the order of the config.
    pub servers: Vec<Server>,
    /// Where more of them come from, in the order of the config.
    pub discovery: Vec<Source>,
    /// What is counted of it.
    pub tally: Arc<PoolTally>,
}

/// A name or a file that servers of a pool are found by.
#[derive(Clone, Debug)]
pub struct Source {
    /// As the config has it.
    pub source: Arc<str>,
    /// Of the last good answer.
    pub addresses: usize,
    /// How it went the last time.
    pub state: SourceState,
    /// Since when it has gone so.
    pub since: Now,
}

/// How it goes with a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// There was no answer yet, nor a failure.
    Awaited,
    /// The last answer was good.
    Good,
    /// There was none, and why; what was found before stays.
    Failed(Arc<str>),
}

impl SourceState {
    /// The word for it in the API.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Awaited => "none",
            Self::Good => "ok",
            Self::Failed(_) => "failed",
        }
    }

    /// Why, in one line; empty where nothing is wrong.
    pub fn reason(&self) -> &str {
        match self {
            Self::Awaited => "no answer yet",
            Self::Good => "",
            Self::Failed(reason) => reason,
        }
    }
}

/// One server.
#[derive(Clone, Debug)]
pub struct Server {
    /// What threads call it.
    pub id: ServerId,
    /// What users call it; unique in its pool.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: Address,
    /// Its share against the others.
    pub weight: u32,
    /// Most connections; `None` is no limit.
    pub max_connections: Option<u32>,
    /// Only picked while no other server can take the connection.
    pub is_backup: bool,
    /// What the operator wants of it.
    pub standing: Standing,
    /// The drain under way.
    pub drain: Option<Arc<Drain>>,
    /// What is counted and found of it.
    pub tally: Arc<ServerTally>,
}

impl Pool {
    /// Whether new connections may go to a server for what is known of it.
    pub fn has_usable(&self) -> bool {
        let mut servers = self.servers.iter();
        servers.any(|server| server.weight > 0 && server.is_usable(self.is_checked))
    }

    /// Whether servers are used although every one is down.
    pub fn is_failing_open(&self) -> bool {
        let mut servers = self.servers.iter();
        let may_be_used = |server: &Server| server.weight > 0 && server.is_wanted(self.is_checked);
        self.fail_open && servers.any(may_be_used) && !self.has_usable()
    }
}

impl Server {
    /// The word for its state: what the operator wants goes before what the prober found.
    pub fn state(&self, is_checked: bool) -> &'static str {
        match self.standing {
            Standing::Draining => "draining",
            Standing::Maintenance => "maintenance",
            Standing::Ready if self.is_up(is_checked) => "up",
            Standing::Ready => "down",
        }
    }

    /// Whether new connections may go to it.
    pub fn is_usable(&self, is_checked: bool) -> bool {
        self.is_wanted(is_checked) && self.is_up(is_checked)
    }

    /// Whether neither the operator nor the server itself keeps new connections away.
    fn is_wanted(&self, is_checked: bool) -> bool {
        let asks_for_none = || self.tally.checkup().findings().share_percent == 0;
        self.standing == Standing::Ready && !(is_checked && asks_for_none())
    }

    fn is_up(&self, is_checked: bool) -> bool {
        !is_checked || self.tally.checkup().findings().is_up == Some(true)
    }
}

/// A server that is no longer in the config and still has connections.
#[derive(Clone, Debug)]
pub struct Leaving {
    /// Where it was.
    pub pool: Arc<str>,
    /// What it was.
    pub server: Server,
}

/// Where the config comes from, and how far the running one has moved away from it.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The file; `None` where arguments gave the config.
    pub file: Option<PathBuf>,
    /// How the running state differs from what was loaded, a line each.
    pub differences: Vec<String>,
    /// When a reload is taken back unless it is confirmed.
    pub confirm_until: Option<Now>,
}

/// Everything by name, as of its publishing.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    /// How far the process has come.
    pub stage: Stage,
    /// True exactly while an operator wants this node to get no traffic.
    pub has_left: bool,
    /// Which pools must have a server.
    pub ready_when: ReadyWhen,
    /// Where the config comes from.
    pub origin: Origin,
    /// In the order of the config.
    pub listeners: Vec<Listener>,
    /// In the order of the config.
    pub pools: Vec<Pool>,
    /// Removed servers that still have connections.
    pub leaving: Vec<Leaving>,
    /// Removed listeners whose connections may still live: what threads and users call them.
    pub left_listeners: Vec<(ListenerId, Arc<str>)>,
}

impl Roster {
    /// The pool of that name.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| &*pool.name == name)
    }

    /// The server of that name in the pool of that name.
    pub fn server(&self, pool: &str, name: &str) -> Option<(&Pool, &Server)> {
        let pool = self.pool(pool)?;
        let server = pool.servers.iter().find(|server| &*server.name == name)?;
        Some((pool, server))
    }

    /// Why this node should get no traffic, a reason each; empty where it should.
    pub fn reasons_against_traffic(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.stage != Stage::Serving {
            reasons.push(self.stage.word().to_owned());
        }
        if self.has_left {
            reasons.push(LEFT.to_owned());
        }
        if self.stage == Stage::Serving {
            reasons.extend(self.pools_against_traffic());
        }
        reasons
    }

    /// Before the process serves, a pool that has no server yet is no news.
    fn pools_against_traffic(&self) -> Vec<String> {
        let used: HashSet<_> = self.listeners.iter().flat_map(Listener::pools).collect();
        let named: Option<HashSet<_>> = match &self.ready_when {
            ReadyWhen::Pools(names) => Some(names.iter().collect()),
            ReadyWhen::AllPools | ReadyWhen::AnyPool => None,
        };
        let counts = |pool: &&Pool| {
            let is_named = |names: &HashSet<_>| names.contains(&pool.name);
            used.contains(&pool.name) && named.as_ref().is_none_or(is_named)
        };
        let has_server = |pool: &&Pool| pool.has_usable() || pool.is_failing_open();
        let counting = self.pools.iter().filter(counts);
        let (with, without): (Vec<_>, Vec<_>) = counting.partition(has_server);
        if self.ready_when == ReadyWhen::AnyPool && !with.is_empty() {
            return Vec::new();
        }
        let without = without.into_iter();
        without
            .map(|pool| format!("pool {} has no server", pool.name))
            .collect()
    }
}

/// Where the latest roster is found; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<Arc<Roster>>>);

impl Board {
    /// Replaces the roster for all who read from now on.
    pub fn publish(&self, roster: Roster) {
        let mut latest = Arc::new(roster);
        std::mem::swap(
            &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner),
            &mut latest,
        );
        // The old one is dropped here, where nobody waits for the lock meanwhile.
    }

    /// Replaces it by one that differs in what `change` changes. Only whoever publishes may call this, or
    /// a roster that comes meanwhile would be lost.
    pub fn amend(&self, change: impl FnOnce(&mut Roster)) {
        let mut roster = Roster::clone(&self.read());
        change(&mut roster);
        self.publish(roster);
    }

    /// The latest one.
    pub fn read(&self) -> Arc<Roster> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
