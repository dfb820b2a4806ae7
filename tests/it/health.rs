//! Health: what a probe asks, what it makes of the answer, and what that does to new connections.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::harness::peers::{Peer, Refusing, Server, connect};
use crate::harness::program::Evenkeel;
use crate::harness::servers::{Greeter, greeted, visits};
use crate::harness::{eventually, pause, with_health, with_pool};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
const BROKEN: &str = "HTTP/1.1 503 Broken\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// A server whose answers to checks a test sets, and that tells clients its name.
#[derive(Clone)]
struct Site {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    answer: Mutex<String>,
    /// Used up before `answer`, one a probe.
    next: Mutex<VecDeque<String>>,
    requests: Mutex<Vec<String>>,
    probes: AtomicUsize,
    /// Bytes one at a time, never to the end.
    drips: AtomicBool,
    slow: AtomicBool,
}

impl Site {
    fn open(name: u8) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let site = Self {
            address: listener.local_addr().unwrap(),
            shared: Arc::default(),
        };
        site.answer(OK);
        let shared = Arc::clone(&site.shared);
        // Ends with the test binary: sites are few and idle.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.converse(name, stream));
            }
        });
        site
    }

    fn answer(&self, answer: &str) {
        answer.clone_into(&mut self.shared.answer.lock().unwrap());
    }

    /// Waits for probes that begin from now on.
    fn wait_for_probes(&self, count: usize) {
        let start = self.shared.probes.load(Ordering::SeqCst);
        eventually("probes", || {
            self.shared.probes.load(Ordering::SeqCst) >= start + count
        });
    }
}

impl Shared {
    fn converse(&self, name: u8, mut stream: TcpStream) {
        let mut request = [0; 1024];
        let length = stream.read(&mut request).unwrap_or(0);
        if request.starts_with(b"who") {
            // The client may be gone; then nobody needs the name.
            drop(stream.write_all(&[name]));
            return;
        }
        if length == 0 {
            return;
        }
        self.requests
            .lock()
            .unwrap()
            .push(String::from_utf8_lossy(&request[..length]).into_owned());
        self.probes.fetch_add(1, Ordering::SeqCst);
        if self.slow.load(Ordering::SeqCst) {
            pause(Duration::from_millis(60));
        }
        let next = self.next.lock().unwrap().pop_front();
        let answer = next.unwrap_or_else(|| self.answer.lock().unwrap().clone());
        if self.drips.load(Ordering::SeqCst) {
            let mut bytes = answer.bytes().cycle();
            while stream
                .write_all(&[bytes.next().expect("an answer")])
                .is_ok()
            {
                pause(Duration::from_millis(20));
            }
        }
        // The prober may have heard enough.
        drop(stream.write_all(answer.as_bytes()));
    }
}

/// Who answers one new connection; `None` where it was refused.
fn who(address: SocketAddr) -> Option<u8> {
    let mut client = connect(address);
    let mut name = [0];
    client
        .write_all(b"who")
        .and_then(|()| client.read_exact(&mut name))
        .ok()?;
    Some(name[0])
}

fn names(evenkeel: &Evenkeel, count: usize) -> Vec<Option<u8>> {
    (0..count).map(|_| who(evenkeel.address())).collect()
}

/// Waits until ten connections in a row are answered by `expected` alone.
#[track_caller]
fn wait_for_all(evenkeel: &Evenkeel, expected: Option<u8>) {
    let what = format!("all answers by {:?}", expected.map(char::from));
    eventually(&what, || {
        names(evenkeel, 10).iter().all(|name| *name == expected)
    });
}

fn http(lines: &str, sites: &[&Site]) -> String {
    let health = format!(
        "    algorithm: round_robin\n    retries: 0\n    health: {{type: http, path: /health, \
         interval: 300ms, timeout: 300ms, rise: 2, fall: 2{lines}}}"
    );
    let servers: Vec<_> = sites.iter().map(|site| site.address).collect();
    with_health("workers: 1", &health, &servers)
}

