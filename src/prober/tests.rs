//! The prober as its users see it: real sockets on loopback, servers scripted by threads.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use socket2::{Domain, SockRef, Socket, Type};

use super::*;
use crate::config::{Check, HttpCheck};

/// Far longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(20);

/// Long enough for answers on a busy machine; only tests of silence wait for all of it.
const PATIENT: Duration = Duration::from_secs(10);
const HASTY: Duration = Duration::from_millis(300);

/// Treats each connection by a script, on a thread that ends with it.
struct Server {
    address: SocketAddr,
    is_ending: Arc<AtomicBool>,
}

fn serve(mut script: impl FnMut(TcpStream) + Send + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let is_ending = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&is_ending);
    thread::spawn(move || {
        for stream in listener.incoming() {
            if is_over.load(Ordering::Acquire) {
                break;
            }
            script(stream.unwrap());
        }
    });
    Server { address, is_ending }
}

/// Reads the request, then sends `answer` in pieces of `piece` bytes.
fn answering(answer: impl Into<Vec<u8>>, piece: usize) -> Server {
    let answer = answer.into();
    serve(move |mut stream| {
        read_request(&mut stream);
        stream.set_nodelay(true).unwrap();
        for part in answer.chunks(piece) {
            if stream.write_all(part).is_err() {
                // The prober has seen enough.
                return;
            }
        }
        end_in_order(stream);
    })
}

fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        request.push(byte[0]);
    }
}

/// Closing with unread bytes would be a reset.
fn end_in_order(mut stream: TcpStream) {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let rest = &mut Vec::new();
    if stream.shutdown(Shutdown::Write).is_ok() && stream.read_to_end(rest).is_err() {
        // A reset by the prober ends it as well.
    }
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_ending.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
    }
}

struct Watch {
    prober: Option<Prober>,
    reports: Receiver<Report>,
}

impl Watch {
    fn next(&self) -> Report {
        self.reports
            .recv_timeout(DEADLINE)
            .expect("a report within the deadline")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.prober.take().unwrap().stop();
    }
}

fn health(check: Check, timeout: Duration) -> Health {
    Health {
        check,
        interval: Duration::from_millis(20),
        timeout,
        rise: NonZeroU32::new(2).unwrap(),
        fall: NonZeroU32::new(3).unwrap(),
        port: None,
        tls: None,
    }
}

fn watch(address: SocketAddr, health: Health) -> Watch {
    let target = Target {
        server: ServerId::new(7),
        name: "pool/server".into(),
        address: address.into(),
        sources: Vec::new(),
        health: Arc::new(health),
        kit: Arc::default(),
        checkup: Arc::default(),
    };
    let (prober, reports) = start();
    prober.change(vec![Step::Watch(target)]);
    Watch {
        prober: Some(prober),
        reports,
    }
}

/// To be stopped before the receiver is dropped.
fn start() -> (Prober, Receiver<Report>) {
    let (sender, reports) = unbounded();
    let prober = spawn(move |report| sender.send(report).unwrap()).unwrap();
    (prober, reports)
}

fn http(expect_body: Option<&str>) -> Check {
    Check::Http(HttpCheck {
        path: "/".to_owned(),
        host: None,
        expect_status: vec![200..=200],
        expect_body: expect_body.map(str::to_owned),
    })
}

fn expect(expect: &str) -> Check {
    Check::SendExpect {
        send: b"hello\r\n\r\n".to_vec(),
        expect: expect.as_bytes().to_vec(),
    }
}

/// The first report about a server, as state and words.
fn first(server: &Server, check: Check, timeout: Duration) -> (bool, String) {
    let report = watch(server.address, health(check, timeout)).next();
    assert_eq!(report.server, ServerId::new(7));
    (report.is_up, report.reason.to_string())
}

fn up(words: &str) -> (bool, String) {
    (true, words.to_owned())
}

fn down(words: &str) -> (bool, String) {
    (false, words.to_owned())
}

#[test]
fn a_listening_server_is_up() {
    let server = serve(drop);
    assert_eq!(first(&server, Check::Tcp, PATIENT), up("connected"));
}

#[test]
fn a_closed_port_is_down() {
    for check in [Check::Tcp, http(None), expect("x")] {
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let report = watch(address, health(check, PATIENT)).next();
        assert_eq!(
            (report.is_up, report.reason.to_string()),
            down("connection refused")
        );
    }
}

