//! Descriptors on their way from one process to another, beside the bytes of a unix stream socket.
//!
//! They travel with the first byte of their message: whoever receives that byte receives them all,
//! or loses those that it has no room for, which is an error here. This owns what was received until
//! it is handed out, and knows nothing of what the bytes or the descriptors mean.
#![allow(unsafe_code, reason = "sys is where unsafe code lives")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::check;

/// Most descriptors of one message: SCM_MAX_FD in the kernel's `include/net/scm.h`.
pub const DESCRIPTORS_MAX: usize = 253;

/// Words of a control message with as many: a header of 16 bytes (12 on 32 bits), four a descriptor.
const CONTROL_WORDS: usize = 16 / 8 + (DESCRIPTORS_MAX * size_of::<RawFd>()).div_ceil(8);

/// Room for a control message, aligned as its header asks.
type Control = [u64; CONTROL_WORDS];

/// `sendmsg(2)` with SCM_RIGHTS, without SIGPIPE: some or all of `bytes`, and every descriptor with the
/// first of them; once this returns, they need not be offered again. Retried where a signal interrupts.
///
/// # Errors
/// EINVAL for descriptors without a byte to travel with, or for more than [`DESCRIPTORS_MAX`]; EAGAIN
/// where there is no room (within the socket's timeout, where it has one); EPIPE and ECONNRESET where
/// nobody is left to receive; ETOOMANYREFS where more descriptors of this user are on their way than
/// it may open.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if descriptors.len() > DESCRIPTORS_MAX || (bytes.is_empty() && !descriptors.is_empty()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut control: Control = [0; CONTROL_WORDS];
    let mut part = part(bytes.as_ptr().cast_mut(), bytes.len());
    let mut message = message(&mut part);
    if !descriptors.is_empty() {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = space(descriptors.len());
        put(&mut message, descriptors);
    }
    let socket = socket.as_fd().as_raw_fd();
    retried(|| {
        // SAFETY: the message points to `part`, which points to `bytes`, and to `control`; all live
        // until the call is over, and the kernel only reads them.
        unsafe { libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL) }
    })
}

/// `recvmsg(2)` with MSG_CMSG_CLOEXEC: bytes into the buffer, 0 being the end, and the descriptors that
/// come with them behind those of the list, at most `descriptors_max`. It never goes on behind the
/// message that brought descriptors; what else travels beside bytes is left out. Retried where a
/// signal interrupts.
///
/// # Errors
/// EAGAIN where nothing has come (within the socket's timeout, where it has one); ECONNRESET. Where
/// descriptors were lost (MSG_CTRUNC), because there were more or this process may open no more, the
/// rest are closed, and the bytes that came with them are gone.
pub fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
    descriptors_max: usize,
) -> io::Result<usize> {
    let mut control: Control = [0; CONTROL_WORDS];
    let mut part = part(buffer.as_mut_ptr(), buffer.len());
    let mut message = message(&mut part);
    message.msg_control = control.as_mut_ptr().cast();
    // Not CMSG_SPACE, whose padding has room for one more.
    let room = length(descriptors_max.min(DESCRIPTORS_MAX));
    message.msg_controllen = room;
    let socket = socket.as_fd().as_raw_fd();
    let bytes = retried(|| {
        // SAFETY: the message points to `part`, which points to `buffer`, and to `control`; all live
        // until the call is over, with the lengths that it gives, and any bytes are good values.
        unsafe { libc::recvmsg(socket, &raw mut message, libc::MSG_CMSG_CLOEXEC) }
    })?;
    let came = take(&message);
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        drop(came);
        return Err(io::Error::other(
            "descriptors were lost: more came than fit, or no more may be opened",
        ));
    }
    descriptors.extend(came);
    Ok(bytes)
}

/// Whether an error of [`send`] says that more descriptors of this user are on their way than it may open.
pub fn is_too_many_on_the_way(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ETOOMANYREFS)
}

