//! Reload: a file is applied at once or not at all, and no connection notices.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::harness::eventually;
use crate::harness::peers::{Peer, Refusing, Server};
use crate::harness::program::{Evenkeel, is_listening};
use crate::harness::servers::{Greeter, greeted, visits};

/// Connections that live through all reloads.
const LIVE: usize = 200;
const RELOADS: u32 = 20;
/// Reloads after which memory counts: tables have their size by then.
const WARM_UP: usize = 5;
/// What the allocator may keep of twenty reloads under load.
const GROWTH_KIB: u64 = 4096;

/// A listener `web` at `bind` with further lines, and a pool `web` with lines of its own.
fn config(bind: &str, pool: &str, servers: &[SocketAddr]) -> String {
    let list: String = servers.iter().map(|s| format!("      - {s}\n")).collect();
    format!(
        "workers: 2\nlisteners:\n  web: {{bind: \"{bind}\", pool: web}}\n\
         pools:\n  web:\n{pool}    servers:\n{list}"
    )
}

const UNCHECKED: &str = "    health: off\n";
const ANY: &str = "127.0.0.1:0";

fn reload(evenkeel: &Evenkeel, config: &str) -> Value {
    evenkeel.rewrite(config);
    evenkeel.api().ask("POST", "/api/v1/reload").expect(200)
}

/// Each sends its number and the round's, and reads them back.
fn exchange(live: &mut [TcpStream], round: u32) {
    let message = |number: usize| format!("{number:08}{round:08}");
    for (number, stream) in live.iter_mut().enumerate() {
        stream.write_all(message(number).as_bytes()).unwrap();
    }
    for (number, stream) in live.iter_mut().enumerate() {
        let mut answer = [0; 16];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *message(number).as_bytes());
    }
}

/// One of many configs: servers, weights, algorithm, timeouts and a second listener come and go.
fn variant(round: u32, servers: &[SocketAddr]) -> String {
    let mut list = format!("      - {{name: kept, address: {}}}\n", servers[0]);
    for (number, server) in servers.iter().enumerate().skip(1) {
        if (round >> (number - 1)) & 1 == 0 {
            let weight = 1 + round % 3;
            list += &format!("      - {{name: s{number}, address: {server}, weight: {weight}}}\n");
        }
    }
    let algorithm = ["round_robin", "least_connections", "ip_hash", "random"][round as usize % 4];
    let second = match round % 2 {
        0 => "",
        _ => "  second: {bind: \"127.0.0.1:0\", pool: web}\n",
    };
    format!(
        "workers: 2\nlisteners:\n  web: {{bind: \"{ANY}\", pool: web, idle_timeout: {}m}}\n{second}\
         pools:\n  web:\n    algorithm: {algorithm}\n    health: {{type: tcp, interval: 1s}}\n    \
         servers:\n{list}",
        10 + round % 2
    )
}

#[test]
fn twenty_reloads_under_load_lose_nobody_and_refuse_nobody() {
    let greeters: Vec<_> = (b'a'..b'e').map(Greeter::listen).collect();
    let servers: Vec<_> = greeters.iter().map(Greeter::address).collect();
    let evenkeel = Evenkeel::start(&variant(0, &servers));
    let address = evenkeel.address();
    let mut live: Vec<_> = (0..LIVE).map(|_| greeted(address).0).collect();
    let (stop, visited) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut memory = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                visits(address, 1);
                visited.fetch_add(1, Ordering::SeqCst);
            }
        });
        let body = std::panic::AssertUnwindSafe(|| {
            for round in 1..=RELOADS {
                let before = visited.load(Ordering::SeqCst);
                reload(&evenkeel, &variant(round, &servers));
                exchange(&mut live, round);
                let has_visits = || visited.load(Ordering::SeqCst) > before + 2;
                eventually("new connections go on", has_visits);
                memory.push(evenkeel.proc().resident_kib());
            }
        });
        let outcome = std::panic::catch_unwind(body);
        stop.store(true, Ordering::SeqCst);
        outcome.unwrap();
    });
    let holding = evenkeel.proc().descriptors().len();
    for stream in &mut live {
        stream.end();
        stream.expect_fin();
    }
    // Two sockets a connection are gone, and nothing else was left behind.
    eventually("descriptors return", || {
        evenkeel.proc().descriptors().len() + 2 * LIVE <= holding
    });
    let grown = evenkeel
        .proc()
        .resident_kib()
        .saturating_sub(memory[WARM_UP]);
    assert!(grown < GROWTH_KIB, "{grown} KiB");
    let status = evenkeel.api().status();
    assert_eq!(status["connections"]["refused"], 0);
    let ends = status["ends"].as_object().unwrap();
    let other: Vec<_> = ends
        .iter()
        .filter(|(end, count)| *end != "client_closed" && **count != 0)
        .collect();
    assert!(other.is_empty(), "{other:?}");
}

