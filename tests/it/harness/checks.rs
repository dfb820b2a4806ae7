//! One evenkeel that checks many servers, each in a pool of its own, and what it finds of them.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::eventually_some;
use super::program::Evenkeel;

/// The program, with one pool a check.
#[derive(Debug)]
pub(crate) struct Checks {
    evenkeel: Evenkeel,
}

/// A pool's name, the keys of its `health` and the server that is checked.
pub(crate) type Pool<'a> = (&'a str, &'a str, SocketAddr);

impl Checks {
    /// Checks each every tenth of a second.
    pub(crate) fn start(pools: &[Pool<'_>]) -> Self {
        let evenkeel = Evenkeel::start(&config(pools));
        Self { evenkeel }
    }

    pub(crate) fn evenkeel(&self) -> &Evenkeel {
        &self.evenkeel
    }

    /// Waits until a pool's server is in a state, with words in the reason for it.
    #[track_caller]
    pub(crate) fn expect(&self, pool: &str, state: &str, words: &str) {
        let mut last = Value::Null;
        let found = self.poll(|| {
            last = self.evenkeel.api().status()["pools"][pool]["servers"]["s"].clone();
            let reason = last["health"]["reason"].as_str().unwrap_or_default();
            (last["state"] == state && reason.contains(words)).then_some(())
        });
        assert!(found.is_some(), "{pool} is not {state} ({words}): {last}");
    }

    /// Waits until so many more checks of a pool's server have ended.
    #[track_caller]
    pub(crate) fn wait_for_checks(&self, pool: &str, count: f64) {
        let start = self.checked(pool);
        eventually_some("checks", || {
            (self.checked(pool) >= start + count).then_some(())
        });
    }

    fn checked(&self, pool: &str) -> f64 {
        let metrics = self.evenkeel.api().whole("GET", "/metrics", &[]);
        let label = format!("evenkeel_health_checks_total{{pool=\"{pool}\"");
        let lines = metrics.lines().filter(|line| line.starts_with(&label));
        let counts = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        counts.sum()
    }

    fn poll<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
        let deadline = evenkeel::clock::Now::read() + super::DEADLINE;
        loop {
            let found = attempt();
            if found.is_some() || evenkeel::clock::Now::read() > deadline {
                return found;
            }
            super::pause(Duration::from_millis(20));
        }
    }
}

/// The configuration of such a program.
pub(crate) fn config(pools: &[Pool<'_>]) -> String {
    let first = pools[0].0;
    let mut text = format!(
        "workers: 1\nlisteners:\n  web:\n    bind: 127.0.0.1:0\n    pool: {first}\npools:\n"
    );
    for (name, health, server) in pools {
        text.push_str(&format!(
            "  {name}:\n    health: {{interval: 100ms, timeout: 1s, rise: 1, fall: 1, {health}}}\n    \
             servers: [{{name: s, address: \"{server}\"}}]\n"
        ));
    }
    text
}
