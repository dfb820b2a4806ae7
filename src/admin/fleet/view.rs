//! What is looked at of a status when several stand side by side.
//!
//! Read field by field: an older version lacks some, a newer one has others, and what is not of the
//! expected kind counts as not said.

use serde_json::{Map, Value};

use crate::config::SERVERS_MAX;

/// Reasons of one node, and characters of one: those beyond help nobody.
const REASONS_MAX: usize = 8;
const REASON_MAX: usize = 200;
/// Characters of any other text: twice what a name in a configuration may have.
const TEXT_MAX: usize = 512;
/// Pools and servers of one node, together: what a configuration may have. A node that means harm can
/// name far more in an answer of few bytes, and each costs its place in every comparison.
const ENTRIES_MAX: usize = SERVERS_MAX + 10_000;

/// A node's status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// Of the program.
    pub version: String,
    /// Whether it should get traffic.
    pub is_ready: bool,
    /// Whether an operator has taken it out of service.
    pub has_left: bool,
    /// `starting`, `serving` or what comes after.
    pub stage: String,
    /// Why it is not ready, each a line.
    pub reasons: Vec<String>,
    /// Since its process began.
    pub uptime_seconds: f64,
    /// Event loops; `None` where it does not say.
    pub workers: Option<u64>,
    /// Connections now.
    pub active: u64,
    /// Connections since the start.
    pub total: u64,
    /// In so many places it runs otherwise than its file says.
    pub differs: usize,
    /// A reload is taken back unless it is confirmed.
    pub awaits_confirmation: bool,
    /// In the order of its configuration.
    pub pools: Vec<PoolView>,
}

/// A pool of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolView {
    /// As the configuration has it.
    pub name: String,
    /// How servers are picked.
    pub algorithm: String,
    /// In the order of its configuration.
    pub servers: Vec<ServerView>,
}

/// A server of a pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerView {
    /// As the configuration has it.
    pub name: String,
    /// Where it is.
    pub address: String,
    /// `up`, `down`, `draining` or `maintenance`.
    pub state: String,
    /// `None` where it is not said, as are the next two.
    pub weight: Option<u64>,
    /// Whether it is used only while no other can be.
    pub is_backup: Option<bool>,
    /// Connections now.
    pub active: Option<u64>,
    /// It takes no more; 0 is no maximum.
    pub most: u64,
}

impl View {
    /// Of a status; of anything else, nothing much.
    pub fn of(status: &Value) -> Self {
        let connections = &status["connections"];
        let config = &status["config"];
        Self {
            version: text(&status["version"]),
            is_ready: status["ready"].as_bool().unwrap_or_default(),
            has_left: status["left"].as_bool().unwrap_or_default(),
            stage: text(&status["stage"]),
            reasons: reasons(status),
            uptime_seconds: status["uptime_seconds"].as_f64().unwrap_or_default(),
            workers: status["workers"].as_u64(),
            active: connections["active"].as_u64().unwrap_or_default(),
            total: connections["total"].as_u64().unwrap_or_default(),
            differs: config["differs"].as_array().map_or(0, Vec::len),
            awaits_confirmation: config["confirm_seconds"].is_number(),
            pools: pools(&status["pools"]),
        }
    }

    /// How it is, in a word or two.
    pub fn standing(&self) -> &str {
        match self.stage.as_str() {
            _ if self.is_ready => "ready",
            _ if self.has_left => "left",
            "" | "serving" => "not ready",
            stage => stage,
        }
    }
}

/// `not_ready` has them where there is such a field, else `reasons`, which is older.
fn reasons(status: &Value) -> Vec<String> {
    let listed = status["not_ready"].as_array();
    let listed = listed.or(status["reasons"].as_array());
    let texts = listed.into_iter().flatten().filter_map(Value::as_str);
    let cut = |text: &str| text.chars().take(REASON_MAX).collect();
    texts.take(REASONS_MAX).map(cut).collect()
}

