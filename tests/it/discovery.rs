//! Servers that come and go: names that lead to others, services, and files with servers in them.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::dns::{Dns, NXDOMAIN, Record, Reply, SERVFAIL, addresses, at_one_port, socket};
use crate::harness::eventually;
use crate::harness::peers::Server;
use crate::harness::program::{Evenkeel, binary};
use crate::harness::servers::{Greeter, greeted, visits};

const ONE: &str = "127.7.0.1";
const TWO: &str = "127.7.0.2";
const THREE: &str = "127.7.0.3";

/// A listener `web` and a pool `web` without health checks, with lines of its own.
fn config(pool: &str) -> String {
    format!(
        "workers: 1\nlisteners:\n  web: {{bind: \"127.0.0.1:0\", pool: web}}\n\
         pools:\n  web:\n    algorithm: round_robin\n    health: off\n{pool}"
    )
}

fn with_name(server: &str) -> String {
    config(&format!("    resolve: 1s\n    servers: [\"{server}\"]\n"))
}

/// Greeters `a`, `b` and so on at one port.
fn greeters(ips: &[&str]) -> (u16, Vec<Greeter>) {
    let (port, listeners) = at_one_port(ips);
    let named = (b'a'..).zip(listeners);
    let all = named.map(|(name, listener)| Greeter::serve(name, listener));
    (port, all.collect())
}

fn pool(status: &Value) -> &Value {
    &status["pools"]["web"]
}

/// The names of the pool's servers, in its order.
fn names(status: &Value) -> Vec<String> {
    let servers = pool(status)["servers"].as_object().unwrap();
    servers.keys().cloned().collect()
}

#[track_caller]
fn await_servers(evenkeel: &Evenkeel, wanted: &[SocketAddr]) {
    let wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
    evenkeel
        .api()
        .status_where(&format!("{wanted:?}"), |status| {
            (names(status) == wanted).then_some(())
        });
}

/// Waits until the first source of the pool has `last`, and gives its reason.
#[track_caller]
fn await_source(evenkeel: &Evenkeel, last: &str) -> String {
    evenkeel.api().status_where(last, |status| {
        let source = &pool(status)["discovery"][0];
        (source["last"] == last).then(|| source["reason"].as_str().unwrap().to_owned())
    })
}

/// Who answers six visits, sorted, each once.
fn visited(address: SocketAddr) -> String {
    let mut all: Vec<char> = visits(address, 6).chars().collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter().collect()
}

fn echo(client: &mut TcpStream) {
    client.write_all(b"still here").unwrap();
    let mut answer = [0; 10];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"still here");
}

#[test]
fn each_address_of_a_name_is_a_server() {
    let dns = Dns::start();
    let (port, _greeters) = greeters(&[ONE, TWO]);
    dns.set("db.test", addresses(&[TWO, ONE]));
    let evenkeel = dns.run(&with_name(&format!("db.test:{port}")));
    assert_eq!(visited(evenkeel.address()), "ab");
    let status = evenkeel.api().status();
    assert_eq!(
        names(&status),
        [format!("{ONE}:{port}"), format!("{TWO}:{port}")]
    );
    let source = &pool(&status)["discovery"][0];
    assert_eq!(source["source"], format!("db.test:{port}"));
    assert_eq!(
        (&source["addresses"], &source["last"]),
        (&2.into(), &"ok".into())
    );
    assert_eq!(status["config"]["differs"], serde_json::json!([]));
    let plan = evenkeel.command(&["plan", "-c", evenkeel.file().to_str().unwrap()]);
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(!plan.contains("127.7.0"), "{plan}");
}

#[test]
fn addresses_come_and_go_and_connections_stay() {
    let dns = Dns::start();
    let (port, greeters) = greeters(&[ONE, TWO]);
    dns.set("db.test", addresses(&[ONE]));
    let evenkeel = dns.run(&with_name(&format!("db.test:{port}")));
    let (mut old, name) = greeted(evenkeel.address());
    assert_eq!(name, b'a');
    // Its records may be kept for an hour: `resolve` says otherwise.
    dns.set("db.test", addresses(&[ONE, TWO]));
    await_servers(&evenkeel, &[socket(ONE, port), socket(TWO, port)]);
    assert_eq!(visited(evenkeel.address()), "ab");
    evenkeel
        .errors()
        .wait_for(&format!("pool web: 1 server found ({TWO}:{port})"));
    dns.set("db.test", addresses(&[TWO]));
    await_servers(&evenkeel, &[socket(TWO, port)]);
    assert_eq!(visited(evenkeel.address()), "b");
    echo(&mut old);
    let status = evenkeel.api().status();
    assert_eq!(status["leaving"][0]["server"], format!("{ONE}:{port}"));
    drop(old);
    eventually("the last connection of the old one ends", || {
        greeters[0].active() == 0
    });
}

