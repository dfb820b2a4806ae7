//! Whether a node should get traffic: each reason against it, leaving and joining, and the exit code for
//! scripts, which comes whatever has become of the process.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

use serde_json::json;
use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::TempDir;

use crate::harness::api::Api;
use crate::harness::peers::{Refusing, Server, Unanswering, connect, ping};
use crate::harness::program::{Evenkeel, binary};
use crate::harness::strace::Strace;
use crate::harness::tools::LimitedDescriptors;
use crate::harness::{eventually, plain, with_health, with_pool};

const LEFT: &str = "left: evenkeel leave was asked for";

/// What `/readyz` says.
fn said(api: &Api) -> (u16, String) {
    let answer = api.ask("GET", "/readyz");
    (answer.status, answer.body)
}

fn unready(reasons: &str) -> (u16, String) {
    (503, format!("{reasons}\n"))
}

fn ready() -> (u16, String) {
    (200, "ready\n".to_owned())
}

/// Exit code, standard output and standard error.
fn outcome(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code();
    (code, text(&output.stdout), text(&output.stderr))
}

/// What `ready-check` says: nothing where all is well.
fn check(evenkeel: &Evenkeel) -> Option<String> {
    // Under load, the time that is usual would be none.
    told(&evenkeel.command(&["ready-check", "--timeout", "10s"]))
}

fn told(output: &Output) -> Option<String> {
    let (code, out, error) = outcome(output);
    assert_eq!(out, "");
    match code {
        Some(0) => {
            assert_eq!(error, "");
            None
        }
        Some(1) => {
            assert_eq!(error.lines().count(), 1, "{error}");
            Some(error.trim_end().to_owned())
        }
        other => panic!("{other:?}: {error}"),
    }
}

/// `ready-check` at any socket, with the time that is usual.
fn check_at(socket: &Path) -> Option<String> {
    let mut command = Command::new(binary());
    command.arg("ready-check").arg("--socket").arg(socket);
    told(&command.stdin(Stdio::null()).output().unwrap())
}

fn count(evenkeel: &Evenkeel, part: &str) -> usize {
    let lines = evenkeel.errors().all();
    lines.iter().filter(|line| line.contains(part)).count()
}

#[test]
fn whoever_leaves_cuts_nobody_and_turns_nobody_away() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let api = evenkeel.api();
    let (mut client, mut serving) = evenkeel.pair(&server);
    assert_eq!((said(&api), check(&evenkeel)), (ready(), None));
    for _ in 0..2 {
        let (code, out, _) = outcome(&evenkeel.command(&["leave"]));
        assert_eq!(code, Some(0));
        assert!(out.contains("1 connection and new ones go on"), "{out}");
        let answer = api.ask("POST", "/api/v1/leave").expect(200);
        let shown = json!({"ready": false, "left": true, "not_ready": [LEFT]});
        assert_eq!(answer, shown);
    }
    assert_eq!(said(&api), unready(LEFT));
    assert_eq!(check(&evenkeel), Some(format!("not ready: {LEFT}")));
    ping(&mut client, &mut serving);
    let (mut other, mut served) = evenkeel.pair(&server);
    ping(&mut other, &mut served);
    let status = api.status();
    assert_eq!(
        (&status["ready"], &status["left"], &status["not_ready"]),
        (&json!(false), &json!(true), &json!([LEFT]))
    );
    let metrics = api.ask("GET", "/metrics").body;
    assert!(metrics.contains("\nevenkeel_left 1\n") && metrics.contains("\nevenkeel_ready 0\n"));
    let (_, shown, _) = outcome(&evenkeel.command(&["status"]));
    assert!(
        shown.contains(": not ready, ") && shown.contains(LEFT),
        "{shown}"
    );
    for _ in 0..2 {
        let (code, out, _) = outcome(&evenkeel.command(&["join"]));
        assert_eq!((code, &*out), (Some(0), "joined: ready\n"));
    }
    assert_eq!((said(&api), check(&evenkeel)), (ready(), None));
    ping(&mut client, &mut serving);
    // What is so already is no news.
    assert_eq!(count(&evenkeel, "] left: not ready from now on"), 1);
    assert_eq!(count(&evenkeel, "] joined: "), 1);
}

#[test]
fn leaving_is_told_to_those_who_watch() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let mut watching = evenkeel.api().visit();
    watching.ask("GET", "/api/v1/events", &[]);
    evenkeel.api().ask("POST", "/api/v1/leave").expect(200);
    watching.until("\"kind\":\"left\"");
    evenkeel.api().ask("POST", "/api/v1/join").expect(200);
    watching.until("\"kind\":\"joined\"");
}

