//! Draining with a pace, maintenance, and what happens to the connections of a server that goes down.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use serde_json::Value;

use crate::harness::eventually;
use crate::harness::peers::Peer;
use crate::harness::program::Evenkeel;
use crate::harness::servers::{Greeter, greeted, visits};
use crate::harness::{with_health, with_pool};

fn server_path(server: SocketAddr) -> String {
    format!("/api/v1/pools/web/servers/{server}")
}

fn change(evenkeel: &Evenkeel, server: SocketAddr, body: &str) -> Value {
    let path = server_path(server);
    evenkeel.api().send("PATCH", &path, body).expect(200)
}

fn server(evenkeel: &Evenkeel, server: SocketAddr) -> Value {
    evenkeel.api().get(&server_path(server))
}

fn two() -> ([Greeter; 2], Evenkeel) {
    let greeters = [Greeter::listen(b'a'), Greeter::listen(b'b')];
    let addresses = [greeters[0].address(), greeters[1].address()];
    let evenkeel = Evenkeel::start(&with_pool("workers: 2", "", &addresses));
    (greeters, evenkeel)
}

/// Connections until `count` of them are with server `name`.
fn clients_of(evenkeel: &Evenkeel, wanted: u8, count: usize) -> Vec<TcpStream> {
    let mut clients = Vec::new();
    let mut others = Vec::new();
    while clients.len() < count {
        let (client, name) = greeted(evenkeel.address());
        if name == wanted {
            &mut clients
        } else {
            &mut others
        }
        .push(client);
    }
    clients
}

