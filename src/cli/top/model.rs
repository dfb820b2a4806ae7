//! What `top` knows and what was chosen: the last status, the rates since the one before, a history,
//! how far it is scrolled.
//!
//! Pure: no terminal, no socket, no clock.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::clock::Now;

use super::super::figures::{found_by, holds};
use super::super::view::{Bytes, Drain, Leaving, Pool, Server, Status};

/// Samples that the sparklines may show: five minutes, wider than any terminal.
const HISTORY_MAX: usize = 300;

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Stay,
    Leave,
}

/// How servers follow each other within their pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// As in the file.
    #[default]
    Config,
    /// The most connections first.
    Active,
    /// The most bytes a second first.
    Rate,
    /// The most failed connects first.
    Failed,
    /// Those that are not up first.
    State,
}

impl Sort {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Config => Self::Active,
            Self::Active => Self::Rate,
            Self::Rate => Self::Failed,
            Self::Failed => Self::State,
            Self::State => Self::Config,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Config => "file",
            Self::Active => "connections",
            Self::Rate => "bytes/s",
            Self::Failed => "failed",
            Self::State => "state",
        }
    }
}

/// In a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    /// Connections opened.
    pub(super) opened: f64,
    /// Bytes.
    pub(super) upstream: f64,
    /// Bytes.
    pub(super) downstream: f64,
}

/// What only grows while a process lives.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    opened: u64,
    bytes: Bytes,
}

impl Counts {
    /// `None` where less was counted than before: another process, or another server of that name.
    fn since(self, before: Self, seconds: f64) -> Option<Rates> {
        let rate = |now: u64, before: u64| Some(now.checked_sub(before)? as f64 / seconds);
        Some(Rates {
            opened: rate(self.opened, before.opened)?,
            upstream: rate(self.bytes.upstream, before.bytes.upstream)?,
            downstream: rate(self.bytes.downstream, before.bytes.downstream)?,
        })
    }
}

/// Pool and server.
type Key = (String, String);

/// One line of the list.
#[derive(Clone, Debug)]
pub(super) enum Row<'s> {
    Pool {
        name: &'s str,
        pool: &'s Pool,
        active: u64,
        rates: Rates,
    },
    Server {
        name: &'s str,
        server: &'s Server,
        /// Of the connections of its pool, from 0 to 1.
        share: f64,
        rates: Rates,
    },
    /// Removed, and not yet without connections.
    Leaving(&'s Leaving),
    /// Of the server above.
    Drain(&'s Drain),
    /// What is out of the ordinary with the pool or the server above.
    Note(String),
}

/// All that is drawn.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// Where evenkeel is asked.
    pub(super) socket: String,
    pub(super) has_colours: bool,
    /// The last one, `None` before the first.
    pub(super) status: Option<Status>,
    /// When it came.
    taken: Now,
    /// When the last answer came, also one that a pause kept from being shown.
    heard: Now,
    counts: HashMap<Key, Counts>,
    total: Counts,
    rates: HashMap<Key, Rates>,
    /// Of the whole process.
    pub(super) now: Rates,
    /// The latest at the back.
    pub(super) history: VecDeque<Rates>,
    /// Why the last question got no answer.
    pub(super) lost: Option<String>,
    pub(super) sort: Sort,
    pub(super) is_paused: bool,
    pub(super) shows_help: bool,
    /// The first row that is shown.
    pub(super) offset: usize,
    /// Rows that were shown last.
    page: usize,
}

impl Model {
    pub(super) fn new(socket: String, has_colours: bool) -> Self {
        Self {
            socket,
            has_colours,
            status: None,
            taken: Now::default(),
            heard: Now::default(),
            counts: HashMap::new(),
            total: Counts::default(),
            rates: HashMap::new(),
            now: Rates::default(),
            history: VecDeque::new(),
            lost: None,
            sort: Sort::default(),
            is_paused: false,
            shows_help: false,
            offset: 0,
            page: 1,
        }
    }

    /// Takes an answer, or why there was none. Paused, it changes nothing but whether there is one.
    pub(super) fn take(&mut self, answer: Result<Status, String>, now: Now) {
        match answer {
            Err(why) => self.lost = Some(why),
            Ok(status) => {
                self.lost = None;
                self.heard = now;
                if !self.is_paused {
                    self.know(status, now);
                }
            }
        }
    }