#[test]
fn a_wait_ends_with_the_last_connection_or_says_what_is_left() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let pair = evenkeel.pair(&server);
    let in_vain = evenkeel.command(&["leave", "--wait", "--deadline", "0s"]);
    let (code, _, error) = outcome(&in_vain);
    assert_eq!(code, Some(1));
    assert!(error.contains("1 connection left after 0s"), "{error}");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| evenkeel.command(&["leave", "--wait"]));
        eventually("it waits", || evenkeel.api().status()["left"] == true);
        drop(pair);
        // Whoever is still sent here, for a moment, is waited for as well.
        drop(evenkeel.pair(&server));
        let (code, out, _) = outcome(&waiting.join().unwrap());
        assert_eq!(code, Some(0));
        let end = "none left, waiting whether any still come\nthis node: no connection is left\n";
        assert!(out.ends_with(end), "{out}");
    });
    let pair = evenkeel.pair(&server);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| evenkeel.command(&["leave", "--wait"]));
        eventually("its end", || {
            if evenkeel.api().status()["left"] == true {
                evenkeel.api().ask("POST", "/api/v1/join").expect(200);
            }
            waiting.is_finished()
        });
        let (code, _, error) = outcome(&waiting.join().unwrap());
        assert_eq!(code, Some(1));
        assert!(error.contains("has joined again"), "{error}");
    });
    drop(pair);
}

#[test]
fn what_an_operator_wants_outlives_reload_and_upgrade_and_no_new_start() {
    let server = Server::listen();
    let config = plain(&[server.address()]);
    let evenkeel = Evenkeel::start(&config);
    evenkeel.api().ask("POST", "/api/v1/leave").expect(200);
    evenkeel.api().ask("POST", "/api/v1/reload").expect(200);
    assert_eq!(said(&evenkeel.api()), unready(LEFT));
    for _ in 0..2 {
        evenkeel.upgrade();
        assert_eq!(said(&evenkeel.api()), unready(LEFT));
    }
    evenkeel.api().ask("POST", "/api/v1/join").expect(200);
    evenkeel.upgrade();
    assert_eq!(said(&evenkeel.api()), ready());
    evenkeel.api().ask("POST", "/api/v1/leave").expect(200);
    drop(evenkeel);
    assert_eq!(said(&Evenkeel::start(&config).api()), ready());
}

#[test]
fn whoever_starts_or_stops_may_be_taken_out_as_well() {
    let silent = Unanswering::new();
    let health = "    health: {type: tcp, interval: 1s, timeout: 30s}\n";
    let config = with_health("workers: 1", health, &[silent.address()]);
    let mut evenkeel = Evenkeel::launch(&config);
    let api = evenkeel.api();
    eventually("it answers", || api.try_visit().is_some());
    assert_eq!(said(&api), unready("starting"));
    assert_eq!(check(&evenkeel), Some("not ready: starting".to_owned()));
    api.ask("POST", "/api/v1/leave").expect(200);
    assert_eq!(
        check(&evenkeel),
        Some(format!("not ready: starting; {LEFT}"))
    );
    let server = silent.answer();
    evenkeel.errors().wait_for("ready: ");
    assert_eq!(said(&api), unready(LEFT));
    let pair = (evenkeel.connect(), server);
    eventually("it is counted", || {
        api.status()["connections"]["active"] == 1
    });
    api.ask("POST", "/api/v1/join").expect(200);
    evenkeel.signal("TERM");
    eventually("it drains", || said(&api) == unready("draining"));
    api.ask("POST", "/api/v1/leave").expect(200);
    api.ask("POST", "/api/v1/join").expect(503);
    evenkeel.signal("TERM");
    assert!(evenkeel.exit().success());
    drop(pair);
}

/// Two pools, of which `b` has no server that is up; `top` says which count.
fn two_pools(top: &str, a: SocketAddr, b: SocketAddr) -> String {
    let health = "health: {type: tcp, interval: 50ms, fall: 1}";
    format!(
        "{top}\nworkers: 1\nlisteners:\n  a: {{bind: 127.0.0.1:0, pool: a}}\n  b: {{bind: \
         127.0.0.1:0, pool: b}}\npools:\n  a: {{{health}, servers: ['{a}']}}\n  b: {{{health}, \
         servers: ['{b}']}}\n"
    )
}

#[test]
fn which_pools_count_is_for_the_configuration_to_say() {
    let (server, dead) = (Server::listen(), Refusing::new());
    let config = |top: &str| two_pools(top, server.address(), dead.address());
    let evenkeel = Evenkeel::start(&config(""));
    let api = evenkeel.api();
    let without = unready("pool b has no server");
    assert_eq!(said(&api), without);
    for (before, now, expected) in [
        ("all_pools", "any_pool", ready()),
        ("any_pool", "[b]", without.clone()),
        ("[b]", "[a]", ready()),
        ("[a]", "[a, b]", without.clone()),
        ("[a, b]", "all_pools", without),
    ] {
        evenkeel.rewrite(&config(&format!("ready_when: {now}")));
        let line = format!("ready_when {before} -> {now}");
        for path in ["/api/v1/plan", "/api/v1/reload"] {
            let plan = api.ask("POST", path).expect(200);
            assert_eq!(plan["changes"], json!([{"text": line, "connections": 0}]));
        }
        assert_eq!(said(&api), expected, "{now}");
    }
    // A pool without a server does not make up for the others.
    let none = two_pools("ready_when: any_pool", dead.address(), dead.address());
    evenkeel.rewrite(&none);
    api.ask("POST", "/api/v1/reload").expect(200);
    eventually("neither has", || {
        said(&api) == unready("pool a has no server\npool b has no server")
    });
    assert_eq!(
        check(&evenkeel),
        Some("not ready: pool a has no server; pool b has no server".to_owned())
    );
}