#[test]
fn draining_without_a_rate_cuts_nobody() {
    let ([a, _b], evenkeel) = two();
    let mut clients = clients_of(&evenkeel, b'a', 3);
    let answer = change(&evenkeel, a.address(), r#"{"state":"draining"}"#);
    assert_eq!(answer["state"], "draining");
    assert_eq!(answer["drain"]["left"], 3);
    assert_eq!(visits(evenkeel.address(), 4), "bbbb");
    for client in &mut clients {
        client.write_all(b"still here").unwrap();
        client.expect(b"still here");
    }
    assert_eq!(server(&evenkeel, a.address())["drain"]["closed"], 0);
    clients.iter_mut().for_each(|client| client.end());
    eventually("the drain is over", || {
        server(&evenkeel, a.address())["drain"].is_null()
    });
    assert_eq!(server(&evenkeel, a.address())["state"], "draining");
    change(&evenkeel, a.address(), r#"{"state":"up"}"#);
    assert!(visits(evenkeel.address(), 2).contains('a'));
}

#[test]
fn with_a_rate_the_quiet_are_closed_in_order_and_the_busy_go_on() {
    let ([a, _b], evenkeel) = two();
    let mut clients = clients_of(&evenkeel, b'a', 6);
    let mut busy = clients.pop().unwrap();
    let body = r#"{"state":"draining","drain":{"rate":"50/s","quiet":"300ms","deadline":"1h"}}"#;
    change(&evenkeel, a.address(), body);
    let mut left = clients.len();
    eventually("the quiet ones are closed", || {
        busy.write_all(b"busy").unwrap();
        busy.expect(b"busy");
        let drain = server(&evenkeel, a.address())["drain"].clone();
        left = 5 - usize::try_from(drain["closed"].as_u64().unwrap()).unwrap();
        left == 0
    });
    for client in &mut clients {
        client.expect_fin();
    }
    busy.write_all(b"busy").unwrap();
    busy.expect(b"busy");
    eventually("five lines", || {
        let lines = evenkeel.access();
        lines.iter().filter(|line| line.end() == "drained").count() == 5
    });
}

#[test]
fn at_the_deadline_the_rest_is_reset() {
    let ([a, _b], evenkeel) = two();
    let mut clients = clients_of(&evenkeel, b'a', 4);
    let body = r#"{"state":"draining","drain":{"rate":"1/h","quiet":"1h","deadline":"500ms"}}"#;
    change(&evenkeel, a.address(), body);
    for client in &mut clients {
        client.expect_reset();
    }
    eventually("four lines", || {
        let lines = evenkeel.access();
        lines
            .iter()
            .filter(|line| line.field("end") == "drained")
            .count()
            == 4
    });
}

#[test]
fn maintenance_closes_all_at_once_and_ready_takes_new_ones() {
    let ([a, _b], evenkeel) = two();
    let mut clients = clients_of(&evenkeel, b'a', 20);
    let answer = change(&evenkeel, a.address(), r#"{"state":"maintenance"}"#);
    assert_eq!(answer["state"], "maintenance");
    for client in &mut clients {
        client.expect_reset();
    }
    assert_eq!(visits(evenkeel.address(), 4), "bbbb");
    change(&evenkeel, a.address(), r#"{"state":"up"}"#);
    assert!(visits(evenkeel.address(), 2).contains('a'));
}

#[test]
fn a_drain_that_is_taken_back_closes_nobody_any_more() {
    let ([a, _b], evenkeel) = two();
    let mut clients = clients_of(&evenkeel, b'a', 3);
    let body = r#"{"state":"draining","drain":{"rate":"1000/s","quiet":"2s","deadline":"3s"}}"#;
    change(&evenkeel, a.address(), body);
    assert!(change(&evenkeel, a.address(), r#"{"state":"up"}"#)["drain"].is_null());
    let second = r#"{"state":"draining","drain":{"rate":"1000/s","quiet":"1h","deadline":"1h"}}"#;
    change(&evenkeel, a.address(), second);
    // Another server's drain with the same deadline has long cut its clients by then.
    let clock = clients_of(&evenkeel, b'b', 1);
    change(&evenkeel, _b.address(), body);
    for mut client in clock {
        client.expect_fin();
    }
    for client in &mut clients {
        client.write_all(b"still here").unwrap();
        client.expect(b"still here");
    }
}

#[test]
fn a_server_that_goes_down_keeps_its_connections_unless_the_pool_says_close() {
    for (line, is_closed) in [("", false), ("    on_down: close", true)] {
        let mut a = Greeter::listen(b'a');
        let health = format!("    health: {{type: tcp, interval: 100ms, fall: 1}}\n{line}");
        let evenkeel = Evenkeel::start(&with_health("workers: 1", &health, &[a.address()]));
        let (mut client, _) = greeted(evenkeel.address());
        a.stop();
        evenkeel.errors().wait_for(" is down: ");
        if is_closed {
            client.expect_reset();
            assert_eq!(evenkeel.end().field("end"), "server_down");
        } else {
            client.write_all(b"still here").unwrap();
            client.expect(b"still here");
        }
    }
}

#[test]
fn a_removed_server_is_drained_at_the_pace_that_was_asked_for() {
    let ([a, _b], evenkeel) = two();
    let mut clients = clients_of(&evenkeel, b'a', 3);
    let path = format!(
        "{}?rate=100/s&quiet=10ms&deadline=1h",
        server_path(a.address())
    );
    evenkeel.api().ask("DELETE", &path).expect(204);
    for client in &mut clients {
        client.expect_fin();
    }
    assert_eq!(visits(evenkeel.address(), 3), "bbb");
    evenkeel
        .api()
        .ask("GET", &server_path(a.address()))
        .expect(404);
}

#[test]
fn the_last_server_of_a_pool_is_not_removed() {
    let ([a, b], evenkeel) = two();
    evenkeel
        .api()
        .ask("DELETE", &server_path(a.address()))
        .expect(204);
    evenkeel
        .api()
        .ask("DELETE", &server_path(b.address()))
        .expect(409);
    let body = r#"{"weight":0}"#;
    evenkeel
        .api()
        .send("PATCH", &server_path(b.address()), body)
        .expect(409);
    assert_eq!(visits(evenkeel.address(), 1), "b");
}

#[test]
fn an_added_server_serves_and_comes_back_as_the_one_that_it_was() {
    let ([a, b], evenkeel) = two();
    let c = Greeter::listen(b'c');
    let body = format!(r#"{{"name":"c","address":"{}","weight":2}}"#, c.address());
    let path = "/api/v1/pools/web/servers";
    let answer = evenkeel.api().send("POST", path, &body).expect(201);
    assert_eq!(
        (&answer["name"], &answer["weight"]),
        (&"c".into(), &2.into())
    );
    for server in [&a, &b] {
        evenkeel
            .api()
            .ask("DELETE", &server_path(server.address()))
            .expect(204);
    }
    assert_eq!(visits(evenkeel.address(), 2), "cc");
    evenkeel.api().send("POST", path, &body).expect(409);
    let body = format!(r#"{{"name":"c2","address":"{}"}}"#, c.address());
    evenkeel.api().send("POST", path, &body).expect(409);
}

#[test]
fn a_change_of_algorithm_holds_from_the_next_connection_on() {
    let ([_a, _b], evenkeel) = two();
    let path = "/api/v1/pools/web";
    let answer = evenkeel
        .api()
        .send("PATCH", path, r#"{"algorithm":"first"}"#)
        .expect(200);
    assert_eq!(answer["algorithm"], "first");
    assert_eq!(visits(evenkeel.address(), 4), "aaaa");
    evenkeel
        .api()
        .send("PATCH", path, r#"{"algorithm":"round_robin"}"#)
        .expect(200);
    let names = visits(evenkeel.address(), 4);
    assert_eq!(names.matches('a').count(), 2, "{names}");
    evenkeel
        .api()
        .send("PATCH", path, r#"{"algorithm":"best"}"#)
        .expect(400);
}

#[test]
fn a_removed_server_that_comes_back_is_not_drained_any_more() {
    let ([a, b], evenkeel) = two();
    let mut clients = clients_of(&evenkeel, b'a', 2);
    let path = format!("{}?deadline=1s", server_path(a.address()));
    evenkeel.api().ask("DELETE", &path).expect(204);
    let body = format!(r#"{{"address":"{}"}}"#, a.address());
    let servers = "/api/v1/pools/web/servers";
    evenkeel.api().send("POST", servers, &body).expect(201);
    clients.extend(clients_of(&evenkeel, b'a', 1));
    // When another server's drain is through, the deadline of that removal has long passed.
    let clock = clients_of(&evenkeel, b'b', 1);
    let later = r#"{"state":"draining","drain":{"rate":"1000/s","quiet":"2s","deadline":"1h"}}"#;
    change(&evenkeel, b.address(), later);
    for mut client in clock {
        client.expect_fin();
    }
    for client in &mut clients {
        client.write_all(b"still here").unwrap();
        client.expect(b"still here");
    }
}

#[test]
fn a_drain_without_a_pace_takes_on_that_of_the_removal() {
    let ([a, _b], evenkeel) = two();
    let mut clients = clients_of(&evenkeel, b'a', 2);
    change(&evenkeel, a.address(), r#"{"state":"draining"}"#);
    let path = format!("{}?rate=100/s&quiet=10ms", server_path(a.address()));
    evenkeel.api().ask("DELETE", &path).expect(204);
    for client in &mut clients {
        client.expect_fin();
    }
}

#[test]
fn a_server_that_goes_down_during_a_reload_keeps_its_connections_when_it_is_back() {
    let (mut a, b) = (Greeter::listen(b'a'), Greeter::listen(b'b'));
    let addresses = [a.address(), b.address()];
    let checks = "    on_down: close\n    health: {type: tcp, interval: 50ms, rise: 1, fall: 1}";
    let before = with_health("workers: 1", checks, &addresses);
    let evenkeel = Evenkeel::start(&before);
    // The first answer of another listener's pool takes long, and the reload waits for it.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let late = format!(
        "  late: {{bind: \"127.0.0.1:0\", pool: late}}\npools:\n  late:\n    \
         health: {{type: http, path: /, timeout: 2s}}\n    servers: [\"{}\"]\n",
        silent.local_addr().unwrap()
    );
    evenkeel.rewrite(&before.replacen("pools:\n", &late, 1));
    let says = |what: &str, times: usize| {
        let line = format!("{} is {what}", addresses[0]);
        evenkeel.errors().wait(&line, |lines| {
            let found = lines.iter().filter(|other| other.contains(&line));
            (found.count() == times).then_some(())
        });
    };
    thread::scope(|scope| {
        let reload = scope.spawn(|| evenkeel.api().ask("POST", "/api/v1/reload"));
        let check = silent.accept().unwrap();
        a.stop();
        says("down", 1);
        reload.join().unwrap().expect(200);
        drop(check);
    });
    let _a = Greeter::serve(b'a', TcpListener::bind(addresses[0]).unwrap());
    says("up", 2);
    let mut clients = clients_of(&evenkeel, b'a', 2);
    // When a drain that begins now is through, all connections have been looked at.
    let clock = clients_of(&evenkeel, b'b', 1);
    change(
        &evenkeel,
        b.address(),
        r#"{"state":"draining","drain":{"rate":"1000/s","quiet":"300ms","deadline":"1h"}}"#,
    );
    for mut client in clock {
        client.expect_fin();
    }
    for client in &mut clients {
        client.write_all(b"still here").unwrap();
        client.expect(b"still here");
    }
}

#[test]
fn a_drain_without_a_pace_leaves_the_pace_of_one_under_way() {
    let ([a, _b], evenkeel) = two();
    let _clients = clients_of(&evenkeel, b'a', 2);
    let body = r#"{"state":"draining","drain":{"rate":"1/h","quiet":"1h","deadline":"1h"}}"#;
    change(&evenkeel, a.address(), body);
    let again = change(&evenkeel, a.address(), r#"{"state":"draining"}"#);
    assert_eq!(again["drain"]["rate"], "1/h");
    let faster = body.replace("1/h", "2/h");
    assert_eq!(
        change(&evenkeel, a.address(), &faster)["drain"]["rate"],
        "2/h"
    );
    evenkeel.errors().wait_for("closed at 2/h");
}

#[test]
fn taking_the_last_server_of_a_pool_out_is_told() {
    let ([a, b], evenkeel) = two();
    change(&evenkeel, a.address(), r#"{"state":"draining"}"#);
    assert!(!evenkeel.errors().text().contains("has no server left"));
    change(&evenkeel, b.address(), r#"{"state":"maintenance"}"#);
    evenkeel.errors().wait_for("pool web has no server left");
}

#[test]
fn a_server_that_leads_back_to_its_own_pool_is_not_added() {
    let greeter = Greeter::listen(b'a');
    let config = format!(
        "listeners:\n  one: {{bind: \"127.0.0.1:0\", pool: one}}\n  \
         two: {{bind: \"127.0.0.1:0\", pool: two}}\n\
         pools:\n  one: {{health: off, servers: [\"{0}\"]}}\n  \
         two: {{health: off, servers: [\"{0}\"]}}\n",
        greeter.address()
    );
    let evenkeel = Evenkeel::start(&config);
    let addresses = evenkeel.addresses();
    let add = |pool: &str, server: SocketAddr| {
        let path = format!("/api/v1/pools/{pool}/servers");
        let body = format!("{{\"address\":\"{server}\"}}");
        evenkeel.api().send("POST", &path, &body)
    };
    let (one, two) = (addresses[0].1, addresses[1].1);
    assert!(
        add("one", one)
            .expect(409)
            .to_string()
            .contains("leads back")
    );
    add("one", two).expect(201);
    add("two", one).expect(409);
}