    fn know(&mut self, status: Status, now: Now) {
        let seconds = now.since(self.taken).as_secs_f64();
        // Of another process nothing can be subtracted.
        let is_same = self
            .status
            .as_ref()
            .is_some_and(|before| before.uptime_seconds <= status.uptime_seconds && seconds > 0.0);
        let rates = |now: Counts, before: Option<&Counts>| {
            let before = before.filter(|_| is_same)?;
            now.since(*before, seconds)
        };
        let counts = counts(&status);
        self.rates = counts
            .iter()
            .filter_map(|(key, now)| Some((key.clone(), rates(*now, self.counts.get(key))?)))
            .collect();
        let total = Counts {
            opened: status.connections.total,
            bytes: status.bytes,
        };
        let whole = rates(total, Some(&self.total));
        self.now = whole.unwrap_or_default();
        self.history.extend(whole);
        let excess = self.history.len().saturating_sub(HISTORY_MAX);
        self.history.drain(..excess);
        self.counts = counts;
        self.total = total;
        self.taken = now;
        self.status = Some(status);
    }

    /// Since the last answer, `None` before the first.
    pub(super) fn silence(&self, now: Now) -> Option<Duration> {
        self.status.as_ref().map(|_| now.since(self.heard))
    }

    /// Every line of the list, from the top.
    pub(super) fn rows(&self) -> Vec<Row<'_>> {
        let Some(status) = &self.status else {
            return Vec::new();
        };
        let mut rows = Vec::new();
        for (name, pool) in status.pools.iter() {
            self.add_pool(&mut rows, name, pool);
        }
        for leaving in &status.leaving {
            rows.push(Row::Leaving(leaving));
            rows.extend(leaving.drain.as_ref().map(Row::Drain));
        }
        rows
    }

    fn add_pool<'s>(&'s self, rows: &mut Vec<Row<'s>>, pool_name: &'s str, pool: &'s Pool) {
        let active = pool
            .servers
            .iter()
            .map(|(_, server)| server.connections.active)
            .sum();
        let mut servers: Vec<_> = pool
            .servers
            .iter()
            .map(|(name, server)| (name.as_str(), server, self.rates_of(pool_name, name)))
            .collect();
        let rates = servers
            .iter()
            .fold(Rates::default(), |sum, (_, _, rates)| Rates {
                opened: sum.opened + rates.opened,
                upstream: sum.upstream + rates.upstream,
                downstream: sum.downstream + rates.downstream,
            });
        // Stable: what is equal stays as in the file.
        servers.sort_by_key(|(_, server, rates)| rank(self.sort, server, *rates));
        rows.push(Row::Pool {
            name: pool_name,
            pool,
            active,
            rates,
        });
        let amiss = pool.discovery.iter().filter(|source| source.last != "ok");
        rows.extend(amiss.map(|source| Row::Note(format!("  {}", found_by(source)))));
        for (name, server, rates) in servers {
            rows.push(Row::Server {
                name,
                server,
                share: share(server.connections.active, active),
                rates,
            });
            let holds = holds(server).into_iter();
            rows.extend(holds.map(|text| Row::Note(format!("    {text}"))));
            rows.extend(server.drain.as_ref().map(Row::Drain));
        }
    }

    fn rates_of(&self, pool: &str, server: &str) -> Rates {
        let key = (pool.to_owned(), server.to_owned());
        self.rates.get(&key).copied().unwrap_or_default()
    }

    /// Rows further down, or up where it is negative; the end of the list is found when it is drawn.
    pub(super) fn scroll_by(&mut self, rows: isize) {
        self.offset = self.offset.saturating_add_signed(rows);
    }

    pub(super) fn scroll_pages(&mut self, pages: isize) {
        let page = isize::try_from(self.page).unwrap_or(isize::MAX);
        self.scroll_by(pages.saturating_mul(page));
    }

    /// Learns how many of how many rows fit, and keeps the last page full.
    pub(super) fn fit(&mut self, rows: usize, page: usize) {
        self.page = page.max(1);
        self.offset = self.offset.min(rows.saturating_sub(self.page));
    }
}

fn counts(status: &Status) -> HashMap<Key, Counts> {
    let servers = status.pools.iter().flat_map(|(pool, it)| {
        it.servers.iter().map(move |(name, server)| {
            let counts = Counts {
                opened: server.connections.total,
                bytes: server.bytes,
            };
            ((pool.clone(), name.clone()), counts)
        })
    });
    servers.collect()
}

/// What sorts first is smallest.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float becomes the nearest integer that there is"
)]
fn rank(sort: Sort, server: &Server, rates: Rates) -> Reverse<u64> {
    Reverse(match sort {
        Sort::Config => 0,
        Sort::Active => server.connections.active,
        Sort::Rate => (rates.upstream + rates.downstream) as u64,
        Sort::Failed => server.connections.failed,
        Sort::State => u64::from(server.state != "up"),
    })
}

fn share(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 0.0,
        whole => part as f64 / whole as f64,
    }
}
