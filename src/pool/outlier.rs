//! Outliers: servers that are left alone for a while because of what real connections have found,
//! whatever health checks say.
//!
//! Failures in a row are counted over all workers. A server that has had enough of them is ejected
//! for a time, unless that would leave too few: that decision is made by one worker at a time, so
//! that the bound is exact. Who decided tells the others.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Now;
use crate::config;

/// What a connection has found of its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It served: a byte came, or it kept the connection for longer than a failing one would.
    Good,
    /// It did not accept, or ended the connection at once without a byte.
    Bad,
}

/// What all workers have found of one server.
#[derive(Debug, Default)]
pub struct Record {
    /// Bad findings since the last good one, or since the last ejection.
    row: AtomicU32,
    /// When it is let in again, in nanoseconds of the process's clock; long past where it never was
    /// ejected.
    ejected_until: AtomicU64,
    ejections: AtomicU32,
}

impl Record {
    /// How long it is still left alone; `None` where it is not.
    pub fn ejected_for(&self, now: Now) -> Option<Duration> {
        let left = self.until().since(now);
        (!left.is_zero()).then_some(left)
    }

    /// How often it was ejected.
    pub fn ejections(&self) -> u32 {
        self.ejections.load(Relaxed)
    }

    /// Bad findings in a row.
    pub fn bad_in_a_row(&self) -> u32 {
        self.row.load(Relaxed)
    }

    /// When it is let in again; long past where it never was ejected.
    pub fn ejected_until(&self) -> Now {
        self.until()
    }

    /// What the process before this one has found. To be told before any worker asks.
    pub fn take_over(&self, bad_in_a_row: u32, ejected_until: Now, ejections: u32) {
        self.row.store(bad_in_a_row, Relaxed);
        let until = ejected_until.as_nanoseconds();
        self.ejected_until.store(until, Relaxed);
        self.ejections.store(ejections, Relaxed);
    }

    /// When it is let in again.
    pub(super) fn until(&self) -> Now {
        Now::from_nanoseconds(self.ejected_until.load(Relaxed))
    }

    /// Lets it in, with nothing against it.
    pub(super) fn pardon(&self) {
        // Most have nothing to be pardoned, and a read leaves their cache lines where they are.
        if self.row.load(Relaxed) > 0 {
            self.row.store(0, Relaxed);
        }
        if self.ejected_until.load(Relaxed) > 0 {
            self.ejected_until.store(0, Relaxed);
        }
    }

    /// Takes a finding; true where these are enough in a row.
    pub(super) fn note(&self, finding: Finding, enough: u32) -> bool {
        match finding {
            Finding::Good => {
                if self.row.load(Relaxed) > 0 {
                    self.row.store(0, Relaxed);
                }
                false
            }
            Finding::Bad => self.row.fetch_add(1, Relaxed).saturating_add(1) >= enough,
        }
    }

    fn eject(&self, until: Now) {
        self.row.store(0, Relaxed);
        self.ejected_until.store(until.as_nanoseconds(), Relaxed);
        self.ejections.fetch_add(1, Relaxed);
    }
}

/// How long nobody asks again where as many are ejected as may be: the question is about all servers
/// of the pool, and while they fail it would come with each connection.
const RECESS: Duration = Duration::from_millis(100);

/// Where a pool's ejections are decided, one at a time.
#[derive(Debug, Default)]
pub struct Court {
    one_at_a_time: Mutex<()>,
    /// Nobody is ejected before that, in nanoseconds of the process's clock.
    recess_until: AtomicU64,
}

