//! Handing the admin side over: nobody is refused, nothing is lost, and the socket's file goes to whoever
//! serves.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::harness::{Line, Plan, Site};
use crate::admin::bind_with;
use crate::admin::bounds::Bounds;
use crate::config::AdminSocket;

const HEALTHZ: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";

fn is_silent(line: &mut Line<UnixStream>) -> bool {
    use std::io::Read;
    let soon = Duration::from_millis(100);
    let patience = line.0.read_timeout().unwrap();
    line.0.set_read_timeout(Some(soon)).unwrap();
    let outcome = line.0.read(&mut [0]);
    line.0.set_read_timeout(patience).unwrap();
    outcome.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn who_comes_during_a_pause_is_answered_after_it() {
    let site = Site::new();
    let mut before = site.connect();
    // Accepted for sure.
    before.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    before.reply("GET");
    site.admin().pause();
    site.admin().pause();
    let mut meanwhile = site.connect();
    let mut over_tcp = site.connect_tcp();
    meanwhile.send(HEALTHZ);
    over_tcp.send(HEALTHZ);
    assert!(is_silent(&mut meanwhile));
    // Who was there goes on.
    before.send(HEALTHZ);
    assert_eq!(before.reply("GET").body, "ok\n");
    site.admin().resume();
    site.admin().resume();
    assert_eq!(meanwhile.reply("GET").body, "ok\n");
    assert_eq!(over_tcp.reply("GET").body, "ok\n");
}

#[test]
fn a_successor_answers_who_came_meanwhile_at_the_same_sockets() {
    let mut site = Site::new();
    let sockets = site.admin().sockets().unwrap();
    let http = sockets.http.as_ref().unwrap();
    assert_eq!(http.written, "127.0.0.1:0".parse().unwrap());
    let bound = bind_with(&site.config, sockets).unwrap();
    assert_eq!(bound.http(), Some(site.http));
    assert_eq!(bound.socket(), Some(&*site.socket()));
    let old = site.take_admin();
    old.pause();
    let (mut line, mut over_tcp) = (site.connect(), site.connect_tcp());
    line.send(HEALTHZ);
    over_tcp.send(HEALTHZ);
    old.let_go();
    assert!(site.socket().exists());
    site.shared.upgrades = 1;
    site.serve(bound);
    assert_eq!(line.reply("GET").body, "ok\n");
    assert_eq!(over_tcp.reply("GET").body, "ok\n");
    assert_eq!(site.json("GET", "/api/v1/status", "")["upgrades"], 1);
    let metrics = site.ask("GET", "/metrics", "").body;
    assert!(
        metrics.contains("\nevenkeel_upgrades_total 1\n"),
        "{metrics}"
    );
    // From now on the file is the successor's, which can hand it on as well.
    let next = site.admin().sockets().unwrap();
    assert_eq!(next.http.unwrap().written, "127.0.0.1:0".parse().unwrap());
    site.stop();
    assert!(!site.socket().exists());
}

#[test]
fn a_successor_that_does_not_serve_leaves_everything_as_it_was() {
    let mut site = Site::new();
    for wanted in [site.config.socket.clone(), AdminSocket::Off] {
        let sockets = site.admin().sockets().unwrap();
        site.config.socket = wanted;
        let bound = bind_with(&site.config, sockets).unwrap();
        site.admin().pause();
        drop(bound);
        site.admin().resume();
        assert!(site.socket().exists());
        assert_eq!(site.ask("GET", "/healthz", "").body, "ok\n");
        assert_eq!(site.ask_tcp("GET", "/healthz", &[]).body, "ok\n");
    }
}

#[test]
fn another_config_binds_anew_and_gives_up_what_it_does_not_want() {
    let mut site = Site::new();
    let (before, http) = (site.socket(), site.http);
    let sockets = site.admin().sockets().unwrap();
    let elsewhere = site.folder.path().join("other.sock");
    site.config.socket = AdminSocket::At(elsewhere.clone());
    site.config.http = Some("127.0.0.2:0".parse().unwrap());
    let bound = bind_with(&site.config, sockets).unwrap();
    assert_ne!(bound.http(), Some(http));
    // Both are there as long as nothing is decided.
    assert!(before.exists() && elsewhere.exists());
    let old = site.take_admin();
    old.let_go();
    site.serve(bound);
    assert!(!before.exists() && elsewhere.exists());
    assert!(std::net::TcpStream::connect(http).is_err());
    site.stop();
    assert!(!elsewhere.exists());
}

#[test]
fn a_file_that_is_gone_is_made_anew() {
    let mut site = Site::new();
    let sockets = site.admin().sockets().unwrap();
    std::fs::remove_file(site.socket()).unwrap();
    let bound = bind_with(&site.config, sockets).unwrap();
    site.take_admin().let_go();
    site.serve(bound);
    assert_eq!(site.ask("GET", "/healthz", "").body, "ok\n");
}

#[test]
fn letting_go_ends_streams_in_order_and_writes_what_is_answered() {
    let mut bounds = Bounds::USUAL;
    // Nobody may need it.
    bounds.letting_go = Duration::from_secs(20);
    let mut site = Site::with(Plan {
        bounds,
        ..Plan::default()
    });
    let mut stream = site.connect();
    stream.send(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.until("event: status\n");
    let mut asker = site.connect();
    let body = "POST /api/v1/confirm HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    asker.send(body.as_bytes());
    while site.asked.lock().unwrap().is_empty() {
        std::thread::yield_now();
    }
    let sockets = site.admin().sockets().unwrap();
    site.take_admin().let_go();
    // The last chunk: nothing was cut off.
    let rest = stream.rest();
    assert!(rest.ends_with("0\r\n\r\n"), "{rest}");
    assert_eq!(asker.reply("POST").status, 200);
    assert_eq!(asker.rest(), "");
    drop(sockets);
    assert!(site.socket().exists());
}

#[test]
fn a_reader_that_takes_nothing_does_not_hold_the_end_up() {
    let mut site = Site::new();
    let mut roster = super::harness::roster();
    roster.origin.differences = vec!["x".repeat(8 << 20)];
    site.shared.board.publish(roster);
    let mut stuck = site.connect();
    stuck.send(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
    stuck.until("event: status\n");
    site.take_admin().let_go();
    assert!(!stuck.rest().ends_with("0\r\n\r\n"));
}