fn tcp(servers: &[SocketAddr]) -> String {
    let health = "    algorithm: round_robin\n    retries: 0\n    \
                  health: {type: tcp, interval: 300ms, timeout: 300ms, rise: 2, fall: 2}";
    with_health("workers: 1", health, servers)
}

#[test]
fn a_server_that_stops_listening_gets_no_new_connections_until_it_is_back() {
    let (port, other) = (Refusing::new(), Greeter::listen(b'b'));
    let mut server = Greeter::serve(b'a', port.listen());
    let evenkeel = Evenkeel::start(&tcp(&[port.address(), other.address()]));
    let (mut held, _) = (0..2)
        .map(|_| greeted(evenkeel.address()))
        .find(|each| each.1 == b'a')
        .unwrap();
    server.stop();
    eventually("b alone answers", || {
        (0..10).all(|_| answers(&evenkeel) == Some(b'b'))
    });
    held.write_all(b"still here").unwrap();
    held.expect(b"still here");
    let _server = Greeter::serve(b'a', port.listen());
    eventually("a answers again", || answers(&evenkeel) == Some(b'a'));
    eventually("both take turns", || {
        let names = visits(evenkeel.address(), 10);
        names.matches('a').count() == 5
    });
}

/// The greeting of one new connection; `None` where it was refused.
fn answers(evenkeel: &Evenkeel) -> Option<u8> {
    let mut name = [0];
    evenkeel
        .connect()
        .read_exact(&mut name)
        .ok()
        .map(|()| name[0])
}

#[test]
fn a_server_that_is_down_at_the_start_is_never_picked() {
    let (port, other) = (Refusing::new(), Greeter::listen(b'b'));
    let evenkeel = Evenkeel::start(&tcp(&[port.address(), other.address()]));
    assert_eq!(visits(evenkeel.address(), 10), "bbbbbbbbbb");
}

#[test]
fn all_servers_down_is_no_server_and_a_reset() {
    let port = Refusing::new();
    let evenkeel = Evenkeel::start(&tcp(&[port.address()]));
    evenkeel.connect().expect_reset();
    assert_eq!(evenkeel.end().end(), "no_server");
    assert!(
        evenkeel
            .errors()
            .text()
            .contains("pool web has no server up")
    );
    let _server = Greeter::serve(b'a', port.listen());
    eventually("the server answers", || answers(&evenkeel) == Some(b'a'));
    eventually("it is told", || {
        evenkeel
            .errors()
            .text()
            .contains("pool web has a server up again")
    });
}

#[test]
fn http_status_decides() {
    let (a, b) = (Site::open(b'a'), Site::open(b'b'));
    let evenkeel = Evenkeel::start(&http("", &[&a, &b]));
    assert_eq!(
        names(&evenkeel, 10)
            .iter()
            .filter(|name| **name == Some(b'a'))
            .count(),
        5
    );
    a.answer(BROKEN);
    wait_for_all(&evenkeel, Some(b'b'));
    b.answer(BROKEN);
    wait_for_all(&evenkeel, None);
    a.answer(OK);
    wait_for_all(&evenkeel, Some(b'a'));
}

#[test]
fn a_server_that_stays_down_for_another_reason_is_told() {
    let a = Site::open(b'a');
    a.answer(BROKEN);
    let evenkeel = Evenkeel::start(&http("", &[&a]));
    let errors = evenkeel.errors();
    errors.wait_for("is down: http 503 (first check)");
    a.wait_for_probes(3);
    assert!(!errors.text().contains("stays down"), "{}", errors.text());
    a.answer("HTTP/1.1 401 Who\r\nContent-Length: 0\r\n\r\n");
    errors.wait_for(" stays down: http 401");
}

#[test]
fn http_asks_for_the_path_and_the_host() {
    let a = Site::open(b'a');
    let _evenkeel = Evenkeel::start(&http(", host: db.example", &[&a]));
    let request = a.shared.requests.lock().unwrap()[0].clone();
    assert!(request.starts_with("GET /health HTTP/1.1\r\n"), "{request}");
    assert!(
        request.to_lowercase().contains("\r\nhost: db.example\r\n"),
        "{request}"
    );
    assert!(request.ends_with("\r\n\r\n"), "{request}");
}

