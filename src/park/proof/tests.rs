//! A connection between two real pairs of sockets, whose bytes are carried by hand.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;

use socket2::SockRef;

use super::*;
use crate::sys::splice;

pub(in crate::park) struct Carried {
    pub(in crate::park) client_peer: TcpStream,
    pub(in crate::park) client: TcpStream,
    pub(in crate::park) server: TcpStream,
    pub(in crate::park) server_peer: TcpStream,
}

impl Carried {
    pub(in crate::park) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let client_peer = connect();
        let client = listener.accept().unwrap().0;
        let server = connect();
        let server_peer = listener.accept().unwrap().0;
        Self {
            client_peer,
            client,
            server,
            server_peer,
        }
    }

    fn proved(&self, ahead: Ahead) -> Option<(u64, u64)> {
        delivered(self.client.as_fd(), self.server.as_fd(), ahead).unwrap()
    }

    fn whole(&self) -> Option<(u64, u64)> {
        self.proved(Ahead::default())
    }
}

pub(in crate::park) fn say(from: &mut TcpStream, to: &TcpStream, bytes: usize) {
    from.write_all(&vec![0; bytes]).unwrap();
    to.peek(&mut [0]).unwrap();
}

pub(in crate::park) fn carry(from: &mut TcpStream, to: &mut TcpStream, bytes: usize) {
    let mut buffer = vec![0; bytes];
    from.read_exact(&mut buffer).unwrap();
    to.write_all(&buffer).unwrap();
}

#[test]
fn what_is_in_our_hands_is_missing_and_what_is_in_the_kernel_s_is_not() {
    let mut it = Carried::new();
    assert_eq!(it.whole(), Some((0, 0)));
    say(&mut it.client_peer, &it.client, 10);
    assert_eq!(it.whole(), Some((0, 0)));
    carry(&mut it.client, &mut it.server, 4);
    assert_eq!(it.whole(), Some((4, 0)));
    // Whoever is killed now has a byte that nobody else has.
    it.client.read_exact(&mut [0]).unwrap();
    assert_eq!(it.whole(), None);
    it.server.write_all(&[0]).unwrap();
    assert_eq!(it.whole(), Some((5, 0)));
    say(&mut it.server_peer, &it.server, 3);
    carry(&mut it.server, &mut it.client, 3);
    assert_eq!(it.whole(), Some((5, 3)));
    it.server_peer.write_all(&[0; 2]).unwrap();
    it.server.read_exact(&mut [0]).unwrap();
    assert_eq!(it.whole(), None);
}

#[test]
fn what_lies_in_a_pipe_is_lost_with_it() {
    let mut it = Carried::new();
    say(&mut it.client_peer, &it.client, 6);
    let (read, write) = splice::pipe().unwrap();
    assert_eq!(
        splice::splice(it.client.as_fd(), write.as_fd(), 6).unwrap(),
        6
    );
    assert_eq!(it.whole(), None);
    assert_eq!(
        splice::splice(read.as_fd(), it.server.as_fd(), 5).unwrap(),
        5
    );
    assert_eq!(it.whole(), None);
    assert_eq!(
        splice::splice(read.as_fd(), it.server.as_fd(), 1).unwrap(),
        1
    );
    assert_eq!(it.whole(), Some((6, 0)));
}

#[test]
fn headers_are_left_out_and_half_of_one_is_missing() {
    let mut it = Carried::new();
    let ahead = Ahead {
        given: 28,
        taken: 16,
    };
    say(&mut it.client_peer, &it.client, 20);
    it.client.read_exact(&mut [0; 16]).unwrap();
    assert_eq!(it.proved(ahead), None);
    it.server.write_all(&[0; 27]).unwrap();
    assert_eq!(it.proved(ahead), None);
    it.server.write_all(&[0]).unwrap();
    assert_eq!(it.proved(ahead), Some((0, 0)));
    carry(&mut it.client, &mut it.server, 4);
    assert_eq!(it.proved(ahead), Some((4, 0)));
}

