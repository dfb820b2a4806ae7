//! How often names and files were looked at, counted by the resolver and read by any thread.

use std::sync::atomic::{AtomicU64, Ordering};

/// Rounds by how they ended.
#[derive(Debug, Default)]
pub struct Resolutions {
    good: AtomicU64,
    failed: AtomicU64,
}

impl Resolutions {
    /// Counts one round.
    pub fn record(&self, is_good: bool) {
        self.add(is_good, 1);
    }

    /// Counts several.
    pub fn add(&self, is_good: bool, rounds: u64) {
        let count = match is_good {
            true => &self.good,
            false => &self.failed,
        };
        // For readers that need no order.
        count.fetch_add(rounds, Ordering::Relaxed);
    }

    /// Rounds by the word for their result.
    pub fn by_result(&self) -> [(&'static str, u64); 2] {
        let value = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [("ok", value(&self.good)), ("failed", value(&self.failed))]
    }
}