#[test]
fn http_statuses_and_bodies_can_be_chosen() {
    let a = Site::open(b'a');
    a.answer("HTTP/1.1 299 Odd\r\nConnection: close\r\n\r\nall is well");
    let config = http(
        ", expect_status: '200-299,304', expect_body: is well",
        &[&a],
    );
    let evenkeel = Evenkeel::start(&config);
    assert_eq!(who(evenkeel.address()), Some(b'a'));
    a.answer("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall is lost");
    wait_for_all(&evenkeel, None);
    a.answer("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nall is well");
    wait_for_all(&evenkeel, Some(b'a'));
    a.answer("HTTP/1.1 404 Not Found\r\nContent-Length: 11\r\n\r\nall is well");
    wait_for_all(&evenkeel, None);
    // By definition a 304 has no body.
    a.answer("HTTP/1.1 304 Not Modified\r\n\r\n");
    let bodiless = Evenkeel::start(&http(", expect_status: '200-299,304'", &[&a]));
    assert_eq!(who(bodiless.address()), Some(b'a'));
}

#[test]
fn odd_answers_are_down_and_bounded() {
    let endless = "x".repeat(10 << 20);
    let odd = [
        "HTTP/1.1 99999 Much\r\n\r\n",
        "SSH-2.0-OpenSSH_9\r\n",
        "\0\0\0\0",
        "HTTP/1.1 200",
        &endless,
    ];
    for answer in odd {
        let (a, b) = (Site::open(b'a'), Site::open(b'b'));
        a.answer(answer);
        let evenkeel = Evenkeel::start(&http("", &[&a, &b]));
        let shown = &answer[..answer.len().min(20)];
        assert!(
            names(&evenkeel, 6).iter().all(|name| *name == Some(b'b')),
            "{shown:?}"
        );
        a.wait_for_probes(3);
        assert!(evenkeel.proc().resident_kib() < 100 * 1024, "{shown:?}");
    }
}

#[test]
fn a_server_that_drips_its_answer_is_down() {
    let (a, b) = (Site::open(b'a'), Site::open(b'b'));
    a.shared.drips.store(true, Ordering::SeqCst);
    let evenkeel = Evenkeel::start(&http("", &[&a, &b]));
    assert!(names(&evenkeel, 6).iter().all(|name| *name == Some(b'b')));
    a.shared.drips.store(false, Ordering::SeqCst);
    eventually("a answers", || who(evenkeel.address()) == Some(b'a'));
    a.shared.drips.store(true, Ordering::SeqCst);
    wait_for_all(&evenkeel, Some(b'b'));
}

#[test]
fn fewer_failures_than_fall_change_nothing() {
    let a = Site::open(b'a');
    let config = http("", &[&a]).replace("fall: 2", "fall: 3");
    let evenkeel = Evenkeel::start(&config);
    for _ in 0..5 {
        let failures = [BROKEN, BROKEN, OK].map(str::to_owned);
        a.shared.next.lock().unwrap().extend(failures);
        while !a.shared.next.lock().unwrap().is_empty() {
            assert_eq!(who(evenkeel.address()), Some(b'a'));
        }
    }
}

#[test]
fn rise_good_answers_in_a_row_bring_a_server_back() {
    let a = Site::open(b'a');
    a.answer(BROKEN);
    let evenkeel = Evenkeel::start(&http("", &[&a]).replace("rise: 2", "rise: 3"));
    let flapping = [OK, OK, BROKEN].map(str::to_owned);
    a.shared
        .next
        .lock()
        .unwrap()
        .extend(flapping.iter().cycle().take(9).cloned());
    while !a.shared.next.lock().unwrap().is_empty() {
        assert_eq!(who(evenkeel.address()), None);
    }
    a.answer(OK);
    wait_for_all(&evenkeel, Some(b'a'));
}