#[test]
fn without_a_good_answer_the_last_one_stays() {
    let dns = Dns::start();
    let (port, _greeters) = greeters(&[ONE, TWO]);
    let good = addresses(&[ONE]);
    dns.set("db.test", good.clone());
    let evenkeel = dns.run(&with_name(&format!("db.test:{port}")));
    let bad = [
        (NXDOMAIN, "there is no such name (NXDOMAIN)"),
        (SERVFAIL, "the name server failed (SERVFAIL, asked 127."),
        (Reply::Records(Vec::new()), "the name has no address"),
        (Reply::Silence, "no name server answers in time"),
        (addresses(&["0.0.0.0"]), "the name has no address"),
        (
            Reply::WrongId(vec![Record::Address(TWO.parse().unwrap())]),
            "no name server answers in time",
        ),
        (Reply::Records(vec![Record::Alias("db.test")]), ""),
    ];
    for (reply, reason) in bad {
        dns.set("db.test", reply);
        let told = await_source(&evenkeel, "failed");
        assert!(told.contains(reason), "{told}, not {reason}");
        assert_eq!(visits(evenkeel.address(), 1), "a");
        assert_eq!(
            pool(&evenkeel.api().status())["discovery"][0]["addresses"],
            1
        );
        dns.set("db.test", good.clone());
        await_source(&evenkeel, "ok");
    }
    let log = evenkeel.errors().text();
    assert_eq!(log.matches("is not found: ").count(), 7, "once each");
    assert_eq!(log.matches("is found again: 1 server").count(), 7);
    let metrics = evenkeel.api().ask("GET", "/metrics").body;
    assert!(
        !metrics.contains("evenkeel_resolutions_total{result=\"failed\"} 0\n"),
        "{metrics}"
    );
}

#[test]
fn one_family_may_fail() {
    let dns = Dns::start();
    let (port, _greeters) = greeters(&[ONE, TWO]);
    let only = |ip: &str| Reply::OnlyIpv4(vec![Record::Address(ip.parse().unwrap())], 2);
    dns.set("db.test", only(ONE));
    let evenkeel = dns.run(&with_name(&format!("db.test:{port}")));
    await_servers(&evenkeel, &[socket(ONE, port)]);
    dns.set("db.test", addresses(&[ONE, "::1"]));
    await_servers(&evenkeel, &[socket(ONE, port), socket("::1", port)]);
    dns.set("db.test", only(TWO));
    // What the other one said last is kept.
    await_servers(&evenkeel, &[socket(TWO, port), socket("::1", port)]);
}

#[test]
fn a_long_answer_comes_by_tcp_and_every_address_is_served() {
    let dns = Dns::start();
    let ips: Vec<_> = (0..500)
        .map(|n| format!("127.8.{}.{}", n / 250, n % 250 + 1))
        .collect();
    let ips: Vec<_> = ips.iter().map(String::as_str).collect();
    dns.set("db.test", addresses(&ips));
    let evenkeel = dns.run(&with_name("db.test:9"));
    assert_eq!(names(&evenkeel.api().status()).len(), 500);
    assert!(dns.asked_by_tcp() > 0);
    dns.set("db.test", addresses(&ips[..250]));
    let is_half = |status: &Value| (names(status).len() == 250).then_some(());
    evenkeel.api().status_where("250 servers", is_half);
}

#[test]
fn a_service_brings_ports_weights_and_backups() {
    let dns = Dns::start();
    let servers = [b'a', b'b', b'c'].map(Greeter::listen);
    let service = |index: usize, priority, weight| Record::Service {
        priority,
        weight,
        port: servers[index].address().port(),
        target: format!("s{index}.test"),
    };
    for name in ["s0.test", "s1.test", "s2.test"] {
        dns.set(name, addresses(&["127.0.0.1"]));
    }
    let all = |backup| Reply::Records(vec![service(0, 10, 3), service(1, 10, 1), backup]);
    dns.set("_db._tcp.test", all(service(2, 20, 0)));
    let evenkeel = dns.run(&with_name("srv:_db._tcp.test"));
    assert_eq!(visits(evenkeel.address(), 8).matches('a').count(), 6);
    let status = evenkeel.api().status();
    let of = |index: usize| pool(&status)["servers"][servers[index].address().to_string()].clone();
    assert_eq!(
        (of(0)["weight"].as_u64(), of(1)["weight"].as_u64()),
        (Some(3), Some(1))
    );
    assert_eq!(
        (&of(2)["backup"], &of(2)["weight"]),
        (&true.into(), &1.into())
    );
    // Only the weights change: the same servers.
    dns.set(
        "_db._tcp.test",
        Reply::Records(vec![service(0, 10, 1), service(1, 10, 1)]),
    );
    let name = servers[0].address().to_string();
    evenkeel.api().status_where("the new weight", |status| {
        let weight = &pool(status)["servers"][&name]["weight"];
        (*weight == 1).then_some(())
    });
    assert_eq!(visits(evenkeel.address(), 8).matches('a').count(), 4);
    dns.set("_db._tcp.test", NXDOMAIN);
    await_source(&evenkeel, "failed");
    assert_eq!(names(&evenkeel.api().status()).len(), 2);
}

