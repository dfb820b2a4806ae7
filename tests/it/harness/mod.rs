//! What the black-box tests and the soak share: the real program started on kernel-chosen ports,
//! scripted peers, block streams that prove themselves, and the tools of the system.
//!
//! Nothing here asserts a duration. Whatever is waited for has the one [`DEADLINE`], which is long
//! enough for two busy cores, and says what was missing when it passes.
//!
//! Everything started here is ended here, by its own process id, when the value that owns it is
//! dropped.

pub(crate) mod api;
pub(crate) mod blocks;
pub(crate) mod browser;
pub(crate) mod checks;
pub(crate) mod daemons;
pub(crate) mod databases;
pub(crate) mod dial;
pub(crate) mod dns;
pub(crate) mod lines;
pub(crate) mod load;
pub(crate) mod peers;
pub(crate) mod proc;
pub(crate) mod program;
pub(crate) mod prometheus;
pub(crate) mod pulse;
pub(crate) mod servers;
pub(crate) mod strace;
pub(crate) mod systemd;
pub(crate) mod tools;

use std::thread;
use std::time::Duration;

use evenkeel::clock::Now;

/// How long anything may take before a test gives up on it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Lets other threads run for `time` or a little less; only for the steps of a poll.
pub(crate) fn pause(time: Duration) {
    thread::park_timeout(time);
}

/// Polls `condition` until it holds; panics with `what` when [`DEADLINE`] passes.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    eventually_some(what, || condition().then_some(()));
}

/// Polls `attempt` until it gives something; panics with `what` when [`DEADLINE`] passes.
#[track_caller]
pub(crate) fn eventually_some<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Now::read() + DEADLINE;
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Now::read() < deadline, "not within {DEADLINE:?}: {what}");
        pause(Duration::from_millis(5));
    }
}

/// A configuration with one worker, one listener `web` and one pool `web` without health checks.
pub(crate) fn plain(servers: &[std::net::SocketAddr]) -> String {
    with_pool("workers: 1", "", servers)
}

/// As [`plain`], with top-level lines and lines of the pool (indented by four) of one's own.
pub(crate) fn with_pool(top: &str, pool: &str, servers: &[std::net::SocketAddr]) -> String {
    with_health(top, &format!("    health: off\n{pool}"), servers)
}

/// As [`with_pool`], with health checks unless the pool's lines say otherwise.
pub(crate) fn with_health(top: &str, pool: &str, servers: &[std::net::SocketAddr]) -> String {
    let list: String = servers
        .iter()
        .map(|server| format!("      - {server}\n"))
        .collect();
    format!(
        "{top}\nlisteners:\n  web:\n    bind: 127.0.0.1:0\n    pool: web\n\
         pools:\n  web:\n{pool}\n    servers:\n{list}"
    )
}
