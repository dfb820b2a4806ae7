//! Descriptors that were open already when this program began, because whoever started it left them to
//! it across the exec.
#![allow(unsafe_code, reason = "sys is where unsafe code lives")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::check;

/// The first number after those of the standard streams, which belong to std.
pub const FIRST: RawFd = 3;

/// `fcntl(F_GETFD)`, then `fcntl(F_SETFD)`: takes over the descriptor with this number, which no other
/// program inherits from now on. To be called before other threads start programs.
///
/// # Errors
/// EBADF where none has the number; `AlreadyExists` for one that is somebody's in this program: a
/// standard stream, what it has opened itself, or what was taken over before.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD takes no further argument and touches no memory of ours.
    let flags = check(i64::from(unsafe { libc::fcntl(number, libc::F_GETFD) }))?;
    // What crosses an exec has no such flag; all that std, mio, socket2 and this module open has it.
    if number < FIRST || flags != 0 {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // SAFETY: F_SETFD takes an int and touches no memory of ours.
    let result = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    check(i64::from(result))?;
    // SAFETY: it is open, and without the flag it was nobody's in this program; the flag is set now, so
    // that no second call takes it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// `dup2(2)`: standard input, which another program has made something else than a text to read; it is
/// /dev/null from now on.
///
/// # Errors
/// EMFILE; there is no /dev/null.
pub fn take_stdin() -> io::Result<OwnedFd> {
    let stdin = io::stdin();
    let taken = stdin.as_fd().try_clone_to_owned()?;
    let nothing = File::open("/dev/null")?;
    // SAFETY: dup2 takes two integers and touches no memory of ours; descriptor 0 stays open, and whoever
    // reads it finds nothing.
    let result = unsafe { libc::dup2(nothing.as_raw_fd(), stdin.as_raw_fd()) };
    check(i64::from(result))?;
    Ok(taken)
}

/// `close_range(2)`: closes whatever is open beside the standard streams. To be called before anything is
/// opened here.
///
/// # Errors
/// ENOSYS before Linux 5.9.
pub fn close_all() -> io::Result<()> {
    const NO_FLAGS: libc::c_uint = 0;
    // SAFETY: it takes three integers and touches no memory of ours, and as the caller says, no
    // descriptor from FIRST on is owned by anything in this program.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, NO_FLAGS) };
    check(result).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::{AsRawFd, IntoRawFd};

    #[test]
    fn only_what_is_nobody_s_is_taken_and_only_once() {
        let own = File::open("/dev/null").unwrap();
        let kind = |number| take(number).map(drop).map_err(|error| error.kind());
        let taken = Err(io::ErrorKind::AlreadyExists);
        assert_eq!(kind(own.as_raw_fd()), taken);
        assert_eq!(kind(1), taken);
        assert!(kind(RawFd::MAX).is_err());
        // As an exec leaves it.
        let passed = File::open("/dev/null").unwrap().into_raw_fd();
        // SAFETY: F_SETFD takes an int and touches no memory of ours.
        assert_eq!(unsafe { libc::fcntl(passed, libc::F_SETFD, 0) }, 0);
        let owned = take(passed).unwrap();
        assert_eq!(owned.as_raw_fd(), passed);
        assert_eq!(kind(passed), taken);
    }
}
