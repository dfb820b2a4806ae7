//! Servers that fail real connections are left alone for a while, whatever health checks say.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

use crate::harness::peers::{Peer, Refusing, Server, connect};
use crate::harness::program::Evenkeel;
use crate::harness::servers::{Greeter, visits};
use crate::harness::{eventually, with_pool};

/// Accepts and closes at once, until the test's process ends.
struct Closer {
    address: SocketAddr,
    closed: Arc<AtomicUsize>,
}

impl Closer {
    fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = Arc::new(AtomicUsize::new(0));
        let (address, count) = (listener.local_addr().unwrap(), Arc::clone(&closed));
        thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                drop(stream);
            }
        });
        Self { address, closed }
    }

    fn closed(&self) -> usize {
        self.closed.load(Ordering::SeqCst)
    }
}

fn start(workers: usize, outlier: &str, servers: &[SocketAddr]) -> Evenkeel {
    let pool = format!("    algorithm: round_robin\n    outlier: {outlier}\n");
    Evenkeel::start(&with_pool(&format!("workers: {workers}"), &pool, servers))
}

fn shown(evenkeel: &Evenkeel, server: SocketAddr) -> Value {
    evenkeel.api().status()["pools"]["web"]["servers"][server.to_string()].clone()
}

/// One connection, to its end; false where no byte came.
fn is_served(evenkeel: &Evenkeel) -> bool {
    let mut client = connect(evenkeel.address());
    client.read_exact(&mut [0]).is_ok()
}

#[test]
fn a_server_that_closes_at_once_is_left_alone_and_tried_again() {
    let (bad, good) = (Closer::listen(), Greeter::listen(b'g'));
    let outlier = "{failures: 3, ejection: 2s, max_ejected_percent: 50}";
    let evenkeel = start(2, outlier, &[bad.address, good.address()]);
    eventually("it is ejected", || {
        is_served(&evenkeel);
        !shown(&evenkeel, bad.address)["ejected"].is_null()
    });
    assert_eq!(shown(&evenkeel, bad.address)["state"], "up");
    let line = format!("server web/{} is left alone for 2s", bad.address);
    evenkeel.errors().wait_for(&line);
    let metrics = evenkeel.api().ask("GET", "/metrics").body;
    let server = format!("{{pool=\"web\",server=\"{}\"}}", bad.address);
    assert!(metrics.contains(&format!("evenkeel_server_ejections_total{server} 1")));
    let before = bad.closed();
    eventually("it is tried again", || {
        is_served(&evenkeel);
        bad.closed() > before
    });
    evenkeel.errors().wait_for("is let in again");
}

#[test]
fn all_workers_leave_an_ejected_server_alone() {
    let (bad, good) = (Closer::listen(), Greeter::listen(b'g'));
    let evenkeel = start(
        2,
        "{failures: 3, ejection: 1h}",
        &[bad.address, good.address()],
    );
    eventually("it is ejected", || {
        is_served(&evenkeel);
        !shown(&evenkeel, bad.address)["ejected"].is_null()
    });
    // Connections go to both workers; those which were picked before have ended.
    assert_eq!(visits(evenkeel.address(), 40), "g".repeat(40));
}

#[test]
fn refused_connects_count_and_a_reload_without_the_rule_lets_everybody_in() {
    let (port, good) = (Refusing::new(), Greeter::listen(b'g'));
    let servers = [port.address(), good.address()];
    let evenkeel = start(1, "{failures: 2, ejection: 1h}", &servers);
    let address = evenkeel.address();
    assert_eq!(
        visits(address, 10),
        "g".repeat(10),
        "the other one is tried"
    );
    let ejected = shown(&evenkeel, port.address());
    assert!(ejected["ejected"]["until_seconds"].as_f64().unwrap() > 3000.0);
    assert_eq!(ejected["connections"]["failed"], 2);
    let _server = Greeter::serve(b'p', port.listen());
    assert_eq!(visits(address, 4), "gggg");

    let pool = "    algorithm: round_robin\n";
    let without = with_pool("workers: 1", pool, &servers);
    evenkeel.rewrite(&without.replace("127.0.0.1:0", &address.to_string()));
    assert!(evenkeel.command(&["reload"]).status.success());
    assert!(visits(address, 4).contains("p"));
    assert!(shown(&evenkeel, port.address())["ejected"].is_null());
}

#[test]
fn the_only_server_is_never_ejected_nor_more_than_allowed() {
    let bad = Closer::listen();
    let evenkeel = start(2, "{failures: 1, max_ejected_percent: 100}", &[bad.address]);
    (0..20).for_each(|_| assert!(!is_served(&evenkeel)));
    evenkeel.ends(20);
    assert!(shown(&evenkeel, bad.address)["ejected"].is_null());

    let bad = [Closer::listen(), Closer::listen(), Closer::listen()];
    let addresses = bad.each_ref().map(|closer| closer.address);
    let evenkeel = start(
        2,
        "{failures: 1, ejection: 1h, max_ejected_percent: 67}",
        &addresses,
    );
    (0..40).for_each(|_| assert!(!is_served(&evenkeel)));
    evenkeel.ends(40);
    let is_out = |address: &&SocketAddr| !shown(&evenkeel, **address)["ejected"].is_null();
    assert_eq!(addresses.iter().filter(is_out).count(), 2);
}

#[test]
fn clients_that_end_first_say_nothing_of_the_server() {
    let servers = [Server::listen(), Server::listen()];
    let addresses = servers.each_ref().map(Server::address);
    let evenkeel = start(1, "{failures: 1, ejection: 1h}", &addresses);
    for server in servers.iter().cycle().take(6) {
        let (client, mut serving) = evenkeel.pair(server);
        client.end();
        serving.expect_fin();
    }
    assert!(
        evenkeel
            .ends(6)
            .iter()
            .all(|end| end.end() == "client_closed")
    );
    let is_in = |address: &SocketAddr| shown(&evenkeel, *address)["ejected"].is_null();
    assert!(addresses.iter().all(is_in));
}
