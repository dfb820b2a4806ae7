//! Routing by the name that a TLS client asks for, without decrypting: real servers with certificates
//! of their own, and clients of every age, whose first bytes are cut as badly as they can be.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::json;
use tempfile::TempDir;

use crate::harness::daemons::{Daemon, nginx};
use crate::harness::eventually;
use crate::harness::peers::{Peer, Refusing, Server, connect, ping};
use crate::harness::program::Evenkeel;
use crate::harness::tools::{succeed, tool};

/// Names that lead to `named`; all others lead to `rest`.
const ROUTES: &str = "{a.example.com: named, \"*.wild.example.com\": named}";

/// nginx with two servers, each with a certificate of its own, that say who they are.
struct TlsServers {
    named: SocketAddr,
    rest: SocketAddr,
    _daemon: Daemon,
    folder: TempDir,
}

fn tls_servers() -> TlsServers {
    let folder = TempDir::new().unwrap();
    let (named, rest) = (Refusing::new(), Refusing::new());
    let server = |name: &str, port: &Refusing| {
        certificate(folder.path(), name);
        format!(
            "server {{ listen {} ssl; ssl_certificate {name}.crt; ssl_certificate_key {name}.key;\n\
             ssl_protocols TLSv1.2 TLSv1.3;\n\
             location / {{ return 200 \"{name} $ssl_protocol $ssl_server_name.\\n\"; }} }}\n",
            port.address()
        )
    };
    let servers = [server("named", &named), server("rest", &rest)].concat();
    let http = format!("http {{ access_log off; {servers} }}");
    let rest = rest.address();
    TlsServers {
        named: named.address(),
        rest,
        _daemon: nginx(folder.path(), named, &http),
        folder,
    }
}

fn certificate(folder: &Path, name: &str) {
    succeed(
        Command::new(tool("openssl"))
            .current_dir(folder)
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
            ])
            .args(["-nodes", "-days", "2", "-subj", &format!("/CN={name}")])
            .args([
                "-addext",
                "subjectAltName=DNS:a.example.com,DNS:*.wild.example.com",
            ])
            // Rustls takes no authority's certificate for a server's.
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args([
                "-keyout",
                &format!("{name}.key"),
                "-out",
                &format!("{name}.crt"),
            ]),
    );
}

fn config(listener: &str, named: SocketAddr, rest: SocketAddr) -> String {
    format!(
        "workers: 1\nlisteners:\n  web:\n    bind: 127.0.0.1:0\n    pool: rest\n    sni: {ROUTES}\n{listener}\n\
         pools:\n  named:\n    health: off\n    servers: [{{name: n, address: \"{named}\"}}]\n\
         \x20 rest:\n    health: off\n    servers: [{{name: r, address: \"{rest}\"}}]\n"
    )
}

fn routing(named: SocketAddr, rest: SocketAddr) -> Evenkeel {
    Evenkeel::start(&config("", named, rest))
}

/// What the server says to curl, which asks for `host` at `address`; the certificate is checked where
/// one is given.
#[track_caller]
fn curl(address: SocketAddr, host: &str, certificate: Option<&Path>, options: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args([
        "-sS",
        "--max-time",
        "20",
        "--connect-to",
        &format!("::{address}"),
    ]);
    match certificate {
        Some(file) => command.arg("--cacert").arg(file),
        None => command.arg("--insecure"),
    };
    command.args(options).arg(format!("https://{host}/"));
    succeed(&mut command)
}

#[test]
fn names_lead_where_they_are_said_to_and_all_others_to_the_pool() {
    let servers = tls_servers();
    let evenkeel = routing(servers.named, servers.rest);
    let address = evenkeel.address();
    let own = servers.folder.path().join("named.crt");
    for tls in ["--tls-max 1.2", "--tlsv1.3"] {
        let options: Vec<_> = tls.split(' ').collect();
        for host in [
            "a.example.com",
            "A.Example.COM",
            "x.wild.example.com",
            "x.y.wild.example.com",
        ] {
            // A certificate's wildcard stands for one label.
            let file = (!host.starts_with("x.y")).then_some(own.as_path());
            let said = curl(address, host, file, &options);
            assert!(said.starts_with("named TLSv1"), "{host} {tls}: {said}");
        }
        for host in [
            "b.example.com",
            "wild.example.com",
            "xa.example.com",
            "127.0.0.1",
        ] {
            let said = curl(address, host, None, &options);
            assert!(said.starts_with("rest TLSv1"), "{host} {tls}: {said}");
        }
    }
    let ends = evenkeel.ends(16);
    let to_named = ends
        .iter()
        .filter(|end| end.field("pool") == "named")
        .count();
    assert_eq!(to_named, 8);
    assert!(
        ends.iter().all(|end| end.end().ends_with("_closed")),
        "{ends:?}"
    );
}