#[test]
fn listeners_open_once_the_first_probe_is_answered() {
    let probed = Server::listen();
    let health = "    health: {type: http, path: /, interval: 15s, timeout: 15s}";
    let evenkeel = Evenkeel::launch(&with_health("workers: 1", health, &[probed.address()]));
    let mut probe = probed.accept();
    let mut request = [0; 1024];
    assert!(probe.read(&mut request).unwrap() > 0);
    let said = evenkeel.errors().text();
    assert!(
        !said.contains("ready: ") && !said.contains("listening on "),
        "{said}"
    );
    probe.write_all(OK.as_bytes()).unwrap();
    drop(probe);
    evenkeel.errors().wait_for("listening on ");
    evenkeel.errors().wait_for("ready: ");
}

#[test]
fn listeners_open_when_the_first_probe_times_out() {
    let silent = Server::listen();
    let health = "    health: {type: http, path: /, interval: 1s, timeout: 200ms}";
    let evenkeel = Evenkeel::start(&with_health("workers: 1", health, &[silent.address()]));
    evenkeel.connect().expect_reset();
    assert_eq!(evenkeel.end().end(), "no_server");
}

#[test]
fn a_process_that_was_stopped_blames_no_server() {
    let (a, b) = (Site::open(b'a'), Site::open(b'b'));
    for site in [&a, &b] {
        site.shared.slow.store(true, Ordering::SeqCst);
    }
    let config = http("", &[&a, &b])
        .replace("fall: 2", "fall: 1")
        .replace("timeout: 300ms", "timeout: 250ms");
    let evenkeel = Evenkeel::start(&config);
    for _ in 0..4 {
        a.wait_for_probes(1);
        evenkeel.signal("STOP");
        // Long enough for every probe under way to be overdue.
        pause(Duration::from_millis(500));
        evenkeel.signal("CONT");
        let names = names(&evenkeel, 10);
        assert_eq!(
            names.iter().filter(|name| **name == Some(b'a')).count(),
            5,
            "{names:?}"
        );
    }
}

#[test]
fn a_check_can_use_another_port() {
    let (service, checked) = (Greeter::listen(b's'), Site::open(b'c'));
    checked.answer(BROKEN);
    let health = format!(
        "    health: {{type: http, path: /, interval: 300ms, timeout: 300ms, rise: 1, fall: 1, \
         port: {}}}",
        checked.address.port()
    );
    let evenkeel = Evenkeel::start(&with_health("workers: 1", &health, &[service.address()]));
    assert_eq!(answers(&evenkeel), None);
    checked.answer(OK);
    eventually("the server is up", || answers(&evenkeel) == Some(b's'));
    assert!(checked.shared.probes.load(Ordering::SeqCst) > 0);
}

#[test]
fn send_expect_looks_for_its_words() {
    let a = Site::open(b'a');
    a.answer("-LOADING\r\n");
    let health = "    retries: 0\n    health: {type: send_expect, send: \"PING\\r\\n\", \
                  expect: \"+PONG\", interval: 300ms, timeout: 300ms, rise: 1, fall: 1}";
    let evenkeel = Evenkeel::start(&with_health("workers: 1", health, &[a.address]));
    assert_eq!(who(evenkeel.address()), None);
    assert_eq!(a.shared.requests.lock().unwrap()[0], "PING\r\n");
    a.answer("banner\r\n+PONG\r\n");
    wait_for_all(&evenkeel, Some(b'a'));
}

#[test]
fn probes_leave_no_descriptor_behind() {
    let (a, port) = (Site::open(b'a'), Refusing::new());
    let down = Site {
        address: port.address(),
        shared: Arc::default(),
    };
    let evenkeel = Evenkeel::start(&http("", &[&a, &down]));
    let most = (0..20).map(|_| {
        a.wait_for_probes(1);
        evenkeel.proc().count("socket:")
    });
    let most = most.max().unwrap();
    let idle = Evenkeel::start(&with_pool("workers: 2", "", &[a.address]));
    // At most one socket a probe on top of what a program without checks has.
    assert!(most <= idle.proc().count("socket:") + 2, "{most} sockets");
}
