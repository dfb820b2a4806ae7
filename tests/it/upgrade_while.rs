//! Upgrade while something else is under way: each phase of a connection, each thing that an operator
//! has set, and each that was found out, goes on in the next process as if nothing had happened.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::blocks::{Blocks, Finish};
use crate::harness::dial::{accept, dial, listen, unix};
use crate::harness::lines::AccessLine;
use crate::harness::peers::{Peer, Refusing, Server, Unanswering, connect, connect_from, ping};
use crate::harness::program::Evenkeel;
use crate::harness::servers::{Greeter, greeted, greeting, visits};
use crate::harness::{eventually, plain, with_health, with_pool};
use crate::sni::hello;

/// With lines of the listener.
fn with_listener(lines: &str, config: &str) -> String {
    config.replacen("    pool: web\n", &format!("    pool: web\n{lines}\n"), 1)
}

fn phases(evenkeel: &Evenkeel) -> Vec<String> {
    let list = evenkeel.api().get("/api/v1/connections");
    let phase = |it: &Value| it["phase"].as_str().unwrap().to_owned();
    let mut phases: Vec<_> = list.as_array().unwrap().iter().map(phase).collect();
    phases.sort();
    phases
}

#[track_caller]
fn await_phases(evenkeel: &Evenkeel, expected: &[&str]) {
    let mut last = Vec::new();
    let is_so = || {
        last = phases(evenkeel);
        last == expected
    };
    eventually("connections in their phases", is_so);
}

fn server_of(status: &Value, server: SocketAddr) -> Value {
    status["pools"]["web"]["servers"][server.to_string()].clone()
}

fn server_path(server: SocketAddr) -> String {
    format!("/api/v1/pools/web/servers/{server}")
}

fn change(evenkeel: &Evenkeel, server: SocketAddr, body: &str) {
    let path = server_path(server);
    evenkeel.api().send("PATCH", &path, body).expect(200);
}

#[test]
fn half_closed_connections_go_on_in_their_other_direction() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&with_pool("workers: 2", "", &[server.address()]));
    let (mut asking, mut answering) = evenkeel.pair(&server);
    let (mut talking, mut listening) = evenkeel.pair(&server);
    asking.write_all(b"question").unwrap();
    asking.end();
    answering.expect(b"question");
    answering.expect_fin();
    listening.write_all(b"bye").unwrap();
    listening.end();
    talking.expect(b"bye");
    talking.expect_fin();
    await_phases(&evenkeel, &["half_closed", "half_closed"]);
    for round in [b"one", b"two"] {
        evenkeel.upgrade();
        await_phases(&evenkeel, &["half_closed", "half_closed"]);
        answering.write_all(round).unwrap();
        asking.expect(round);
        talking.write_all(round).unwrap();
        listening.expect(round);
    }
    drop(answering);
    asking.expect_fin();
    drop(talking);
    listening.expect_fin();
    let ends = evenkeel.ends(2);
    let of = |end: &str| ends.iter().filter(|line| line.end() == end).count();
    assert_eq!(
        (of("client_closed"), of("server_closed")),
        (1, 1),
        "{ends:?}"
    );
    let bytes: u64 = ends.iter().map(|end| end.bytes("upstream_bytes")).sum();
    assert_eq!(bytes, 8 + 6);
}

#[test]
fn bytes_that_are_held_all_the_way_come_whole() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&with_pool("workers: 2", "", &[server.address()]));
    let mut scenes: Vec<_> = (0..4).map(|_| evenkeel.pair(&server)).collect();
    let mut sent = Vec::new();
    for (seed, (client, serving)) in (0..).zip(&mut scenes) {
        let mut blocks = [Blocks::new(seed), Blocks::new(100 + seed)];
        // Upstream, downstream, and both.
        let up = match seed % 3 {
            1 => 0,
            _ => client.write_until_blocked(|buffer| blocks[0].fill(buffer)),
        };
        let down = match seed % 3 {
            0 => 0,
            _ => serving.write_until_blocked(|buffer| blocks[1].fill(buffer)),
        };
        sent.push((up, down));
    }
    evenkeel.upgrade();
    evenkeel.upgrade();
    for ((seed, (mut client, mut serving)), (up, down)) in (0..).zip(scenes).zip(sent) {
        client.end();
        let received = Blocks::new(seed).receive_to_end(&mut serving);
        assert_eq!((received.bytes, received.finish), (up, Finish::Fin));
        serving.end();
        let received = Blocks::new(100 + seed).receive_to_end(&mut client);
        assert_eq!((received.bytes, received.finish), (down, Finish::Fin));
    }
    let ends = evenkeel.ends(4);
    assert!(
        ends.iter().all(|end| end.end() == "client_closed"),
        "{ends:?}"
    );
}

