//! Which server gets a connection, seen from outside: by the name that answers.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use crate::harness::peers::{Peer, Refusing, Server, connect_from};
use crate::harness::program::Evenkeel;
use crate::harness::servers::{Greeter, greeted, greeting, visits};
use crate::harness::{eventually, plain, with_pool};

fn greeters(names: &str) -> Vec<Greeter> {
    names.bytes().map(Greeter::listen).collect()
}

fn addresses(greeters: &[Greeter]) -> Vec<SocketAddr> {
    greeters.iter().map(Greeter::address).collect()
}

/// A pool of one algorithm whose servers are written as `{address: ..., <rest>}`.
fn with_servers(workers: u32, algorithm: &str, servers: &[(SocketAddr, &str)]) -> String {
    let config = with_pool(
        &format!("workers: {workers}"),
        &format!("    algorithm: {algorithm}"),
        &[],
    );
    let line = |(address, rest): &(SocketAddr, &str)| {
        let name = address.port();
        format!("      - {{name: s{name}, address: '{address}'{rest}}}\n")
    };
    config + &servers.iter().map(line).collect::<String>()
}

fn count(names: &str, name: char) -> usize {
    names.chars().filter(|each| *each == name).count()
}

#[test]
fn round_robin_interleaves_servers_by_weight() {
    let servers = greeters("abc");
    let [a, b, c] = [0, 1, 2].map(|at| servers[at].address());
    let weighted = [(a, ", weight: 5"), (b, ""), (c, "")];
    let evenkeel = Evenkeel::start(&with_servers(1, "round_robin", &weighted));
    let names = visits(evenkeel.address(), 21);
    // Any seven in a row hold each server's share, and the heavy one never comes six times.
    for window in names.as_bytes().windows(7) {
        let window = std::str::from_utf8(window).unwrap();
        assert_eq!(
            (count(window, 'a'), count(window, 'b'), count(window, 'c')),
            (5, 1, 1)
        );
    }
    assert!(!names.contains("aaaaa"), "smooth, not in blocks: {names}");
}

#[test]
fn round_robin_without_weights_takes_turns() {
    let servers = greeters("abc");
    let pool = "    algorithm: round_robin";
    let evenkeel = Evenkeel::start(&with_pool("workers: 1", pool, &addresses(&servers)));
    let names = visits(evenkeel.address(), 9);
    assert_eq!(names[..3], names[3..6]);
    assert_eq!(names[..3], names[6..]);
    assert_eq!(
        [count(&names, 'a'), count(&names, 'b'), count(&names, 'c')],
        [3, 3, 3]
    );
}

#[test]
fn least_connections_is_exact_over_all_workers() {
    let servers = greeters("abcd");
    let config = with_pool("workers: 2", "", &addresses(&servers));
    let evenkeel = Evenkeel::start(&config);
    let held: Vec<_> = (0..40).map(|_| greeted(evenkeel.address())).collect();
    let spread: Vec<usize> = servers.iter().map(Greeter::active).collect();
    assert_eq!(
        spread, [10; 4],
        "the default algorithm spreads held connections evenly"
    );
    drop(held);
}

#[test]
fn least_connections_fills_the_gap_and_heeds_weights() {
    let servers = greeters("ab");
    let weighted = [
        (servers[0].address(), ", weight: 3"),
        (servers[1].address(), ""),
    ];
    let evenkeel = Evenkeel::start(&with_servers(1, "least_connections", &weighted));
    let mut held: Vec<_> = (0..16).map(|_| greeted(evenkeel.address())).collect();
    assert_eq!((servers[0].active(), servers[1].active()), (12, 4));
    held.retain(|(_, name)| *name == b'b');
    eventually("a's connections end", || evenkeel.access().len() == 12);
    let (_held, name) = greeted(evenkeel.address());
    assert_eq!(name, b'a');
}

#[test]
fn power_of_two_prefers_the_less_loaded() {
    let servers = greeters("abcd");
    let pool = "    algorithm: power_of_two";
    let evenkeel = Evenkeel::start(&with_pool("workers: 1", pool, &addresses(&servers)));
    let held: Vec<_> = (0..80).map(|_| greeted(evenkeel.address())).collect();
    // With two choices the fullest is a few above 20; with one it would often be ten above.
    assert!(
        servers
            .iter()
            .all(|server| (14..=26).contains(&server.active())),
        "{servers:?}"
    );
    drop(held);
}

