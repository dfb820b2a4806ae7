//! Pipes and `splice(2)`: moving bytes between two sockets without copying them through user space.
#![allow(unsafe_code, reason = "sys is where unsafe code lives")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::check;

/// `pipe2(O_NONBLOCK | O_CLOEXEC)`: the read end, the write end.
///
/// # Errors
/// EMFILE and ENFILE without descriptors; also ENFILE above the user's hard limit of pipe pages.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends: [RawFd; 2] = [-1; 2];
    // SAFETY: `ends` is an array of two ints that outlives the call, as pipe2 asks.
    check(i64::from(unsafe {
        libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC)
    }))?;
    // SAFETY: pipe2 succeeded, so this is a new descriptor that nobody else owns.
    let read = unsafe { OwnedFd::from_raw_fd(ends[0]) };
    // SAFETY: as above, for the other end.
    let write = unsafe { OwnedFd::from_raw_fd(ends[1]) };
    Ok((read, write))
}

/// `fcntl(F_SETPIPE_SZ)`: asks for a capacity in bytes; answers what the kernel gave, which is
/// rounded up to a power of two pages.
///
/// # Errors
/// EPERM where an unprivileged user is over `pipe-user-pages-soft` or asks for more than
/// `pipe-max-size`; ENOMEM.
pub fn resize_pipe(pipe: BorrowedFd<'_>, bytes: usize) -> io::Result<usize> {
    let bytes = libc::c_int::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: F_SETPIPE_SZ takes an int and touches no memory of ours; the descriptor is borrowed.
    check(i64::from(unsafe {
        libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, bytes)
    }))
}

/// `fcntl(F_GETPIPE_SZ)`: the capacity in bytes.
///
/// # Errors
/// EBADF for what is no pipe.
pub fn pipe_size(pipe: BorrowedFd<'_>) -> io::Result<usize> {
    // SAFETY: F_GETPIPE_SZ has no argument and touches no memory of ours.
    check(i64::from(unsafe {
        libc::fcntl(pipe.as_raw_fd(), libc::F_GETPIPE_SZ)
    }))
}

/// `splice(2)` with SPLICE_F_NONBLOCK: moves at most `bytes` from `source` to `target`, one of which
/// is a pipe.
///
/// The flag covers the pipe alone: the sockets must be non-blocking themselves. SPLICE_F_MORE is
/// never set (it holds the tail back for up to 200 ms), and SPLICE_F_MOVE has no effect on sockets.
///
/// # Errors
/// EAGAIN where the pipe is full or empty *or* the socket is; EINVAL where one of the two cannot
/// splice; else what the socket reports.
pub fn splice(source: BorrowedFd<'_>, target: BorrowedFd<'_>, bytes: usize) -> io::Result<usize> {
    let (source, target) = (source.as_raw_fd(), target.as_raw_fd());
    let no_offset = std::ptr::null_mut();
    let flags = libc::SPLICE_F_NONBLOCK;
    // SAFETY: null offsets are what splice asks for pipes and sockets; it touches no memory of ours.
    let moved = unsafe { libc::splice(source, no_offset, target, no_offset, bytes, flags) };
    check(moved as i64)
}

/// `read(2)`: takes bytes out of a pipe, for when its target cannot splice.
///
/// # Errors
/// EAGAIN where the pipe is empty.
pub fn read_pipe(pipe: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let fd = pipe.as_fd().as_raw_fd();
    // SAFETY: the pointer and the length are those of a slice that is borrowed mutably for the call.
    check(unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) } as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn bytes_go_through_a_pipe_from_socket_to_socket() {
        let (mut a, b) = UnixStream::pair().unwrap();
        let (c, mut d) = UnixStream::pair().unwrap();
        let (read, write) = pipe().unwrap();
        a.write_all(b"hello").unwrap();
        assert_eq!(splice(b.as_fd(), write.as_fd(), 100).unwrap(), 5);
        assert_eq!(splice(read.as_fd(), c.as_fd(), 5).unwrap(), 5);
        let mut got = [0; 5];
        d.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
    }

    #[test]
    fn an_empty_pipe_says_would_block_and_reads_back_what_it_holds() {
        let (mut a, b) = UnixStream::pair().unwrap();
        let (read, write) = pipe().unwrap();
        let mut buffer = [0; 8];
        let empty = read_pipe(&read, &mut buffer).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        a.write_all(b"abc").unwrap();
        assert_eq!(splice(b.as_fd(), write.as_fd(), 100).unwrap(), 3);
        assert_eq!(read_pipe(&read, &mut buffer).unwrap(), 3);
        assert_eq!(&buffer[..3], b"abc");
    }

    #[test]
    fn a_pipe_is_as_large_as_the_kernel_says() {
        let (read, write) = pipe().unwrap();
        let size = resize_pipe(write.as_fd(), 128 * 1024).unwrap();
        assert_eq!(size, pipe_size(read.as_fd()).unwrap());
        assert!(size >= 128 * 1024);
    }
}