#[test]
fn a_bad_file_leaves_everything_as_it_was_and_says_what_is_wrong() {
    let greeter = Greeter::listen(b'a');
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let good = config(ANY, UNCHECKED, &[greeter.address()]);
    let evenkeel = Evenkeel::start(&good);
    let (mut client, _) = greeted(evenkeel.address());
    let before = evenkeel.api().status();
    let other = config(ANY, UNCHECKED, &["127.0.0.1:9".parse().unwrap()]);
    let taken = taken.local_addr().unwrap().to_string();
    let bad = [
        ("", "the key listeners is missing"),
        ("listeners: [", "evenkeel.yaml:"),
        (&*other.replace("pool: web}", "pool: wbe}"), "wbe"),
        (&*other.replace("workers", "wrokers"), "wrokers"),
        (
            &*config(&taken, UNCHECKED, &[greeter.address()]),
            "cannot bind",
        ),
        (
            &*format!("max_connections: 4000000000\n{other}"),
            "max_connections",
        ),
    ];
    for (text, part) in bad {
        evenkeel.rewrite(text);
        let answer = evenkeel.api().ask("POST", "/api/v1/reload");
        let error = answer.expect(400)["error"].as_str().unwrap().to_owned();
        assert!(error.contains(part), "{part}: {error}");
        let now = evenkeel.api().status();
        assert_eq!(now["config"], before["config"], "after {text}");
        let bind = |status: &Value| status["listeners"]["web"]["bind"].clone();
        assert_eq!(bind(&now), bind(&before), "after {text}");
        assert_eq!(now["pools"]["web"]["servers"].as_object().unwrap().len(), 1);
        client.write_all(b"still there").unwrap();
        client.expect(b"still there");
        assert_eq!(visits(evenkeel.address(), 1), "a");
    }
    fs::remove_file(evenkeel.file()).unwrap();
    evenkeel.api().ask("POST", "/api/v1/reload").expect(400);
    reload(&evenkeel, &good);
    assert_eq!(visits(evenkeel.address(), 1), "a");
}

#[test]
fn sighup_reloads_and_tells_the_log() {
    let (a, b) = (Greeter::listen(b'a'), Greeter::listen(b'b'));
    let evenkeel = Evenkeel::start(&config(ANY, UNCHECKED, &[a.address()]));
    evenkeel.rewrite(&config(ANY, UNCHECKED, &[b.address()]));
    evenkeel.signal("HUP");
    evenkeel.errors().wait_for("reloaded ");
    assert_eq!(visits(evenkeel.address(), 2), "bb");
    evenkeel.rewrite("listeners: 7");
    evenkeel.signal("HUP");
    let line = evenkeel.errors().wait_for("reload failed");
    assert!(line.contains("the key pools is missing"), "{line}");
    assert_eq!(visits(evenkeel.address(), 2), "bb");
}

#[test]
fn a_removed_server_keeps_its_connections_and_gets_no_new_one() {
    let (a, b) = (Greeter::listen(b'a'), Greeter::listen(b'b'));
    let evenkeel = Evenkeel::start(&config(ANY, UNCHECKED, &[a.address()]));
    let (mut old, _) = greeted(evenkeel.address());
    reload(&evenkeel, &config(ANY, UNCHECKED, &[b.address()]));
    assert_eq!(visits(evenkeel.address(), 5), "bbbbb");
    old.write_all(b"old").unwrap();
    old.expect(b"old");
    let leaving = evenkeel.api().status()["leaving"].clone();
    assert_eq!(leaving[0]["server"], a.address().to_string());
    assert_eq!(leaving[0]["connections"]["active"], 1);
    old.end();
    old.expect_fin();
    evenkeel.api().status_where("the last one left", |status| {
        status["leaving"].as_array()?.is_empty().then_some(())
    });
    let lines = evenkeel.ends(6);
    let line = lines
        .iter()
        .find(|line| line.field("server") == a.address().to_string());
    assert_eq!(line.unwrap().field("pool"), "web");
}

