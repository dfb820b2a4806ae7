//! The event stream of a running evenkeel: what happens is told as it happens, a reader goes on where
//! it was, and no reader holds the end of the process up.

use serde_json::{Value, json};

use crate::harness::api::{Api, Visit};
use crate::harness::peers::{Peer, Server, ping};
use crate::harness::program::Evenkeel;
use crate::harness::servers::Greeter;
use crate::harness::{eventually, plain, with_health};

const BOTH: &str = "workers: 1\nadmin: {socket: SOCKET, http: 127.0.0.1:0}";
const EVENTS: &str = "/api/v1/events";

/// One reader of a stream.
struct Reader(Visit);

impl Reader {
    #[track_caller]
    fn open(api: &Api, headers: &[&str]) -> Self {
        let host = format!("Host: {}", api.host());
        let mut visit = api.visit();
        visit.ask("GET", EVENTS, &[headers, &[&host]].concat());
        let head = visit.until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let head = head.to_lowercase();
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        Self(visit)
    }

    /// The next message: its kind, its id where it has one, and its data.
    #[track_caller]
    fn message(&mut self) -> (String, Option<u64>, Value) {
        let text = self.0.until("\n\n");
        let field = |name: &str| {
            let start = format!("{name}: ");
            text.lines().find_map(|line| line.strip_prefix(&start))
        };
        let data = field("data").unwrap_or_else(|| panic!("no data in {text}"));
        let id = field("id").map(|id| id.parse().unwrap());
        (
            field("event").unwrap().to_owned(),
            id,
            serde_json::from_str(data).unwrap(),
        )
    }

    /// The next event of a kind.
    #[track_caller]
    fn event(&mut self, kind: &str) -> Value {
        loop {
            let (name, id, data) = self.message();
            if name != "event" {
                continue;
            }
            assert_eq!(json!(id), data["number"]);
            if data["kind"] == kind {
                return data;
            }
        }
    }
}

/// Evenkeel before a server that is checked often.
fn checked() -> (Greeter, Evenkeel) {
    let greeter = Greeter::listen(b'a');
    let health = "    health: {type: tcp, interval: 50ms, rise: 1, fall: 1}";
    let evenkeel = Evenkeel::start(&with_health(BOTH, health, &[greeter.address()]));
    (greeter, evenkeel)
}

#[test]
fn a_server_that_goes_down_a_reload_and_a_drain_are_told_as_they_happen() {
    let (mut greeter, evenkeel) = checked();
    let mut readers = [
        Reader::open(&evenkeel.api(), &[]),
        Reader::open(&evenkeel.http(), &[]),
    ];
    for reader in &mut readers {
        let (name, id, status) = reader.message();
        assert_eq!((&*name, id), ("status", None), "the first message");
        assert_eq!(status["stage"], "serving");
        let name = greeter.address().to_string();
        assert_eq!(status["pools"]["web"]["servers"][&name]["state"], "up");
        let started = reader.event("started");
        assert!(
            started["text"].as_str().unwrap().contains("ready"),
            "{started}"
        );
        let time = started["time"].as_str().unwrap();
        assert!(
            time.ends_with('Z') && time.len() == 20 && time.starts_with("20"),
            "{time}"
        );
    }
    let name = greeter.address().to_string();
    let path = format!("/api/v1/pools/web/servers/{name}");
    evenkeel
        .api()
        .send("PATCH", &path, r#"{"state":"draining"}"#)
        .expect(200);
    evenkeel.api().ask("POST", "/api/v1/reload").expect(200);
    greeter.stop();
    for reader in &mut readers {
        let event = reader.event("server_state");
        let text = event["text"].as_str().unwrap();
        assert!(text.contains(&name) && text.contains("draining"), "{text}");
        reader.event("reloaded");
        let event = reader.event("server_down");
        let text = event["text"].as_str().unwrap();
        assert!(text.contains(&name) && text.contains("refused"), "{text}");
    }
    evenkeel.rewrite("listeners: 7");
    evenkeel.api().ask("POST", "/api/v1/reload").expect(400);
    for reader in &mut readers {
        reader.event("reload_failed");
    }
}

#[test]
fn a_reader_that_comes_back_is_told_what_it_missed_and_nothing_twice() {
    let (_greeter, evenkeel) = checked();
    let api = evenkeel.api();
    for _ in 0..4 {
        api.ask("POST", "/api/v1/reload").expect(200);
    }
    let mut reader = Reader::open(&api, &[]);
    let mut numbers = Vec::new();
    while numbers.len() < 3 {
        numbers.push(reader.event("reloaded")["number"].as_u64().unwrap());
    }
    drop(reader);
    let mut reader = Reader::open(
        &evenkeel.http(),
        &[&format!("Last-Event-ID: {}", numbers[1])],
    );
    let again = reader.event("reloaded")["number"].as_u64().unwrap();
    assert_eq!(again, numbers[2]);
    assert!(reader.event("reloaded")["number"].as_u64().unwrap() > numbers[2]);
}

#[test]
fn the_status_comes_again_and_again_and_is_of_now() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let mut reader = Reader::open(&evenkeel.api(), &[]);
    let (mut client, mut serving) = evenkeel.pair(&server);
    ping(&mut client, &mut serving);
    let mut last = 0.0;
    for wanted in [1, 0] {
        loop {
            let (name, _, data) = reader.message();
            if name != "status" {
                continue;
            }
            let uptime = data["uptime_seconds"].as_f64().unwrap();
            assert!(uptime >= last, "{uptime} after {last}");
            last = uptime;
            if data["connections"]["active"] == wanted {
                break;
            }
        }
        if wanted == 1 {
            client.end();
            serving.end();
        }
    }
}