#[test]
fn why_a_service_is_not_found_is_told_in_plain_words() {
    let dns = Dns::start();
    let good = |target: &str| {
        Reply::Records(vec![Record::Service {
            priority: 1,
            weight: 1,
            port: 9,
            target: target.to_owned(),
        }])
    };
    let service = "_db._tcp.test";
    dns.set(service, NXDOMAIN);
    dns.set("empty.test", Reply::Records(Vec::new()));
    dns.set("broken.test", SERVFAIL);
    let evenkeel = dns.run(&with_name(&format!("srv:{service}")));
    let record = |why: &str| format!("no SRV record for {service}: {why}");
    let target =
        |name: &str, why: &str| format!("no address for {name}, which the SRV record names: {why}");
    let cases = [
        (NXDOMAIN, record("there is no such name (NXDOMAIN)")),
        (Reply::Records(Vec::new()), record("the name has none")),
        (
            SERVFAIL,
            record("the name server failed (SERVFAIL, asked 127."),
        ),
        (
            Reply::Code(5),
            record("the name server refuses to answer (REFUSED, asked 127."),
        ),
        (
            Reply::Silence,
            record("no name server answers in time (asked 127."),
        ),
        (good("."), record("it says that there is no such service")),
        (
            good("gone.test"),
            target("gone.test", "there is no such name (NXDOMAIN)"),
        ),
        (
            good("empty.test"),
            target("empty.test", "the name has no address"),
        ),
        (
            good("broken.test"),
            target(
                "broken.test",
                "the name server failed (SERVFAIL, asked 127.",
            ),
        ),
        (
            Reply::Records(vec![Record::Alias("_db._tcp.test")]),
            record(""),
        ),
    ];
    let told = |wanted: &str| {
        evenkeel.api().status_where(wanted, |status| {
            let reason = pool(status)["discovery"][0]["reason"].as_str()?.to_owned();
            reason.contains(wanted).then_some(())
        });
    };
    for (reply, wanted) in cases {
        dns.set(service, reply);
        told(&wanted);
    }
    dns.leave_resolv_conf();
    told(&record(
        "no name server answers in time (asked 127.255.255.1)",
    ));
}

#[test]
fn it_starts_without_a_name_server_and_serves_once_there_is_one() {
    let dns = Dns::start();
    let (port, _greeters) = greeters(&[ONE]);
    dns.set("db.test", addresses(&[ONE]));
    dns.leave_resolv_conf();
    let evenkeel = dns.run(&with_name(&format!("db.test:{port}")));
    let unready = evenkeel.api().ask("GET", "/readyz");
    assert_eq!(unready.status, 503);
    assert!(
        unready.body.contains("pool web has no server"),
        "{}",
        unready.body
    );
    let mut refused = evenkeel.connect();
    assert!(!refused.read(&mut [0]).is_ok_and(|read| read > 0));
    assert_eq!(evenkeel.end().end(), "no_server");
    dns.resolv_conf("options timeout:1");
    await_servers(&evenkeel, &[socket(ONE, port)]);
    assert_eq!(visits(evenkeel.address(), 1), "a");
    assert_eq!(evenkeel.api().ask("GET", "/readyz").status, 200);
}

/// Listeners `web`, whose server is written, and `slow`, whose name nobody answers for.
fn with_a_silent_name(dns: &Dns, server: SocketAddr) -> String {
    dns.set("slow.test", Reply::Silence);
    dns.resolv_conf("options timeout:5 attempts:3");
    let web = config(&format!("    servers: [\"{server}\"]\n"));
    let slow = "  slow: {bind: \"127.0.0.1:0\", pool: slow}\npools:\n  \
                slow: {health: off, servers: [\"slow.test:9\"]}\n";
    web.replacen("pools:\n", slow, 1)
}

#[test]
fn nobody_else_waits_for_a_name_server_that_hangs() {
    let dns = Dns::start();
    let server = Greeter::listen(b'a');
    let evenkeel = dns.launch(&with_a_silent_name(&dns, server.address()));
    let log = evenkeel.errors();
    log.wait_for("waiting for the first answer of 1 source (slow.test:9)");
    log.wait_for("(listener web)");
    let addresses = evenkeel.addresses();
    let names: Vec<_> = addresses.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["web", "slow"]);
    assert_eq!(visits(addresses[0].1, 1), "a");
    let text = log.text();
    let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part}: {text}"));
    let late = place("no answer yet, going on without: 1 source (slow.test:9)");
    assert!(place("(listener web)") < late && late < place("(listener slow)"));
    let api = evenkeel.api();
    let unready = api.ask("GET", "/readyz");
    assert_eq!(unready.status, 503);
    assert!(
        unready.body.contains("pool slow has no server"),
        "{}",
        unready.body
    );
    let status = api.status();
    let source = &status["pools"]["slow"]["discovery"][0];
    assert_eq!(
        (&source["last"], &source["reason"]),
        (&"none".into(), &"no answer yet".into())
    );
    assert_eq!(status["config"]["differs"], serde_json::json!([]));
}

#[test]
fn who_is_served_while_others_wait_for_names_is_drained() {
    let dns = Dns::start();
    let server = Server::listen();
    let mut evenkeel = dns.launch(&with_a_silent_name(&dns, server.address()));
    let line = evenkeel.errors().wait_for("(listener web)");
    let address = line
        .split_whitespace()
        .find_map(|word| word.parse::<SocketAddr>().ok());
    let client = TcpStream::connect(address.unwrap()).unwrap();
    let peer = server.accept();
    evenkeel.signal("TERM");
    evenkeel.errors().wait_for("draining 1 connection for");
    drop((client, peer));
    assert!(evenkeel.exit().success());
}

