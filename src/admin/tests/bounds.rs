//! What a peer cannot do: send too much, take too long, or keep others out.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use crossbeam_channel::unbounded;

use super::harness::{Plan, Site};
use crate::admin::bounds::Bounds;
use crate::admin::request::Done;

const SOON: Duration = Duration::from_millis(50);

fn site(change: impl FnOnce(&mut Bounds)) -> Site {
    let mut bounds = Bounds::USUAL;
    change(&mut bounds);
    Site::with(Plan {
        bounds,
        ..Plan::default()
    })
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let site = Site::new();
    let header = format!("X-Long: {}\r\n", "x".repeat(20_000));
    let mut line = site.connect();
    line.send(format!("GET /healthz HTTP/1.1\r\n{header}\r\n").as_bytes());
    assert_eq!(line.reply("GET").status, 431);
    line.rest();
    let mut line = site.connect();
    let many = "X-Many: 1\r\n".repeat(200);
    line.send(format!("GET /healthz HTTP/1.1\r\n{many}\r\n").as_bytes());
    assert_eq!(line.reply("GET").status, 431);
    let mut line = site.connect();
    let fits = format!("X-Long: {}\r\n", "x".repeat(15_000));
    line.send(format!("GET /healthz HTTP/1.1\r\n{fits}\r\n").as_bytes());
    assert_eq!(line.reply("GET").status, 200);
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let site = Site::new();
    let body = |count: usize| format!("{{{}}}", " ".repeat(count - 2));
    let confirm = |body: &str| site.ask("POST", "/api/v1/reload", body);
    assert_eq!(confirm(&body(64 << 10)).status, 200);
    assert_eq!(confirm(&body((64 << 10) + 1)).fault().0, 413);
    assert_eq!(
        confirm(&body(1 << 20)).fault(),
        (413, "the body is over 64 KiB".into())
    );
    let head = "POST /api/v1/reload HTTP/1.1\r\nHost: x\r\n";
    let mut line = site.connect();
    line.send(format!("{head}Content-Length: 9999999999\r\n\r\n").as_bytes());
    assert_eq!(line.reply("POST").fault().0, 413);
    let mut line = site.connect();
    line.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes());
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    line.send(chunk.repeat(3).as_bytes());
    line.send(b"0\r\n\r\n");
    assert_eq!(line.reply("POST").fault().0, 413);
    assert_eq!(site.asked.lock().unwrap().len(), 1);
}

