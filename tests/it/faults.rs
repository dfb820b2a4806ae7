//! System calls that fail at the worst moment: what fails is one connection, never the loop.

use std::io::Write;
use std::net::TcpStream;
use std::thread;

use crate::harness::blocks::{Blocks, Finish};
use crate::harness::peers::{Peer, Server, ping};
use crate::harness::program::Evenkeel;
use crate::harness::strace::{Call, Strace};
use crate::harness::{eventually, plain};

const BULK_BYTES: u64 = 8 << 20;

/// A program with one connection that was there before the fault.
struct Scene {
    evenkeel: Evenkeel,
    server: Server,
    held: (TcpStream, TcpStream),
}

impl Scene {
    fn open() -> Self {
        let server = Server::listen();
        let evenkeel = Evenkeel::start(&plain(&[server.address()]));
        let mut held = evenkeel.pair(&server);
        ping(&mut held.0, &mut held.1);
        Self {
            evenkeel,
            server,
            held,
        }
    }

    /// Makes `call` fail as `how` says from now on.
    fn inject(&self, call: &str, how: &str) -> Strace {
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{how}"));
        Strace::attach(self.evenkeel.pid(), &["-e", &trace, "-e", &inject])
    }

    /// Clients that come one after the other while a call fails; how many were refused.
    #[track_caller]
    fn visit(&mut self, count: usize) -> usize {
        let ended = self.evenkeel.access().len();
        for _ in 0..count {
            let mut client = self.evenkeel.connect();
            let said = client.write_all(b"hello");
            let refused = |evenkeel: &Evenkeel| {
                evenkeel
                    .access()
                    .iter()
                    .any(|end| end.field("client") == client.local_addr().unwrap().to_string())
            };
            let mut serving = None;
            eventually("the client is served or refused", || {
                serving = self.server.accept_pending();
                serving.is_some() || refused(&self.evenkeel)
            });
            if let Some(mut serving) = serving {
                serving.expect(b"hello");
                client.end();
                serving.expect_fin();
                drop(serving);
                client.expect_fin();
            } else if said.is_ok() {
                // A write that failed has seen the RST already, and a socket tells it once.
                client.expect_reset();
            }
        }
        let ends = self.evenkeel.ends(ended + count);
        ends[ended..]
            .iter()
            .filter(|end| end.end() == "error")
            .count()
    }

    /// The loop lives: what was there answers, what is new is served.
    #[track_caller]
    fn assert_alive(&mut self) {
        ping(&mut self.held.0, &mut self.held.1);
        let (mut client, mut serving) = self.evenkeel.pair(&self.server);
        ping(&mut client, &mut serving);
    }
}

fn injected(calls: &[Call]) -> usize {
    calls
        .iter()
        .filter(|call| call.text.contains("INJECTED"))
        .count()
}

/// Bulk both ways on a new connection, ended in order.
#[track_caller]
fn transfer(scene: &Scene) {
    let (client, serving) = scene.evenkeel.pair(&scene.server);
    let both = [
        (client.try_clone().unwrap(), serving.try_clone().unwrap(), 1),
        (serving, client, 2),
    ];
    let threads = both.map(|(mut writer, mut reader, seed)| {
        let sender = thread::spawn(move || {
            Blocks::new(seed).send(&mut writer, BULK_BYTES).unwrap();
            writer.end();
        });
        let receiver = thread::spawn(move || Blocks::new(seed).receive_to_end(&mut reader));
        (sender, receiver)
    });
    for (sender, receiver) in threads {
        sender.join().unwrap();
        let received = receiver.join().unwrap();
        assert_eq!((received.bytes, received.finish), (BULK_BYTES, Finish::Fin));
    }
}

#[test]
fn no_descriptor_for_a_server_socket_refuses_that_client_alone() {
    let mut scene = Scene::open();
    let before = scene.evenkeel.holding();
    let strace = scene.inject("socket", "error=EMFILE:when=2..4");
    assert_eq!(scene.visit(8), 3);
    assert_eq!(injected(&strace.detach()), 3);
    scene.evenkeel.back_to(&before);
    scene.assert_alive();
}

#[test]
fn no_descriptor_for_a_pipe_means_copying() {
    let mut scene = Scene::open();
    let strace = scene.inject("pipe2", "error=EMFILE");
    transfer(&scene);
    let tried = injected(&strace.detach());
    assert!((1..100).contains(&tried), "{tried} pipes tried");
    scene.assert_alive();
}

