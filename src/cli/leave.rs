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

/// Nobody has come for so long: then nobody is sent here any more. Engines take less than that in the
/// lab, name servers up to 5 s; without it, a wait would end at once between two short connections.
const SETTLED: Duration = Duration::from_secs(5);

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
    let mut comers = Comers::default();
    Watch::new("this node", deadline, in_vain).until_none_is_left(|| {
        let (status, now) = (remote.status()?, Now::read());
        let is_late = deadline.is_some_and(|(deadline, _)| now >= deadline);
        Ok(seen(&status, comers.have_ceased(&status, now) || is_late))
    })
}

/// Whether anybody comes still.
#[derive(Debug, Default)]
struct Comers {
    /// How many had come, and when that number was new; `None` before the first look.
    known: Option<(u64, Now)>,
}

impl Comers {
    fn have_ceased(&mut self, status: &Status, now: Now) -> bool {
        let total = status.connections.total;
        let same = self.known.filter(|(known, _)| *known == total);
        let (_, since) = *self.known.insert(same.unwrap_or((total, now)));
        now.since(since) >= SETTLED
    }
}

fn seen(status: &Status, have_ceased: bool) -> Look {
    match status.connections.active {
        _ if !status.left => Look::Undone("has joined again: somebody else changed it".to_owned()),
        0 if have_ceased => Look::None,
        0 => Look::Left(0, "none left, waiting whether any still come".to_owned()),
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

    fn status(left: bool, active: u64, total: u64) -> Status {
        let answer = json!({"left": left, "connections": {"active": active, "total": total}});
        serde_json::from_value(answer).unwrap()
    }

    #[test]
    fn a_look_tells_how_many_are_left_until_somebody_joins() {
        let none = status(true, 0, 9);
        assert_eq!(seen(&none, true), Look::None);
        assert!(matches!(seen(&none, false), Look::Left(0, _)));
        let some = Look::Left(3, "3 left".to_owned());
        assert_eq!(seen(&status(true, 3, 9), true), some);
        let joined = status(false, 0, 9);
        assert!(matches!(seen(&joined, true), Look::Undone(_)));
    }

    #[test]
    fn nobody_comes_any_more_once_nobody_has_come_for_a_while() {
        let (mut comers, begun) = (Comers::default(), Now::read());
        let mut look = |total: u64, after: Duration| {
            comers.have_ceased(&status(true, 0, total), begun + after)
        };
        let nearly = SETTLED - Duration::from_millis(1);
        assert!(!look(7, Duration::ZERO));
        assert!(!look(7, nearly));
        // One has come and gone between two looks.
        assert!(!look(8, SETTLED));
        assert!(!look(8, SETTLED + nearly));
        assert!(look(8, SETTLED * 2));
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
