//! Bytes pass both ways, whole and in order, and each end of a direction passes on as what it was.

use std::io::Write;
use std::thread;

use crate::harness::blocks::{Blocks, Finish};
use crate::harness::peers::{
    Peer, Refusing, Server, Unanswering, connect, connect_with_receive_buffer, ping,
};
use crate::harness::program::Evenkeel;
use crate::harness::{eventually, plain, with_pool};

const MEBIBYTE: u64 = 1 << 20;
/// More than both kernels' buffers between two ends can hold.
const BULK_BYTES: u64 = 72 * MEBIBYTE;

#[test]
fn small_messages_pass_both_ways() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let (mut client, mut answering) = evenkeel.pair(&server);
    for _ in 0..100 {
        ping(&mut client, &mut answering);
    }
    client.end();
    answering.expect_fin();
    drop(answering);
    client.expect_fin();
    let end = evenkeel.end();
    assert_eq!(end.end(), "client_closed");
    assert_eq!(
        (end.bytes("upstream_bytes"), end.bytes("downstream_bytes")),
        (400, 400)
    );
}

#[test]
fn bytes_sent_before_the_server_accepts_reach_it() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let mut client = evenkeel.connect();
    client.write_all(b"early").unwrap();
    server.accept().expect(b"early");
}

#[test]
fn bulk_passes_whole_to_a_slow_server() {
    let server = Server::with_receive_buffer(16 * 1024);
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let (mut client, mut reading) = evenkeel.pair(&server);
    let sender = thread::spawn(move || {
        Blocks::new(1).send(&mut client, BULK_BYTES).unwrap();
        client.end();
        client.expect_fin();
    });
    let received = Blocks::new(1).receive_to_end(&mut reading);
    assert_eq!((received.bytes, received.finish), (BULK_BYTES, Finish::Fin));
    drop(reading);
    sender.join().unwrap();
    assert_eq!(evenkeel.end().bytes("upstream_bytes"), BULK_BYTES);
}

#[test]
fn bulk_passes_whole_to_a_slow_client() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let mut client = connect_with_receive_buffer(16 * 1024, evenkeel.address());
    let mut answering = server.accept();
    let sender = thread::spawn(move || {
        Blocks::new(2).send(&mut answering, BULK_BYTES).unwrap();
        answering.end();
        answering.expect_fin();
    });
    let received = Blocks::new(2).receive_to_end(&mut client);
    assert_eq!((received.bytes, received.finish), (BULK_BYTES, Finish::Fin));
    drop(client);
    sender.join().unwrap();
    let end = evenkeel.end();
    assert_eq!(
        (end.end(), end.bytes("downstream_bytes")),
        ("server_closed", BULK_BYTES)
    );
}

#[test]
fn bulk_passes_both_ways_at_once() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let (client, serving) = evenkeel.pair(&server);
    let both_ways = |stream: std::net::TcpStream, sends: u64, receives: u64| {
        let mut writing = stream.try_clone().unwrap();
        let sender = thread::spawn(move || {
            Blocks::new(sends).send(&mut writing, BULK_BYTES).unwrap();
            writing.end();
        });
        thread::spawn(move || {
            let mut reading = stream;
            let received = Blocks::new(receives).receive_to_end(&mut reading);
            assert_eq!((received.bytes, received.finish), (BULK_BYTES, Finish::Fin));
            sender.join().unwrap();
        })
    };
    let threads = [both_ways(client, 3, 4), both_ways(serving, 4, 3)];
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let end = evenkeel.end();
    assert_eq!(end.bytes("upstream_bytes"), BULK_BYTES);
    assert_eq!(end.bytes("downstream_bytes"), BULK_BYTES);
}

#[test]
fn a_stalled_reader_holds_the_writer_and_no_memory_grows() {
    let server = Server::with_receive_buffer(16 * 1024);
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let (mut client, mut stalled) = evenkeel.pair(&server);
    let mut stream = Blocks::new(5);
    let before_kib = evenkeel.proc().resident_kib();
    let sent = client.write_until_blocked(|buffer| stream.fill(buffer));
    // What is in flight lies in the kernel's buffers; the program itself holds at most a stash.
    assert!(
        evenkeel.proc().resident_kib() < before_kib + 2048,
        "{sent} bytes were taken"
    );
    Blocks::new(5).receive(&mut stalled, sent);
    ping(&mut client, &mut stalled);
}

#[test]
fn single_bytes_pass_in_order() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let (mut client, mut reading) = evenkeel.pair(&server);
    let sender = thread::spawn(move || {
        Blocks::new(6).send_pieces(&mut client, 20_000, 1).unwrap();
        client
    });
    Blocks::new(6).receive(&mut reading, 20_000);
    ping(&mut sender.join().unwrap(), &mut reading);
}

#[test]
fn client_fin_reaches_the_server_before_the_answer() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let (mut client, mut answering) = evenkeel.pair(&server);
    client.write_all(b"question").unwrap();
    client.end();
    answering.expect(b"question");
    answering.expect_fin();
    Blocks::new(7).send(&mut answering, 3 * MEBIBYTE).unwrap();
    drop(answering);
    let received = Blocks::new(7).receive_to_end(&mut client);
    assert_eq!(
        (received.bytes, received.finish),
        (3 * MEBIBYTE, Finish::Fin)
    );
    assert_eq!(evenkeel.end().end(), "client_closed");
}

