//! Under a service manager: what it hears, whether the watchdog is fed, and sockets that it passes.

use std::fs;
use std::io::Read;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::peers::{Peer, Refusing, Server, connect};
use crate::harness::program::{Evenkeel, binary};
use crate::harness::servers::{Greeter, greeted, visits};
use crate::harness::strace::Strace;
use crate::harness::systemd::{Systemd, launch_passing, passing};
use crate::harness::tools::{as_nobody, debian_python, succeed, tool};
use crate::harness::{eventually, plain, with_health, with_pool};

/// The program with a service manager that hears it.
fn heard_by(systemd: &Systemd) -> Command {
    let mut command = Command::new(binary());
    command.env("NOTIFY_SOCKET", systemd.address());
    command
}

/// What stands behind `key=` in a message.
fn told<'m>(message: &'m str, key: &str) -> &'m str {
    let mut lines = message.lines();
    let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {key} in {message:?}"))
}

/// CLOCK_MONOTONIC as another program reads it, in microseconds.
fn monotonic() -> u64 {
    let mut command = Command::new(debian_python());
    let text = succeed(command.args(["-c", "import time; print(time.monotonic_ns() // 1000)"]));
    text.trim().parse().unwrap()
}

/// A reload from its beginning to its end; the status at its end.
#[track_caller]
fn reload_told(systemd: &Systemd, began: u64) -> String {
    let reloading = systemd.hear();
    assert_eq!(told(&reloading, "RELOADING"), "1");
    let time: u64 = told(&reloading, "MONOTONIC_USEC").parse().unwrap();
    assert!(began <= time && time <= monotonic(), "{began} {time}");
    let ready = systemd.hear();
    assert_eq!(told(&ready, "READY"), "1");
    told(&ready, "STATUS").to_owned()
}

#[test]
fn a_life_is_told_from_its_start_to_its_end() {
    let (systemd, server) = (Systemd::at_a_path(), Greeter::listen(b's'));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let health = "    health: {type: http, path: /, timeout: 10s}\n";
    let config = with_health("workers: 2", health, &[silent.local_addr().unwrap()]);
    let mut evenkeel = Evenkeel::launch_with(&config, heard_by(&systemd));
    let (check, _) = silent.accept().unwrap();
    assert!(told(&systemd.hear(), "STATUS").starts_with("starting: "));
    // Not ready before the first check is answered.
    assert_eq!(systemd.hear_within(Duration::from_millis(1)), None);
    drop(check);
    let ready = systemd.hear();
    assert_eq!(told(&ready, "READY"), "1");
    assert!(told(&ready, "STATUS").starts_with("ready: 2 workers, "));
    // By the API, by a signal, and one that fails.
    let began = monotonic();
    let config = with_pool("workers: 2", "", &[server.address()]);
    evenkeel.rewrite(&config);
    evenkeel.api().ask("POST", "/api/v1/reload").expect(200);
    assert!(reload_told(&systemd, began).contains("reloaded "));
    let began = monotonic();
    evenkeel.signal("HUP");
    assert!(reload_told(&systemd, began).contains("0 changes"));
    evenkeel.rewrite(&config.replace("    health: off", "    secret: hunter2"));
    evenkeel.signal("HUP");
    let status = reload_told(&systemd, began);
    assert!(status.contains("reload failed") && status.contains("evenkeel.yaml:"));
    assert!(!status.contains("hunter2"), "quoted to everyone: {status}");
    // Connections are not told.
    visits(evenkeel.address(), 3);
    evenkeel.signal("TERM");
    let stopping = systemd.hear();
    assert_eq!(told(&stopping, "STOPPING"), "1");
    assert!(told(&stopping, "STATUS").starts_with("draining 0 connections"));
    assert_eq!(told(&stopping, "EXTEND_TIMEOUT_USEC"), "32000000");
    assert!(evenkeel.exit().success());
    assert_eq!(systemd.hear_within(Duration::from_millis(1)), None);
}