#[test]
fn a_kernel_that_cannot_splice_means_copying() {
    for error in ["EINVAL", "ENOSYS"] {
        let mut scene = Scene::open();
        let strace = scene.inject("splice", &format!("error={error}"));
        transfer(&scene);
        let tried = injected(&strace.detach());
        assert!((1..50).contains(&tried), "{tried} splices tried");
        scene.assert_alive();
    }
}

#[test]
fn no_memory_for_a_splice_ends_at_most_that_connection() {
    let mut scene = Scene::open();
    let strace = scene.inject("splice", "error=ENOMEM:when=3");
    let (mut client, mut serving) = scene.evenkeel.pair(&scene.server);
    let sender = thread::spawn(move || {
        // Ends early where the connection does.
        drop(
            Blocks::new(3)
                .send(&mut client, BULK_BYTES)
                .and_then(|()| client.shutdown(std::net::Shutdown::Write)),
        );
        client
    });
    let received = Blocks::new(3).receive_to_end(&mut serving);
    let whole = (received.bytes, received.finish) == (BULK_BYTES, Finish::Fin);
    assert!(
        whole || received.finish == Finish::Reset,
        "cut short in order: {received:?}"
    );
    drop(serving);
    drop(sender.join().unwrap());
    strace.detach();
    scene.assert_alive();
}

#[test]
fn no_memory_to_register_a_socket_ends_that_connection_alone() {
    let mut scene = Scene::open();
    let before = scene.evenkeel.holding();
    let strace = scene.inject("epoll_ctl", "error=ENOMEM:when=3..6");
    let refused = scene.visit(10);
    assert!(
        (2..=4).contains(&refused),
        "{refused} refused for four failures"
    );
    strace.detach();
    scene.evenkeel.back_to(&before);
    scene.assert_alive();
}

#[test]
fn no_memory_to_accept_delays_and_loses_nobody() {
    for error in ["ENOMEM", "ENOBUFS", "EMFILE", "ENFILE"] {
        let mut scene = Scene::open();
        let strace = scene.inject("accept4", &format!("error={error}:when=1..2"));
        assert_eq!(scene.visit(4), 0);
        let seen = injected(&strace.detach());
        assert_eq!(seen, 2, "{error}");
        scene.assert_alive();
    }
}

#[test]
fn a_client_gone_before_accept_does_not_stop_the_next() {
    for error in ["ECONNABORTED", "EPROTO", "EINTR", "EPERM"] {
        let mut scene = Scene::open();
        let strace = scene.inject("accept4", &format!("error={error}:when=1..3"));
        assert_eq!(scene.visit(4), 0);
        assert_eq!(injected(&strace.detach()), 3, "{error}");
        scene.assert_alive();
    }
}

#[test]
fn interrupted_and_empty_calls_lose_no_byte() {
    let storms = [
        ("epoll_wait,epoll_pwait", "error=EINTR:when=1+2"),
        ("splice", "error=EINTR:when=1+3"),
        ("recvfrom,recvmsg", "error=EINTR:when=1+3"),
        ("sendto,sendmsg", "error=EINTR:when=1+3"),
    ];
    for (call, how) in storms {
        let mut scene = Scene::open();
        let strace = scene.inject(call, how);
        transfer(&scene);
        ping(&mut scene.held.0, &mut scene.held.1);
        // A call that strace lets go of in the middle fails with ENOSYS, which would end the loop.
        scene.evenkeel.proc().sleeps();
        assert!(
            injected(&strace.detach()) > 0 || call.starts_with("splice"),
            "{call} is not used"
        );
        scene.assert_alive();
    }
}

#[test]
fn no_port_left_for_a_server_socket_is_an_error_of_that_connection() {
    let mut scene = Scene::open();
    let before = scene.evenkeel.holding();
    let strace = scene.inject("connect", "error=EADDRNOTAVAIL:when=1..3");
    let ended = scene.evenkeel.access().len();
    for _ in 0..3 {
        scene.evenkeel.connect().expect_reset();
    }
    let ends = scene.evenkeel.ends(ended + 3);
    let words: Vec<&str> = ends[ended..].iter().map(|end| end.end()).collect();
    assert!(
        words
            .iter()
            .all(|word| ["error", "connect_failed"].contains(word)),
        "{words:?}"
    );
    // The way rests for a moment after each failure: who comes meanwhile ends in the same way.
    eventually("clients are served again", || scene.visit(1) == 0);
    strace.detach();
    scene.evenkeel.back_to(&before);
    scene.assert_alive();
}
