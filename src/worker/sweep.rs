//! A walk over all slots of a worker's table, a slice in each turn, so that no turn is long however
//! many connections there are.

/// Where a walk is. The table may change between slices: who comes later may be missed, nobody who
/// stays is, and nobody is seen twice.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sweep {
    next: usize,
    left: usize,
}

impl Sweep {
    /// Once around over `slots` slots, from where the last walk ended.
    pub(super) fn begin(&mut self, slots: usize) {
        self.left = slots;
    }

    /// The next slot of the `slots` that there are now.
    pub(super) fn step(&mut self, slots: usize) -> Option<u32> {
        if self.left == 0 || slots == 0 {
            self.left = 0;
            return None;
        }
        self.left -= 1;
        let slot = if self.next < slots { self.next } else { 0 };
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
        assert_eq!([sweep.step(4), sweep.step(4)], [Some(0), Some(1)]);
        assert!(sweep.is_under_way());
        sweep.rest();
        assert_eq!(sweep.step(4), None);
        sweep.begin(4);
        let walk: Vec<_> = std::iter::from_fn(|| sweep.step(4)).collect();
        assert_eq!(walk, [2, 3, 0, 1]);
        assert!(!sweep.is_under_way());
    }

    #[test]
    fn an_empty_table_is_walked_at_once() {
        let mut sweep = Sweep::default();
        sweep.begin(0);
        assert_eq!(sweep.step(0), None);
    }
}
