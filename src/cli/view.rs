//! What the API answers, as types: the status, and one server of it.
//!
//! Lenient: what is missing or null is empty or zero, and what is new is ignored, so that a command
//! can ask a process of a neighbouring version. Strictness is the business of the side that answers.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// `GET /api/v1/status`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) version: String,
    pub(super) pid: u32,
    /// Processes that have handed over, one to the next, up to this one.
    pub(super) upgrades: u64,
    pub(super) uptime_seconds: f64,
    pub(super) ready: bool,
    /// An operator has taken it out.
    pub(super) left: bool,
    /// Why it is not ready, each a line.
    pub(super) reasons: Vec<String>,
    /// `starting`, `serving` or what comes after.
    pub(super) stage: String,
    pub(super) workers: u64,
    pub(super) connections: Totals,
    pub(super) bytes: Bytes,
    pub(super) config: Source,
    pub(super) listeners: Named<Listener>,
    pub(super) pools: Named<Pool>,
    /// Servers that were removed and still have connections.
    pub(super) leaving: Vec<Leaving>,
}

/// Of the whole process.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Totals {
    pub(super) active: u64,
    pub(super) total: u64,
    pub(super) refused: u64,
    pub(super) max: u64,
}

/// By direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Bytes {
    pub(super) upstream: u64,
    pub(super) downstream: u64,
}

/// Where the running state comes from.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Source {
    /// `None` where arguments gave it.
    pub(super) file: Option<String>,
    /// What runs otherwise than the file says.
    pub(super) differs: Vec<String>,
    /// Until a reload is taken back, where it awaits confirmation.
    pub(super) confirm_seconds: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Listener {
    pub(super) bind: Vec<String>,
    pub(super) pool: String,
    pub(super) connections: Taken,
}

/// Of one listener.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Taken {
    pub(super) active: u64,
    pub(super) total: u64,
    pub(super) refused: u64,
    /// `None` where it has no maximum of its own.
    pub(super) max: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pool {
    pub(super) algorithm: String,
    pub(super) queue: Queue,
    /// Every server is down, and they are used anyway.
    pub(super) failing_open: bool,
    pub(super) discovery: Vec<Discovery>,
    pub(super) servers: Named<Server>,
}

/// Clients that wait for a server.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Queue {
    pub(super) waiting: u64,
    pub(super) limit: u64,
}

/// A name or a file that servers are found by.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Discovery {
    pub(super) source: String,
    /// Of the last good answer.
    pub(super) addresses: u64,
    /// `ok`, `failed` or `none`.
    pub(super) last: String,
    pub(super) reason: String,
    pub(super) since_seconds: f64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Server {
    pub(super) address: String,
    /// `up`, `down`, `draining` or `maintenance`.
    pub(super) state: String,
    pub(super) weight: u64,
    pub(super) backup: bool,
    pub(super) max_connections: Option<u64>,
    pub(super) connections: Tried,
    pub(super) bytes: Bytes,
    pub(super) health: Health,
    /// While it is left alone for what connections have found.
    pub(super) ejected: Option<Ejected>,
    /// While its share is growing.
    pub(super) slow_start: Option<SlowStart>,
    /// While its connections are being ended.
    pub(super) drain: Option<Drain>,
}