#[test]
fn a_checked_pool_without_a_server_is_told_and_so_is_its_first_one() {
    let dns = Dns::start();
    let (port, _greeters) = greeters(&[ONE]);
    dns.set("db.test", addresses(&[]));
    let checked = with_name(&format!("db.test:{port}"));
    let checked = checked.replace("health: off", "health: {type: tcp, interval: 100ms}");
    let evenkeel = dns.run(&checked);
    let errors = evenkeel.errors();
    errors.wait_for("pool web has no server up: ");
    assert!(!errors.text().contains("up again"), "{}", errors.text());
    dns.set("db.test", addresses(&[ONE]));
    errors.wait_for("pool web has a server up again");
    assert_eq!(visits(evenkeel.address(), 2), "aa");
}

#[test]
fn every_algorithm_stands_an_empty_pool() {
    let algorithms = [
        "round_robin",
        "least_connections",
        "power_of_two",
        "random",
        "ip_hash",
        "least_time",
        "first",
    ];
    let dns = Dns::start();
    let (port, _greeters) = greeters(&[ONE]);
    let servers = format!("[\"db.test:{port}\"]");
    let listener = |name: &&str| format!("  {name}: {{bind: \"127.0.0.1:0\", pool: {name}}}\n");
    let pool = |name: &&str| {
        format!("  {name}: {{algorithm: {name}, health: off, resolve: 1s, servers: {servers}}}\n")
    };
    let listeners: String = algorithms.iter().map(listener).collect();
    let pools: String = algorithms.iter().map(pool).collect();
    let evenkeel = dns.run(&format!(
        "workers: 1\nlisteners:\n{listeners}pools:\n{pools}"
    ));
    for (_, address) in evenkeel.addresses() {
        let mut client = TcpStream::connect(address).unwrap();
        assert!(!client.read(&mut [0]).is_ok_and(|read| read > 0));
    }
    let asked = dns.asked();
    eventually("another round", || dns.asked() > asked);
    dns.set("db.test", addresses(&[ONE]));
    evenkeel.errors().wait_for("pool first: 1 server found");
    for (_, address) in evenkeel.addresses() {
        assert_eq!(visits(address, 1), "a");
    }
}

#[test]
fn traffic_goes_on_while_a_name_server_hangs() {
    let dns = Dns::start();
    let (port, _greeters) = greeters(&[ONE]);
    dns.set("db.test", addresses(&[ONE]));
    let evenkeel = dns.run(&with_name(&format!("db.test:{port}")));
    let address = evenkeel.address();
    dns.set("db.test", Reply::Silence);
    dns.set("other.test", Reply::Silence);
    let (over, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let both = config(&format!(
        "    resolve: 1s\n    servers: [\"db.test:{port}\", \"other.test:{port}\"]\n"
    ));
    evenkeel.rewrite(&both);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                assert_eq!(visits(address, 1), "a");
                rounds.fetch_add(1, Ordering::SeqCst);
            }
        });
        // A panic in here would leave the visitor at it for ever.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            await_source(&evenkeel, "failed");
            // Longer than a reload waits.
            dns.resolv_conf("options timeout:5 attempts:3");
            // A reload waits for names that were never asked; clients do not wait for it.
            let before = rounds.load(Ordering::SeqCst);
            evenkeel.api().ask("POST", "/api/v1/reload").expect(200);
            evenkeel
                .errors()
                .wait_for("no answer yet, going on without: 1 source (other.test:");
            assert!(rounds.load(Ordering::SeqCst) > before);
        }));
        over.store(true, Ordering::SeqCst);
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
    });
    assert_eq!(names(&evenkeel.api().status()), [format!("{ONE}:{port}")]);
}

#[test]
fn a_reload_keeps_what_is_known_and_asks_what_is_new() {
    let dns = Dns::start();
    let (port, _greeters) = greeters(&[ONE, TWO]);
    dns.set("a.test", addresses(&[ONE]));
    dns.set("b.test", addresses(&[TWO]));
    let evenkeel = dns.run(&with_name(&format!("a.test:{port}")));
    let (mut old, _) = greeted(evenkeel.address());
    dns.set("a.test", NXDOMAIN);
    await_source(&evenkeel, "failed");
    let both = config(&format!(
        "    resolve: 1s\n    retries: 3\n    servers: [\"a.test:{port}\", \"b.test:{port}\"]\n"
    ));
    evenkeel.rewrite(&both);
    let plan = evenkeel.api().ask("POST", "/api/v1/reload").expect(200);
    assert!(
        !plan.to_string().contains(&format!("{ONE}:{port} removed")),
        "{plan}"
    );
    assert_eq!(visited(evenkeel.address()), "ab");
    assert_eq!(
        evenkeel.api().status()["config"]["differs"],
        serde_json::json!([])
    );
    evenkeel.rewrite(&with_name(&format!("b.test:{port}")));
    evenkeel.api().ask("POST", "/api/v1/reload").expect(200);
    assert_eq!(visited(evenkeel.address()), "b");
    echo(&mut old);
    let asked = dns.asked();
    eventually("two rounds", || dns.asked() >= asked + 4);
}

