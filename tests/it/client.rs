//! The client commands, each against a running process.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::dial::{accept, listen};
use crate::harness::eventually;
use crate::harness::peers::Peer;
use crate::harness::program::{Evenkeel, binary};
use crate::harness::servers::{Greeter, greeted, visits};
use crate::harness::tools::tool;
use crate::harness::with_pool;

/// Two servers `a` and `b`, and an evenkeel before them.
fn two() -> ([Greeter; 2], Evenkeel) {
    let greeters = [Greeter::listen(b'a'), Greeter::listen(b'b')];
    let addresses = [greeters[0].address(), greeters[1].address()];
    let evenkeel = Evenkeel::start(&with_pool("workers: 2", "", &addresses));
    (greeters, evenkeel)
}

fn name(server: &Greeter) -> String {
    format!("web/{}", server.address())
}

/// What a command prints that succeeds.
#[track_caller]
fn done(evenkeel: &Evenkeel, arguments: &[&str]) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = evenkeel.command(arguments);
    let (said, complained) = (text(&stdout), text(&stderr));
    assert!(
        status.success(),
        "{arguments:?}: {status}\n{said}{complained}"
    );
    assert_eq!(complained, "", "{arguments:?}");
    said
}

/// What a command complains of that fails with `code`, in one line where it is 1.
#[track_caller]
fn failed(evenkeel: &Evenkeel, arguments: &[&str], code: i32) -> String {
    let output = evenkeel.command(arguments);
    let complained = text(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?}: {complained}"
    );
    if code == 1 {
        assert_eq!(complained.lines().count(), 1, "{arguments:?}: {complained}");
    }
    complained
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn server(evenkeel: &Evenkeel, address: SocketAddr) -> Value {
    let servers = &evenkeel.api().status()["pools"]["web"]["servers"];
    servers[&address.to_string()].clone()
}

#[test]
fn status_shows_listeners_pools_and_servers() {
    let ([a, b], evenkeel) = two();
    visits(evenkeel.address(), 2);
    let shown = done(&evenkeel, &["status"]);
    for part in [
        "ready",
        &evenkeel.address().to_string(),
        &a.address().to_string(),
        &b.address().to_string(),
        "least_connections",
    ] {
        assert!(shown.contains(part), "{part} in:\n{shown}");
    }
    assert!(
        !shown.contains('\u{1b}'),
        "no colour where there is no terminal"
    );
    let json: Value = serde_json::from_str(&done(&evenkeel, &["status", "--json"])).unwrap();
    assert_eq!(json["listeners"]["web"]["connections"]["total"], 2);
}

#[test]
fn drain_waits_until_the_last_connection_is_gone() {
    let ([a, _b], evenkeel) = two();
    let mut clients: Vec<_> = (0..4).map(|_| greeted(evenkeel.address()).0).collect();
    let mut waiting = Command::new(binary())
        .args(["drain", &name(&a), "--wait"])
        .env("EVENKEEL_SOCKET", evenkeel.api().socket())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    evenkeel.api().status_where("it drains", |_| {
        (server(&evenkeel, a.address())["state"] == "draining").then_some(())
    });
    assert!(
        waiting.try_wait().unwrap().is_none(),
        "two connections are left"
    );
    for client in &mut clients {
        client.write_all(b"still here").unwrap();
        client.expect(b"still here");
        client.end();
    }
    let output = waiting.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("no connection"), "{output:?}");
    done(&evenkeel, &["ready", &name(&a)]);
    assert_eq!(server(&evenkeel, a.address())["state"], "up");
}

#[test]
fn drain_gives_up_waiting_at_the_deadline_and_cuts_nobody_without_a_rate() {
    let ([a, b], evenkeel) = two();
    let mut clients: Vec<_> = (0..2).map(|_| greeted(evenkeel.address()).0).collect();
    let arguments = ["drain", &name(&a), "--deadline", "500ms", "--wait"];
    assert_eq!(evenkeel.command(&arguments).status.code(), Some(1));
    for client in &mut clients {
        client.write_all(b"still here").unwrap();
        client.expect(b"still here");
    }
    let arguments = [
        "drain",
        &name(&b),
        "--rate",
        "100/s",
        "--quiet",
        "10ms",
        "--wait",
    ];
    done(&evenkeel, &arguments);
    failed(&evenkeel, &["drain", &name(&a), "--deadline", "5s"], 2);
    failed(&evenkeel, &["drain", &name(&a), "--quiet", "5s"], 2);
}