fn part(start: *mut u8, bytes: usize) -> libc::iovec {
    libc::iovec {
        iov_base: start.cast(),
        iov_len: bytes,
    }
}

/// A message of one part, without an address and without anything beside it.
fn message(part: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: a msghdr is numbers and pointers, for which zero means that there is none.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message
}

fn retried(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match check(call() as i64) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Bytes of a control message with so many descriptors, and its padding.
fn space(descriptors: usize) -> usize {
    // SAFETY: CMSG_SPACE is arithmetic.
    unsafe { libc::CMSG_SPACE(payload(descriptors)) as usize }
}

/// As [`space`], without padding.
fn length(descriptors: usize) -> usize {
    // SAFETY: CMSG_LEN is arithmetic.
    unsafe { libc::CMSG_LEN(payload(descriptors)) as usize }
}

fn payload(descriptors: usize) -> u32 {
    let bytes = u32::try_from(descriptors * size_of::<RawFd>());
    bytes.expect("they are at most DESCRIPTORS_MAX")
}

/// Writes the one control message of a message that has room for it.
fn put(message: &mut libc::msghdr, descriptors: &[BorrowedFd<'_>]) {
    // SAFETY: the control buffer is `space` of these descriptors long, so its first header is there.
    let header = unsafe { libc::CMSG_FIRSTHDR(message) };
    assert!(!header.is_null(), "there is room for a header");
    // SAFETY: CMSG_DATA is arithmetic on a header that is there.
    let mut place: *mut RawFd = unsafe { libc::CMSG_DATA(header) }.cast();
    let written = libc::cmsghdr {
        cmsg_len: length(descriptors.len()),
        cmsg_level: libc::SOL_SOCKET,
        cmsg_type: libc::SCM_RIGHTS,
    };
    // SAFETY: the header lies in the control buffer, which is aligned for it.
    unsafe { header.write(written) };
    for descriptor in descriptors {
        // SAFETY: the buffer has room for all of them behind the header.
        unsafe { place.write_unaligned(descriptor.as_raw_fd()) };
        // SAFETY: at most one behind the last.
        place = unsafe { place.add(1) };
    }
}

/// What the kernel has put beside the bytes, as descriptors that are ours now.
fn take(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut taken = Vec::new();
    // SAFETY: the kernel has set the length to what it wrote to the control buffer.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: a header of the buffer, which the kernel wrote whole.
        let found = unsafe { ptr::read_unaligned(header) };
        if (found.cmsg_level, found.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: CMSG_DATA is arithmetic on a header that is there.
            let place: *const RawFd = unsafe { libc::CMSG_DATA(header) }.cast();
            let count = found.cmsg_len.saturating_sub(length(0)) / size_of::<RawFd>();
            // SAFETY: these are the numbers of this control message, each a descriptor that the
            // kernel has opened for this call and that nobody else knows of.
            taken.extend((0..count).map(|index| unsafe { owned(place, index) }));
        }
        // SAFETY: a header of this message's buffer.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    taken
}

/// # Safety
/// At `place` there are more than `index` descriptors that nobody owns.
unsafe fn owned(place: *const RawFd, index: usize) -> OwnedFd {
    // SAFETY: the caller says that so many are there.
    let place = unsafe { place.add(index) };
    // SAFETY: as above; a control message may end anywhere, so nothing is said of its alignment.
    let descriptor = unsafe { ptr::read_unaligned(place) };
    // SAFETY: the caller says that nobody owns it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{ErrorKind, Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use socket2::SockRef;

    fn pair() -> (UnixStream, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        (near, far)
    }

    fn received(far: &UnixStream, max: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let (mut buffer, mut descriptors) = ([0; 64], Vec::new());
        let bytes = receive(far, &mut buffer, &mut descriptors, max)?;
        Ok((buffer[..bytes].to_vec(), descriptors))
    }

    #[test]
    fn a_descriptor_is_the_same_file_at_the_other_end_and_closed_on_exec() {
        let (near, far) = pair();
        let (read, mut write) = io::pipe().unwrap();
        assert_eq!(send(&near, b"x", &[read.as_fd()]).unwrap(), 1);
        drop(read);
        let (bytes, descriptors) = received(&far, 8).unwrap();
        assert_eq!((bytes.as_slice(), descriptors.len()), (&b"x"[..], 1));
        write.write_all(b"through").unwrap();
        drop(write);
        let received = descriptors.into_iter().next().unwrap();
        let flags = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", received.as_raw_fd()));
        let flags = flags.unwrap();
        let word = flags.lines().find_map(|line| line.strip_prefix("flags:"));
        let bits = u32::from_str_radix(word.unwrap().trim(), 8).unwrap();
        assert!(bits & libc::O_CLOEXEC.cast_unsigned() != 0, "{flags}");
        let mut text = String::new();
        File::from(received).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn bytes_alone_bring_no_descriptor_and_the_end_is_nothing() {
        let (near, far) = pair();
        assert_eq!(received(&far, 8).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(send(&near, b"alone", &[]).unwrap(), 5);
        let (bytes, descriptors) = received(&far, 0).unwrap();
        assert_eq!((bytes.as_slice(), descriptors.len()), (&b"alone"[..], 0));
        drop(near);
        let (bytes, descriptors) = received(&far, 8).unwrap();
        assert_eq!((bytes.len(), descriptors.len()), (0, 0));
    }

    #[test]
    fn as_many_as_the_kernel_takes_and_no_more() {
        let (near, far) = pair();
        let many = [near.as_fd(); DESCRIPTORS_MAX + 1];
        let error = send(&near, b"x", &many).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let error = send(&near, b"", &many[..1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        send(&near, b"x", &many[1..]).unwrap();
        let (_, descriptors) = received(&far, DESCRIPTORS_MAX).unwrap();
        assert_eq!(descriptors.len(), DESCRIPTORS_MAX);
    }

    #[test]
    fn where_there_are_more_than_fit_the_rest_are_closed() {
        for (sent, max) in [(2, 1), (3, 2), (1, 0), (DESCRIPTORS_MAX, 7)] {
            let (near, far) = pair();
            let (ours, theirs) = UnixStream::pair().unwrap();
            send(&near, b"x", &vec![theirs.as_fd(); sent]).unwrap();
            drop(theirs);
            received(&far, max).unwrap_err();
            // Nobody holds the other end any more.
            ours.set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            assert_eq!(
                (&ours).read(&mut [0; 1]).unwrap(),
                0,
                "{sent} sent, {max} fit"
            );
        }
    }

    #[test]
    fn one_call_never_takes_the_descriptors_of_two_messages() {
        let (near, far) = pair();
        send(&near, b"a", &[]).unwrap();
        send(&near, b"b", &[near.as_fd(); 2]).unwrap();
        send(&near, b"c", &[near.as_fd(); 3]).unwrap();
        let (bytes, descriptors) = received(&far, DESCRIPTORS_MAX).unwrap();
        assert_eq!((bytes.as_slice(), descriptors.len()), (&b"ab"[..], 2));
        let (bytes, descriptors) = received(&far, DESCRIPTORS_MAX).unwrap();
        assert_eq!((bytes.as_slice(), descriptors.len()), (&b"c"[..], 3));
    }

    #[test]
    fn what_else_travels_beside_bytes_is_left_out() {
        let (near, far) = pair();
        SockRef::from(&far).set_passcred(true).unwrap();
        send(&near, b"x", &[near.as_fd(); 2]).unwrap();
        let (bytes, descriptors) = received(&far, DESCRIPTORS_MAX).unwrap();
        assert_eq!((bytes.as_slice(), descriptors.len()), (&b"x"[..], 2));
    }

    #[test]
    fn nobody_at_the_other_end_is_an_error_and_no_signal() {
        let (near, far) = pair();
        drop(far);
        let error = send(&near, b"x", &[near.as_fd()]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }
}
