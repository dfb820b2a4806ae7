//! Event streams: what a reader is told, where it goes on, and how it ends.

use std::time::Duration;

use serde_json::Value;

use super::harness::{Plan, Site};
use crate::admin::bounds::Bounds;
use crate::telemetry::events::Kind;

const OPEN: &str = "GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n";

/// The lines of one message, without those of the chunks around it.
fn message<S: std::io::Read + std::io::Write>(line: &mut super::harness::Line<S>) -> String {
    let text = line.until("\n\n");
    let start = text.find("event: ").unwrap();
    text[start..].to_owned()
}

/// The next message that is no status.
fn event<S: std::io::Read + std::io::Write>(line: &mut super::harness::Line<S>) -> String {
    loop {
        let message = message(line);
        if !message.starts_with("event: status\n") {
            return message;
        }
    }
}

#[test]
fn a_stream_has_the_status_the_past_and_what_happens() {
    let site = Site::new();
    for number in 1..=60 {
        site.shared
            .events
            .add(Kind::Changed, format!("change {number}"));
    }
    let mut line = site.connect_tcp();
    line.send(format!("{OPEN}\r\n").as_bytes());
    let head = line.until("\r\n\r\n");
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    let status = message(&mut line);
    let data = status.strip_prefix("event: status\ndata: ").unwrap();
    let status: Value = serde_json::from_str(data).unwrap();
    assert_eq!(status["stage"], "serving");
    // The last 50 of 60.
    for number in 11..=60 {
        let text = event(&mut line);
        assert!(
            text.starts_with(&format!("event: event\nid: {number}\n")),
            "{text}"
        );
    }
    site.shared.events.add(Kind::ServerDown, "web/a: refused");
    let live = event(&mut line);
    assert!(
        live.contains(r#""kind":"server_down","text":"web/a: refused"}"#),
        "{live}"
    );
    // And the status again.
    while !message(&mut line).starts_with("event: status\n") {}
}

#[test]
fn a_reader_goes_on_after_the_last_event_that_it_has_seen() {
    let site = Site::new();
    for number in 1..=3 {
        site.shared.events.add(Kind::Changed, format!("{number}"));
    }
    let mut line = site.connect();
    line.send(format!("{OPEN}Last-Event-ID: 2\r\n\r\n").as_bytes());
    line.until("\r\n\r\n");
    assert!(event(&mut line).starts_with("event: event\nid: 3\n"));
}

#[test]
fn streams_are_bounded_and_a_place_comes_back() {
    let mut bounds = Bounds::USUAL;
    bounds.streams = 1;
    let site = Site::with(Plan {
        bounds,
        ..Plan::default()
    });
    let mut first = site.connect();
    first.send(format!("{OPEN}\r\n").as_bytes());
    message(&mut first);
    let (status, text) = site.fault("GET", "/api/v1/events", "");
    assert_eq!(
        (status, text.contains("1 event streams are open")),
        (503, true)
    );
    drop(first);
    // As soon as it is noticed.
    loop {
        let mut line = site.connect();
        line.send(format!("{OPEN}\r\n").as_bytes());
        if line.until("\r\n\r\n").contains(" 200 ") {
            break;
        }
    }
}

#[test]
fn a_stream_outlives_the_limits_of_requests_and_ends_in_order_with_the_process() {
    let soon = Duration::from_millis(50);
    let mut bounds = Bounds::USUAL;
    (bounds.request, bounds.sending, bounds.idle) = (soon, soon, soon);
    (bounds.head, bounds.goodbye) = (soon * 20, Duration::from_secs(20));
    let mut site = Site::with(Plan {
        bounds,
        ..Plan::default()
    });
    let mut stream = site.connect();
    stream.send(format!("{OPEN}\r\n").as_bytes());
    for _ in 0..2 {
        assert!(message(&mut stream).starts_with("event: status\n"));
    }
    assert!(site.socket().exists());
    site.stop();
    assert!(!site.socket().exists());
    let rest = stream.rest();
    // The last chunk: nothing was cut off.
    assert!(rest.ends_with("0\r\n\r\n"), "{rest}");
    assert!(std::net::TcpStream::connect(site.http).is_err());
}

#[test]
fn a_reader_that_takes_nothing_loses_its_stream() {
    let mut bounds = Bounds::USUAL;
    (bounds.sending, bounds.streams) = (Duration::from_millis(50), 1);
    let site = Site::with(Plan {
        bounds,
        ..Plan::default()
    });
    let mut roster = super::harness::roster();
    roster.origin.differences = vec!["x".repeat(8 << 20)];
    site.shared.board.publish(roster);
    let mut idle = site.connect();
    idle.send(format!("{OPEN}\r\n").as_bytes());
    idle.until("\r\n\r\n");
    while site.ask("HEAD", "/api/v1/events", "").status != 200 {}
}

#[test]
fn an_open_connection_does_not_hold_the_end_up_for_long() {
    let mut site = Site::new();
    let mut idle = site.connect();
    idle.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    idle.reply("GET");
    let mut half = site.connect_tcp();
    half.send(b"GET /heal");
    site.stop();
    assert_eq!((idle.rest(), half.rest()), (String::new(), String::new()));
}
