//! PROXY headers, in and out: who the client is for the log, the rules and the servers, and what
//! becomes of those that send something else, or nothing. Real proxies stand in front and behind.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::daemons::{Daemon, nginx};
use crate::harness::peers::{Peer, Refusing, Server, connect, connect_from, ping};
use crate::harness::program::Evenkeel;
use crate::harness::servers::{Greeter, greeting};
use crate::harness::tools::{succeed, tool};
use crate::harness::{eventually, pause};

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n";
const V1_LOCAL: &[u8] = b"PROXY UNKNOWN\r\n";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const CLIENT: &str = "203.0.113.7:4711";

/// The same as [`V1`], with a TLV behind it.
fn v2() -> Vec<u8> {
    let addresses = [203, 0, 113, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 0xbb];
    let tlv = [4, 0, 2, 0xff, 0xfe];
    let head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11";
    [&head[..], &addresses, &tlv].concat()
}

fn config(listener: &str, pool: &str, servers: &[SocketAddr]) -> String {
    let list: String = servers.iter().map(|s| format!("      - {s}\n")).collect();
    format!(
        "workers: 1\nlisteners:\n  web:\n    bind: 127.0.0.1:0\n    pool: web\n{listener}\n\
         pools:\n  web:\n    health: off\n{pool}\n    servers:\n{list}"
    )
}

const ACCEPT: &str = "    proxy_protocol: accept\n    trusted_proxies: [127.0.0.1/32]\n";

fn accepting(server: &Server) -> Evenkeel {
    Evenkeel::start(&config(ACCEPT, "", &[server.address()]))
}

fn sending(version: &str, server: SocketAddr) -> Evenkeel {
    let pool = format!("    send_proxy: {version}\n");
    Evenkeel::start(&config("", &pool, &[server]))
}

/// How many connections there are in each phase that is not `relaying`.
fn waiting(evenkeel: &Evenkeel) -> usize {
    let answer = evenkeel
        .api()
        .request("GET", "/api/v1/connections", &[], None);
    let list = answer.expect(200);
    let list = list.as_array().unwrap();
    list.iter()
        .filter(|it| it["phase"] == "reading_header")
        .count()
}

fn listener(evenkeel: &Evenkeel) -> Value {
    let answer = evenkeel.api().request("GET", "/api/v1/status", &[], None);
    answer.expect(200)["listeners"]["web"]["connections"].clone()
}

#[test]
fn the_client_is_who_the_header_says_and_the_server_gets_only_what_follows() {
    let server = Server::listen();
    for header in [V1.to_vec(), v2()] {
        let evenkeel = accepting(&server);
        let mut client = evenkeel.connect();
        client.write_all(&[&header[..], b"hello"].concat()).unwrap();
        let mut serving = server.accept();
        serving.expect(b"hello");
        ping(&mut client, &mut serving);
        client.end();
        serving.expect_fin();
        drop(serving);
        let end = evenkeel.end();
        assert_eq!((end.end(), end.field("client")), ("client_closed", CLIENT));
        assert_eq!(
            end.field("upstream_bytes"),
            "9",
            "the header is not a part of it"
        );
    }
}

#[test]
fn a_header_may_be_cut_anywhere() {
    let server = Server::listen();
    for header in [V1.to_vec(), v2()] {
        let evenkeel = accepting(&server);
        let cut = |at: usize| {
            let mut client = evenkeel.connect();
            client.write_all(&header[..at]).unwrap();
            (client, at)
        };
        let clients: Vec<_> = (0..header.len()).map(cut).collect();
        eventually("all are waited for", || waiting(&evenkeel) == clients.len());
        for (mut client, at) in clients {
            client.write_all(&[&header[at..], b"x"].concat()).unwrap();
            let mut serving = server.accept();
            serving.expect(b"x");
            ping(&mut client, &mut serving);
        }
        let mut slow = evenkeel.connect();
        for byte in header.iter().chain(b"after") {
            slow.write_all(&[*byte]).unwrap();
        }
        server.accept().expect(b"after");
        let ends = evenkeel.ends(header.len());
        assert!(
            ends.iter().all(|end| end.field("client") == CLIENT),
            "{ends:?}"
        );
    }
}

#[test]
fn a_proxy_that_speaks_for_itself_is_the_client() {
    let server = Server::listen();
    let evenkeel = accepting(&server);
    for header in [V1_LOCAL, V2_LOCAL] {
        let mut client = evenkeel.connect();
        client.write_all(header).unwrap();
        let mut serving = server.accept();
        ping(&mut client, &mut serving);
        let own = client.local_addr().unwrap().to_string();
        drop((client, serving));
        eventually("its line says so", || {
            evenkeel
                .access()
                .iter()
                .any(|end| end.field("client") == own)
        });
    }
}

