//! `survive_restart` with connections of all kinds, and many of them; and with processes that are killed
//! while they take up what others have left.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Line, kill, wait_for_kept};
use crate::harness::pause;
use crate::harness::peers::{Peer, Server, connect_from, ping};
use crate::harness::program::{Evenkeel, binary};
use crate::sni::hello;

const MANY: usize = 1000;

/// A connection, and what it says meanwhile.
struct Waiting {
    client: TcpStream,
    serving: TcpStream,
    name: String,
    /// Its client has ended.
    is_half: bool,
}

impl Waiting {
    fn new(evenkeel: &Evenkeel, line: &Line, number: usize) -> Self {
        let (mut client, mut serving) = evenkeel.pair(&line.server);
        let name = format!("<{number}>");
        client.write_all(name.as_bytes()).unwrap();
        serving.expect(name.as_bytes());
        let is_half = number.is_multiple_of(10);
        if is_half {
            client.end();
            serving.expect_fin();
        }
        Self {
            client,
            serving,
            name,
            is_half,
        }
    }

    /// Says something either way as far as it can.
    fn say(&mut self, what: &str) {
        let text = format!("{what}{}", self.name);
        self.serving.write_all(text.as_bytes()).unwrap();
        if !self.is_half {
            self.client.write_all(text.as_bytes()).unwrap();
        }
    }

    /// All that was said has come, in its order.
    fn hear(&mut self, all: &[&str]) {
        for what in all {
            let text = format!("{what}{}", self.name);
            self.client.expect(text.as_bytes());
            if !self.is_half {
                self.serving.expect(text.as_bytes());
            }
        }
    }
}

#[test]
fn a_thousand_connections_go_on_and_are_counted() {
    let line = Line::new();
    let evenkeel = line.start("", "");
    let mut all: Vec<_> = (0..MANY)
        .map(|number| Waiting::new(&evenkeel, &line, number))
        .collect();
    wait_for_kept(&line.keeper(), MANY);
    all.iter_mut().for_each(|it| it.say("before"));
    all.iter_mut().for_each(|it| it.hear(&["before"]));
    kill(evenkeel);
    all.iter_mut().for_each(|it| it.say("meanwhile"));
    let evenkeel = line.start("", "");
    evenkeel
        .errors()
        .wait_for("took up 1000 connections of a process that was killed, reset 0");
    all.iter_mut().for_each(|it| it.say("after"));
    all.iter_mut()
        .for_each(|it| it.hear(&["meanwhile", "after"]));
    let status = evenkeel.api().status();
    assert_eq!(status["connections"]["active"], MANY, "{status}");
    assert_eq!(status["listeners"]["web"]["connections"]["active"], MANY);
    drop(all);
    let ends = evenkeel.ends(MANY);
    let ids: BTreeSet<_> = ends.iter().map(|end| end.field("id").to_owned()).collect();
    assert_eq!((ends.len(), ids.len()), (MANY, MANY));
    let bytes = |number: usize, what: &[&str]| -> u64 {
        let name = format!("<{number}>").len();
        what.iter().map(|what| (what.len() + name) as u64).sum()
    };
    let said = ["before", "meanwhile", "after"];
    let down: u64 = (0..MANY).map(|number| bytes(number, &said)).sum();
    assert_eq!(
        ends.iter()
            .map(|it| it.bytes("downstream_bytes"))
            .sum::<u64>(),
        down
    );
}

#[test]
fn addresses_names_and_limits_of_clients_go_on() {
    const HEADER: &str = "PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n";
    let line = Line::new();
    let named = Server::listen();
    let listener = "    proxy_protocol: accept\n    trusted_proxies: [127.0.0.0/8]\n    \
                    sni: {a.example.com: named}\n    max_connections_per_ip: 2\n";
    let config = line.config(listener, "    send_proxy: v1\n");
    let config = config.replace(
        "pools:\n",
        &format!(
            "pools:\n  named:\n    health: off\n    servers: [\"{}\"]\n",
            named.address()
        ),
    );
    let evenkeel = line.start_with(&config);
    let (hello, another) = (hello("a.example.com"), hello("b.example.com"));
    let mut client = evenkeel.connect();
    client.write_all(HEADER.as_bytes()).unwrap();
    client.write_all(&hello).unwrap();
    let mut serving = named.accept();
    serving.expect(&hello);
    ping(&mut client, &mut serving);
    let mut other = evenkeel.connect();
    other.write_all(HEADER.as_bytes()).unwrap();
    other.write_all(&another).unwrap();
    let mut other_serving = line.server.accept();
    other_serving.expect(HEADER.as_bytes());
    other_serving.expect(&another);
    wait_for_kept(&line.keeper(), 2);
    kill(evenkeel);
    let evenkeel = line.start_with(&config);
    ping(&mut client, &mut serving);
    ping(&mut other, &mut other_serving);
    // The source that the headers name has two already.
    let mut third = evenkeel.connect();
    third.write_all(HEADER.as_bytes()).unwrap();
    third.expect_reset();
    drop((client, other));
    serving.expect_fin();
    other_serving.expect_fin();
    drop((serving, other_serving));
    let ends = evenkeel.ends(3);
    let went_on: Vec<_> = ends
        .iter()
        .filter(|end| end.end() == "client_closed")
        .collect();
    assert_eq!(went_on.len(), 2, "{ends:?}");
    for end in went_on {
        assert_eq!(end.field("client"), "203.0.113.7:4711");
    }
    assert!(ends.iter().any(|end| end.field("pool") == "named"));
}

