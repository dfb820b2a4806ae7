//! The API over both transports: what it tells after known traffic, who may change what, what it
//! answers to what cannot be meant.

use std::fs;
use std::io::Write;
use std::net::TcpStream;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::api::Api;
use crate::harness::peers::{Peer, Refusing, Server, Unanswering, ping};
use crate::harness::program::{Evenkeel, is_listening};
use crate::harness::servers::{Greeter, visits};
use crate::harness::{eventually, plain};

const BOTH: &str = "admin: {socket: SOCKET, http: 127.0.0.1:0}";
const TOKEN: &str = "a-token-of-the-tests";
const SERVER_PATH: &str = "/api/v1/pools/web/servers/a";

/// A request, and the status and a part of the text of its refusal.
type Refused<'a> = (&'a str, &'a str, Option<&'a str>, u16, &'a str);

const REFUSED: [Refused<'_>; 23] = [
    ("GET", "/api/v1/nothing", None, 404, "/api/v1/nothing"),
    ("GET", "/api/v1/pools/none", None, 404, "none"),
    ("GET", "/api/v1/pools/web/servers/c", None, 404, "server c"),
    (
        "DELETE",
        "/api/v1/pools/web/servers/c",
        None,
        404,
        "server c",
    ),
    (
        "DELETE",
        "/api/v1/connections/99",
        None,
        404,
        "connection 99",
    ),
    ("DELETE", "/api/v1/connections/x", None, 400, "x"),
    ("GET", "/api/v1/demo", None, 404, "demonstration"),
    ("GET", "/api/v1/connections?pool=none", None, 404, "none"),
    ("GET", "/api/v1/connections?server=none", None, 404, "none"),
    ("GET", "/api/v1/connections?poole=web", None, 400, "poole"),
    ("GET", "/api/v1/connections?sample=1h", None, 400, "10s"),
    ("PUT", SERVER_PATH, Some("{}"), 405, "GET"),
    ("POST", "/api/v1/status", Some("{}"), 405, "GET"),
    ("DELETE", "/api/v1/reload", None, 405, "POST"),
    ("PATCH", SERVER_PATH, Some("{"), 400, "EOF"),
    ("PATCH", SERVER_PATH, Some("[1]"), 400, "no JSON object"),
    ("PATCH", SERVER_PATH, None, 400, "empty"),
    (
        "PATCH",
        SERVER_PATH,
        Some(r#"{"weight":257}"#),
        400,
        "0 to 256",
    ),
    ("PATCH", SERVER_PATH, Some(r#"{"weight":-1}"#), 400, "-1"),
    ("PATCH", SERVER_PATH, Some(r#"{"wieght":1}"#), 400, "wieght"),
    (
        "PATCH",
        SERVER_PATH,
        Some(r#"{"state":"asleep"}"#),
        400,
        "asleep",
    ),
    (
        "PATCH",
        "/api/v1/pools/web",
        Some(r#"{"algorithm":"luck"}"#),
        400,
        "luck",
    ),
    (
        "POST",
        "/api/v1/pools/web/servers",
        Some(r#"{"address":"a:1"}"#),
        400,
        "write an IP address",
    ),
];

/// A pool `web` with the servers `a` and `b`, which a listener of the same name leads to.
fn config(admin: &str, pool: &str, servers: [std::net::SocketAddr; 2]) -> String {
    let [a, b] = servers;
    format!(
        "workers: 2\n{admin}\nlisteners:\n  web: {{bind: \"127.0.0.1:0\", pool: web}}\n\
         pools:\n  web:\n    algorithm: round_robin\n{pool}    servers:\n\
         \x20     - {{name: a, address: {a}, weight: 3, max_connections: 77}}\n\
         \x20     - {{name: b, address: {b}, backup: true}}\n"
    )
}

/// An evenkeel before one greeter that serves as `a` and as, unused, `b`.
fn usual(admin: &str) -> (Vec<Greeter>, Evenkeel) {
    let greeters = vec![Greeter::listen(b'a'), Greeter::listen(b'b')];
    let servers = [greeters[0].address(), greeters[1].address()];
    let evenkeel = Evenkeel::start(&config(admin, "    health: off\n", servers));
    (greeters, evenkeel)
}

/// A token in a file of its own, and the `admin` line that names it.
fn guarded(folder: &TempDir) -> String {
    let file = folder.path().join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    format!(
        "admin: {{socket: SOCKET, http: 127.0.0.1:0, http_token_file: {}}}",
        file.display()
    )
}

/// The text of a refusal, which is JSON and says something.
#[track_caller]
fn error(api: &Api, (method, path): (&str, &str), body: Option<&str>) -> (u16, String) {
    let answer = api.request(method, path, &[], body);
    let json = answer.json();
    let text = json["error"].as_str();
    let text = text.unwrap_or_else(|| panic!("{method} {path}: {answer:?}"));
    assert!(!text.is_empty() && json.as_object().unwrap().len() == 1);
    (answer.status, text.to_owned())
}

#[test]
fn the_status_has_everything_and_its_values_are_true() {
    let server = Server::listen();
    let unused = Server::listen();
    let addresses = [server.address(), unused.address()];
    let evenkeel = Evenkeel::start(&config(BOTH, "    health: off\n", addresses));
    let bind = evenkeel.address().to_string();
    let (mut client, mut serving) = evenkeel.pair(&server);
    ping(&mut client, &mut serving);
    let (mut ended, mut served) = evenkeel.pair(&server);
    ended.write_all(b"question").unwrap();
    ended.end();
    served.expect(b"question");
    served.write_all(b"an answer").unwrap();
    drop(served);
    ended.expect(b"an answer");
    ended.expect_fin();
    evenkeel.ends(1);
    for api in [evenkeel.api(), evenkeel.http()] {
        let status = api.status();
        let expected = json!({
            "version": env!("CARGO_PKG_VERSION"), "ready": true, "reasons": [],
            "left": false, "not_ready": [], "stage": "serving", "workers": 2,
            "bytes": {"upstream": 12, "downstream": 13}, "ends": {"client_closed": 1},
            "leaving": [], "demo": false, "pipes": {"lent": 0, "idle": 0},
            "config": {"file": evenkeel.file().display().to_string(), "differs": [],
                "confirm_seconds": null},
            "listeners": {"web": {"bind": [bind], "pool": "web", "sni": {},
                "connections": {"active": 1, "total": 2, "refused": 0}}},
        });
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(status[key], *value, "{key}");
        }
        assert!(status["uptime_seconds"].as_f64().unwrap() > 0.0);
        let process = &status["connections"];
        assert_eq!(
            (&process["active"], &process["total"], &process["refused"]),
            (&json!(1), &json!(2), &json!(0))
        );
        assert!(process["max"].as_u64().unwrap() > 100);
        let workers = status["worker_connections"].as_array().unwrap();
        let of_workers: Vec<_> = workers.iter().map(|w| w.as_u64().unwrap()).collect();
        assert_eq!((of_workers.len(), of_workers.iter().sum::<u64>()), (2, 1));
        let pool = &status["pools"]["web"];
        assert_eq!(pool["algorithm"], "round_robin");
        let mut a = pool["servers"]["a"].clone();
        assert!(a["health"]["since_seconds"].take().as_f64().is_some());
        let health = json!({"last": "off", "reason": "health: off", "since_seconds": null});
        let expected = json!({
            "address": addresses[0].to_string(), "state": "up", "weight": 3, "backup": false,
            "max_connections": 77, "connections": {"active": 1, "total": 2, "failed": 0},
            "bytes": {"upstream": 12, "downstream": 13}, "health": health, "ejected": null, "slow_start": null,
            "drain": null,
        });
        assert_eq!(a, expected);
        let b = &pool["servers"]["b"];
        assert_eq!((&b["backup"], &b["weight"]), (&json!(true), &json!(1)));
        assert_eq!(
            b["connections"],
            json!({"active": 0, "total": 0, "failed": 0})
        );
    }
}

#[test]
fn bytes_are_counted_while_the_connection_lives() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let (mut client, mut serving) = evenkeel.pair(&server);
    // Enough for a direction to become bulk, which is counted on another way.
    let bulk = vec![7; 1 << 20];
    for round in 1..=3 {
        std::thread::scope(|scope| {
            scope.spawn(|| client.write_all(&bulk).unwrap());
            serving.expect(&bulk);
        });
        serving.write_all(b"pong").unwrap();
        client.expect(b"pong");
        let bytes = json!({"upstream": round << 20, "downstream": 4 * round});
        let name = server.address().to_string();
        let status = evenkeel.api().status();
        assert_eq!(status["bytes"], bytes);
        let shown = &status["pools"]["web"]["servers"][&name];
        assert_eq!(
            (&shown["bytes"], &shown["connections"]["active"]),
            (&bytes, &json!(1))
        );
    }
    assert!(evenkeel.access().is_empty());
}

#[test]
fn failed_and_refused_connections_are_counted_where_they_failed() {
    let (refusing, greeter) = (Refusing::new(), Greeter::listen(b'b'));
    let servers = [refusing.address(), greeter.address()];
    let pool = "    health: {type: tcp, interval: 1h, fall: 1}\n";
    // Up at the first check, then not there any more and not found out yet.
    let listener = refusing.listen();
    let config = config(BOTH, pool, servers);
    let evenkeel = Evenkeel::start(&format!("max_connections: 2\n{config}"));
    drop(listener);
    eventually("it refuses", || !is_listening(refusing.address()));
    assert_eq!(visits(evenkeel.address(), 3), "bbb");
    let held: Vec<TcpStream> = (0..2).map(|_| evenkeel.connect()).collect();
    eventually("both are served", || greeter.active() == 2);
    evenkeel.connect().expect_reset();
    let status = evenkeel.http().status();
    let counts = |name: &str| status["pools"]["web"]["servers"][name]["connections"].clone();
    assert_eq!(counts("a"), json!({"active": 0, "total": 0, "failed": 5}));
    assert_eq!(counts("b"), json!({"active": 2, "total": 5, "failed": 0}));
    let listener = &status["listeners"]["web"]["connections"];
    assert_eq!(*listener, json!({"active": 2, "total": 6, "refused": 1}));
    assert_eq!(status["connections"]["max"], 2);
    assert_eq!(status["connections"]["refused"], 1);
    assert_eq!(status["ends"], json!({"client_closed": 3, "limit": 1}));
    drop(held);
}

#[test]
fn a_pool_without_a_server_is_not_ready_and_says_so() {
    let mut greeter = Greeter::listen(b'a');
    let dead = Refusing::new();
    let pool = "    health: {type: tcp, interval: 50ms, fall: 1}\n";
    let servers = [greeter.address(), dead.address()];
    let evenkeel = Evenkeel::start(&config(BOTH, pool, servers));
    let ready = |api: &Api| {
        let answer = api.ask("GET", "/readyz");
        (answer.status, answer.body)
    };
    for api in [evenkeel.api(), evenkeel.http()] {
        assert_eq!(api.ask("GET", "/healthz").body, "ok\n");
        assert_eq!(ready(&api), (200, "ready\n".into()));
    }
    greeter.stop();
    for api in [evenkeel.api(), evenkeel.http()] {
        let status = api.status_where("not ready", |status| {
            (status["ready"] == false).then(|| status.clone())
        });
        assert_eq!(status["reasons"], json!(["pool web has no server"]));
        assert_eq!(ready(&api), (503, "pool web has no server\n".into()));
        let a = &status["pools"]["web"]["servers"]["a"];
        assert_eq!(
            (&a["state"], &a["health"]["last"]),
            (&json!("down"), &json!("failed"))
        );
        let reason = a["health"]["reason"].as_str().unwrap();
        assert!(reason.contains("refused"), "{reason}");
        assert_eq!(api.ask("GET", "/healthz").status, 200);
    }
}

#[test]
fn until_the_first_checks_are_answered_it_says_that_it_is_starting() {
    let silent = Unanswering::new();
    let pool = "    health: {type: tcp, interval: 1s, timeout: 30s}\n";
    let other = Refusing::new();
    let servers = [silent.address(), other.address()];
    let evenkeel = Evenkeel::launch(&config(BOTH, pool, servers));
    let http = evenkeel.http();
    for api in [evenkeel.api(), http] {
        assert_eq!(api.ask("GET", "/healthz").status, 200);
        let answer = api.ask("GET", "/readyz");
        assert_eq!((answer.status, &*answer.body), (503, "starting\n"));
        let status = api.status();
        assert_eq!(
            (&status["stage"], &status["ready"]),
            (&json!("starting"), &json!(false))
        );
        assert_eq!(
            status["config"]["differs"],
            json!([]),
            "nothing runs that could differ"
        );
    }
    let shown = evenkeel.command(&["status"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("starting: nothing listens before"),
        "{shown}"
    );
    let _server = silent.answer();
    eventually("ready", || {
        evenkeel.api().ask("GET", "/readyz").status == 200
    });
}

#[test]
fn while_it_drains_it_is_not_ready_shows_what_is_left_and_can_kill_it() {
    let server = Server::listen();
    let addresses = [server.address(), Refusing::new().address()];
    let mut evenkeel = Evenkeel::start(&config(BOTH, "    health: off\n", addresses));
    let (mut client, mut serving) = evenkeel.pair(&server);
    ping(&mut client, &mut serving);
    let (api, http) = (evenkeel.api(), evenkeel.http());
    evenkeel.signal("TERM");
    eventually("draining", || {
        let answer = http.ask("GET", "/readyz");
        (answer.status, &*answer.body) == (503, "draining\n")
    });
    assert_eq!(api.ask("GET", "/healthz").status, 200);
    let status = api.status();
    assert_eq!(status["stage"], "draining");
    assert_eq!(status["connections"]["active"], 1);
    api.send("PATCH", SERVER_PATH, r#"{"weight":2}"#)
        .expect(503);
    api.ask("POST", "/api/v1/reload").expect(503);
    let id = api.get("/api/v1/connections")[0]["id"].clone();
    ping(&mut client, &mut serving);
    let path = format!("/api/v1/connections/{id}");
    api.ask("DELETE", &path).expect(204);
    client.expect_reset();
    assert_eq!(evenkeel.exit().code(), Some(0));
    assert!(!api.socket().exists());
}

#[test]
fn what_is_not_there_cannot_be_read_or_is_too_large_has_its_status() {
    let folder = TempDir::new().unwrap();
    let (_greeters, evenkeel) = usual(&guarded(&folder));
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let large = format!(r#"{{"weight":1,"drain":"{}"}}"#, "x".repeat(64 << 10));
    for api in [evenkeel.api(), evenkeel.http()] {
        let too_large = ("PATCH", SERVER_PATH, Some(&*large), 413, "64 KiB");
        for (method, path, body, status, part) in REFUSED.into_iter().chain([too_large]) {
            let answer = api.request(method, path, &[&bearer], body);
            assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
            let text = answer.json()["error"].as_str().unwrap().to_owned();
            assert!(text.contains(part), "{method} {path}: {text}");
        }
        let a = &api.status()["pools"]["web"]["servers"]["a"];
        assert_eq!((&a["weight"], &a["state"]), (&json!(3), &json!("up")));
    }
}

#[test]
fn head_is_get_without_a_body_and_other_methods_are_named() {
    let (_greeters, evenkeel) = usual(BOTH);
    for api in [evenkeel.api(), evenkeel.http()] {
        let host = format!("Host: {}", api.host());
        for path in ["/", "/healthz", "/readyz", "/metrics", "/api/v1/status"] {
            let text = api.whole("HEAD", path, &[&host]);
            assert!(text.starts_with("HTTP/1.1 200 "), "{path}: {text}");
            assert!(text.ends_with("\r\n\r\n"), "{path}: {text}");
            let text = api.whole("GET", path, &[&host]);
            assert!(!text.ends_with("\r\n\r\n"), "{path} has a body");
        }
        let text = evenkeel.api().whole("PUT", SERVER_PATH, &[&host]);
        let allow = text.to_lowercase();
        let allow = allow.lines().find(|line| line.starts_with("allow: "));
        for method in ["get", "patch", "delete"] {
            assert!(allow.unwrap().contains(method), "{text}");
        }
    }
}

#[test]
fn pools_and_servers_are_shown_and_changed_over_both_transports() {
    let folder = TempDir::new().unwrap();
    let (greeters, evenkeel) = usual(&guarded(&folder));
    let third = Greeter::listen(b'c');
    let bearer = format!("Authorization: Bearer {TOKEN}");
    for api in [evenkeel.api(), evenkeel.http()] {
        let send = |method: &str, path: &str, body: &Value| {
            api.request(method, path, &[&bearer], Some(&body.to_string()))
        };
        let pool = api.get("/api/v1/pools/web");
        assert_eq!(
            (&pool["name"], &pool["algorithm"]),
            (&json!("web"), &json!("round_robin"))
        );
        assert_eq!(pool["servers"].as_object().unwrap().len(), 2);
        let changed =
            send("PATCH", "/api/v1/pools/web", &json!({"algorithm": "first"})).expect(200);
        assert_eq!(changed["algorithm"], "first");
        let server = api.get(SERVER_PATH);
        assert_eq!(
            (&server["name"], &server["pool"]),
            (&json!("a"), &json!("web"))
        );
        assert_eq!(server["address"], greeters[0].address().to_string());
        let wish = json!({"state": "draining", "weight": 9});
        let changed = send("PATCH", SERVER_PATH, &wish).expect(200);
        assert_eq!(
            (&changed["state"], &changed["weight"]),
            (&json!("draining"), &json!(9))
        );
        assert_eq!(visits(evenkeel.address(), 2), "bb", "the backup takes over");
        send(
            "PATCH",
            SERVER_PATH,
            &json!({"state": "ready", "weight": 3}),
        )
        .expect(200);
        assert_eq!(visits(evenkeel.address(), 2), "aa");
        // Without a name a server goes by its address, which a path cannot hold as it stands.
        let wish = json!({"address": third.address().to_string(), "max_connections": 5});
        let added = send("POST", "/api/v1/pools/web/servers", &wish).expect(201);
        assert_eq!(added["name"], third.address().to_string());
        assert_eq!(
            (&added["max_connections"], &added["pool"]),
            (&json!(5), &json!("web"))
        );
        let escaped = third.address().to_string().replace(':', "%3A");
        let path = format!("/api/v1/pools/web/servers/{escaped}");
        assert_eq!(api.get(&path)["weight"], 1);
        let answer = api.request("DELETE", &path, &[&bearer], None);
        assert_eq!((answer.status, &*answer.body), (204, ""));
        assert_eq!(error(&api, ("GET", &path), None).0, 404);
        send(
            "PATCH",
            "/api/v1/pools/web",
            &json!({"algorithm": "round_robin"}),
        )
        .expect(200);
    }
}

#[test]
fn over_tcp_a_change_needs_the_token() {
    let folder = TempDir::new().unwrap();
    let (_greeters, evenkeel) = usual(&guarded(&folder));
    let http = evenkeel.http();
    let (right, wrong) = (format!("Bearer {TOKEN}"), "Bearer nonsense");
    let ask = |method: &str, bearer: Option<&str>, body: Option<&str>| {
        let header = bearer.map(|bearer| format!("Authorization: {bearer}"));
        let headers: Vec<&str> = header.as_deref().into_iter().collect();
        http.request(method, SERVER_PATH, &headers, body).status
    };
    let body = Some(r#"{"weight":5}"#);
    assert_eq!(ask("PATCH", None, body), 401);
    assert_eq!(ask("PATCH", Some(wrong), body), 403);
    assert_eq!(ask("PATCH", Some("Basic YTpi"), body), 401);
    assert_eq!(ask("GET", None, None), 200);
    assert_eq!(
        ask("GET", Some(wrong), None),
        403,
        "the page tests its token so"
    );
    assert_eq!(http.get(SERVER_PATH)["weight"], 3, "nothing came of these");
    assert_eq!(ask("PATCH", Some(&right), body), 200);
    assert_eq!(http.get(SERVER_PATH)["weight"], 5);
    let text = http.whole("DELETE", SERVER_PATH, &[&format!("Host: {}", http.host())]);
    assert!(
        text.to_lowercase()
            .contains("\r\nwww-authenticate: bearer\r\n"),
        "{text}"
    );
    // A file's path comes only from who may use the socket.
    let body = format!("{{\"file\":\"{}\"}}", evenkeel.file().display());
    let bearer = format!("Authorization: {right}");
    for path in ["/api/v1/reload", "/api/v1/plan"] {
        let answer = http.request("POST", path, &[&bearer], Some(&body));
        answer.expect(403);
        evenkeel.api().send("POST", path, &body).expect(200);
    }
}

#[test]
fn without_a_token_tcp_is_read_only_and_the_socket_is_not() {
    let (_greeters, evenkeel) = usual(BOTH);
    let http = evenkeel.http();
    let bearer = format!("Authorization: Bearer {TOKEN}");
    for headers in [&[][..], &[&*bearer]] {
        for (method, path) in [
            ("PATCH", SERVER_PATH),
            ("DELETE", "/api/v1/connections/1"),
            ("POST", "/api/v1/reload"),
            ("POST", "/api/v1/plan"),
        ] {
            let answer = http.request(method, path, headers, Some(r#"{"weight":5}"#));
            let error = answer.expect(403)["error"].as_str().unwrap().to_owned();
            assert!(error.contains("admin.http_token_file"), "{error}");
        }
    }
    assert_eq!(http.get(SERVER_PATH)["weight"], 3);
    let answer = evenkeel.api().send("PATCH", SERVER_PATH, r#"{"weight":5}"#);
    assert_eq!(answer.expect(200)["weight"], 5);
}

#[test]
fn another_host_or_a_page_from_elsewhere_gets_nowhere() {
    let folder = TempDir::new().unwrap();
    let admin = guarded(&folder).replace("http:", "http_hosts: [lb.example.com], http:");
    let (_greeters, evenkeel) = usual(&admin);
    let http = evenkeel.http();
    let (address, port) = (
        http.host(),
        http.host().rsplit_once(':').unwrap().1.to_owned(),
    );
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let post = ("POST", "/api/v1/reload");
    let get = ("GET", "/api/v1/status");
    for ((method, path), headers, status) in [
        (get, vec!["Host: evil.example".to_owned()], 421),
        (get, vec![format!("Host: 127.0.0.2:{port}")], 421),
        (get, vec!["Host:".into()], 400),
        (get, vec![format!("Host: localhost:{port}")], 200),
        (get, vec!["Host: lb.example.com".into()], 200),
        (post, vec!["Host: evil.example".into()], 421),
        (post, vec!["Origin: http://evil.example".into()], 403),
        (post, vec!["Origin: null".into()], 403),
        (post, vec!["Sec-Fetch-Site: cross-site".into()], 403),
        (get, vec!["Origin: null".into()], 403),
        (get, vec!["Origin: http://127.0.0.1:1".into()], 403),
        (get, vec![format!("Origin: http://{address}")], 200),
        (post, vec![format!("Origin: http://{address}")], 200),
    ] {
        let mut all: Vec<&str> = headers.iter().map(String::as_str).collect();
        all.push(&bearer);
        let answer = http.request(method, path, &all, None);
        assert_eq!(
            answer.status, status,
            "{method} {headers:?}: {}",
            answer.body
        );
    }
    evenkeel.errors().wait_for("reloaded");
    let reloads = evenkeel.errors().all();
    let reloads = reloads.iter().filter(|line| line.contains("reloaded"));
    assert_eq!(reloads.count(), 1, "only the last one was let in");
    // Whoever can open the socket needs no leave.
    let host = ["Host: evil.example", "Origin: null"];
    evenkeel
        .api()
        .request("GET", "/api/v1/status", &host, None)
        .expect(200);
}