#[test]
fn whatever_else_comes_first_is_refused_and_counted() {
    let server = Server::listen();
    let evenkeel = accepting(&server);
    let cases: [&[u8]; 9] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        &[b'\r'; 20],
        &[b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0b 1234567890",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"\r\n\r\n\0\r\nQUIT\n\x2f\0\0\0",
    ];
    for bytes in cases {
        let mut client = evenkeel.connect();
        client.write_all(bytes).unwrap();
        client.expect_reset();
    }
    // A part, and then its end.
    let mut part = evenkeel.connect();
    part.write_all(&V1[..20]).unwrap();
    part.end();
    part.expect_reset();
    // Nothing at all is nothing wrong.
    let mut nothing = evenkeel.connect();
    nothing.end();
    nothing.expect_fin();
    let refused = cases.len() + 1;
    let mut ends: Vec<_> = evenkeel
        .ends(refused + 1)
        .iter()
        .map(|e| e.end().to_owned())
        .collect();
    assert_eq!(ends.pop().unwrap(), "client_closed");
    assert!(ends.iter().all(|end| end == "bad_proxy_header"), "{ends:?}");
    let counts = listener(&evenkeel);
    assert_eq!(counts["refused"], refused);
    assert_eq!(
        (&counts["total"], &counts["active"]),
        (&(refused + 1).into(), &0.into())
    );
    let metrics = evenkeel.api().request("GET", "/metrics", &[], None).body;
    let line = format!("refused_total{{listener=\"web\",reason=\"bad_proxy_header\"}} {refused}");
    assert!(metrics.contains(&line), "{metrics}");
    assert!(server.accept_pending().is_none(), "no server was touched");
}

#[test]
fn a_peer_that_is_not_trusted_is_refused_before_it_says_anything() {
    let server = Server::listen();
    let evenkeel = accepting(&server);
    connect_from([127, 0, 0, 9], evenkeel.address()).expect_reset();
    let end = evenkeel.end();
    assert_eq!(end.end(), "bad_proxy_header");
    assert!(end.field("client").starts_with("127.0.0.9:"));
    let told = "listener web: 1 connection without a good PROXY header (bad_proxy_header)";
    evenkeel.errors().wait_for(told);
    assert!(server.accept_pending().is_none());
}

#[test]
fn a_header_that_is_late_is_refused() {
    let server = Server::listen();
    let lines = format!("{ACCEPT}    header_timeout: 200ms\n");
    let evenkeel = Evenkeel::start(&config(&lines, "", &[server.address()]));
    let mut silent = evenkeel.connect();
    let mut slow = evenkeel.connect();
    slow.write_all(&V1[..10]).unwrap();
    silent.expect_reset();
    slow.expect_reset();
    let ends = evenkeel.ends(2);
    assert!(
        ends.iter().all(|end| end.end() == "bad_proxy_header"),
        "{ends:?}"
    );
    // The timeout ends with the header.
    let mut client = evenkeel.connect();
    client.write_all(V1).unwrap();
    let mut serving = server.accept();
    pause(std::time::Duration::from_millis(400));
    ping(&mut client, &mut serving);
}

#[test]
fn the_rules_at_the_door_look_at_who_the_header_names() {
    let server = Server::listen();
    let lines = format!("{ACCEPT}    deny: [192.0.2.0/24]\n    max_connections_per_ip: 1\n");
    let evenkeel = Evenkeel::start(&config(&lines, "", &[server.address()]));
    let visit = |header: &[u8]| {
        let mut client = evenkeel.connect();
        client.write_all(header).unwrap();
        client
    };
    visit(b"PROXY TCP4 192.0.2.9 198.51.100.1 1 2\r\n").expect_reset();
    let (mut first, mut serving) = (visit(V1), server.accept());
    ping(&mut first, &mut serving);
    visit(V1).expect_reset();
    let mut other = visit(b"PROXY TCP4 203.0.113.8 198.51.100.1 1 2\r\n");
    ping(&mut other, &mut server.accept());
    drop((first, serving));
    let ends: Vec<_> = evenkeel
        .ends(3)
        .iter()
        .map(|e| e.end().to_owned())
        .collect();
    assert_eq!(&ends[..2], ["denied", "limit"]);
    // Its place is free again.
    let mut again = visit(V1);
    ping(&mut again, &mut server.accept());
}

