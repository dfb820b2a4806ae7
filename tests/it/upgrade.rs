//! Upgrade: a new process takes over from the one that runs, and no connection notices, however many
//! there are and however often it happens. What else may be under way then: `upgrade_while`; what is
//! other in the file: `upgrade_config`; what may fail: `upgrade_failures`.
//!
//! `scripts/bench` runs the first test at full size, by these variables: EVENKEEL_CONNECTIONS,
//! EVENKEEL_UPGRADES.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use evenkeel::clock::Now;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::dial::{dial, unix};
use crate::harness::load::{Bulk, BulkServer, Echo, Load, VISIT_BYTES, Visitors};
use crate::harness::peers::Peer;
use crate::harness::proc::Proc;
use crate::harness::program::{Evenkeel, binary, send_signal};
use crate::harness::servers::{Greeter, greeted, visits};
use crate::harness::tools::succeed;
use crate::harness::{DEADLINE, eventually, pause, plain};

const BULK_STREAMS: u64 = 4;
/// Upgrades in a row, and those after which things count as they have to stay.
const MANY: usize = 25;
const WARM_UP: usize = 5;
const CONNECTIONS_OF_MANY: usize = 100;
/// What one process may have more than another of the same kind: what its allocator keeps.
const GROWTH_KIB: u64 = 4096;

/// A number from the environment.
fn from_environment(name: &str, otherwise: usize) -> usize {
    let text = std::env::var(name).ok();
    text.map_or(otherwise, |text| text.parse().expect("a number"))
}

fn loaded(echo: &Echo, bulk: &BulkServer) -> Evenkeel {
    Evenkeel::start(&format!(
        "workers: 2\nlisteners:\n  web: {{bind: \"127.0.0.1:0\", pool: web}}\n  \
         bulk: {{bind: \"127.0.0.1:0\", pool: bulk}}\n\
         pools:\n  web:\n    health: {{type: tcp, interval: 1s}}\n    servers: [{{name: echo, address: \"{}\"}}]\n  \
         bulk:\n    health: off\n    servers: [{{name: bulk, address: \"{}\"}}]\n",
        echo.address(),
        bulk.address()
    ))
}

/// How long it took from the request to the end of the old process.
fn timed_upgrade(evenkeel: &Evenkeel) -> Duration {
    let (old, begun) = (evenkeel.proc(), Now::read());
    let answer = evenkeel.api().send("POST", "/api/v1/upgrade", "{}");
    while !old.is_gone() && Now::read().since(begun) < DEADLINE {
        pause(Duration::from_millis(2));
    }
    let time = Now::read().since(begun);
    answer.expect(200);
    evenkeel.follow(old);
    time
}

