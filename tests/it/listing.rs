//! Living connections: each is listed with what is true of it, blamed on the right side, and ended
//! alone when it is to be ended.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use crate::harness::peers::{
    Peer, Server, Unanswering, connect, connect_with_receive_buffer, ping,
};
use crate::harness::program::Evenkeel;
use crate::harness::pulse::Pulse;
use crate::harness::servers::{Greeter, greeted};
use crate::harness::{eventually, eventually_some, plain, with_health, with_pool};

const BOTH: &str = "workers: 2\nadmin: {socket: SOCKET, http: 127.0.0.1:0}";
const CONNECTIONS: &str = "/api/v1/connections";
const SMALL_BUFFER: usize = 4096;
/// Several slices of each worker.
const MANY: usize = 2000;

fn list(evenkeel: &Evenkeel, query: &str) -> Vec<Value> {
    let path = format!("{CONNECTIONS}{query}");
    let Value::Array(list) = evenkeel.api().get(&path) else {
        panic!("no list");
    };
    list
}

/// The connection of a client, by its address.
#[track_caller]
fn shown(evenkeel: &Evenkeel, client: &TcpStream) -> Value {
    let address = client.local_addr().unwrap().to_string();
    let list = list(evenkeel, "");
    let mut found = list.iter().filter(|shown| shown["client"] == address);
    found
        .next()
        .cloned()
        .unwrap_or_else(|| panic!("no {address} in {list:?}"))
}

/// Waits until the only connection is shown as limited by `side`.
#[track_caller]
fn is_limited_by(evenkeel: &Evenkeel, side: &str) -> Value {
    let mut last = Value::Null;
    eventually(&format!("limited by {side}"), || {
        last = list(evenkeel, "")[0].clone();
        last["limited_by"] == side
    });
    last
}

#[test]
fn a_connection_is_listed_with_everything_that_is_known_of_it() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&with_pool(BOTH, "", &[server.address()]));
    let (mut client, mut serving) = evenkeel.pair(&server);
    ping(&mut client, &mut serving);
    serving.write_all(b"and more").unwrap();
    client.expect(b"and more");
    let mut ages = Vec::new();
    for api in [evenkeel.api(), evenkeel.http()] {
        let list = api.get(CONNECTIONS);
        assert_eq!(list.as_array().unwrap().len(), 1);
        let mut it = list[0].clone();
        for key in ["age_seconds", "idle_seconds"] {
            assert!(it[key].as_f64().unwrap() >= 0.0, "{key}: {it}");
        }
        assert!(
            it["age_seconds"].as_f64() >= it["idle_seconds"].as_f64(),
            "{it}"
        );
        ages.push(it["age_seconds"].take().as_f64().unwrap());
        it["idle_seconds"].take();
        for direction in ["upstream", "downstream"] {
            let rate = it["bytes_per_second"][direction].take();
            assert!(rate.as_f64().unwrap() > 0.0, "over its age: {rate}");
        }
        for side in ["client", "server"] {
            let time = it["rtt_ms"][side].take().as_f64().unwrap();
            assert!(time > 0.0 && time < 1000.0, "{time}");
        }
        let none = json!({"client": null, "server": null});
        let zero = json!({"client": 0, "server": 0});
        let expected = json!({
            "id": it["id"].as_u64().unwrap(), "listener": "web", "pool": "web",
            "client": client.local_addr().unwrap().to_string(),
            "server": server.address().to_string(),
            "server_address": server.address().to_string(),
            "local": serving.peer_addr().unwrap().to_string(),
            "phase": "relaying", "age_seconds": null, "idle_seconds": null,
            "bytes": {"upstream": 4, "downstream": 12},
            "bytes_per_second": {"upstream": null, "downstream": null},
            "limited_by": "client", "rtt_ms": none, "retransmits": zero, "unsent_bytes": zero,
        });
        assert_eq!(it, expected);
    }
    assert!(ages[1] >= ages[0], "{ages:?}");
    // Over a sample in which nothing moves, the rates are none.
    let sampled = &list(&evenkeel, "?sample=50ms")[0];
    assert_eq!(
        sampled["bytes_per_second"],
        json!({"upstream": 0.0, "downstream": 0.0})
    );
    client.end();
    serving.expect_fin();
    assert_eq!(shown(&evenkeel, &client)["phase"], "half_closed");
    assert_eq!(is_limited_by(&evenkeel, "server")["id"], sampled["id"]);
}