#[test]
fn one_source_s_limit_counts_what_goes_on() {
    let line = Line::new();
    let listener = "    max_connections_per_ip: 1\n";
    let evenkeel = line.start(listener, "");
    let from = |evenkeel: &Evenkeel, last| connect_from([127, 0, 0, last], evenkeel.address());
    let mut client = from(&evenkeel, 2);
    let mut serving = line.server.accept();
    ping(&mut client, &mut serving);
    wait_for_kept(&line.keeper(), 1);
    kill(evenkeel);
    let evenkeel = line.start(listener, "");
    from(&evenkeel, 2).expect_reset();
    ping(&mut from(&evenkeel, 3), &mut line.server.accept());
    ping(&mut client, &mut serving);
    drop((client, serving));
    evenkeel.ends(3);
    ping(&mut from(&evenkeel, 2), &mut line.server.accept());
}

#[test]
fn what_the_new_configuration_lacks_goes_on_until_it_ends() {
    let line = Line::new();
    let evenkeel = line.start("", "");
    let mut pairs: Vec<_> = (0..3).map(|_| evenkeel.pair(&line.server)).collect();
    wait_for_kept(&line.keeper(), pairs.len());
    kill(evenkeel);
    let other = Server::listen();
    let address = |server: &Server| server.address().to_string();
    let config = line.config("", "");
    let config = config.replace(&address(&line.server), &address(&other));
    let config = config.replace("listeners:\n  web:", "listeners:\n  new:");
    let mut evenkeel = line.start_with(&config);
    for _ in 0..2 {
        for (client, serving) in &mut pairs {
            ping(client, serving);
        }
        let (mut client, mut serving) = evenkeel.pair(&other);
        ping(&mut client, &mut serving);
        pairs.push((client, serving));
        // What has left is known to the one after that as well.
        wait_for_kept(&line.keeper(), pairs.len());
        kill(evenkeel);
        evenkeel = line.start_with(&config);
    }
    for (client, serving) in &mut pairs {
        ping(client, serving);
    }
}

#[test]
fn a_server_that_has_just_come_is_known_to_the_next_process() {
    let line = Line::new();
    let evenkeel = line.start("", "");
    let keeper = line.keeper();
    let mut pairs = Vec::new();
    for count in 1..=5 {
        let server = Server::listen();
        let config = line.config("", "");
        let old = line.server.address().to_string();
        evenkeel.rewrite(&config.replace(&old, &server.address().to_string()));
        evenkeel
            .api()
            .send("POST", "/api/v1/reload", "{}")
            .expect(200);
        pairs.push(evenkeel.pair(&server));
        wait_for_kept(&keeper, count);
    }
    kill(evenkeel);
    let _evenkeel = line.start("", "");
    for (client, serving) in &mut pairs {
        ping(client, serving);
    }
}

/// Whoever is killed at any moment of its start has taken nothing away from the next one.
#[test]
fn starts_that_are_killed_leave_everything_to_the_next_one() {
    let line = Line::new();
    let evenkeel = line.start("", "");
    let mut pairs: Vec<_> = (0..100).map(|_| evenkeel.pair(&line.server)).collect();
    wait_for_kept(&line.keeper(), pairs.len());
    kill(evenkeel);
    let file = line.folder.path().join("evenkeel.yaml");
    std::fs::write(&file, line.config("", "")).unwrap();
    for (round, (client, _)) in (0..30).zip(&mut pairs) {
        let mut command = Command::new(binary());
        command.args(["run", "-c"]).arg(&file);
        let silent = command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut started = silent.spawn().unwrap();
        client.write_all(b"on its way").unwrap();
        // Another moment each time; which one it is does not matter.
        pause(Duration::from_millis(round));
        started.kill().unwrap();
        started.wait().unwrap();
    }
    let evenkeel = line.start("", "");
    for (index, (client, serving)) in pairs.iter_mut().enumerate() {
        if index < 30 {
            serving.expect(b"on its way");
        }
        ping(client, serving);
    }
    assert_eq!(evenkeel.api().status()["connections"]["active"], 100);
}
