//! Rules at the door: who may come in, how many, how often, and that whoever is turned away leaves no
//! trace but a count. Clients come from addresses of 127.0.0.0/8 of their own.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::thread;

use serde_json::Value;

use crate::harness::eventually;
use crate::harness::peers::{Peer, Server, connect, connect_from};
use crate::harness::program::Evenkeel;
use crate::harness::servers::{Greeter, greeted, greeting};
use crate::harness::strace::{Call, Strace};

/// A listener `web` with further keys, and a pool `web` with one server.
fn config(top: &str, keys: &str, server: SocketAddr) -> String {
    at("127.0.0.1:0", top, keys, server)
}

fn at(bind: &str, top: &str, keys: &str, server: SocketAddr) -> String {
    format!(
        "{top}\nlisteners:\n  web: {{bind: \"{bind}\", pool: web{keys}}}\n\
         pools:\n  web: {{health: off, servers: [\"{server}\"]}}\n"
    )
}

const TWO: &str = "workers: 2";

fn reload(evenkeel: &Evenkeel, config: &str) {
    evenkeel.rewrite(config);
    evenkeel.api().ask("POST", "/api/v1/reload").expect(200);
}

/// Somebody else of this machine.
fn source(last: u8) -> [u8; 4] {
    [127, 0, 0, last]
}

/// A connection from that address, which the server greets.
fn served(evenkeel: &Evenkeel, last: u8) -> TcpStream {
    greeting(connect_from(source(last), evenkeel.address())).0
}

fn refused(evenkeel: &Evenkeel, last: u8) {
    connect_from(source(last), evenkeel.address()).expect_reset();
}

/// Whether a connection is greeted; else it was reset.
fn is_served(stream: &mut TcpStream) -> bool {
    stream.read(&mut [0]).is_ok_and(|read| read == 1)
}

/// The listener's connections in the status.
fn counts(evenkeel: &Evenkeel) -> Value {
    evenkeel.api().status()["listeners"]["web"]["connections"].clone()
}

fn refusals(evenkeel: &Evenkeel, reason: &str) -> u64 {
    let labels = format!("listener=\"web\",reason=\"{reason}\"");
    metric(
        evenkeel,
        &format!("evenkeel_listener_connections_refused_total{{{labels}}}"),
    )
}

fn sources(evenkeel: &Evenkeel) -> u64 {
    metric(evenkeel, "evenkeel_listener_sources{listener=\"web\"}")
}

fn metric(evenkeel: &Evenkeel, series: &str) -> u64 {
    let text = evenkeel.api().ask("GET", "/metrics").body;
    let value = text.lines().find_map(|line| line.strip_prefix(series));
    value.expect(series).trim().parse().unwrap()
}

#[test]
fn only_who_is_allowed_and_not_denied_comes_in() {
    let server = Greeter::listen(b's');
    let keys = ", allow: [127.0.0.0/24, 127.9.9.9], deny: [127.0.0.2, 127.0.0.64/26]";
    let evenkeel = Evenkeel::start(&config(TWO, keys, server.address()));
    let _in = [1, 3, 63, 128].map(|last| served(&evenkeel, last));
    drop(greeting(connect_from([127, 9, 9, 9], evenkeel.address())));
    for last in [2, 64, 127] {
        refused(&evenkeel, last);
    }
    connect_from([127, 0, 1, 1], evenkeel.address()).expect_reset();
    let ends = evenkeel.ends(5);
    let denied: Vec<_> = ends.iter().filter(|end| end.end() == "denied").collect();
    assert_eq!(denied.len(), 4, "{ends:?}");
    assert!(
        denied
            .iter()
            .all(|end| end.field("server") == "-" && end.field("client").starts_with("127.0."))
    );
    assert_eq!(server.accepted(), 5, "no server was touched for the others");
    assert_eq!(refusals(&evenkeel, "denied"), 4);
    evenkeel.errors().wait_for("listener web: ");
    assert!(evenkeel.errors().text().contains(" denied"));
    let counts = counts(&evenkeel);
    assert_eq!(
        (&counts["total"], &counts["refused"]),
        (&9.into(), &4.into())
    );
    assert!(counts.get("max").is_none());
}

#[test]
fn networks_are_looked_up_in_ipv6_too() {
    let server = Greeter::listen(b's');
    let with = |keys: &str| at("[::1]:0", TWO, keys, server.address());
    let evenkeel = Evenkeel::start(&with(", allow: [\"::/64\"], deny: 0.0.0.0/0"));
    let address = evenkeel.address();
    drop(greeted(address));
    reload(&evenkeel, &with(", deny: [\"2001:db8::/32\", \"::1\"]"));
    connect(address).expect_reset();
    reload(&evenkeel, &with(", allow: [\"2001:db8::/32\", 127.0.0.1]"));
    connect(address).expect_reset();
    reload(&evenkeel, &with(""));
    drop(greeted(address));
    assert_eq!(refusals(&evenkeel, "denied"), 2);
}

