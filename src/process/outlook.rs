//! Which pools have a server that is up, as the prober reports it: what an operator must hear of at
//! once is a pool that has none.

use std::sync::Arc;

use crate::config::Config;
use crate::ids::ServerId;
use crate::prober::Report;

/// What is known of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// No answer yet.
    Nothing,
    Up,
    Down,
}

/// A pool whose servers are checked.
#[derive(Debug)]
struct Pool {
    name: Arc<str>,
    servers: usize,
    up: usize,
    /// Servers that have had no answer yet.
    unanswered: usize,
}

/// All servers that are checked, by pool.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    pools: Vec<Pool>,
    /// By `ServerId`: its pool in `pools`, unless it is not checked.
    places: Vec<Option<usize>>,
    known: Vec<Known>,
}

impl Outlook {
    /// Nothing is known yet.
    pub(super) fn new(config: &Config) -> Self {
        let mut outlook = Self::default();
        for pool in &config.pools {
            let servers = pool.servers.len();
            let place = pool.health.is_some().then_some(outlook.pools.len());
            outlook.places.extend(std::iter::repeat_n(place, servers));
            if place.is_some() {
                let name = Arc::clone(&pool.name);
                outlook.pools.push(Pool {
                    name,
                    servers,
                    up: 0,
                    unanswered: servers,
                });
            }
        }
        outlook.known = vec![Known::Nothing; outlook.places.len()];
        outlook
    }

    /// Takes a report, and logs where it makes a pool lose its last server or get one back.
    pub(super) fn note(&mut self, report: Report) {
        if let Some(change) = self.change(report.server, report.is_up) {
            change.log();
        }
    }

    fn change(&mut self, server: ServerId, is_up: bool) -> Option<Change> {
        let pool = &mut self.pools[self.places[server.index()]?];
        let before = std::mem::replace(
            &mut self.known[server.index()],
            if is_up { Known::Up } else { Known::Down },
        );
        let had_none = pool.up == 0;
        pool.unanswered -= usize::from(before == Known::Nothing);
        pool.up -= usize::from(before == Known::Up);
        pool.up += usize::from(is_up);
        let name = || Arc::clone(&pool.name);
        match (had_none, pool.up) {
            // While answers are awaited, it may still get one: judged at the last answer.
            (_, 0) if pool.unanswered > 0 => None,
            (false, 0) => Some(Change::Lost(name())),
            (true, 0) if before == Known::Nothing => Some(Change::Lost(name())),
            (true, 1) if before == Known::Down => Some(Change::Back(name())),
            _ => None,
        }
    }

    /// Servers that have had no answer yet.
    pub(super) fn unanswered(&self) -> usize {
        self.pools.iter().map(|pool| pool.unanswered).sum()
    }

    /// Servers that are up, of those that are checked.
    pub(super) fn up(&self) -> (usize, usize) {
        let up = self.pools.iter().map(|pool| pool.up).sum();
        (up, self.pools.iter().map(|pool| pool.servers).sum())
    }
}

/// What a report changes for a pool.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// No server of it is up.
    Lost(Arc<str>),
    /// One is again.
    Back(Arc<str>),
}

impl Change {
    fn log(&self) {
        match self {
            Self::Lost(pool) => {
                log::error!("pool {pool} has no server up: its clients are reset (no_server)");
            }
            Self::Back(pool) => log::info!("pool {pool} has a server up again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outlook(servers: usize) -> Outlook {
        Outlook {
            pools: vec![Pool {
                name: "web".into(),
                servers,
                up: 0,
                unanswered: servers,
            }],
            places: vec![Some(0); servers],
            known: vec![Known::Nothing; servers],
        }
    }

    fn reports(outlook: &mut Outlook, reports: &[(usize, bool)]) -> Vec<Option<Change>> {
        let note = |(server, is_up): &(usize, bool)| outlook.change(ServerId::new(*server), *is_up);
        reports.iter().map(note).collect()
    }

    #[test]
    fn the_last_server_lost_and_the_first_one_back_are_told_once() {
        let mut outlook = outlook(2);
        let (lost, back) = (
            Some(Change::Lost("web".into())),
            Some(Change::Back("web".into())),
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
        let lost = Some(Change::Lost("web".into()));
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
        assert_eq!(outlook.unanswered(), 1);
    }
}
