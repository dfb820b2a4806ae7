//! Upgrade to a file that has changed: as with a reload, what is gone from it drains, what is new is
//! opened, and the number of workers may be another one, which a reload cannot do.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::Value;

use crate::harness::eventually;
use crate::harness::load::{Echo, Load, Visitors};
use crate::harness::peers::{Peer, Refusing, Server, connect};
use crate::harness::program::{Evenkeel, is_listening};
use crate::harness::servers::{Greeter, greeted, greeting, visits};

/// Listeners as (name, port or address, pool), and pools as (name, servers).
fn config(
    workers: usize,
    listeners: &[(&str, &str, &str)],
    pools: &[(&str, &[SocketAddr])],
) -> String {
    let listeners: String = listeners
        .iter()
        .map(|(name, bind, pool)| format!("  {name}: {{bind: \"{bind}\", pool: {pool}}}\n"))
        .collect();
    let list = |servers: &[SocketAddr]| {
        let servers: Vec<_> = servers.iter().map(|it| format!("\"{it}\"")).collect();
        servers.join(", ")
    };
    let pools: String = pools
        .iter()
        .map(|(name, servers)| format!("  {name}: {{health: off, servers: [{}]}}\n", list(servers)))
        .collect();
    format!("workers: {workers}\nlisteners:\n{listeners}pools:\n{pools}")
}

const ANY: &str = "127.0.0.1:0";

fn echo(stream: &mut TcpStream) {
    stream.write_all(b"still there").unwrap();
    stream.expect(b"still there");
}

fn rewrite_and_upgrade(evenkeel: &Evenkeel, config: &str) {
    evenkeel.rewrite(config);
    evenkeel.upgrade();
}

fn of<'a>(addresses: &'a [(String, SocketAddr)], name: &str) -> &'a SocketAddr {
    let found = addresses.iter().find(|(other, _)| other == name);
    &found
        .unwrap_or_else(|| panic!("no listener {name} in {addresses:?}"))
        .1
}

#[test]
fn a_server_that_is_gone_keeps_its_connections_until_they_end() {
    let (a, b) = (Greeter::listen(b'a'), Greeter::listen(b'b'));
    let web = [("web", ANY, "web")];
    let evenkeel = Evenkeel::start(&config(2, &web, &[("web", &[a.address()])]));
    let mut held: Vec<_> = (0..3).map(|_| greeted(evenkeel.address()).0).collect();
    rewrite_and_upgrade(&evenkeel, &config(2, &web, &[("web", &[b.address()])]));
    assert_eq!(visits(evenkeel.address(), 4), "bbbb");
    held.iter_mut().for_each(echo);
    let leaving = || evenkeel.api().status()["leaving"].clone();
    assert_eq!(leaving()[0]["server"], a.address().to_string());
    assert_eq!(leaving()[0]["connections"]["active"], 3);
    // It leaves in the next process as well.
    evenkeel.upgrade();
    assert_eq!(leaving()[0]["connections"]["active"], 3);
    held.iter_mut().for_each(echo);
    for client in &mut held {
        client.end();
        client.expect_fin();
    }
    eventually("the last one left", || {
        leaving().as_array().is_some_and(Vec::is_empty)
    });
    let ends = evenkeel.ends(7);
    let of_a = ends
        .iter()
        .filter(|end| end.field("server") == a.address().to_string());
    assert_eq!(of_a.count(), 3);
}

#[test]
fn a_listener_that_is_gone_keeps_its_connections_and_frees_its_port() {
    let server = Greeter::listen(b's');
    let pools: [(&str, &[SocketAddr]); 1] = [("web", &[server.address()])];
    let both = [("web", ANY, "web"), ("gone", ANY, "web")];
    let evenkeel = Evenkeel::start(&config(2, &both, &pools));
    let addresses = evenkeel.addresses();
    let (web, gone) = (*of(&addresses, "web"), *of(&addresses, "gone"));
    let (mut held, _) = greeted(gone);
    rewrite_and_upgrade(&evenkeel, &config(2, &both[..1], &pools));
    eventually("its port is closed", || !is_listening(gone));
    drop(TcpListener::bind(gone).unwrap());
    assert_eq!(visits(web, 2), "ss");
    echo(&mut held);
    evenkeel.upgrade();
    echo(&mut held);
    held.end();
    held.expect_fin();
    let ends = evenkeel.ends(3);
    assert_eq!(
        ends.iter()
            .filter(|end| end.field("listener") == "gone")
            .count(),
        1
    );
}