#[test]
fn a_listener_s_maximum_is_exact_over_workers_and_for_itself() {
    let server = Greeter::listen(b's');
    let text = config(TWO, ", max_connections: 10", server.address()).replace(
        "pools:",
        "  free: {bind: \"127.0.0.1:0\", pool: web}\npools:",
    );
    let evenkeel = Evenkeel::start(&text);
    let addresses = evenkeel.addresses();
    let at = |name: &str| addresses.iter().find(|(n, _)| n == name).unwrap().1;
    let (limited, free) = (at("web"), at("free"));
    for round in 1..=5 {
        let come = || {
            let mut clients: Vec<_> = (0..8).map(|_| connect(limited)).collect();
            clients.retain_mut(is_served);
            clients
        };
        let held: Vec<_> = thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(come));
            threads.map(|thread| thread.join().unwrap()).into()
        });
        assert_eq!(held.iter().map(Vec::len).sum::<usize>(), 10);
        assert_eq!(server.most(), 10, "the other listener's come later");
        connect(limited).expect_reset();
        drop(held);
        evenkeel.ends(33 * round);
    }
    let (_held, _) = greeted(limited);
    let others: Vec<_> = (0..20).map(|_| greeted(free)).collect();
    assert_eq!(others.len(), 20);
    let counts = counts(&evenkeel);
    assert_eq!(counts["max"], 10);
    assert_eq!(counts["total"], 5 * 33 + 1);
    assert_eq!(counts["refused"], 5 * 23);
    assert_eq!(refusals(&evenkeel, "limit"), 5 * 23);
    evenkeel.errors().wait_for("refused by its limits");
    assert!(!evenkeel.errors().text().contains("of the process"));
}

#[test]
fn an_address_has_its_maximum_and_leaves_the_others_theirs() {
    let server = Greeter::listen(b's');
    let keys = ", max_connections_per_ip: 3";
    let evenkeel = Evenkeel::start(&config(TWO, keys, server.address()));
    let mut held: Vec<_> = (0..3).map(|_| served(&evenkeel, 1)).collect();
    let others = [2, 3].map(|last| served(&evenkeel, last));
    refused(&evenkeel, 1);
    refused(&evenkeel, 1);
    assert_eq!(sources(&evenkeel), 3);
    drop(others);
    held.pop();
    evenkeel.ends(5);
    held.push(served(&evenkeel, 1));
    refused(&evenkeel, 1);
    assert_eq!(refusals(&evenkeel, "limit"), 3);
    drop(held);
    eventually("nobody is remembered", || sources(&evenkeel) == 0);
}

#[test]
fn prefixes_make_neighbours_one_address() {
    let server = Greeter::listen(b's');
    let keys = ", max_connections_per_ip: 1, per_ip: {ipv4_prefix: 26}";
    let evenkeel = Evenkeel::start(&config(TWO, keys, server.address()));
    let _held = [1, 64].map(|last| served(&evenkeel, last));
    for last in [2, 63, 65] {
        refused(&evenkeel, last);
    }
    // A reload with another prefix gives each place back where it was taken.
    let narrow = keys.replace("26", "32");
    reload(&evenkeel, &config(TWO, &narrow, server.address()));
    let _more = [1, 2, 65].map(|last| served(&evenkeel, last));
    drop(_held);
    evenkeel.ends(5);
    drop(_more);
    eventually("nobody is remembered", || sources(&evenkeel) == 0);
}

#[test]
fn a_burst_gets_the_bucket_s_worth_and_nobody_else_less() {
    let server = Greeter::listen(b's');
    let keys = ", connection_rate_per_ip: 5/h, max_connections_per_ip: 100";
    let evenkeel = Evenkeel::start(&config(TWO, keys, server.address()));
    let come = || {
        let address = evenkeel.address();
        let mut clients: Vec<_> = (0..8).map(|_| connect_from(source(1), address)).collect();
        clients.iter_mut().map(is_served).filter(|it| *it).count()
    };
    let got: usize = thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(come));
        threads.map(|thread| thread.join().unwrap()).iter().sum()
    });
    assert_eq!(
        got, 1,
        "5/h is less than one a second, and one may always come"
    );
    drop([2, 3].map(|last| served(&evenkeel, last)));
    let ends = evenkeel.ends(34);
    let limited = ends.iter().filter(|end| end.end() == "rate_limited");
    assert_eq!(limited.count(), 31);
    assert_eq!(refusals(&evenkeel, "rate_limited"), 31);
    // At a rate that has given a token back by then, it comes in again.
    let fast = keys.replace("5/h", "1000/s");
    reload(&evenkeel, &config(TWO, &fast, server.address()));
    eventually("it is let in again", || {
        is_served(&mut connect_from(source(1), evenkeel.address()))
    });
}

