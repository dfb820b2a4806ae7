//! The process: how it starts or says why it does not, what it writes, how it ends.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::harness::lines::AccessLine;
use crate::harness::peers::{Peer, Refusing, Server, connect, ping};
use crate::harness::program::{Evenkeel, binary, is_listening};
use crate::harness::servers::{Greeter, visits};
use crate::harness::tools::{as_nobody, tool};
use crate::harness::{eventually, plain, with_pool};

/// Waits for a failed start, and gives its messages: at least one, and none that it listens.
#[track_caller]
fn refusal(mut evenkeel: Evenkeel) -> Vec<String> {
    let status = evenkeel.exit();
    let said = evenkeel.errors().all();
    assert_eq!(status.code(), Some(1), "{said:#?}");
    assert!(
        !said.iter().any(|line| line.contains("ready: ")),
        "{said:#?}"
    );
    assert!(!said.is_empty());
    said
}

/// A failed start with one clear line, which holds all of `parts`.
#[track_caller]
fn refused_with(evenkeel: Evenkeel, parts: &[&str]) {
    let said = refusal(evenkeel);
    assert_eq!(said.len(), 1, "one clear line: {said:#?}");
    for part in parts {
        assert!(said[0].contains(part), "no {part:?} in: {}", said[0]);
    }
}

#[test]
fn sigterm_drains_and_exits_with_0() {
    for signal in ["TERM", "INT"] {
        let server = Server::listen();
        let mut evenkeel = Evenkeel::start(&plain(&[server.address()]));
        let address = evenkeel.address();
        let (mut client, mut serving) = evenkeel.pair(&server);
        evenkeel.signal(signal);
        eventually("no new connections", || !is_listening(address));
        ping(&mut client, &mut serving);
        client.end();
        serving.expect_fin();
        drop(serving);
        client.expect_fin();
        assert_eq!(evenkeel.exit().code(), Some(0));
        assert_eq!(evenkeel.end().end(), "client_closed");
    }
}

#[test]
fn sigterm_without_connections_exits_at_once() {
    let server = Server::listen();
    for workers in 1..=3 {
        let top = format!("workers: {workers}\nshutdown_timeout: 1h");
        let mut evenkeel = Evenkeel::start(&with_pool(&top, "", &[server.address()]));
        evenkeel.signal("TERM");
        assert_eq!(evenkeel.exit().code(), Some(0));
    }
}

#[test]
fn a_second_signal_ends_connections_now() {
    let server = Server::listen();
    let top = "workers: 2\nshutdown_timeout: 1h";
    let mut evenkeel = Evenkeel::start(&with_pool(top, "", &[server.address()]));
    let mut pairs: Vec<_> = (0..4).map(|_| evenkeel.pair(&server)).collect();
    evenkeel.signal("TERM");
    let address = evenkeel.address();
    eventually("no new connections", || !is_listening(address));
    for (client, serving) in &mut pairs {
        ping(client, serving);
    }
    evenkeel.signal("TERM");
    for (mut client, mut serving) in pairs {
        client.expect_reset();
        serving.expect_reset();
    }
    assert_eq!(evenkeel.exit().code(), Some(0));
    assert!(evenkeel.ends(4).iter().all(|end| end.end() == "shutdown"));
}

#[test]
fn shutdown_timeout_ends_what_is_left() {
    let server = Server::listen();
    let top = "workers: 1\nshutdown_timeout: 300ms";
    let mut evenkeel = Evenkeel::start(&with_pool(top, "", &[server.address()]));
    let (mut client, mut serving) = evenkeel.pair(&server);
    evenkeel.signal("TERM");
    client.expect_reset();
    serving.expect_reset();
    assert_eq!(evenkeel.exit().code(), Some(0));
    assert_eq!(evenkeel.end().end(), "shutdown");
}

#[test]
fn a_client_in_the_backlog_at_sigterm_is_served_or_reset() {
    let server = Greeter::listen(b's');
    let mut evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let clients: Vec<_> = (0..50).map(|_| evenkeel.connect()).collect();
    evenkeel.signal("TERM");
    for mut client in clients {
        client
            .shutdown(std::net::Shutdown::Write)
            .unwrap_or_default();
        // Either is an answer; silence would run into the deadline.
        let (bytes, _) = client.read_to_finish();
        assert!(bytes == b"s" || bytes.is_empty());
    }
    assert_eq!(evenkeel.exit().code(), Some(0));
}