/// What the server says to `openssl s_client`.
fn s_client(address: SocketAddr, options: &[&str]) -> String {
    let mut client = Command::new(tool("openssl"))
        .args(["s_client", "-quiet", "-connect", &address.to_string()])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = client.stdin.take().expect("stdin is piped");
    stdin.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut said = String::new();
    let mut stdout = client.stdout.take().expect("stdout is piped");
    stdout.read_to_string(&mut said).unwrap();
    drop(stdin);
    client.wait().unwrap();
    said
}

#[test]
fn openssl_with_and_without_a_name() {
    let servers = tls_servers();
    let evenkeel = routing(servers.named, servers.rest);
    let address = evenkeel.address();
    for tls in ["-tls1_2", "-tls1_3"] {
        let said = s_client(address, &[tls, "-servername", "a.example.com"]);
        assert!(said.contains("\r\n\r\nnamed TLSv1"), "{tls}: {said}");
        let said = s_client(address, &[tls, "-noservername"]);
        assert!(said.contains("\r\n\r\nrest TLSv1"), "{tls}: {said}");
    }
}

/// What the server says to a rustls client that asks for `host` and believes one certificate alone,
/// or why there was no handshake.
fn rustls_client(address: SocketAddr, host: &str, certificate: &Path) -> Result<String, String> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(certificate).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut session = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = connect(address);
    let mut stream = rustls::Stream::new(&mut session, &mut socket);
    let mut said = String::new();
    let told = stream
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .and_then(|()| stream.read_to_string(&mut said));
    told.map(|_| said).map_err(|error| error.to_string())
}

#[test]
fn rustls_gets_the_certificate_of_the_name_that_it_asks_for() {
    let servers = tls_servers();
    let evenkeel = routing(servers.named, servers.rest);
    let visit = |host: &str, believed: &str| {
        let certificate = servers.folder.path().join(believed);
        rustls_client(evenkeel.address(), host, &certificate)
    };
    for host in ["a.example.com", "x.wild.example.com"] {
        let said = visit(host, "named.crt").unwrap();
        assert!(
            said.contains(&format!("\r\n\r\nnamed TLSv1.3 {host}.")),
            "{said}"
        );
        let refused = visit(host, "rest.crt").unwrap_err();
        assert!(
            refused.contains("UnknownIssuer") || refused.contains("BadSignature"),
            "{host}: {refused}"
        );
    }
    // That of the other server, which has none of these names in it. An address is not sent.
    for host in ["b.example.com", "wild.example.com", "127.0.0.1"] {
        let refused = visit(host, "rest.crt").unwrap_err();
        assert!(refused.contains("not valid for name"), "{host}: {refused}");
    }
}

/// What becomes of a client's first record.
type Cut = fn(&[u8]) -> Vec<Vec<u8>>;

/// Stands between a client and `target`, and sends what the client says first as `cut` has it, a
/// write for each part. For one connection.
fn cutter(target: SocketAddr, cut: Cut) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut record = vec![0; 5];
        client.read_exact(&mut record).unwrap();
        let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
        record.resize(5 + length, 0);
        client.read_exact(&mut record[5..]).unwrap();
        let mut server = connect(target);
        for part in cut(&record) {
            server.write_all(&part).unwrap();
        }
        let (mut back, mut forth) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let answers = thread::spawn(move || {
            std::io::copy(&mut back, &mut forth).unwrap_or(0);
            forth.shutdown(Shutdown::Write).unwrap_or(());
        });
        std::io::copy(&mut client, &mut server).unwrap_or(0);
        server.shutdown(Shutdown::Write).unwrap_or(());
        answers.join().unwrap();
    });
    address
}

