//! What the kernel lets this process have: descriptors and pipe memory.
#![allow(unsafe_code, reason = "sys is where unsafe code lives")]

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use super::check;

/// `setrlimit(RLIMIT_NOFILE)`: raises the soft limit of open descriptors to the hard one; answers
/// the limit that now holds.
///
/// # Errors
/// What getrlimit or setrlimit report; neither needs a privilege for this.
pub fn raise_descriptors() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: getrlimit writes one rlimit, for which `limit` has room.
    check(i64::from(unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit)
    }))?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: setrlimit reads one rlimit, which `limit` is.
        check(i64::from(unsafe {
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
        }))?;
    }
    Ok(limit.rlim_cur)
}

/// `prlimit(RLIMIT_NOFILE)`: how many descriptors another process may raise its limit to.
///
/// # Errors
/// It is gone, or another user's.
pub fn descriptors_of(process: u32) -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let process = libc::pid_t::try_from(process).map_err(io::Error::other)?;
    // SAFETY: prlimit writes one rlimit, for which `limit` has room, and reads none.
    let result = unsafe {
        libc::prlimit(
            process,
            libc::RLIMIT_NOFILE,
            std::ptr::null(),
            &raw mut limit,
        )
    };
    check(i64::from(result))?;
    Ok(limit.rlim_max)
}

/// `fcntl(F_DUPFD_CLOEXEC)`: has the kernel make room for descriptors up to this number, or the limit,
/// at once. Where several threads share the table, each time that it has to double it the kernel waits
/// until no processor looks at the old one any more (`expand_fdtable` in its fs/file.c), which takes
/// some 10 ms.
///
/// # Errors
/// EMFILE, ENOMEM: the table grows with need then.
pub fn make_room_for_descriptors(number: u64, limit: u64) -> io::Result<()> {
    let last = number.min(limit).saturating_sub(1);
    let last = libc::c_int::try_from(last).unwrap_or(libc::c_int::MAX);
    let stdin = io::stdin();
    let known = stdin.as_fd().as_raw_fd();
    // SAFETY: F_DUPFD_CLOEXEC takes an int and touches no memory of ours.
    let result = unsafe { libc::fcntl(known, libc::F_DUPFD_CLOEXEC, last) };
    let copy = i32::try_from(check(i64::from(result))?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it, and nobody else knows of it.
    drop(unsafe { OwnedFd::from_raw_fd(copy) });
    Ok(())
}

/// What `pipe(7)` says of the memory that pipes may take, all in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PipeLimits {
    /// Of one pipe, for an unprivileged user.
    pub max_size: usize,
    /// Of all pipes of one unprivileged user, above which new ones are tiny; `None` is no limit.
    pub user_soft: Option<usize>,
}

impl PipeLimits {
    /// Those of this process, from `/proc`; where that is hidden, the kernel's defaults hold.
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self::of(effective_capabilities(&status).unwrap_or(0), |name| {
            fs::read_to_string(Path::new("/proc/sys/fs").join(name)).ok()
        })
    }

    /// Those of a process with these effective capabilities; `file` is what a file of `/proc/sys/fs`
    /// says, and where it says nothing the kernel's default holds.
    pub fn of(capabilities: u64, file: impl Fn(&str) -> Option<String>) -> Self {
        if is_exempt(capabilities) {
            return Self {
                max_size: 1 << 20,
                user_soft: None,
            };
        }
        let number = |name: &str| file(name)?.trim().parse::<usize>().ok();
        let soft = number("pipe-user-pages-soft").unwrap_or(16384);
        let hard = number("pipe-user-pages-hard").unwrap_or(0);
        // 0 stands for "no limit" in both files.
        let pages = [soft, hard].into_iter().filter(|pages| *pages > 0).min();
        Self {
            max_size: number("pipe-max-size").unwrap_or(1 << 20),
            user_soft: pages.map(|pages| pages.saturating_mul(page_size())),
        }
    }
}

/// `sysconf(_SC_PAGESIZE)`: bytes in a page of memory.
pub fn page_size() -> usize {
    // SAFETY: sysconf takes an int and touches no memory of ours.
    check(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Whether the kernel's `pipe_is_unprivileged_user()` says no: CAP_SYS_RESOURCE or CAP_SYS_ADMIN.
fn is_exempt(capabilities: u64) -> bool {
    const SYS_ADMIN: u64 = 1 << 21;
    const SYS_RESOURCE: u64 = 1 << 24;
    capabilities & (SYS_ADMIN | SYS_RESOURCE) != 0
}

/// What `/proc/PID/status` says of the capabilities that a process has in effect, as bits.
pub fn effective_capabilities(status: &str) -> Option<u64> {
    let hex = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_descriptors_is_made_up_to_the_limit_and_takes_none() {
        let limit = raise_descriptors().unwrap();
        make_room_for_descriptors(3000, limit).unwrap();
        make_room_for_descriptors(u64::MAX, 3000).unwrap();
        assert!(!Path::new("/proc/self/fd/2999").exists());
        // One beyond is nobody's.
        assert!(make_room_for_descriptors(limit + 1, u64::MAX).is_err());
    }

    #[test]
    fn descriptors_are_raised_once_and_stay() {
        let limit = raise_descriptors().unwrap();
        assert!(limit >= 64);
        assert_eq!(raise_descriptors().unwrap(), limit);
    }

    #[test]
    fn pipe_limits_are_plausible() {
        let limits = PipeLimits::read();
        assert!(limits.max_size >= page_size());
        assert!(limits.user_soft.is_none_or(|bytes| bytes >= page_size()));
    }
}