#[test]
fn over_tcp_only_the_token_takes_a_node_out() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "a-token-of-the-tests\n").unwrap();
    let admin = "admin: {socket: SOCKET, http: 127.0.0.1:0";
    let server = Server::listen();
    let open = with_pool(&format!("{admin}}}"), "", &[server.address()]);
    let without = Evenkeel::start(&open);
    without.http().ask("POST", "/api/v1/leave").expect(403);
    let guarded = format!("{admin}, http_token_file: {}}}", file.display());
    let evenkeel = Evenkeel::start(&with_pool(&guarded, "", &[server.address()]));
    let http = evenkeel.http();
    for path in ["/api/v1/leave", "/api/v1/join"] {
        let with = |token: &str| {
            let header = format!("Authorization: Bearer {token}");
            http.request("POST", path, &[&header], None)
        };
        http.ask("POST", path).expect(401);
        with("another").expect(403);
        assert_eq!(
            said(&http).0,
            if path.ends_with("join") { 503 } else { 200 }
        );
        with("a-token-of-the-tests").expect(200);
        http.ask("GET", path).expect(405);
    }
    assert_eq!(said(&http), ready());
}

#[test]
fn a_node_without_descriptors_is_not_ready_while_it_lasts() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let (mut client, mut serving) = evenkeel.pair(&server);
    // Those who ask need one as well: this one is open before.
    let mut asking = evenkeel.api().visit();
    let mut answer = || {
        asking.ask("GET", "/readyz", &[]);
        asking.until("\r\n\r\n");
        asking.until("\n")
    };
    assert_eq!(answer(), "ready\n");
    // Not one more, whichever number is free.
    let limited = LimitedDescriptors::at(evenkeel.pid(), 3);
    let waiting = evenkeel.connect();
    eventually("short", || {
        answer() == "worker 0 is out of descriptors or memory\n"
    });
    ping(&mut client, &mut serving);
    assert!(check_in_time(&evenkeel).is_some());
    drop(limited);
    drop(waiting);
    eventually("ready again", || said(&evenkeel.api()) == ready());
}

/// With the time that is usual.
fn check_in_time(evenkeel: &Evenkeel) -> Option<String> {
    told(&evenkeel.command(&["ready-check"]))
}

#[test]
fn a_node_whose_threads_hang_is_not_ready_until_they_go_on() {
    let server = Server::listen();
    let checked = "    health: {type: tcp, interval: 100ms}\n";
    // Connecting is done by the prober where there are checks, else by workers alone.
    for (health, who) in [
        ("    health: off\n", "worker "),
        (checked, "the prober hangs"),
    ] {
        let evenkeel = Evenkeel::start(&with_health("workers: 2", health, &[server.address()]));
        let api = evenkeel.api();
        assert_eq!(said(&api), ready());
        let inject = "inject=connect:delay_enter=60s";
        let strace = Strace::attach(evenkeel.pid(), &["-e", "trace=connect", "-e", inject]);
        let client = (who == "worker ").then(|| connect(evenkeel.address()));
        eventually("it hangs", || {
            let (status, text) = said(&api);
            status == 503 && text.contains(who) && text.ends_with(" hangs\n")
        });
        evenkeel.errors().wait_for("hangs: this node is not ready");
        strace.detach();
        eventually("it goes on", || said(&api) == ready());
        drop(client);
    }
}

#[test]
fn a_check_says_no_whatever_has_become_of_the_process() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    evenkeel.signal("STOP");
    let text = check_in_time(&evenkeel);
    evenkeel.signal("CONT");
    assert!(text.unwrap().contains("no answer in time"));
    assert_eq!(check(&evenkeel), None);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("nobody.sock");
    assert!(check_at(&path).unwrap().contains("is it running?"));
    fs::write(&path, "").unwrap();
    assert!(check_at(&path).unwrap().contains("is no socket"));
    let path = folder.path().join("silent.sock");
    let silent = UnixListener::bind(&path).unwrap();
    assert!(check_at(&path).unwrap().contains("no answer in time"));
    drop(silent);
    assert!(check_at(&path).unwrap().contains("left over"));
}

#[test]
fn a_check_does_not_wait_at_a_full_queue() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("full.sock");
    let address = SockAddr::unix(&path).unwrap();
    let socket = || Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let full = socket();
    full.bind(&address).unwrap();
    full.listen(0).unwrap();
    let waiting = socket();
    waiting.connect(&address).unwrap();
    assert!(check_at(&path).unwrap().contains("too many wait"));
    drop((full, waiting));
}
