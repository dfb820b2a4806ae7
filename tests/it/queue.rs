//! While no server can take a connection: who is held, in which order they are served, who is turned
//! away, and what servers take over.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::harness::peers::{Peer, Refusing, Server, ping};
use crate::harness::program::Evenkeel;
use crate::harness::servers::{Greeter, greeted, greeting, visits};
use crate::harness::{eventually, with_health};

/// One pool with lines of its own, and servers as YAML writes them.
fn config(top: &str, pool: &str, servers: &[String]) -> String {
    let list: String = servers.iter().map(|s| format!("      - {s}\n")).collect();
    format!(
        "{top}\nlisteners:\n  web: {{bind: \"127.0.0.1:0\", pool: web}}\npools:\n  web:\n{pool}\n    \
         servers:\n{list}"
    )
}

/// A server that takes so many connections.
fn limited(address: SocketAddr, most: u32) -> String {
    format!("{{address: \"{address}\", max_connections: {most}}}")
}

const HEALTH_OFF: &str = "    health: off\n    algorithm: round_robin\n    queue: ";
const QUICK_CHECKS: &str =
    "    health: {type: tcp, interval: 100ms, timeout: 2s, rise: 1, fall: 1}\n    queue: ";

/// A pool without checks that has such a queue.
fn queued(workers: usize, queue: &str, servers: &[String]) -> Evenkeel {
    let top = format!("workers: {workers}");
    Evenkeel::start(&config(&top, &format!("{HEALTH_OFF}{queue}"), servers))
}

fn web(status: &Value) -> &Value {
    &status["pools"]["web"]
}

fn waiting(evenkeel: &Evenkeel) -> u64 {
    let status = evenkeel.api().status();
    web(&status)["queue"]["waiting"].as_u64().unwrap()
}

#[track_caller]
fn await_waiting(evenkeel: &Evenkeel, count: u64) {
    eventually("so many wait", || waiting(evenkeel) == count);
}

/// A client that comes after all others that wait.
#[track_caller]
fn wait_behind(evenkeel: &Evenkeel, others: u64) -> TcpStream {
    let client = evenkeel.connect();
    await_waiting(evenkeel, others + 1);
    client
}

/// The next connection over which somebody says something; those of health checks say nothing.
#[track_caller]
fn accept_first_byte(server: &Server) -> (TcpStream, u8) {
    for _ in 0..1000 {
        let (mut stream, mut first) = (server.accept(), [0]);
        if stream.read_exact(&mut first).is_ok() {
            return (stream, first[0]);
        }
    }
    panic!("only health checks came");
}

#[test]
fn while_all_are_down_clients_wait_and_are_served_in_order_with_all_their_bytes() {
    let port = Refusing::new();
    let pool = format!("{QUICK_CHECKS}{{limit: 10, timeout: 1m}}");
    let evenkeel = Evenkeel::start(&with_health("workers: 2", &pool, &[port.address()]));
    let filling = vec![b'.'; 30_000];
    let mut clients = Vec::new();
    for number in 0..8 {
        let mut client = wait_behind(&evenkeel, number);
        client
            .write_all(&[b'0' + u8::try_from(number).unwrap()])
            .unwrap();
        client.write_all(&filling).unwrap();
        clients.push(client);
    }
    let listed = evenkeel.api().get("/api/v1/connections?pool=web");
    assert_eq!(listed[0]["pool"], "web");
    let phases: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["phase"])
        .collect();
    assert_eq!(phases, ["queued"; 8]);
    let server = Server::of(port.listen());
    for (number, mut client) in (b'0'..).zip(clients) {
        let (mut serving, first) = accept_first_byte(&server);
        assert_eq!(char::from(first), char::from(number));
        serving.expect(&filling);
        ping(&mut client, &mut serving);
    }
    assert_eq!(waiting(&evenkeel), 0);
}

#[test]
fn at_max_connections_the_next_in_turn_is_served_when_one_ends() {
    let server = Greeter::listen(b's');
    let queue = "{limit: 10, timeout: 1m}";
    let evenkeel = queued(2, queue, &[limited(server.address(), 2)]);
    let mut held: Vec<_> = (0..2).map(|_| greeted(evenkeel.address()).0).collect();
    let clients: Vec<_> = (0..6)
        .map(|number| wait_behind(&evenkeel, number))
        .collect();
    for (client, left) in clients.into_iter().zip((0..6).rev()) {
        held.remove(0).end();
        held.push(greeting(client).0);
        assert_eq!(waiting(&evenkeel), left);
    }
    assert_eq!(server.most(), 2);
    assert!(
        evenkeel
            .ends(6)
            .iter()
            .all(|end| end.end() == "client_closed")
    );
}