#[test]
fn rates_are_those_of_the_sample() {
    let greeter = Greeter::listen(b'a');
    let evenkeel = Evenkeel::start(&plain(&[greeter.address()]));
    let pulse = Pulse::start(evenkeel.address());
    pulse.goes_on();
    let sampled = &list(&evenkeel, "?sample=200ms")[0];
    for direction in ["upstream", "downstream"] {
        let rate = sampled["bytes_per_second"][direction].as_f64().unwrap();
        // Below what came in all its life, were that to have come within the sample.
        let most = sampled["bytes"][direction].as_f64().unwrap() / 0.2;
        assert!(rate > 0.0 && rate <= most, "{sampled}");
    }
    pulse.end();
}

#[test]
fn a_client_that_does_not_read_is_blamed() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let client = connect_with_receive_buffer(SMALL_BUFFER, evenkeel.address());
    let mut serving = server.accept();
    serving.write_until_blocked(|buffer| buffer.fill(7));
    let shown = is_limited_by(&evenkeel, "client");
    assert!(
        shown["unsent_bytes"]["client"].as_u64().unwrap() > 0,
        "{shown}"
    );
    assert_eq!(shown["unsent_bytes"]["server"], 0);
    drop(client);
}

#[test]
fn a_server_that_does_not_read_is_blamed() {
    let server = Server::with_receive_buffer(SMALL_BUFFER);
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let (mut client, serving) = evenkeel.pair(&server);
    client.write_until_blocked(|buffer| buffer.fill(7));
    let shown = is_limited_by(&evenkeel, "server");
    assert!(
        shown["unsent_bytes"]["server"].as_u64().unwrap() > 0,
        "{shown}"
    );
    assert_eq!(shown["unsent_bytes"]["client"], 0);
    drop(serving);
}

#[test]
fn where_nothing_waits_it_is_the_turn_of_who_did_not_speak_last() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let (mut client, mut serving) = evenkeel.pair(&server);
    is_limited_by(&evenkeel, "client");
    client.write_all(b"a question").unwrap();
    serving.expect(b"a question");
    is_limited_by(&evenkeel, "server");
    // The kernel tells apart only what is some milliseconds apart.
    let rest = || {
        eventually("a pause", || {
            list(&evenkeel, "")[0]["idle_seconds"].as_f64().unwrap() > 0.02
        });
    };
    for _ in 0..3 {
        rest();
        serving.write_all(b"an answer").unwrap();
        client.expect(b"an answer");
        is_limited_by(&evenkeel, "client");
        rest();
        client.write_all(b"another").unwrap();
        serving.expect(b"another");
        is_limited_by(&evenkeel, "server");
    }
}

#[test]
fn a_connection_that_is_being_connected_is_listed_and_can_be_killed() {
    let silent = Unanswering::new();
    let pool = "    connect_timeout: 1h\n    retries: 0\n";
    let evenkeel = Evenkeel::start(&with_pool(BOTH, pool, &[silent.address()]));
    let mut client = evenkeel.connect();
    client.write_all(b"early").unwrap();
    let shown = eventually_some("it is listed", || list(&evenkeel, "").pop());
    assert_eq!(shown["phase"], "connecting");
    assert_eq!(shown["limited_by"], "server");
    assert_eq!(shown["server_address"], silent.address().to_string());
    assert_eq!(shown["local"], Value::Null);
    assert_eq!(shown["rtt_ms"]["server"], Value::Null);
    assert!(shown["rtt_ms"]["client"].is_number());
    let path = format!("{CONNECTIONS}/{}", shown["id"]);
    evenkeel.api().ask("DELETE", &path).expect(204);
    client.expect_reset();
    assert_eq!(evenkeel.end().end(), "killed");
    let server = &evenkeel.api().status()["pools"]["web"]["servers"];
    let active = &server[&silent.address().to_string()]["connections"]["active"];
    assert_eq!(*active, 0, "its place was given back");
}

