//! Questions to a socket that socket2 does not ask, and what errno means where `ErrorKind` has no word.
#![allow(unsafe_code, reason = "sys is where unsafe code lives")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::check;

/// `ioctl(SIOCOUTQ)`: bytes that were written to a TCP socket and are not acknowledged yet.
///
/// # Errors
/// EINVAL for a listening socket.
pub fn unacknowledged(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ (the same number as SIOCOUTQ) writes one int, for which `bytes` has room.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    check(i64::from(result))?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Whether an error says that this process or the machine has run out of descriptors or memory,
/// which is nobody's fault at the other end: EMFILE, ENFILE, ENOBUFS, ENOMEM.
pub fn is_exhausted(error: &io::Error) -> bool {
    let exhausted = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    error
        .raw_os_error()
        .is_some_and(|errno| exhausted.contains(&errno))
}

/// Whether `connect` says that it goes on: EINPROGRESS, EALREADY.
pub fn is_in_progress(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINPROGRESS | libc::EALREADY)
    )
}

/// Whether a second `connect` says that the first one has succeeded: EISCONN.
pub fn is_connected(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EISCONN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn counts_what_the_peer_has_no_room_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_peer, _) = listener.accept().unwrap();
        assert_eq!(unacknowledged(&stream).unwrap(), 0);
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 65536]).is_ok() {}
        assert!(unacknowledged(&stream).unwrap() > 0);
    }
}
