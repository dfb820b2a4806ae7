//! The servers and the load between real sockets: the servers against plain clients, the load
//! against a scripted server.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mio::{Poll, Waker};
use serde_json::{Value, json};

use super::dials::Dials;
use super::load::Load;
use super::place::Place;
use super::servers::Servers;
use super::{Demo, WAKE, clients};
use crate::admin::exhibit::Exhibit;
use crate::clock::Now;

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(20);

#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Now::read() + DEADLINE;
    while !condition() {
        assert!(Now::read() < deadline, "not within {DEADLINE:?}: {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

fn free() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// So many servers without a load.
fn servers(count: usize) -> Demo {
    let places: Vec<_> = (0..count).map(|_| Place::take(free()).unwrap()).collect();
    let addresses = places.iter().map(Place::address).collect();
    let dials = Arc::new(Dials::new(addresses, Vec::new()));
    let poll = Poll::new().unwrap();
    let waker = Waker::new(poll.registry(), WAKE).unwrap();
    let servers = Servers::new(poll, Arc::clone(&dials), places).unwrap();
    let mut demo = Demo {
        dials,
        loops: Vec::new(),
    };
    demo.run("servers", waker, || servers.run()).unwrap();
    demo
}

/// A load on `target`, which has so many servers, with at most `most` visits in flight.
fn load(target: SocketAddr, servers: u16, most: usize) -> Demo {
    let addresses = (1..=servers).map(|port| (Ipv4Addr::LOCALHOST, port).into());
    let dials = Arc::new(Dials::new(addresses.collect(), clients(target)));
    let poll = Poll::new().unwrap();
    let waker = Waker::new(poll.registry(), WAKE).unwrap();
    let load = Load::new(poll, Arc::clone(&dials), target, most);
    let mut demo = Demo {
        dials,
        loops: Vec::new(),
    };
    demo.run("load", waker, || load.run()).unwrap();
    demo
}

fn connect(demo: &Demo, server: usize) -> TcpStream {
    let stream = TcpStream::connect(demo.dials.servers[server].address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn ask(mut stream: &TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
}

/// The answer's body, and nothing of what follows.
fn body(mut stream: &TcpStream) -> String {
    let mut text = String::new();
    while !text.ends_with("}\n") {
        let mut buffer = [0; 1024];
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "it ended after {text:?}");
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn counts(demo: &Demo) -> Value {
    demo.show()["load"].clone()
}

/// Nothing that was opened is lost.
fn assert_balanced(load: &Value) {
    let count = |name: &str| load[name].as_u64().unwrap();
    assert_eq!(
        count("opened"),
        count("answered") + count("errors") + count("in_flight"),
        "{load}"
    );
}

/// Stops the load and waits until nothing is in flight and nothing has moved for a while: the loop
/// may be in the middle of a turn.
fn settle(demo: &Demo) -> Value {
    demo.change(&json!({"load": {"running": false}})).unwrap();
    let (mut last, mut same) = (counts(demo)["opened"].clone(), 0);
    eventually("the load comes to rest", || {
        let now = counts(demo);
        let rests = now["in_flight"] == 0 && now["opened"] == last;
        same = if rests { same + 1 } else { 0 };
        last = now["opened"].clone();
        same == 20
    });
    counts(demo)
}

#[test]
fn each_server_says_who_it_is_and_keeps_the_connection() {
    let demo = servers(3);
    for (index, name) in ["s1", "s2", "s3"].into_iter().enumerate() {
        let stream = connect(&demo, index);
        for _ in 0..2 {
            ask(&stream, "/");
            assert_eq!(body(&stream), format!("{{\"server\":\"{name}\"}}\n"));
        }
        ask(&stream, "/health");
        assert_eq!(body(&stream), "{\"health\":\"ok\"}\n");
    }
    let shown = demo.show();
    assert_eq!(shown["servers"]["s2"]["answered"], 2, "not its health");
}

#[test]
fn a_client_that_has_said_all_is_answered_and_closed() {
    let demo = servers(1);
    demo.change(&json!({"servers": {"s1": {"delay_ms": 50}}}))
        .unwrap();
    let mut stream = connect(&demo, 0);
    ask(&stream, "/");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("{\"server\":\"s1\"}\n"), "{text}");
}

#[test]
fn a_slow_server_delays_its_answers_but_not_its_health() {
    let demo = servers(1);
    let wish = json!({"servers": {"s1": {"delay_ms": 10_000}}});
    demo.change(&wish).unwrap();
    let slow = connect(&demo, 0);
    ask(&slow, "/");
    let well = connect(&demo, 0);
    for _ in 0..3 {
        ask(&well, "/health");
        body(&well);
    }
    slow.set_nonblocking(true).unwrap();
    let early = (&slow).read(&mut [0; 64]).unwrap_err();
    assert_eq!(early.kind(), ErrorKind::WouldBlock);
    assert_eq!(demo.show()["servers"]["s1"]["answered"], 0);
}

#[test]
fn a_killed_server_resets_and_refuses_and_comes_back_at_its_port() {
    let demo = servers(2);
    let alive = |is_alive: bool| json!({"servers": {"s1": {"alive": is_alive}}});
    let address = demo.dials.servers[0].address;
    for _ in 0..3 {
        let (open, other) = (connect(&demo, 0), connect(&demo, 1));
        for stream in [&open, &other] {
            ask(stream, "/");
            body(stream);
        }
        demo.change(&alive(false)).unwrap();
        assert_eq!(demo.show()["servers"]["s1"]["alive"], false);
        let cut = (&open).read(&mut [0; 64]).unwrap_err();
        assert_eq!(cut.kind(), ErrorKind::ConnectionReset);
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        // The others are not touched.
        ask(&other, "/");
        body(&other);
        demo.change(&alive(true)).unwrap();
        eventually("s1 accepts again", || TcpStream::connect(address).is_ok());
    }
}

#[test]
fn what_is_no_request_ends_its_connection_alone() {
    let demo = servers(1);
    let mut stream = connect(&demo, 0);
    stream.write_all(b"\x16\x03\x01 hello\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    let next = connect(&demo, 0);
    ask(&next, "/");
    body(&next);
}

/// Answers each connection with what `script` says for its number; nothing closes it.
fn scripted(script: impl Fn(usize) -> String + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind(free()).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut held = Vec::new();
        for number in 0.. {
            // The load has ended with its test, and with it the process soon.
            let Ok((mut stream, _)) = listener.accept() else {
                return;
            };
            let mut request = [0; 512];
            // A client that has gone is no matter of the script's.
            if stream.read(&mut request).is_ok() {
                stream.write_all(script(number).as_bytes()).unwrap_or(());
            }
            held.push(stream);
        }
    });
    address
}

fn says(status: &str, server: &str) -> String {
    let body = format!("{{\"server\":\"{server}\"}}");
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[test]
fn good_answers_are_told_from_bad_ones() {
    let target = scripted(|number| match number % 5 {
        0 => says("503 Service Unavailable", "s1"),
        1 => says("200 OK", "s9"),
        2 => "SSH-2.0-OpenSSH\r\n".into(),
        3 => says("200 OK", "s1"),
        _ => says("200 OK", "s2"),
    });
    let demo = load(target, 2, 64);
    eventually("a hundred answers", || {
        counts(&demo)["answered"].as_u64() >= Some(100)
    });
    let load = settle(&demo);
    assert_balanced(&load);
    let (answered, errors) = (load["answered"].as_u64(), load["errors"].as_u64());
    let (answered, errors) = (answered.unwrap(), errors.unwrap());
    // Three of five, to within the round that was not finished.
    assert!((errors * 2).abs_diff(answered * 3) <= 6, "{load}");
    assert_eq!(load["skipped"], 0);
    eventually("percentiles", || {
        counts(&demo)["latency_ms"]["p99"].is_f64()
    });
    let clients = demo.show()["clients"].clone();
    let clients = clients.as_array().unwrap();
    assert_eq!(clients.len(), 24);
    assert!(clients.iter().all(|client| client["server"] != "s9"));
}

#[test]
fn clients_have_addresses_of_their_own_and_remember_their_server() {
    let listener = TcpListener::bind(free()).unwrap();
    let target = listener.local_addr().unwrap();
    let demo = load(target, 24, 64);
    // Each gets the server of its own address, as a hash would have it.
    for _ in 0..100 {
        let (mut stream, client) = listener.accept().unwrap();
        let SocketAddr::V4(client) = client else {
            panic!("{client}");
        };
        let server = format!("s{}", client.ip().octets()[3] - 10);
        let mut request = [0; 512];
        assert!(stream.read(&mut request).unwrap() > 0);
        stream
            .write_all(says("200 OK", &server).as_bytes())
            .unwrap();
    }
    eventually("a hundred answers", || {
        counts(&demo)["answered"].as_u64() >= Some(100)
    });
    for client in demo.show()["clients"].as_array().unwrap() {
        let last = client["client"].as_str().unwrap().rsplit('.').next();
        let last: u8 = last.unwrap().parse().unwrap();
        assert_eq!(client["server"], format!("s{}", last - 10));
        assert_eq!(client["changes"], 0);
    }
}

#[test]
fn nothing_counts_before_the_listener_accepts() {
    let place = Place::take(free()).unwrap();
    let demo = load(place.address(), 1, 64);
    // Long enough for some refusals.
    thread::park_timeout(Duration::from_millis(300));
    let before = counts(&demo);
    assert_eq!(
        (&before["opened"], &before["errors"]),
        (&json!(0), &json!(0))
    );
    let listener = place.listen().unwrap();
    eventually("it begins", || counts(&demo)["opened"].as_u64() > Some(0));
    // Nobody accepts: what is in the backlog is in flight until the listener goes.
    drop(listener);
    eventually("from now on errors count", || {
        counts(&demo)["errors"].as_u64() > Some(3)
    });
    assert_balanced(&settle(&demo));
}

#[test]
fn what_is_in_flight_is_bounded_and_the_rest_is_skipped() {
    let listener = TcpListener::bind(free()).unwrap();
    let demo = load(listener.local_addr().unwrap(), 1, 7);
    eventually("visits are skipped", || {
        counts(&demo)["skipped"].as_u64() > Some(5)
    });
    eventually("seven wait", || counts(&demo)["in_flight"] == 7);
    assert_eq!(counts(&demo)["opened"], 7);
}

#[test]
fn a_load_that_is_stopped_opens_nothing() {
    let target = scripted(|_| says("200 OK", "s1"));
    let demo = load(target, 1, 64);
    eventually("it runs", || counts(&demo)["answered"].as_u64() > Some(5));
    let stopped = settle(&demo);
    thread::park_timeout(Duration::from_millis(300));
    assert_eq!(counts(&demo)["opened"], stopped["opened"]);
    demo.change(&json!({"load": {"running": true, "rate": 2000}}))
        .unwrap();
    let before = stopped["opened"].as_u64().unwrap();
    eventually("it runs again", || {
        counts(&demo)["answered"].as_u64() > Some(before + 100)
    });
}