#[test]
fn another_port_may_be_checked() {
    let server = serve(drop);
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut health = health(Check::Tcp, PATIENT);
    health.port = Some(server.address.port());
    assert!(watch(closed, health).next().is_up);
}

#[test]
fn ipv6_is_checked_too() {
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let address = listener.local_addr().unwrap();
    assert!(watch(address, health(Check::Tcp, PATIENT)).next().is_up);
}

#[test]
fn a_tcp_check_leaves_nothing_open() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let watch = watch(address, health(Check::Tcp, PATIENT));
    assert!(watch.next().is_up);
    drop(watch);
    listener.set_nonblocking(true).unwrap();
    // Held back, the handshake is never completed; where the prober was too late for that, the
    // server finds a reset, and never an open or an ended connection.
    while let Ok((mut stream, _)) = listener.accept() {
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_server_that_takes_no_connection_is_down() {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener
        .bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into())
        .unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    // A full backlog lets the kernel drop every further SYN.
    let fill = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
        drop(socket.connect(&address));
        socket
    };
    let _filling: Vec<_> = (0..4).map(fill).collect();
    let report = watch(address.as_socket().unwrap(), health(Check::Tcp, HASTY)).next();
    assert_eq!(
        report.reason.to_string(),
        "timeout after 300ms (connecting)"
    );
}

#[test]
fn a_server_that_says_nothing_is_down() {
    for check in [http(None), expect("x")] {
        let mut held = Vec::new();
        let server = serve(move |stream| held.push(stream));
        let words = "timeout after 300ms (waiting for the answer)";
        assert_eq!(first(&server, check, HASTY), down(words));
    }
}

#[test]
fn a_server_that_drips_is_down() {
    let (_never, pace) = mpsc::channel::<()>();
    let server = serve(move |mut stream| {
        read_request(&mut stream);
        for byte in b"HTTP/1.1 200 OK\r\n"
            .iter()
            .chain(std::iter::repeat(&b'a'))
        {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            assert!(pace.recv_timeout(Duration::from_millis(20)).is_err());
        }
    });
    let words = "timeout after 300ms (waiting for the answer)";
    assert_eq!(first(&server, http(None), HASTY), down(words));
}

#[test]
fn a_reset_is_down() {
    let server = serve(|mut stream| {
        read_request(&mut stream);
        reset(stream);
    });
    assert_eq!(
        first(&server, http(None), PATIENT),
        down("connection reset")
    );
}

#[test]
fn an_early_end_is_down() {
    let words = "connection closed without the expected answer";
    for check in [http(None), expect("x")] {
        assert_eq!(first(&answering("", 1), check, PATIENT), down(words));
    }
    let words = "connection closed before the answer was complete";
    let cut = answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", 100);
    assert_eq!(first(&cut, http(Some("abc")), PATIENT), down(words));
}

#[test]
fn a_banner_before_the_end_counts() {
    let server = serve(|mut stream| {
        stream.write_all(b"220 ready\r\n").unwrap();
        end_in_order(stream);
    });
    assert_eq!(
        first(&server, expect("220 "), PATIENT),
        up("answered as expected")
    );
}

#[test]
fn http_answers_are_judged_by_status_and_body() {
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nall well";
    let chunks =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nall w\r\n3\r\nell\r\n0\r\n\r\n";
    let until_close = "HTTP/1.0 200 OK\r\n\r\nall well";
    for answer in [length, chunks, until_close] {
        for piece in [1, 7, 1000] {
            let server = answering(answer, piece);
            assert_eq!(
                first(&server, http(Some("all well")), PATIENT),
                up("http 200")
            );
        }
        let server = answering(answer, 1000);
        let words = "http 200 without the expected body";
        assert_eq!(first(&server, http(Some("ill")), PATIENT), down(words));
    }
    let failing = answering("HTTP/1.1 503 Service Unavailable\r\n\r\nall well", 1000);
    assert_eq!(
        first(&failing, http(Some("all well")), PATIENT),
        down("http 503")
    );
}