#[test]
fn server_fin_reaches_the_client_before_its_last_words() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let (mut client, mut listening) = evenkeel.pair(&server);
    listening.write_all(b"hello").unwrap();
    listening.end();
    client.expect(b"hello");
    client.expect_fin();
    Blocks::new(8).send(&mut client, 3 * MEBIBYTE).unwrap();
    drop(client);
    let received = Blocks::new(8).receive_to_end(&mut listening);
    assert_eq!(
        (received.bytes, received.finish),
        (3 * MEBIBYTE, Finish::Fin)
    );
    assert_eq!(evenkeel.end().end(), "server_closed");
}

#[test]
fn a_fin_without_a_byte_passes() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let (mut client, mut serving) = evenkeel.pair(&server);
    client.end();
    serving.expect_fin();
    serving.end();
    client.expect_fin();
    let end = evenkeel.end();
    assert_eq!(
        (end.bytes("upstream_bytes"), end.bytes("downstream_bytes")),
        (0, 0)
    );
}

#[test]
fn a_client_reset_reaches_the_server_after_the_bytes_before_it() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let (mut client, mut serving) = evenkeel.pair(&server);
    client.write_all(b"words before").unwrap();
    serving.expect(b"words before");
    client.reset();
    serving.expect_reset();
    let end = evenkeel.end();
    assert_eq!(
        (end.end(), end.bytes("upstream_bytes")),
        ("client_reset", 12)
    );
}

#[test]
fn a_server_reset_reaches_the_client_after_the_bytes_before_it() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let (mut client, mut serving) = evenkeel.pair(&server);
    serving.write_all(b"words before").unwrap();
    client.expect(b"words before");
    serving.reset();
    client.expect_reset();
    let end = evenkeel.end();
    assert_eq!(
        (end.end(), end.bytes("downstream_bytes")),
        ("server_reset", 12)
    );
}

#[test]
fn a_reset_after_the_other_side_ended_is_still_a_reset() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let (mut client, mut serving) = evenkeel.pair(&server);
    client.end();
    serving.expect_fin();
    serving.write_all(b"half an ans").unwrap();
    client.expect(b"half an ans");
    serving.reset();
    client.expect_reset();
    assert_eq!(evenkeel.end().end(), "server_reset");
}

#[test]
fn a_server_that_accepts_and_closes_is_no_failed_connect() {
    let (closing, other) = (Server::listen(), Server::listen());
    let pool = "    algorithm: first";
    let config = with_pool("workers: 1", pool, &[closing.address(), other.address()]);
    let evenkeel = Evenkeel::start(&config);
    let (mut client, serving) = evenkeel.pair(&closing);
    drop(serving);
    client.expect_fin();
    drop(client);
    assert_eq!(evenkeel.end().end(), "server_closed");
    assert!(other.accept_pending().is_none(), "no other server is tried");
}

#[test]
fn a_client_fin_while_connecting_reaches_the_next_server_with_its_bytes() {
    let (hanging, server) = (Unanswering::new(), Server::listen());
    let pool = "    algorithm: first\n    connect_timeout: 500ms";
    let servers = [hanging.address(), server.address()];
    let evenkeel = Evenkeel::start(&with_pool("workers: 1", pool, &servers));
    let mut client = evenkeel.connect();
    client.write_all(b"last words").unwrap();
    client.end();
    let mut serving = server.accept();
    serving.expect(b"last words");
    serving.expect_fin();
    serving.write_all(b"answer").unwrap();
    drop(serving);
    client.expect(b"answer");
    client.expect_fin();
    assert_eq!(evenkeel.end().end(), "client_closed");
}

#[test]
fn a_client_reset_while_connecting_ends_the_connection() {
    let hanging = Unanswering::new();
    let pool = "    connect_timeout: 10m";
    let evenkeel = Evenkeel::start(&with_pool("workers: 1", pool, &[hanging.address()]));
    let before = evenkeel.holding();
    let client = evenkeel.connect();
    eventually("the connect under way", || evenkeel.holding() != before);
    client.reset();
    assert_eq!(evenkeel.end().end(), "client_reset");
    evenkeel.back_to(&before);
}

#[test]
fn connections_do_not_mix_and_leave_nothing_behind() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let before = evenkeel.holding();
    let mut pairs: Vec<_> = (0..50).map(|_| evenkeel.pair(&server)).collect();
    for (seed, (client, _)) in (0..).zip(&mut pairs) {
        Blocks::new(seed).send(client, 40_000).unwrap();
    }
    for (seed, (client, serving)) in (0..).zip(&mut pairs) {
        Blocks::new(seed).receive(serving, 40_000);
        ping(client, serving);
    }
    drop(pairs);
    assert_eq!(evenkeel.ends(50).len(), 50);
    evenkeel.back_to(&before);
}

#[test]
fn ipv6_is_relayed_as_ipv4_is() {
    let server = Server::listen();
    let config = plain(&[server.address()]).replace("bind: 127.0.0.1:0", "bind: '[::1]:0'");
    let evenkeel = Evenkeel::start(&config);
    assert!(evenkeel.address().is_ipv6());
    let mut client = connect(evenkeel.address());
    ping(&mut client, &mut server.accept());
}

#[test]
fn a_refused_server_ends_the_client_by_reset() {
    let refusing = Refusing::new();
    let evenkeel = Evenkeel::start(&plain(&[refusing.address()]));
    let before = evenkeel.holding();
    let mut client = evenkeel.connect();
    client.expect_reset();
    assert_eq!(evenkeel.end().end(), "connect_failed");
    evenkeel.back_to(&before);
}