#[test]
fn maintenance_weight_algorithm_add_and_remove_do_what_they_say() {
    let ([a, b], evenkeel) = two();
    let (mut client, greeting) = greeted(evenkeel.address());
    let (with, other) = if greeting == b'a' { (&a, &b) } else { (&b, &a) };
    done(&evenkeel, &["maintenance", &name(with)]);
    client.expect_reset();
    assert_eq!(server(&evenkeel, with.address())["state"], "maintenance");
    done(&evenkeel, &["weight", &name(other), "7"]);
    assert_eq!(server(&evenkeel, other.address())["weight"], 7);
    done(&evenkeel, &["algorithm", "web", "ip_hash"]);
    assert_eq!(
        evenkeel.api().status()["pools"]["web"]["algorithm"],
        "ip_hash"
    );
    let c = Greeter::listen(b'c');
    let address = c.address().to_string();
    done(
        &evenkeel,
        &["add", "web", &address, "--name", "c", "--weight", "2"],
    );
    done(&evenkeel, &["remove", &name(other)]);
    assert_eq!(visits(evenkeel.address(), 3), "ccc");
    failed(&evenkeel, &["remove", "web/nobody"], 1);
    failed(&evenkeel, &["weight", "web", "3"], 2);
    failed(&evenkeel, &["weight", &name(other), "257"], 2);
    failed(&evenkeel, &["algorithm", "web", "best"], 2);
}

#[test]
fn connections_are_listed_filtered_and_killed() {
    let ([a, b], evenkeel) = two();
    let mut clients: Vec<_> = (0..4).map(|_| greeted(evenkeel.address())).collect();
    let list = |arguments: &[&str]| -> Vec<Value> {
        let arguments = [&["connections", "--json"], arguments].concat();
        serde_json::from_str(&done(&evenkeel, &arguments)).unwrap()
    };
    assert_eq!(list(&[]).len(), 4);
    let of_a = list(&["--pool", "web", "--server", &a.address().to_string()]);
    assert_eq!(
        list(&["--server", &name(&a)]).len(),
        2,
        "as the list shows it"
    );
    assert_eq!(of_a.len(), 2);
    assert!(of_a.iter().all(|c| c["server"] == a.address().to_string()));
    let shown = done(&evenkeel, &["connections"]);
    assert!(shown.contains(&b.address().to_string()), "{shown}");
    let id = of_a[0]["id"].to_string();
    done(&evenkeel, &["kill", &id]);
    let port = of_a[0]["client"].as_str().unwrap().to_owned();
    let is_killed = |client: &std::net::TcpStream| client.local_addr().unwrap().to_string() == port;
    let place = clients
        .iter()
        .position(|(client, _)| is_killed(client))
        .unwrap();
    clients.remove(place).0.expect_reset();
    assert_eq!(evenkeel.end().end(), "killed");
    for (client, _) in &mut clients {
        client.write_all(b"still here").unwrap();
        client.expect(b"still here");
    }
    failed(&evenkeel, &["kill", &id], 1);
    failed(&evenkeel, &["connections", "--pool", "wbe"], 1);
}

#[test]
fn who_has_no_pool_yet_is_listed_and_belongs_to_none() {
    let server = Greeter::listen(b'a');
    let config = with_pool("workers: 1", "", &[server.address()]).replace(
        "    pool: web\n",
        "    pool: web\n    sni: {a.example: web}\n    header_timeout: 1h\n",
    );
    let evenkeel = Evenkeel::start(&config);
    let _silent = evenkeel.connect();
    eventually("it reads a header", || {
        done(&evenkeel, &["connections"]).contains("reading_header")
    });
    let of_web = done(&evenkeel, &["connections", "--pool", "web"]);
    assert_eq!(of_web, "0 connections\n");
}

#[test]
fn a_server_at_a_unix_socket_is_named_by_its_address() {
    let folder = TempDir::new().unwrap();
    let address = format!("unix:{}", folder.path().join("back").display());
    let server = listen(&address, 16);
    let config = with_pool("workers: 1", "", &["127.0.0.1:1".parse().unwrap()]);
    let config = config.replace(
        "- 127.0.0.1:1\n",
        &format!("- \"{address}\"\n      - 127.0.0.1:1\n"),
    );
    let evenkeel = Evenkeel::start(&config);
    let _client = evenkeel.connect();
    let _serving = accept(&server);
    let name = &format!("web/{address}");
    for named in [&address, name] {
        let shown = done(&evenkeel, &["connections", "--server", named]);
        assert!(shown.contains("1 connection,"), "{shown}");
    }
    let state = || {
        let status = evenkeel.api().status();
        status["pools"]["web"]["servers"][&address].clone()
    };
    done(&evenkeel, &["drain", name]);
    assert_eq!(state()["state"], "draining");
    done(&evenkeel, &["maintenance", name]);
    assert_eq!(state()["state"], "maintenance");
    done(&evenkeel, &["ready", name]);
    assert_eq!(state()["state"], "up");
    done(&evenkeel, &["weight", name, "7"]);
    assert_eq!(state()["weight"], 7);
    done(&evenkeel, &["remove", name]);
    assert_eq!(state(), Value::Null);
}

