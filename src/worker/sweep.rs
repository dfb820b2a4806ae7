//! A walk over all slots of a worker's table, a slice in each turn, so that no turn is long however
//! many connections there are.

/// Where a walk is. Whoever has a slot throughout is seen exactly once; whoever comes meanwhile may
/// be missed. (A table never has fewer slots than before.)
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sweep {
    next: usize,
    /// Slots of this walk still to be seen.
    left: usize,
    /// Slots there were when it began.
    slots: usize,
}

impl Sweep {
    /// Once around over `slots` slots, from where the last walk ended.
    pub(super) fn begin(&mut self, slots: usize) {
        self.left = slots;
        self.slots = slots;
    }

    /// The next slot.
    pub(super) fn step(&mut self) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        let slot = if self.next < self.slots { self.next } else { 0 };
        self.next = slot + 1;
        u32::try_from(slot).ok()
    }

    /// Ends the walk here; the next one goes on from here.
    pub(super) fn rest(&mut self) {
        self.left = 0;
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_once_and_the_next_walk_goes_on_where_one_rested() {
        let mut sweep = Sweep::default();
        sweep.begin(4);
        assert_eq!([sweep.step(), sweep.step()], [Some(0), Some(1)]);
        assert!(sweep.is_under_way());
        sweep.rest();
        assert_eq!(sweep.step(), None);
        for (slots, walk) in [(4, vec![2, 3, 0, 1]), (5, vec![2, 3, 4, 0, 1])] {
            sweep.begin(slots);
            let seen: Vec<_> = std::iter::from_fn(|| sweep.step()).collect();
            assert_eq!(seen, walk);
            assert!(!sweep.is_under_way());
        }
    }

    #[test]
    fn an_empty_table_is_walked_at_once() {
        let mut sweep = Sweep::default();
        sweep.begin(0);
        assert!(!sweep.is_under_way());
        assert_eq!(sweep.step(), None);
    }
}