#[test]
fn the_last_bytes_of_a_failed_side_still_arrive() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&with_pool("workers: 2", "", &[server.address()]));
    let (mut client, mut serving) = evenkeel.pair(&server);
    let mut blocks = Blocks::new(1);
    let sent = serving.write_until_blocked(|buffer| blocks.fill(buffer));
    serving.reset();
    await_phases(&evenkeel, &["lingering"]);
    evenkeel.upgrade();
    await_phases(&evenkeel, &["lingering"]);
    let received = Blocks::new(1).receive_to_end(&mut client);
    assert_eq!(received.finish, Finish::Reset);
    assert!(received.bytes > 0 && received.bytes <= sent);
    assert_eq!(evenkeel.end().end(), "server_reset");
}

#[test]
fn those_who_wait_for_a_server_keep_their_order_and_servers_their_maximum() {
    let server = Greeter::listen(b's');
    let config = format!(
        "workers: 2\nlisteners:\n  web: {{bind: \"127.0.0.1:0\", pool: web}}\npools:\n  web:\n    \
         health: off\n    queue: {{limit: 10, timeout: 1m}}\n    servers: [{{address: \"{}\", \
         max_connections: 2}}]\n",
        server.address()
    );
    let evenkeel = Evenkeel::start(&config);
    let mut held: Vec<_> = (0..2).map(|_| greeted(evenkeel.address()).0).collect();
    let waiting = || evenkeel.api().status()["pools"]["web"]["queue"]["waiting"].clone();
    let mut clients: Vec<_> = (0..4)
        .map(|others| {
            let client = evenkeel.connect();
            eventually("it waits", || waiting() == others + 1);
            client
        })
        .collect();
    evenkeel.upgrade();
    assert_eq!(waiting(), 4);
    // Who comes later is behind those who came before.
    clients.push(evenkeel.connect());
    eventually("it waits", || waiting() == 5);
    evenkeel.upgrade();
    for (client, left) in clients.into_iter().zip((0..5).rev()) {
        held.remove(0).end();
        held.push(greeting(client).0);
        eventually("the next ones wait", || waiting() == left);
    }
    assert_eq!(server.most(), 2);
}

#[test]
fn half_a_proxy_header_and_half_a_client_hello_are_read_on() {
    let (named, rest) = (Server::listen(), Server::listen());
    let evenkeel = Evenkeel::start(&format!(
        "workers: 2\nlisteners:\n  web:\n    bind: 127.0.0.1:0\n    pool: rest\n    \
         sni: {{a.example.com: named}}\n    proxy_protocol: accept\n    trusted_proxies: [127.0.0.1]\n\
         \n    header_timeout: 1m\npools:\n  named: {{health: off, servers: [\"{}\"]}}\n  \
         rest: {{health: off, servers: [\"{}\"]}}\n",
        named.address(),
        rest.address()
    ));
    let header: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n";
    let hello = hello("a.example.com");
    let whole = [header, &hello].concat();
    // Nothing, a part of the header, all of it, a part of the hello, and all but a byte.
    let cuts = [0, 10, header.len(), header.len() + 20, whole.len() - 1];
    let clients: Vec<_> = cuts
        .iter()
        .map(|cut| {
            let mut client = evenkeel.connect();
            client.write_all(&whole[..*cut]).unwrap();
            client
        })
        .collect();
    await_phases(&evenkeel, &["reading_header"; 5]);
    evenkeel.upgrade();
    await_phases(&evenkeel, &["reading_header"; 5]);
    for (mut client, cut) in clients.into_iter().zip(cuts) {
        client.write_all(&whole[cut..]).unwrap();
        let mut serving = named.accept();
        serving.expect(&hello);
        evenkeel.upgrade();
        ping(&mut client, &mut serving);
    }
    let ends = evenkeel.ends(5);
    assert!(
        ends.iter()
            .all(|end| end.field("client") == "203.0.113.7:4711")
    );
}

#[test]
fn a_server_that_answers_late_gets_its_header_and_all_that_was_said() {
    let hanging = Unanswering::new();
    let pool = "    connect_timeout: 20s\n    send_proxy: v1";
    let evenkeel = Evenkeel::start(&with_pool("workers: 2", pool, &[hanging.address()]));
    let mut client = evenkeel.connect();
    client.write_all(b"patient").unwrap();
    await_phases(&evenkeel, &["connecting"]);
    evenkeel.upgrade();
    await_phases(&evenkeel, &["connecting"]);
    let own = client.local_addr().unwrap();
    let header = format!(
        "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\npatient",
        own.port(),
        evenkeel.address().port()
    );
    let server = hanging.answer();
    let mut serving = server.accept();
    serving.expect(header.as_bytes());
    ping(&mut client, &mut serving);
    evenkeel.upgrade();
    ping(&mut client, &mut serving);
}

