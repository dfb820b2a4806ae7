//! Those who mean ill or know no better, at the admin side: idle crowds, endless heads, halves of
//! requests, and reloads without end while servers come and go. The data path takes no notice, and
//! the admin side answers again.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

use crate::harness::api::{Api, Visit};
use crate::harness::blocks::Finish;
use crate::harness::peers::{Peer, Refusing, connect};
use crate::harness::program::Evenkeel;
use crate::harness::pulse::Pulse;
use crate::harness::servers::{Greeter, greeted};
use crate::harness::with_pool;

const BOTH: &str = "workers: 2\nadmin: {socket: SOCKET, http: 127.0.0.1:0}";
/// Over each transport: more than twice the places there are, and what the backlog takes.
const CROWD: usize = 150;
/// A few more than the places that there are.
const OVERFULL: usize = 70;
const RELOADS: u32 = 100;
/// Connections that live through all of them.
const LIVE: usize = 30;
/// Between two times that servers come or go.
const RELOADS_PER_FLAP: u32 = 5;

fn serving() -> (Greeter, Evenkeel, Pulse) {
    let greeter = Greeter::listen(b'a');
    let evenkeel = Evenkeel::start(&with_pool(BOTH, "", &[greeter.address()]));
    let pulse = Pulse::start(evenkeel.address());
    (greeter, evenkeel, pulse)
}

fn crowd(api: &Api, count: usize) -> Vec<Visit> {
    (0..count).map(|_| api.visit()).collect()
}

#[test]
fn three_hundred_idle_visitors_keep_nobody_from_the_data_path() {
    let (_greeter, evenkeel, pulse) = serving();
    let apis = [evenkeel.api(), evenkeel.http()];
    let before = evenkeel.holding();
    let crowds = apis.each_ref().map(|api| crowd(api, CROWD));
    pulse.goes_on();
    let (mut client, _) = greeted(evenkeel.address());
    client.write_all(b"new").unwrap();
    client.expect(b"new");
    drop(client);
    // A place each and no more: others wait where they cost nothing.
    let most = before.count() + 2 * 64 + 2;
    let now = evenkeel.holding().count();
    assert!(
        now <= most,
        "{now} descriptors, and {} before",
        before.count()
    );
    drop(crowds);
    for api in &apis {
        api.status();
    }
    evenkeel.back_to(&before);
    pulse.end();
}

#[test]
fn visitors_who_say_nothing_lose_their_places_to_those_who_do() {
    let (_greeter, evenkeel, pulse) = serving();
    let apis = [evenkeel.api(), evenkeel.http()];
    let mut crowds = apis.each_ref().map(|api| crowd(api, OVERFULL));
    // All places are taken, and nobody leaves of himself.
    for api in &apis {
        api.status();
    }
    pulse.goes_on();
    for crowd in &mut crowds {
        let said = crowd[0].rest();
        assert!(
            said.is_empty() || said.starts_with("HTTP/1.1 408 "),
            "{said}"
        );
    }
    pulse.end();
}

#[test]
fn heads_without_end_and_requests_cut_in_half_harm_nobody() {
    let (_greeter, evenkeel, pulse) = serving();
    let apis = [evenkeel.api(), evenkeel.http()];
    let before = evenkeel.holding();
    let mut visits = Vec::new();
    for api in &apis {
        let mut long = api.visit();
        let line = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(1 << 20));
        // It may be cut off while it still talks.
        long.send(line.as_bytes());
        let said = long.rest();
        let is_refused = ["HTTP/1.1 431 ", "HTTP/1.1 414 "]
            .iter()
            .any(|s| said.starts_with(s));
        assert!(is_refused || said.is_empty(), "{said}");
        for part in [
            "GET /api/v1/sta",
            "GET /api/v1/status HTTP/1.1\r\nHost: loc",
            "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
            "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
            "\r\n\r\n\r\n",
            "\0\0\0",
        ] {
            for _ in 0..5 {
                let mut visit = api.visit();
                visit.send(part.as_bytes());
                visits.push(visit);
            }
        }
        api.status();
    }
    pulse.goes_on();
    drop(visits);
    for api in &apis {
        api.status();
    }
    let reloads = evenkeel.errors().all();
    assert!(
        !reloads.iter().any(|line| line.contains("reload")),
        "{reloads:?}"
    );
    evenkeel.back_to(&before);
    pulse.end();
}

/// A server that can be stopped and started again at the same address.
struct Flapping {
    name: u8,
    place: Refusing,
    serving: Option<Greeter>,
    /// Connections that were accepted live as long as their greeter.
    stopped: Vec<Greeter>,
}

impl Flapping {
    fn new(name: u8) -> Self {
        let place = Refusing::new();
        let serving = Some(Greeter::serve(name, place.listen()));
        Self {
            name,
            place,
            serving,
            stopped: Vec::new(),
        }
    }