#[test]
fn a_listener_that_is_new_is_opened() {
    let server = Greeter::listen(b's');
    let pools: [(&str, &[SocketAddr]); 1] = [("web", &[server.address()])];
    let free = Refusing::new();
    let new = free.address();
    drop(free);
    let evenkeel = Evenkeel::start(&config(2, &[("web", ANY, "web")], &pools));
    let web = evenkeel.address();
    let (mut held, _) = greeted(web);
    let both = [("web", ANY, "web"), ("new", &new.to_string(), "web")];
    rewrite_and_upgrade(&evenkeel, &config(2, &both, &pools));
    assert_eq!(visits(new, 2), "ss");
    assert_eq!(visits(web, 2), "ss");
    echo(&mut held);
}

#[test]
fn a_pool_that_is_gone_keeps_its_connections() {
    let (a, b) = (Greeter::listen(b'a'), Greeter::listen(b'b'));
    let pools: [(&str, &[SocketAddr]); 2] = [("old", &[a.address()]), ("new", &[b.address()])];
    let evenkeel = Evenkeel::start(&config(2, &[("web", ANY, "old")], &pools[..1]));
    let (mut held, _) = greeted(evenkeel.address());
    let next = config(2, &[("web", ANY, "new")], &pools[1..]);
    rewrite_and_upgrade(&evenkeel, &next);
    assert_eq!(visits(evenkeel.address(), 2), "bb");
    echo(&mut held);
    let status = evenkeel.api().status();
    assert!(status["pools"]["old"].is_null());
    let list = evenkeel.api().get("/api/v1/connections");
    assert_eq!(list[0]["pool"], "old");
    evenkeel.upgrade();
    echo(&mut held);
    held.end();
    held.expect_fin();
    let ends = evenkeel.ends(3);
    assert_eq!(
        ends.iter().filter(|end| end.field("pool") == "old").count(),
        1
    );
}

#[test]
fn those_who_wait_for_a_pool_that_is_gone_are_told_so() {
    let server = Refusing::new();
    let pool = |name: &str| {
        format!(
            "workers: 2\nlisteners:\n  web: {{bind: \"{ANY}\", pool: {name}}}\npools:\n  {name}: {{queue: \
             {{limit: 5, timeout: 1m}}, servers: [\"{}\"]}}\n",
            server.address()
        )
    };
    let evenkeel = Evenkeel::start(&pool("old"));
    let mut waiting = evenkeel.connect();
    eventually("it waits", || {
        evenkeel.api().status()["pools"]["old"]["queue"]["waiting"] == 1
    });
    rewrite_and_upgrade(&evenkeel, &pool("new"));
    waiting.expect_reset();
    assert_eq!(evenkeel.end().end(), "no_server");
}

#[test]
fn a_server_may_have_another_address_under_its_name() {
    let (a, b) = (Greeter::listen(b'a'), Greeter::listen(b'b'));
    let named = |address: SocketAddr| {
        format!(
            "workers: 1\nlisteners:\n  web: {{bind: \"{ANY}\", pool: web}}\npools:\n  web: {{health: \
             off, servers: [{{name: one, address: \"{address}\"}}]}}\n"
        )
    };
    let evenkeel = Evenkeel::start(&named(a.address()));
    let (mut held, _) = greeted(evenkeel.address());
    rewrite_and_upgrade(&evenkeel, &named(b.address()));
    assert_eq!(visits(evenkeel.address(), 2), "bb");
    echo(&mut held);
    held.end();
    held.expect_fin();
    let total = || evenkeel.api().status()["pools"]["web"]["servers"]["one"]["connections"].clone();
    eventually("nobody is left", || total()["active"] == 0);
}