#[test]
fn an_address_at_its_maximum_stays_there() {
    let server = Greeter::listen(b's');
    let config = with_pool("workers: 2", "", &[server.address()]);
    let evenkeel = Evenkeel::start(&with_listener("    max_connections_per_ip: 3", &config));
    let from = |last| connect_from([127, 0, 0, last], evenkeel.address());
    let mut held: Vec<_> = (0..3).map(|_| greeting(from(1)).0).collect();
    let _other = greeting(from(2));
    for round in 1..=2 {
        evenkeel.upgrade();
        from(1).expect_reset();
        drop(held.pop());
        evenkeel.ends(2 * round);
        held.push(greeting(from(1)).0);
    }
    from(1).expect_reset();
    eventually("three are refused, and no other", || {
        let ends = evenkeel.access();
        ends.iter().filter(|end| end.end() == "limit").count() == 3
    });
}

#[test]
fn what_an_operator_has_set_stays_until_the_file_says_otherwise() {
    let greeters = [b'a', b'b', b'c', b'd'].map(Greeter::listen);
    let [a, b, c, d] = [0, 1, 2, 3].map(|index| greeters[index].address());
    let file = with_pool("workers: 2", "    algorithm: round_robin", &[a, b, c]);
    let evenkeel = Evenkeel::start(&file);
    change(&evenkeel, a, r#"{"state":"maintenance"}"#);
    change(&evenkeel, b, r#"{"weight":3}"#);
    change(&evenkeel, c, r#"{"state":"draining"}"#);
    let pool = "/api/v1/pools/web";
    let added = json!({"name": "added", "address": d, "weight": 2}).to_string();
    evenkeel
        .api()
        .send("POST", &format!("{pool}/servers"), &added)
        .expect(201);
    evenkeel
        .api()
        .send("PATCH", pool, r#"{"algorithm":"least_connections"}"#)
        .expect(200);
    let shown = || {
        let pool = evenkeel.api().get(pool);
        let servers = pool["servers"].as_object().unwrap();
        let each = servers.iter().map(|(name, it)| {
            (
                name.clone(),
                it["state"].as_str().unwrap().to_owned(),
                it["weight"].as_u64().unwrap(),
            )
        });
        (
            each.collect::<Vec<_>>(),
            pool["algorithm"].as_str().unwrap().to_owned(),
        )
    };
    let before = shown();
    assert_eq!(before.0.len(), 4);
    for _ in 0..2 {
        evenkeel.upgrade();
        assert_eq!(shown(), before);
        let differs = evenkeel.api().status()["config"]["differs"].clone();
        assert!(!differs.as_array().unwrap().is_empty());
    }
    // A server that was taken out stays out as well.
    evenkeel.api().ask("DELETE", &server_path(c)).expect(204);
    evenkeel.upgrade();
    assert_eq!(shown().0.len(), 3);
    evenkeel.rewrite(&file.replace("workers: 2", "# another file\nworkers: 2"));
    evenkeel.upgrade();
    let (servers, algorithm) = shown();
    assert_eq!(algorithm, "round_robin");
    let expected = [(a, "maintenance"), (b, "up"), (c, "up")];
    let expected = expected.map(|(server, state)| (server.to_string(), state.to_owned(), 1));
    let names: Vec<_> = servers
        .iter()
        .map(|(name, _, weight)| (name.clone(), *weight))
        .collect();
    let wanted: Vec<_> = expected
        .iter()
        .map(|(name, _, weight)| (name.clone(), *weight))
        .collect();
    assert_eq!(names, wanted);
    assert_eq!(
        servers[0].1, "maintenance",
        "standings stay, as at a reload"
    );
}

#[test]
fn a_drain_goes_on_at_its_pace() {
    let (a, b) = (Greeter::listen(b'a'), Greeter::listen(b'b'));
    let evenkeel = Evenkeel::start(&with_pool("workers: 2", "", &[a.address()]));
    let mut clients: Vec<_> = (0..20).map(|_| greeted(evenkeel.address()).0).collect();
    evenkeel.rewrite(&with_pool("workers: 2", "", &[a.address(), b.address()]));
    evenkeel.api().ask("POST", "/api/v1/reload").expect(200);
    let body = r#"{"state":"draining","drain":{"rate":"10/s","quiet":"100ms","deadline":"1h"}}"#;
    change(&evenkeel, a.address(), body);
    let closed = || {
        let drain = evenkeel.api().get(&server_path(a.address()))["drain"].clone();
        drain["closed"].as_u64()
    };
    eventually("some are closed", || closed() > Some(2));
    let before = closed().expect("it goes on");
    evenkeel.upgrade();
    let after = closed();
    assert!(
        after.is_none_or(|after| after >= before),
        "{after:?} after {before}"
    );
    evenkeel.upgrade();
    for client in &mut clients {
        client.expect_fin();
    }
    assert_eq!(visits(evenkeel.address(), 2), "bb");
    let ends = evenkeel.ends(22);
    let drained = ends.iter().filter(|end| end.end() == "drained").count();
    assert_eq!(drained, 20);
    eventually("the drain is over", || closed().is_none());
    let state = server_of(&evenkeel.api().status(), a.address())["state"].clone();
    assert_eq!(state, "draining");
}

#[test]
fn a_verdict_stays_without_a_flap() {
    let (up, down) = (Greeter::listen(b'u'), Refusing::new());
    let pool = "    health: {type: tcp, interval: 1h, fall: 1}\n    algorithm: round_robin";
    let servers = [up.address(), down.address()];
    let evenkeel = Evenkeel::start(&with_health("workers: 2", pool, &servers));
    let verdict = |server| {
        let shown = server_of(&evenkeel.api().status(), server);
        (
            shown["state"].clone(),
            shown["health"]["last"].clone(),
            shown["health"]["reason"].clone(),
        )
    };
    let before = servers.map(verdict);
    assert_eq!((&before[0].0, &before[1].0), (&json!("up"), &json!("down")));
    for _ in 0..3 {
        evenkeel.upgrade();
        assert_eq!(servers.map(verdict), before);
        assert_eq!(visits(evenkeel.address(), 4), "uuuu");
    }
    let failed =
        server_of(&evenkeel.api().status(), down.address())["connections"]["failed"].clone();
    assert_eq!(failed, 0, "nobody was sent there");
}

#[test]
fn checks_go_on_and_find_what_changes() {
    let port = Refusing::new();
    let mut server = Some(Greeter::serve(b's', port.listen()));
    let pool = "    health: {type: tcp, interval: 100ms, timeout: 2s, rise: 1, fall: 1}";
    let evenkeel = Evenkeel::start(&with_health("workers: 2", pool, &[port.address()]));
    let state = || server_of(&evenkeel.api().status(), port.address())["state"].clone();
    evenkeel.upgrade();
    drop(server.take());
    eventually("it is down", || state() == "down");
    evenkeel.upgrade();
    assert_eq!(state(), "down");
    let _server = Greeter::serve(b's', port.listen());
    eventually("it is up", || state() == "up");
    assert_eq!(visits(evenkeel.address(), 1), "s");
}

#[test]
fn servers_that_were_found_stay_although_nobody_names_them_any_more() {
    let greeter = Greeter::listen(b'f');
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("servers.txt");
    fs::write(
        &path,
        format!("{} name=found weight=4\n", greeter.address()),
    )
    .unwrap();
    let evenkeel = Evenkeel::start(&format!(
        "workers: 1\nlisteners:\n  web: {{bind: \"127.0.0.1:0\", pool: web}}\npools:\n  web:\n    \
         health: off\n    servers_file: {}\n",
        path.display()
    ));
    assert_eq!(visits(evenkeel.address(), 1), "f");
    fs::remove_file(&path).unwrap();
    for _ in 0..2 {
        evenkeel.upgrade();
        assert_eq!(visits(evenkeel.address(), 1), "f");
        let server = evenkeel.api().get("/api/v1/pools/web/servers/found");
        assert_eq!(server["weight"], 4);
    }
}

#[test]
fn every_connection_has_one_line_in_a_log_of_either_kind() {
    let server = Greeter::listen(b's');
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("access.log");
    let log = format!(
        "workers: 2\nlog: {{access: \"{}\", format: json}}",
        path.display()
    );
    let evenkeel = Evenkeel::start(&with_pool(&log, "", &[server.address()]));
    let mut held = Vec::new();
    for _ in 0..4 {
        held.extend((0..3).map(|_| greeted(evenkeel.address())));
        visits(evenkeel.address(), 5);
        evenkeel.upgrade();
        drop(held.remove(0));
    }
    drop(held);
    let lines = || -> Vec<AccessLine> {
        let text = fs::read_to_string(&path).unwrap();
        text.lines()
            .map(|line| AccessLine::parse(line).expect(line))
            .collect()
    };
    eventually("32 lines", || lines().len() >= 32);
    let mut ids: Vec<u64> = lines().iter().map(|line| line.bytes("id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), lines().len()), (32, 32));
    assert!(lines().iter().all(|line| line.end() == "client_closed"));
}

#[test]
fn unix_sockets_on_both_sides_go_on() {
    let folder = TempDir::new().unwrap();
    let (door, place) = (unix(folder.path(), "door"), unix(folder.path(), "server"));
    let server = listen(&place, 16);
    let evenkeel = Evenkeel::start(&format!(
        "workers: 2\nlisteners:\n  web: {{bind: \"{door}\", pool: web}}\npools:\n  web: {{health: \
         off, servers: [\"{place}\"]}}\n"
    ));
    evenkeel.errors().wait_for("ready: ");
    let mut pairs = Vec::new();
    for round in 0..3 {
        let client = dial(&door);
        pairs.push((client, accept(&server)));
        evenkeel.upgrade();
        for (client, serving) in &mut pairs {
            let mut buffer = [0; 2];
            client.write_all(&[b'q', round]).unwrap();
            serving.read_exact(&mut buffer).unwrap();
            serving.write_all(&buffer).unwrap();
            client.read_exact(&mut buffer).unwrap();
            assert_eq!(buffer, [b'q', round]);
        }
    }
    // A server that ends its direction, and a client that has ended: over unix sockets, too.
    let (client, serving) = pairs.pop().unwrap();
    drop(serving);
    assert_eq!((&client).read(&mut [0]).unwrap(), 0);
    drop((client, pairs));
    assert_eq!(evenkeel.ends(3).len(), 3);
}

#[test]
fn silence_is_counted_from_before() {
    let server = Server::listen();
    let config = plain(&[server.address()]);
    let evenkeel = Evenkeel::start(&with_listener("    idle_timeout: 3s", &config));
    let (_client, _serving) = evenkeel.pair(&server);
    // They come more often than the timeout, and would put it off for ever.
    eventually("the silence ends it", || {
        evenkeel.upgrade();
        !evenkeel.access().is_empty()
    });
    assert_eq!(evenkeel.end().end(), "idle_timeout");
}

#[test]
fn a_slow_start_goes_on() {
    let (other, port) = (Greeter::listen(b'o'), Refusing::new());
    let pool = "    algorithm: round_robin\n    slow_start: 1h\n    health: {type: tcp, interval: \
                50ms, timeout: 2s, rise: 1, fall: 1}";
    let servers = [port.address(), other.address()];
    let evenkeel = Evenkeel::start(&with_health("workers: 1", pool, &servers));
    let _server = Greeter::serve(b's', port.listen());
    let ramp =
        || server_of(&evenkeel.api().status(), port.address())["slow_start"]["percent"].clone();
    eventually("it begins with a tenth", || ramp() == 10);
    evenkeel.upgrade();
    assert_eq!(ramp(), 10);
    let picked = visits(evenkeel.address(), 110).matches('s').count();
    assert!((8..=12).contains(&picked), "{picked} of 110");
}

#[test]
fn an_event_stream_ends_and_may_come_again() {
    let server = Greeter::listen(b's');
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let mut events = evenkeel.api().visit();
    events.ask("GET", "/api/v1/events", &[]);
    events.until("\r\n\r\n");
    evenkeel.upgrade();
    events.rest();
    let mut events = evenkeel.api().visit();
    events.ask("GET", "/api/v1/events", &[]);
    events.until("\r\n\r\n");
    change(&evenkeel, server.address(), r#"{"state":"draining"}"#);
    events.until(&server.address().to_string());
}

/// A connection of which only the client's end is known to the test.
#[test]
fn clients_that_knock_during_it_are_let_in_by_the_next_one() {
    let server = Greeter::listen(b's');
    let evenkeel = Evenkeel::start(&with_pool("workers: 2", "", &[server.address()]));
    let address = evenkeel.address();
    let mut clients: Vec<TcpStream> = Vec::new();
    std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| evenkeel.upgrade());
        while !upgrade.is_finished() {
            clients.push(connect(address));
            crate::harness::pause(std::time::Duration::from_millis(1));
        }
        upgrade.join().unwrap();
    });
    let count = clients.len();
    let served: Vec<_> = clients.into_iter().map(greeting).collect();
    drop(served);
    let ends = evenkeel.ends(count);
    assert!(ends.iter().all(|end| end.end() == "client_closed"));
    assert_eq!(evenkeel.api().status()["connections"]["total"], count);
}
