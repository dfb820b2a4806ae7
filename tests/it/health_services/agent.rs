//! An agent beside the server, which says how much of its weight it should have.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::checks::Checks;
use crate::harness::eventually;

/// Says one line to whoever connects; ends with the tests.
struct Agent {
    address: SocketAddr,
    line: Arc<Mutex<&'static str>>,
}

impl Agent {
    fn saying(line: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let line = Arc::new(Mutex::new(line));
        let said = Arc::clone(&line);
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let line = *said.lock().unwrap();
                // The prober may have closed already.
                drop(stream.write_all(line.as_bytes()));
            }
        });
        Self { address, line }
    }

    fn say(&self, line: &'static str) {
        *self.line.lock().unwrap() = line;
    }
}

#[test]
fn an_agent_changes_the_share_and_everybody_is_told() {
    let agent = Agent::saying("up\n");
    let checks = Checks::start(&[("p", "type: agent", agent.address)]);
    let share = || {
        let status = checks.evenkeel().api().status();
        status["pools"]["p"]["servers"]["s"]["health"]["share_percent"].as_u64()
    };
    checks.expect("p", "up", "agent: up");
    assert_eq!(share(), None);
    agent.say("up 50% maxconn:10\n");
    checks.expect("p", "up", "agent: 50% (maxconn is ignored)");
    eventually("the share is shown", || share() == Some(50));
    let metrics = checks.evenkeel().api().whole("GET", "/metrics", &[]);
    let series = "evenkeel_server_share{pool=\"p\",server=\"s\"} 0.5";
    assert!(metrics.contains(series), "{metrics}");
    let table = checks.evenkeel().command(&["status"]).stdout;
    let table = String::from_utf8(table).unwrap();
    assert!(table.contains("1 at 50%"), "{table}");
    let log = checks.evenkeel().errors();
    log.wait_for("server p/s takes 50% of its weight: agent: 50%");
    agent.say("drain");
    log.wait_for("server p/s takes 0% of its weight: agent: drain");
    log.wait_for("pool p has no server up that wants connections: its clients are reset");
    let api = checks.evenkeel().api();
    let ready = api.ask("GET", "/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("pool p has no server"), "{ready:?}");
    let metrics = api.whole("GET", "/metrics", &[]);
    let series = "evenkeel_server_up{pool=\"p\",server=\"s\"} 0";
    assert!(metrics.contains(series), "{metrics}");
    checks.expect("p", "up", "agent: drain");
    agent.say("down #disk full\n");
    checks.expect("p", "down", "agent: down: disk full");
    agent.say("ready\n");
    checks.expect("p", "up", "agent: up");
    eventually("all of the weight is wanted", || share().is_none());
    agent.say("hello\n");
    checks.expect("p", "down", "agent: no known word: hello");
}
