//! `evenkeel doctor` from outside: in network namespaces, whose kernel parameters are the test's own,
//! with files that ask for more or less than there is.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::peers::Server;
use crate::harness::plain;
use crate::harness::program::{Evenkeel, binary};
use crate::harness::tools::tool;

/// In a namespace with so many ports and places to wait for connects, and nobody at the admin socket.
fn examined(config: &str, arguments: &[&str]) -> Output {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("evenkeel.yaml");
    fs::write(&file, config).unwrap();
    let mut command = Command::new(tool("unshare"));
    command.args(["--net", "sh", "-c"]);
    command.arg(
        "cd /proc/sys/net && echo '40000 40999' > ipv4/ip_local_port_range && \
         echo 512 > core/somaxconn && exec \"$0\" \"$@\"",
    );
    command.arg(binary()).arg("doctor").arg("-c").arg(&file);
    command.arg("--socket").arg(folder.path().join("nobody"));
    command.args(arguments).output().unwrap()
}

/// For so many connections, of which so many may wait.
fn config(connections: u32, backlog: u32) -> String {
    format!(
        "workers: 1\nmax_connections: {connections}\nlisteners:\n  web:\n    bind: 0.0.0.0:8080\n    \
         pool: web\n    tcp: {{backlog: {backlog}}}\npools:\n  web: {{health: off, servers: \
         [10.0.0.1:80]}}\n"
    )
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The line of the table that is about `name`, as its status and its figures.
#[track_caller]
fn row<'a>(shown: &'a str, name: &str) -> Vec<&'a str> {
    let mut lines = shown.lines().map(|line| line.split_whitespace().collect());
    let row: Option<Vec<&str>> = lines.find(|words: &Vec<&str>| words.get(1) == Some(&name));
    let mut row = row.unwrap_or_else(|| panic!("no {name} in:\n{shown}"));
    row.truncate(4);
    row
}

/// The finding of that name.
#[track_caller]
fn finding<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let mut findings = answer["findings"].as_array().unwrap().iter();
    let found = findings.find(|finding| finding["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {answer}"))
}

const RANGE: &str = "net.ipv4.ip_local_port_range";
const QUEUE: &str = "net.core.somaxconn";

#[test]
fn a_machine_that_is_large_enough_exits_with_0() {
    let output = examined(&config(1000, 512), &[]);
    let (shown, complained) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{shown}{complained}");
    assert_eq!(complained, "");
    assert_eq!(row(shown, RANGE), ["ok", RANGE, "1000", "1000"]);
    assert_eq!(row(shown, QUEUE), ["ok", QUEUE, "512", "512"]);
    assert!(!shown.contains("mend:") && !shown.contains('\u{1b}'));
    // A namespace has no such parameter of its own: no failure.
    let memory = row(shown, "net.ipv4.tcp_mem");
    assert_eq!(memory[0], "unknown", "{shown}");
}

#[test]
fn what_is_too_small_comes_first_with_the_line_that_mends_it() {
    let output = examined(&config(1001, 513), &[]);
    let (shown, complained) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{shown}{complained}");
    assert_eq!(complained, format!("2 faults of 17: {QUEUE}, {RANGE}\n"));
    assert_eq!(row(shown, QUEUE), ["low", QUEUE, "512", "513"]);
    assert_eq!(row(shown, RANGE), ["low", RANGE, "1000", "1001"]);
    let titles = shown.lines().position(|line| line.starts_with("STATUS"));
    let first = shown.lines().nth(titles.unwrap() + 1).unwrap();
    assert!(first.starts_with("low"), "{shown}");
    for line in [
        "  mend: sysctl -w net.core.somaxconn=513",
        "  mend: sysctl -w net.ipv4.ip_local_port_range=\"10240 65535\"",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{shown}");
    }
}

#[test]
fn json_has_the_same() {
    let output = examined(&config(1001, 512), &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["connections"], 1001);
    assert_eq!(answer["basis"], "written");
    assert_eq!(answer["workers"], 1);
    assert_eq!(answer["faults"], 1);
    assert_eq!(answer["pid"], Value::Null);
    assert!(answer["file"].as_str().unwrap().ends_with("evenkeel.yaml"));
    let range = finding(&answer, RANGE);
    assert_eq!(range["status"], "low");
    assert_eq!(range["found"], "1000");
    assert_eq!(range["needed"], "1001");
    assert!(range["effect"].as_str().unwrap().contains("`error`"));
    assert!(range["fix"].as_str().unwrap().starts_with("sysctl -w "));
    let queue = finding(&answer, QUEUE);
    assert_eq!(queue["status"], "ok");
    assert_eq!(queue["fix"], Value::Null);
    let memory = finding(&answer, "net.ipv4.tcp_mem");
    assert_eq!(memory["status"], "unknown");
    let why = memory["why"].as_str().unwrap();
    assert!(why.starts_with("cannot read /proc/sys/net/ipv4/tcp_mem: "));
}

#[test]
fn the_limits_of_the_process_that_runs_count() {
    let server = Server::listen();
    let mut command = Command::new(tool("prlimit"));
    command.arg("--nofile=256:777").arg(binary());
    let evenkeel = Evenkeel::launch_with(&plain(&[server.address()]), command);
    evenkeel.errors().wait_for("ready: ");
    let file = evenkeel.file();
    let arguments = ["doctor", "--json", "-c", file.to_str().unwrap()];
    let answer: Value = serde_json::from_slice(&evenkeel.command(&arguments).stdout).unwrap();
    assert_eq!(answer["pid"], evenkeel.pid());
    assert_eq!(finding(&answer, "RLIMIT_NOFILE")["found"], "777");
    // The file says where the process is asked.
    let output = Command::new(binary())
        .args(arguments)
        .env_remove("EVENKEEL_SOCKET")
        .output()
        .unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["pid"], evenkeel.pid());
}

#[test]
fn a_file_with_mistakes_is_told_as_check_does() {
    for (config, said) in [("listeners: 1", "listeners"), ("", "evenkeel.yaml")] {
        let output = examined(config, &[]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(text(&output.stdout), "");
        assert!(text(&output.stderr).contains(said));
    }
}