#[test]
fn a_reload_that_is_taken_back_is_told_like_one() {
    let (systemd, server) = (Systemd::at_a_name("taken-back"), Server::listen());
    let evenkeel = Evenkeel::launch_with(&plain(&[server.address()]), heard_by(&systemd));
    while !systemd.hear().contains("READY=1") {}
    let began = monotonic();
    let body = r#"{"confirm": "1ms"}"#;
    evenkeel
        .api()
        .send("POST", "/api/v1/reload", body)
        .expect(200);
    assert!(reload_told(&systemd, began).contains("reloaded "));
    assert!(reload_told(&systemd, began).contains("taken back"));
}

#[test]
fn a_service_manager_that_does_not_listen_holds_nobody_up() {
    let (systemd, server) = (Systemd::at_a_path(), Greeter::listen(b's'));
    systemd.fill(Path::new(systemd.address()));
    let config = plain(&[server.address()]);
    let evenkeel = Evenkeel::launch_with(&config, heard_by(&systemd));
    visits(evenkeel.address(), 3);
    // Nothing that matters is lost.
    while !systemd.hear().contains("READY=1") {}
}

#[test]
fn a_service_manager_that_is_not_there_is_one_line() {
    let server = Greeter::listen(b's');
    for address in ["/nonexistent/notify", "notify", "vsock:2:1234"] {
        let mut command = Command::new(binary());
        command.env("NOTIFY_SOCKET", address);
        let mut evenkeel = Evenkeel::launch_with(&plain(&[server.address()]), command);
        visits(evenkeel.address(), 3);
        evenkeel.signal("TERM");
        assert!(evenkeel.exit().success());
        let lines = evenkeel.errors().all();
        let told = lines.iter().filter(|line| line.contains("NOTIFY_SOCKET"));
        assert_eq!(told.count(), 1, "{lines:#?}");
    }
}

/// So often that a test need not wait for long.
const INTERVAL: &str = "300000";
/// Many times the interval: who is not heard in it is silent.
const SILENCE: Duration = Duration::from_secs(3);

fn watched_by(systemd: &Systemd) -> Command {
    let mut command = heard_by(systemd);
    command.env("WATCHDOG_USEC", INTERVAL);
    command
}

#[track_caller]
fn fed(systemd: &Systemd, times: usize) {
    for _ in 0..times {
        while systemd.hear() != "WATCHDOG=1" {}
    }
}

#[test]
fn the_watchdog_of_an_idle_process_is_fed_to_its_end() {
    let (systemd, server) = (Systemd::at_a_path(), Server::listen());
    let config = with_pool("workers: 3", "", &[server.address()]);
    let mut evenkeel = Evenkeel::launch_with(&config, watched_by(&systemd));
    fed(&systemd, 10);
    let pair = evenkeel.pair(&server);
    evenkeel.signal("TERM");
    while !systemd.hear().contains("STOPPING=1") {}
    fed(&systemd, 3);
    drop(pair);
    assert!(evenkeel.exit().success());
}

#[test]
fn a_watchdog_of_another_process_is_not_fed() {
    let (systemd, server) = (Systemd::at_a_path(), Server::listen());
    for (usec, pid) in [(INTERVAL, "1"), ("0", ""), ("soon", "")] {
        let mut command = heard_by(&systemd);
        command.env("WATCHDOG_USEC", usec);
        if !pid.is_empty() {
            command.env("WATCHDOG_PID", pid);
        }
        let config = plain(&[server.address()]);
        let _evenkeel = Evenkeel::launch_with(&config, command);
        while !systemd.hear().contains("READY=1") {}
        assert_eq!(systemd.hear_within(Duration::from_secs(1)), None);
    }
}