/// Its end comes with the header, so that nothing tells of it while it waits.
#[test]
fn a_client_that_leaves_right_behind_its_header_keeps_no_place_in_the_queue() {
    let server = Server::listen();
    let pool = "    queue: {limit: 5, timeout: 1m}\n";
    let text = config(ACCEPT, pool, &[server.address()]).replace(
        &format!("- {}", server.address()),
        &format!(
            "- {{address: \"{}\", max_connections: 1}}",
            server.address()
        ),
    );
    let evenkeel = Evenkeel::start(&text);
    let mut first = evenkeel.connect();
    first.write_all(V1).unwrap();
    let serving = server.accept();
    let mut left = evenkeel.connect();
    left.write_all(V1).unwrap();
    left.end();
    assert_eq!(evenkeel.end().end(), "client_closed");
    left.expect_fin();
    let mut stays = evenkeel.connect();
    stays.write_all(&[V1, b"request"].concat()).unwrap();
    stays.end();
    drop((first, serving));
    server.accept().expect(b"request");
}

#[test]
fn ip_hash_goes_by_the_address_in_the_header() {
    let greeters = [b'a', b'b', b'c'].map(Greeter::listen);
    let servers: Vec<_> = greeters.iter().map(Greeter::address).collect();
    let pool = "    algorithm: ip_hash\n";
    let evenkeel = Evenkeel::start(&config(ACCEPT, pool, &servers));
    let visit = |host: u8| {
        let mut client = evenkeel.connect();
        let header = format!("PROXY TCP4 203.0.113.{host} 198.51.100.1 1 2\r\n");
        client.write_all(header.as_bytes()).unwrap();
        greeting(client).1
    };
    let first: Vec<u8> = (0..24).map(visit).collect();
    let again: Vec<u8> = (0..24).map(visit).collect();
    assert_eq!(first, again);
    assert!(
        [b'a', b'b', b'c'].iter().all(|name| first.contains(name)),
        "{first:?}"
    );
}

#[test]
fn a_server_is_told_of_the_client_before_anybody_speaks() {
    let server = Server::listen();
    let v1 = sending("v1", server.address());
    let (mut client, mut serving) = v1.pair(&server);
    let (own, door) = (client.local_addr().unwrap(), v1.address());
    let line = format!(
        "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n",
        own.port(),
        door.port()
    );
    serving.expect(line.as_bytes());
    // The server speaks first.
    serving.write_all(b"hello").unwrap();
    client.expect(b"hello");
    ping(&mut client, &mut serving);
    client.end();
    serving.expect_fin();
    drop(serving);
    let end = v1.end();
    assert_eq!(
        (end.field("upstream_bytes"), end.field("downstream_bytes")),
        ("4", "9")
    );

    let v2 = sending("v2", server.address());
    let (client, mut serving) = v2.pair(&server);
    let (own, door) = (client.local_addr().unwrap(), v2.address());
    let ports = [own.port().to_be_bytes(), door.port().to_be_bytes()].concat();
    let head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01";
    serving.expect(&[&head[..], &ports].concat());
    client.end();
    serving.expect_fin();
    drop(serving);
    assert_eq!(v2.end().field("upstream_bytes"), "0");
}

#[test]
fn what_came_in_goes_out() {
    let server = Server::listen();
    let pool = "    send_proxy: v1\n";
    let evenkeel = Evenkeel::start(&config(ACCEPT, pool, &[server.address()]));
    let v6: &[u8] = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n";
    for (sent, told) in [(V1, V1), (&v2(), V1), (v6, v6)] {
        let mut client = evenkeel.connect();
        client.write_all(&[sent, b"payload"].concat()).unwrap();
        server.accept().expect(&[told, b"payload"].concat());
    }
    for local in [V1_LOCAL, V2_LOCAL] {
        let mut client = evenkeel.connect();
        client.write_all(local).unwrap();
        let (own, door) = (client.local_addr().unwrap(), evenkeel.address());
        let line = format!(
            "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n",
            own.port(),
            door.port()
        );
        server.accept().expect(line.as_bytes());
    }
    // Who has no address has none further on.
    let unix = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8"[..], &[b'/'; 216]].concat();
    let mut client = evenkeel.connect();
    client.write_all(&unix).unwrap();
    let mut serving = server.accept();
    serving.expect(V1_LOCAL);
    ping(&mut client, &mut serving);
}

#[test]
fn the_server_that_takes_over_is_told_as_well() {
    let server = Server::listen();
    let refusing = [Refusing::new(), Refusing::new()];
    let servers = [
        refusing[0].address(),
        refusing[1].address(),
        server.address(),
    ];
    let pool = "    send_proxy: v2\n    algorithm: first\n";
    let evenkeel = Evenkeel::start(&config(ACCEPT, pool, &servers));
    let mut client = evenkeel.connect();
    client.write_all(&[V1, b"once"].concat()).unwrap();
    let mut serving = server.accept();
    let mut header = v2()[..28].to_vec();
    header[15] = 12;
    serving.expect(&[&header[..], b"once"].concat());
    ping(&mut client, &mut serving);
}

