//! With `ip_hash` two nodes send each client to the same server, which is why a client finds its
//! server again after a failover: what holds for a thousand clients, through which changes on one
//! node alone, and what does not hold.
//!
//! Servers are known by name, so that tables are the same in each run, whatever ports they have.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::harness::eventually;
use crate::harness::peers::{Peer, connect_from};
use crate::harness::program::Evenkeel;
use crate::harness::servers::{Greeter, greeting};

const CLIENTS: u16 = 1000;

fn greeters(names: &str) -> Vec<Greeter> {
    names.bytes().map(Greeter::listen).collect()
}

/// A pool of `ip_hash` with `lines` of its own; `order` are letters of the servers as they are
/// listed.
fn config(lines: &str, order: &str, servers: &[Greeter]) -> String {
    let mut text = String::from(
        "workers: 1\nlisteners:\n  web: {bind: \"127.0.0.1:0\", pool: web}\npools:\n  web:\n    \
         algorithm: ip_hash\n",
    );
    writeln!(text, "{lines}\n    servers:").unwrap();
    for letter in order.bytes() {
        let server = &servers[usize::from(letter - b'a')];
        let name = char::from(letter);
        let address = server.address();
        writeln!(text, "      - {{name: {name}, address: \"{address}\"}}").unwrap();
    }
    text
}

const UNCHECKED: &str = "    health: off";

/// Two nodes with the same pool, whose servers are listed in another order.
fn nodes(lines: &str, servers: &[Greeter]) -> [Evenkeel; 2] {
    ["abcde", "dbeca"].map(|order| Evenkeel::start(&config(lines, order, servers)))
}

fn source(client: u16) -> [u8; 4] {
    let [high, low] = client.to_be_bytes();
    [127, 60 + high, 7, low]
}

/// Which server each of the clients gets from a node, in order.
fn servers_of(node: &Evenkeel) -> Vec<u8> {
    let ask = |client| {
        let (mut stream, name) = greeting(connect_from(source(client), node.address()));
        stream.end();
        stream.expect_fin();
        name
    };
    (0..CLIENTS).map(ask).collect()
}

