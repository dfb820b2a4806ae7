//! A hierarchical timer wheel: at most one timer for each key, where a key is a small number such
//! as a place in a slab or in a list of targets. Time is passed in; the wheel never reads a clock.
//!
//! A timer's deadline is rounded up to a tick, so nothing fires early and nothing more than a tick
//! late. Seven levels of 64 slots cover every tick that [`Now`] can express, so there is no
//! overflow list and no wrap-around. A timer stands at the level of the highest digit (base 64) in
//! which its tick differs from the current one. From that follows all the rest: each level's
//! timers are due before those of the level above, so the earliest is found by one look at each
//! bitmap, and the slot of a timer can be computed and need not be stored.
//!
//! Arming, disarming and asking for the next deadline take the same time however many timers
//! there are. A timer moves down at most six times in its life, each time by a few writes. The
//! structure is that of Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (SOSP 1987).

use std::time::Duration;

use crate::clock::Now;

/// 2^22 ns, about 4.2 ms: finer than any timeout a user sets, coarse enough to batch wakeups.
const TICK_BITS: u32 = 22;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;
const LEVELS: usize = 7;
const _: () = assert!(TICK_BITS as usize + SLOT_BITS as usize * LEVELS == u64::BITS as usize);

const LAST_TICK: u64 = u64::MAX >> TICK_BITS;
/// Not a tick, so that tick 0 is a time like any other.
const UNARMED: u64 = u64::MAX;
/// The end of a list, and the reason why the highest key cannot be used.
const NO_KEY: u32 = u32::MAX;

/// One key's timer, and its place in the ring of those that share its slot.
#[derive(Clone, Copy, Debug)]
struct Link {
    /// The tick at which it fires, or `UNARMED`.
    tick: u64,
    next: u32,
    previous: u32,
}

/// Every connection that was ever open at once pays for one of these.
const _: () = assert!(size_of::<Link>() == 16);

/// Timers by key. See the module for what it costs.
#[derive(Debug)]
pub struct Timers {
    /// The latest time that `expire` was told.
    now: Now,
    /// Every timer of an earlier tick has fired; at most `now`'s tick.
    tick: u64,
    /// Bit `n` is set exactly where slot `n` of the level holds a timer.
    occupied: [u64; LEVELS],
    /// The first key of each slot's ring; means something only where `occupied` says so.
    first: [[u32; SLOTS]; LEVELS],
    /// Indexed by key; as long as the highest key ever armed asked for.
    links: Vec<Link>,
}

impl Timers {
    /// A wheel with nothing armed that stands at `now`.
    pub fn new(now: Now) -> Self {
        Self {
            now,
            tick: now.as_nanoseconds() >> TICK_BITS,
            occupied: [0; LEVELS],
            first: [[NO_KEY; SLOTS]; LEVELS],
            links: Vec::new(),
        }
    }

    /// Makes `key` fire at `at`, and at no other time that it was armed for before. Where `at` is
    /// no later than the last `expire`, the next call of `expire` returns it: a loop that arms for
    /// the past what it has just taken out does not end.
    ///
    /// Allocates only where `key` is higher than any before.
    pub fn arm(&mut self, key: u32, at: Now) {
        debug_assert!(key != NO_KEY, "keys are small numbers");
        self.disarm(key);
        let index = key as usize;
        if index >= self.links.len() {
            let empty = Link {
                tick: UNARMED,
                next: NO_KEY,
                previous: NO_KEY,
            };
            self.links.resize(index + 1, empty);
        }
        self.links[index].tick = if at <= self.now {
            self.tick
        } else {
            // Only a time that is 584 years away, which stands for never, meets the limit.
            at.as_nanoseconds().div_ceil(1 << TICK_BITS).min(LAST_TICK)
        };
        self.link(key);
    }

    /// Makes `key` not fire; nothing happens where it is not armed.
    pub fn disarm(&mut self, key: u32) {
        if self.is_armed(key) {
            self.unlink(key);
            self.links[key as usize].tick = UNARMED;
        }
    }

    /// Whether `key` will fire.
    pub fn is_armed(&self, key: u32) -> bool {
        self.links
            .get(key as usize)
            .is_some_and(|link| link.tick != UNARMED)
    }

    /// How long a poll may wait, or `None` where nothing is armed.
    ///
    /// Never longer than to the tick of the earliest timer. A timer that is far away may ask for
    /// up to six shorter waits on the way, at which `expire` brings it closer and returns nothing.
    pub fn next(&self, now: Now) -> Option<Duration> {
        let (level, slot) = self.earliest()?;
        let start = self.start(level, slot);
        Some(Now::from_nanoseconds(start << TICK_BITS).since(now))
    }

    /// Takes out one timer whose deadline is over at `now`; to be called until it returns `None`, at
    /// once or later: while one is left, `next` says that nobody is to wait. A `now` that lies before an earlier one counts as that earlier one.
    pub fn expire(&mut self, now: Now) -> Option<u32> {
        self.now = self.now.max(now);
        let target = self.now.as_nanoseconds() >> TICK_BITS;
        while let Some((level, slot)) = self.earliest() {
            let start = self.start(level, slot);
            if start > target {
                break;
            }
            self.tick = start;
            if level == 0 {
                let key = self.first[0][slot];
                self.disarm(key);
                return Some(key);
            }
            self.cascade(level, slot);
        }
        // Safe for those that wait: no slot begins by then, so none of them changes its level.
        self.tick = target;
        None
    }

