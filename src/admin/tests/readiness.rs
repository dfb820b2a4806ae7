//! What `/readyz` says, and leaving and joining.

use super::harness::{Site, roster};
use crate::admin::request::{Ask, Done};
use crate::config::ReadyWhen;
use crate::roster::{Stage, Standing};
use serde_json::json;

/// What `/readyz` says where the pools with these names have no server.
fn said(ready_when: ReadyWhen, without: &[&str]) -> (u16, String) {
    let site = Site::new();
    let mut roster = roster();
    roster.ready_when = ready_when;
    for pool in &mut roster.pools {
        if without.contains(&&*pool.name) {
            let servers = pool.servers.iter_mut();
            servers.for_each(|server| server.standing = Standing::Draining);
        }
    }
    site.shared.board.publish(roster);
    let answer = site.ask("GET", "/readyz", "");
    (answer.status, answer.body)
}

#[test]
fn pools_count_as_the_config_says() {
    let ready = (200, "ready\n".to_owned());
    let without = |text: &str| (503, text.to_owned());
    let (web, db) = ("pool web has no server\n", "pool db has no server\n");
    let all = || ReadyWhen::AllPools;
    assert_eq!(said(all(), &[]), ready);
    assert_eq!(said(all(), &["db"]), without(db));
    let any = || ReadyWhen::AnyPool;
    assert_eq!(said(any(), &["db"]), ready);
    assert_eq!(said(any(), &["db", "web"]), without(&format!("{web}{db}")));
    let only = |name: &str| ReadyWhen::Pools(vec![name.into()]);
    assert_eq!(said(only("web"), &["db"]), ready);
    assert_eq!(said(only("web"), &["db", "web"]), without(web));
}

#[test]
fn a_pool_that_no_listener_leads_to_never_counts() {
    for ready_when in [
        ReadyWhen::AllPools,
        ReadyWhen::AnyPool,
        ReadyWhen::Pools(vec!["db".into(), "web".into()]),
    ] {
        let site = Site::new();
        let mut roster = roster();
        roster.ready_when = ready_when.clone();
        roster.listeners.pop();
        roster.pools[1].servers[0].standing = Standing::Draining;
        site.shared.board.publish(roster.clone());
        let status = || site.ask("GET", "/readyz", "").status;
        assert_eq!(status(), 200, "{ready_when}");
        // Nor does one with a server make up for one that counts.
        roster.listeners[0].pool = "db".into();
        site.shared.board.publish(roster);
        assert_eq!(status(), 503, "{ready_when}");
    }
}

#[test]
fn who_leaves_is_not_ready_until_it_joins() {
    let site = Site::answering(|ask, board| {
        let Ask::Leave(has_left) = *ask else {
            panic!("{ask:?}");
        };
        board.amend(|roster| roster.has_left = has_left);
        Ok(Done::Changed)
    });
    let reason = "left: evenkeel leave was asked for";
    for _ in 0..2 {
        let left = site.json("POST", "/api/v1/leave", "");
        let shown = json!({"ready": false, "left": true, "not_ready": [reason]});
        assert_eq!(left, shown);
    }
    let answer = site.ask("GET", "/readyz", "");
    assert_eq!((answer.status, answer.body), (503, format!("{reason}\n")));
    let metrics = site.ask("GET", "/metrics", "").body;
    assert!(metrics.contains("\nevenkeel_left 1\n"), "{metrics}");
    assert!(metrics.contains("\nevenkeel_ready 0\n"), "{metrics}");
    let status = site.json("GET", "/api/v1/status", "");
    assert_eq!(status["left"], true);
    assert_eq!(status["not_ready"], json!([reason]));
    let joined = site.json("POST", "/api/v1/join", "");
    let shown = json!({"ready": true, "left": false, "not_ready": []});
    assert_eq!(joined, shown);
}

#[test]
fn one_that_starts_says_that_it_was_taken_out_as_well() {
    let site = Site::new();
    let mut starting = roster();
    (starting.stage, starting.has_left) = (Stage::Starting, true);
    site.shared.board.publish(starting);
    let text = "starting\nleft: evenkeel leave was asked for\n";
    assert_eq!(site.ask("GET", "/readyz", "").body, text);
}