/// A process that takes one over from another that has not counted headers learns them of the kernel.
#[test]
fn what_went_ahead_is_what_the_flows_have_not_carried() {
    let mut it = Carried::new();
    say(&mut it.client_peer, &it.client, 26);
    it.client.read_exact(&mut [0; 16]).unwrap();
    it.server.write_all(&[0; 28]).unwrap();
    carry(&mut it.client, &mut it.server, 4);
    say(&mut it.server_peer, &it.server, 9);
    carry(&mut it.server, &mut it.client, 7);
    let flow = |held, delivered| FlowState {
        held,
        delivered,
        ..FlowState::default()
    };
    let found = |it: &Carried, upstream: FlowState, downstream: FlowState| {
        let flows = [&upstream, &downstream];
        exchanged_ahead(it.client.as_fd(), it.server.as_fd(), flows).unwrap()
    };
    let both = Ahead {
        given: 28,
        taken: 16,
    };
    let nothing = || flow(HeldState::Nothing, 7);
    assert_eq!(
        found(&it, flow(HeldState::Nothing, 4), nothing()),
        Some(both)
    );
    // What is in our hands has been taken and not given.
    it.client.read_exact(&mut [0; 2]).unwrap();
    it.server.read_exact(&mut [0]).unwrap();
    let stash = |bytes| HeldState::Stash(vec![0; bytes]);
    let held = flow(stash(1), 7);
    assert_eq!(
        found(&it, flow(HeldState::Pipe(2), 4), held.clone()),
        Some(both)
    );
    assert_eq!(found(&it, flow(stash(2), 4), held.clone()), Some(both));
    // Of a header that is still on its way nobody knows how long it was, and other counts are a mistake.
    assert_eq!(found(&it, flow(HeldState::Header(vec![0]), 4), held), None);
    assert_eq!(found(&it, flow(stash(2), 4), nothing()), None);
    assert_eq!(found(&it, flow(stash(2), 29), flow(stash(1), 7)), None);
}

#[test]
fn ends_are_no_bytes_in_any_order() {
    for (server_first, is_read) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut it = Carried::new();
        say(&mut it.client_peer, &it.client, 9);
        carry(&mut it.client, &mut it.server, 7);
        say(&mut it.server_peer, &it.server, 5);
        carry(&mut it.server, &mut it.client, 5);
        let whole = Some((7, 5));
        let (peer, near, far) = match server_first {
            true => (&it.server_peer, &it.server, &it.client),
            false => (&it.client_peer, &it.client, &it.server),
        };
        peer.shutdown(Shutdown::Write).unwrap();
        while !tcp_info::traffic(near).unwrap().unwrap().has_fin {
            std::thread::yield_now();
        }
        assert_eq!(it.whole(), whole);
        if is_read && server_first {
            assert_eq!((&mut &*near).read(&mut [0]).unwrap(), 0);
            assert_eq!(it.whole(), whole);
        }
        // Passed on ahead of unread bytes here; as a byte it counts nowhere.
        far.shutdown(Shutdown::Write).unwrap();
        assert_eq!(it.whole(), whole);
        // Once more is nothing new: a flow that begins anew does that.
        far.shutdown(Shutdown::Write).unwrap();
        assert_eq!(it.whole(), whole);
    }
}

#[test]
fn an_end_that_was_read_is_read_again() {
    let it = Carried::new();
    it.client_peer.shutdown(Shutdown::Write).unwrap();
    for _ in 0..3 {
        assert_eq!((&it.client).read(&mut [0]).unwrap(), 0);
    }
    assert_eq!(it.whole(), Some((0, 0)));
}

#[test]
fn bytes_that_a_slow_peer_leaves_in_our_socket_were_given() {
    let mut it = Carried::new();
    it.server.set_nonblocking(true).unwrap();
    let mut given = 0;
    loop {
        let bytes = 40_000;
        let mut buffer = vec![0; bytes];
        it.client_peer.write_all(&buffer).unwrap();
        it.client.read_exact(&mut buffer).unwrap();
        match it.server.write(&buffer) {
            Ok(sent) if sent == bytes => given += sent as u64,
            Ok(_) => break,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
        assert_eq!(it.whole(), Some((given, 0)));
    }
    // What the last short write has left is lost.
    assert!(given > 0);
    assert_eq!(it.whole(), None);
}

#[test]
fn one_that_was_reset_or_got_urgent_data_is_not_whole() {
    let mut it = Carried::new();
    SockRef::from(&it.client_peer)
        .send_out_of_band(b"!")
        .unwrap();
    say(&mut it.client_peer, &it.client, 3);
    let mut buffer = [0; 8];
    let read = it.client.read(&mut buffer).unwrap();
    it.server.write_all(&buffer[..read]).unwrap();
    assert_eq!(it.whole(), None);

    let it = Carried::new();
    socket::disconnect(&it.server_peer).unwrap();
    while it.server.take_error().unwrap().is_none() {
        std::thread::yield_now();
    }
    assert_eq!(it.whole(), None);
}
