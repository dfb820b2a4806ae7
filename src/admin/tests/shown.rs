//! What the API shows of listeners, pools, servers and connections, and what it changes about them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Site, roster, server};
use crate::address::Peer;
use crate::admin::request::{Ask, Done, ServerChange, ServerName};
use crate::balance::Algorithm;
use crate::clock::Now;
use crate::end::End;
use crate::ids::{ConnectionId, ListenerId, ServerId};
use crate::pool::drain::{Drain, Pace, Scope};
use crate::roster::{Leaving, Roster, Standing};
use crate::telemetry::checkup::Checked;
use crate::telemetry::connection::{self, BothSides, ConnectionStatus, Limiter, Path};
use crate::telemetry::counters::ConnectFailure;

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
    let pid = status.as_object_mut().unwrap().shift_remove("pid");
    assert_eq!(pid, Some(json!(std::process::id())));
    let upgrades = status.as_object_mut().unwrap().shift_remove("upgrades");
    assert_eq!(upgrades, Some(json!(0)));
    let mut shown = json!({
        "version": env!("CARGO_PKG_VERSION"), "uptime_seconds": "time", "ready": true,
        "left": false, "not_ready": [], "reasons": [], "stage": "serving", "workers": 2,
        "connections": {"active": 1, "total": 812, "refused": 2, "max": 9000},
        "bytes": {"upstream": 1, "downstream": 0}, "worker_connections": [0, 1],
        "pipes": {"lent": 0, "idle": 4}, "ends": {"client_closed": 809, "limit": 2},
        "config": {"file": "/etc/evenkeel/evenkeel.yaml",
            "differs": ["server web/b: weight 1 -> 3"], "confirm_seconds": "time"},
        "listeners": {
            "web": {"bind": ["127.0.0.1:8080"], "pool": "web", "sni": {},
                "connections": {"active": 1, "total": 5, "refused": 1}},
            "db": {"bind": ["127.0.0.1:8081"], "pool": "db", "sni": {"*.example.com": "web"},
                "connections": {"active": 0, "total": 0, "refused": 0}}},
    });
    shown["pools"] = json!({
            "web": {"algorithm": "round_robin", "queue": {"waiting": 0, "limit": 0},
                "failing_open": false, "discovery": [], "servers": {
                "b": {"address": "127.0.0.1:9001", "state": "draining", "weight": 3,
                    "backup": true, "max_connections": 7,
                    "connections": {"active": 1, "total": 4, "failed": 2},
                    "bytes": {"upstream": 10, "downstream": 20},
                    "health": {"last": "ok", "reason": "http 200", "since_seconds": "time"},
                    "ejected": null, "slow_start": null,
                    "drain": {"began_with": 120, "left": 1, "closed": 1, "rate": "20/s",
                        "quiet_seconds": 0.2, "deadline_seconds": "time",
                        "estimate_seconds": "time"}},
                "a": {"address": "127.0.0.1:9002", "state": "up", "weight": 1,
                    "backup": false, "max_connections": null,
                    "connections": {"active": 0, "total": 0, "failed": 0},
                    "bytes": {"upstream": 0, "downstream": 0},
                    "health": {"last": "none", "reason": "not checked yet",
                        "since_seconds": "time"},
                    "ejected": null, "slow_start": null, "drain": null}}},
            "db": {"algorithm": "round_robin", "queue": {"waiting": 0, "limit": 0},
                "failing_open": false, "discovery": [], "servers": {
                "127.0.0.1:9003": {"address": "127.0.0.1:9003", "state": "up", "weight": 1,
                    "backup": false, "max_connections": null,
                    "connections": {"active": 0, "total": 0, "failed": 0},
                    "bytes": {"upstream": 0, "downstream": 0},
                    "health": {"last": "off", "reason": "health: off", "since_seconds": "time"},
                    "ejected": null, "slow_start": null, "drain": null}}}});
    shown["leaving"] = json!([{"pool": "web", "server": "old", "address": "127.0.0.1:9010",
            "connections": {"active": 1, "total": 0, "failed": 0},
            "bytes": {"upstream": 0, "downstream": 0}, "drain": null}]);
    shown["demo"] = json!(false);
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

fn living(id: u64, server: Option<usize>, bytes: u64) -> ConnectionStatus {
    let path = Path {
        round_trip: Duration::from_micros(1234),
        retransmits: 2,
        unsent_bytes: 3,
    };
    ConnectionStatus {
        id: ConnectionId(id),
        listener: ListenerId::new(0),
        client: Peer::Ip("127.0.0.1:51234".parse().unwrap()),
        pool: None,
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
        let mut all = vec![living(20, None, 0), living(3, Some(0), 1000)];
        all.push(living(7, Some(99), 50));
        all[1].downstream_bytes = 10 * looks;
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
            "bytes": {"upstream": 1000, "downstream": 10},
            "bytes_per_second": {"upstream": 100.0, "downstream": 1.0},
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
    // Since the look before: nothing upstream, something downstream.
    let rates = &sampled[0]["bytes_per_second"];
    assert_eq!(rates["upstream"], 0.0);
    assert!(rates["downstream"].as_f64().unwrap() > 0.0);
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