#[test]
fn while_a_check_is_awaited_connections_are_listed_and_killed() {
    let (greeter, silent) = (Greeter::listen(b'a'), Unanswering::new());
    let pool = "    health: {type: tcp, interval: 1h, timeout: 1h}";
    let evenkeel = Evenkeel::start(&with_health(BOTH, pool, &[greeter.address()]));
    let (mut client, _) = greeted(evenkeel.address());
    let api = evenkeel.api();
    let body = format!(r#"{{"name":"new","address":"{}"}}"#, silent.address());
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| {
            api.send("POST", "/api/v1/pools/web/servers", &body)
                .expect(201)
        });
        api.status_where("the new one is there", |status| {
            let new = &status["pools"]["web"]["servers"]["new"];
            new.is_object().then_some(())
        });
        // Another change waits, and is not lost.
        let changing = scope.spawn(|| {
            let path = format!("/api/v1/pools/web/servers/{}", greeter.address());
            api.send("PATCH", &path, r#"{"weight":3}"#).expect(200)
        });
        let id = list(&evenkeel, "")[0]["id"].clone();
        let path = format!("{CONNECTIONS}/{id}");
        evenkeel.api().ask("DELETE", &path).expect(204);
        client.expect_reset();
        assert!(!adding.is_finished(), "nobody has answered its check");
        let _server = silent.answer();
        assert_eq!(adding.join().unwrap()["state"], "up");
        assert_eq!(changing.join().unwrap()["weight"], 3);
    });
}

/// Two listeners and two pools; a server `twin` is in both.
fn two_pools(servers: &[Server; 3]) -> String {
    let [a, b, c] = servers.each_ref().map(Server::address);
    format!(
        "{BOTH}\nlisteners:\n  web: {{bind: \"127.0.0.1:0\", pool: web}}\n\
         \x20 db: {{bind: \"127.0.0.1:0\", pool: db}}\npools:\n\
         \x20 web:\n    health: off\n    algorithm: round_robin\n    servers:\n\
         \x20     - {{name: one, address: {a}}}\n      - {{name: twin, address: {b}}}\n\
         \x20 db: {{health: off, servers: [{{name: twin, address: \"{c}\"}}]}}\n"
    )
}

#[test]
fn a_list_is_of_the_pool_and_of_the_server_that_was_asked_for() {
    let servers = [Server::listen(), Server::listen(), Server::listen()];
    // One worker: each has a round robin of its own.
    let evenkeel = Evenkeel::start(&two_pools(&servers).replace("workers: 2", "workers: 1"));
    let addresses = evenkeel.addresses();
    let at = |name: &str| {
        let mut found = addresses.iter().filter(|(listener, _)| listener == name);
        found.next().unwrap().1
    };
    let web: Vec<_> = (0..4).map(|_| connect(at("web"))).collect();
    let db: Vec<_> = (0..3).map(|_| connect(at("db"))).collect();
    let accept = |server: &Server, count| (0..count).map(|_| server.accept()).collect();
    let _served: [Vec<_>; 3] = [
        accept(&servers[0], 2),
        accept(&servers[1], 2),
        accept(&servers[2], 3),
    ];
    let tell = |query: &str| {
        let list = list(&evenkeel, query);
        let ids: Vec<_> = list.iter().map(|it| it["id"].as_u64().unwrap()).collect();
        assert!(ids.is_sorted(), "{ids:?}");
        let text = |it: &Value, key: &str| it[key].as_str().unwrap().to_owned();
        let mut names: Vec<_> = list
            .iter()
            .map(|it| {
                assert_eq!(it["listener"], it["pool"]);
                format!("{}/{}", text(it, "pool"), text(it, "server"))
            })
            .collect();
        names.sort_unstable();
        names.join(" ")
    };
    let (one, web_twin, db_twin) = (
        "web/one web/one",
        "web/twin web/twin",
        "db/twin db/twin db/twin",
    );
    assert_eq!(tell(""), format!("{db_twin} {one} {web_twin}"));
    assert_eq!(tell("?pool=web"), format!("{one} {web_twin}"));
    assert_eq!(tell("?pool=db"), db_twin);
    assert_eq!(tell("?server=one"), one);
    assert_eq!(tell("?server=twin"), format!("{db_twin} {web_twin}"));
    assert_eq!(tell("?pool=web&server=twin"), web_twin);
    assert_eq!(list(&evenkeel, "?limit=2").len(), 2);
    let error = evenkeel
        .api()
        .ask("GET", "/api/v1/connections?pool=db&server=one");
    error.expect(404);
    // A server that was removed is still found by its name while it has connections.
    evenkeel
        .api()
        .ask("DELETE", "/api/v1/pools/web/servers/one")
        .expect(204);
    assert_eq!(tell("?server=one"), one);
    assert_eq!(tell("?pool=web"), format!("{one} {web_twin}"));
    drop((web, db));
}