#[test]
fn a_crowd_over_two_workers_is_served_whole_and_never_more_than_allowed_at_once() {
    let servers = [Greeter::listen(b'a'), Greeter::listen(b'b')];
    let lines = servers.each_ref().map(|s| limited(s.address(), 3));
    let evenkeel = queued(2, "{limit: 1000, timeout: 1m}", &lines);
    let address = evenkeel.address();
    std::thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(move || assert_eq!(visits(address, 12).len(), 12));
        }
    });
    let ends = evenkeel.ends(24 * 12);
    assert!(ends.iter().all(|end| end.end() == "client_closed"));
    assert!(servers.iter().all(|server| server.most() <= 3));
}

#[test]
fn who_finds_the_queue_full_is_turned_away_at_once_and_who_waits_too_long_then() {
    let server = Greeter::listen(b's');
    let servers = [limited(server.address(), 1)];
    let evenkeel = queued(1, "{limit: 1, timeout: 1m}", &servers);
    let (held, _) = greeted(evenkeel.address());
    let first = wait_behind(&evenkeel, 0);
    evenkeel.connect().expect_reset();
    assert_eq!(evenkeel.end().end(), "queue_full");
    held.end();
    greeting(first);

    let evenkeel = queued(1, "{limit: 1, timeout: 300ms}", &servers);
    let (_held, _) = greeted(evenkeel.address());
    let mut late = evenkeel.connect();
    late.expect_reset();
    let end = evenkeel.end();
    assert_eq!((end.end(), end.field("pool")), ("queue_timeout", "web"));
    let status = evenkeel.api().status();
    assert_eq!(status["listeners"]["web"]["connections"]["refused"], 1);
    assert_eq!(waiting(&evenkeel), 0);
}

#[test]
fn a_client_that_leaves_frees_its_place_and_one_that_has_only_ended_keeps_it() {
    let server = Server::listen();
    let evenkeel = queued(
        1,
        "{limit: 1, timeout: 1m}",
        &[limited(server.address(), 1)],
    );
    let (client, serving) = evenkeel.pair(&server);
    let left = wait_behind(&evenkeel, 0);
    drop(left);
    assert_eq!(evenkeel.end().end(), "client_closed");
    await_waiting(&evenkeel, 0);
    wait_behind(&evenkeel, 0).reset();
    assert_eq!(evenkeel.ends(2)[1].end(), "client_reset");
    await_waiting(&evenkeel, 0);

    let mut ended = wait_behind(&evenkeel, 0);
    ended.write_all(b"request").unwrap();
    ended.end();
    drop((client, serving));
    let mut serving = server.accept();
    serving.expect(b"request");
    serving.expect_fin();
    serving.write_all(b"answer").unwrap();
    drop(serving);
    ended.expect(b"answer");
    ended.expect_fin();
}

#[test]
fn who_waits_can_be_killed_and_the_next_moves_up() {
    let server = Greeter::listen(b's');
    let evenkeel = queued(
        2,
        "{limit: 2, timeout: 1m}",
        &[limited(server.address(), 1)],
    );
    let (held, _) = greeted(evenkeel.address());
    let mut first = wait_behind(&evenkeel, 0);
    let second = wait_behind(&evenkeel, 1);
    let api = evenkeel.api();
    let listed = api.get("/api/v1/connections");
    let mine = first.local_addr().unwrap().to_string();
    let connections = listed.as_array().unwrap();
    let id = &connections.iter().find(|c| c["client"] == *mine).unwrap()["id"];
    assert_eq!(
        api.ask("DELETE", &format!("/api/v1/connections/{id}"))
            .status,
        204
    );
    first.expect_reset();
    assert_eq!(evenkeel.end().end(), "killed");
    held.end();
    greeting(second);
}

#[test]
fn a_backup_takes_who_would_wait_and_hands_back() {
    let (ordinary, backup) = (Greeter::listen(b'o'), Greeter::listen(b'b'));
    let servers = [
        limited(ordinary.address(), 1),
        limited(backup.address(), 1).replace('}', ", backup: true}"),
    ];
    let evenkeel = queued(2, "{limit: 9, timeout: 1m}", &servers);
    let (first, one) = greeted(evenkeel.address());
    let (second, other) = greeted(evenkeel.address());
    assert_eq!((one, other), (b'o', b'b'));
    let (third, fourth) = (wait_behind(&evenkeel, 0), wait_behind(&evenkeel, 1));
    second.end();
    let (third, name) = greeting(third);
    assert_eq!(name, b'b', "its place was the first to be free");
    first.end();
    let (fourth, name) = greeting(fourth);
    assert_eq!(name, b'o');
    drop((third, fourth));
    evenkeel.ends(4);
    assert_eq!(visits(evenkeel.address(), 3), "ooo");
}