#[test]
fn a_mistake_in_the_file_is_named_with_its_place() {
    let server = Server::listen();
    let config = plain(&[server.address()]).replace("    health: off", "    helth: off");
    let said = refusal(Evenkeel::launch(&config));
    let line = config
        .lines()
        .position(|line| line.contains("helth"))
        .unwrap()
        + 1;
    assert!(
        said.iter()
            .any(|said| said.contains(&format!("evenkeel.yaml:{line}:5: "))),
        "{said:#?}"
    );
    assert!(
        said.iter().any(|said| said.contains("health")),
        "the nearest name: {said:#?}"
    );
}

#[test]
fn a_missing_file_is_one_line() {
    let mut command = Command::new(binary());
    command
        .args(["run", "-c", "/nonexistent/evenkeel.yaml"])
        .stderr(Stdio::piped());
    let evenkeel = Evenkeel::spawn(command, TempDir::new().unwrap());
    refused_with(evenkeel, &["/nonexistent/evenkeel.yaml"]);
}

#[test]
fn an_unreadable_file_is_one_line() {
    let (folder, program) = program_for_anybody();
    let file = folder.path().join("secret.yaml");
    fs::write(&file, "workers: 1").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = as_nobody(program);
    command
        .arg("run")
        .arg("-c")
        .arg(&file)
        .stderr(Stdio::piped());
    refused_with(
        Evenkeel::spawn(command, folder),
        &["secret.yaml", "ermission denied"],
    );
}

#[test]
fn an_address_in_use_is_one_line_and_nothing_opens() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (server, free) = (Server::listen(), Refusing::new());
    let address = taken.local_addr().unwrap().to_string();
    let config = plain(&[server.address()]).replace(
        "listeners:\n",
        &format!(
            "listeners:\n  early: {{bind: '{}', pool: web}}\n",
            free.address()
        ),
    );
    let config = config.replace("127.0.0.1:0", &address);
    refused_with(Evenkeel::launch(&config), &[&address, "in use"]);
}

#[test]
fn an_address_of_another_evenkeel_is_in_use() {
    let server = Server::listen();
    let config = plain(&[server.address()]);
    let first = Evenkeel::start(&config);
    let address = first.address().to_string();
    // Both listen with SO_REUSEPORT, so the kernel alone would let them share.
    refused_with(
        Evenkeel::launch(&config.replace("127.0.0.1:0", &address)),
        &[&address, "in use"],
    );
    let (mut client, mut serving) = first.pair(&server);
    ping(&mut client, &mut serving);
}

#[test]
fn an_address_of_no_interface_is_one_line() {
    let server = Server::listen();
    let config = plain(&[server.address()]).replace("127.0.0.1:0", "192.0.2.1:4711");
    refused_with(Evenkeel::launch(&config), &["192.0.2.1:4711"]);
}

#[test]
fn a_privileged_port_without_rights_is_one_line() {
    let (_folder, program) = program_for_anybody();
    let server = Server::listen();
    let config = plain(&[server.address()]).replace("127.0.0.1:0", "0.0.0.0:80");
    // Nobody may write into the folder where the test would have the socket.
    let config = format!("{config}\nadmin: {{socket: off}}\n");
    // A network namespace of its own has the kernel's default for what is privileged.
    let mut command = Command::new(tool("unshare"));
    let nobody = as_nobody(program);
    command
        .arg("--net")
        .arg(nobody.get_program())
        .args(nobody.get_args());
    let evenkeel = Evenkeel::launch_with(&config, command);
    refused_with(evenkeel, &["0.0.0.0:80", "ermission denied"]);
}