fn sum_of_server(status: &Value, pool: &str, server: &str, path: [&str; 2]) -> u64 {
    let count = &status["pools"][pool]["servers"][server][path[0]][path[1]];
    count.as_u64().unwrap_or_else(|| panic!("{pool}: {status}"))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// What has gone through, as the clients know it.
struct Sums {
    live: u64,
    visited: u64,
    /// Each way.
    web_bytes: u64,
    /// Upstream and downstream.
    bulk_bytes: [u64; 2],
}

impl Sums {
    fn connections(&self) -> u64 {
        self.live + self.visited + BULK_STREAMS
    }

    /// The access log has a line for each of them.
    #[track_caller]
    fn are_logged(&self, evenkeel: &Evenkeel) {
        let all = usize::try_from(self.connections()).unwrap();
        let ends = evenkeel.ends(all);
        let ids: BTreeSet<_> = ends.iter().map(|end| end.field("id").to_owned()).collect();
        assert_eq!((ids.len(), ends.len()), (all, all));
    }

    #[track_caller]
    fn are_shown(&self, status: &Value) {
        let is = |pool, server, path, expected: u64| {
            let counted = sum_of_server(status, pool, server, path);
            assert_eq!(counted, expected, "{pool}: {path:?}");
        };
        is("web", "echo", ["bytes", "upstream"], self.web_bytes);
        is("web", "echo", ["bytes", "downstream"], self.web_bytes);
        is("bulk", "bulk", ["bytes", "upstream"], self.bulk_bytes[0]);
        is("bulk", "bulk", ["bytes", "downstream"], self.bulk_bytes[1]);
        let web = self.live + self.visited;
        for (pool, server, total) in [("web", "echo", web), ("bulk", "bulk", BULK_STREAMS)] {
            is(pool, server, ["connections", "total"], total);
            is(pool, server, ["connections", "active"], 0);
            is(pool, server, ["connections", "failed"], 0);
            let counts = json!({"active": 0, "total": total, "refused": 0});
            assert_eq!(status["listeners"][pool]["connections"], counts);
        }
        assert_eq!(status["connections"]["total"], self.connections());
        assert_eq!(status["connections"]["active"], 0);
        let ended = |end: &str| status["ends"][end].as_u64().unwrap();
        let ended = ended("client_closed") + ended("server_closed");
        assert_eq!(ended, self.connections());
    }

    #[track_caller]
    fn are_measured(&self, metrics: &str) {
        for (pool, direction, bytes) in [
            ("web", "upstream", self.web_bytes),
            ("web", "downstream", self.web_bytes),
            ("bulk", "upstream", self.bulk_bytes[0]),
            ("bulk", "downstream", self.bulk_bytes[1]),
        ] {
            let pool = format!("pool=\"{pool}\"");
            let direction = format!("direction=\"{direction}\"");
            let mut lines = metrics.lines();
            let line = lines.find(|line| {
                let is_bytes = line.starts_with("evenkeel_bytes_total{");
                is_bytes && line.contains(&pool) && line.contains(&direction)
            });
            let line = line.unwrap_or_else(|| panic!("{pool}, {direction}: {metrics}"));
            assert!(line.ends_with(&format!(" {bytes}")), "{bytes}: {line}");
        }
    }
}

/// Upgrades while all goes on: the longest that an echo has taken, and the slowest of them.
fn upgrades_under(load: &Load, visitors: &Visitors, evenkeel: &Evenkeel) -> [Duration; 2] {
    let (mut longest, mut slowest) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..from_environment("EVENKEEL_UPGRADES", 3) {
        slowest = slowest.max(timed_upgrade(evenkeel));
        load.goes_on();
        visitors.go_on();
        longest = longest.max(load.longest_wait());
    }
    [longest, slowest]
}

/// The longest that an echo takes when nothing else happens.
fn wait_in_peace(load: &Load) -> Duration {
    load.goes_on();
    load.longest_wait();
    for _ in 0..5 {
        load.goes_on();
    }
    load.longest_wait()
}

#[test]
fn under_load_nobody_is_lost_or_refused_and_all_is_counted_on() {
    let connections = from_environment("EVENKEEL_CONNECTIONS", 500);
    let (echo, bulk_server) = (Echo::listen(), BulkServer::listen());
    let evenkeel = loaded(&echo, &bulk_server);
    let addresses = evenkeel.addresses();
    let (web, bulk) = (addresses[0].1, addresses[1].1);
    let load = Load::start(web, connections);
    let streams = Bulk::start(bulk, &bulk_server, BULK_STREAMS);
    let visitors = Visitors::start(web);
    let in_peace = wait_in_peace(&load);
    let [longest, slowest] = upgrades_under(&load, &visitors, &evenkeel);
    let visited = visitors.end();
    let live = connections as u64;
    let api = evenkeel.api();
    let status = api.status_where("only the load is left", |status| {
        let active = sum_of_server(status, "web", "echo", ["connections", "active"]);
        (active == live).then(|| status.clone())
    });
    assert_eq!(status["listeners"]["web"]["connections"]["active"], live);
    assert_eq!(status["connections"]["active"], live + BULK_STREAMS);
    let bulk_bytes = streams.end();
    let report = load.end();
    let figures = json!({
        "connections": connections, "echoes": report.echoes, "visitors": visited,
        "bulk_bytes": bulk_bytes[0] + bulk_bytes[1],
        "longest_wait_ms": milliseconds(longest), "longest_wait_in_peace_ms": milliseconds(in_peace),
        "old_process_gone_ms": milliseconds(slowest),
        "lost": report.lost.len(), "wrong": report.wrong.len(),
    });
    // The name of the test may stand before it, without an end of its line.
    println!("\nupgrade: {figures}");
    assert_eq!((report.wrong, report.lost), (vec![], vec![]));
    let sums = Sums {
        live,
        visited,
        web_bytes: report.bytes + VISIT_BYTES * visited,
        bulk_bytes,
    };
    sums.are_logged(&evenkeel);
    sums.are_shown(&api.status());
    sums.are_measured(&api.ask("GET", "/metrics").body);
}

#[test]
fn many_in_a_row_leave_nothing_behind() {
    let (echo, bulk_server) = (Echo::listen(), BulkServer::listen());
    let evenkeel = loaded(&echo, &bulk_server);
    let web = evenkeel.address();
    let load = Load::start(web, CONNECTIONS_OF_MANY);
    let visitors = Visitors::start(web);
    for _ in 0..WARM_UP {
        evenkeel.upgrade();
    }
    let mut visited = visitors.end();
    let active = |status: &Value| {
        let active = sum_of_server(status, "web", "echo", ["connections", "active"]);
        (active == CONNECTIONS_OF_MANY as u64).then_some(())
    };
    evenkeel.api().status_where("the visitors are gone", active);
    let before = evenkeel.holding_at_rest();
    let memory = evenkeel.proc().resident_kib();
    let visitors = Visitors::start(web);
    for _ in WARM_UP..from_environment("EVENKEEL_UPGRADES", MANY) {
        evenkeel.upgrade();
        load.goes_on();
    }
    visited += visitors.end();
    evenkeel.back_to(&before);
    let grown = evenkeel.proc().resident_kib().saturating_sub(memory);
    assert!(grown < GROWTH_KIB, "{grown} KiB more than {memory}");
    let report = load.end();
    assert_eq!((report.lost, report.wrong), (vec![], vec![]));
    let all = CONNECTIONS_OF_MANY + usize::try_from(visited).unwrap();
    assert_eq!(evenkeel.ends(all).len(), all);
}

#[test]
fn everything_is_reached_where_it_was() {
    let server = Greeter::listen(b's');
    let config = plain(&[server.address()]);
    let admin = "admin: {socket: SOCKET, http: \"127.0.0.1:0\"}\n";
    let evenkeel = Evenkeel::start(&format!("{config}{admin}"));
    let (address, http) = (evenkeel.address(), evenkeel.http());
    let socket = fs::metadata(evenkeel.api().socket()).unwrap();
    for round in 1..=3 {
        let held = greeted(address);
        evenkeel.upgrade();
        assert_eq!(visits(address, 1), "s");
        assert_eq!(http.status()["pid"], evenkeel.pid());
        let list = evenkeel.api().get("/api/v1/connections");
        assert_eq!(list.as_array().unwrap().len(), 1);
        let total = evenkeel.api().status()["connections"]["total"].clone();
        assert_eq!(total, 2 * round);
        drop(held);
        evenkeel.ends(2 * round);
    }
    let now = fs::metadata(evenkeel.api().socket()).unwrap();
    assert_eq!(now.ino(), socket.ino(), "the same file");
}

#[test]
fn the_command_asks_for_it_and_says_what_came_of_it() {
    let server = Greeter::listen(b's');
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let (mut held, _) = greeted(evenkeel.address());
    let old = evenkeel.proc();
    let output = evenkeel.command(&["upgrade"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    evenkeel.follow(old);
    assert!(said.contains(&evenkeel.pid().to_string()), "{said}");
    echo(&mut held);
    evenkeel.rewrite("listeners: [");
    let output = evenkeel.command(&["upgrade"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains("evenkeel.yaml:"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    echo(&mut held);
}

fn echo(stream: &mut TcpStream) {
    stream.write_all(b"still there").unwrap();
    stream.expect(b"still there");
}

#[test]
fn a_signal_asks_for_it() {
    let server = Greeter::listen(b's');
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let (mut held, _) = greeted(evenkeel.address());
    for _ in 0..2 {
        let old = evenkeel.proc();
        evenkeel.signal("USR2");
        evenkeel.follow(old);
        echo(&mut held);
    }
    evenkeel.rewrite("listeners: [");
    evenkeel.signal("USR2");
    evenkeel.errors().wait("why it failed", |lines| {
        let told = |line: &String| line.contains("upgrade") && line.contains("evenkeel.yaml:");
        lines.iter().any(told).then_some(())
    });
    echo(&mut held);
}

#[test]
fn a_mistake_of_the_file_is_told_once() {
    const TIMES: usize = 5;
    let server = Greeter::listen(b's');
    let config = plain(&[server.address()]);
    let evenkeel = Evenkeel::start(&config);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let more = format!("listeners:\n  more: {{bind: \"{address}\", pool: web}}\n");
    // One is found in the file, the other one when the new process starts.
    for (config, part) in [
        ("listeners: [".to_owned(), "evenkeel.yaml:"),
        (config.replace("listeners:\n", &more), &*address),
    ] {
        evenkeel.rewrite(&config);
        for _ in 0..TIMES {
            evenkeel.upgrade_fails("{}");
        }
        // Whatever the new processes said stands before this.
        let last = format!("/missing/{}", part.len());
        evenkeel.upgrade_fails(&json!({ "binary": last }).to_string());
        let told = evenkeel.errors().wait("the last failure", |lines| {
            let last = lines.last()?.contains(&last);
            let told = lines.iter().filter(|line| line.contains(part));
            last.then(|| told.count())
        });
        assert_eq!(told, TIMES, "{}", evenkeel.errors().text());
    }
}

#[test]
fn one_that_drains_says_that_it_is_asked_in_vain() {
    let server = Greeter::listen(b's');
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let (held, _) = greeted(evenkeel.address());
    evenkeel.signal("TERM");
    evenkeel.errors().wait_for("draining 1 connection");
    let told = |count: usize| {
        evenkeel.errors().wait("it is told", |lines| {
            let told = lines.iter().filter(|line| line.contains("upgrade failed"));
            let told: Vec<_> = told.collect();
            let all = told.iter().all(|line| line.contains("is stopping"));
            (told.len() == count && all).then_some(())
        });
    };
    evenkeel.signal("USR2");
    told(1);
    let answer = evenkeel.api().send("POST", "/api/v1/upgrade", "{}");
    assert_eq!(answer.status, 503, "{answer:?}");
    told(2);
    drop(held);
    evenkeel.errors().wait_for(" moved between workers, ");
}

fn program_of(evenkeel: &Evenkeel) -> PathBuf {
    fs::read_link(format!("/proc/{}/exe", evenkeel.pid())).unwrap()
}

/// Another file of the same name, as packages are installed: one that runs cannot be written. By a
/// program of its own, as nobody runs a file that a process of many threads is writing.
fn copy_to(path: &Path) {
    let new = path.with_extension("new");
    succeed(Command::new("cp").arg(binary()).arg(&new));
    fs::rename(new, path).unwrap();
}

#[test]
fn the_program_may_be_another_or_a_new_one_in_the_same_place() {
    let server = Greeter::listen(b's');
    let folder = TempDir::new().unwrap();
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
    copy_to(&first);
    copy_to(&second);
    let config = plain(&[server.address()]);
    let evenkeel = Evenkeel::launch_with(&config, Command::new(&first));
    let (mut held, _) = greeted(evenkeel.address());
    copy_to(&first);
    evenkeel.upgrade();
    assert_eq!(program_of(&evenkeel), first, "the new file, not the old");
    let body = json!({"binary": second}).to_string();
    evenkeel.upgrade_with(&body);
    assert_eq!(program_of(&evenkeel), second);
    copy_to(&second);
    let old = evenkeel.proc();
    let argument = first.display().to_string();
    let output = evenkeel.command(&["upgrade", "--binary", &argument]);
    assert!(output.status.success(), "{output:?}");
    evenkeel.follow(old);
    assert_eq!(program_of(&evenkeel), first);
    echo(&mut held);
}

#[test]
fn one_that_was_started_by_arguments_goes_on_by_them() {
    let server = Greeter::listen(b's');
    let folder = TempDir::new().unwrap();
    let door = unix(folder.path(), "door");
    let mut command = Command::new(binary());
    command.args(["run", "--check", "off", "--listen", &door, "--server"]);
    command.arg(server.address().to_string());
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    let evenkeel = Evenkeel::spawn(command, folder);
    evenkeel.errors().wait_for("ready: ");
    let greeted = || {
        let (mut client, mut name) = (dial(&door), [0]);
        client.read_exact(&mut name).unwrap();
        assert_eq!(name, *b"s");
        client
    };
    let mut held = greeted();
    for _ in 0..2 {
        let old = evenkeel.processes();
        send_signal(old[0], "USR2");
        eventually("another process serves, alone", || {
            let now = evenkeel.processes();
            now.len() == 1 && now != old
        });
        held.write_all(b"still there").unwrap();
        let mut answer = [0; 11];
        held.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *b"still there");
        greeted();
    }
}

#[test]
fn stopping_the_next_one_ends_in_order() {
    let server = Greeter::listen(b's');
    let mut evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let (held, _) = greeted(evenkeel.address());
    evenkeel.upgrade();
    let socket = evenkeel.api().socket().to_owned();
    evenkeel.signal("TERM");
    drop(held);
    let serving = Proc(evenkeel.pid());
    eventually("it is gone", || serving.is_gone());
    evenkeel.exit();
    assert!(!socket.exists(), "the admin socket's file went with it");
    assert_eq!(evenkeel.end().end(), "client_closed");
}
