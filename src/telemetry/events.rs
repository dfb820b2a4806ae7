//! What happened lately, for people who look: server down and why, reload, drain. Not a log: the
//! last ones are kept in memory, and readers that fall behind miss the oldest.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::clock;

/// Events that are kept.
const KEPT: usize = 256;

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The listeners have opened.
    Started,
    /// The process was told to stop.
    Stopping,
    /// A server is up, as the prober found.
    ServerUp,
    /// A server is down, as the prober found.
    ServerDown,
    /// A server wants another share of its weight.
    ServerShare,
    /// Somebody changed a server's state, or a drain has come to its end.
    ServerState,
    /// Connections to a server failed in a row and it is left alone for that, or no longer.
    ServerEjected,
    /// The servers of a pool are used although all are down, or no longer.
    PoolState,
    /// Somebody changed weights, algorithms or servers without the file.
    Changed,
    /// A file was applied.
    Reloaded,
    /// A file was not applied.
    ReloadFailed,
    /// A reload that nobody confirmed was taken back.
    RolledBack,
    /// A reload was confirmed.
    Confirmed,
    /// Connections were killed on demand.
    Killed,
    /// Servers were found by name or in a file, or are gone from there.
    Discovered,
    /// A name or a file gives no answer; what was found before stays.
    DiscoveryFailed,
    /// It gives one again.
    DiscoveryBack,
}

impl Kind {
    /// The word for it in the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Stopping => "stopping",
            Self::ServerUp => "server_up",
            Self::ServerDown => "server_down",
            Self::ServerShare => "server_share",
            Self::ServerState => "server_state",
            Self::ServerEjected => "server_ejected",
            Self::PoolState => "pool_state",
            Self::Changed => "changed",
            Self::Reloaded => "reloaded",
            Self::ReloadFailed => "reload_failed",
            Self::RolledBack => "rolled_back",
            Self::Confirmed => "confirmed",
            Self::Killed => "killed",
            Self::Discovered => "discovered",
            Self::DiscoveryFailed => "discovery_failed",
            Self::DiscoveryBack => "discovery_back",
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// Counted from 1 over the life of the process.
    pub number: u64,
    /// The wall clock then.
    pub time: SystemTime,
    /// What kind of thing.
    pub kind: Kind,
    /// One line for people.
    pub text: Arc<str>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Event>,
    /// The number of the last one.
    last: u64,
}

/// The last events; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Mutex<Kept>>);

impl Events {
    /// Adds one.
    pub fn add(&self, kind: Kind, text: impl Into<Arc<str>>) {
        let mut kept = self.lock();
        kept.last += 1;
        let event = Event {
            number: kept.last,
            time: clock::wall(),
            kind,
            text: text.into(),
        };
        if kept.events.len() == KEPT {
            kept.events.pop_front();
        }
        kept.events.push_back(event);
    }

    /// Those after number `seen`, oldest first, as far as they are kept.
    pub fn after(&self, seen: u64) -> Vec<Event> {
        let kept = self.lock();
        let news = kept.events.iter().filter(|event| event.number > seen);
        news.cloned().collect()
    }

    /// The number of the last one; 0 before the first.
    pub fn last(&self) -> u64 {
        self.lock().last
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // A panic ends the process, so nobody sees a poisoned lock outside tests.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_and_numbers_go_on() {
        let events = Events::default();
        for number in 0..KEPT + 10 {
            events.add(Kind::Changed, format!("{number}"));
        }
        let all = events.after(0);
        assert_eq!(all.len(), KEPT);
        assert_eq!((all[0].number, &*all[0].text), (11, "10"));
        assert_eq!(events.after(events.last() - 1).len(), 1);
        assert!(events.after(events.last()).is_empty());
    }
}
