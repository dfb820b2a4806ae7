//! `survive_restart` beside other changes: upgrades, starts that fail, and configurations that switch it
//! on or off.

use std::io::Write;
use std::net::{TcpListener, TcpStream};

use super::{Line, kept, kill, wait_for_kept};
use crate::harness::eventually;
use crate::harness::peers::{Peer, ping};
use crate::harness::proc::Proc;
use crate::harness::program::Evenkeel;

type Pairs = Vec<(TcpStream, TcpStream)>;

fn pairs(evenkeel: &Evenkeel, line: &Line, count: usize) -> Pairs {
    (0..count).map(|_| evenkeel.pair(&line.server)).collect()
}

fn all_go_on(pairs: &mut Pairs) {
    for (client, serving) in pairs {
        ping(client, serving);
    }
}

/// Ends of either kind reach the other side, and the keeper has nothing to do any more.
fn ends_in_order(pairs: Pairs, evenkeel: &Evenkeel, line: &Line) {
    let count = pairs.len();
    for (client, mut serving) in pairs {
        drop(client);
        serving.expect_fin();
    }
    evenkeel.ends(count);
    eventually("no keeper", || line.keepers().is_empty());
}

fn switched_off(line: &Line) -> String {
    let config = line.config("", "");
    config.replace("survive_restart: true", "survive_restart: false")
}

fn memories(keeper: Proc) -> usize {
    keeper.count("/memfd:evenkeel")
}

#[test]
fn a_start_that_fails_leaves_what_is_kept_to_the_next_one() {
    let line = Line::new();
    let evenkeel = line.start("", "");
    let mut all = pairs(&evenkeel, &line, 3);
    all_go_on(&mut all);
    wait_for_kept(&line.keeper(), all.len());
    kill(evenkeel);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let occupied = line.config("", "").replace("127.0.0.1:0", &address);
    for (config, reason) in [
        (occupied.as_str(), "cannot bind"),
        ("nonsense: 1", "nonsense"),
    ] {
        let mut failed = Evenkeel::launch(config);
        assert!(!failed.exit().success());
        failed.errors().wait_for(reason);
    }
    let evenkeel = line.start("", "");
    evenkeel.errors().wait_for("took up 3 connections");
    all_go_on(&mut all);
}

#[test]
fn after_upgrades_a_kill_finds_all_and_one_memory() {
    let line = Line::new();
    let evenkeel = line.start("", "    send_proxy: v1\n");
    let keeper = line.keeper();
    let mut all = pairs(&evenkeel, &line, 5);
    for (client, serving) in &mut all {
        let header = format!(
            "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n",
            client.local_addr().unwrap().port(),
            evenkeel.address().port()
        );
        serving.expect(header.as_bytes());
    }
    all_go_on(&mut all);
    wait_for_kept(&keeper, all.len());
    for _ in 0..3 {
        evenkeel.upgrade();
        all_go_on(&mut all);
        eventually("one memory", || memories(keeper) == 1);
    }
    let last = evenkeel.pair(&line.server);
    wait_for_kept(&keeper, all.len() + 1);
    line.kill_serving(&evenkeel);
    drop(last);
    let evenkeel = line.start("", "    send_proxy: v1\n");
    evenkeel.errors().wait_for("took up 5 connections");
    all_go_on(&mut all);
    assert_eq!(line.keeper().0, keeper.0);
    drop(all);
    evenkeel.ends(5);
    eventually("nothing is kept", || kept(&keeper) == super::OWN);
}

#[test]
fn an_upgrade_that_switches_it_off_forgets_what_is_kept() {
    let line = Line::new();
    let evenkeel = line.start("", "");
    let mut all = pairs(&evenkeel, &line, 3);
    wait_for_kept(&line.keeper(), all.len());
    evenkeel.rewrite(&switched_off(&line));
    evenkeel.upgrade();
    all_go_on(&mut all);
    ends_in_order(all, &evenkeel, &line);
}

#[test]
fn a_start_that_has_it_off_takes_up_what_is_left_and_keeps_nothing() {
    let line = Line::new();
    let evenkeel = line.start("", "");
    let mut all = pairs(&evenkeel, &line, 3);
    wait_for_kept(&line.keeper(), all.len());
    kill(evenkeel);
    let evenkeel = line.start_with(&switched_off(&line));
    evenkeel.errors().wait_for("took up 3 connections");
    all_go_on(&mut all);
    ends_in_order(all, &evenkeel, &line);
}

#[test]
fn an_upgrade_that_switches_it_on_parks_what_was_there_with_its_headers() {
    let line = Line::new();
    let off = switched_off(&line).replace("health: off", "health: off\n    send_proxy: v2");
    let evenkeel = line.start_with(&off);
    let mut all = pairs(&evenkeel, &line, 3);
    for (_, serving) in &mut all {
        let mut header = [0; 28];
        std::io::Read::read_exact(serving, &mut header).unwrap();
    }
    all_go_on(&mut all);
    let on = off.replace("survive_restart: false", "survive_restart: true");
    evenkeel.rewrite(&on);
    evenkeel.upgrade();
    wait_for_kept(&line.keeper(), all.len());
    // What is on its way is no header.
    all[0].0.write_all(b"more").unwrap();
    all[0].1.expect(b"more");
    line.kill_serving(&evenkeel);
    let evenkeel = line.start_with(&on);
    evenkeel.errors().wait_for("took up 3 connections");
    all_go_on(&mut all);
}

#[test]
fn an_upgrade_that_moves_the_admin_socket_moves_the_keeper() {
    let line = Line::new();
    let evenkeel = line.start("", "");
    let mut all = pairs(&evenkeel, &line, 3);
    wait_for_kept(&line.keeper(), all.len());
    let other = Line::new();
    let socket = |line: &Line| line.folder.path().join("admin.sock").display().to_string();
    let moved = line.config("", "").replace(&socket(&line), &socket(&other));
    evenkeel.rewrite(&moved);
    // Its answer may come from a socket that is not there any more.
    let old = evenkeel.proc();
    evenkeel
        .api()
        .send("POST", "/api/v1/upgrade", "{}")
        .expect(200);
    eventually("the old process is gone", || old.is_gone());
    eventually("the keeper is another one", || line.keepers().is_empty());
    let keeper = other.keeper();
    wait_for_kept(&keeper, all.len());
    all_go_on(&mut all);
}

#[test]
fn a_reload_says_that_it_takes_a_start() {
    let line = Line::new();
    let evenkeel = line.start("", "");
    let mut all = pairs(&evenkeel, &line, 1);
    evenkeel.rewrite(&switched_off(&line));
    let told = evenkeel.api().send("POST", "/api/v1/reload", "{}");
    assert!(
        told.body.contains("survive_restart true -> false"),
        "{told:?}"
    );
    wait_for_kept(&line.keeper(), all.len());
    all_go_on(&mut all);
}