#[test]
fn random_heeds_weights_and_reaches_every_server() {
    let servers = greeters("ab");
    let weighted = [
        (servers[0].address(), ", weight: 9"),
        (servers[1].address(), ""),
    ];
    let evenkeel = Evenkeel::start(&with_servers(1, "random", &weighted));
    let names = visits(evenkeel.address(), 200);
    // 180 and 20 expected; these bounds are more than four standard deviations away.
    assert!((160..=198).contains(&count(&names, 'a')), "{names}");
}

#[test]
fn a_weight_of_zero_gets_nothing() {
    let servers = greeters("ab");
    let weighted = [
        (servers[0].address(), ", weight: 0"),
        (servers[1].address(), ""),
    ];
    for algorithm in [
        "round_robin",
        "least_connections",
        "random",
        "ip_hash",
        "first",
    ] {
        let evenkeel = Evenkeel::start(&with_servers(1, algorithm, &weighted));
        assert_eq!(visits(evenkeel.address(), 10), "bbbbbbbbbb", "{algorithm}");
    }
}

#[test]
fn ip_hash_gives_a_client_the_same_server_from_every_evenkeel() {
    let servers = greeters("abcde");
    let mut listed: Vec<_> = servers
        .iter()
        .map(|server| (server.address(), ""))
        .collect();
    let one = Evenkeel::start(&with_servers(1, "ip_hash", &listed));
    listed.reverse();
    listed.swap(0, 2);
    let other = Evenkeel::start(&with_servers(2, "ip_hash", &listed));
    let mut names = String::new();
    for last in 1..=60 {
        let ask =
            |evenkeel: &Evenkeel| greeting(connect_from([127, 0, 3, last], evenkeel.address())).1;
        let name = ask(&one);
        assert_eq!(
            (ask(&one), ask(&other)),
            (name, name),
            "client 127.0.3.{last}"
        );
        names.push(char::from(name));
    }
    assert!(
        "abcde".chars().all(|name| count(&names, name) > 2),
        "clients spread: {names}"
    );
}

#[test]
fn ip_hash_moves_only_the_clients_of_a_lost_server() {
    let mut servers = greeters("abcde");
    let listed: Vec<_> = servers
        .iter()
        .map(|server| (server.address(), ""))
        .collect();
    let evenkeel = Evenkeel::start(&with_servers(1, "ip_hash", &listed));
    let ask = |last| greeting(connect_from([127, 0, 4, last], evenkeel.address())).1;
    let before: Vec<u8> = (1..=60).map(ask).collect();
    servers[0].stop();
    for (last, name) in (1..=60).zip(before) {
        let now = ask(last);
        assert!(
            if name == b'a' {
                now != b'a'
            } else {
                now == name
            },
            "127.0.4.{last} moved"
        );
    }
}

#[test]
fn least_time_uses_every_server_that_is_as_fast() {
    let servers = greeters("abc");
    let pool = "    algorithm: least_time";
    let evenkeel = Evenkeel::start(&with_pool("workers: 1", pool, &addresses(&servers)));
    let held: Vec<_> = (0..60).map(|_| greeted(evenkeel.address())).collect();
    assert!(
        servers.iter().all(|server| server.active() >= 5),
        "{servers:?}"
    );
    drop(held);
}

#[test]
fn first_fills_servers_in_order() {
    let servers = greeters("abc");
    let [a, b, c] = [0, 1, 2].map(|at| servers[at].address());
    let limited = [
        (a, ", max_connections: 3"),
        (b, ", max_connections: 2"),
        (c, ""),
    ];
    let evenkeel = Evenkeel::start(&with_servers(1, "first", &limited));
    let held: Vec<_> = (0..7).map(|_| greeted(evenkeel.address())).collect();
    let names: String = held.iter().map(|(_, name)| char::from(*name)).collect();
    assert_eq!(names, "aaabbcc");
}

#[test]
fn max_connections_of_a_server_is_never_exceeded() {
    let servers = greeters("ab");
    let limited: Vec<_> = servers
        .iter()
        .map(|server| (server.address(), ", max_connections: 4"))
        .collect();
    let evenkeel = Evenkeel::start(&with_servers(2, "random", &limited));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let address = evenkeel.address();
            // Eight at a time never fill more than the eight places, each closed in order.
            std::thread::spawn(move || visits(address, 25))
        })
        .collect();
    let names: String = clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .collect();
    assert_eq!(names.len(), 200);
    assert!(
        servers.iter().all(|server| server.most() <= 4),
        "{servers:?}"
    );
    let held: Vec<_> = (0..8).map(|_| greeted(evenkeel.address())).collect();
    assert_eq!((servers[0].active(), servers[1].active()), (4, 4));
    evenkeel.connect().expect_reset();
    assert_eq!(evenkeel.ends(201)[200].end(), "no_server");
    drop(held);
}

