//! Each path, and each status that it can have.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Plan, Site, roster, server};
use crate::admin::exhibit::Exhibit;
use crate::admin::request::{
    Ask, Done, Plan as Planned, PlannedChange, Refusal, Reload, ServerChange, ServerName,
};
use crate::balance::Algorithm;
use crate::clock::Now;
use crate::end::End;
use crate::ids::{ConnectionId, ListenerId, ServerId};
use crate::pool::drain::{Drain, Pace, Scope};
use crate::roster::{Leaving, Roster, Stage, Standing};
use crate::telemetry::checkup::Checked;
use crate::telemetry::connection::{self, BothSides, ConnectionStatus, Limiter, Path};
use crate::telemetry::counters::ConnectFailure;

#[test]
fn probes_are_answered_in_text() {
    let site = Site::new();
    let alive = site.ask("GET", "/healthz", "");
    assert_eq!((alive.status, &*alive.body), (200, "ok\n"));
    let ready = site.ask("GET", "/readyz", "");
    assert_eq!((ready.status, &*ready.body), (200, "ready\n"));
    let mut draining = roster();
    draining.stage = Stage::Draining;
    site.shared.board.publish(draining);
    let ready = site.ask("GET", "/readyz", "");
    assert_eq!((ready.status, &*ready.body), (503, "draining\n"));
    let mut down = roster();
    for pool in &mut down.pools {
        pool.servers.truncate(1);
        pool.servers[0].standing = Standing::Draining;
    }
    site.shared.board.publish(down);
    let ready = site.ask("GET", "/readyz", "");
    assert_eq!(
        ready.body,
        "pool web has no server\npool db has no server\n"
    );
    assert_eq!(
        ready.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
}

#[test]
fn every_answer_carries_the_headers_that_protect_it() {
    let site = Site::new();
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/metrics"),
        ("GET", "/nowhere"),
        ("PUT", "/api/v1/status"),
        ("DELETE", "/api/v1/pools/web/servers/a"),
    ] {
        let reply = site.ask(method, path, "");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    }
    let page = site.ask("GET", "/", "");
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(page.body.starts_with("<!doctype html>"));
}

