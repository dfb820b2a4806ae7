//! `evenkeel leave` and `evenkeel join`: whether this node gets traffic at all, as an operator wants it.
//!
//! Both may be asked for twice; what is so already is no failure.

use std::time::Duration;

use serde::Deserialize;

use super::figures::plain;
use super::output::print;
use super::remote::{Remote, understood};
use super::view::Status;
use super::watch::{Look, Watch};
use crate::clock::Now;
use crate::units::counted;

pub(super) const EXAMPLES: &str = "\
Connections are accepted as before, as it takes a moment until nobody is sent here any more, and
those that are there go on. A reload and an upgrade change nothing about it; a new start does.

Examples:
  evenkeel leave --wait --deadline 10m && systemctl stop evenkeel
      stop without cutting anybody; exit code 1 if some are left after ten minutes
  evenkeel join
      back again";

/// What the process answers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Readiness {
    ready: bool,
    not_ready: Vec<String>,
}

/// Has others take the traffic. `wait` is there where the last connection is to be waited for, with the
/// most time for it.
///
/// # Errors
/// Where nobody answers, and after a wait that ends with connections left.
pub(super) fn leave(remote: &Remote, wait: Option<Option<Duration>>) -> anyhow::Result<()> {
    let began = Now::read();
    remote.change("POST", "/api/v1/leave", None)?;
    let status = remote.status()?;
    let connections = counted(status.connections.active, "connection");
    print(&format!(
        "left: not ready from now on, {connections} and new ones go on\n"
    ))?;
    let Some(max) = wait else {
        return Ok(());
    };
    let in_vain = "this node stays out: wait again, or stop it";
    let deadline = max.map(|max| (began + max, max));
    Watch::new("this node", deadline, in_vain).until_none_is_left(|| Ok(seen(&remote.status()?)))
}

fn seen(status: &Status) -> Look {
    match status.connections.active {
        _ if !status.left => Look::Undone("has joined again: somebody else changed it".to_owned()),
        0 => Look::None,
        active => Look::Left(active, format!("{active} left")),
    }
}

/// Lets this node get traffic again.
///
/// # Errors
/// Where nobody answers.
pub(super) fn join(remote: &Remote) -> anyhow::Result<()> {
    let answer = remote.change("POST", "/api/v1/join", None)?;
    print(&joined(&understood(answer)?))
}

fn joined(now: &Readiness) -> String {
    match now.ready {
        true => "joined: ready\n".to_owned(),
        false => format!(
            "joined, but not ready: {}\n",
            plain(&now.not_ready.join("; "))
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_look_tells_how_many_are_left_until_somebody_joins() {
        let status = |left: bool, active: u64| -> Status {
            let answer = json!({"left": left, "connections": {"active": active}});
            serde_json::from_value(answer).unwrap()
        };
        assert_eq!(seen(&status(true, 0)), Look::None);
        assert_eq!(seen(&status(true, 3)), Look::Left(3, "3 left".to_owned()));
        assert!(matches!(seen(&status(false, 0)), Look::Undone(_)));
    }

    #[test]
    fn whoever_joins_hears_what_else_speaks_against_it() {
        let answer = json!({"ready": false, "left": false, "not_ready": ["pool a", "pool b"]});
        let now: Readiness = understood(answer).unwrap();
        assert_eq!(joined(&now), "joined, but not ready: pool a; pool b\n");
        let now = understood(json!({"ready": true})).unwrap();
        assert_eq!(joined(&now), "joined: ready\n");
    }
}