impl Court {
    /// Ejects `accused`, one of a pool's servers whose records are `all`, as far as `rules` allow.
    /// False where it stays: too many are ejected, or were a moment ago, or another worker was quicker.
    pub(super) fn eject<'a>(
        &self,
        accused: &Record,
        all: impl ExactSizeIterator<Item = &'a Record>,
        rules: &config::Outlier,
        now: Now,
    ) -> bool {
        let recess = Now::from_nanoseconds(self.recess_until.load(Relaxed));
        if now < recess || accused.ejected_for(now).is_some() {
            return false;
        }
        let most = rules.ejected_max(all.len());
        // A panic ends the process, so nobody sees a poisoned lock outside tests.
        let _held = self
            .one_at_a_time
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if accused.ejected_for(now).is_some() {
            return false;
        }
        let ejected = all.filter(|record| record.ejected_for(now).is_some());
        if ejected.count() >= most {
            let until = (now + RECESS).as_nanoseconds();
            self.recess_until.store(until, Relaxed);
            return false;
        }
        accused.eject(now + rules.ejection);
        true
    }

    /// Lets in those of `all` that are too many by `rules`, because others have left the pool or the
    /// rules have changed: the ones whose time would have come first.
    pub(super) fn let_in<'a>(
        &self,
        all: impl ExactSizeIterator<Item = &'a Record>,
        rules: &config::Outlier,
        now: Now,
    ) {
        let most = rules.ejected_max(all.len());
        let mut ejected: Vec<_> = all.filter(|one| one.ejected_for(now).is_some()).collect();
        if ejected.len() <= most {
            return;
        }
        // Every worker is told of the change and comes by here: only the first one still finds too many.
        let _held = self
            .one_at_a_time
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        ejected.retain(|one| one.ejected_for(now).is_some());
        ejected.sort_by_key(|one| one.until());
        let surplus = ejected.len().saturating_sub(most);
        ejected[..surplus].iter().for_each(|one| one.pardon());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;
    use std::thread;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules(percent: u8) -> config::Outlier {
        config::Outlier {
            failures: 3.try_into().unwrap(),
            ejection: 10 * SECOND,
            max_ejected_percent: percent,
        }
    }

    #[test]
    fn a_row_is_broken_by_one_good_finding_and_begins_anew_after_an_ejection() {
        let records = [Record::default(), Record::default()];
        let (record, now) = (&records[0], Now::default() + SECOND);
        let notes = |findings: &[Finding]| -> Vec<bool> {
            findings.iter().map(|f| record.note(*f, 3)).collect()
        };
        use Finding::{Bad, Good};
        assert_eq!(notes(&[Bad, Bad, Good, Bad, Bad]), [false; 5]);
        assert_eq!(notes(&[Bad]), [true]);
        let court = Court::default();
        assert!(court.eject(record, records.iter(), &rules(50), now));
        assert_eq!(record.ejected_for(now), Some(10 * SECOND));
        assert_eq!(record.ejected_for(now + 10 * SECOND), None);
        assert_eq!(
            (notes(&[Bad, Bad]), record.ejections()),
            (vec![false; 2], 1)
        );
        record.pardon();
        assert_eq!(
            (record.ejected_for(now), notes(&[Bad])),
            (None, vec![false])
        );
    }

    /// With 10,000 servers, a look at all of them for each connection that fails would be the larger
    /// part of what it costs.
    #[test]
    fn where_no_more_may_be_ejected_the_question_rests_for_a_moment() {
        use std::cell::Cell;
        let records: Vec<Record> = (0..4).map(|_| Record::default()).collect();
        let (court, now, looks) = (Court::default(), Now::default() + SECOND, Cell::new(0));
        let try_at = |accused: usize, now: Now| {
            let all = records.iter().inspect(|_| looks.set(looks.get() + 1));
            court.eject(&records[accused], all, &rules(25), now)
        };
        assert!(try_at(0, now) && !try_at(1, now));
        looks.set(0);
        assert!((0..100).all(|_| !try_at(1, now)));
        assert_eq!(looks.get(), 0);
        records[0].pardon();
        assert!(try_at(1, now + RECESS));
        assert!(!try_at(1, now + RECESS), "it is ejected already");
    }

    #[test]
    fn the_floor_holds_whoever_decides_at_the_same_time() {
        let records: Vec<Record> = (0..20).map(|_| Record::default()).collect();
        let (court, now) = (Court::default(), Now::default() + SECOND);
        let ejected: usize = thread::scope(|scope| {
            let decide = || {
                let all = records.iter();
                let done = all.filter(|one| court.eject(one, records.iter(), &rules(35), now));
                done.count()
            };
            let threads = [(); 4].map(|()| scope.spawn(decide));
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(ejected, 7);
    }

    proptest! {
        #[test]
        fn never_more_than_the_percentage_and_never_a_lone_one(
            servers in 1_usize..40,
            percent in 0_u8..=100,
            accused in prop::collection::vec((0_usize..40, 0_u64..5), 1..200),
        ) {
            let records: Vec<Record> = (0..servers).map(|_| Record::default()).collect();
            let court = Court::default();
            let mut now = Now::default() + SECOND;
            for (server, seconds) in accused {
                now = now + Duration::from_secs(seconds);
                court.eject(&records[server % servers], records.iter(), &rules(percent), now);
                let ejected = records.iter().filter(|r| r.ejected_for(now).is_some()).count();
                prop_assert!(ejected * 100 <= servers * usize::from(percent));
                prop_assert!(servers > 1 || ejected == 0);
            }
        }
    }
}
