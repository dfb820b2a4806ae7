//! Level-triggered registration with mio's own epoll instance, which mio does not offer.
#![allow(unsafe_code, reason = "sys is where unsafe code lives")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use mio::Token;

use super::check;

/// `epoll_ctl(EPOLL_CTL_ADD)` for EPOLLIN, level-triggered: the event comes again with each wait as
/// long as there is something to read. `epoll` is a poll of mio's or its registry; mio hands it out with `token` like its own.
///
/// # Errors
/// ENOMEM, or ENOSPC over `fs.epoll.max_user_watches`.
pub fn add_level_triggered(
    epoll: &impl AsRawFd,
    socket: impl AsFd,
    token: Token,
) -> io::Result<()> {
    control(
        epoll,
        libc::EPOLL_CTL_ADD,
        &socket,
        libc::EPOLLIN.cast_unsigned(),
        token,
    )
}

/// `epoll_ctl(EPOLL_CTL_MOD)`: pauses or resumes what [`add_level_triggered`] began.
///
/// # Errors
/// ENOENT for a socket that was not added.
pub fn pause(
    epoll: &impl AsRawFd,
    socket: impl AsFd,
    token: Token,
    is_paused: bool,
) -> io::Result<()> {
    let events = if is_paused {
        0
    } else {
        libc::EPOLLIN.cast_unsigned()
    };
    control(epoll, libc::EPOLL_CTL_MOD, &socket, events, token)
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
    use std::time::Duration;

    #[test]
    fn the_event_comes_again_until_it_is_paused() {
        let mut poll = Poll::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        add_level_triggered(&poll, &listener, Token(5)).unwrap();
        let mut events = Events::with_capacity(4);
        for _ in 0..2 {
            poll.poll(&mut events, None).unwrap();
            assert_eq!(events.iter().next().unwrap().token(), Token(5));
        }
        pause(&poll, &listener, Token(5), true).unwrap();
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        assert!(events.is_empty());
        pause(&poll, &listener, Token(5), false).unwrap();
        poll.poll(&mut events, None).unwrap();
        assert!(!events.is_empty());
    }
}
