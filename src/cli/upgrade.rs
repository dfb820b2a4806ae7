//! `evenkeel upgrade`: has the running process start a new one and hand everything over to it.
//!
//! How that is done is the process's business; here is the wish, and what came of it.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::figures::plain;
use super::output::print;
use super::path::whole;
use super::remote::{Remote, understood};
use crate::units::counted;

/// Who serves now.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Successor {
    pid: u32,
    version: String,
    /// That went over.
    connections: u64,
}

/// Comes back when the new process answers, so that what is asked next is asked of it.
///
/// # Errors
/// Where nobody answers, or all is as before, with the reason.
pub(super) fn upgrade(remote: &Remote, binary: Option<&Path>) -> anyhow::Result<()> {
    let answer = remote.change_slowly("/api/v1/upgrade", &wish(binary)?)?;
    let successor = understood(answer)?;
    // Its configuration may have another socket, or none: what was asked for is done all the same.
    let silence = remote.status().err().map(|error| error.to_string());
    print(&upgraded(&successor, silence.as_deref()))
}

fn wish(binary: Option<&Path>) -> anyhow::Result<Value> {
    let binary = binary.map(whole).transpose()?;
    Ok(binary.map_or_else(|| json!({}), |binary| json!({ "binary": binary })))
}

fn upgraded(successor: &Successor, silence: Option<&str>) -> String {
    let mut text = format!(
        "upgraded: process {} (evenkeel {}) serves, {} went over\n",
        successor.pid,
        plain(&successor.version),
        counted(successor.connections, "connection"),
    );
    if let Some(silence) = silence {
        text.push_str(&format!("its admin socket is another one now: {silence}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_named_from_the_root_or_not_at_all() {
        assert_eq!(wish(None).unwrap(), json!({}));
        let named = wish(Some(Path::new("new/evenkeel"))).unwrap();
        let path = Path::new(named["binary"].as_str().unwrap());
        assert!(path.is_absolute() && path.ends_with("new/evenkeel"));
        assert!(wish(Some(Path::new(""))).is_err());
    }

    #[test]
    fn one_line_says_who_serves_now() {
        let answer = json!({"pid": 1234, "version": "0.2.0\u{1b}", "connections": 5000});
        let successor: Successor = understood(answer).unwrap();
        let text = upgraded(&successor, None);
        assert!(text.starts_with("upgraded: process 1234 (evenkeel 0.2.0"));
        assert!(text.ends_with("serves, 5000 connections went over\n"));
        assert!(!text.contains('\u{1b}') && text.lines().count() == 1);
        let one: Successor = understood(json!({"connections": 1})).unwrap();
        let text = upgraded(&one, Some("no evenkeel answers at /x"));
        assert!(text.contains(" 1 connection went over\n"), "{text}");
        assert!(text.ends_with("another one now: no evenkeel answers at /x\n"));
    }
}