/// A copy of the program where every user can run it.
fn program_for_anybody() -> (TempDir, std::path::PathBuf) {
    let folder = TempDir::new().unwrap();
    let program = folder.path().join("evenkeel");
    fs::copy(binary(), &program).unwrap();
    for path in [folder.path(), &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    (folder, program)
}

#[test]
fn too_few_descriptors_to_start_are_one_line() {
    let server = Server::listen();
    let mut command = Command::new(tool("prlimit"));
    command.arg("--nofile=12:12").arg(binary());
    refusal(Evenkeel::launch_with(&plain(&[server.address()]), command));
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [&["run", "--no-such-flag"][..], &["balance"], &[]] {
        let output = Command::new(binary()).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn listeners_and_servers_can_stand_in_the_command_line() {
    let servers = [Greeter::listen(b'a'), Greeter::listen(b'b')];
    let mut command = Command::new(binary());
    command.args([
        "run",
        "--listen",
        "127.0.0.1:0",
        "--algorithm",
        "round_robin",
    ]);
    command.args([
        "--check",
        "off",
        "--server",
        &format!("{}@3", servers[0].address()),
    ]);
    command.args(["--server", &servers[1].address().to_string()]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let evenkeel = Evenkeel::spawn(command, TempDir::new().unwrap());
    visits(evenkeel.address(), 8);
    // With a worker a core each takes its own turns, so shares are exact only per worker.
    assert_eq!(servers[0].accepted() + servers[1].accepted(), 8);
    assert!(servers[0].accepted() > servers[1].accepted());
}

#[test]
fn every_field_of_the_access_log_is_there_as_text() {
    let end = logged("text");
    assert!(end.text().contains(" end=client_closed"), "{}", end.text());
}

#[test]
fn every_field_of_the_access_log_is_there_as_json() {
    let end = logged("json");
    assert!(
        end.text().starts_with('{') && end.text().ends_with('}'),
        "{}",
        end.text()
    );
}

/// One connection, and its access line with each field checked.
#[track_caller]
fn logged(format: &str) -> AccessLine {
    let server = Server::listen();
    let config = with_pool(
        &format!("workers: 1\nlog: {{format: {format}}}"),
        "",
        &[server.address()],
    );
    let named = format!("- {{name: db1, address: '{}'}}", server.address());
    let config = config.replace(&format!("- {}", server.address()), &named);
    let evenkeel = Evenkeel::start(&config);
    let (mut client, mut serving) = evenkeel.pair(&server);
    client.write_all(b"abc").unwrap();
    serving.expect(b"abc");
    serving.write_all(b"defgh").unwrap();
    client.expect(b"defgh");
    let address = client.local_addr().unwrap().to_string();
    drop(client);
    serving.expect_fin();
    drop(serving);
    let end = evenkeel.end();
    assert_eq!(end.field("client"), address);
    assert_eq!((end.field("listener"), end.field("pool")), ("web", "web"));
    assert_eq!((end.field("server"), end.end()), ("db1", "client_closed"));
    assert_eq!(
        (end.bytes("upstream_bytes"), end.bytes("downstream_bytes")),
        (3, 5)
    );
    assert!(end.number("duration_ms") >= end.number("connect_ms"));
    assert!(end.number("connect_ms") >= 0.0);
    assert!(end.field("time").starts_with("20") && end.field("time").contains('T'));
    assert!(!end.field("id").is_empty());
    end
}

#[test]
fn ids_are_never_used_twice() {
    let server = Greeter::listen(b's');
    let evenkeel = Evenkeel::start(&with_pool("workers: 2", "", &[server.address()]));
    visits(evenkeel.address(), 30);
    let mut ids: Vec<_> = evenkeel
        .ends(30)
        .iter()
        .map(|end| end.field("id").to_owned())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 30);
}

#[test]
fn the_access_log_can_be_a_file_that_is_appended_to() {
    let server = Greeter::listen(b's');
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("access.log");
    fs::write(&file, "what was there\n").unwrap();
    let top = format!("workers: 1\nlog: {{access: {}}}", file.display());
    let evenkeel = Evenkeel::start(&with_pool(&top, "", &[server.address()]));
    visits(evenkeel.address(), 3);
    eventually("three more lines", || {
        fs::read_to_string(&file).unwrap().lines().count() == 4
    });
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("what was there\n"));
    assert!(
        text.lines()
            .skip(1)
            .all(|line| AccessLine::parse(line).is_some()),
        "{text}"
    );
    assert!(evenkeel.output().all().is_empty());
}

#[test]
fn an_access_log_that_was_moved_away_is_opened_anew() {
    let server = Greeter::listen(b's');
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("access.log");
    let top = format!("workers: 1\nlog: {{access: {}}}", file.display());
    let evenkeel = Evenkeel::start(&with_pool(&top, "", &[server.address()]));
    visits(evenkeel.address(), 1);
    eventually("a line", || {
        fs::read_to_string(&file).is_ok_and(|text| !text.is_empty())
    });
    fs::rename(&file, folder.path().join("access.log.1")).unwrap();
    eventually("a line in a new file", || {
        visits(evenkeel.address(), 1);
        fs::read_to_string(&file).is_ok_and(|text| !text.is_empty())
    });
}

#[test]
fn a_full_disk_costs_lines_and_no_connection() {
    let server = Greeter::listen(b's');
    let top = "workers: 1\nlog: {access: /dev/full}";
    let evenkeel = Evenkeel::start(&with_pool(top, "", &[server.address()]));
    visits(evenkeel.address(), 3);
    eventually("the loss is told", || {
        evenkeel.errors().text().contains("No space left")
    });
    visits(evenkeel.address(), 3);
}

#[test]
fn sighup_is_told_and_ends_no_connection() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let (mut client, mut serving) = evenkeel.pair(&server);
    evenkeel.signal("HUP");
    evenkeel.errors().wait_for("reloaded ");
    ping(&mut client, &mut serving);
}

#[test]
fn the_access_log_can_be_stderr_or_off() {
    let server = Greeter::listen(b's');
    let config = |place| {
        with_pool(
            &format!("workers: 1\nlog: {{access: {place}}}"),
            "",
            &[server.address()],
        )
    };
    let evenkeel = Evenkeel::start(&config("stderr"));
    visits(evenkeel.address(), 1);
    evenkeel.errors().wait_for("end=client_closed");
    let mut silent = Evenkeel::start(&config("off"));
    visits(silent.address(), 1);
    silent.signal("TERM");
    silent.exit();
    assert!(!silent.errors().text().contains("end=") && silent.output().all().is_empty());
}

#[test]
fn an_access_log_that_cannot_be_opened_is_one_line() {
    let server = Server::listen();
    let top = "workers: 1\nlog: {access: /nonexistent/access.log}";
    let evenkeel = Evenkeel::launch(&with_pool(top, "", &[server.address()]));
    refused_with(evenkeel, &["/nonexistent/access.log"]);
}

#[test]
fn a_log_that_nobody_reads_delays_no_connection_and_lost_lines_are_counted() {
    let server = Greeter::listen(b's');
    let folder = TempDir::new().unwrap();
    let (fifo, _unread) = unread_fifo(&folder);
    let top = format!("workers: 1\nlog: {{access: {}}}", fifo.display());
    let evenkeel = Evenkeel::start(&with_pool(&top, "", &[server.address()]));
    let mut client = connect(evenkeel.address());
    client.expect(b"s");
    let dropped = |lines: &[String]| lines.iter().any(|line| line.contains("dropped"));
    let mut connections = 0;
    while !dropped(&evenkeel.errors().all()) {
        assert!(
            connections < 100_000,
            "no line says that access lines were dropped"
        );
        flood(&evenkeel, 2_000);
        connections += 2_000;
        client.write_all(b"x").unwrap();
        client.expect(b"x");
    }
}

/// A pipe in the file system, held open by somebody who never reads it: it takes 64 KiB.
fn unread_fifo(folder: &TempDir) -> (std::path::PathBuf, fs::File) {
    let path = folder.path().join("access.fifo");
    let made = Command::new(tool("mkfifo")).arg(&path).status().unwrap();
    assert!(made.success());
    // Opened both ways, so that opening waits for nobody.
    let unread = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    (path, unread)
}

/// Connections that end at once.
fn flood(evenkeel: &Evenkeel, count: usize) {
    let address = evenkeel.address();
    for _ in 0..count {
        connect(address).reset();
    }
}

#[test]
fn a_signal_while_the_log_is_stuck_still_ends_the_process() {
    let server = Greeter::listen(b's');
    let folder = TempDir::new().unwrap();
    let (fifo, _unread) = unread_fifo(&folder);
    let top = format!("workers: 1\nlog: {{access: {}}}", fifo.display());
    let mut evenkeel = Evenkeel::start(&with_pool(&top, "", &[server.address()]));
    flood(&evenkeel, 1_000);
    evenkeel.signal("TERM");
    assert!(evenkeel.exit().success());
    assert!(Path::exists(&fifo));
}
