//! The demonstration in the API: what `GET` and `PATCH /api/v1/demo` show and take.
//!
//! A wish is checked whole before any of it is granted. Nothing here waits: dials are turned, and
//! the loops woken.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Demo;
use super::dials::{ClientDials, Dials, LoadDials, ServerDials, server_index, server_name};
use crate::admin::exhibit::Exhibit;
use crate::admin::request::Refusal;

/// Connections a second: more would show nothing further and keep two cores busy.
const RATE_MAX: u64 = 2000;
/// Long enough to see connections pile up.
const DELAY_MAX_MS: u64 = 10_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    load: Option<LoadWish>,
    #[serde(default)]
    servers: BTreeMap<String, ServerWish>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadWish {
    running: Option<bool>,
    rate: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServerWish {
    alive: Option<bool>,
    delay_ms: Option<u64>,
}

impl Exhibit for Demo {
    fn show(&self) -> Value {
        show(&self.dials)
    }

    fn change(&self, wish: &Value) -> Result<(), Refusal> {
        turn(&self.dials, wish)?;
        self.wake();
        Ok(())
    }
}

fn show(dials: &Dials) -> Value {
    let servers = dials.servers.iter().enumerate();
    let servers: Map<_, _> = servers
        .map(|(index, server)| (server_name(index), show_server(server)))
        .collect();
    let clients: Vec<_> = dials.clients.iter().map(show_client).collect();
    json!({"load": show_load(&dials.load), "servers": servers, "clients": clients})
}

fn show_load(load: &LoadDials) -> Value {
    // In thousandths: a loopback connection takes a fraction of a millisecond.
    let ms = |latency: std::time::Duration| latency.as_micros() as f64 / 1000.0;
    let [p50, p99] = load.latencies().map(|latency| latency.map(ms));
    json!({
        "running": load.is_running(),
        "rate": load.rate(),
        "opened": load.opened.load(Relaxed),
        "answered": load.answered.load(Relaxed),
        "errors": load.errors.load(Relaxed),
        "errors_recent": load.errors_recent.load(Relaxed),
        "skipped": load.skipped.load(Relaxed),
        "in_flight": load.in_flight.load(Relaxed),
        "latency_ms": {"p50": p50, "p99": p99},
    })
}

fn show_server(server: &ServerDials) -> Value {
    json!({
        "address": server.address.to_string(),
        "alive": server.is_alive(),
        "delay_ms": server.delay_ms(),
        "answered": server.answered.load(Relaxed),
    })
}

fn show_client(client: &ClientDials) -> Value {
    json!({
        "client": client.address.to_string(),
        "server": client.server().map(server_name),
        "changes": client.changes(),
    })
}

fn turn(dials: &Dials, wish: &Value) -> Result<(), Refusal> {
    let wish = Wish::deserialize(wish).map_err(|error| Refusal::Invalid(error.to_string()))?;
    let load = wish.load.unwrap_or_default();
    let rate = load
        .rate
        .map(|rate| ranged("load.rate", rate, 1, RATE_MAX))
        .transpose()?;
    let mut turns = Vec::new();
    for (name, wish) in &wish.servers {
        let server = server_index(name).and_then(|index| dials.servers.get(index));
        let server = server.ok_or_else(|| {
            let last = server_name(dials.servers.len().saturating_sub(1));
            Refusal::NotFound(format!("there is no server {name}, they are s1 to {last}"))
        })?;
        let delay_ms = wish
            .delay_ms
            .map(|ms| ranged(&format!("servers.{name}.delay_ms"), ms, 0, DELAY_MAX_MS))
            .transpose()?;
        turns.push((server, wish.alive, delay_ms));
    }
    // From here on nothing can be refused.
    rate.into_iter().for_each(|rate| dials.load.turn_rate(rate));
    load.running.into_iter().for_each(|run| dials.load.run(run));
    for (server, is_alive, delay_ms) in turns {
        is_alive
            .into_iter()
            .for_each(|is_alive| server.turn_alive(is_alive));
        delay_ms.into_iter().for_each(|ms| server.turn_delay(ms));
    }
    Ok(())
}

fn ranged(what: &str, value: u64, least: u64, most: u64) -> Result<u32, Refusal> {
    let fits = (least..=most).contains(&value);
    let value = fits.then(|| u32::try_from(value).ok()).flatten();
    value.ok_or_else(|| Refusal::Invalid(format!("{what}: write a number from {least} to {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, SocketAddr};

    fn dials() -> Dials {
        let servers = (1..=3).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        Dials::new(servers.collect(), vec![IpAddr::from([127, 0, 0, 11])])
    }

    #[test]
    fn a_wish_turns_what_it_names_and_nothing_else() {
        let dials = dials();
        let wish = json!({"load": {"rate": 300}, "servers": {"s2": {"alive": false}, "s3": {"delay_ms": 10000}}});
        turn(&dials, &wish).unwrap();
        let shown = show(&dials);
        assert_eq!(shown["load"]["rate"], 300);
        assert_eq!(shown["load"]["running"], true);
        assert_eq!(shown["servers"]["s2"]["alive"], false);
        let untouched = &shown["servers"]["s1"]["delay_ms"];
        assert_eq!(shown["servers"]["s2"]["delay_ms"], *untouched);
        assert_eq!(shown["servers"]["s3"]["alive"], true);
        assert_eq!(shown["servers"]["s3"]["delay_ms"], 10000);
        turn(&dials, &json!({"load": {"running": false}})).unwrap();
        assert_eq!(show(&dials)["load"]["running"], false);
        turn(&dials, &json!({})).unwrap();
    }

    #[test]
    fn a_wish_that_is_wrong_anywhere_changes_nothing() {
        let dials = dials();
        let before = show(&dials);
        let wrong = [
            json!({"load": {"running": false, "rate": 0}}),
            json!({"load": {"running": false, "rate": 2001}}),
            json!({"load": {"running": false, "rate": -1}}),
            json!({"load": {"running": false, "rate": "300"}}),
            json!({"load": {"running": false}, "servers": {"s1": {"alive": false, "delay_ms": 10001}}}),
            json!({"load": {"running": false}, "servers": {"s1": {"dead": true}}}),
            json!({"load": {"running": false}, "weather": 1}),
            json!([1]),
        ];
        for wish in wrong {
            let refused = turn(&dials, &wish).unwrap_err();
            assert!(matches!(refused, Refusal::Invalid(_)), "{wish}: {refused}");
        }
        let unknown = json!({"servers": {"s1": {"alive": false}, "s4": {"alive": false}}});
        let refused = turn(&dials, &unknown).unwrap_err();
        assert!(matches!(refused, Refusal::NotFound(_)), "{refused}");
        assert_eq!(show(&dials), before);
    }

    #[test]
    fn what_is_not_known_yet_is_null() {
        let shown = show(&dials());
        assert_eq!(
            shown["load"]["latency_ms"],
            json!({"p50": null, "p99": null})
        );
        let client = json!({"client": "127.0.0.11", "server": null, "changes": 0});
        assert_eq!(shown["clients"], json!([client]));
    }
}