/// Of one server.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Tried {
    pub(super) active: u64,
    pub(super) total: u64,
    /// Connects that failed.
    pub(super) failed: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Health {
    /// `ok`, `failed`, `unknown`, `none` or `off`.
    pub(super) last: String,
    pub(super) reason: String,
    /// Since the server is up or down.
    pub(super) since_seconds: Option<f64>,
    /// How much of its weight the server wants, where that is not all of it.
    pub(super) share_percent: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Ejected {
    pub(super) until_seconds: f64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SlowStart {
    /// Of its share.
    pub(super) percent: u64,
    /// Until it has all of it.
    pub(super) until_seconds: f64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Drain {
    pub(super) began_with: u64,
    pub(super) left: u64,
    pub(super) closed: u64,
    /// `None` where nobody is cut.
    pub(super) rate: Option<String>,
    /// Until the rest are closed.
    pub(super) deadline_seconds: Option<f64>,
    /// Until none is left, at the pace so far.
    pub(super) estimate_seconds: Option<f64>,
}

/// A server that was removed and still has connections.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Leaving {
    pub(super) pool: String,
    pub(super) server: String,
    pub(super) address: String,
    pub(super) connections: Tried,
    pub(super) bytes: Bytes,
    pub(super) drain: Option<Drain>,
}

/// A JSON object whose keys are names, in the order in which it was written: that of the file.
#[derive(Clone, Debug)]
pub(super) struct Named<T>(pub(super) Vec<(String, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Named<T> {
    pub(super) fn iter(&self) -> impl Iterator<Item = &(String, T)> {
        self.0.iter()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(InOrder(PhantomData))
    }
}

/// Takes a map entry by entry: any map type would sort or shuffle them.
struct InOrder<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
    type Value = Named<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object by names")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Named<T>, M::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Named(entries))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A status with a bit of everything; other tests show it.
    pub(in crate::cli) fn example() -> Value {
        let server = |port: u16, state: &str, active: u64, health: Value, drain: Value| {
            json!({"address": format!("127.0.0.1:{port}"), "state": state, "weight": 1,
                "backup": false, "max_connections": null,
                "connections": {"active": active, "total": 400, "failed": 0},
                "bytes": {"upstream": 1200, "downstream": 21_000_000},
                "health": health, "drain": drain})
        };
        let good = json!({"last": "ok", "reason": "http 200", "since_seconds": 9.1});
        let bad =
            json!({"last": "failed", "reason": "connection refused", "since_seconds": 4000.0});
        let drain = json!({"began_with": 120, "left": 80, "closed": 30, "rate": "20/s",
            "quiet_seconds": 0.2, "deadline_seconds": 412.0, "estimate_seconds": 4.0});
        json!({
            "version": "0.1.0", "uptime_seconds": 11_520.5, "ready": true, "reasons": [],
            "stage": "serving", "workers": 2,
            "connections": {"active": 83, "total": 812, "refused": 0, "max": 9000},
            "bytes": {"upstream": 2400, "downstream": 42_000_000},
            "config": {"file": "/etc/evenkeel/evenkeel.yaml",
                "differs": ["server web/a: weight 1 -> 3"], "confirm_seconds": null},
            "listeners": {"web": {"bind": ["127.0.0.1:8080"], "pool": "web",
                "connections": {"active": 83, "total": 812, "refused": 0}}},
            "pools": {
                "web": {"algorithm": "round_robin", "servers": {
                    "b": server(9001, "up", 2, good.clone(), Value::Null),
                    "a": server(9002, "draining", 80, good, drain)}},
                "db": {"algorithm": "least_connections", "servers": {
                    "127.0.0.1:9003": server(9003, "down", 0, bad, Value::Null)}}},
            "leaving": [{"pool": "web", "server": "old", "address": "127.0.0.1:9009",
                "connections": {"active": 1, "total": 90, "failed": 2},
                "bytes": {"upstream": 1, "downstream": 2},
                "drain": {"began_with": 4, "left": 1, "closed": 0, "rate": null,
                    "quiet_seconds": 0.2, "deadline_seconds": null, "estimate_seconds": null}}],
            "demo": false
        })
    }

    #[test]
    fn names_stay_in_the_order_of_the_answer() {
        let status: Status = serde_json::from_value(example()).unwrap();
        let names: Vec<_> = status.pools.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["web", "db"]);
        let (_, web) = &status.pools.0[0];
        let names: Vec<_> = web.servers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
    }

    #[test]
    fn what_is_missing_or_unknown_does_not_matter() {
        let answer = json!({"ready": true, "new": {"thing": 1}, "pools": {"web": {}}});
        let status: Status = serde_json::from_value(answer).unwrap();
        assert!(status.ready && status.leaving.is_empty());
        assert_eq!(status.pools.0.len(), 1);
    }
}