#[test]
fn a_backup_is_used_only_while_no_other_server_can() {
    let backup = Greeter::listen(b'b');
    let refusing = Refusing::new();
    let servers = [
        (refusing.address(), ""),
        (backup.address(), ", backup: true"),
    ];
    let evenkeel = Evenkeel::start(&with_servers(1, "round_robin", &servers));
    assert_eq!(visits(evenkeel.address(), 4), "bbbb");
    let listener = Server::of(refusing.listen());
    let mut client = evenkeel.connect();
    let mut serving = listener.accept();
    serving.write_all(b"a").unwrap();
    client.expect(b"a");
}

#[test]
fn a_backup_takes_what_full_servers_cannot() {
    let servers = greeters("ab");
    let listed = [
        (servers[0].address(), ", max_connections: 2"),
        (servers[1].address(), ", backup: true"),
    ];
    let evenkeel = Evenkeel::start(&with_servers(1, "least_connections", &listed));
    let held: Vec<_> = (0..4).map(|_| greeted(evenkeel.address())).collect();
    let names: String = held.iter().map(|(_, name)| char::from(*name)).collect();
    assert_eq!(names, "aabb");
}

#[test]
fn a_refused_server_is_skipped_and_no_byte_is_lost() {
    let (refusing, server) = (Refusing::new(), Server::listen());
    for algorithm in [
        "round_robin",
        "least_connections",
        "power_of_two",
        "random",
        "first",
    ] {
        let pool = format!("    algorithm: {algorithm}");
        let servers = [refusing.address(), server.address()];
        let evenkeel = Evenkeel::start(&with_pool("workers: 1", &pool, &servers));
        for _ in 0..6 {
            let mut client = evenkeel.connect();
            client.write_all(b"first bytes").unwrap();
            client.end();
            let mut serving = server.accept();
            serving.expect(b"first bytes");
            serving.expect_fin();
            drop(serving);
            client.expect_fin();
        }
        let ends = evenkeel.ends(6);
        assert!(
            ends.iter().all(|end| end.end() == "client_closed"),
            "{algorithm}: {ends:?}"
        );
    }
}

#[test]
fn retries_bound_the_servers_that_are_tried() {
    let refusing = [0; 3].map(|_| Refusing::new());
    let server = Greeter::listen(b's');
    let mut servers: Vec<SocketAddr> = refusing.iter().map(Refusing::address).collect();
    servers.push(server.address());
    let pool = |retries| format!("    algorithm: first\n    retries: {retries}");
    let enough = Evenkeel::start(&with_pool("workers: 1", &pool(3), &servers));
    assert_eq!(visits(enough.address(), 3), "sss");
    let few = Evenkeel::start(&with_pool("workers: 1", &pool(2), &servers));
    few.connect().expect_reset();
    assert_eq!(few.end().end(), "connect_failed");
    assert_eq!(server.accepted(), 3);
}

#[test]
fn all_servers_refusing_is_connect_failed_and_reset() {
    let refusing = [0; 2].map(|_| Refusing::new());
    let servers = refusing.each_ref().map(Refusing::address);
    let evenkeel = Evenkeel::start(&plain(&servers));
    let before = evenkeel.holding();
    for _ in 0..10 {
        let mut client: TcpStream = evenkeel.connect();
        client.expect_reset();
    }
    assert!(
        evenkeel
            .ends(10)
            .iter()
            .all(|end| end.end() == "connect_failed")
    );
    evenkeel.back_to(&before);
}

#[test]
fn a_refused_server_gives_its_place_back() {
    let refusing = Refusing::new();
    let limited = [(refusing.address(), ", max_connections: 1")];
    let evenkeel = Evenkeel::start(&with_servers(1, "least_connections", &limited));
    for _ in 0..5 {
        evenkeel.connect().expect_reset();
    }
    assert!(
        evenkeel
            .ends(5)
            .iter()
            .all(|end| end.end() == "connect_failed")
    );
    let listener = Server::of(refusing.listen());
    let _client = evenkeel.connect();
    let _serving = listener.accept();
    evenkeel.connect().expect_reset();
    assert_eq!(evenkeel.ends(6)[5].end(), "no_server");
}