#[test]
fn an_address_may_move_to_another_listener() {
    let server = Greeter::listen(b's');
    let pools: [(&str, &[SocketAddr]); 1] = [("web", &[server.address()])];
    let free = Refusing::new();
    let bind = free.address().to_string();
    drop(free);
    let evenkeel = Evenkeel::start(&config(2, &[("web", &bind, "web")], &pools));
    let address = evenkeel.address();
    let (mut held, _) = greeted(address);
    rewrite_and_upgrade(&evenkeel, &config(2, &[("shop", &bind, "web")], &pools));
    assert_eq!(visits(address, 1), "s");
    echo(&mut held);
    let status = evenkeel.api().status();
    assert_eq!(status["listeners"]["shop"]["connections"]["total"], 1);
    assert!(status["listeners"]["web"].is_null());
}

#[test]
fn the_number_of_workers_may_change_under_load() {
    let echo = Echo::listen();
    let web = [("web", ANY, "web")];
    let with = |workers| config(workers, &web, &[("web", &[echo.address()])]);
    let evenkeel = Evenkeel::start(&with(2));
    let load = Load::start(evenkeel.address(), 100);
    let visitors = Visitors::start(evenkeel.address());
    for workers in [1, 3, 2, 2] {
        rewrite_and_upgrade(&evenkeel, &with(workers));
        assert_eq!(evenkeel.api().status()["workers"], workers);
        load.goes_on();
        visitors.go_on();
    }
    let visited = visitors.end();
    let report = load.end();
    assert_eq!((report.lost, report.wrong), (vec![], vec![]));
    let all = 100 + visited;
    evenkeel.ends(usize::try_from(all).unwrap());
    let counts = evenkeel.api().status()["listeners"]["web"]["connections"].clone();
    assert_eq!(
        (&counts["total"], &counts["active"]),
        (&Value::from(all), &Value::from(0))
    );
}

#[test]
fn clients_that_knocked_at_a_worker_that_is_gone_are_let_in() {
    let server = Server::listen();
    let web = [("web", ANY, "web")];
    let with = |workers| config(workers, &web, &[("web", &[server.address()])]);
    let evenkeel = Evenkeel::start(&with(3));
    let address = evenkeel.address();
    let mut clients = std::thread::scope(|scope| {
        evenkeel.rewrite(&with(1));
        let upgrade = scope.spawn(|| evenkeel.upgrade());
        let mut clients = Vec::new();
        while !upgrade.is_finished() {
            clients.push(connect(address));
            crate::harness::pause(std::time::Duration::from_millis(1));
        }
        upgrade.join().unwrap();
        clients
    });
    for mut client in &clients {
        client.write_all(b"x").unwrap();
    }
    for _ in &clients {
        let mut serving = server.accept();
        serving.expect(b"x");
        serving.write_all(b"y").unwrap();
    }
    for client in &mut clients {
        client.expect(b"y");
    }
    let mut late = connect(address);
    late.write_all(b"x").unwrap();
    server.accept().expect(b"x");
    assert_eq!(evenkeel.api().status()["connections"]["refused"], 0);
    drop(late);
}

#[test]
fn servers_that_are_new_are_checked_before_anybody_is_sent_there() {
    let (a, down) = (Greeter::listen(b'a'), Refusing::new());
    let with = |servers: &[SocketAddr]| {
        let web = [("web", ANY, "web")];
        config(2, &web, &[("web", servers)]).replace("health: off", "health: {interval: 1h}")
    };
    let evenkeel = Evenkeel::start(&with(&[a.address()]));
    let held = greeted(evenkeel.address());
    rewrite_and_upgrade(&evenkeel, &with(&[down.address(), a.address()]));
    assert_eq!(visits(evenkeel.address(), 4), "aaaa");
    let servers = evenkeel.api().status()["pools"]["web"]["servers"].clone();
    assert_eq!(servers[down.address().to_string()]["state"], "down");
    assert_eq!(
        servers[down.address().to_string()]["connections"]["failed"],
        0
    );
    drop(greeting(connect(evenkeel.address())));
    drop(held);
}