#[test]
fn evenkeel_believes_evenkeel() {
    let server = Server::listen();
    for version in ["v1", "v2"] {
        let behind = accepting(&server);
        let front = sending(version, behind.address());
        let mut client = connect_from([127, 0, 0, 5], front.address());
        client.write_all(b"hello").unwrap();
        let mut serving = server.accept();
        serving.expect(b"hello");
        ping(&mut client, &mut serving);
        let own = client.local_addr().unwrap().to_string();
        client.end();
        serving.expect_fin();
        drop(serving);
        assert_eq!(behind.end().field("client"), own);
    }
}

#[test]
fn nginx_takes_our_headers() {
    let folder = TempDir::new().unwrap();
    let (http, stream) = (Refusing::new(), Refusing::new());
    let said = "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_port";
    let servers = format!(
        "http {{ access_log off; server {{ listen {} proxy_protocol; location / {{ return 200 \"{said}\\n\"; }} }} }}\n\
         stream {{ server {{ listen {} proxy_protocol; return \"{said}\\n\"; }} }}",
        http.address(),
        stream.address()
    );
    let stream = stream.address();
    let http = nginx(folder.path(), http, &servers);
    for version in ["v1", "v2"] {
        let evenkeel = sending(version, http.address());
        let url = format!("http://{}/", evenkeel.address());
        let mut curl = Command::new("curl");
        let answer =
            succeed(curl.args(["-sS", "--max-time", "20", "--interface", "127.0.0.6", &url]));
        let door = evenkeel.address().port().to_string();
        let words: Vec<_> = answer.split_whitespace().collect();
        assert_eq!((words[0], words[2]), ("127.0.0.6", door.as_str()));
        // It answers without being asked.
        let evenkeel = sending(version, stream);
        let mut client = evenkeel.connect();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        let (own, door) = (client.local_addr().unwrap(), evenkeel.address());
        assert_eq!(
            answer,
            format!("127.0.0.1 {} {}\n", own.port(), door.port())
        );
    }
}

fn haproxy(folder: &TempDir, option: &str, server: SocketAddr) -> Daemon {
    let port = Refusing::new();
    let text = format!(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
         listen door\n bind {}\n server s {server} {option}\n",
        port.address()
    );
    let file = folder.path().join("haproxy.cfg");
    fs::write(&file, text).unwrap();
    let mut command = Command::new(tool("haproxy"));
    command.arg("-db").arg("-f").arg(file);
    Daemon::start(&mut command, port, "KILL")
}

#[test]
fn haproxy_in_front_tells_us_of_its_clients() {
    // With `check` it connects for itself, and says so (LOCAL).
    for option in [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 check inter 100ms",
    ] {
        let server = Greeter::listen(b'a');
        let evenkeel = Evenkeel::start(&config(ACCEPT, "", &[server.address()]));
        let folder = TempDir::new().unwrap();
        let front = haproxy(&folder, option, evenkeel.address());
        let (mut client, name) = greeting(connect(front.address()));
        assert_eq!(name, b'a');
        client.write_all(b"hello").unwrap();
        client.expect(b"hello");
        let own = client.local_addr().unwrap().to_string();
        client.end();
        client.expect_fin();
        eventually("the line of the client", || {
            evenkeel
                .access()
                .iter()
                .any(|end| end.field("client") == own)
        });
        if option.contains("check") {
            eventually("a check has come", || {
                let lines = evenkeel.access();
                lines.iter().any(|end| end.field("client") != own)
            });
        }
        let lines = evenkeel.access();
        assert!(
            lines.iter().all(|end| end.end() != "bad_proxy_header"),
            "{lines:?}"
        );
    }
}

#[test]
fn two_thousand_that_say_nothing_cost_nothing_and_are_closed_in_time() {
    const MANY: usize = 2000;
    let server = Greeter::listen(b'a');
    let lines = format!("{ACCEPT}    header_timeout: 3s\n");
    let evenkeel = Evenkeel::start(&config(&lines, "", &[server.address()]));
    let before = evenkeel.holding();
    let mut many: Vec<TcpStream> = (0..MANY).map(|_| evenkeel.connect()).collect();
    for client in &mut many {
        client.write_all(b"P").unwrap();
    }
    eventually("others are served meanwhile", || {
        let mut client = evenkeel.connect();
        client.write_all(V1).unwrap();
        greeting(client).1 == b'a'
    });
    eventually("all are refused", || listener(&evenkeel)["refused"] == MANY);
    for client in &mut many {
        client.expect_reset();
    }
    evenkeel.back_to(&before);
}