#[test]
fn a_removed_listener_frees_its_port_and_keeps_its_connections() {
    let greeter = Greeter::listen(b'a');
    let two = format!(
        "listeners:\n  web: {{bind: \"{ANY}\", pool: web}}\n  gone: {{bind: \"{ANY}\", pool: web}}\n\
         pools:\n  web: {{health: off, servers: [\"{}\"]}}\n",
        greeter.address()
    );
    let evenkeel = Evenkeel::start(&two);
    let addresses = evenkeel.addresses();
    let (mut old, _) = greeted(addresses[1].1);
    reload(&evenkeel, &config(ANY, UNCHECKED, &[greeter.address()]));
    assert!(
        !is_listening(addresses[1].1),
        "the answer comes when it is done"
    );
    drop(TcpListener::bind(addresses[1].1).unwrap());
    assert!(is_listening(addresses[0].1));
    old.write_all(b"old").unwrap();
    old.expect(b"old");
    assert_eq!(visits(addresses[0].1, 1), "a");
}

#[test]
fn a_pool_whose_servers_are_all_replaced_refuses_nobody_meanwhile() {
    let (a, b) = (Greeter::listen(b'a'), Greeter::listen(b'b'));
    let checked = "    health: {type: tcp, interval: 10s, timeout: 1s}\n";
    let evenkeel = Evenkeel::start(&config(ANY, checked, &[a.address()]));
    let address = evenkeel.address();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                visits(address, 1);
            }
        });
        for round in 0..10 {
            let server = if round % 2 == 0 { &b } else { &a };
            reload(&evenkeel, &config(ANY, checked, &[server.address()]));
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert_eq!(evenkeel.api().status()["connections"]["refused"], 0);
}

#[test]
fn an_address_that_moves_to_another_listener_keeps_its_socket() {
    let greeter = Greeter::listen(b'a');
    let free = Refusing::new();
    let bind = free.address().to_string();
    drop(free);
    let evenkeel = Evenkeel::start(&config(&bind, UNCHECKED, &[greeter.address()]));
    let sockets = evenkeel.proc().tcp_sockets();
    let renamed = config(&bind, UNCHECKED, &[greeter.address()]).replace("  web: {b", "  shop: {b");
    reload(&evenkeel, &renamed);
    assert_eq!(evenkeel.proc().tcp_sockets(), sockets);
    assert_eq!(visits(evenkeel.address(), 1), "a");
    let status = evenkeel.api().status();
    assert_eq!(status["listeners"]["shop"]["connections"]["total"], 1);
    assert!(status["listeners"]["web"].is_null());
}

#[test]
fn counts_and_verdicts_carry_over() {
    let greeter = Greeter::listen(b'a');
    let dead = Refusing::new();
    let servers = [greeter.address(), dead.address()];
    let pool = "    health: {type: tcp, interval: 1h, fall: 1}\n";
    let evenkeel = Evenkeel::start(&config(ANY, pool, &servers));
    visits(evenkeel.address(), 3);
    let line = "    health: {type: tcp, interval: 1h, fall: 1}\n    retries: 1\n";
    reload(&evenkeel, &config(ANY, line, &servers));
    let servers = evenkeel.api().status()["pools"]["web"]["servers"].clone();
    let of = |address: SocketAddr| servers[&address.to_string()].clone();
    assert_eq!(of(greeter.address())["connections"]["total"], 3);
    assert_eq!(of(greeter.address())["state"], "up");
    assert_eq!(of(dead.address())["state"], "down");
}

