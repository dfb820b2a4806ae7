//! Which pools have a server that is up, as the prober reports it: what an operator must hear of at
//! once is a pool that has none.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use super::ejections::Ejections;
use super::serving::{ServerSeat, Serving};
use crate::config;
use crate::ids::ServerId;
use crate::prober::Report;

/// What is known of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// No answer yet.
    Nothing,
    Up,
    /// Asking for no connection.
    Unwilling {
        is_up: bool,
    },
    Down,
}

impl Known {
    fn now(server: &ServerSeat) -> Self {
        let findings = server.tally.checkup().findings();
        match findings.is_up {
            None => Self::Nothing,
            Some(is_up) => Self::of(is_up, findings.share_percent),
        }
    }

    fn of(is_up: bool, share_percent: u16) -> Self {
        match (is_up, share_percent) {
            (is_up, 0) => Self::Unwilling { is_up },
            (true, _) => Self::Up,
            (false, _) => Self::Down,
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
    /// By those of them that do not ask for no connection.
    FailOpenInPart,
}

impl Fate {
    /// As the config says where all servers are down.
    pub(super) fn of(config: &config::Pool) -> Self {
        match config.fail_open {
            true => Self::FailOpen,
            false => Self::closed(config),
        }
    }

    /// The same where none may be used even so.
    pub(super) fn closed(config: &config::Pool) -> Self {
        match config.queue.limit {
            0 => Self::Reset,
            _ => Self::Held,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reset => "its clients are reset (no_server)",
            Self::Held => "its clients are held (queue)",
            Self::FailOpen => "all its servers are used anyway (fail_open)",
            Self::FailOpenInPart => "those that are down are used anyway (fail_open)",
        })
    }
}

/// A pool whose servers are checked.
#[derive(Debug)]
struct Pool {
    name: Arc<str>,
    /// Where all servers are down.
    fate: Fate,
    /// Where none of them may be used even so.
    closed: Fate,
    /// Servers that are up and take connections.
    up: usize,
    /// Servers that ask for no connection, up or down.
    unwilling: usize,
    down: usize,
    /// Servers that have had no answer yet.
    unanswered: usize,
    /// Whether the log has it that no server is up.
    is_lost: bool,
}

impl Pool {
    fn new(name: Arc<str>, fate: Fate, closed: Fate) -> Self {
        Self {
            name,
            fate,
            closed,
            up: 0,
            unwilling: 0,
            down: 0,
            unanswered: 0,
            is_lost: false,
        }
    }

    /// Those of whom the same is known.
    fn count(&mut self, known: Known) -> &mut usize {
        match known {
            Known::Nothing => &mut self.unanswered,
            Known::Up => &mut self.up,
            Known::Unwilling { .. } => &mut self.unwilling,
            Known::Down => &mut self.down,
        }
    }

    /// A change where the log has it otherwise. While answers are awaited, the pool may still get a
    /// server: judged at the last one.
    fn settle(&mut self) -> Option<Change> {
        match (self.is_lost, self.up, self.unanswered) {
            (true, 1.., _) => {
                self.is_lost = false;
                Some(Change::Back(Arc::clone(&self.name), self.fate))
            }
            (false, 0, 0) => {
                self.is_lost = true;
                Some(self.lost())
            }
            _ => None,
        }
    }

    fn lost(&self) -> Change {
        // Who asks for no connection gets none, come what may.
        let fate = match (self.fate, self.unwilling, self.down) {
            (Fate::FailOpen, 1.., 0) => self.closed,
            (Fate::FailOpen, 1.., _) => Fate::FailOpenInPart,
            (fate, ..) => fate,
        };
        Change::Lost {
            pool: Arc::clone(&self.name),
            fate,
            is_unwilling: self.unwilling > 0,
        }
    }
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
        let lost = self.pools.iter().filter(|pool| pool.is_lost);
        let lost: HashSet<_> = lost.map(|pool| Arc::clone(&pool.name)).collect();
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
            let name = Arc::clone(&seat.name);
            let is_lost = lost.contains(&name);
            let pool = Pool::new(name, Fate::of(config), Fate::closed(config));
            self.add(Pool { is_lost, ..pool }, known);
        }
        // A change may take a pool's last server, or bring it one: the first one of a name, say.
        let changes = self.pools.iter_mut().filter_map(Pool::settle);
        changes.for_each(|change| change.log());
    }

    fn add(&mut self, mut pool: Pool, known: impl Iterator<Item = (ServerId, Known)>) {
        let place = self.pools.len();
        for (id, known) in known {
            *pool.count(known) += 1;
            self.servers.insert(id, (place, known));
        }
        self.pools.push(pool);
    }

    /// Takes a report; a change where it makes a pool lose its last server or get one back.
    pub(super) fn note(&mut self, report: &Report) -> Option<Change> {
        let now = Known::of(report.is_up, report.share_percent);
        let (place, known) = self.servers.get_mut(&report.server)?;
        let pool = &mut self.pools[*place];
        let before = std::mem::replace(known, now);
        *pool.count(before) -= 1;
        *pool.count(now) += 1;
        pool.settle()
    }

    /// Servers that are up, of those that are checked.
    pub(super) fn up(&self) -> (usize, usize) {
        let is_up = |known| matches!(known, Known::Up | Known::Unwilling { is_up: true });
        let known = self.servers.values().map(|(_, known)| *known);
        (
            known.filter(|known| is_up(*known)).count(),
            self.servers.len(),
        )
    }
}