#[track_caller]
fn steer(node: &Evenkeel, arguments: &[&str]) {
    let output = node.command(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// The clients of `server` and of all others, each with what it gets now.
fn apart(before: &[u8], now: &[u8], server: u8) -> (Vec<u8>, Vec<(u8, u8)>) {
    let (of_it, others): (Vec<_>, Vec<_>) = before
        .iter()
        .zip(now)
        .map(|(before, now)| (*before, *now))
        .partition(|(before, _)| *before == server);
    (of_it.into_iter().map(|(_, now)| now).collect(), others)
}

/// Asserts that the clients of `server`, and they alone, have moved to all the others.
#[track_caller]
fn assert_only_its_clients_moved(before: &[u8], now: &[u8], server: u8) {
    let (moved, others) = apart(before, now, server);
    let differing = others.iter().filter(|(before, now)| before != now).count();
    assert_eq!(differing, 0, "clients of other servers moved");
    assert!(!moved.is_empty() && !moved.contains(&server));
    for other in b"abcde".iter().filter(|other| **other != server) {
        assert!(moved.contains(other), "{moved:?}");
    }
}

#[test]
fn a_thousand_clients_get_the_same_server_from_both_nodes() {
    let servers = greeters("abcde");
    let [one, other] = nodes(UNCHECKED, &servers);
    let names = servers_of(&one);
    assert_eq!(names, servers_of(&other));
    for letter in b"abcde" {
        let clients = names.iter().filter(|name| *name == letter).count();
        assert!((150..=250).contains(&clients), "{clients} of 1000");
    }
}

#[test]
fn a_server_drained_on_one_node_moves_its_own_clients_there_and_nobody_else() {
    let servers = greeters("abcde");
    let [one, other] = nodes(UNCHECKED, &servers);
    let before = servers_of(&one);
    steer(&one, &["drain", "web/c"]);
    let drained = servers_of(&one);
    assert_only_its_clients_moved(&before, &drained, b'c');
    assert_eq!(servers_of(&other), before, "the other node was not told");
    // Drained on both, the two agree on each client's new server, too.
    steer(&other, &["drain", "web/c"]);
    assert_eq!(servers_of(&other), drained);
    steer(&one, &["ready", "web/c"]);
    steer(&other, &["ready", "web/c"]);
    assert_eq!(servers_of(&one), before, "they come back");
    assert_eq!(servers_of(&other), before);
}

/// Checks that pass for each server but those with a file of their name in `folder`.
fn unless_marked(folder: &Path) -> String {
    let script = folder.join("check");
    let text = "#!/bin/sh\ntest ! -e \"$(dirname \"$0\")/$EVENKEEL_SERVER\"\n";
    fs::write(&script, text).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, mode).unwrap();
    let path = script.display();
    format!("    health: {{type: exec, command: [{path}], interval: 100ms, fall: 1, rise: 1}}")
}

fn is_up(node: &Evenkeel, server: &str) -> bool {
    node.api().status()["pools"]["web"]["servers"][server]["state"] == "up"
}

#[test]
fn a_server_down_on_one_node_is_as_one_drained_there() {
    let folder = tempfile::TempDir::new().unwrap();
    let servers = greeters("abcde");
    let checked = unless_marked(folder.path());
    let one = Evenkeel::start(&config(&checked, "abcde", &servers));
    let other = Evenkeel::start(&config(UNCHECKED, "ecdba", &servers));
    let before = servers_of(&other);
    assert_eq!(servers_of(&one), before);
    fs::write(folder.path().join("b"), "").unwrap();
    eventually("b is down", || !is_up(&one, "b"));
    let without = servers_of(&one);
    assert_only_its_clients_moved(&before, &without, b'b');
    assert_eq!(servers_of(&other), before);
    steer(&other, &["drain", "web/b"]);
    assert_eq!(
        servers_of(&other),
        without,
        "why it is out makes no difference"
    );
    fs::remove_file(folder.path().join("b")).unwrap();
    eventually("b is up", || is_up(&one, "b"));
    assert_eq!(servers_of(&one), before);
}

#[test]
fn a_server_added_on_both_nodes_is_the_same_for_both() {
    let servers = greeters("abcdef");
    let [one, other] = nodes(UNCHECKED, &servers[..5]);
    let before = servers_of(&one);
    let address = servers[5].address().to_string();
    let add = ["add", "web", &address, "--name", "f"];
    steer(&one, &add);
    let after = servers_of(&one);
    // Until the other node has it, too, f's clients differ, and few of the others': the new table.
    assert_eq!(servers_of(&other), before);
    let moved = |to_new: bool| {
        let pairs = before.iter().zip(&after);
        let differing = pairs.filter(|(before, after)| before != after);
        differing
            .filter(|(_, after)| (**after == b'f') == to_new)
            .count()
    };
    let (gained, shuffled) = (moved(true), moved(false));
    assert!((120..=220).contains(&gained), "a sixth of them: {gained}");
    assert!(shuffled <= 30, "at most 3 of 100: {shuffled}");
    steer(&other, &add);
    assert_eq!(servers_of(&other), after);
}

#[test]
fn a_weight_that_differs_moves_clients_of_every_server() {
    let servers = greeters("abcde");
    let [one, other] = nodes(UNCHECKED, &servers);
    let before = servers_of(&one);
    steer(&one, &["weight", "web/a", "3"]);
    let heavier = servers_of(&one);
    let (_, others) = apart(&before, &heavier, b'a');
    assert!(others.iter().any(|(before, now)| before != now));
    assert_eq!(servers_of(&other), before);
    steer(&other, &["weight", "web/a", "3"]);
    assert_eq!(servers_of(&other), heavier);
}

#[test]
fn with_bounded_load_it_depends_on_who_else_is_there() {
    const HELD: u16 = 200;
    let servers = greeters("abcde");
    let lines = "    health: off\n    hash: {bounded_load: 1.1}";
    let [one, other] = nodes(lines, &servers);
    let hold = |node: &Evenkeel, client| greeting(connect_from(source(client), node.address()));
    let at_one: Vec<_> = (0..HELD).map(|client| hold(&one, client)).collect();
    // The same clients come to the other node in another order.
    let mut at_other: Vec<_> = (0..HELD).rev().map(|client| hold(&other, client)).collect();
    at_other.reverse();
    let differing = at_one
        .iter()
        .zip(&at_other)
        .filter(|(one, other)| one.1 != other.1)
        .count();
    assert!(differing > 0, "no client had to make way");
    assert!(
        differing < usize::from(HELD) / 2,
        "most still have their own: {differing}"
    );
}
