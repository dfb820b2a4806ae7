//! What happened lately, for people who look: server down and why, reload, drain. Not a log: the
//! last ones are kept in memory, and readers that fall behind miss the oldest.

use std::collections::VecDeque;
use std::mem;
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
    /// Somebody wants this node to get no traffic.
    Left,
    /// Somebody wants it to get traffic again.
    Joined,
    /// Another process has taken over.
    Upgraded,
    /// None has, and all is as before.
    UpgradeFailed,
}

impl Kind {
    /// Each of them once.
    const ALL: [Self; 21] = [
        Self::Started,
        Self::Stopping,
        Self::ServerUp,
        Self::ServerDown,
        Self::ServerShare,
        Self::ServerState,
        Self::ServerEjected,
        Self::PoolState,
        Self::Changed,
        Self::Reloaded,
        Self::ReloadFailed,
        Self::RolledBack,
        Self::Confirmed,
        Self::Killed,
        Self::Discovered,
        Self::DiscoveryFailed,
        Self::DiscoveryBack,
        Self::Left,
        Self::Joined,
        Self::Upgraded,
        Self::UpgradeFailed,
    ];

    /// The one with this word in the API; `None` where this version has none.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

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
            Self::Left => "left",
            Self::Joined => "joined",
            Self::Upgraded => "upgraded",
            Self::UpgradeFailed => "upgrade_failed",
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// Counted from 1 over the life of the process, and of those that handed over to it.
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

impl Kept {
    /// Adds one, with a number of its own.
    fn push(&mut self, mut event: Event) {
        self.last = self.last.saturating_add(1);
        event.number = self.last;
        if self.events.len() == KEPT {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

/// The last events; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Mutex<Kept>>);

impl Events {
    /// Adds one.
    pub fn add(&self, kind: Kind, text: impl Into<Arc<str>>) {
        let event = Event {
            number: 0,
            time: clock::wall(),
            kind,
            text: text.into(),
        };
        self.lock().push(event);
    }

    /// Puts what an earlier process has told, oldest first, before everything that is here. Numbers go
    /// on from there: a reader of the earlier process goes on where it was.
    pub fn restore(&self, past: Vec<Event>) {
        let mut kept = self.lock();
        let Some(last) = past.iter().map(|event| event.number).max() else {
            return;
        };
        let own = mem::replace(&mut kept.events, past.into());
        kept.last = last;
        while kept.events.len() > KEPT {
            kept.events.pop_front();
        }
        for event in own {
            kept.push(event);
        }
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

    #[test]
    fn what_was_told_before_comes_first_and_numbers_go_on_from_there() {
        let before = Events::default();
        for number in 0..KEPT + 2 {
            before.add(Kind::Changed, format!("{number}"));
        }
        let events = Events::default();
        events.restore(Vec::new());
        events.add(Kind::Started, "own");
        events.restore(before.after(0));
        events.add(Kind::Reloaded, "later");
        let all = events.after(0);
        let shown = |event: &Event| (event.number, event.text.to_string());
        let count = KEPT as u64;
        assert_eq!(all.len(), KEPT);
        assert_eq!(shown(&all[0]), (5, "4".into()));
        assert_eq!(shown(&all[KEPT - 2]), (count + 3, "own".into()));
        assert_eq!(shown(&all[KEPT - 1]), (count + 4, "later".into()));
    }

    #[test]
    fn every_word_is_that_of_its_kind() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of_word(kind.word()), Some(kind));
        }
        assert_eq!(Kind::of_word("unheard_of"), None);
    }
}
