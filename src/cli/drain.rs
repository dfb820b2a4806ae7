//! `evenkeel drain`: begins it, and with `--wait` watches it until no connection is left.
//!
//! The pace is kept by the running process; a wait without a rate ends nothing but itself.

use std::time::Duration;

use serde_json::json;

use super::arguments::PaceArguments;
use super::figures::{plain, progress};
use super::output::print;
use super::path::{ServerName, of_server};
use super::remote::{Remote, understood};
use super::steer::{is_missing, left, patch, with_pace};
use super::view::{Drain, Server};
use super::watch::{Look, Watch};
use crate::clock::Now;
use crate::units::show_duration;

/// What the process may take to close the rest once its deadline has come.
const GRACE: Duration = Duration::from_secs(5);

/// Of a drain with a rate, where nothing else is said; the API's default as well.
const DEADLINE: Duration = Duration::from_secs(600);

/// # Errors
/// Where nobody answers, where the server is not there, and after a wait that ends with connections
/// left.
pub(super) fn drain(
    remote: &Remote,
    name: &ServerName,
    pace: &PaceArguments,
    is_waiting: bool,
) -> anyhow::Result<()> {
    let began = Now::read();
    let body = with_pace(json!({"state": "draining"}), &sent(pace));
    let server = patch(remote, name, &body)?;
    print(&format!("{name}: {}\n", begun(&server, pace)))?;
    if !is_waiting {
        return Ok(());
    }
    let in_vain = "it takes no new one: wait again, or close them with --rate";
    let deadline = wait_max(pace).map(|max| (began + max, max));
    Watch::new(&name.to_string(), deadline, in_vain).until_none_is_left(|| look(remote, name))
}

/// Without a rate the deadline is ours: sent, it would cut those that are left.
fn sent(pace: &PaceArguments) -> PaceArguments {
    PaceArguments {
        rate: pace.rate,
        quiet: pace.quiet,
        deadline: pace.rate.map(|_| pace.deadline.unwrap_or(DEADLINE)),
    }
}

/// How long to wait; `None` where nothing bounds it.
fn wait_max(pace: &PaceArguments) -> Option<Duration> {
    match pace.rate {
        Some(_) => Some(pace.deadline.unwrap_or(DEADLINE) + GRACE),
        None => pace.deadline,
    }
}

fn begun(server: &Server, pace: &PaceArguments) -> String {
    let mut text = format!("{}{}", plain(&server.state), left(server));
    if server.connections.active == 0 {
        return text;
    }
    match pace.rate {
        Some(rate) => {
            let deadline = show_duration(pace.deadline.unwrap_or(DEADLINE));
            text.push_str(&format!(", closed at {rate}, the rest in {deadline}"));
        }
        None => text.push_str(", nobody is cut"),
    }
    text
}

fn look(remote: &Remote, name: &ServerName) -> anyhow::Result<Look> {
    match remote.fetch(&of_server(name)) {
        Ok(answer) => Ok(seen(&understood(answer)?)),
        // Removed meanwhile; its connections may still drain.
        Err(error) if is_missing(&error) => {
            let leaving = remote.status()?.leaving;
            let it = leaving
                .iter()
                .find(|it| it.pool == name.pool && it.server == name.server);
            Ok(it.map_or(Look::None, |it| {
                progress_of(it.connections.active, it.drain.as_ref())
            }))
        }
        Err(error) => Err(error),
    }
}

fn seen(server: &Server) -> Look {
    match server.state.as_str() {
        "draining" | "maintenance" => progress_of(server.connections.active, server.drain.as_ref()),
        state => Look::Undone(format!(
            "is {} again, so it does not drain: somebody else changed it",
            plain(state)
        )),
    }
}

fn progress_of(active: u64, drain: Option<&Drain>) -> Look {
    if active == 0 {
        return Look::None;
    }
    let text = drain.map_or_else(|| format!("{active} left"), progress);
    Look::Left(active, text)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn pace(rate: Option<&str>, deadline: Option<u64>) -> PaceArguments {
        PaceArguments {
            rate: rate.map(|rate| rate.parse().unwrap()),
            quiet: None,
            deadline: deadline.map(Duration::from_secs),
        }
    }

    fn server(state: &str, active: u64, drain: Value) -> Server {
        let answer = json!({"state": state, "connections": {"active": active}, "drain": drain});
        serde_json::from_value(answer).unwrap()
    }

    #[test]
    fn without_a_rate_the_deadline_stays_here() {
        let waiting = pace(None, Some(60));
        assert_eq!(sent(&waiting).deadline, None);
        assert_eq!(wait_max(&waiting), Some(Duration::from_secs(60)));
        assert_eq!(wait_max(&pace(None, None)), None);
    }

    #[test]
    fn with_a_rate_the_process_keeps_the_deadline() {
        assert_eq!(sent(&pace(Some("20/s"), None)).deadline, Some(DEADLINE));
        let short = pace(Some("20/s"), Some(5));
        assert_eq!(sent(&short).deadline, Some(Duration::from_secs(5)));
        assert_eq!(wait_max(&short), Some(Duration::from_secs(5) + GRACE));
    }

    #[test]
    fn the_first_line_says_what_happens_to_those_left() {
        let some = server("draining", 120, Value::Null);
        assert_eq!(
            begun(&some, &pace(None, None)),
            "draining, 120 connections left, nobody is cut"
        );
        assert_eq!(
            begun(&some, &pace(Some("20/s"), None)),
            "draining, 120 connections left, closed at 20/s, the rest in 10m"
        );
        let none = server("draining", 0, Value::Null);
        assert_eq!(begun(&none, &pace(Some("20/s"), None)), "draining");
    }

    #[test]
    fn a_look_tells_the_three_ways_it_goes() {
        assert_eq!(seen(&server("draining", 0, Value::Null)), Look::None);
        let drain = json!({"began_with": 9, "left": 3, "closed": 4, "estimate_seconds": 2.0});
        let text = "3 of 9 left, 4 closed, done in about 2s".to_owned();
        assert_eq!(seen(&server("draining", 3, drain)), Look::Left(3, text));
        let text = "3 left".to_owned();
        assert_eq!(
            seen(&server("maintenance", 3, Value::Null)),
            Look::Left(3, text)
        );
        assert_eq!(
            seen(&server("up", 3, Value::Null)),
            Look::Undone("is up again, so it does not drain: somebody else changed it".to_owned())
        );
    }
}