/// The message of a record in records of `bytes` each.
fn in_records(whole: &[u8], bytes: usize) -> Vec<Vec<u8>> {
    let record = |part: &[u8]| {
        let length = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&whole[..3], &length, part].concat()
    };
    whole[5..].chunks(bytes).map(record).collect()
}

#[test]
fn a_hello_may_be_cut_into_segments_and_records() {
    let servers = tls_servers();
    let evenkeel = routing(servers.named, servers.rest);
    let cuts: [Cut; 4] = [
        |record| record.iter().map(|byte| vec![*byte]).collect(),
        |record| in_records(record, 50),
        |record| vec![in_records(record, 17).concat()],
        |record| {
            in_records(record, 90)
                .concat()
                .chunks(1)
                .map(<[u8]>::to_vec)
                .collect()
        },
    ];
    for cut in cuts {
        for tls in ["-tls1_2", "-tls1_3"] {
            let address = cutter(evenkeel.address(), cut);
            let said = s_client(address, &[tls, "-servername", "a.example.com"]);
            assert!(said.contains("\r\n\r\nnamed TLSv1"), "{tls}: {said}");
        }
    }
}

#[test]
fn what_is_not_tls_is_refused_and_touches_no_server() {
    let server = Server::listen();
    let listener = "    header_timeout: 200ms";
    let evenkeel = Evenkeel::start(&config(listener, server.address(), server.address()));
    let cases: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"\x16\x03\x01\x00\x04\x02\0\0\0",
        b"\x16\x03\x01\x40\0\x01\x01\0\0",
        b"\x15\x03\x03\0\x02\x01\0",
    ];
    for bytes in cases {
        let mut client = evenkeel.connect();
        client.write_all(bytes).unwrap();
        client.expect_reset();
    }
    // A part and the end, a part and no more, and not even that.
    let mut part = evenkeel.connect();
    part.write_all(b"\x16\x03\x01").unwrap();
    part.end();
    part.expect_reset();
    let mut slow = evenkeel.connect();
    slow.write_all(b"\x16\x03\x01").unwrap();
    slow.expect_reset();
    evenkeel.connect().expect_reset();
    let refused = cases.len() + 3;
    let ends = evenkeel.ends(refused);
    assert!(
        ends.iter().all(|end| end.end() == "bad_client_hello"),
        "{ends:?}"
    );
    let mut nothing = evenkeel.connect();
    nothing.end();
    nothing.expect_fin();
    let end = evenkeel.ends(refused + 1).pop().unwrap();
    assert_eq!(end.end(), "client_closed");
    let status = evenkeel
        .api()
        .request("GET", "/api/v1/status", &[], None)
        .expect(200);
    let listener = &status["listeners"]["web"];
    assert_eq!(
        listener["connections"],
        json!({"active": 0, "total": refused + 1, "refused": refused})
    );
    assert_eq!(
        listener["sni"],
        json!({"a.example.com": "named", "*.wild.example.com": "named"})
    );
    assert!(server.accept_pending().is_none());
}

/// What a client that asks for `name` says first.
pub(crate) fn hello(name: &str) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut client = Command::new(tool("openssl"))
        .args(["s_client", "-connect", &address, "-servername", name])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut bytes = vec![0; 5];
    stream.read_exact(&mut bytes).unwrap();
    let length = usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
    bytes.resize(5 + length, 0);
    stream.read_exact(&mut bytes[5..]).unwrap();
    drop(stream);
    client.wait().unwrap();
    bytes
}

#[test]
fn the_server_gets_the_hello_to_the_byte_behind_a_proxy_too() {
    let (named, rest) = (Server::listen(), Server::listen());
    let listener = "    proxy_protocol: accept\n    trusted_proxies: [127.0.0.1]";
    let evenkeel = Evenkeel::start(&config(listener, named.address(), rest.address()));
    let header: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n";
    for (name, server) in [("a.example.com", &named), ("b.example.com", &rest)] {
        let hello = hello(name);
        let whole = [header, &hello, b"more"].concat();
        // In one segment, and cut within the header, between both and within the hello.
        for at in [0, 10, header.len(), header.len() + 20] {
            let mut client = evenkeel.connect();
            client.write_all(&whole[..at]).unwrap();
            eventually("it waits", || phases(&evenkeel) == ["reading_header"]);
            client.write_all(&whole[at..]).unwrap();
            let mut serving = server.accept();
            serving.expect(&whole[header.len()..]);
            ping(&mut client, &mut serving);
            drop((client, serving));
            eventually("it has ended", || phases(&evenkeel).is_empty());
        }
    }
    let ends = evenkeel.ends(8);
    assert!(
        ends.iter()
            .all(|end| end.field("client") == "203.0.113.7:4711"),
        "{ends:?}"
    );
}

