//! The rules of access on the real transports; the rules themselves have a table of their own.

use super::harness::{Plan, Site};

fn guarded() -> Site {
    Site::with(Plan {
        token: Some("s3cret\n"),
        ..Plan::default()
    })
}

#[test]
fn changes_over_tcp_need_the_token() {
    let site = guarded();
    let change = |headers: &[(&str, &str)]| site.ask_tcp("POST", "/api/v1/confirm", headers);
    let none = change(&[]);
    assert_eq!(none.header("www-authenticate"), Some("Bearer"));
    assert_eq!(none.fault().0, 401);
    let wrong = change(&[("Authorization", "Bearer nope")]);
    assert_eq!(wrong.fault(), (403, "wrong token".into()));
    let right = change(&[("Authorization", "Bearer s3cret")]);
    assert_eq!((right.status, &*right.body), (200, "{}"));
    assert_eq!(site.asked.lock().unwrap().len(), 1);
    let read = site.ask_tcp("GET", "/api/v1/status", &[("Authorization", "Bearer nope")]);
    assert_eq!(read.status, 403);
}

#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    let site = guarded();
    let mut line = site.connect_tcp();
    line.send(
        b"POST /api/v1/confirm HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 200000\r\n\r\n",
    );
    for _ in 0..200 {
        line.send(&[b' '; 1000]);
    }
    assert_eq!(line.reply("POST").fault().0, 401);
    let mut line = site.connect_tcp();
    line.send(b"POST /api/v1/confirm HTTP/1.1\r\nHost: 127.0.0.1\r\n");
    line.send(b"Content-Length: 200000\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(line.reply("POST").fault().0, 401);
}

#[test]
fn without_a_token_tcp_reads_and_the_unix_socket_does_everything() {
    let site = Site::new();
    assert_eq!(site.ask_tcp("GET", "/api/v1/status", &[]).status, 200);
    let fault = site.ask_tcp("POST", "/api/v1/confirm", &[]).fault();
    assert_eq!(fault, (403, "read-only: set admin.http_token_file".into()));
    assert_eq!(site.ask("POST", "/api/v1/confirm", "").status, 200);
}

#[test]
fn hosts_and_pages_from_elsewhere_are_turned_away() {
    let site = guarded();
    let ask = |headers: &[(&str, &str)]| site.ask_tcp("GET", "/healthz", headers).status;
    assert_eq!(ask(&[("Host", "evil.example")]), 421);
    assert_eq!(ask(&[("Host", "lb.example.com")]), 200);
    assert_eq!(ask(&[("Origin", "http://evil.example")]), 403);
    let here = site.http.to_string();
    let origin = format!("http://{here}");
    assert_eq!(ask(&[("Host", &here), ("Origin", &origin)]), 200);
    let mut line = site.connect_tcp();
    line.send(b"GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!(line.reply("GET").status, 400);
    // No Host is needed where no web page can come from.
    let mut line = site.connect();
    line.send(b"GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!(line.reply("GET").status, 200);
}

#[test]
fn a_file_s_path_comes_only_over_the_unix_socket() {
    let site = guarded();
    let mut line = site.connect_tcp();
    let token = [("Authorization", "Bearer s3cret")];
    let reply = line.ask("POST", "/api/v1/plan", &token, r#"{"file":"/etc/shadow"}"#);
    let (status, text) = reply.fault();
    assert_eq!(
        (status, text.contains("only over the admin socket")),
        (403, true)
    );
    assert!(site.asked.lock().unwrap().is_empty());
}
