//! `evenkeel demo`: the program with its own servers and its own load, steered over the API as the
//! page steers it, and judged by what its own listener has given to whom.
//!
//! Shares are counted over a number of connections, never over a time.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::program::{Evenkeel, binary};
use crate::harness::tools::tool;
use crate::harness::{eventually, eventually_some};

/// Enough connections to tell a fifth from a tenth, and about a second of the load below.
const MANY: u64 = 400;
/// Connections that may still go where they went before a change: what is under way, and what the
/// other worker gives out until it has heard of it.
const SETTLING: u64 = 60;

/// A demonstration that runs.
struct Show {
    evenkeel: Evenkeel,
    page: String,
    listener: String,
}

impl Show {
    /// Starts it with free ports and waits until its load is answered.
    #[track_caller]
    fn start() -> Self {
        let show = Self::launch(&[]);
        eventually("the page answers", || {
            show.try_call("GET", "/healthz", None).is_some()
        });
        show.patch("/api/v1/demo", &json!({"load": {"rate": 400}}));
        eventually("the load is answered", || {
            show.demo()["load"]["answered"].as_u64() > Some(20)
        });
        show
    }

    /// Starts it and waits until it has said where it is.
    #[track_caller]
    fn launch(arguments: &[&str]) -> Self {
        let mut command = demo(&["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(arguments).stdout(Stdio::piped());
        let evenkeel = Evenkeel::spawn(command, TempDir::new().unwrap());
        let open = evenkeel.output().wait_for("open http://");
        let curl = evenkeel.output().wait_for("curl http://");
        Self {
            page: url(&open),
            listener: url(&curl),
            evenkeel,
        }
    }

    /// The answer's status and body; `None` where nobody answers.
    fn try_call(&self, method: &str, path: &str, body: Option<&Value>) -> Option<(u16, String)> {
        let url = format!("{}{path}", self.page);
        let mut command = Command::new(tool("curl"));
        command.args([
            "-sS",
            "--max-time",
            "20",
            "-w",
            "\n%{http_code}",
            "-X",
            method,
        ]);
        if let Some(body) = body {
            command.args([
                "-H",
                "Content-Type: application/json",
                "-d",
                &body.to_string(),
            ]);
        }
        let output = command.arg(&url).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n')?;
        output
            .status
            .success()
            .then(|| (status.parse().unwrap(), body.to_owned()))
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        let (status, body) = self.try_call("GET", path, None).expect("an answer");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    #[track_caller]
    fn patch(&self, path: &str, wish: &Value) -> Value {
        let (status, body) = self.try_call("PATCH", path, Some(wish)).expect("an answer");
        assert_eq!(status, 200, "{path} {wish}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    fn demo(&self) -> Value {
        self.get("/api/v1/demo")
    }

    /// Changes how servers are picked.
    #[track_caller]
    fn pick_by(&self, algorithm: &str) {
        let pool = self.patch("/api/v1/pools/demo", &json!({"algorithm": algorithm}));
        assert_eq!(pool["algorithm"], algorithm);
        self.shares_over(SETTLING);
    }

    #[track_caller]
    fn slow(&self, server: &str, delay_ms: u64) {
        self.turn(server, &json!({"delay_ms": delay_ms}));
        self.shares_over(SETTLING);
    }

    #[track_caller]
    fn turn(&self, server: &str, wish: &Value) {
        let shown = self.patch("/api/v1/demo", &json!({"servers": {server: wish}}));
        for (key, value) in wish.as_object().unwrap() {
            assert_eq!(shown["servers"][server][key], *value);
        }
    }

    fn state(&self, server: &str) -> String {
        let status = self.get("/api/v1/status");
        let state = &status["pools"]["demo"]["servers"][server]["state"];
        state.as_str().unwrap().to_owned()
    }

    /// Connections that each server was given since the beginning.
    fn totals(&self) -> BTreeMap<String, u64> {
        let status = self.get("/api/v1/status");
        let servers = status["pools"]["demo"]["servers"].as_object().unwrap();
        let total = |server: &Value| server["connections"]["total"].as_u64().unwrap();
        servers
            .iter()
            .map(|(name, server)| (name.clone(), total(server)))
            .collect()
    }

    /// Each server's share, 0 to 1, of the next `count` connections or some more.
    #[track_caller]
    fn shares_over(&self, count: u64) -> BTreeMap<String, f64> {
        let before = self.totals();
        eventually_some("connections", || {
            let given: BTreeMap<_, _> = self
                .totals()
                .into_iter()
                .map(|(name, total)| (name.clone(), total - before[&name]))
                .collect();
            let all: u64 = given.values().sum();
            let share = |given: u64| given as f64 / all as f64;
            let shares = given.into_iter().map(|(name, given)| (name, share(given)));
            (all >= count).then(|| shares.collect())
        })
    }
}

/// `evenkeel demo` with arguments, quiet where nobody listens.
fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("demo").args(arguments);
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The address in a line, up to its path.
fn url(line: &str) -> String {
    let from = line.find("http://").unwrap();
    let rest = &line[from..];
    let end = rest["http://".len()..].find('/').unwrap() + "http://".len();
    rest[..end].to_owned()
}

/// Runs it to its end, which must come by itself: exit code and what it said.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let output = demo(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

#[test]
fn the_demo_serves_its_listener_and_ends_when_told() {
    let mut show = Show::launch(&["--servers", "2"]);
    let mut names = BTreeMap::new();
    for _ in 0..8 {
        let answer = eventually_some("an answer", || {
            let mut curl = Command::new(tool("curl"));
            let output = curl
                .args(["-sS", "--max-time", "20", &show.listener])
                .output();
            let output = output.unwrap();
            output.status.success().then_some(output.stdout)
        });
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        let name = answer["server"].as_str().unwrap().to_owned();
        *names.entry(name).or_insert(0) += 1;
    }
    assert!(
        names.keys().all(|name| name == "s1" || name == "s2"),
        "{names:?}"
    );
    show.evenkeel.signal("INT");
    assert_eq!(show.evenkeel.exit().code(), Some(0));
    let said = show.evenkeel.errors().text();
    assert!(!said.contains("INFO"), "the terminal stays calm: {said}");
}

#[test]
fn usual_ports_that_are_taken_are_no_obstacle() {
    // Where somebody else has one of them, so much the better.
    let _taken = ["127.0.0.1:8080", "127.0.0.1:9900"].map(TcpListener::bind);
    let mut command = demo(&[]);
    command.stdout(Stdio::piped());
    let mut evenkeel = Evenkeel::spawn(command, TempDir::new().unwrap());
    let output = evenkeel.output().clone();
    output.wait_for("127.0.0.1:8080 is in use");
    output.wait_for("127.0.0.1:9900 is in use");
    let page = url(&output.wait_for("open http://"));
    assert_ne!(page, "http://127.0.0.1:9900");
    let listener = url(&output.wait_for("curl http://"));
    assert_ne!(listener, "http://127.0.0.1:8080");
    // Before it listens a signal may find nobody who heeds it.
    eventually("it listens", || {
        TcpStream::connect(&listener["http://".len()..]).is_ok()
    });
    evenkeel.signal("TERM");
    assert_eq!(evenkeel.exit().code(), Some(0));
}

#[test]
fn an_address_that_was_asked_for_and_is_taken_is_an_error() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    for (option, free) in [("--listen", "--admin"), ("--admin", "--listen")] {
        let (code, said) = refused(&[option, &taken, free, "127.0.0.1:0"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(option) && said.contains(&taken), "{said}");
    }
}

#[test]
fn only_one_to_twenty_servers_can_be_asked_for() {
    for wrong in ["0", "21", "-1", "many"] {
        let (code, said) = refused(&[&format!("--servers={wrong}")]);
        assert_eq!(code, Some(2), "{said}");
    }
}

#[test]
fn round_robin_keeps_sending_a_slow_server_its_full_share() {
    let show = Show::start();
    show.slow("s1", 300);
    let shares = show.shares_over(MANY);
    assert!((0.17..=0.23).contains(&shares["s1"]), "{shares:?}");
}

#[test]
fn least_connections_and_power_of_two_move_away_from_a_slow_server() {
    let show = Show::start();
    show.slow("s1", 300);
    for algorithm in ["least_connections", "power_of_two"] {
        show.pick_by(algorithm);
        let shares = show.shares_over(MANY);
        assert!(shares["s1"] < 0.1, "{algorithm}: {shares:?}");
        // The fast ones still get something each.
        assert!(
            shares.values().filter(|share| **share > 0.1).count() == 4,
            "{shares:?}"
        );
    }
    // It comes back when it is fast again.
    show.pick_by("round_robin");
    show.slow("s1", 0);
    let shares = show.shares_over(MANY);
    assert!((0.17..=0.23).contains(&shares["s1"]), "{shares:?}");
}

#[test]
fn a_killed_server_gets_nothing_and_clients_see_no_error_after_it() {
    let show = Show::start();
    show.turn("s2", &json!({"alive": false}));
    eventually("s2 is down", || show.state("s2") == "down");
    show.shares_over(SETTLING);
    let errors = show.demo()["load"]["errors"].clone();
    let shares = show.shares_over(MANY);
    assert!(shares["s2"] == 0.0, "{shares:?}");
    let load = show.demo()["load"].clone();
    assert_eq!(load["errors"], errors, "{load}");
    show.turn("s2", &json!({"alive": true}));
    eventually("s2 is up", || show.state("s2") == "up");
    show.shares_over(SETTLING);
    let shares = show.shares_over(MANY);
    assert!((0.17..=0.23).contains(&shares["s2"]), "{shares:?}");
    assert_eq!(show.demo()["load"]["errors"], errors, "nor at its return");
}

#[test]
fn ip_hash_keeps_each_client_on_its_server() {
    let show = Show::start();
    show.pick_by("ip_hash");
    let clients = || show.demo()["clients"].clone();
    let before = clients();
    let opened = show.demo()["load"]["answered"].as_u64().unwrap();
    eventually("each client comes several times", || {
        show.demo()["load"]["answered"].as_u64() > Some(opened + MANY)
    });
    assert_eq!(clients(), before, "server and changes of each");
    let servers: std::collections::BTreeSet<_> = before
        .as_array()
        .unwrap()
        .iter()
        .map(|client| client["server"].as_str().unwrap().to_owned())
        .collect();
    assert!(servers.len() > 1, "{servers:?}");
}

#[test]
fn weights_show_in_the_shares() {
    let show = Show::start();
    let path = "/api/v1/pools/demo/servers/s3";
    let server = show.patch(path, &json!({"weight": 6}));
    assert_eq!(server["weight"], 6);
    show.shares_over(SETTLING);
    let shares = show.shares_over(MANY);
    // Six of ten, and one of ten for each of the others.
    for (name, share) in &shares {
        let expected = if name == "s3" { 0.6 } else { 0.1 };
        assert!((share - expected).abs() < 0.03, "{shares:?}");
    }
}

#[test]
fn what_a_demo_cannot_do_is_refused() {
    let show = Show::start();
    let table = [
        (json!({"servers": {"s6": {"alive": false}}}), 404),
        (json!({"servers": {"s1": {"delay_ms": 10_001}}}), 400),
        (json!({"load": {"rate": 0}}), 400),
        (json!({"load": {"rate": 2001}}), 400),
        (json!({"weather": "fair"}), 400),
    ];
    let before = show.demo();
    for (wish, expected) in table {
        let (status, body) = show.try_call("PATCH", "/api/v1/demo", Some(&wish)).unwrap();
        assert_eq!(status, expected, "{wish}: {body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(body["error"].is_string(), "{body}");
    }
    let after = show.demo();
    assert_eq!(before["load"]["rate"], after["load"]["rate"]);
    assert_eq!(
        before["servers"]["s1"]["delay_ms"],
        after["servers"]["s1"]["delay_ms"]
    );
}