#[test]
fn what_is_found_while_a_reload_fails_is_served() {
    let dns = Dns::start();
    let (port, _greeters) = greeters(&[ONE, TWO]);
    dns.set("a.test", addresses(&[ONE]));
    dns.set("new.test", Reply::Silence);
    dns.resolv_conf("options timeout:5 attempts:3");
    let evenkeel = dns.run(&with_name(&format!("a.test:{port}")));
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let both = config(&format!(
        "    resolve: 1s\n    servers: [\"a.test:{port}\", \"new.test:{port}\"]\n"
    ));
    let cannot = both.replace("bind: \"127.0.0.1:0\"", &format!("bind: \"{taken}\""));
    evenkeel.rewrite(&cannot);
    evenkeel.signal("HUP");
    evenkeel
        .errors()
        .wait_for("waiting for the first answer of 1 source");
    dns.set("a.test", addresses(&[TWO]));
    evenkeel.errors().wait_for("reload failed");
    await_servers(&evenkeel, &[socket(TWO, port)]);
}

#[test]
fn a_reload_that_is_taken_back_brings_found_servers_back() {
    let dns = Dns::start();
    let (port, _greeters) = greeters(&[ONE, TWO]);
    dns.set("a.test", addresses(&[ONE]));
    dns.set("b.test", addresses(&[TWO]));
    let evenkeel = dns.run(&with_name(&format!("a.test:{port}")));
    dns.set("a.test", SERVFAIL);
    await_source(&evenkeel, "failed");
    evenkeel.rewrite(&with_name(&format!("b.test:{port}")));
    let server = format!("/api/v1/pools/web/servers/{ONE}:{port}");
    let api = evenkeel.api();
    api.send("PATCH", &server, r#"{"weight": 7}"#).expect(200);
    let body = r#"{"confirm": "2s"}"#;
    api.send("POST", "/api/v1/reload", body).expect(200);
    await_servers(&evenkeel, &[socket(TWO, port)]);
    // Nobody answers for it any more, but what is known of it was kept.
    await_servers(&evenkeel, &[socket(ONE, port)]);
    assert_eq!(visits(evenkeel.address(), 2), "aa");
    let status = api.status();
    let weight = &pool(&status)["servers"][format!("{ONE}:{port}")]["weight"];
    assert_eq!(weight, 7);
}

#[test]
fn a_reload_that_cannot_be_taken_back_leaves_no_question_behind() {
    let dns = Dns::start();
    let (port, _greeters) = greeters(&[ONE, TWO]);
    dns.set("a.test", addresses(&[ONE]));
    dns.set("b.test", addresses(&[TWO]));
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("web.sock");
    let first = with_name(&format!("a.test:{port}"));
    let evenkeel = dns.run(&first.replace("127.0.0.1:0", &format!("unix:{}", path.display())));
    evenkeel.rewrite(&with_name(&format!("b.test:{port}")));
    let body = r#"{"confirm": "2s"}"#;
    let api = evenkeel.api();
    api.send("POST", "/api/v1/reload", body).expect(200);
    eventually("the socket goes with its listener", || !path.exists());
    let _holder = UnixListener::bind(&path).unwrap();
    evenkeel.errors().wait_for("cannot be taken back");
    // One may be under way.
    let rounds = |wanted: usize| {
        let before = dns.asked_for("b.test");
        eventually("rounds", || dns.asked_for("b.test") >= before + 2 * wanted);
    };
    rounds(1);
    let asked = dns.asked_for("a.test");
    rounds(3);
    assert_eq!(dns.asked_for("a.test"), asked);
    await_servers(&evenkeel, &[socket(TWO, port)]);
}

#[test]
fn a_found_server_is_checked_before_it_serves() {
    let dns = Dns::start();
    let (port, mut listeners) = at_one_port(&[ONE, TWO]);
    drop(listeners.pop());
    let _greeter = Greeter::serve(b'a', listeners.remove(0));
    dns.set("db.test", addresses(&[ONE]));
    let checked = with_name(&format!("db.test:{port}"));
    let checked = checked.replace("health: off", "health: {type: tcp, interval: 100ms}");
    let evenkeel = dns.run(&checked);
    dns.set("db.test", addresses(&[ONE, TWO]));
    await_servers(&evenkeel, &[socket(ONE, port), socket(TWO, port)]);
    assert_eq!(visits(evenkeel.address(), 4), "aaaa");
    assert!(
        evenkeel
            .access()
            .iter()
            .all(|line| line.end() == "client_closed")
    );
    let listener = TcpListener::bind(socket(TWO, port)).unwrap();
    let _late = Greeter::serve(b'b', listener);
    evenkeel
        .errors()
        .wait_for(&format!("server web/{TWO}:{port} is up"));
    eventually("the new one serves", || visited(evenkeel.address()) == "ab");
}

#[test]
fn what_an_operator_wants_of_a_found_server_stays() {
    let dns = Dns::start();
    let (port, _greeters) = greeters(&[ONE, TWO, THREE]);
    dns.set("db.test", addresses(&[ONE, TWO]));
    let evenkeel = dns.run(&with_name(&format!("db.test:{port}")));
    let path = |ip: &str| format!("/api/v1/pools/web/servers/{ip}:{port}");
    let api = evenkeel.api();
    api.send("PATCH", &path(ONE), r#"{"weight": 7}"#)
        .expect(200);
    api.send("PATCH", &path(TWO), r#"{"state": "draining"}"#)
        .expect(200);
    dns.set("db.test", addresses(&[ONE, TWO, THREE]));
    await_servers(
        &evenkeel,
        &[socket(ONE, port), socket(TWO, port), socket(THREE, port)],
    );
    let status = api.status();
    let servers = &pool(&status)["servers"];
    assert_eq!(servers[format!("{ONE}:{port}")]["weight"], 7);
    assert_eq!(servers[format!("{TWO}:{port}")]["state"], "draining");
    let differs = status["config"]["differs"].to_string();
    assert!(
        differs.contains("weight 1 -> 7") && !differs.contains(THREE),
        "{differs}"
    );
    let refused = api.ask("DELETE", &path(ONE)).expect(409);
    let why = refused["error"].as_str().unwrap();
    assert!(why.contains(&format!("comes from db.test:{port}")), "{why}");
}

#[test]
fn what_an_operator_wants_is_kept_while_a_server_is_not_found() {
    let dns = Dns::start();
    let (port, _greeters) = greeters(&[ONE, TWO, THREE]);
    let [one, two, three] = [ONE, TWO, THREE].map(|ip| socket(ip, port));
    dns.set("db.test", addresses(&[ONE, TWO, THREE]));
    let evenkeel = dns.run(&with_name(&format!("db.test:{port}")));
    let path = |server: SocketAddr| format!("/api/v1/pools/web/servers/{server}");
    let api = evenkeel.api();
    api.send("PATCH", &path(one), r#"{"weight": 7}"#)
        .expect(200);
    let maintenance = r#"{"state": "maintenance"}"#;
    api.send("PATCH", &path(two), maintenance).expect(200);
    dns.set("db.test", addresses(&[THREE]));
    await_servers(&evenkeel, &[three]);
    dns.set("db.test", addresses(&[ONE, TWO, THREE]));
    await_servers(&evenkeel, &[one, two, three]);
    let of = |server: SocketAddr| pool(&api.status())["servers"][server.to_string()].clone();
    assert_eq!(
        (&of(one)["weight"], &of(one)["state"]),
        (&7.into(), &"up".into())
    );
    assert_eq!(of(two)["state"], "maintenance");
    assert_eq!(visits(evenkeel.address(), 8).matches('b').count(), 0);
    // A reload takes weights back and nothing else, also while nobody is found.
    dns.set("db.test", addresses(&[THREE]));
    await_servers(&evenkeel, &[three]);
    api.ask("POST", "/api/v1/reload").expect(200);
    dns.set("db.test", addresses(&[ONE, TWO, THREE]));
    await_servers(&evenkeel, &[one, two, three]);
    assert_eq!(of(one)["weight"], 1);
    assert_eq!(of(two)["state"], "maintenance");
    let ready = r#"{"state": "ready"}"#;
    api.send("PATCH", &path(two), ready).expect(200);
    assert_eq!(visited(evenkeel.address()), "abc");
}

#[test]
fn a_drain_goes_on_while_its_server_is_not_found() {
    let dns = Dns::start();
    let (port, _greeters) = greeters(&[ONE, TWO]);
    let [one, two] = [ONE, TWO].map(|ip| socket(ip, port));
    dns.set("db.test", addresses(&[ONE]));
    let evenkeel = dns.run(&with_name(&format!("db.test:{port}")));
    let (mut old, _) = greeted(evenkeel.address());
    dns.set("db.test", addresses(&[ONE, TWO]));
    await_servers(&evenkeel, &[one, two]);
    let path = format!("/api/v1/pools/web/servers/{one}");
    let drain = r#"{"state": "draining", "drain": {"deadline": "1h"}}"#;
    let api = evenkeel.api();
    api.send("PATCH", &path, drain).expect(200);
    dns.set("db.test", addresses(&[TWO]));
    await_servers(&evenkeel, &[two]);
    dns.set("db.test", addresses(&[ONE, TWO]));
    await_servers(&evenkeel, &[one, two]);
    let server = pool(&api.status())["servers"][one.to_string()].clone();
    assert_eq!(server["state"], "draining");
    assert_eq!(server["drain"]["left"], 1, "{server}");
    assert_eq!(visits(evenkeel.address(), 4), "bbbb");
    echo(&mut old);
}

#[test]
fn an_address_that_is_written_as_well_is_one_server() {
    let dns = Dns::start();
    let (port, _greeters) = greeters(&[ONE, TWO]);
    dns.set("db.test", addresses(&[ONE, TWO]));
    let servers = format!(
        "    servers: [{{name: mine, address: \"{ONE}:{port}\"}}, \
         {{name: db, address: \"db.test:{port}\", max_connections: 9}}]\n"
    );
    let evenkeel = dns.run(&config(&servers));
    let status = evenkeel.api().status();
    assert_eq!(
        names(&status),
        ["mine".to_owned(), format!("db-{TWO}:{port}")]
    );
    let found = &pool(&status)["servers"][format!("db-{TWO}:{port}")];
    assert_eq!(found["max_connections"], 9);
    assert_eq!(visited(evenkeel.address()), "ab");
}

#[test]
fn a_written_server_that_is_found_as_well_cannot_be_removed() {
    let dns = Dns::start();
    let (port, _greeters) = greeters(&[ONE, TWO]);
    dns.set("db.test", addresses(&[ONE, TWO]));
    let evenkeel = dns.run(&config(&format!(
        "    resolve: 1s\n    servers: [{{name: mine, address: \"{ONE}:{port}\"}}, \"db.test:{port}\"]\n"
    )));
    let api = evenkeel.api();
    let mine = "/api/v1/pools/web/servers/mine";
    let refused = api.ask("DELETE", mine).expect(409);
    let why = refused["error"].as_str().unwrap();
    let wanted = format!("db.test:{port} brings {ONE}:{port} as well");
    assert!(
        why.contains(&wanted) && why.contains("web/mine into maintenance"),
        "{why}"
    );
    assert_eq!(visited(evenkeel.address()), "ab");
    dns.set("db.test", addresses(&[TWO]));
    let asked = dns.asked();
    eventually("two rounds", || dns.asked() >= asked + 4);
    assert_eq!(api.ask("DELETE", mine).status, 204);
    await_servers(&evenkeel, &[socket(TWO, port)]);
    dns.set("db.test", addresses(&[ONE, TWO]));
    await_servers(&evenkeel, &[socket(ONE, port), socket(TWO, port)]);
}

#[test]
fn a_removed_server_makes_way_for_one_that_was_left_out() {
    let dns = Dns::start();
    let (port, _greeters) = greeters(&[ONE, TWO, THREE]);
    dns.set("db.test", addresses(&[ONE, TWO]));
    // It has the only name that the found one could have.
    let evenkeel = dns.run(&config(&format!(
        "    servers: [{{name: \"{TWO}:{port}\", address: \"{THREE}:{port}\"}}, \"db.test:{port}\"]\n"
    )));
    evenkeel.errors().wait_for("another server has its name");
    assert_eq!(visited(evenkeel.address()), "ac");
    let path = format!("/api/v1/pools/web/servers/{TWO}:{port}");
    assert_eq!(evenkeel.api().ask("DELETE", &path).status, 204);
    assert_eq!(visited(evenkeel.address()), "ab");
}

#[test]
fn a_name_that_leads_back_to_the_pool_is_left_out() {
    let dns = Dns::start();
    let (port, listeners) = at_one_port(&[ONE, TWO]);
    let mut listeners = listeners.into_iter();
    let _greeter = Greeter::serve(b'a', listeners.next().unwrap());
    drop(listeners);
    dns.set("db.test", addresses(&[ONE, TWO]));
    let name = with_name(&format!("db.test:{port}"));
    let evenkeel = dns.run(&name.replace("127.0.0.1:0", &format!("{TWO}:{port}")));
    assert_eq!(names(&evenkeel.api().status()), [format!("{ONE}:{port}")]);
    let wanted = format!("pool web: {TWO}:{port} of db.test:{port} is left out: it leads back");
    evenkeel.errors().wait_for(&wanted);
}

#[test]
fn the_hosts_file_and_aliases_are_heeded() {
    let dns = Dns::start();
    let (port, _greeters) = greeters(&[ONE, TWO, "127.0.0.1"]);
    dns.hosts(&format!("127.0.0.1 localhost\n{ONE} db.test"));
    dns.set("db.test", addresses(&[TWO]));
    dns.set("real.test", addresses(&[TWO]));
    dns.set(
        "alias.test",
        Reply::Records(vec![Record::Alias("real.test")]),
    );
    let evenkeel = dns.run(&with_name(&format!("db.test:{port}")));
    assert_eq!(dns.asked(), 0);
    assert_eq!(visits(evenkeel.address(), 2), "aa");
    dns.hosts("");
    await_servers(&evenkeel, &[socket(TWO, port)]);
    let aliases = format!("    servers: [\"alias.test:{port}\", \"localhost:{port}\"]\n");
    dns.hosts("127.0.0.1 localhost");
    evenkeel.rewrite(&config(&aliases));
    evenkeel.api().ask("POST", "/api/v1/reload").expect(200);
    await_servers(&evenkeel, &[socket(TWO, port), socket("127.0.0.1", port)]);
}

/// A folder with a file that servers are found in.
struct File {
    folder: TempDir,
}

impl File {
    fn new(text: &str) -> Self {
        let file = Self {
            folder: TempDir::new().unwrap(),
        };
        file.write(text);
        file
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("servers.txt")
    }

    /// In place.
    fn write(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
    }

    /// By another file of the same name.
    fn replace(&self, text: &str) {
        let new = self.folder.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path()).unwrap();
    }

    fn config(&self) -> String {
        with_file(&self.path())
    }
}

fn with_file(path: &Path) -> String {
    config(&format!("    servers_file: {}\n", path.display()))
}

#[test]
fn a_servers_file_is_followed() {
    let servers = [b'a', b'b', b'c'].map(Greeter::listen);
    let [one, two, three] = [0, 1, 2].map(|index| servers[index].address());
    let file = File::new(&format!(
        "# ours\n{one}\n{two} weight=2 name=two max_connections=9\n"
    ));
    let evenkeel = Evenkeel::start(&file.config());
    let status = evenkeel.api().status();
    assert_eq!(names(&status), [one.to_string(), "two".to_owned()]);
    assert_eq!(pool(&status)["servers"]["two"]["weight"], 2);
    let (mut old, _) = greeted(evenkeel.address());
    file.write(&format!("{three}\n"));
    await_servers(&evenkeel, &[three]);
    assert_eq!(visited(evenkeel.address()), "c");
    echo(&mut old);
    file.replace(&format!("{one}\n{three} backup\n"));
    await_servers(&evenkeel, &[one, three]);
    assert_eq!(visited(evenkeel.address()), "a");
    file.replace(&format!("- {{address: \"{two}\", name: yaml}}\n"));
    let is_yaml = |status: &Value| (names(status) == ["yaml"]).then_some(());
    evenkeel.api().status_where("the server in YAML", is_yaml);
}

#[test]
fn a_broken_empty_or_missing_file_keeps_the_last_good_one() {
    let servers = [b'a', b'b'].map(Greeter::listen);
    let [one, two] = [0, 1].map(|index| servers[index].address());
    let file = File::new(&format!("{one}\n"));
    let evenkeel = Evenkeel::start(&file.config());
    file.write(&format!("{two} wieght=3\nnonsense\n"));
    assert_eq!(
        await_source(&evenkeel, "failed"),
        "there are mistakes in it, the log has them"
    );
    let place = file.path().display().to_string();
    let told = format!(
        "{place} cannot be used: {place}:1:{column}: unknown word `wieght`, write weight; \
         {place}:2:1: `nonsense`",
        column = two.to_string().len() + 2
    );
    evenkeel.errors().wait_for(&told);
    let plan = evenkeel.api().ask("POST", "/api/v1/plan").expect(200);
    let warnings: Vec<_> = plan["warnings"].as_array().unwrap().iter().collect();
    assert_eq!(warnings.len(), 3, "{plan}");
    let told = warnings[0].as_str().unwrap();
    assert!(
        told.starts_with(&format!("servers_file {place}: ")) && told.contains("mistakes"),
        "{told}"
    );
    assert!(
        warnings[2].as_str().unwrap().contains(":2:1: `nonsense`"),
        "{plan}"
    );
    file.write(&format!("{two} wieght=3\n"));
    let told = "write weight; 1 server found before stays";
    evenkeel.errors().wait_for(told);
    let log = evenkeel.errors().text();
    assert_eq!(log.matches("`wieght`").count(), 2, "once each: {log}");
    assert_eq!(visits(evenkeel.address(), 1), "a");
    let reason = |part: &str| {
        evenkeel.api().status_where(part, |status| {
            let reason = pool(status)["discovery"][0]["reason"].as_str()?.to_owned();
            reason.contains(part).then_some(())
        });
    };
    file.write("# nobody\n");
    reason("there is no server in it");
    fs::remove_file(file.path()).unwrap();
    reason("No such file");
    assert_eq!(visits(evenkeel.address(), 1), "a");
    file.write(&format!("{two}\n"));
    await_servers(&evenkeel, &[two]);
    evenkeel
        .errors()
        .wait_for(&format!("{place} can be used again: 1 server"));
    assert_eq!(await_source(&evenkeel, "ok"), "");
    assert_eq!(visits(evenkeel.address(), 1), "b");
}

#[test]
fn a_file_may_come_later() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("servers.txt");
    let evenkeel = Evenkeel::start(&with_file(&path));
    let server = Server::listen();
    fs::write(&path, format!("{}\n", server.address())).unwrap();
    await_servers(&evenkeel, &[server.address()]);
    let (_client, _server) = evenkeel.pair(&server);
}

#[test]
fn check_tells_of_files_that_are_broken_or_not_there() {
    let file = File::new("127.0.0.1:9001\n127.0.0.1:9002\n");
    let config = file.folder.path().join("evenkeel.yaml");
    fs::write(&config, file.config()).unwrap();
    let check = || {
        let mut command = Command::new(binary());
        let output = command
            .arg("check")
            .arg("-c")
            .arg(&config)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let (is_good, told) = check();
    assert!(is_good && told.contains("servers.txt: 2 servers"), "{told}");
    file.write("127.0.0.1:9001 wieght=3\nnonsense\n");
    // Each mistake stands once, however many pools use the file.
    let mut two_pools = file.config();
    two_pools.push_str(&format!(
        "  more: {{servers_file: {}}}\n",
        file.path().display()
    ));
    fs::write(&config, two_pools).unwrap();
    let (is_good, told) = check();
    assert!(
        !is_good && told.contains("servers.txt:2:1: `nonsense`"),
        "{told}"
    );
    assert_eq!(told.lines().count(), 2, "{told}");
    fs::remove_file(file.path()).unwrap();
    let (is_good, told) = check();
    assert!(
        is_good && told.contains("warning, no server from it"),
        "{told}"
    );
}