#[test]
fn a_thread_that_hangs_starves_the_watchdog_until_it_goes_on() {
    let server = Greeter::listen(b's');
    let health = "    health: {type: tcp, interval: 100ms}\n";
    // A worker, the prober and the main thread: the call that each alone makes.
    for (call, who) in [
        ("accept4", "worker "),
        ("connect", "the prober"),
        ("newfstatat,statx", ""),
    ] {
        let systemd = Systemd::at_a_path();
        let config = with_health("workers: 2", health, &[server.address()]);
        let evenkeel = Evenkeel::launch_with(&config, watched_by(&systemd));
        let address = evenkeel.address();
        fed(&systemd, 3);
        let (trace, inject) = (
            format!("trace={call}"),
            format!("inject={call}:delay_enter=60s"),
        );
        let strace = Strace::attach(evenkeel.pid(), &["-e", &trace, "-e", &inject]);
        // The prober alone goes on without being asked.
        let client = (call == "accept4").then(|| connect(address));
        if who.is_empty() {
            evenkeel.signal("HUP");
        }
        eventually("the watchdog starves", || {
            while systemd.hear_within(Duration::from_millis(1)).is_some() {}
            systemd.hear_within(SILENCE).is_none()
        });
        if !who.is_empty() {
            evenkeel.errors().wait_for(&format!("waiting for {who}"));
        }
        strace.detach();
        fed(&systemd, 3);
        drop(client);
    }
}

/// Whether the program has the very socket behind a descriptor of ours.
fn holds(evenkeel: &Evenkeel, socket: &impl AsRawFd) -> bool {
    let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
    let link = link.display().to_string();
    let theirs = evenkeel.proc().descriptors();
    theirs.iter().any(|(_, their)| *their == link)
}

/// A listener at `bind` for a server.
fn at(bind: &str, server: SocketAddr) -> String {
    let config = with_pool("workers: 3", "", &[server]);
    config.replace("127.0.0.1:0", &format!("\"{bind}\""))
}

fn another(socket: &TcpListener) -> TcpListener {
    socket.try_clone().unwrap()
}

#[test]
fn a_passed_socket_serves_all_workers_and_outlives_the_process() {
    let server = Greeter::listen(b's');
    let passed = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = passed.local_addr().unwrap();
    let config = at(&address.to_string(), server.address());
    let mut early = connect(address);
    let mut evenkeel = launch_passing(&config, "anything", another(&passed));
    early.expect(b"s");
    assert_eq!(evenkeel.address(), address);
    assert!(holds(&evenkeel, &passed));
    let clients: Vec<_> = (0..60).map(|_| greeted(address).0).collect();
    let metrics = evenkeel.api().ask("GET", "/metrics").body;
    for worker in 0..3 {
        let none = format!("evenkeel_worker_connections{{worker=\"{worker}\"}} 0\n");
        assert!(!metrics.contains(&none), "{metrics}");
    }
    drop((clients, early));
    evenkeel.signal("TERM");
    assert!(evenkeel.exit().success());
    // Who comes in between waits for the next one.
    let mut waiting: Vec<_> = (0..20).map(|_| connect(address)).collect();
    let _next = launch_passing(&config, "anything", another(&passed));
    waiting.iter_mut().for_each(|client| client.expect(b"s"));
}

#[test]
fn a_passed_socket_is_used_again_when_its_listener_returns() {
    let server = Greeter::listen(b's');
    let passed = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = passed.local_addr().unwrap();
    let config = at(&address.to_string(), server.address());
    let evenkeel = launch_passing(&config, "web", another(&passed));
    visits(address, 3);
    // With any port the name counts, so that another one is asked for to be rid of the socket.
    evenkeel.rewrite(&at("127.0.0.2:0", server.address()));
    evenkeel.api().ask("POST", "/api/v1/reload").expect(200);
    let mut waiting = connect(address);
    evenkeel.rewrite(&config);
    evenkeel.api().ask("POST", "/api/v1/reload").expect(200);
    waiting.expect(b"s");
    visits(address, 3);
}

#[test]
fn the_name_of_a_passed_socket_counts_where_any_port_will_do() {
    let server = Greeter::listen(b's');
    for (name, is_meant) in [("web", true), ("other", false)] {
        let passed = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = at("127.0.0.1:0", server.address());
        let evenkeel = launch_passing(&config, name, another(&passed));
        let address = passed.local_addr().unwrap();
        assert_eq!(evenkeel.address() == address, is_meant);
        visits(evenkeel.address(), 3);
        assert_eq!(holds(&evenkeel, &passed), is_meant);
    }
}