/// What a report changes for a pool.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// No server of it is up and takes connections.
    Lost {
        pool: Arc<str>,
        fate: Fate,
        /// Whether a server of it asks for no connection.
        is_unwilling: bool,
    },
    /// One is again.
    Back(Arc<str>, Fate),
}

impl Change {
    pub(super) fn log(&self) {
        match self {
            Self::Lost { .. } => log::error!("{self}"),
            Self::Back(..) => log::info!("{self}"),
        }
    }

    /// Whether servers that are down begin to be used, or no longer are.
    pub(super) fn concerns_fail_open(&self) -> bool {
        let (Self::Lost { fate, .. } | Self::Back(_, fate)) = self;
        matches!(fate, Fate::FailOpen | Fate::FailOpenInPart)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost {
                pool,
                fate,
                is_unwilling,
            } => {
                let which = match is_unwilling {
                    true => "up that wants connections",
                    false => "up",
                };
                write!(f, "pool {pool} has no server {which}: {fate}")
            }
            Self::Back(pool, _) => write!(f, "pool {pool} has a server up again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prober::{News, Reason};

    fn outlook(servers: usize, fate: Fate) -> Outlook {
        let mut outlook = Outlook::default();
        let known = (0..servers).map(|index| (ServerId::new(index), Known::Nothing));
        outlook.add(Pool::new("web".into(), fate, Fate::Reset), known);
        outlook
    }

    /// Each report is of a server, whether it is up, and its share.
    fn reports(outlook: &mut Outlook, reports: &[(usize, bool, u16)]) -> Vec<Option<String>> {
        let note = |(server, is_up, share_percent): &(usize, bool, u16)| {
            let change = outlook.note(&Report {
                server: ServerId::new(*server),
                news: News::State,
                is_up: *is_up,
                share_percent: *share_percent,
                reason: Reason::Connected,
            });
            change.map(|change| change.to_string())
        };
        reports.iter().map(note).collect()
    }

    fn said(text: &str) -> Option<String> {
        Some(format!("pool web has {text}"))
    }

    const LOST: &str = "no server up: its clients are reset (no_server)";
    const UNWANTED: &str = "no server up that wants connections: its clients are reset (no_server)";
    const BACK: &str = "a server up again";

    #[test]
    fn the_last_server_lost_and_the_first_one_back_are_told_once() {
        let mut outlook = outlook(2, Fate::Reset);
        let both_up = [(0, true, 100), (1, true, 100)];
        assert_eq!(reports(&mut outlook, &both_up), [None, None]);
        let both_down = [(0, false, 100), (1, false, 100)];
        assert_eq!(reports(&mut outlook, &both_down), [None, said(LOST)]);
        assert_eq!(reports(&mut outlook, &both_up), [said(BACK), None]);
    }

    #[test]
    fn a_pool_that_starts_without_a_server_is_told_at_the_last_answer() {
        let mut outlook = outlook(2, Fate::Reset);
        let both_down = [(0, false, 100), (1, false, 100)];
        assert_eq!(reports(&mut outlook, &both_down), [None, said(LOST)]);
        assert_eq!(outlook.up(), (0, 2));
    }

    #[test]
    fn a_pool_that_begins_without_any_server_gets_its_first_one_back() {
        let mut outlook = outlook(0, Fate::Reset);
        let said_of = |change: Option<Change>| change.map(|change| change.to_string());
        assert_eq!(said_of(outlook.pools[0].settle()), said(LOST));
        // As when a name has led to its first two servers.
        let pool = outlook.pools.remove(0);
        let known = (0..2).map(|index| (ServerId::new(index), Known::Nothing));
        outlook.add(pool, known);
        assert_eq!(said_of(outlook.pools[0].settle()), None, "nobody knows yet");
        let news = [(0, false, 100), (1, true, 100), (0, true, 100)];
        assert_eq!(reports(&mut outlook, &news), [None, said(BACK), None]);
    }

    #[test]
    fn a_server_is_awaited_once_however_often_it_reports() {
        let mut outlook = outlook(2, Fate::Reset);
        reports(&mut outlook, &[(0, true, 100), (0, false, 100)]);
        assert_eq!(outlook.pools[0].unanswered, 1);
    }

    #[test]
    fn who_asks_for_no_connection_is_up_and_no_use() {
        let mut outlook = outlook(2, Fate::Reset);
        let lost = [(0, true, 0), (1, true, 0)];
        assert_eq!(reports(&mut outlook, &lost), [None, said(UNWANTED)]);
        assert_eq!(outlook.up(), (2, 2));
        let again = [(0, true, 50), (0, true, 100), (0, true, 0)];
        let expected = [said(BACK), None, said(UNWANTED)];
        assert_eq!(reports(&mut outlook, &again), expected);
        assert_eq!(reports(&mut outlook, &[(1, false, 0)]), [None]);
    }

    #[test]
    fn fail_open_uses_nobody_who_asks_for_no_connection() {
        let mut outlook = outlook(2, Fate::FailOpen);
        let lost = [(0, false, 100), (1, true, 0)];
        let anyway = "no server up that wants connections: those that are down are used anyway \
                      (fail_open)";
        assert_eq!(reports(&mut outlook, &lost), [None, said(anyway)]);
        let none = [(0, true, 100), (0, true, 0)];
        assert_eq!(reports(&mut outlook, &none), [said(BACK), said(UNWANTED)]);
    }
}
