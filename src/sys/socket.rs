//! Questions to a socket that socket2 does not ask, and what errno means where `ErrorKind` has no word.
#![allow(unsafe_code, reason = "sys is where unsafe code lives")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

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

/// `ioctl(FIONREAD)`: bytes that a TCP socket has received and nobody has read yet.
///
/// # Errors
/// EINVAL for a listening socket.
pub fn unread(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD (the same number as SIOCINQ) writes one int, for which `bytes` has room.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    check(i64::from(result))?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// `send(2)` without SIGPIPE. With `is_followed` the kernel holds a part that does not fill a segment
/// back for what follows at once, be it the FIN of a shutdown or a close (MSG_MORE).
///
/// # Errors
/// EAGAIN where there is no room; EPIPE and ECONNRESET where the socket has failed.
pub fn send(socket: impl AsFd, bytes: &[u8], is_followed: bool) -> io::Result<usize> {
    let flags = libc::MSG_NOSIGNAL | if is_followed { libc::MSG_MORE } else { 0 };
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the pointer and the length are those of a slice that is borrowed for the call.
    check(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) } as i64)
}

/// `recv(2)` of what has come without taking it (MSG_PEEK): the next call finds it again. 0 is the end,
/// with nothing before it.
///
/// # Errors
/// EAGAIN where nothing has come; else the socket has failed.
pub fn peek(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let fd = socket.as_fd().as_raw_fd();
    let (start, room) = (buffer.as_mut_ptr().cast(), buffer.len());
    // SAFETY: the pointer and the length are those of a slice that is borrowed for the call, and any
    // bytes are good values for it.
    check(unsafe { libc::recv(fd, start, room, libc::MSG_PEEK) } as i64)
}

/// `close_range(2)` where the two descriptors are neighbours, which the two of a connection mostly
/// are because the kernel gives out the lowest free number; else `close(2)` for each.
pub fn close_pair(first: OwnedFd, second: OwnedFd) {
    if first.as_raw_fd().abs_diff(second.as_raw_fd()) != 1 {
        return drop((first, second));
    }
    let pair: [RawFd; 2] = [first.into_raw_fd(), second.into_raw_fd()];
    let (low, high) = (
        pair[0].min(pair[1]).cast_unsigned(),
        pair[0].max(pair[1]).cast_unsigned(),
    );
    // SAFETY: both descriptors were owned, were given up by `into_raw_fd`, and there is no third one
    // between neighbours, so that this closes exactly what was ours.
    let result = unsafe { libc::syscall(libc::SYS_close_range, low, high, 0) };
    if result != 0 {
        // A seccomp filter that is older than the call refuses it: nothing was closed.
        for descriptor in pair {
            // SAFETY: it is still open and was given up by `into_raw_fd`, so that nobody owns it.
            drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }
}

/// Whether an error says that this process or the machine has run out of descriptors or memory,
/// which is nobody's fault at the other end: EMFILE, ENFILE, ENOBUFS, ENOMEM, and ENOSPC, by which
/// `epoll_ctl` says that `fs.epoll.max_user_watches` is reached.
pub fn is_exhausted(error: &io::Error) -> bool {
    use libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC};
    let errno = error.raw_os_error();
    errno.is_some_and(|errno| [EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC].contains(&errno))
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
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_pair_is_closed_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let streams: Vec<_> = (0..3)
            .map(|_| {
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                (client, listener.accept().unwrap().0)
            })
            .collect();
        let mut streams = streams.into_iter();
        let (kept, mut kept_peer) = streams.next().unwrap();
        // Neighbours, and a pair with others in between.
        let (a, b) = streams.next().unwrap();
        let (c, d) = streams.next().unwrap();
        let (mut a_peer, mut c_peer) = (b.try_clone().unwrap(), d.try_clone().unwrap());
        close_pair(a.into(), b.into());
        close_pair(c.into(), d.into());
        let mut rest = Vec::new();
        a_peer.read_to_end(&mut rest).unwrap();
        c_peer.read_to_end(&mut rest).unwrap();
        (&kept).write_all(b"x").unwrap();
        kept_peer.read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn what_was_looked_at_is_still_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        stream.write_all(b"hello").unwrap();
        let mut buffer = [0; 8];
        for room in [2, 5, 8] {
            let seen = peek(&peer, &mut buffer[..room]).unwrap();
            assert_eq!(&buffer[..seen], &b"hello"[..room.min(5)]);
        }
        peer.read_exact(&mut [0; 5]).unwrap();
        drop(stream);
        assert_eq!(peek(&peer, &mut buffer).unwrap(), 0);
    }

    #[test]
    fn counts_what_nobody_has_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        assert_eq!(unread(&peer).unwrap(), 0);
        stream.write_all(b"hello").unwrap();
        peer.peek(&mut [0]).unwrap();
        assert_eq!(unread(&peer).unwrap(), 5);
        peer.read_exact(&mut [0; 2]).unwrap();
        assert_eq!(unread(&peer).unwrap(), 3);
    }

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
