//! Level-triggered registration with mio's own epoll instance, which mio does not offer.
#![allow(unsafe_code, reason = "sys is where unsafe code lives")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use mio::Token;

use super::check;

/// `epoll_ctl(EPOLL_CTL_ADD)` for EPOLLIN, level-triggered: the event comes again with each wait as
/// long as there is something to read. mio hands it out with `token` like its own. Of several epoll
/// instances that wait for a socket which `is_shared`, mostly one alone is woken (EPOLLEXCLUSIVE).
/// `epoll` is a poll of mio's, or its registry.
///
/// # Errors
/// ENOMEM, or ENOSPC over `fs.epoll.max_user_watches`.
pub fn add_level_triggered(
    epoll: &impl AsRawFd,
    socket: impl AsFd,
    token: Token,
    is_shared: bool,
) -> io::Result<()> {
    let exclusive = if is_shared { libc::EPOLLEXCLUSIVE } else { 0 };
    let events = (libc::EPOLLIN | exclusive).cast_unsigned();
    control(epoll, libc::EPOLL_CTL_ADD, &socket, events, token)
}

/// `epoll_ctl(EPOLL_CTL_ADD)` for EPOLLHUP and EPOLLERR alone, level-triggered: nothing is told of a TCP
/// socket before both sides have ended or one has failed.
///
/// # Errors
/// EPERM for a file that cannot be waited for; ENOMEM, or ENOSPC over `fs.epoll.max_user_watches`.
pub fn add_for_hang_up(epoll: &impl AsRawFd, socket: impl AsFd, token: Token) -> io::Result<()> {
    control(epoll, libc::EPOLL_CTL_ADD, &socket, 0, token)
}

/// `epoll_ctl(EPOLL_CTL_DEL)`: ends what [`add_level_triggered`] began. Closing does that as well, but
/// for a socket of which there is another descriptor.
///
/// # Errors
/// ENOENT for a socket that was not added.
pub fn remove(epoll: &impl AsRawFd, socket: impl AsFd) -> io::Result<()> {
    control(epoll, libc::EPOLL_CTL_DEL, &socket, 0, Token(0))
}

fn control(
    epoll: &impl AsRawFd,
    operation: libc::c_int,
    socket: &impl AsFd,
    events: u32,
    token: Token,
) -> io::Result<()> {
    let mut event = libc::epoll_event {
        events,
        u64: token.0 as u64,
    };
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: epoll_ctl reads one epoll_event, which `event` is; both descriptors are borrowed.
    let result = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, socket, &raw mut event) };
    check(i64::from(result)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::Duration;

    #[test]
    fn the_event_comes_again_until_it_is_removed() {
        let mut poll = Poll::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut events = Events::with_capacity(4);
        for _ in 0..2 {
            add_level_triggered(&poll, &listener, Token(5), false).unwrap();
            for _ in 0..2 {
                poll.poll(&mut events, None).unwrap();
                assert_eq!(events.iter().next().unwrap().token(), Token(5));
            }
            remove(&poll, &listener).unwrap();
            poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            assert!(events.is_empty());
        }
    }

    #[test]
    fn a_shared_socket_is_armed_until_it_is_removed_even_when_it_is_closed() {
        let mut poll = Poll::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        let mut events = Events::with_capacity(4);
        let again = listener.try_clone().unwrap();
        add_level_triggered(&poll, &again, Token(1), true).unwrap();
        drop(again);
        poll.poll(&mut events, None).unwrap();
        assert!(!events.is_empty(), "the trap that `remove` is for");
        let again = listener.try_clone().unwrap();
        let mut other = Poll::new().unwrap();
        add_level_triggered(&other, &again, Token(1), true).unwrap();
        other.poll(&mut events, None).unwrap();
        assert!(!events.is_empty());
        remove(&other, &again).unwrap();
        drop(again);
        other.poll(&mut events, Some(Duration::ZERO)).unwrap();
        assert!(events.is_empty());
    }

    #[test]
    fn bytes_are_no_hang_up_and_an_end_of_both_sides_is_one() {
        use std::io::Write;
        use std::net::Shutdown;

        let mut poll = Poll::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        let parked = socket.try_clone().unwrap();
        add_for_hang_up(&poll, &parked, Token(7)).unwrap();
        client.write_all(b"x").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        socket.peek(&mut [0]).unwrap();
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        assert!(events.is_empty());
        socket.shutdown(Shutdown::Both).unwrap();
        poll.poll(&mut events, None).unwrap();
        assert_eq!(events.iter().next().unwrap().token(), Token(7));
    }
}