#[test]
fn a_plan_says_what_would_change_and_whom_it_touches() {
    let (a, b) = (Greeter::listen(b'a'), Greeter::listen(b'b'));
    let evenkeel = Evenkeel::start(&config(ANY, UNCHECKED, &[a.address()]));
    let _clients = [greeted(evenkeel.address()), greeted(evenkeel.address())];
    evenkeel.rewrite(&config(ANY, UNCHECKED, &[b.address()]).replace("workers: 2", "workers: 1"));
    let plan = evenkeel.api().ask("POST", "/api/v1/plan").expect(200);
    let changes = plan["changes"].as_array().unwrap();
    let of = |address: SocketAddr| {
        let text = address.to_string();
        let mut found = changes
            .iter()
            .filter(|c| c["text"].as_str().unwrap().contains(&text));
        found.next().cloned().unwrap_or_else(|| panic!("{plan}"))
    };
    assert_eq!(of(a.address())["connections"], 2);
    assert_eq!(of(b.address())["connections"], 0);
    assert_eq!(plan["restart"].as_array().unwrap().len(), 1, "{plan}");
    assert_eq!(visits(evenkeel.address(), 1), "a", "nothing was applied");
}

#[test]
fn a_reload_that_nobody_confirms_is_taken_back() {
    let (a, b) = (Greeter::listen(b'a'), Greeter::listen(b'b'));
    let evenkeel = Evenkeel::start(&config(ANY, UNCHECKED, &[a.address()]));
    evenkeel.rewrite(&config(ANY, UNCHECKED, &[b.address()]));
    let ask = |confirm: &str| {
        let body = format!("{{\"confirm\":\"{confirm}\"}}");
        evenkeel.api().send("POST", "/api/v1/reload", &body)
    };
    ask("1s").expect(200);
    ask("1s").expect(409);
    evenkeel
        .errors()
        .wait_for("not confirmed and is taken back");
    assert_eq!(visits(evenkeel.address(), 2), "aa");
    ask("1h").expect(200);
    evenkeel.api().ask("POST", "/api/v1/reload").expect(200);
    evenkeel
        .errors()
        .wait_for("the reload that awaited its confirmation stays");
    ask("1h").expect(200);
    evenkeel.api().ask("POST", "/api/v1/confirm").expect(200);
    evenkeel.api().ask("POST", "/api/v1/confirm").expect(409);
    assert_eq!(
        evenkeel.api().status()["config"]["confirm_seconds"],
        Value::Null
    );
    assert_eq!(visits(evenkeel.address(), 2), "bb");
}

