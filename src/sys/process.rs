//! Programs that this process has started, as the kernel knows them.
//!
//! A process id is used only while its process was not waited for: until then the kernel gives it,
//! and the group that has its number, to nobody else. A process that is nobody's child is held by a
//! descriptor, which means the same process for ever.
#![allow(unsafe_code, reason = "sys is where unsafe code lives")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::Child;
use std::time::Duration;

use super::check;

/// `pidfd_open(2)`: a descriptor that can be read, for epoll, once the child has ended. It is
/// closed on exec.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM; ESRCH for a child that was waited for.
pub fn open(child: &Child) -> io::Result<OwnedFd> {
    open_number(child.id())
}

/// `pidfd_open(2)`: the same of a process that is no child of ours. Whoever told its number must be
/// able to tell that it lives.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM; ESRCH for one that is gone; `NotFound` for 0 and 1.
pub fn open_number(number: u32) -> io::Result<OwnedFd> {
    const NO_FLAGS: libc::c_uint = 0;
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, checked(number)?, NO_FLAGS) };
    let descriptor = i32::try_from(check(result)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// `pidfd_send_signal(2)`: sends a signal to the process behind a descriptor of [`open`] or
/// [`open_number`].
///
/// # Errors
/// ESRCH where it has ended and was waited for; EINVAL where there is no such signal; EPERM for one
/// that has become another user's.
pub fn send_signal(process: impl AsFd, signal: i32) -> io::Result<()> {
    const NO_FLAGS: libc::c_uint = 0;
    let descriptor = process.as_fd().as_raw_fd();
    let no_more = std::ptr::null::<libc::siginfo_t>();
    let number = libc::SYS_pidfd_send_signal;
    // SAFETY: pidfd_send_signal takes integers here, and reads nothing through a null pointer.
    let result = unsafe { libc::syscall(number, descriptor, signal, no_more, NO_FLAGS) };
    check(result).map(|_| ())
}

/// `fork(2)`, of which the first process ends with 0 and the second goes on here: no longer a child
/// of whoever started us, but of the one who adopts orphans. For a process that has no other thread:
/// another one would be missing in the second, with all that it had locked.
///
/// # Errors
/// EAGAIN, ENOMEM: it goes on as the child that it was.
pub fn leave_parent() -> io::Result<()> {
    // SAFETY: the caller says that there is no other thread, so that the copy is whole.
    match check(i64::from(unsafe { libc::fork() }))? {
        0 => Ok(()),
        // SAFETY: it ends at once, and runs nothing that was to be run at the end of the other.
        _ => unsafe { libc::_exit(0) },
    }
}

/// `poll(2)`: whether the process behind a descriptor of [`open`] or [`open_number`] has ended. A child
/// stays to be waited for.
///
/// # Errors
/// ENOMEM.
pub fn has_ended(process: impl AsFd) -> io::Result<bool> {
    ends_within(process, Duration::ZERO)
}

/// `poll(2)`: the same, after waiting for its end, at most for `patience`, which is cut to whole
/// milliseconds, and begins anew where a signal interrupts.
///
/// # Errors
/// ENOMEM.
pub fn ends_within(process: impl AsFd, patience: Duration) -> io::Result<bool> {
    let mut asked = libc::pollfd {
        fd: process.as_fd().as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let milliseconds = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    loop {
        // SAFETY: poll reads and writes one pollfd, which `asked` is.
        let result = unsafe { libc::poll(&raw mut asked, 1, milliseconds) };
        match check(i64::from(result)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return Ok(outcome? > 0),
        }
    }
}

/// `kill(2)` with SIGKILL: ends the group of processes that a child leads, the child as well. The
/// child must lead one and must not have been waited for.
///
/// # Errors
/// ESRCH, EPERM: nobody is left in it, or nobody that we may end.
pub fn kill_group(child: &Child) -> io::Result<()> {
    let group = -pid(child)?;
    // SAFETY: kill takes two integers and touches no memory of ours.
    check(i64::from(unsafe { libc::kill(group, libc::SIGKILL) })).map(|_| ())
}

/// `signal(SIGCHLD, SIG_DFL)`: children can be waited for. Whoever has started us may have had it
/// ignored, which is inherited, and then the kernel throws away how they ended.
///
/// # Errors
/// None that the kernel knows.
pub fn await_children() -> io::Result<()> {
    // SAFETY: the default is no function of ours, so no code runs at the signal.
    match unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// `setsid(2)`: this process leaves its terminal and its group, and is ended by nothing that is meant for
/// those.
///
/// # Errors
/// EPERM where it leads a group already.
pub fn leave_session() -> io::Result<()> {
    // SAFETY: setsid takes nothing and touches no memory of ours.
    check(i64::from(unsafe { libc::setsid() })).map(|_| ())
}

fn pid(child: &Child) -> io::Result<libc::pid_t> {
    checked(child.id())
}

/// Never 0 or 1, which would mean others in a call of `kill`.
fn checked(number: u32) -> io::Result<libc::pid_t> {
    let pid = libc::pid_t::try_from(number).map_err(io::Error::other)?;
    if pid > 1 {
        Ok(pid)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    use super::*;

    #[test]
    fn a_group_is_killed_and_its_end_is_told() {
        await_children().unwrap();
        let mut command = Command::new("/bin/sleep");
        let mut child = command.arg("600").process_group(0).spawn().unwrap();
        let descriptor = open(&child).unwrap();
        assert!(!has_ended(&descriptor).unwrap());
        kill_group(&child).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGKILL));
        assert!(has_ended(&descriptor).unwrap());
        assert!(open(&child).is_err());
    }

    #[test]
    fn a_process_gets_a_signal_by_its_descriptor() {
        await_children().unwrap();
        let mut child = Command::new("/bin/sleep").arg("600").spawn().unwrap();
        let descriptor = open_number(child.id()).unwrap();
        assert!(!ends_within(&descriptor, Duration::from_millis(1)).unwrap());
        send_signal(&descriptor, libc::SIGTERM).unwrap();
        assert!(ends_within(&descriptor, Duration::from_secs(60)).unwrap());
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
        let error = send_signal(&descriptor, libc::SIGTERM).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
        assert!(open_number(0).is_err());
    }
}