#[test]
fn a_reload_that_sets_limits_counts_whom_it_can() {
    let server = Greeter::listen(b's');
    let with = |keys: &str| config(TWO, keys, server.address());
    let evenkeel = Evenkeel::start(&with(""));
    let mut old: Vec<_> = (0..3).map(|_| served(&evenkeel, 1)).collect();
    // The listener's are counted always.
    reload(&evenkeel, &with(", max_connections: 4"));
    let fourth = served(&evenkeel, 2);
    refused(&evenkeel, 3);
    // One address's from now on: those that were there hold no place, and give none back.
    reload(&evenkeel, &with(", max_connections_per_ip: 1"));
    let new = served(&evenkeel, 1);
    refused(&evenkeel, 1);
    old.pop();
    evenkeel.ends(3);
    refused(&evenkeel, 1);
    drop((old, fourth));
    evenkeel.ends(7);
    refused(&evenkeel, 1);
    // Without the limit a place is given back all the same, and counts when it is set again.
    reload(&evenkeel, &with(""));
    let free = served(&evenkeel, 1);
    reload(&evenkeel, &with(", max_connections_per_ip: 1"));
    refused(&evenkeel, 1);
    reload(&evenkeel, &with(""));
    drop(new);
    evenkeel.ends(10);
    reload(&evenkeel, &with(", max_connections_per_ip: 1"));
    drop(served(&evenkeel, 1));
    drop(free);
    eventually("nobody is remembered", || sources(&evenkeel) == 0);
}

#[test]
fn places_go_along_to_another_worker() {
    let server = Server::listen();
    let keys = ", max_connections_per_ip: 16, max_connections: 17";
    let evenkeel = Evenkeel::start(&config(TWO, keys, server.address()));
    for round in 1..=3 {
        let pairs: Vec<_> = (0..16).map(|_| evenkeel.pair(&server)).collect();
        evenkeel.connect().expect_reset();
        let other = connect_from(source(2), evenkeel.address());
        let serving = server.accept();
        connect_from(source(3), evenkeel.address()).expect_reset();
        drop((pairs, other, serving));
        evenkeel.ends(19 * round);
        eventually("nobody is remembered", || sources(&evenkeel) == 0);
    }
    assert!(metric(&evenkeel, "evenkeel_connections_handed_over_total") > 0);
    assert_eq!(metric(&evenkeel, "evenkeel_connections_active"), 0);
}

#[test]
fn a_flood_of_addresses_is_bounded_and_forgotten() {
    const SOURCES: u32 = 20_000;
    /// Tables for all of them take 1.3 MiB; a debug build's allocator and log buffers come on top.
    const GROWTH_KIB: u64 = 6 * 1024;
    let server = Greeter::listen(b's');
    let top = "workers: 2\nlog: {access: off}";
    let keys = ", connection_rate_per_ip: 1/s, max_connections_per_ip: 5";
    let evenkeel = Evenkeel::start(&config(top, keys, server.address()));
    flood(&evenkeel, 1..100);
    let before = evenkeel.proc().resident_kib();
    let most = flood(&evenkeel, 100..SOURCES);
    let after = evenkeel.proc().resident_kib();
    assert!(most > 1000, "{most} are remembered");
    assert!(after < before + GROWTH_KIB, "{before} KiB, then {after}");
    eventually("they are forgotten", || sources(&evenkeel) == 0);
}

/// A visit from each of these addresses; the most that were remembered.
fn flood(evenkeel: &Evenkeel, numbers: Range<u32>) -> u64 {
    let mut most = 0;
    for number in numbers {
        let [_, high, middle, low] = number.to_be_bytes();
        let source = [127, 64 + high, middle, low];
        let mut client = connect_from(source, evenkeel.address());
        assert!(is_served(&mut client));
        client.reset();
        if number % 5_000 == 0 {
            most = most.max(sources(evenkeel));
        }
    }
    most
}

/// What a refused connection costs at most; any other call would mean that it has got to the table,
/// epoll or a server.
const CALLS: [&str; 4] = ["epoll_wait", "accept4", "setsockopt", "close"];
/// The fifth is an accept that finds nobody else.
const CALLS_MAX: usize = 5;
const REFUSED: usize = 50;

#[test]
fn a_refused_connection_costs_a_handful_of_system_calls_with_the_wait() {
    let server = Greeter::listen(b's');
    let top = "workers: 1\nlog: {access: off}";
    let keys = ", deny: 127.0.0.2, max_connections_per_ip: 1";
    let evenkeel = Evenkeel::start(&config(top, keys, server.address()));
    let _held = served(&evenkeel, 1);
    refused(&evenkeel, 2);
    let strace = Strace::attach(evenkeel.pid(), &[]);
    for _ in 0..REFUSED / 2 {
        refused(&evenkeel, 1);
        refused(&evenkeel, 2);
    }
    let calls = strace.detach();
    let worker = calls.iter().find(|call| call.name == "accept4").unwrap();
    // The standard library of a debug build looks whether what it closes is open.
    let counts = |call: &&Call| call.thread == worker.thread && !call.text.contains("F_GETFD");
    let calls: Vec<_> = calls.iter().filter(counts).map(|call| &call.name).collect();
    assert!(calls.len() <= CALLS_MAX * REFUSED + 5, "{calls:?}");
    let is_cheap = |name: &&String| CALLS.contains(&name.as_str());
    assert!(calls.iter().all(is_cheap), "{calls:?}");
    assert_eq!(server.accepted(), 1);
}
