//! Slow start, and what servers ask for themselves: how much of its weight a server counts for.
//!
//! The share of a server that has come up, or has joined, grows from a tenth to all of it over
//! `slow_start`. Weights are small integers, so both are reckoned in hundredths of a weight, in pools
//! that need it alone: elsewhere weights stay what the config says. `ip_hash`, whose table must be
//! the same on every node, and `first`, for which weights mean nothing, know no shares between
//! none and all.

use std::time::Duration;

use super::Share;
use crate::balance::Algorithm;
use crate::clock::Now;
use crate::config;

/// What a weight of 1 counts where weights are scaled.
pub(super) const SCALE: u32 = 100;
/// Where a ramp begins, in hundredths.
const BEGIN: u32 = 10;
/// A ramp has so many steps, where that is not more often than `STEP_MIN`.
const STEPS: u32 = 20;
/// Each step costs time in proportion to the pool.
const STEP_MIN: Duration = Duration::from_millis(100);

/// Whether the picks of an algorithm go by weight, so that a part of one means something.
pub(super) fn is_weighted(algorithm: Algorithm) -> bool {
    match algorithm {
        Algorithm::RoundRobin
        | Algorithm::LeastConnections
        | Algorithm::PowerOfTwo
        | Algorithm::Random
        | Algorithm::LeastTime => true,
        Algorithm::IpHash | Algorithm::First => false,
    }
}

/// How long the share of a server of that pool grows; zero where its picks know no parts of one.
pub fn slow_start(config: &config::Pool) -> Duration {
    match is_weighted(config.algorithm) {
        true => config.slow_start,
        false => Duration::ZERO,
    }
}

/// Hundredths of its weight that a server counts for whose ramp began at `since`, and when that
/// changes next.
pub(super) fn height(since: Option<Now>, slow_start: Duration, now: Now) -> (u32, Option<Now>) {
    let Some(since) = since.filter(|since| now < *since + slow_start) else {
        return (SCALE, None);
    };
    let passed = now.since(since).as_secs_f64() / slow_start.as_secs_f64();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 90"
    )]
    let grown = (f64::from(SCALE - BEGIN) * passed) as u32;
    let step = (slow_start / STEPS).max(STEP_MIN);
    (BEGIN + grown, Some((now + step).min(since + slow_start)))
}

/// A weight in hundredths, of which `height` hundredths are reached and `share` percent asked for.
/// What may take a connection at all counts for at least the least that there is.
pub(super) fn scaled(weight: u32, height: u32, share: Share) -> u32 {
    if weight == 0 || share.0 == 0 {
        return 0;
    }
    let whole = u64::from(weight) * u64::from(height) * u64::from(share.0) / 100;
    u32::try_from(whole).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_ramp_grows_from_a_tenth_to_all_in_steps_and_ends() {
        let begun = Now::default() + SECOND;
        let at = |seconds: f64| height(Some(begun), 10 * SECOND, begun + SECOND.mul_f64(seconds));
        assert_eq!(at(0.0), (10, Some(begun + SECOND / 2)));
        assert_eq!(at(5.0).0, 55);
        assert_eq!(at(9.9), (99, Some(begun + 10 * SECOND)));
        assert_eq!(at(10.0), (100, None));
        assert_eq!(height(Some(begun), Duration::ZERO, begun), (100, None));
        assert_eq!(height(None, SECOND, begun), (100, None));
        let (_, next) = height(Some(begun), SECOND, begun);
        assert_eq!(next, Some(begun + STEP_MIN));
    }

    #[test]
    fn a_share_multiplies_and_nothing_is_rounded_away() {
        assert_eq!(scaled(3, 100, Share(100)), 300);
        assert_eq!(scaled(256, 100, Share(256)), 65_536);
        assert_eq!(scaled(1, 10, Share(1)), 1);
        assert_eq!(scaled(0, 100, Share(100)), 0);
        assert_eq!(scaled(4, 50, Share(50)), 100);
        assert_eq!(scaled(4, 50, Share(0)), 0);
    }
}