    fn flap(&mut self) {
        match self.serving.take() {
            Some(mut greeter) => {
                greeter.stop();
                self.stopped.push(greeter);
            }
            None => self.serving = Some(Greeter::serve(self.name, self.place.listen())),
        }
    }
}

fn flap_in_turn(servers: &mut [Flapping; 2], round: u32) {
    if round.is_multiple_of(RELOADS_PER_FLAP) {
        servers[(round / RELOADS_PER_FLAP) as usize % 2].flap();
    }
}

fn variant(round: u32, servers: [SocketAddr; 3]) -> String {
    let [steady, first, second] = servers;
    let algorithm = ["round_robin", "least_connections", "random"][round as usize % 3];
    let weight = 1 + round % 4;
    let extra = match round % 2 {
        0 => "",
        _ => "  extra: {bind: \"127.0.0.1:0\", pool: web}\n",
    };
    format!(
        "{BOTH}\nlisteners:\n  web: {{bind: \"127.0.0.1:0\", pool: web}}\n{extra}\
         pools:\n  web:\n    algorithm: {algorithm}\n\
         \x20   health: {{type: tcp, interval: 50ms, rise: 1, fall: 1}}\n    servers:\n\
         \x20     - {{name: steady, address: {steady}}}\n\
         \x20     - {{name: first, address: {first}, weight: {weight}}}\n\
         \x20     - {{name: second, address: {second}}}\n"
    )
}

/// How visits went.
#[derive(Debug, Default)]
struct Visits {
    greeted: AtomicUsize,
    /// Ended by RST.
    reset: AtomicUsize,
    /// Ended in order without a greeting.
    turned_away: AtomicUsize,
}

impl Visits {
    /// One more, which a server may cut off by going away, and nobody else.
    fn pay(&self, address: SocketAddr) {
        let mut client = connect(address);
        // Where this fails, reading says how it ended.
        drop(client.shutdown(Shutdown::Write));
        let count = match client.read_to_finish() {
            (name, Finish::Fin) if name.len() == 1 => &self.greeted,
            (_, Finish::Fin) => &self.turned_away,
            (_, Finish::Reset) => &self.reset,
        };
        count.fetch_add(1, Ordering::SeqCst);
    }
}

fn exchange(live: &mut [TcpStream], round: u32) {
    for stream in live.iter_mut() {
        stream.write_all(&round.to_be_bytes()).unwrap();
    }
    for stream in live.iter_mut() {
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(u32::from_be_bytes(answer), round);
    }
}

#[test]
fn a_hundred_reloads_while_servers_flap_lose_nobody_and_refuse_nobody() {
    let steady = Greeter::listen(b's');
    let mut flapping = [Flapping::new(b'f'), Flapping::new(b'g')];
    let [first, second] = flapping.each_ref().map(|server| server.place.address());
    let servers = [steady.address(), first, second];
    let evenkeel = Evenkeel::start(&variant(0, servers));
    let address = evenkeel.address();
    let before = evenkeel.holding();
    let mut live: Vec<_> = (0..LIVE).map(|_| greeted(address).0).collect();
    let (stop, visits) = (AtomicBool::new(false), Visits::default());
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                visits.pay(address);
            }
        });
        let body = std::panic::AssertUnwindSafe(|| {
            for round in 1..=RELOADS {
                flap_in_turn(&mut flapping, round);
                evenkeel.rewrite(&variant(round, servers));
                evenkeel.api().ask("POST", "/api/v1/reload").expect(200);
                exchange(&mut live, round);
            }
        });
        let outcome = std::panic::catch_unwind(body);
        stop.store(true, Ordering::SeqCst);
        outcome.unwrap();
    });
    for stream in &mut live {
        stream.end();
        stream.expect_fin();
    }
    evenkeel.back_to(&before);
    let status = evenkeel.api().status();
    assert_eq!(status["connections"]["refused"], 0);
    assert_cut_off_by_servers_alone(&visits, &status["ends"]);
    let said = evenkeel.errors().all();
    let downs = said.iter().filter(|line| line.contains(" is down: "));
    assert!(downs.count() >= 5, "that is no flapping");
}

/// Whom a server that went away had in its queue was reset; the one that it was just accepting was
/// turned away; all others were greeted.
#[track_caller]
fn assert_cut_off_by_servers_alone(visits: &Visits, ends: &Value) {
    let ends = ends.as_object().unwrap();
    let expected = ["client_closed", "server_closed", "server_reset"];
    let other = ends.keys().find(|end| !expected.contains(&end.as_str()));
    assert_eq!(other, None, "{ends:?}");
    let count = |count: &AtomicUsize| count.load(Ordering::SeqCst);
    let resets = ends.get("server_reset").and_then(Value::as_u64);
    assert_eq!(
        resets.unwrap_or(0),
        count(&visits.reset) as u64,
        "{visits:?}"
    );
    let stops = (RELOADS / RELOADS_PER_FLAP) as usize / 2;
    assert!(count(&visits.turned_away) <= stops, "{visits:?}");
    assert!(count(&visits.greeted) > RELOADS as usize, "{visits:?}");
}
