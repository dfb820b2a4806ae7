//! Connections over workers, read from the kernel's own list of what each epoll set watches.

use std::collections::BTreeSet;

use crate::harness::peers::{Peer, Server, ping};
use crate::harness::program::{Evenkeel, binary};
use crate::harness::servers::{Greeter, visits};
use crate::harness::strace::Strace;
use crate::harness::tools::tool;
use crate::harness::{eventually, with_pool};

/// Sockets that each epoll set watches beyond those at the start, the idle prober's left out.
fn grown(evenkeel: &Evenkeel, start: &[usize]) -> Vec<usize> {
    let now = evenkeel.proc().registered();
    let mut grown: Vec<_> = now
        .iter()
        .zip(start)
        .map(|(now, start)| now - start.min(now))
        .collect();
    grown.retain(|count| *count > 0);
    grown
}

#[test]
fn sixteen_long_lived_connections_end_eight_to_eight() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&with_pool("workers: 2", "", &[server.address()]));
    let start = evenkeel.proc().registered_at_rest();
    let mut pairs: Vec<_> = (0..16).map(|_| evenkeel.pair(&server)).collect();
    for (client, serving) in &mut pairs {
        ping(client, serving);
    }
    // Two sockets a connection.
    eventually(&format!("8:8 from {start:?}"), || {
        grown(&evenkeel, &start) == [16, 16]
    });
    for (client, serving) in &mut pairs {
        ping(client, serving);
    }
    drop(pairs);
    eventually("everything ends", || evenkeel.proc().registered() == start);
}

#[test]
fn connections_that_come_at_once_end_even_too() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&with_pool("workers: 2", "", &[server.address()]));
    let start = evenkeel.proc().registered_at_rest();
    let clients: Vec<_> = (0..64).map(|_| evenkeel.connect()).collect();
    let serving: Vec<_> = clients.iter().map(|_| server.accept()).collect();
    let even = |grown: &[usize]| {
        grown.len() == 2 && grown.iter().sum::<usize>() == 128 && grown[0].abs_diff(grown[1]) <= 16
    };
    eventually(
        &format!("64 over two workers, even within an eighth; start {start:?}"),
        || even(&grown(&evenkeel, &start)),
    );
    drop((clients, serving));
}

#[test]
fn short_connections_stay_where_they_landed() {
    let server = Greeter::listen(b's');
    let evenkeel = Evenkeel::start(&with_pool("workers: 2", "", &[server.address()]));
    let traced = ["-e", "trace=accept4,connect"];
    let strace = Strace::attach(evenkeel.pid(), &traced);
    visits(evenkeel.address(), 40);
    let calls = strace.detach();
    let by = |name: &str, done: fn(&str) -> bool| {
        let mut threads: Vec<u32> = calls
            .iter()
            .filter(|call| call.name == name && done(&call.text))
            .map(|call| call.thread)
            .collect();
        threads.sort_unstable();
        threads
    };
    let accepted = by("accept4", |text| !text.contains("= -1"));
    assert_eq!(accepted.len(), 40);
    assert_eq!(
        accepted,
        by("connect", |_| true),
        "each is connected by the worker that took it"
    );
    let threads: BTreeSet<u32> = accepted.into_iter().collect();
    assert_eq!(threads.len(), 2, "both workers listen");
}

#[test]
fn one_worker_is_one_epoll_set_more() {
    let server = Server::listen();
    let sets = [1, 2, 3].map(|workers| {
        let top = format!("workers: {workers}");
        Evenkeel::start(&with_pool(&top, "", &[server.address()]))
            .proc()
            .registered()
            .len()
    });
    assert_eq!((sets[1] - sets[0], sets[2] - sets[1]), (1, 1), "{sets:?}");
}

#[test]
fn a_connection_that_was_passed_on_is_whole() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&with_pool("workers: 3", "", &[server.address()]));
    let before = evenkeel.holding();
    let mut pairs: Vec<_> = (0..24).map(|_| evenkeel.pair(&server)).collect();
    for (client, serving) in &mut pairs {
        ping(client, serving);
    }
    for (mut client, serving) in pairs {
        serving.reset();
        client.expect_reset();
    }
    assert!(
        evenkeel
            .ends(24)
            .iter()
            .all(|end| end.end() == "server_reset")
    );
    evenkeel.back_to(&before);
}

#[test]
fn there_is_one_worker_for_each_core_that_the_affinity_allows() {
    let server = Server::listen();
    let mut command = std::process::Command::new(tool("taskset"));
    command.args(["-c", "0"]).arg(binary());
    let config = with_pool("workers: auto", "", &[server.address()]);
    let evenkeel = Evenkeel::launch_with(&config, command);
    let ready = evenkeel.errors().wait_for("ready: ");
    assert!(ready.contains("ready: 1 worker,"), "{ready}");
}
