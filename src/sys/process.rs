//! Programs that this process has started, as the kernel knows them.
//!
//! A process id is used only while its process was not waited for: until then the kernel gives it,
//! and the group that has its number, to nobody else.
#![allow(unsafe_code, reason = "sys is where unsafe code lives")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::Child;

use super::check;

/// `pidfd_open(2)`: a descriptor that can be read, for epoll, once the child has ended. It is
/// closed on exec.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM; ESRCH for a child that was waited for.
pub fn open(child: &Child) -> io::Result<OwnedFd> {
    const NO_FLAGS: libc::c_uint = 0;
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid(child)?, NO_FLAGS) };
    let descriptor = i32::try_from(check(result)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// `poll(2)`: whether the child behind a descriptor of [`open`] has ended. It stays to be waited
/// for.
///
/// # Errors
/// EINTR, ENOMEM.
pub fn has_ended(child: impl AsFd) -> io::Result<bool> {
    let mut asked = libc::pollfd {
        fd: child.as_fd().as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: poll reads and writes one pollfd, which `asked` is, and does not wait.
    let result = unsafe { libc::poll(&raw mut asked, 1, 0) };
    Ok(check(i64::from(result))? > 0)
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

/// `kill(2)`: sends a signal to a child that was not waited for.
///
/// # Errors
/// EINVAL where there is no such signal; EPERM for one that has become another user's.
pub fn send_signal(child: &Child, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes two integers and touches no memory of ours.
    check(i64::from(unsafe { libc::kill(pid(child)?, signal) })).map(|_| ())
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

/// Never 0 or 1, which would mean others in a call of `kill`.
fn pid(child: &Child) -> io::Result<libc::pid_t> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
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
    fn a_child_gets_a_signal() {
        await_children().unwrap();
        let mut child = Command::new("/bin/sleep").arg("600").spawn().unwrap();
        send_signal(&child, libc::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
    }

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
}