#[test]
fn a_connection_keeps_the_name_of_a_listener_and_of_a_pool_that_are_gone() {
    let servers = [Server::listen(), Server::listen(), Server::listen()];
    let both = two_pools(&servers);
    let evenkeel = Evenkeel::start(&both);
    let (mut client, mut serving) = (connect(evenkeel.addresses()[1].1), servers[2].accept());
    ping(&mut client, &mut serving);
    let is_db = |line: &&str| !line.starts_with("  db:");
    evenkeel.rewrite(&both.lines().filter(is_db).collect::<Vec<_>>().join("\n"));
    evenkeel.api().ask("POST", "/api/v1/reload").expect(200);
    let shown = shown(&evenkeel, &client);
    let names = ["listener", "pool", "server"].map(|key| shown[key].clone());
    assert_eq!(names, ["db", "db", "twin"]);
    assert_eq!(list(&evenkeel, "?pool=db").len(), 1);
    ping(&mut client, &mut serving);
}

#[test]
fn a_kill_ends_one_connection_and_no_other() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&with_pool(BOTH, "", &[server.address()]));
    let mut pairs: Vec<_> = (0..5).map(|_| evenkeel.pair(&server)).collect();
    for (client, serving) in &mut pairs {
        ping(client, serving);
    }
    let (mut client, mut serving) = pairs.remove(2);
    let id = shown(&evenkeel, &client)["id"].clone();
    let path = format!("{CONNECTIONS}/{id}");
    let answer = evenkeel.api().ask("DELETE", &path);
    assert_eq!((answer.status, &*answer.body), (204, ""));
    client.expect_reset();
    serving.expect_reset();
    let end = evenkeel.end();
    assert_eq!(
        (end.end(), end.field("id")),
        ("killed", id.to_string().as_str())
    );
    let error = evenkeel.api().ask("DELETE", &path).expect(404);
    assert!(error["error"].as_str().unwrap().contains(&id.to_string()));
    assert_eq!(list(&evenkeel, "").len(), 4);
    for (client, serving) in &mut pairs {
        ping(client, serving);
    }
    assert_eq!(evenkeel.api().status()["ends"], json!({"killed": 1}));
}

#[test]
fn two_thousand_are_listed_at_once_and_the_data_path_goes_on() {
    let (server, greeter) = (Server::listen(), Greeter::listen(b'g'));
    let config = two_listeners(server.address(), greeter.address());
    let evenkeel = Evenkeel::start(&config);
    let addresses = evenkeel.addresses();
    let pulse = Pulse::start(addresses[1].1);
    let mut pairs = Vec::new();
    for _ in 0..MANY {
        let client = connect(addresses[0].1);
        pairs.push((client, server.accept()));
    }
    let clients: BTreeSet<_> = pairs
        .iter()
        .map(|(client, _)| client.local_addr().unwrap().to_string())
        .collect();
    for api in [evenkeel.api(), evenkeel.http()] {
        let before = pulse.beats();
        let list = api.get(&format!("{CONNECTIONS}?pool=crowd"));
        let list = list.as_array().unwrap();
        assert_eq!(list.len(), MANY);
        let ids: BTreeSet<_> = list.iter().map(|it| it["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), MANY, "each is listed once");
        let text = |it: &Value| it["client"].as_str().unwrap().to_owned();
        assert_eq!(list.iter().map(text).collect::<BTreeSet<_>>(), clients);
        assert!(pulse.beats() > before, "nothing came through meanwhile");
        assert_eq!(api.get(CONNECTIONS).as_array().unwrap().len(), MANY + 1);
    }
    pulse.goes_on();
    pulse.end();
    let (client, serving) = &mut pairs[MANY / 2];
    ping(client, serving);
    drop(pairs);
    eventually("all are gone", || list(&evenkeel, "").is_empty());
}

fn two_listeners(crowd: SocketAddr, other: SocketAddr) -> String {
    format!(
        "{BOTH}\nlisteners:\n  crowd: {{bind: \"127.0.0.1:0\", pool: crowd}}\n\
         \x20 other: {{bind: \"127.0.0.1:0\", pool: other}}\npools:\n\
         \x20 crowd: {{health: off, servers: [\"{crowd}\"]}}\n\
         \x20 other: {{health: off, servers: [\"{other}\"]}}\n"
    )
}
