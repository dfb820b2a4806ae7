//! Checks over TLS, against nginx with certificates that openssl makes.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::nonsense;
use crate::harness::checks::Checks;
use crate::harness::daemons::{self, Daemon};
use crate::harness::peers::Refusing;
use crate::harness::tools::{succeed, tool};

fn openssl(folder: &Path, arguments: &str) {
    let mut command = Command::new(tool("openssl"));
    let arguments = arguments.split(' ').filter(|argument| !argument.is_empty());
    succeed(command.current_dir(folder).args(arguments));
}

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

/// Two authorities, and two certificates of the first: one that is good, one that is over.
fn certificates(folder: &Path) {
    for name in ["ca", "other"] {
        let files = format!("-keyout {name}.key -out {name}.pem");
        openssl(
            folder,
            &format!("req -x509 {KEY} {files} -days 2 -subj /CN={name}"),
        );
    }
    let names = "subjectAltName=DNS:web.example,IP:127.0.0.1\n";
    fs::write(folder.join("names"), names).unwrap();
    for (name, days) in [("good", 2), ("old", 0)] {
        let files = format!("-keyout {name}.key -out {name}.csr");
        openssl(folder, &format!("req {KEY} {files} -subj /CN={name}"));
        let signed = "-CA ca.pem -CAkey ca.key -CAcreateserial -extfile names";
        openssl(
            folder,
            &format!("x509 -req -in {name}.csr {signed} -days {days} -out {name}.pem"),
        );
    }
}

/// nginx with the good certificate at its first port, and with the old one at the returned one.
fn nginx(folder: &Path) -> (Daemon, Refusing) {
    let ports = [Refusing::new(), Refusing::new()];
    let server = |port: &Refusing, name: &str, protocols: &str| {
        format!(
            "server {{ listen {} ssl; ssl_certificate {name}.pem; ssl_certificate_key {name}.key;\n\
             ssl_protocols {protocols}; location /health {{ return 200 well; }} }}\n",
            port.address()
        )
    };
    let servers = [
        server(&ports[0], "good", "TLSv1.3"),
        server(&ports[1], "old", "TLSv1.2"),
    ];
    let servers = format!("http {{ access_log off; {} }}", servers.concat());
    let [first, second] = ports;
    (daemons::nginx(folder, first, &servers), second)
}

struct Keys(PathBuf);

impl Keys {
    /// The keys of an `http` check over TLS that believes the authority `ca`.
    fn http(&self, ca: &str, more: &str) -> String {
        format!("type: http, path: /health, {}", self.tls(ca, more))
    }

    fn tls(&self, ca: &str, more: &str) -> String {
        let ca = self.0.join(ca);
        format!("tls: {{ca: \"{}\"{more}}}", ca.display())
    }
}

#[test]
fn certificates_are_judged_and_tls_is_spoken_below_http_and_tcp() {
    let folder = TempDir::new().unwrap();
    certificates(folder.path());
    let (server, old) = nginx(folder.path());
    fs::write(folder.path().join("broken.pem"), "nonsense").unwrap();
    let keys = Keys(folder.path().to_owned());
    let (good, old): (SocketAddr, _) = (server.address(), old.address());
    let checks = Checks::start(&[
        (
            "good",
            &keys.http("ca.pem", ", server_name: web.example"),
            good,
        ),
        ("by_address", &keys.http("ca.pem", ""), good),
        (
            "tcp",
            &format!("type: tcp, {}", keys.tls("ca.pem", "")),
            good,
        ),
        ("other_ca", &keys.http("other.pem", ""), good),
        (
            "other_name",
            &keys.http("ca.pem", ", server_name: db.example"),
            good,
        ),
        ("expired", &keys.http("ca.pem", ""), old),
        (
            "unverified",
            "type: http, path: /health, tls: {verify: false}",
            old,
        ),
        ("unverified_tcp", "type: tcp, tls: {verify: false}", old),
        ("missing", &keys.http("none.pem", ""), good),
        ("broken", &keys.http("broken.pem", ""), good),
        (
            "plain",
            &keys.http("ca.pem", ""),
            nonsense(&[b"HTTP/1.1 200 OK\r\n\r\n"]),
        ),
        ("mute", &keys.http("ca.pem", ""), nonsense(&[])),
        ("not_tls", "type: http, path: /health", good),
    ]);
    for (pool, state, words) in [
        ("good", "up", "http 200"),
        ("by_address", "up", "http 200"),
        ("tcp", "up", "tls handshake completed"),
        (
            "other_ca",
            "down",
            "tls: certificate of an unknown authority",
        ),
        ("other_name", "down", "127.0.0.1, not for db.example"),
        ("expired", "down", "tls: certificate expired"),
        ("unverified", "up", "http 200"),
        ("unverified_tcp", "up", "tls handshake completed"),
        ("missing", "down", "/none.pem: No such file"),
        ("broken", "down", "/broken.pem: it has no certificate"),
        ("plain", "down", "tls: the server does not speak it"),
        ("mute", "down", "connection closed"),
        ("not_tls", "down", "http 400"),
    ] {
        checks.expect(pool, state, words);
    }
    fs::copy(
        folder.path().join("ca.pem"),
        folder.path().join("broken.pem"),
    )
    .unwrap();
    checks.evenkeel().signal("HUP");
    checks.expect("broken", "up", "http 200");
}

