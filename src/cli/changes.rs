//! `evenkeel plan` and `evenkeel reload`: what changes, what each change touches, and what needs a
//! restart.

use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::arguments::PaceArguments;
use super::figures::{plain, seconds};
use super::output::print;
use super::path::whole;
use super::remote::{Remote, understood};
use super::steer::with_pace;
use crate::clock;
use crate::units::{counted, show_duration};

/// What both answer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Changes {
    changes: Vec<Change>,
    /// What this process cannot change while it runs.
    restart: Vec<String>,
    /// What of the file has no effect or cannot work as it stands.
    warnings: Vec<String>,
    /// Until all is taken back, where that was asked for.
    confirm_seconds: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Change {
    text: String,
    /// That it touches.
    connections: u64,
}

/// Changes nothing.
///
/// # Errors
/// Where nobody answers, or with all that is wrong in the file.
pub(super) fn plan(remote: &Remote, file: Option<&Path>) -> anyhow::Result<()> {
    let answer = remote.change_slowly("/api/v1/plan", &with_file(json!({}), file)?)?;
    let changes = understood(answer)?;
    print(&(planned(&changes) + &warnings(&changes)))
}

/// Applies a file at once or not at all.
///
/// # Errors
/// Where nobody answers, or with all that is wrong in the file.
pub(super) fn reload(
    remote: &Remote,
    file: Option<&Path>,
    confirm: Option<Duration>,
    pace: &PaceArguments,
) -> anyhow::Result<()> {
    let mut body = with_pace(with_file(json!({}), file)?, pace);
    if let Some(confirm) = confirm {
        body["confirm"] = json!(show_duration(confirm));
    }
    let answer = remote.change_slowly("/api/v1/reload", &body)?;
    let changes = understood(answer)?;
    print(&(reloaded(&changes, clock::wall()) + &warnings(&changes)))
}

fn with_file(mut body: Value, file: Option<&Path>) -> anyhow::Result<Value> {
    let Some(file) = file else {
        return Ok(body);
    };
    body["file"] = json!(whole(file)?);
    Ok(body)
}

fn planned(changes: &Changes) -> String {
    match changes.changes.len() {
        0 if changes.restart.is_empty() => "nothing changes\n".to_owned(),
        0 => format!("a reload would change nothing\n{}", restart(changes)),
        _ => format!("a reload would make {}", listed(changes)),
    }
}

fn reloaded(changes: &Changes, now: SystemTime) -> String {
    let mut text = match changes.changes.len() {
        0 if changes.restart.is_empty() => "reloaded: nothing changes\n".to_owned(),
        0 => format!("reloaded: nothing changes\n{}", restart(changes)),
        _ => format!("reloaded with {}", listed(changes)),
    };
    if let Some(left) = changes.confirm_seconds {
        text.push_str(&format!(
            "taken back in {}{}, to keep it: evenkeel confirm\n",
            seconds(left),
            until(now, left)
        ));
    }
    text
}

/// The wall clock's time when `left` seconds have passed, as an addition to a sentence.
fn until(now: SystemTime, left: f64) -> String {
    let now = Timestamp::try_from(now).ok();
    let left = SignedDuration::try_from_secs_f64(left).ok();
    let until = now
        .zip(left)
        .and_then(|(now, left)| now.checked_add(left).ok());
    until.map_or_else(String::new, |until| {
        format!(" ({})", until.strftime("%H:%M:%S UTC"))
    })
}

fn listed(changes: &Changes) -> String {
    let mut text = counted(changes.changes.len() as u64, "change");
    text.push_str(":\n");
    for change in &changes.changes {
        let touched = counted(change.connections, "connection");
        text.push_str(&format!("  {} ({touched})\n", plain(&change.text)));
    }
    text + &restart(changes)
}

fn restart(changes: &Changes) -> String {
    let lines = changes.restart.iter();
    lines
        .map(|key| format!("needs an upgrade or a restart: {}\n", plain(key)))
        .collect()
}

fn warnings(changes: &Changes) -> String {
    let lines = changes.warnings.iter();
    lines
        .map(|line| format!("warning: {}\n", plain(line)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes() -> Changes {
        understood(json!({
            "changes": [{"text": "server web/a: weight 1 -> 3", "connections": 2},
                {"text": "listener old: removed", "connections": 1}],
            "restart": ["workers: 2 -> 4"],
            "confirm_seconds": 60.0,
        }))
        .unwrap()
    }

    #[test]
    fn a_plan_lists_what_each_change_touches() {
        assert_eq!(
            planned(&changes()),
            "a reload would make 2 changes:\n  server web/a: weight 1 -> 3 (2 connections)\n  \
             listener old: removed (1 connection)\nneeds an upgrade or a restart: workers: 2 -> 4\n"
        );
        assert_eq!(planned(&Changes::default()), "nothing changes\n");
    }

    #[test]
    fn what_cannot_work_is_told_line_by_line() {
        let changes = understood(json!({"warnings": ["pool p: x", "s.txt:1:1: y\u{1b}"]}));
        let told = warnings(&changes.unwrap());
        assert!(told.starts_with("warning: pool p: x\nwarning: s.txt:1:1: y"));
        assert!(!told.contains('\u{1b}'), "{told}");
        assert_eq!(warnings(&Changes::default()), "");
    }

    #[test]
    fn a_reload_says_until_when_it_can_be_kept() {
        let text = reloaded(&changes(), SystemTime::UNIX_EPOCH);
        assert!(text.starts_with("reloaded with 2 changes:\n"), "{text}");
        let line = "taken back in 1m0s (00:01:00 UTC), to keep it: evenkeel confirm";
        assert_eq!(text.lines().last(), Some(line));
        let text = reloaded(&Changes::default(), SystemTime::UNIX_EPOCH);
        assert_eq!(text, "reloaded: nothing changes\n");
    }

    #[test]
    fn what_only_a_restart_changes_is_not_nothing() {
        let mut changes = changes();
        changes.changes.clear();
        let text = planned(&changes);
        assert_eq!(
            text,
            "a reload would change nothing\nneeds an upgrade or a restart: workers: 2 -> 4\n"
        );
    }

    #[test]
    fn a_file_is_named_from_the_root() {
        let body = with_file(json!({}), Some(Path::new("x.yaml"))).unwrap();
        let file = Path::new(body["file"].as_str().unwrap()).to_owned();
        assert!(file.is_absolute() && file.ends_with("x.yaml"));
        assert_eq!(with_file(json!({}), None).unwrap(), json!({}));
        assert!(with_file(json!({}), Some(Path::new(""))).is_err());
    }
}
