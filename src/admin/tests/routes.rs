//! Each path, and each status that it can have.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Plan, Site, roster};
use crate::admin::exhibit::Exhibit;
use crate::admin::request::{
    Ask, Done, Plan as Planned, PlannedChange, Refusal, Reload, Successor,
};
use crate::pool::drain::Pace;
use crate::roster::{Stage, Standing};

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
fn a_pool_whose_servers_want_no_connection_has_none() {
    let site = Site::new();
    let mut unwilling = roster();
    for pool in &mut unwilling.pools {
        pool.servers.truncate(1);
    }
    let web = unwilling.pools.iter_mut().find(|pool| &*pool.name == "web");
    let web = web.unwrap();
    (web.is_checked, web.fail_open) = (true, true);
    web.servers[0].tally.checkup().note_share(0);
    site.shared.board.publish(unwilling.clone());
    let ready = site.ask("GET", "/readyz", "");
    assert_eq!(
        (ready.status, &*ready.body),
        (503, "pool web has no server\n")
    );
    let web = unwilling.pools.iter_mut().find(|pool| &*pool.name == "web");
    // Nobody asks it any more.
    web.unwrap().is_checked = false;
    site.shared.board.publish(unwilling);
    assert_eq!(site.ask("GET", "/readyz", "").status, 200);
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
            warnings: vec!["pool web: it cannot be checked".into()],
        })),
        _ => Ok(Done::Changed),
    });
    let mut shown = json!({
        "changes": [{"text": "server web/a: weight 1 -> 3", "connections": 2}],
        "restart": ["workers: 2 -> 4"],
        "warnings": ["pool web: it cannot be checked"],
        "confirm_seconds": null
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

#[test]
fn an_upgrade_says_who_serves_now_and_only_the_socket_may_choose_the_program() {
    let answer = |ask: &Ask, _: &_| match ask {
        Ask::Upgrade(None) => Ok(Done::Upgraded(Successor {
            pid: 1234,
            version: "0.2.0".into(),
            connections: 5000,
        })),
        Ask::Upgrade(_) => Err(Refusal::Invalid("it is no program".into())),
        _ => Err(Refusal::Unavailable("an upgrade is under way".into())),
    };
    let site = Site::with(Plan {
        token: Some("s3cret"),
        process: Box::new(answer),
        ..Plan::default()
    });
    let shown = json!({"pid": 1234, "version": "0.2.0", "connections": 5000});
    let path = "/api/v1/upgrade";
    assert_eq!(site.json("POST", path, ""), shown);
    for (body, status, part) in [
        (r#"{"binary":"/b"}"#, 400, "it is no program"),
        (r#"{"binary":"b"}"#, 400, "whole path"),
        (r#"{"file":"/b"}"#, 400, "unknown field"),
    ] {
        let (found, text) = site.fault("POST", path, body);
        assert_eq!((found, text.contains(part)), (status, true), "{text}");
    }
    assert_eq!(site.fault("POST", "/api/v1/confirm", "").0, 503);
    let token = [("Authorization", "Bearer s3cret")];
    assert_eq!(site.ask_tcp("POST", path, &[]).status, 401);
    assert_eq!(site.ask_tcp("POST", path, &token).status, 200);
    let body = r#"{"binary":"/b"}"#;
    let (status, text) = site.connect_tcp().ask("POST", path, &token, body).fault();
    assert_eq!(
        (status, text.contains("only over the admin socket")),
        (403, true)
    );
    let program = Some("/b".into());
    let asked = [None, program, None].map(Ask::Upgrade);
    let log = site.asked.lock().unwrap();
    let upgrades: Vec<_> = log.iter().filter(|ask| **ask != Ask::Confirm).collect();
    assert_eq!(upgrades, asked.iter().collect::<Vec<_>>());
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