#[test]
fn plan_reload_and_confirm_tell_what_changes() {
    let ([a, b], evenkeel) = two();
    let file = evenkeel.file().display().to_string();
    assert!(done(&evenkeel, &["plan", "-c", &file]).contains("nothing"));
    evenkeel.rewrite(&with_pool("workers: 2", "", &[b.address()]));
    let planned = done(&evenkeel, &["plan", "-c", &file]);
    assert!(planned.contains(&a.address().to_string()), "{planned}");
    done(&evenkeel, &["reload", "--confirm", "1h"]);
    assert!(done(&evenkeel, &["status"]).contains("evenkeel confirm"));
    done(&evenkeel, &["confirm"]);
    assert_eq!(visits(evenkeel.address(), 3), "bbb");
    evenkeel.rewrite("listeners: {web: {bond: 1}}");
    let output = evenkeel.command(&["reload"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("bond"), "{output:?}");
    assert_eq!(
        evenkeel.command(&["plan", "-c", &file]).status.code(),
        Some(1)
    );
    assert_eq!(
        evenkeel
            .command(&["reload", "-c", "/nowhere"])
            .status
            .code(),
        Some(1)
    );
}

#[test]
fn who_cannot_be_reached_is_one_line() {
    let folder = tempfile::TempDir::new().unwrap();
    let absent = folder.path().join("absent.sock");
    let stale = folder.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    for socket in [absent, stale] {
        let output = Command::new(binary())
            .args(["--socket", &socket.display().to_string(), "status"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let line = text(&output.stderr);
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(line.contains(&socket.display().to_string()), "{line}");
    }
}

#[test]
fn what_somebody_else_answers_is_one_line_too() {
    let folder = tempfile::TempDir::new().unwrap();
    let socket = folder.path().join("other.sock");
    let other = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().unwrap();
        // The command may be gone before all is written.
        drop(stream.write_all(b"+PONG\r\n"));
    });
    let output = Command::new(binary())
        .args(["--socket", &socket.display().to_string(), "status"])
        .output()
        .unwrap();
    answering.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr).lines().count(), 1, "{output:?}");
}

#[test]
fn top_draws_and_leaves_the_terminal_as_it_was() {
    let ([_a, _b], evenkeel) = two();
    let folder = tempfile::TempDir::new().unwrap();
    let typescript = folder.path().join("typescript");
    // Without a terminal of its own, script gives its command one that has no size.
    let command = format!("stty rows 30 cols 100; exec {} top", binary().display());
    let mut child = Command::new(tool("script"))
        .args(["--quiet", "--return", "--flush", "--command", &command])
        .arg(&typescript)
        .env("EVENKEEL_SOCKET", evenkeel.api().socket())
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let drawn = || text(&fs::read(&typescript).unwrap_or_default());
    eventually("it draws", || drawn().contains("web"));
    let mut keys = child.stdin.take().unwrap();
    keys.write_all(b"q").unwrap();
    eventually("the other screen is left", || {
        drawn().contains("\u{1b}[?1049l")
    });
    drop(keys);
    assert!(child.wait().unwrap().success());
}

#[test]
fn top_ends_when_its_terminal_is_gone() {
    let ([_a, _b], evenkeel) = two();
    // In a session of its own: no SIGHUP tells it.
    let hang_up = "
import os, pty, subprocess, sys
ours, theirs = pty.openpty()
top = subprocess.Popen([sys.argv[1], 'top'], stdin=theirs, stdout=theirs, stderr=theirs,
                       start_new_session=True)
os.close(theirs)
os.read(ours, 1)
os.close(ours)
try:
    print(top.wait(timeout=60))
finally:
    top.kill()
";
    let output = Command::new(tool("python3"))
        .args(["-c", hang_up, &binary().display().to_string()])
        .env("EVENKEEL_SOCKET", evenkeel.api().socket())
        .env("TERM", "xterm")
        .output()
        .unwrap();
    // Not by SIGABRT: a complaint to a terminal that is gone must not be a panic.
    assert_eq!(text(&output.stdout), "1\n", "{output:?}");
}

#[test]
fn top_without_a_terminal_says_so() {
    let ([_a, _b], evenkeel) = two();
    let line = failed(&evenkeel, &["top"], 1);
    assert!(line.contains("terminal"), "{line}");
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(binary())
            .args(["completions", shell])
            .output()
            .unwrap();
        assert!(output.status.success());
        assert!(text(&output.stdout).contains("maintenance"), "{shell}");
    }
}

#[test]
fn run_takes_an_admin_address() {
    let greeter = Greeter::listen(b'a');
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut command = Command::new(binary());
    command
        .args([
            "run",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            &free.to_string(),
        ])
        .args(["--server", &greeter.address().to_string(), "--check", "off"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let evenkeel = Evenkeel::spawn(command, tempfile::TempDir::new().unwrap());
    evenkeel.errors().wait_for("ready: ");
    let status = evenkeel.http().status();
    assert_eq!(status["config"]["file"], Value::Null);
    assert_eq!(visits(evenkeel.address(), 1), "a");
    let answer = evenkeel.http().ask("POST", "/api/v1/reload");
    assert_eq!(answer.status, 403, "{}", answer.body);
}