    /// The level and slot that begins first: of the lowest level that holds anything, the lowest.
    fn earliest(&self) -> Option<(usize, usize)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        Some((level, self.occupied[level].trailing_zeros() as usize))
    }

    /// The first tick of a slot: the current tick down to that level's digit, then the slot's.
    fn start(&self, level: usize, slot: usize) -> u64 {
        let shift = shift(level);
        let above = (self.tick >> shift) & !SLOT_MASK;
        (above | slot as u64) << shift
    }

    /// Where a timer of `tick` stands while the wheel is at its current tick.
    fn place(&self, tick: u64) -> (usize, usize) {
        let difference = tick ^ self.tick;
        let level = (difference | 1).ilog2() / SLOT_BITS;
        let slot = (tick >> (level * SLOT_BITS)) & SLOT_MASK;
        (level as usize, slot as usize)
    }

    /// Moves what a slot holds to the levels below. The slot must begin at the current tick.
    fn cascade(&mut self, level: usize, slot: usize) {
        let first = self.first[level][slot];
        self.occupied[level] &= !(1 << slot);
        let mut key = first;
        loop {
            // Read before `link` overwrites it.
            let next = self.links[key as usize].next;
            self.link(key);
            key = next;
            if key == first {
                return;
            }
        }
    }

    /// Appends `key` to the ring of its tick's slot: those of one tick fire in the order of arming.
    fn link(&mut self, key: u32) {
        let (level, slot) = self.place(self.links[key as usize].tick);
        if self.occupied[level] & (1 << slot) == 0 {
            self.occupied[level] |= 1 << slot;
            self.first[level][slot] = key;
            self.join(key, key);
            return;
        }
        let first = self.first[level][slot];
        let last = self.links[first as usize].previous;
        self.join(last, key);
        self.join(key, first);
    }

    /// Takes `key` out of its ring.
    fn unlink(&mut self, key: u32) {
        let Link {
            tick,
            next,
            previous,
        } = self.links[key as usize];
        let (level, slot) = self.place(tick);
        if next == key {
            self.occupied[level] &= !(1 << slot);
            return;
        }
        self.join(previous, next);
        if self.first[level][slot] == key {
            self.first[level][slot] = next;
        }
    }

    fn join(&mut self, previous: u32, next: u32) {
        self.links[previous as usize].next = next;
        self.links[next as usize].previous = previous;
    }
}

