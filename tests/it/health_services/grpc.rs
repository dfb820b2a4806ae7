//! The gRPC check against Python's grpcio, plain and over TLS.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::nonsense;
use crate::harness::checks::Checks;
use crate::harness::daemons::{self, Daemon};
use crate::harness::peers::Refusing;
use crate::harness::tools::{debian_python, succeed, tool};

/// The health service in bytes, so that only the library itself is needed: the status that the file
/// has, and NOT_FOUND for a service that nobody knows. It listens at each address, with TLS at those
/// that begin with `tls:`.
const SERVICE: &str = r#"
import sys, grpc
from concurrent import futures

status_file, *binds = sys.argv[1:]

def check(request, context):
    service = request[2:].decode()
    if service not in ("", "db"):
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service " + service)
    return bytes([8, int(open(status_file).read())])

def health(name):
    method = grpc.unary_unary_rpc_method_handler(check)
    return grpc.method_handlers_generic_handler(name, {"Check": method})

def serve(bind, name):
    server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((health(name),))
    if bind.startswith("tls:"):
        key, certificate = (open(file, "rb").read() for file in ("key.pem", "certificate.pem"))
        pairs = grpc.ssl_server_credentials([(key, certificate)])
        server.add_secure_port(bind[4:], pairs)
    else:
        server.add_insecure_port(bind)
    server.start()
    return server

servers = [serve(bind, "grpc.health.v1.Health") for bind in binds[:-1]]
servers.append(serve(binds[-1], "grpc.health.v2.Health"))
servers[0].wait_for_termination()
"#;

/// Where the service is plain, over TLS, and one that has other methods only.
struct Service {
    daemon: Daemon,
    plain: SocketAddr,
    secure: Refusing,
    other: Refusing,
    folder: TempDir,
}

impl Service {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        certificate(folder.path());
        fs::write(folder.path().join("service.py"), SERVICE).unwrap();
        fs::write(folder.path().join("status"), "1").unwrap();
        let [plain, secure, other] = [Refusing::new(), Refusing::new(), Refusing::new()];
        let mut command = Command::new(debian_python());
        command
            .current_dir(folder.path())
            .args(["service.py", "status"])
            .arg(plain.address().to_string())
            .arg(format!("tls:{}", secure.address()))
            .arg(other.address().to_string());
        let address = plain.address();
        let daemon = Daemon::start(&mut command, plain, "KILL");
        daemons::wait_until_listening(other.address());
        Self {
            daemon,
            plain: address,
            secure,
            other,
            folder,
        }
    }

    /// Says so from now on: 1 is SERVING.
    fn say(&self, status: &str) {
        fs::write(self.folder.path().join("next"), status).unwrap();
        // At once as a whole: the service reads it meanwhile.
        fs::rename(
            self.folder.path().join("next"),
            self.folder.path().join("status"),
        )
        .unwrap();
    }
}

fn certificate(folder: &Path) {
    let mut command = Command::new(tool("openssl"));
    let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
                     -keyout key.pem -out certificate.pem -subj /CN=grpc -addext \
                     basicConstraints=critical,CA:FALSE -addext subjectAltName=IP:127.0.0.1";
    let arguments = arguments.split_ascii_whitespace();
    succeed(command.current_dir(folder).args(arguments));
}

#[test]
fn a_service_says_how_it_is_and_why_it_cannot() {
    let service = Service::start();
    let authority = service.folder.path().join("certificate.pem");
    let tls = format!(
        "type: grpc, service: db, tls: {{ca: \"{}\"}}",
        authority.display()
    );
    let checks = Checks::start(&[
        ("whole", "type: grpc", service.plain),
        ("db", "type: grpc, service: db", service.plain),
        ("unknown", "type: grpc, service: nobody", service.plain),
        ("other", "type: grpc", service.other.address()),
        ("tls", &tls, service.secure.address()),
        ("not_tls", "type: grpc", service.secure.address()),
        (
            "http1",
            "type: grpc",
            nonsense(&[b"HTTP/1.1 400 Bad Request\r\n\r\n"]),
        ),
        ("mute", "type: grpc", nonsense(&[])),
        ("frames", "type: grpc", nonsense(&[&[0; 9]])),
    ]);
    for (pool, state, words) in [
        ("whole", "up", "grpc: SERVING"),
        ("db", "up", "grpc: SERVING"),
        ("unknown", "down", "grpc: NOT_FOUND: unknown service nobody"),
        ("other", "down", "grpc: UNIMPLEMENTED: "),
        ("tls", "up", "grpc: SERVING"),
        ("not_tls", "down", "connection "),
        ("http1", "down", "grpc: the server does not speak HTTP/2"),
        ("mute", "down", "connection closed"),
        ("frames", "down", "grpc: the server does not speak HTTP/2"),
    ] {
        checks.expect(pool, state, words);
    }
    for (status, words) in [
        ("2", "NOT_SERVING"),
        ("3", "SERVICE_UNKNOWN"),
        ("0", "UNKNOWN"),
    ] {
        service.say(status);
        checks.expect("whole", "down", &format!("grpc: {words}"));
        checks.expect("tls", "down", &format!("grpc: {words}"));
    }
    service.say("1");
    checks.expect("whole", "up", "grpc: SERVING");
}

#[test]
fn a_service_may_hang_and_go() {
    let mut service = Service::start();
    let checks = Checks::start(&[("p", "type: grpc", service.plain)]);
    checks.expect("p", "up", "grpc: SERVING");
    service.daemon.signal("STOP");
    checks.expect("p", "down", "timeout after 1s (waiting for the answer)");
    service.daemon.signal("CONT");
    checks.expect("p", "up", "grpc: SERVING");
    service.daemon.stop();
    checks.expect("p", "down", "connection refused");
}

/// Another HTTP/2 stack: nginx knows nothing of gRPC's health service.
#[test]
fn a_web_server_is_no_health_service() {
    let folder = TempDir::new().unwrap();
    certificate(folder.path());
    let port = Refusing::new();
    let servers = format!(
        "http {{ access_log off; server {{ listen {} ssl http2; ssl_certificate certificate.pem;\n\
         ssl_certificate_key key.pem; location / {{ return 405; }} }} }}",
        port.address()
    );
    let server = daemons::nginx(folder.path(), port, &servers);
    let health = "type: grpc, tls: {verify: false}";
    let checks = Checks::start(&[("p", health, server.address())]);
    checks.expect("p", "down", "http 405");
}