#[test]
fn head_is_get_without_the_body() {
    let site = Site::new();
    for path in ["/", "/healthz", "/metrics", "/api/v1/pools/web", "/nowhere"] {
        let (get, head) = (site.ask("GET", path, ""), site.ask("HEAD", path, ""));
        assert_eq!((head.status, &*head.body), (get.status, ""), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"));
        assert!(head.header("content-length").is_some(), "{path}");
    }
    let events = site.ask("HEAD", "/api/v1/events", "");
    assert_eq!((events.status, &*events.body), (200, ""));
}

/// Asks, and compares the status and a part of the text.
fn assert_faults(site: &Site, requests: &[(&str, &str, u16, &str)]) {
    for (request, body, status, part) in requests {
        let (method, path) = request.split_once(' ').unwrap();
        let (found, text) = site.fault(method, path, body);
        assert_eq!(found, *status, "{request} {body}: {text}");
        assert!(text.contains(part), "{request} {body}: {text}");
    }
    assert!(site.asked.lock().unwrap().is_empty());
}

#[test]
fn what_is_not_there_is_said_in_json() {
    let site = Site::new();
    let server = r#"{"address":"127.0.0.1:1"}"#;
    let algorithm = r#"{"algorithm":"first"}"#;
    let requests = [
        (
            "GET /api/v1/nowhere",
            "",
            404,
            "there is no /api/v1/nowhere",
        ),
        ("GET /api/v1/status/", "", 404, "there is no"),
        (
            "GET /api/v1/pools/x%1b%0a",
            "",
            404,
            "there is no pool x\u{1b}\n",
        ),
        ("GET /api/v1/pools/x/servers/a", "", 404, "no pool x"),
        (
            "GET /api/v1/pools/web/servers/x",
            "",
            404,
            "no server x in pool web",
        ),
        ("PATCH /api/v1/pools/x", algorithm, 404, "no pool x"),
        ("POST /api/v1/pools/x/servers", server, 404, "no pool x"),
        ("DELETE /api/v1/pools/web/servers/x", "", 404, "no server x"),
        ("GET /api/v1/demo", "", 404, "no demonstration"),
        ("PATCH /api/v1/demo", "{}", 404, "no demonstration"),
    ];
    assert_faults(&site, &requests);
    // Escaped on its way.
    let raw = site.ask("GET", "/api/v1/pools/x%1b", "").body;
    assert_eq!(raw, r#"{"error":"there is no pool x\u001b"}"#);
}

#[test]
fn what_cannot_be_meant_is_said_in_json() {
    let patch = "PATCH /api/v1/pools/web/servers/a";
    let delete = "DELETE /api/v1/pools/web/servers/a";
    let algorithm = r#"{"algorithm":"best"}"#;
    let requests = [
        (patch, "", 400, "the body is empty: send a JSON object"),
        (patch, "[1]", 400, "no JSON object"),
        (patch, "{\"weight\":", 400, "body: EOF while parsing"),
        (
            patch,
            "{\"w\":1}",
            400,
            "unknown field `w`, expected one of `state`",
        ),
        (patch, "{\"weight\":\"3\"}", 400, "invalid type: string"),
        (
            patch,
            "{\"weight\":3}}",
            400,
            "trailing characters at line 1",
        ),
        ("PATCH /api/v1/pools/web", algorithm, 400, "round_robin"),
        (
            &format!("{delete}?rate=x"),
            "",
            400,
            "rate: \"x\" is no rate",
        ),
        (&format!("{delete}?rat=1/s"), "", 400, "unknown field `rat`"),
        ("GET /api/v1/pools/%ff", "", 400, "UTF-8"),
        ("GET /api/v1/connections?limit=x", "", 400, "limit"),
        ("GET /api/v1/connections?sample=11s", "", 400, "at most 10s"),
        ("DELETE /api/v1/connections/x", "", 400, "x"),
    ];
    assert_faults(&Site::new(), &requests);
}

#[test]
fn other_methods_are_told_which_there_are() {
    let site = Site::new();
    for (method, path, allow) in [
        ("POST", "/healthz", "GET,HEAD"),
        ("DELETE", "/api/v1/status", "GET,HEAD"),
        ("GET", "/api/v1/reload", "POST"),
        (
            "PUT",
            "/api/v1/pools/web/servers/a",
            "GET,HEAD,PATCH,DELETE",
        ),
        ("OPTIONS", "/api/v1/pools/web", "GET,HEAD,PATCH"),
    ] {
        let reply = site.ask(method, path, "");
        assert_eq!(reply.header("allow"), Some(allow), "{method} {path}");
        assert_eq!(reply.fault(), (405, format!("use {allow}")));
    }
}

/// Everything that a status shows, at least once.
fn eventful() -> Roster {
    let mut roster = roster();
    roster.origin.file = Some("/etc/evenkeel/evenkeel.yaml".into());
    roster.origin.differences = vec!["server web/b: weight 1 -> 3".into()];
    roster.origin.confirm_until = Some(Now::read() + Duration::from_secs(3600));
    let web = &mut roster.pools[0];
    let b = &mut web.servers[0];
    (b.weight, b.max_connections, b.is_backup) = (3, Some(7), true);
    b.tally.reserve(9, None);
    b.tally.workers()[0].connected.add(3);
    b.tally.workers()[1].connected.add(1);
    b.tally.workers()[1].failed(ConnectFailure::Refused).add(1);
    b.tally.workers()[1].failed(ConnectFailure::Local).add(1);
    b.tally.workers()[0].upstream_bytes.add(10);
    b.tally.workers()[1].downstream_bytes.add(20);
    let checkup = b.tally.checkup();
    checkup.note_check(Checked::Ok, true, || "http 200".into());
    let pace = Pace {
        rate: Some("20/s".parse().unwrap()),
        deadline: Some(Duration::from_secs(600)),
        ..Pace::PATIENT
    };
    b.standing = Standing::Draining;
    let drain = |count| Drain::new(Scope::Everything, End::Drained, pace, count, Now::read());
    let drain = drain(120);
    drain.note_closed();
    b.drain = Some(Arc::new(drain));
    roster.pools[1].is_checked = false;
    let listener = &roster.listeners[0].tally.workers()[1];
    listener.accepted.add(5);
    listener.ended.add(4);
    listener.refused(End::NoServer).add(1);
    let gone = server(9, "old");
    gone.tally.reserve(9, None);
    roster.leaving.push(Leaving {
        pool: "web".into(),
        server: gone,
    });
    roster
}

/// Times are of this run; they are numbers.
fn without_times(value: &mut Value) {
    let Value::Object(fields) = value else {
        if let Value::Array(items) = value {
            items.iter_mut().for_each(without_times);
        }
        return;
    };
    for (name, field) in fields {
        let is_time = name.ends_with("_seconds") && !field.is_null();
        if is_time && name != "quiet_seconds" {
            assert!(field.as_f64().unwrap() >= 0.0);
            *field = json!("time");
        }
        without_times(field);
    }
}

#[test]
fn the_status_shows_everything_in_the_order_of_the_config() {
    let site = Site::new();
    site.shared.board.publish(eventful());
    let counters = &site.shared.counters;
    counters[0].accepted.add(812);
    counters[1].ended(End::ClientClosed).add(809);
    counters[1].ended(End::Limit).add(2);
    counters[0].upstream_bytes.add(1);
    counters[0].pipes_idle.set(4);
    site.shared.ledger.admit(1);
    let mut status = site.json("GET", "/api/v1/status", "");
    without_times(&mut status);
    let shown = json!({
        "version": env!("CARGO_PKG_VERSION"), "uptime_seconds": "time", "ready": true,
        "reasons": [], "stage": "serving", "workers": 2,
        "connections": {"active": 1, "total": 812, "refused": 2, "max": 9000},
        "bytes": {"upstream": 1, "downstream": 0}, "worker_connections": [0, 1],
        "pipes": {"lent": 0, "idle": 4}, "ends": {"client_closed": 809, "limit": 2},
        "config": {"file": "/etc/evenkeel/evenkeel.yaml",
            "differs": ["server web/b: weight 1 -> 3"], "confirm_seconds": "time"},
        "listeners": {
            "web": {"bind": ["127.0.0.1:8080"], "pool": "web",
                "connections": {"active": 1, "total": 5, "refused": 1}},
            "db": {"bind": ["127.0.0.1:8081"], "pool": "db",
                "connections": {"active": 0, "total": 0, "refused": 0}}},
        "pools": {
            "web": {"algorithm": "round_robin", "servers": {
                "b": {"address": "127.0.0.1:9001", "state": "draining", "weight": 3,
                    "backup": true, "max_connections": 7,
                    "connections": {"active": 1, "total": 4, "failed": 2},
                    "bytes": {"upstream": 10, "downstream": 20},
                    "health": {"last": "ok", "reason": "http 200", "since_seconds": "time"},
                    "drain": {"began_with": 120, "left": 1, "closed": 1, "rate": "20/s",
                        "quiet_seconds": 0.2, "deadline_seconds": "time",
                        "estimate_seconds": "time"}},
                "a": {"address": "127.0.0.1:9002", "state": "up", "weight": 1,
                    "backup": false, "max_connections": null,
                    "connections": {"active": 0, "total": 0, "failed": 0},
                    "bytes": {"upstream": 0, "downstream": 0},
                    "health": {"last": "none", "reason": "not checked yet",
                        "since_seconds": "time"},
                    "drain": null}}},
            "db": {"algorithm": "round_robin", "servers": {
                "127.0.0.1:9003": {"address": "127.0.0.1:9003", "state": "up", "weight": 1,
                    "backup": false, "max_connections": null,
                    "connections": {"active": 0, "total": 0, "failed": 0},
                    "bytes": {"upstream": 0, "downstream": 0},
                    "health": {"last": "off", "reason": "health: off", "since_seconds": "time"},
                    "drain": null}}}},
        "leaving": [{"pool": "web", "server": "old", "address": "127.0.0.1:9010",
            "connections": {"active": 1, "total": 0, "failed": 0},
            "bytes": {"upstream": 0, "downstream": 0}, "drain": null}],
        "demo": false
    });
    // As texts, because the order counts.
    assert_eq!(status.to_string(), shown.to_string());
}

#[test]
fn a_pool_is_shown_and_its_algorithm_changed() {
    let site = Site::answering(|ask, board| {
        let Ask::ChangeAlgorithm { algorithm, .. } = ask else {
            panic!("{ask:?}");
        };
        let mut next = (*board.read()).clone();
        next.pools[0].algorithm = *algorithm;
        board.publish(next);
        Ok(Done::Changed)
    });
    let pool = site.json("GET", "/api/v1/pools/web", "");
    assert_eq!(
        (&pool["name"], &pool["algorithm"]),
        (&json!("web"), &json!("round_robin"))
    );
    let keys: Vec<_> = pool["servers"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["b", "a"]);
    let changed = site.json("PATCH", "/api/v1/pools/web", r#"{"algorithm":"ip_hash"}"#);
    assert_eq!(changed["algorithm"], "ip_hash");
    let ask = Ask::ChangeAlgorithm {
        pool: "web".into(),
        algorithm: Algorithm::IpHash,
    };
    assert_eq!(*site.asked.lock().unwrap(), [ask]);
}

#[test]
fn a_server_is_added_changed_and_removed() {
    let site = Site::answering(|ask, board| {
        let mut next = (*board.read()).clone();
        let servers = &mut next.pools[0].servers;
        match ask {
            Ask::AddServer { server: new, .. } => {
                let name = new.name.clone().unwrap_or(new.address.to_string());
                servers.push(server(7, &name));
            }
            Ask::ChangeServer(name, change) => {
                let found = servers.iter_mut().find(|each| *each.name == *name.server);
                found.unwrap().weight = change.weight.unwrap_or(1);
            }
            Ask::RemoveServer(name, _) => servers.retain(|each| *each.name != *name.server),
            _ => panic!("{ask:?}"),
        }
        board.publish(next);
        Ok(Done::Changed)
    });
    let body = r#"{"address":"[::1]:9003","weight":2,"max_connections":200,"backup":true}"#;
    let added = site.ask("POST", "/api/v1/pools/web/servers", body);
    let place = "/api/v1/pools/web/servers/%5B%3A%3A1%5D%3A9003";
    assert_eq!((added.status, added.header("location")), (201, Some(place)));
    let shown = site.json("GET", place, "");
    assert_eq!(
        (&shown["name"], &shown["pool"]),
        (&json!("[::1]:9003"), &json!("web"))
    );
    let changed = site.json("PATCH", place, r#"{"weight":5,"state":"maintenance"}"#);
    assert_eq!(changed["weight"], 5);
    let removed = site.ask("DELETE", &format!("{place}?rate=20%2Fs"), "");
    assert_eq!((removed.status, &*removed.body), (204, ""));
    assert_eq!(site.fault("GET", place, "").0, 404);
    let name = ServerName {
        pool: "web".into(),
        server: "[::1]:9003".into(),
    };
    let pace = Pace {
        rate: Some("20/s".parse().unwrap()),
        deadline: Some(Pace::DEADLINE),
        ..Pace::PATIENT
    };
    let change = ServerChange {
        standing: Some((Standing::Maintenance, Pace::AT_ONCE)),
        weight: Some(5),
    };
    let asked = site.asked.lock().unwrap();
    assert_eq!(asked[1], Ask::ChangeServer(name.clone(), change));
    assert_eq!(asked[2], Ask::RemoveServer(name, pace));
}

#[test]
fn the_process_s_refusals_have_their_status() {
    let site = Site::answering(|ask, _| {
        let Ask::Plan(Some(file)) = ask else {
            panic!("{ask:?}");
        };
        let text = "why".to_owned();
        Err(match file.to_str().unwrap() {
            "/404" => Refusal::NotFound(text),
            "/400" => Refusal::Invalid("line 1: a\nline 2: b".into()),
            "/409" => Refusal::Conflict(text),
            _ => Refusal::Unavailable(text),
        })
    });
    for (status, text) in [
        (404, "why"),
        (400, "line 1: a\nline 2: b"),
        (409, "why"),
        (503, "why"),
    ] {
        let body = format!(r#"{{"file":"/{status}"}}"#);
        let fault = site.fault("POST", "/api/v1/plan", &body);
        assert_eq!(fault, (status, text.to_owned()));
    }
}

#[test]
fn a_question_that_nobody_answers_is_unavailable() {
    let (sender, _) = crossbeam_channel::unbounded();
    let mut site = Site::new();
    site.stop();
    let mut shared = site.shared.clone();
    shared.requests = sender;
    let config = crate::config::Admin {
        socket: crate::config::AdminSocket::At(site.socket()),
        ..crate::config::Admin::default()
    };
    let admin = crate::admin::bind(&config).unwrap().serve(shared).unwrap();
    let (status, text) = site.fault("POST", "/api/v1/confirm", "");
    assert_eq!((status, &*text), (503, "the process is ending"));
    admin.stop();
}

#[test]
fn a_file_is_planned_applied_and_confirmed() {
    let site = Site::answering(|ask, _| match ask {
        Ask::Plan(_) | Ask::Reload(_) => Ok(Done::Plan(Planned {
            changes: vec![PlannedChange {
                text: "server web/a: weight 1 -> 3".into(),
                connections: 2,
            }],
            restart: vec!["workers: 2 -> 4".into()],
        })),
        _ => Ok(Done::Changed),
    });
    let mut shown = json!({
        "changes": [{"text": "server web/a: weight 1 -> 3", "connections": 2}],
        "restart": ["workers: 2 -> 4"], "confirm_seconds": null
    });
    assert_eq!(site.json("POST", "/api/v1/plan", ""), shown);
    assert_eq!(site.json("POST", "/api/v1/reload", ""), shown);
    let body = r#"{"file":"/a.yaml","confirm":"60s","drain":{"deadline":"1m"}}"#;
    shown["confirm_seconds"] = json!(60.0);
    assert_eq!(site.json("POST", "/api/v1/reload", body), shown);
    assert_eq!(site.json("POST", "/api/v1/confirm", ""), json!({}));
    let (status, text) = site.fault("POST", "/api/v1/reload", r#"{"file":"a.yaml"}"#);
    assert_eq!((status, text.contains("whole path")), (400, true));
    let reload = Reload {
        file: Some("/a.yaml".into()),
        confirm: Some(Duration::from_secs(60)),
        pace: Pace {
            deadline: Some(Duration::from_secs(60)),
            ..Pace::PATIENT
        },
    };
    let asked = site.asked.lock().unwrap();
    assert_eq!(asked[2..], [Ask::Reload(reload), Ask::Confirm]);
}

fn living(id: u64, server: Option<usize>, bytes: u64) -> ConnectionStatus {
    let path = Path {
        round_trip: Duration::from_micros(1234),
        retransmits: 2,
        unsent_bytes: 3,
    };
    ConnectionStatus {
        id: ConnectionId(id),
        listener: ListenerId::new(0),
        client: "127.0.0.1:51234".parse().unwrap(),
        server: server.map(ServerId::new),
        local: None,
        stage: connection::Stage::Relaying,
        age: Duration::from_secs(10),
        idle: Duration::from_millis(100),
        upstream_bytes: bytes,
        downstream_bytes: 0,
        limited_by: Limiter::Client,
        paths: BothSides {
            client: Some(path),
            server: None,
        },
    }
}

#[test]
fn connections_are_listed_by_number_with_their_names() {
    let mut looks = 0;
    let site = Site::answering(move |_, _| {
        looks += 1;
        let mut all = vec![living(20, None, 0), living(3, Some(0), 1000 * looks)];
        all.push(living(7, Some(99), 50));
        Ok(Done::Connections(all))
    });
    let list = site.json("GET", "/api/v1/connections?pool=web&server=b", "");
    let ids: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|each| &each["id"])
        .collect();
    assert_eq!(ids, [3, 7, 20]);
    assert_eq!(
        list[0].to_string(),
        json!({
            "id": 3, "listener": "web", "client": "127.0.0.1:51234", "pool": "web",
            "server": "b", "server_address": "127.0.0.1:9001", "local": null,
            "phase": "relaying", "age_seconds": 10.0, "idle_seconds": 0.1,
            "bytes": {"upstream": 1000, "downstream": 0},
            "bytes_per_second": {"upstream": 100.0, "downstream": 0.0},
            "limited_by": "client", "rtt_ms": {"client": 1.234, "server": null},
            "retransmits": {"client": 2, "server": null},
            "unsent_bytes": {"client": 3, "server": null}
        })
        .to_string()
    );
    assert_eq!(
        (&list[1]["server"], &list[2]["pool"]),
        (&Value::Null, &Value::Null)
    );
    let sampled = site.json("GET", "/api/v1/connections?sample=10ms&limit=1", "");
    assert_eq!(sampled.as_array().unwrap().len(), 1);
    // 1,000 bytes in hardly more than 10 ms, not in the age of 10 s.
    assert!(sampled[0]["bytes_per_second"]["upstream"].as_f64().unwrap() > 300.0);
    let asked = site.asked.lock().unwrap();
    let filter = crate::admin::request::Filter {
        pool: Some("web".into()),
        server: Some("b".into()),
    };
    assert_eq!((asked.len(), &asked[0]), (3, &Ask::Connections(filter)));
}

#[test]
fn a_connection_is_killed_once() {
    let site = Site::answering(|ask, _| match ask {
        Ask::Kill(ids) if *ids == [ConnectionId(17)] => Ok(Done::Killed(ids.clone())),
        _ => Ok(Done::Killed(Vec::new())),
    });
    assert_eq!(site.ask("DELETE", "/api/v1/connections/17", "").status, 204);
    let (status, text) = site.fault("DELETE", "/api/v1/connections/18", "");
    assert_eq!((status, &*text), (404, "there is no connection 18"));
}

#[derive(Debug)]
struct Show;

impl Exhibit for Show {
    fn show(&self) -> Value {
        json!({"load": {"running": true}})
    }

    fn change(&self, wish: &Value) -> Result<(), Refusal> {
        match wish["load"]["rate"].as_u64() {
            Some(rate) if rate > 2000 => Err(Refusal::Invalid("rate: 1 to 2000".into())),
            _ => Ok(()),
        }
    }
}

#[test]
fn a_demonstration_is_shown_and_changed() {
    let site = Site::with(Plan {
        exhibit: Some(Arc::new(Show)),
        ..Plan::default()
    });
    let shown = site.json("GET", "/api/v1/demo", "");
    assert_eq!(
        site.json("PATCH", "/api/v1/demo", r#"{"load":{"rate":5}}"#),
        shown
    );
    let fault = site.fault("PATCH", "/api/v1/demo", r#"{"load":{"rate":5000}}"#);
    assert_eq!(fault, (400, "rate: 1 to 2000".into()));
    assert_eq!(site.json("GET", "/api/v1/status", "")["demo"], true);
}