/// By how many bits a tick is shifted so that a level's digit comes last.
fn shift(level: usize) -> usize {
    SLOT_BITS as usize * level
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const TICK: u64 = 1 << TICK_BITS;
    const DAY: u64 = 86_400_000_000_000;

    fn at(nanoseconds: u64) -> Now {
        Now::from_nanoseconds(nanoseconds)
    }

    fn drain(timers: &mut Timers, now: Now) -> Vec<u32> {
        std::iter::from_fn(|| timers.expire(now)).collect()
    }

    #[test]
    fn time_zero_is_a_time() {
        let mut timers = Timers::new(at(0));
        timers.arm(0, at(0));
        assert!(timers.is_armed(0));
        assert_eq!(timers.next(at(0)), Some(Duration::ZERO));
        assert_eq!(drain(&mut timers, at(0)), [0]);
        assert_eq!(timers.next(at(0)), None);
    }

    #[test]
    fn who_stops_early_goes_on_without_a_wait() {
        let (start, late) = (5 * TICK, at(9 * TICK));
        let mut timers = Timers::new(at(start));
        for key in 0..4 {
            timers.arm(key, at(start + u64::from(key) * TICK));
        }
        assert_eq!(timers.expire(late), Some(0));
        assert_eq!(timers.next(late), Some(Duration::ZERO));
        // What comes meanwhile has its own time.
        timers.arm(4, at(12 * TICK));
        timers.arm(5, at(start));
        let mut rest = drain(&mut timers, late);
        rest.sort_unstable();
        assert_eq!(rest, [1, 2, 3, 5]);
        assert_eq!(timers.next(late), Some(Duration::from_nanos(3 * TICK)));
    }

    #[test]
    fn the_past_fires_at_once() {
        let start = 5 * TICK + 1000;
        let mut timers = Timers::new(at(start));
        timers.arm(3, at(start - 1));
        timers.arm(4, at(0));
        timers.arm(5, at(start));
        assert_eq!(drain(&mut timers, at(start)), [3, 4, 5]);
    }

    #[test]
    fn arming_again_moves_and_disarming_twice_is_harmless() {
        let mut timers = Timers::new(at(0));
        timers.arm(7, at(TICK));
        timers.arm(7, at(3 * TICK));
        assert_eq!(drain(&mut timers, at(2 * TICK)), [0u32; 0]);
        assert_eq!(drain(&mut timers, at(3 * TICK)), [7]);
        timers.arm(7, at(4 * TICK));
        timers.disarm(7);
        timers.disarm(7);
        timers.disarm(1000);
        assert_eq!(timers.next(at(0)), None);
        assert_eq!(drain(&mut timers, at(DAY)), [0u32; 0]);
    }

    #[test]
    fn thousands_of_one_tick_fire_once_each_in_order() {
        let mut timers = Timers::new(at(17));
        (0..5000).for_each(|key| timers.arm(key, at(9 * DAY)));
        (0..5000).step_by(2).for_each(|key| timers.disarm(key));
        assert_eq!(drain(&mut timers, at(9 * DAY - 1)), [0u32; 0]);
        let fired = drain(&mut timers, at(9 * DAY + TICK));
        assert_eq!(fired, (0..5000).skip(1).step_by(2).collect::<Vec<_>>());
    }

    #[test]
    fn never_is_a_deadline_too() {
        let mut timers = Timers::new(at(0));
        timers.arm(0, at(0) + Duration::MAX);
        assert_eq!(drain(&mut timers, at(365 * DAY)), [0u32; 0]);
        assert!(timers.is_armed(0));
    }

    #[test]
    fn few_wakeups_lead_to_a_far_deadline() {
        let mut timers = Timers::new(at(123));
        let deadline = at(3 * DAY + 456);
        timers.arm(0, deadline);
        let mut now = at(123);
        let mut wakeups = 0;
        while let Some(wait) = timers.next(now) {
            now = now + wait;
            wakeups += 1;
            assert!(wakeups <= LEVELS, "no progress at {now:?}");
            if timers.expire(now).is_some() {
                break;
            }
        }
        assert!(now >= deadline && now <= deadline + Duration::from_nanos(TICK));
        assert!(!timers.is_armed(0));
    }

    #[derive(Clone, Debug)]
    enum Act {
        /// Key, and the deadline against the present.
        Arm(u32, i64),
        Disarm(u32),
        Advance(u64),
        /// As far as `next` says.
        Wait,
    }

    /// From nanoseconds to months, each magnitude as likely as the others.
    fn span() -> impl Strategy<Value = u64> {
        (0_u32..54, any::<u64>()).prop_map(|(bits, random)| random & ((1 << bits) - 1))
    }

    fn act() -> impl Strategy<Value = Act> {
        let ahead = span().prop_map(u64::cast_signed);
        let same_tick = (0..3_i64).prop_map(|ticks| ticks * TICK.cast_signed());
        let behind = span().prop_map(|span| -span.cast_signed());
        prop_oneof![
            8 => (0_u32..300, ahead).prop_map(|(key, after)| Act::Arm(key, after)),
            4 => (0_u32..300, same_tick).prop_map(|(key, after)| Act::Arm(key, after)),
            1 => (0_u32..300, behind).prop_map(|(key, after)| Act::Arm(key, after)),
            2 => (0_u32..310).prop_map(Act::Disarm),
            2 => span().prop_map(Act::Advance),
            4 => Just(Act::Wait),
        ]
    }

    /// Moves both to `now` and compares what fires.
    fn advance(timers: &mut Timers, model: &mut BTreeMap<u32, u64>, now: u64) {
        for key in drain(timers, at(now)) {
            let deadline = model
                .remove(&key)
                .expect("fires only what is armed, and once");
            assert!(deadline <= now, "{key} is early");
            assert!(!timers.is_armed(key));
        }
        for (key, deadline) in model {
            assert!(deadline.saturating_add(TICK) > now, "{key} is late");
            assert!(timers.is_armed(*key));
        }
    }

    proptest! {
        #[test]
        fn equals_a_list(start in span(), acts in prop::collection::vec(act(), 1..400)) {
            let mut now = start;
            let mut timers = Timers::new(at(now));
            let mut model = BTreeMap::new();
            for act in acts {
                match act {
                    Act::Arm(key, after) => {
                        let deadline = now.saturating_add_signed(after);
                        timers.arm(key, at(deadline));
                        model.insert(key, deadline);
                    }
                    Act::Disarm(key) => {
                        timers.disarm(key);
                        model.remove(&key);
                    }
                    Act::Advance(span) => now += span,
                    Act::Wait => {
                        let wait = timers.next(at(now)).unwrap_or_default();
                        now = (at(now) + wait).as_nanoseconds();
                    }
                }
                if matches!(act, Act::Advance(_) | Act::Wait) {
                    advance(&mut timers, &mut model, now);
                }
                let earliest = model.values().min();
                let wait = timers.next(at(now));
                prop_assert_eq!(wait.is_some(), earliest.is_some());
                if let (Some(wait), Some(&earliest)) = (wait, earliest) {
                    let woken = (at(now) + wait).as_nanoseconds();
                    prop_assert!(woken < earliest.max(now) + TICK, "sleeps through a deadline");
                }
            }
            advance(&mut timers, &mut model, u64::MAX >> 1);
            prop_assert!(model.is_empty());
        }
    }
}