#[test]
fn a_body_is_asked_for_only_where_it_will_be_taken() {
    let site = Site::new();
    let head = "POST /api/v1/reload HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n";
    let mut line = site.connect();
    line.send(format!("{head}Content-Length: 2\r\n\r\n").as_bytes());
    assert_eq!(line.until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    line.send(b"{}");
    assert_eq!(line.reply("POST").status, 200);
    let mut line = site.connect();
    line.send(format!("{head}Content-Length: 70000\r\n\r\n").as_bytes());
    assert_eq!(line.reply("POST").fault().0, 413);
    line.rest();
}

#[test]
fn slow_heads_bodies_and_idle_connections_are_ended() {
    let site = site(|bounds| {
        (bounds.head, bounds.body, bounds.idle) = (SOON, SOON, SOON);
    });
    // Nothing, and half a head.
    assert_eq!(site.connect().rest(), "");
    let mut line = site.connect_tcp();
    line.send(b"GET /healthz HTTP/1.1\r\nHost: 127");
    assert_eq!(line.rest(), "");
    // Half a body.
    let mut line = site.connect();
    line.send(b"POST /api/v1/confirm HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{");
    assert_eq!(line.reply("POST").fault().0, 408);
    // Nothing more, and half a further head.
    for more in ["", "GET /hea"] {
        let mut line = site.connect();
        line.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(line.reply("GET").body, "ok\n");
        line.send(more.as_bytes());
        assert_eq!(line.rest(), "");
    }
}

#[test]
fn a_further_head_has_its_own_limit_however_long_idling_may_take() {
    let site = site(|bounds| bounds.head = SOON);
    let mut line = site.connect();
    // In time, or this is the head that was too slow.
    line.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(line.reply("GET").body, "ok\n");
    line.send(b"G");
    assert_eq!(line.rest(), "");
}

#[test]
fn a_process_that_does_not_answer_is_not_waited_for() {
    let (release, released) = unbounded::<()>();
    let mut bounds = Bounds::USUAL;
    bounds.request = SOON;
    let site = Site::with(Plan {
        bounds,
        process: Box::new(move |_, _| {
            released.recv().unwrap_or(());
            Ok(Done::Changed)
        }),
        ..Plan::default()
    });
    let (status, text) = site.fault("POST", "/api/v1/confirm", "");
    assert_eq!((status, text.contains("not done in time")), (503, true));
    // The thread itself goes on.
    assert_eq!(site.ask("GET", "/healthz", "").status, 200);
    drop(release);
}

#[test]
fn questions_that_wait_for_the_process_are_bounded() {
    let (release, released) = unbounded::<()>();
    let mut bounds = Bounds::USUAL;
    (bounds.request, bounds.asks) = (SOON, 2);
    let site = Site::with(Plan {
        bounds,
        process: Box::new(move |_, _| {
            released.recv().unwrap_or(());
            Ok(Done::Changed)
        }),
        ..Plan::default()
    });
    for _ in 0..4 {
        assert_eq!(site.fault("POST", "/api/v1/confirm", "").0, 503);
    }
    // Those that have given up hold their places until the process has answered them.
    assert!(site.shared.requests.len() <= 1);
    drop(release);
    // The first answers free the places: granted, as soon as the process has come so far.
    while site.ask("POST", "/api/v1/confirm", "").status != 200 {}
}

#[test]
fn one_connection_too_many_waits_for_a_place() {
    let site = site(|bounds| bounds.connections = 2);
    let (mut first, mut second) = (site.connect(), site.connect());
    for line in [&mut first, &mut second] {
        line.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(line.reply("GET").status, 200);
    }
    let mut third = site.connect();
    third.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    third.0.set_read_timeout(Some(SOON)).unwrap();
    let error = third.0.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    // The other transport has places of its own.
    assert_eq!(site.ask_tcp("GET", "/healthz", &[]).status, 200);
    drop(first);
    third
        .0
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    assert_eq!(third.reply("GET").status, 200);
}

#[test]
fn half_a_request_and_an_end_harm_nobody() {
    let site = Site::new();
    for part in [
        &b""[..],
        b"GET /hea",
        b"POST /api/v1/confirm HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
        b"\0\xff\x16\x03\x01",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut line = site.connect();
        line.send(part);
        line.0.shutdown(Shutdown::Write).unwrap();
        let answer = line.rest();
        assert!(!answer.contains(" 200 "), "{answer}");
    }
    assert!(site.asked.lock().unwrap().is_empty());
    assert_eq!(site.ask("GET", "/healthz", "").status, 200);
}

#[test]
fn a_client_that_has_said_all_is_still_answered() {
    let site = Site::new();
    let mut line = site.connect_tcp();
    line.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    line.0.shutdown(Shutdown::Write).unwrap();
    assert_eq!(line.reply("GET").body, "ok\n");
    assert_eq!(line.rest(), "");
}

#[test]
fn requests_in_a_row_are_answered_in_order() {
    let site = Site::new();
    let mut line = site.connect();
    let get = |path| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let all = get("/healthz") + &get("/nowhere") + &get("/readyz");
    line.send(all.as_bytes());
    let statuses = [(); 3].map(|()| line.reply("GET").status);
    assert_eq!(statuses, [200, 404, 200]);
}

#[test]
fn a_reader_that_takes_nothing_is_cut_off() {
    let mut bounds = Bounds::USUAL;
    (bounds.sending, bounds.idle) = (SOON, SOON);
    let site = Site::with(Plan {
        bounds,
        ..Plan::default()
    });
    let mut roster = super::harness::roster();
    // More than any socket buffer takes.
    roster.origin.differences = vec!["x".repeat(64 << 20)];
    site.shared.board.publish(roster);
    let mut line = site.connect();
    line.send(b"GET /api/v1/status HTTP/1.1\r\nHost: x\r\n\r\n");
    // Nothing is read until a write says that the other end has closed.
    let error = loop {
        if let Err(error) = line.0.write_all(b"G") {
            break error;
        }
    };
    assert_ne!(error.kind(), ErrorKind::WouldBlock);
}

/// Set in the child alone, which is this test once more with few descriptors.
const CHILD: &str = "EVENKEEL_TEST_FEW_DESCRIPTORS";

#[test]
fn accepting_goes_on_once_there_are_descriptors_again() {
    let name = "admin::tests::bounds::accepting_goes_on_once_there_are_descriptors_again";
    if std::env::var_os(CHILD).is_none() {
        let output = Command::new("sh")
            .args(["-c", "ulimit -n 40; exec \"$0\" --exact \"$1\" --nocapture"])
            .arg(std::env::current_exe().unwrap())
            .arg(name)
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}"
        );
        return;
    }
    let site = Site::new();
    let mut held = Vec::new();
    while let Ok(stream) = UnixStream::connect(site.socket()) {
        held.push(stream);
    }
    assert!(held.len() > 3);
    drop(held);
    assert_eq!(site.ask("GET", "/healthz", "").status, 200);
}