#[test]
fn what_the_api_changed_shows_as_a_difference_until_the_next_reload() {
    let (a, b) = (Greeter::listen(b'a'), Greeter::listen(b'b'));
    let file = config(ANY, UNCHECKED, &[a.address(), b.address()]);
    let evenkeel = Evenkeel::start(&file);
    let path = format!("/api/v1/pools/web/servers/{}", a.address());
    evenkeel
        .api()
        .send("PATCH", &path, r#"{"weight":3}"#)
        .expect(200);
    let differs = evenkeel.api().status()["config"]["differs"].clone();
    let line = differs[0].as_str().unwrap();
    assert!(line.contains("weight 1 -> 3"), "{line}");
    evenkeel
        .api()
        .send("PATCH", &path, r#"{"state":"draining"}"#)
        .expect(200);
    reload(&evenkeel, &file);
    let status = evenkeel.api().status();
    assert_eq!(status["config"]["differs"].as_array().unwrap().len(), 0);
    let server = &status["pools"]["web"]["servers"][&a.address().to_string()];
    assert_eq!(server["weight"], 1, "the file says so");
    assert_eq!(server["state"], "draining", "the file does not say");
}

#[test]
fn a_thousand_pools_are_applied_and_clients_do_not_notice() {
    let greeter = Greeter::listen(b'a');
    let large = |weight: u32| {
        let mut text = config(ANY, UNCHECKED, &[greeter.address()]);
        for pool in 0..1000 {
            text += &format!("  p{pool}:\n    health: off\n    servers:\n");
            for server in 0..10 {
                let (high, low) = (pool / 250, pool % 250);
                text += &format!(
                    "      - {{address: \"127.{high}.{low}.{}:9\", weight: {weight}}}\n",
                    server + 1
                );
            }
        }
        text
    };
    let evenkeel = Evenkeel::start(&large(1));
    let (mut client, _) = greeted(evenkeel.address());
    let plan = reload(&evenkeel, &large(2));
    assert_eq!(plan["changes"].as_array().unwrap().len(), 10_000);
    client.write_all(b"hello").unwrap();
    client.expect(b"hello");
    let pools = evenkeel.api().status()["pools"].clone();
    assert_eq!(pools.as_object().unwrap().len(), 1001);
    assert_eq!(visits(evenkeel.address(), 1), "a");
}

#[test]
fn a_reload_while_the_listener_is_busy_accepts_all_who_wait_at_a_closing_door() {
    let server = Server::listen();
    let two = format!(
        "workers: 1\nlisteners:\n  web: {{bind: \"{ANY}\", pool: web}}\n  \
         gone: {{bind: \"{ANY}\", pool: web}}\n\
         pools:\n  web: {{health: off, servers: [\"{}\"]}}\n",
        server.address()
    );
    let evenkeel = Evenkeel::start(&two);
    let gone = evenkeel.addresses()[1].1;
    let clients: Vec<_> = (0..50).map(|_| TcpStream::connect(gone).unwrap()).collect();
    reload(&evenkeel, &config(ANY, UNCHECKED, &[server.address()]));
    for mut client in clients {
        client.write_all(b"x").unwrap();
        let mut answering = server.accept();
        answering.expect(b"x");
    }
}

#[test]
fn a_pipe_is_no_file_to_reload_and_holds_nothing_up() {
    let greeter = Greeter::listen(b'a');
    let evenkeel = Evenkeel::start(&config(ANY, UNCHECKED, &[greeter.address()]));
    let pipe = evenkeel.file().with_file_name("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let body = serde_json::json!({ "file": &pipe }).to_string();
    let answer = evenkeel.api().send("POST", "/api/v1/reload", &body);
    let error = answer.expect(400)["error"].to_string();
    assert!(error.contains("no ordinary file"), "{error}");
    reload(&evenkeel, &config(ANY, UNCHECKED, &[greeter.address()]));
}

#[test]
fn an_address_that_is_lost_at_the_last_moment_leaves_everything_as_it_was() {
    let greeter = Greeter::listen(b'a');
    let checked = "    health: {type: tcp, interval: 100ms}\n";
    let evenkeel = Evenkeel::start(&config(ANY, checked, &[greeter.address()]));
    // Another program has bound the address, too, and listens while a first check is awaited.
    let other = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    other.set_reuse_address(true).unwrap();
    let any: SocketAddr = ANY.parse().unwrap();
    other.bind(&any.into()).unwrap();
    let contested = other.local_addr().unwrap().as_socket().unwrap();
    let silent = TcpListener::bind(any).unwrap();
    let unanswered = "    health: {type: http, path: /, interval: 100ms, timeout: 2s, fall: 1}\n";
    let late = format!(
        "  late: {{bind: \"{contested}\", pool: late}}\npools:\n  late:\n{unanswered}    \
         servers: [\"{}\"]\n",
        silent.local_addr().unwrap()
    );
    let wanted = config(ANY, unanswered, &[greeter.address()]).replace("pools:\n", &late);
    evenkeel.rewrite(&wanted);
    let answer = thread::scope(|scope| {
        let answer = scope.spawn(|| evenkeel.api().ask("POST", "/api/v1/reload"));
        let check = silent.accept().unwrap();
        other.listen(1).unwrap();
        let answer = answer.join().unwrap();
        drop(check);
        answer
    });
    let error = answer.expect(400)["error"].to_string();
    assert!(error.contains("listen"), "{error}");
    // The greeter does not speak HTTP: checked as the new file wants it, it would be down.
    assert_eq!(visits(evenkeel.address(), 4), "aaaa");
    let state =
        evenkeel.api().status()["pools"]["web"]["servers"][greeter.address().to_string()]["state"]
            .clone();
    assert_eq!(state, "up");
    drop(other);
    let wanted = wanted.replacen(unanswered, UNCHECKED, 2);
    reload(&evenkeel, &wanted);
    assert!(is_listening(contested));
}
