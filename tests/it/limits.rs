//! What happens when something runs out: connections, descriptors, and what it does to the rest.

use std::io::Write;

use crate::harness::peers::{Peer, Server, ping};
use crate::harness::program::{Evenkeel, binary};
use crate::harness::servers::{Greeter, greeted, visits};
use crate::harness::tools::{LimitedDescriptors, tool};
use crate::harness::{eventually, plain, with_pool};

#[test]
fn a_connection_above_max_connections_is_reset_as_limit() {
    let server = Server::listen();
    let top = "workers: 1\nmax_connections: 3";
    let evenkeel = Evenkeel::start(&with_pool(top, "", &[server.address()]));
    let mut pairs: Vec<_> = (0..3).map(|_| evenkeel.pair(&server)).collect();
    let mut refused = evenkeel.connect();
    refused.expect_reset();
    let end = evenkeel.end();
    assert_eq!(
        (end.end(), end.field("client")),
        ("limit", client_of(&refused).as_str())
    );
    crate::harness::eventually("it is told", || {
        let text = evenkeel.errors().text();
        text.contains("1 connection refused: max_connections of the process is 3")
    });
    for (client, serving) in &mut pairs {
        ping(client, serving);
    }
    drop(pairs.pop());
    evenkeel.ends(2);
    let (mut client, mut serving) = evenkeel.pair(&server);
    ping(&mut client, &mut serving);
}

fn client_of(stream: &std::net::TcpStream) -> String {
    stream.local_addr().unwrap().to_string()
}

#[test]
fn max_connections_counts_over_all_workers() {
    let server = Greeter::listen(b's');
    let top = "workers: 2\nmax_connections: 10";
    let evenkeel = Evenkeel::start(&with_pool(top, "", &[server.address()]));
    let held: Vec<_> = (0..10).map(|_| greeted(evenkeel.address())).collect();
    for _ in 0..6 {
        evenkeel.connect().expect_reset();
    }
    assert!(evenkeel.ends(6).iter().all(|end| end.end() == "limit"));
    assert_eq!(server.most(), 10);
    drop(held);
    evenkeel.ends(16);
    assert_eq!(visits(evenkeel.address(), 5), "sssss");
}

#[test]
fn descriptors_that_run_out_leave_held_connections_alone() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let mut pairs: Vec<_> = (0..20).map(|_| evenkeel.pair(&server)).collect();
    let limited = LimitedDescriptors::at_those_of(&evenkeel);
    let mut waiting: Vec<_> = (0..10).map(|_| evenkeel.connect()).collect();
    for (client, serving) in &mut pairs {
        ping(client, serving);
    }
    for client in &mut waiting {
        // One that was refused meanwhile says so by an error.
        drop(client.write_all(b"waited"));
    }
    drop(limited);
    let mut served = 0;
    eventually("each waiting client is served or was refused", || {
        while let Some(mut serving) = server.accept_pending() {
            serving.expect(b"waited");
            served += 1;
        }
        served + evenkeel.access().len() >= waiting.len()
    });
    assert!(served >= 8, "{served} of 10 were served");
    for (client, serving) in &mut pairs {
        ping(client, serving);
    }
}

#[test]
fn accepting_goes_on_as_soon_as_connections_end() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let pairs: Vec<_> = (0..20).map(|_| evenkeel.pair(&server)).collect();
    let _limited = LimitedDescriptors::at_those_of(&evenkeel);
    let mut waiting: Vec<_> = (0..10).map(|_| evenkeel.connect()).collect();
    drop(pairs);
    let mut reached = 0;
    for client in &mut waiting {
        // The limit stays; room comes from those that ended.
        reached += usize::from(client.write_all(b"waited").is_ok());
    }
    for _ in 0..reached.min(8) {
        server.accept().expect(b"waited");
    }
    assert!(reached >= 8, "{reached} of 10 were kept");
}

#[test]
fn a_limit_too_low_for_max_connections_is_refused_at_the_start() {
    let server = Server::listen();
    let config = with_pool("workers: 1\nmax_connections: 1000", "", &[server.address()]);
    let mut command = std::process::Command::new(tool("prlimit"));
    command.arg("--nofile=100:100").arg(binary());
    let mut evenkeel = Evenkeel::launch_with(&config, command);
    assert_ne!(evenkeel.exit().code(), Some(0));
    assert!(
        evenkeel.errors().text().contains("max_connections"),
        "{}",
        evenkeel.errors().text()
    );
}

#[test]
fn max_connections_follows_the_descriptor_limit() {
    let server = Server::listen();
    let mut command = std::process::Command::new(tool("prlimit"));
    command.arg("--nofile=100:100").arg(binary());
    let evenkeel = Evenkeel::launch_with(&plain(&[server.address()]), command);
    evenkeel.errors().wait_for("ready: ");
    // Two sockets a connection, so a hundred descriptors hold fewer than fifty.
    let clients: Vec<_> = (0..60).map(|_| evenkeel.connect()).collect();
    let ends = evenkeel.ends(11);
    assert!(ends.iter().all(|end| end.end() == "limit"), "{ends:?}");
    drop(clients);
}

/// Each address is a descriptor for each worker, and these are more than half of all.
#[test]
fn an_upgrade_needs_no_further_descriptor_for_each_address() {
    let server = Server::listen();
    let addresses: Vec<_> = (1..=60).map(|n| format!("'127.0.2.{n}:0'")).collect();
    let bind = format!("bind: ['127.0.0.1:0', {}]", addresses.join(", "));
    let config = with_pool("workers: 2", "", &[server.address()]);
    let config = config.replace("bind: 127.0.0.1:0", &bind);
    let mut command = std::process::Command::new(tool("prlimit"));
    command.arg("--nofile=220:220").arg(binary());
    let evenkeel = Evenkeel::launch_with(&config, command);
    evenkeel.errors().wait_for("ready: ");
    for _ in 0..3 {
        evenkeel.upgrade();
    }
    drop(evenkeel.pair(&server));
}
