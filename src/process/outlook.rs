//! Which pools have a server that is up, as the prober reports it: what an operator must hear of at
//! once is a pool that has none.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use super::ejections::Ejections;
use super::serving::{ServerSeat, Serving};
use crate::config;
use crate::ids::ServerId;

/// What is known of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// No answer yet.
    Nothing,
    Up,
    Down,
}

impl Known {
    fn now(server: &ServerSeat) -> Self {
        Self::of(server.tally.checkup().findings().is_up)
    }

    fn of(is_up: Option<bool>) -> Self {
        match is_up {
            None => Self::Nothing,
            Some(true) => Self::Up,
            Some(false) => Self::Down,
        }
    }
}

/// What becomes of the clients of a pool that has no server up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// They are turned away.
    Reset,
    /// They are held, as far as the queue goes.
    Held,
    /// They are served by servers that are down.
    FailOpen,
}

impl Fate {
    /// As the config says.
    pub(super) fn of(config: &config::Pool) -> Self {
        match (config.fail_open, config.queue.limit) {
            (true, _) => Self::FailOpen,
            (false, 0) => Self::Reset,
            (false, _) => Self::Held,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reset => "its clients are reset (no_server)",
            Self::Held => "its clients are held (queue)",
            Self::FailOpen => "all its servers are used anyway (fail_open)",
        })
    }
}

/// A pool whose servers are checked.
#[derive(Debug)]
struct Pool {
    name: Arc<str>,
    fate: Fate,
    servers: usize,
    up: usize,
    /// Servers that have had no answer yet.
    unanswered: usize,
}

/// All servers that are checked, by pool.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    pools: Vec<Pool>,
    /// The place of its pool in `pools`, and what is known of it.
    servers: HashMap<ServerId, (usize, Known)>,
    /// What workers have found themselves.
    pub(super) ejections: Ejections,
}

impl Outlook {
    /// Looks at what is served now; what was found before stays known.
    pub(super) fn rebuild(&mut self, serving: &Serving) {
        let without: HashSet<_> = self.pools_without().map(|p| Arc::clone(&p.name)).collect();
        *self = Self {
            ejections: std::mem::take(&mut self.ejections),
            ..Self::default()
        };
        let pools = serving.config.pools.iter().zip(&serving.pools);
        for (config, seat) in pools.filter(|(config, _)| config.health.is_some()) {
            let known = seat
                .servers
                .iter()
                .map(|server| (server.id, Known::now(server)));
            self.add(Arc::clone(&seat.name), Fate::of(config), known);
        }
        // A change may take a pool's last server, or bring it one.
        let lost: Vec<_> = self
            .pools_without()
            .filter(|pool| !without.contains(&pool.name))
            .map(|pool| Change::Lost(Arc::clone(&pool.name), pool.fate))
            .collect();
        lost.iter().for_each(Change::log);
    }

    fn add(&mut self, name: Arc<str>, fate: Fate, known: impl Iterator<Item = (ServerId, Known)>) {
        let place = self.pools.len();
        let known: Vec<_> = known.collect();
        let count = |wanted| known.iter().filter(|(_, known)| *known == wanted).count();
        self.pools.push(Pool {
            name,
            fate,
            servers: known.len(),
            up: count(Known::Up),
            unanswered: count(Known::Nothing),
        });
        let known = known.into_iter();
        self.servers
            .extend(known.map(|(id, known)| (id, (place, known))));
    }

    /// Pools that have no server up, as far as answers are there.
    fn pools_without(&self) -> impl Iterator<Item = &Pool> {
        let pools = self.pools.iter();
        pools.filter(|pool| pool.up == 0 && pool.unanswered == 0)
    }

    /// Takes a report; a change where it makes a pool lose its last server or get one back.
    pub(super) fn note(&mut self, server: ServerId, is_up: bool) -> Option<Change> {
        let (place, known) = self.servers.get_mut(&server)?;
        let pool = &mut self.pools[*place];
        let before = std::mem::replace(known, Known::of(Some(is_up)));
        let had_none = pool.up == 0;
        pool.unanswered -= usize::from(before == Known::Nothing);
        pool.up -= usize::from(before == Known::Up);
        pool.up += usize::from(is_up);
        let name = || Arc::clone(&pool.name);
        match (had_none, pool.up) {
            // While answers are awaited, it may still get one: judged at the last answer.
            (_, 0) if pool.unanswered > 0 => None,
            (false, 0) => Some(Change::Lost(name(), pool.fate)),
            (true, 0) if before == Known::Nothing => Some(Change::Lost(name(), pool.fate)),
            (true, 1) if before == Known::Down => Some(Change::Back(name(), pool.fate)),
            _ => None,
        }
    }

    /// Servers that are up, of those that are checked.
    pub(super) fn up(&self) -> (usize, usize) {
        let up = self.pools.iter().map(|pool| pool.up).sum();
        (up, self.pools.iter().map(|pool| pool.servers).sum())
    }
}

/// What a report changes for a pool.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// No server of it is up.
    Lost(Arc<str>, Fate),
    /// One is again.
    Back(Arc<str>, Fate),
}

impl Change {
    pub(super) fn log(&self) {
        match self {
            Self::Lost(..) => log::error!("{self}"),
            Self::Back(..) => log::info!("{self}"),
        }
    }

    /// Whether servers that are down begin to be used, or no longer are.
    pub(super) fn concerns_fail_open(&self) -> bool {
        let (Self::Lost(_, fate) | Self::Back(_, fate)) = self;
        *fate == Fate::FailOpen
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(pool, fate) => write!(f, "pool {pool} has no server up: {fate}"),
            Self::Back(pool, _) => write!(f, "pool {pool} has a server up again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outlook(servers: usize) -> Outlook {
        let mut outlook = Outlook::default();
        let known = (0..servers).map(|index| (ServerId::new(index), Known::Nothing));
        outlook.add("web".into(), Fate::Reset, known);
        outlook
    }

    fn reports(outlook: &mut Outlook, reports: &[(usize, bool)]) -> Vec<Option<Change>> {
        let note = |(server, is_up): &(usize, bool)| outlook.note(ServerId::new(*server), *is_up);
        reports.iter().map(note).collect()
    }

    #[test]
    fn the_last_server_lost_and_the_first_one_back_are_told_once() {
        let mut outlook = outlook(2);
        let (lost, back) = (
            Some(Change::Lost("web".into(), Fate::Reset)),
            Some(Change::Back("web".into(), Fate::Reset)),
        );
        assert_eq!(reports(&mut outlook, &[(0, true), (1, true)]), [None, None]);
        assert_eq!(
            reports(&mut outlook, &[(0, false), (1, false)]),
            [None, lost]
        );
        assert_eq!(reports(&mut outlook, &[(1, true), (0, true)]), [back, None]);
    }

    #[test]
    fn a_pool_that_starts_without_a_server_is_told_at_the_last_answer() {
        let mut outlook = outlook(2);
        let lost = Some(Change::Lost("web".into(), Fate::Reset));
        assert_eq!(
            reports(&mut outlook, &[(0, false), (1, false)]),
            [None, lost]
        );
        assert_eq!(outlook.up(), (0, 2));
    }

    #[test]
    fn a_server_is_awaited_once_however_often_it_reports() {
        let mut outlook = outlook(2);
        reports(&mut outlook, &[(0, true), (0, false)]);
        assert_eq!(outlook.pools[0].unanswered, 1);
    }
}
