//! The only unsafe code: what socket2, mio and std lack.
//!
//! One system call a function, [`OwnedFd`](std::os::fd::OwnedFd) and
//! [`BorrowedFd`](std::os::fd::BorrowedFd) in and out, `io::Result`, no policy, no retry. The first
//! doc line of each names its system call.

pub mod ancillary;
pub mod epoll;
pub mod file;
pub mod inherited;
pub mod limits;
pub mod process;
pub mod shared;
pub mod socket;
pub mod splice;
pub mod tcp_info;
pub mod time;

use std::io;

/// Turns the -1 of a system call into the error that it left in `errno`.
fn check(result: i64) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