#[test]
fn sockets_of_several_kinds_are_taken_and_their_files_left() {
    let (server, port) = (Greeter::listen(b's'), Refusing::new());
    let (folder, name) = (
        TempDir::new().unwrap(),
        format!("@passed-{}", std::process::id()),
    );
    let path = folder.path().join("web.sock");
    let sockets = [
        format!("web=tcp:{}", port.address()),
        format!("web=unix:{}", path.display()),
        format!("web=unix:{name}"),
    ];
    let sockets: Vec<&str> = sockets.iter().map(String::as_str).collect();
    let bind = format!(
        "[\"{}\", \"unix:{}\", \"unix:{name}\"]",
        port.address(),
        path.display()
    );
    let config = at("BIND", server.address()).replace("\"BIND\"", &bind);
    let command = passing(&sockets, &Command::new(binary()));
    let mut evenkeel = Evenkeel::launch_with(&config, command);
    visits(evenkeel.address(), 3);
    for _ in 0..3 {
        let mut client = UnixStream::connect(&path).unwrap();
        let mut greeting = [0];
        client.read_exact(&mut greeting).unwrap();
        assert_eq!(greeting, *b"s");
    }
    evenkeel.signal("TERM");
    assert!(evenkeel.exit().success());
    assert!(path.exists(), "the file is whose it was");
}

#[test]
fn what_nobody_wants_is_closed_with_a_line() {
    let server = Greeter::listen(b's');
    let stray = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = plain(&[server.address()]);
    let evenkeel = launch_passing(&config, "stray", another(&stray));
    let line = evenkeel.errors().wait_for("no listener's `bind`");
    let address = stray.local_addr().unwrap().to_string();
    assert!(line.contains(&address) && line.contains("stray"), "{line}");
    visits(evenkeel.address(), 3);
    assert!(!holds(&evenkeel, &stray));

    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let evenkeel = launch_passing(&config, "dns", datagrams.try_clone().unwrap());
    let line = evenkeel.errors().wait_for("of no use");
    assert!(line.contains("dns is no stream socket"), "{line}");
    visits(evenkeel.address(), 3);
    assert!(!holds(&evenkeel, &datagrams));

    let (connected, _other) = UnixStream::pair().unwrap();
    let evenkeel = launch_passing(&config, "", connected.try_clone().unwrap());
    evenkeel
        .errors()
        .wait_for("without a name is no stream socket");
    visits(evenkeel.address(), 3);
    assert!(!holds(&evenkeel, &connected));
}

#[test]
fn what_was_passed_to_another_process_is_left_alone() {
    let server = Greeter::listen(b's');
    let passed = UnixListener::bind(TempDir::new().unwrap().path().join("s")).unwrap();
    let mut command = Command::new(tool("sh"));
    let script = "exec 3<&0 </dev/null; export LISTEN_PID=1; exec \"$0\" \"$@\"";
    command.args(["-c", script]).arg(binary());
    command.env("LISTEN_FDS", "1");
    let input = passed.try_clone().unwrap();
    let config = plain(&[server.address()]);
    let evenkeel = Evenkeel::launch_reading(&config, command, OwnedFd::from(input).into());
    visits(evenkeel.address(), 3);
    assert!(holds(&evenkeel, &passed));
    assert!(!evenkeel.errors().text().contains("passed"));
}

#[test]
fn an_ipv6_socket_that_takes_ipv4_as_well_is_one_line() {
    let (server, port) = (Server::listen(), free_port_of_all());
    let config = at(&format!("[::]:{port}"), server.address());
    let socket = format!("web=tcp6:{}:{port}", Ipv6Addr::UNSPECIFIED);
    let command = passing(&[&socket], &Command::new(binary()));
    let mut evenkeel = Evenkeel::launch_with(&config, command);
    assert_eq!(evenkeel.exit().code(), Some(1));
    let text = evenkeel.errors().text();
    assert!(text.contains("BindIPv6Only=ipv6-only"), "{text}");
}

