//! Slow start: what comes back or joins gets a tenth of its share at first, and all of it in time.

use std::net::SocketAddr;

use serde_json::Value;

use crate::harness::peers::Refusing;
use crate::harness::program::Evenkeel;
use crate::harness::servers::{Greeter, visits};
use crate::harness::{eventually, with_health};

fn start(slow_start: &str, servers: &[SocketAddr]) -> Evenkeel {
    let pool = format!(
        "    algorithm: round_robin\n    slow_start: {slow_start}\n    health: {{type: tcp, interval: \
         50ms, timeout: 2s, rise: 1, fall: 1}}"
    );
    Evenkeel::start(&with_health("workers: 1", &pool, servers))
}

fn state(evenkeel: &Evenkeel, server: SocketAddr) -> String {
    let status = evenkeel.api().status();
    let state = &status["pools"]["web"]["servers"][server.to_string()]["state"];
    state.as_str().unwrap_or_default().to_owned()
}

fn ramp(evenkeel: &Evenkeel, server: SocketAddr) -> Value {
    let status = evenkeel.api().status();
    status["pools"]["web"]["servers"][server.to_string()]["slow_start"].clone()
}

fn count(evenkeel: &Evenkeel, picks: usize, name: char) -> usize {
    visits(evenkeel.address(), picks).matches(name).count()
}

#[test]
fn at_the_start_all_have_their_share_and_who_comes_back_gets_a_tenth_at_first() {
    let (port, other) = (Refusing::new(), Greeter::listen(b'o'));
    let mut server = Greeter::serve(b's', port.listen());
    let evenkeel = start("1h", &[port.address(), other.address()]);
    assert_eq!(count(&evenkeel, 20, 's'), 10);
    server.stop();
    eventually("it is down", || state(&evenkeel, port.address()) == "down");
    let _server = Greeter::serve(b's', port.listen());
    eventually("it is up", || state(&evenkeel, port.address()) == "up");
    eventually("its ramp is shown", || {
        ramp(&evenkeel, port.address())["percent"] == 10
    });
    assert_eq!(ramp(&evenkeel, other.address()), Value::Null);
    let shown = evenkeel.command(&["status"]).stdout;
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("slow start: 10% of its share"), "{shown}");
    // Of 110 hundredths it has 10.
    let got = count(&evenkeel, 110, 's');
    assert!((8..=12).contains(&got), "{got} of 110");
}

#[test]
fn in_time_it_has_all_of_its_share() {
    let (port, other) = (Refusing::new(), Greeter::listen(b'o'));
    let evenkeel = start("1s", &[port.address(), other.address()]);
    let _server = Greeter::serve(b's', port.listen());
    eventually("both take turns", || count(&evenkeel, 10, 's') == 5);
    eventually("nothing more is shown", || {
        ramp(&evenkeel, port.address()).is_null()
    });
}

#[test]
fn a_server_that_is_added_starts_slowly() {
    let (server, new) = (Greeter::listen(b's'), Greeter::listen(b'n'));
    let evenkeel = start("1h", &[server.address()]);
    let body = format!("{{\"address\": \"{}\"}}", new.address());
    let api = evenkeel.api();
    api.send("POST", "/api/v1/pools/web/servers", &body)
        .expect(201);
    eventually("it is up", || state(&evenkeel, new.address()) == "up");
    eventually("its ramp is shown", || {
        ramp(&evenkeel, new.address())["percent"] == 10
    });
    let got = count(&evenkeel, 110, 'n');
    assert!((8..=12).contains(&got), "{got} of 110");
}
