//! Timeouts: each ends its own kind of silence, says so in the access log, and resets both peers.

use std::io::Write;

use crate::harness::blocks::Blocks;
use crate::harness::peers::{Peer, Server, Unanswering, ping};
use crate::harness::program::Evenkeel;
use crate::harness::{plain, with_pool};

/// One worker, and lines of the listener.
fn with_listener(lines: &str, server: &Server) -> String {
    plain(&[server.address()]).replace("    pool: web", &format!("    pool: web\n{lines}"))
}

#[test]
fn a_server_that_answers_no_syn_is_given_up_after_connect_timeout() {
    let hanging = Unanswering::new();
    let pool = "    connect_timeout: 200ms\n    retries: 0";
    let evenkeel = Evenkeel::start(&with_pool("workers: 1", pool, &[hanging.address()]));
    let before = evenkeel.holding();
    let mut client = evenkeel.connect();
    client.expect_reset();
    assert_eq!(evenkeel.end().end(), "connect_timeout");
    evenkeel.back_to(&before);
}

#[test]
fn the_next_server_is_tried_after_a_connect_timeout() {
    let (hanging, server) = (Unanswering::new(), Server::listen());
    let pool = "    algorithm: first\n    connect_timeout: 200ms";
    let servers = [hanging.address(), server.address()];
    let evenkeel = Evenkeel::start(&with_pool("workers: 1", pool, &servers));
    let (mut client, mut serving) = evenkeel.pair(&server);
    ping(&mut client, &mut serving);
}

#[test]
fn a_server_that_answers_late_but_in_time_gets_the_connection() {
    let hanging = Unanswering::new();
    let pool = "    connect_timeout: 20s";
    let evenkeel = Evenkeel::start(&with_pool("workers: 1", pool, &[hanging.address()]));
    let mut client = evenkeel.connect();
    client.write_all(b"patient").unwrap();
    // The kernel repeats the SYN after about a second.
    let server = hanging.answer();
    let mut serving = server.accept();
    serving.expect(b"patient");
    ping(&mut client, &mut serving);
}

#[test]
fn silence_both_ways_ends_by_idle_timeout() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&with_listener("    idle_timeout: 300ms", &server));
    let before = evenkeel.holding();
    let (mut client, mut serving) = evenkeel.pair(&server);
    ping(&mut client, &mut serving);
    client.expect_reset();
    serving.expect_reset();
    assert_eq!(evenkeel.end().end(), "idle_timeout");
    evenkeel.back_to(&before);
}

#[test]
fn bytes_in_one_direction_keep_a_connection() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&with_listener("    idle_timeout: 1s", &server));
    let (mut client, mut serving) = evenkeel.pair(&server);
    let silent = evenkeel.connect();
    // Bytes flow until the connection beside it, which is silent, has ended.
    let mut bytes = 0;
    while evenkeel.access().is_empty() {
        serving.write_all(b"x").unwrap();
        client.expect(b"x");
        bytes += 1;
        crate::harness::pause(std::time::Duration::from_millis(20));
    }
    ping(&mut client, &mut serving);
    let ended = evenkeel.end();
    assert_eq!(
        ended.field("client"),
        silent.local_addr().unwrap().to_string()
    );
    drop((client, serving));
    let ends = evenkeel.ends(2);
    assert_eq!(ends[1].bytes("downstream_bytes"), bytes + 4);
}

#[test]
fn a_stalled_reader_is_idle_too() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&with_listener("    idle_timeout: 3s", &server));
    let (mut client, mut serving) = evenkeel.pair(&server);
    let mut stream = Blocks::new(1);
    client.write_until_blocked(|buffer| stream.fill(buffer));
    assert_eq!(evenkeel.end().end(), "idle_timeout");
    // What the kernel still has for the reader may come first; the end is RST.
    let received = Blocks::new(1).receive_to_end(&mut serving);
    assert_eq!(received.finish, crate::harness::blocks::Finish::Reset);
}

#[test]
fn silence_after_the_client_ended_is_a_half_close_timeout() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&with_listener("    half_close_timeout: 300ms", &server));
    let (mut client, mut serving) = evenkeel.pair(&server);
    client.write_all(b"bye").unwrap();
    client.end();
    serving.expect(b"bye");
    serving.expect_fin();
    client.expect_reset();
    let end = evenkeel.end();
    assert_eq!(
        (end.end(), end.bytes("upstream_bytes")),
        ("half_close_timeout", 3)
    );
    // FIN was read already; writing shows that the rest is reset.
    crate::harness::eventually("RST at the server", || serving.write_all(b"late").is_err());
}

#[test]
fn silence_after_the_server_ended_is_a_half_close_timeout() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&with_listener("    half_close_timeout: 300ms", &server));
    let (mut client, mut serving) = evenkeel.pair(&server);
    serving.end();
    client.expect_fin();
    serving.expect_reset();
    assert_eq!(evenkeel.end().end(), "half_close_timeout");
}

#[test]
fn an_answer_that_keeps_coming_outlives_half_close_timeout() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&with_listener("    half_close_timeout: 1s", &server));
    let (mut client, mut serving) = evenkeel.pair(&server);
    let (silent, mut unanswered) = evenkeel.pair(&server);
    client.end();
    silent.end();
    serving.expect_fin();
    unanswered.expect_fin();
    while evenkeel.access().is_empty() {
        serving.write_all(b"x").unwrap();
        client.expect(b"x");
        crate::harness::pause(std::time::Duration::from_millis(20));
    }
    assert_eq!(
        evenkeel.end().field("client"),
        silent.local_addr().unwrap().to_string()
    );
    drop(serving);
    client.expect_fin();
    assert_eq!(evenkeel.ends(2)[1].end(), "client_closed");
}

/// The time without bytes before an end is not held against the side that may still speak.
#[test]
fn an_end_after_a_long_silence_is_no_half_close_timeout() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&with_listener("    half_close_timeout: 500ms", &server));
    for from_client in [true, false] {
        let (mut client, mut serving) = evenkeel.pair(&server);
        ping(&mut client, &mut serving);
        // Silent for longer than the timeout: until a connection beside it has ended by it.
        let (mut silent, mut told) = evenkeel.pair(&server);
        silent.end();
        told.expect_fin();
        silent.expect_reset();
        let (first, last) = if from_client {
            (&mut client, &mut serving)
        } else {
            (&mut serving, &mut client)
        };
        first.end();
        last.expect_fin();
        last.write_all(b"still here").unwrap();
        first.expect(b"still here");
        last.end();
        first.expect_fin();
    }
    let ends: Vec<String> = evenkeel
        .ends(4)
        .iter()
        .map(|line| line.end().to_string())
        .collect();
    assert_eq!(
        ends,
        [
            "half_close_timeout",
            "client_closed",
            "half_close_timeout",
            "server_closed"
        ]
    );
}
