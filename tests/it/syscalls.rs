//! What a short connection costs in system calls, all that its worker does counted.

use std::io::Write;

use crate::harness::peers::{Peer, Server, ping};
use crate::harness::proc::Proc;
use crate::harness::program::Evenkeel;
use crate::harness::strace::{Call, Strace};
use crate::harness::{eventually, plain};

const CONNECTIONS: usize = 50;
/// relaying.md counts 15 calls that do the work and reaches 12; the waits in between come on top.
const CALLS_MAX: usize = 20;

#[test]
fn a_short_connection_in_sequence_costs_at_most_20_system_calls() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    exchange(&evenkeel, &server, 1);
    let strace = Strace::attach(evenkeel.pid(), &[]);
    for count in 0..CONNECTIONS {
        exchange(&evenkeel, &server, count + 2);
    }
    let calls = strace.detach();
    let worker = calls
        .iter()
        .find(|call| call.name == "accept4")
        .unwrap()
        .thread;
    // The standard library of a debug build looks whether what it closes is open.
    let counts = |call: &&Call| call.thread == worker && !call.text.contains("F_GETFD");
    let calls: Vec<&Call> = calls.iter().filter(counts).collect();
    // A few more for being attached to and let go.
    let most = CALLS_MAX * CONNECTIONS + 5;
    assert!(
        calls.len() <= most,
        "{} calls; the last connection's: {:#?}",
        calls.len(),
        tail(&calls)
    );
}

/// Over TLS this is the usual end: the server closes, and the client's own last record crosses that.
#[test]
fn bytes_that_nobody_will_acknowledge_any_more_are_not_watched() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    exchange(&evenkeel, &server, 1);
    let strace = Strace::attach(evenkeel.pid(), &[]);
    for count in 0..CONNECTIONS {
        let (mut client, mut serving) = evenkeel.pair(&server);
        serving.write_all(b"bye").unwrap();
        drop(serving);
        client.expect(b"bye");
        client.expect_fin();
        client.write_all(&[b'q'; 31]).unwrap();
        client.reset();
        evenkeel.ends(count + 2);
    }
    let calls = strace.detach();
    let looks = calls.iter().filter(|call| call.text.contains("TIOCOUTQ"));
    assert!(looks.count() <= 4 * CONNECTIONS);
}

/// Parking is done once for a connection; for its bytes nothing is done, and nothing at all where it is off.
#[test]
fn a_message_of_a_parked_connection_costs_what_any_other_does() {
    let server = Server::listen();
    let config = plain(&[server.address()]);
    let off = Evenkeel::start(&config);
    let on = Evenkeel::start(&format!("survive_restart: true\n{config}"));
    let calls = [&off, &on].map(|evenkeel| calls_of_messages(evenkeel, &server));
    // Who looks after the store does so in a thread of its own.
    let names: Vec<_> = calls[1].iter().map(|call| call.name.as_str()).collect();
    assert!(!names.contains(&"sendmsg"), "{names:?}");
    let counts = calls.map(|calls| calls.len());
    assert!(counts[1] <= counts[0] + 5, "{counts:?}");
}

/// What the worker calls for messages of a connection that is parked where they can be.
fn calls_of_messages(evenkeel: &Evenkeel, server: &Server) -> Vec<Call> {
    let (mut client, mut serving) = evenkeel.pair(server);
    ping(&mut client, &mut serving);
    let children = evenkeel.proc().children();
    eventually("it is parked", || {
        let mut keepers = children.iter().map(|pid| Proc(*pid));
        keepers.all(|keeper| keeper.count("socket:") >= 2 + 2)
    });
    let strace = Strace::attach(evenkeel.pid(), &[]);
    for _ in 0..CONNECTIONS {
        ping(&mut client, &mut serving);
    }
    let calls = strace.detach();
    let worker = calls
        .iter()
        .find(|call| call.name.starts_with("send") && call.text.contains("pong"))
        .unwrap()
        .thread;
    calls
        .into_iter()
        .filter(|call| call.thread == worker)
        .collect()
}

/// Connect, 100 bytes each way, close: each step when the one before has arrived.
fn exchange(evenkeel: &Evenkeel, server: &Server, count: usize) {
    let (mut client, mut serving) = evenkeel.pair(server);
    client.write_all(&[b'q'; 100]).unwrap();
    serving.expect(&[b'q'; 100]);
    serving.write_all(&[b'a'; 100]).unwrap();
    client.expect(&[b'a'; 100]);
    drop(client);
    serving.expect_fin();
    drop(serving);
    assert_eq!(evenkeel.ends(count)[count - 1].end(), "client_closed");
}

fn tail(calls: &[&Call]) -> Vec<String> {
    let last = &calls[calls.len().saturating_sub(30)..];
    last.iter()
        .map(|call| format!("{}({}", call.name, call.text))
        .collect()
}