#[test]
fn a_certificate_may_be_named_without_its_authority() {
    let folder = TempDir::new().unwrap();
    certificates(folder.path());
    let (server, old) = nginx(folder.path());
    let keys = Keys(folder.path().to_owned());
    let checks = Checks::start(&[
        ("own", &keys.http("good.pem", ""), server.address()),
        ("another", &keys.http("old.pem", ""), server.address()),
        ("expired", &keys.http("old.pem", ""), old.address()),
    ]);
    for (pool, state, words) in [
        ("own", "up", "http 200"),
        (
            "another",
            "down",
            "tls: certificate of an unknown authority",
        ),
        ("expired", "down", "tls: certificate expired"),
    ] {
        checks.expect(pool, state, words);
    }
}

#[test]
fn a_certificate_that_signs_itself_is_believed_where_it_is_the_ca() {
    let folder = TempDir::new().unwrap();
    // As everybody makes them: marked as authorities.
    let names = "-addext subjectAltName=DNS:web.example,IP:127.0.0.1";
    for name in ["good", "old"] {
        let files = format!("-keyout {name}.key -out {name}.pem");
        let subject = "-subj /CN=web.example";
        openssl(
            folder.path(),
            &format!("req -x509 {KEY} {files} -days 2 {subject} {names}"),
        );
    }
    fs::write(
        folder.path().join("both.pem"),
        ["good.pem", "old.pem"]
            .map(|name| fs::read_to_string(folder.path().join(name)).unwrap())
            .concat(),
    )
    .unwrap();
    // One with TLS 1.3, the other one with 1.2.
    let (server, other) = nginx(folder.path());
    let keys = Keys(folder.path().to_owned());
    let (server, other): (SocketAddr, _) = (server.address(), other.address());
    let checks = Checks::start(&[
        ("own", &keys.http("good.pem", ""), server),
        ("other_own", &keys.http("old.pem", ""), other),
        (
            "both",
            &keys.http("both.pem", ", server_name: web.example"),
            other,
        ),
        ("another", &keys.http("old.pem", ""), server),
        (
            "name",
            &keys.http("good.pem", ", server_name: db.example"),
            server,
        ),
    ]);
    for (pool, state, words) in [
        ("own", "up", "http 200"),
        ("other_own", "up", "http 200"),
        ("both", "up", "http 200"),
        (
            "another",
            "down",
            "tls: certificate is an authority's and not one of ca",
        ),
        (
            "name",
            "down",
            "tls: certificate is for web.example, 127.0.0.1, not for db.example",
        ),
    ] {
        checks.expect(pool, state, words);
    }
}

#[test]
fn a_server_with_tls_may_hang_and_go() {
    let folder = TempDir::new().unwrap();
    certificates(folder.path());
    let (mut server, _old) = nginx(folder.path());
    let keys = Keys(folder.path().to_owned());
    let address = server.address();
    let checks = Checks::start(&[
        ("http", &keys.http("ca.pem", ""), address),
        (
            "tcp",
            &format!("type: tcp, {}", keys.tls("ca.pem", "")),
            address,
        ),
    ]);
    let both = |state: &str, words: [&str; 2]| {
        checks.expect("http", state, words[0]);
        checks.expect("tcp", state, words[1]);
    };
    both("up", ["http 200", "tls handshake completed"]);
    server.signal("STOP");
    both("down", ["timeout after 1s"; 2]);
    server.signal("CONT");
    both("up", ["http 200", "tls handshake completed"]);
    server.stop();
    both("down", ["connection refused"; 2]);
}