#[test]
fn malformed_answers_are_down_with_a_reason() {
    let head = b"HTTP/1.1 200 OK\r\n".to_vec();
    let no_newline = [b"HTTP/1.1 200 ".to_vec(), vec![b'a'; 10_000_000]].concat();
    let many_headers = [head.clone(), b"a: b\r\n".repeat(100_000)].concat();
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100);
    let nul = [head, b"a: \0\r\n\r\n".to_vec()].concat();
    for (answer, words) in [
        (no_newline, "HTTP head longer than 16 KiB"),
        (many_headers, "more than 96 HTTP headers"),
        (interim, "more than 8 interim HTTP answers"),
        (nul, "malformed HTTP header"),
        (vec![0; 100], "not an HTTP/1 answer"),
        (
            b"HTTP/1.1 99999 OK\r\n\r\n".to_vec(),
            "malformed HTTP status line",
        ),
        (b"-ERR unknown command\r\n".to_vec(), "not an HTTP/1 answer"),
    ] {
        assert_eq!(
            first(&answering(answer, 1460), http(None), PATIENT),
            down(words)
        );
    }
}

#[test]
fn a_flood_is_cut_off() {
    let words = "more than 64 KiB without the expected answer";
    let flood = vec![b'a'; 10_000_000];
    assert_eq!(
        first(&answering(flood.clone(), 100_000), expect("b"), PATIENT),
        down(words)
    );
    let body = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), flood].concat();
    assert_eq!(
        first(&answering(body, 100_000), http(Some("b")), PATIENT),
        down(words)
    );
}

#[test]
fn changes_are_reported_once_and_by_rise_and_fall() {
    // One character a check: good or bad.
    let script = b"+--+---------------+-++++++++++++".iter();
    let mut script = script.copied();
    let server = serve(move |mut stream| {
        read_request(&mut stream);
        let Some(next) = script.next() else {
            return reset(stream);
        };
        let status = if next == b'+' { 200 } else { 500 };
        write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").unwrap();
        end_in_order(stream);
    });
    let watch = watch(server.address, health(http(None), PATIENT));
    let mut seen = Vec::new();
    for _ in 0..3 {
        let report = watch.next();
        seen.push((report.is_up, report.reason));
    }
    let (good, bad) = (Reason::Status(200), Reason::Status(500));
    assert_eq!(seen, [(true, good), (false, bad), (true, good)]);
}

#[test]
fn many_targets_get_their_first_answers() {
    let server = serve(drop);
    let health = Arc::new(health(Check::Tcp, PATIENT));
    let target = |index| Target {
        server: ServerId::new(index),
        name: "pool/server".into(),
        address: server.address.into(),
        sources: Vec::new(),
        health: Arc::clone(&health),
        kit: Arc::default(),
        checkup: Arc::default(),
    };
    let (prober, reports) = start();
    prober.change((0..500).map(target).map(Step::Watch).collect());
    let mut servers: Vec<_> = (0..500)
        .map(|_| reports.recv_timeout(DEADLINE).unwrap().server)
        .collect();
    servers.sort_unstable();
    assert!(servers.iter().map(|server| server.index()).eq(0..500));
    assert!(prober.lag().checks() >= 500);
    prober.stop();
}

#[test]
fn it_stops_with_checks_under_way() {
    let (accepted, has_accepted) = unbounded();
    let mut held = Vec::new();
    let server = serve(move |stream| {
        held.push(stream);
        accepted.send(()).unwrap();
    });
    let watch = watch(server.address, health(http(None), PATIENT));
    has_accepted.recv_timeout(DEADLINE).unwrap();
    drop(watch);
}

#[test]
fn targets_come_and_go_while_it_runs() {
    let (seen, checks) = unbounded();
    let server = serve(move |stream| {
        drop(stream);
        // Nobody counts any more once the test is over.
        seen.send(()).unwrap_or(());
    });
    let target = |index| Target {
        server: ServerId::new(index),
        name: "pool/server".into(),
        address: server.address.into(),
        sources: Vec::new(),
        health: Arc::new(health(expect("x"), PATIENT)),
        kit: Arc::default(),
        checkup: Arc::default(),
    };
    let (prober, reports) = start();
    let watched = target(0);
    prober.change(vec![Step::Watch(watched.clone())]);
    assert!(!reports.recv_timeout(DEADLINE).unwrap().is_up);
    for _ in 0..3 {
        checks.recv_timeout(DEADLINE).unwrap();
    }
    assert_eq!(watched.checkup.findings().is_up, Some(false));
    prober.change(vec![
        Step::Forget(watched.server),
        Step::Watch(target(1)),
        Step::Forget(ServerId::new(1)),
        Step::Watch(target(2)),
    ]);
    let report = reports.recv_timeout(DEADLINE).unwrap();
    assert_eq!(report.server, ServerId::new(2));
    assert_eq!(watched.checkup.findings().is_up, None);
    prober.stop();
    assert!(reports.is_empty());
}