#[test]
fn streams_end_with_the_process_in_order_and_do_not_hold_it() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&crate::harness::with_pool(BOTH, "", &[server.address()]));
    let (mut client, mut serving) = evenkeel.pair(&server);
    let mut evenkeel = evenkeel;
    let mut readers = vec![
        Reader::open(&evenkeel.api(), &[]),
        Reader::open(&evenkeel.http(), &[]),
    ];
    // One that reads nothing at all, and one that has asked for nothing yet.
    let _deaf = Reader::open(&evenkeel.http(), &[]);
    let _idle = evenkeel.api().visit();
    evenkeel.signal("TERM");
    for reader in &mut readers {
        let stopping = reader.event("stopping");
        assert!(
            stopping["text"].as_str().unwrap().contains("1 connection"),
            "{stopping}"
        );
    }
    ping(&mut client, &mut serving);
    client.end();
    serving.expect_fin();
    drop(serving);
    client.expect_fin();
    for reader in &mut readers {
        let rest = reader.0.rest();
        assert!(
            rest.ends_with("0\r\n\r\n"),
            "not the end of a body: {rest:?}"
        );
    }
    assert_eq!(evenkeel.exit().code(), Some(0));
}

#[test]
fn there_are_places_for_sixteen_streams_and_they_come_back() {
    let (_greeter, evenkeel) = checked();
    let apis = [evenkeel.api(), evenkeel.http()];
    let readers: Vec<_> = (0..16).map(|n| Reader::open(&apis[n % 2], &[])).collect();
    for api in &apis {
        let answer = api.ask("GET", EVENTS);
        answer.expect(503);
    }
    drop(readers);
    for api in &apis {
        eventually("a place", || {
            let mut visit = api.visit();
            visit.ask("GET", EVENTS, &[&format!("Host: {}", api.host())]);
            visit.until("\r\n\r\n").starts_with("HTTP/1.1 200 ")
        });
    }
}

#[test]
fn the_event_of_a_failed_reload_quotes_no_file() {
    let server = Greeter::listen(b'a');
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    evenkeel.rewrite("secret-of-somebody: 7");
    evenkeel.api().ask("POST", "/api/v1/reload").expect(400);
    evenkeel.errors().wait_for("secret-of-somebody");
    let told = Reader::open(&evenkeel.api(), &[]).event("reload_failed");
    assert!(!told.to_string().contains("secret-of-somebody"), "{told}");
}