fn phases(evenkeel: &Evenkeel) -> Vec<String> {
    let answer = evenkeel
        .api()
        .request("GET", "/api/v1/connections", &[], None);
    let list = answer.expect(200);
    let phase = |it: &serde_json::Value| it["phase"].as_str().unwrap().to_owned();
    list.as_array().unwrap().iter().map(phase).collect()
}

#[test]
fn a_reload_changes_where_names_lead_and_living_connections_stay() {
    let (named, rest) = (Server::listen(), Server::listen());
    let evenkeel = routing(named.address(), rest.address());
    let hello = hello("a.example.com");
    let visit = |server: &Server| {
        let mut client = evenkeel.connect();
        client.write_all(&hello).unwrap();
        let mut serving = server.accept();
        serving.expect(&hello);
        (client, serving)
    };
    let reload = |text: &str| {
        evenkeel.rewrite(text);
        evenkeel
            .api()
            .request("POST", "/api/v1/reload", &[], None)
            .expect(200);
    };
    let (mut client, mut serving) = visit(&named);
    // Half a hello waits through the reload that takes its pool away.
    let mut waiting = evenkeel.connect();
    waiting.write_all(&hello[..9]).unwrap();
    eventually("it waits", || {
        phases(&evenkeel)
            .iter()
            .any(|phase| phase == "reading_header")
    });
    let whole = config("", named.address(), rest.address());
    let line = format!(
        "  named:\n    health: off\n    servers: [{{name: n, address: \"{}\"}}]\n",
        named.address()
    );
    assert!(whole.contains(&line));
    reload(
        &whole
            .replace(&line, "")
            .replace(&format!("    sni: {ROUTES}\n"), ""),
    );
    ping(&mut client, &mut serving);
    waiting.write_all(&hello[9..]).unwrap();
    rest.accept().expect(&hello);
    visit(&rest);
    reload(&whole);
    visit(&named);
    ping(&mut client, &mut serving);
}

#[test]
fn a_pool_that_only_names_lead_to_counts_for_readiness() {
    let rest = Server::listen();
    let refusing = Refusing::new();
    let text = config("", refusing.address(), rest.address());
    let check = "  named:\n    health: {type: tcp, interval: 100ms, timeout: 1s}";
    let evenkeel = Evenkeel::start(&text.replace("  named:\n    health: off", check));
    let ready = || evenkeel.api().request("GET", "/readyz", &[], None);
    eventually("it says which pool has nobody", || {
        ready().body.contains("pool named has no server")
    });
    // And the log says where who was turned away was to go.
    let mut client = evenkeel.connect();
    client.write_all(&hello("x.wild.example.com")).unwrap();
    client.expect_reset();
    let end = evenkeel.end();
    assert_eq!((end.end(), end.field("pool")), ("no_server", "named"));
}

#[test]
fn chromium_finds_both_servers() {
    let servers = tls_servers();
    let evenkeel = routing(servers.named, servers.rest);
    let port = evenkeel.address().port();
    for (host, name) in [("a.example.com", "named"), ("b.example.com", "rest")] {
        let folder = TempDir::new().unwrap();
        let mut command = Command::new("timeout");
        command.arg("60").arg(tool("chromium")).args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--ignore-certificate-errors",
            "--host-resolver-rules=MAP *.example.com 127.0.0.1",
            "--dump-dom",
        ]);
        command.arg(format!("--user-data-dir={}", folder.path().display()));
        let said = succeed(command.arg(format!("https://{host}:{port}/")));
        assert!(said.contains(&format!("{name} TLSv1.3 {host}.")), "{said}");
    }
}