/// Free a moment ago, at every address of both families.
fn free_port_of_all() -> u16 {
    let socket = TcpListener::bind("[::]:0").unwrap();
    socket.local_addr().unwrap().port()
}

#[test]
fn a_privileged_port_takes_no_right_when_it_is_passed() {
    let folder = TempDir::new().unwrap();
    let program = folder.path().join("evenkeel");
    fs::copy(binary(), &program).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("server.sock");
    let server = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let config = "workers: 2\nadmin: {socket: off}\nlisteners:\n  web: {bind: '127.0.0.1:80', pool: web}\n\
                  pools:\n  web: {health: off, servers: ['unix:SERVER']}\n";
    let config = config.replace("SERVER", &path.display().to_string());
    // A network namespace of its own has the kernel's default for what is privileged, and port 80 free.
    let passing = passing(&["web=tcp:127.0.0.1:80"], &as_nobody(program));
    let mut command = Command::new(tool("unshare"));
    let up = format!(
        "{} link set lo up && exec \"$0\" \"$@\"",
        tool("ip").display()
    );
    command.args(["--net", "sh", "-c", &up]);
    command.arg(passing.get_program()).args(passing.get_args());
    let evenkeel = Evenkeel::launch_with(&config, command);
    evenkeel.errors().wait_for("ready: ");
    let status = fs::read_to_string(format!("/proc/{}/status", evenkeel.pid())).unwrap();
    assert!(status.contains("\nCapEff:\t0000000000000000\n"), "{status}");
    let client = "import socket; socket.create_connection(('127.0.0.1', 80)).sendall(b'hello')";
    let mut nsenter = Command::new(tool("nsenter"));
    nsenter.arg(format!("--net=/proc/{}/ns/net", evenkeel.pid()));
    succeed(nsenter.arg(debian_python()).args(["-c", client]));
    let mut received = String::new();
    let (mut serving, _) = server.accept().unwrap();
    serving.read_to_string(&mut received).unwrap();
    assert_eq!(received, "hello");
}

#[test]
fn programs_of_checks_inherit_neither_sockets_nor_variables() {
    let (systemd, server) = (Systemd::at_a_path(), Greeter::listen(b's'));
    let passed = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = TempDir::new().unwrap();
    let seen = folder.path().join("seen").display().to_string();
    let script = format!("(env; ls -l /proc/$$/fd) > {seen}.new; mv {seen}.new {seen}");
    let health = format!("    health: {{type: exec, command: [/bin/sh, -c, \"{script}\"]}}\n");
    let config = with_health("workers: 1", &health, &[server.address()]);
    let config = config.replace("127.0.0.1:0", &passed.local_addr().unwrap().to_string());
    let script = "exec 3<&0 </dev/null; export LISTEN_PID=$$; exec \"$0\" \"$@\"";
    let mut command = Command::new(tool("sh"));
    command.args(["-c", script]).arg(binary());
    command
        .env("LISTEN_FDS", "1")
        .env("WATCHDOG_USEC", INTERVAL);
    command.env("NOTIFY_SOCKET", systemd.address());
    let input = OwnedFd::from(another(&passed));
    let evenkeel = Evenkeel::launch_reading(&config, command, input.into());
    visits(evenkeel.address(), 1);
    let seen = fs::read_to_string(seen).unwrap();
    assert!(seen.contains("EVENKEEL_SERVER="), "{seen}");
    for part in ["LISTEN_", "WATCHDOG_", "NOTIFY_", "socket:"] {
        assert!(!seen.contains(part), "{part} in {seen}");
    }
}

#[test]
fn systemd_s_own_activator_starts_it_for_the_first_client() {
    let (server, port) = (Greeter::listen(b's'), Refusing::new());
    let mut command = Command::new(tool("systemd-socket-activate"));
    let address = port.address().to_string();
    command.args(["-l", &address, "--fdname=web"]).arg(binary());
    let evenkeel = Evenkeel::launch_with(&at(&address, server.address()), command);
    evenkeel.errors().wait_for("Listening on ");
    let mut first = connect(port.address());
    first.expect(b"s");
    visits(evenkeel.address(), 3);
}
