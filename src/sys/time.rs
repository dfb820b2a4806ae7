//! The kernel's clock, as a number that means the same in every process of one boot.
#![allow(unsafe_code, reason = "sys is where unsafe code lives")]

use std::time::Duration;

/// `clock_gettime(CLOCK_MONOTONIC)`: time since the machine was started, less what it slept. The vDSO
/// answers without entering the kernel.
///
/// It has no error: the kernel has this clock since 2.6, and only a bad pointer could fail.
pub fn since_boot() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec, which `time` is.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    assert_eq!(result, 0, "CLOCK_MONOTONIC is there");
    // Neither is ever negative on this clock, and nanoseconds are below a second.
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_and_does_not_go_back() {
        let first = since_boot();
        assert!(first > Duration::ZERO);
        let mut next = first;
        while next == first {
            next = since_boot();
        }
        assert!(next > first);
    }
}