fn pools(object: &Value) -> Vec<PoolView> {
    let mut room = ENTRIES_MAX;
    let read = |(name, value): (&String, &Value)| {
        room = room.checked_sub(1)?;
        let pool = pool(name, value, room);
        room -= pool.servers.len();
        Some(pool)
    };
    entries(object).map_while(read).collect()
}

/// At most so many of its servers.
fn pool(name: &str, pool: &Value, most: usize) -> PoolView {
    let servers = entries(&pool["servers"]).take(most);
    PoolView {
        name: cut(name),
        algorithm: text(&pool["algorithm"]),
        servers: servers.map(server).collect(),
    }
}

fn server((name, server): (&String, &Value)) -> ServerView {
    ServerView {
        name: cut(name),
        address: text(&server["address"]),
        state: text(&server["state"]),
        weight: server["weight"].as_u64(),
        is_backup: server["backup"].as_bool(),
        active: server["connections"]["active"].as_u64(),
        most: server["max_connections"].as_u64().unwrap_or_default(),
    }
}

fn entries(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flat_map(Map::iter)
}

fn text(value: &Value) -> String {
    value.as_str().map(cut).unwrap_or_default()
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing_or_odd_is_not_said() {
        let odd = json!({"version": 3, "ready": "yes", "uptime_seconds": null, "workers": "auto",
            "pools": {"web": {"servers": {"a": [], "b": {"state": "up", "weight": -1}}}, "x": 7}});
        let view = View::of(&odd);
        assert_eq!((&*view.version, view.standing()), ("", "not ready"));
        let names: Vec<_> = view.pools.iter().map(|pool| &*pool.name).collect();
        assert_eq!(names, ["web", "x"]);
        let servers = &view.pools[0].servers;
        assert_eq!((&*servers[0].state, servers[0].active), ("", None));
        assert_eq!((&*servers[1].state, servers[1].weight), ("up", None));
        assert_eq!(View::of(&Value::Null), View::default());
    }

    #[test]
    fn why_it_is_not_ready_is_told_by_either_field() {
        let old = json!({"stage": "draining", "reasons": ["draining"]});
        assert_eq!(View::of(&old).reasons, ["draining"]);
        assert_eq!(View::of(&old).standing(), "draining");
        let left = "left: evenkeel leave was asked for";
        let new = json!({"stage": "serving", "reasons": [], "not_ready": [left], "left": true});
        assert_eq!(View::of(&new).reasons, [left]);
        assert_eq!(View::of(&new).standing(), "left");
        let many = json!({"not_ready": vec!["x".repeat(9000); 9000]});
        let reasons = View::of(&many).reasons;
        assert_eq!((reasons.len(), reasons[0].len()), (REASONS_MAX, REASON_MAX));
    }

    #[test]
    fn what_is_kept_of_a_node_has_an_end() {
        let long = "x".repeat(TEXT_MAX + 1);
        let view = View::of(
            &json!({"version": long, "pools": {long.clone(): {"algorithm": long,
            "servers": {long.clone(): {"state": long, "address": long}}}}}),
        );
        let (pool, kept) = (&view.pools[0], &long[1..]);
        let server = &pool.servers[0];
        for text in [&view.version, &pool.name, &pool.algorithm, &server.name] {
            assert_eq!(text, kept);
        }
        assert_eq!((&*server.state, &*server.address), (kept, kept));
        let many: Map<String, Value> = (0..ENTRIES_MAX)
            .map(|number| (number.to_string(), Value::Null))
            .collect();
        let (servers, pools) = (json!({"servers": many}), Value::from(many.clone()));
        let view = View::of(&json!({"pools": {"a": {}, "b": servers, "c": {}}}));
        let counts: Vec<_> = view.pools.iter().map(|pool| pool.servers.len()).collect();
        assert_eq!(counts, [0, ENTRIES_MAX - 2]);
        assert_eq!(View::of(&json!({"pools": pools})).pools.len(), ENTRIES_MAX);
    }
}