#[test]
fn who_waits_may_still_be_served_while_the_process_drains() {
    let server = Greeter::listen(b's');
    let servers = [limited(server.address(), 1)];
    let mut evenkeel = queued(2, "{limit: 9, timeout: 1m}", &servers);
    let (held, _) = greeted(evenkeel.address());
    let client = wait_behind(&evenkeel, 0);
    evenkeel.signal("TERM");
    evenkeel.errors().wait_for("draining 2 connections");
    held.end();
    drop(greeting(client));
    assert!(evenkeel.exit().success());
    assert_eq!(evenkeel.ends(2)[1].end(), "client_closed");

    let pool = format!("{HEALTH_OFF}{{limit: 9, timeout: 1m}}");
    let top = "workers: 2\nshutdown_timeout: 300ms";
    let mut evenkeel = Evenkeel::start(&config(top, &pool, &servers));
    let (_held, _) = greeted(evenkeel.address());
    let mut client = wait_behind(&evenkeel, 0);
    evenkeel.signal("TERM");
    client.expect_reset();
    assert!(evenkeel.exit().success());
    assert!(evenkeel.ends(2).iter().all(|end| end.end() == "shutdown"));
}

#[test]
fn a_reload_serves_who_waits_or_turns_them_away_with_their_pool() {
    let (server, other) = (Greeter::listen(b's'), Greeter::listen(b'o'));
    let with = |most| {
        let pool = format!("{HEALTH_OFF}{{limit: 9, timeout: 1m}}");
        config("workers: 2", &pool, &[limited(server.address(), most)])
    };
    let evenkeel = Evenkeel::start(&with(1));
    let address = evenkeel.address();
    let port = |config: String| config.replace("127.0.0.1:0", &address.to_string());
    let _held = greeted(address);
    let (one, two) = (wait_behind(&evenkeel, 0), wait_behind(&evenkeel, 1));
    evenkeel.rewrite(&port(with(2)));
    assert!(evenkeel.command(&["reload"]).status.success());
    let _one = greeting(one);
    assert_eq!(waiting(&evenkeel), 1);

    let elsewhere = plain_pool_named("other", other.address());
    evenkeel.rewrite(&elsewhere.replace("127.0.0.1:0", &address.to_string()));
    assert!(evenkeel.command(&["reload"]).status.success());
    let mut two = two;
    two.expect_reset();
    assert_eq!(evenkeel.end().end(), "no_server");
    assert_eq!(visits(address, 2), "oo");
}

#[test]
fn who_waits_when_a_reload_takes_the_queue_away_keeps_its_turn() {
    let server = Greeter::listen(b's');
    let servers = [limited(server.address(), 1)];
    let evenkeel = queued(2, "{limit: 9, timeout: 1m}", &servers);
    let address = evenkeel.address();
    let mut held = greeted(address).0;
    let clients = [0, 1].map(|number| wait_behind(&evenkeel, number));
    let without = config("workers: 2", "    health: off", &servers);
    evenkeel.rewrite(&without.replace("127.0.0.1:0", &address.to_string()));
    assert!(evenkeel.command(&["reload"]).status.success());
    // Nobody is held any more, and nobody overtakes.
    evenkeel.connect().expect_reset();
    assert_eq!(evenkeel.end().end(), "queue_full");
    for client in clients {
        held.end();
        held = greeting(client).0;
    }
    // As if there had never been a queue.
    evenkeel.connect().expect_reset();
    assert_eq!(evenkeel.ends(4)[3].end(), "no_server");
}

fn plain_pool_named(name: &str, server: SocketAddr) -> String {
    format!(
        "workers: 2\nlisteners:\n  web: {{bind: \"127.0.0.1:0\", pool: {name}}}\npools:\n  {name}: \
         {{health: off, servers: [\"{server}\"]}}\n"
    )
}

#[test]
fn fail_open_uses_servers_that_are_down_and_says_so() {
    let (closed, server) = (Refusing::new(), Greeter::listen(b's'));
    let pool = format!(
        "    fail_open: true\n    health: {{type: tcp, interval: 100ms, rise: 1, fall: 1, port: {}}}",
        closed.address().port()
    );
    let evenkeel = Evenkeel::start(&with_health("workers: 2", &pool, &[server.address()]));
    assert_eq!(visits(evenkeel.address(), 4), "ssss");
    let api = evenkeel.api();
    let status = api.status();
    assert_eq!(web(&status)["failing_open"], true);
    assert_eq!(
        (&status["ready"], api.ask("GET", "/readyz").status),
        (&Value::Bool(true), 200)
    );
    let name = server.address().to_string();
    assert_eq!(web(&status)["servers"][&name]["state"], "down");
    evenkeel
        .errors()
        .wait_for("pool web has no server up: all its servers are used anyway");

    let _check = closed.listen();
    evenkeel.errors().wait_for("pool web has a server up again");
    eventually("it is no longer so", || {
        web(&api.status())["failing_open"] == false
    });
    assert_eq!(visits(evenkeel.address(), 2), "ss");
    // Whoever is taken out is left out.
    let patch = format!("/api/v1/pools/web/servers/{name}");
    api.send("PATCH", &patch, "{\"state\": \"maintenance\"}")
        .expect(200);
    evenkeel.connect().expect_reset();
}
