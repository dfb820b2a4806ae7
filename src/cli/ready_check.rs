//! `evenkeel ready-check`: an exit code for whoever moves addresses between nodes, many times a minute.
//!
//! It must come in time whatever has become of the process, so that all of it is bound by one timeout;
//! and it says nothing where all is well, as nobody may be reading.

use std::time::Duration;

use anyhow::anyhow;

use super::figures::plain;
use super::remote::Remote;
use crate::admin::client::ClientError;

pub(super) const EXAMPLES: &str = "\
Exit code 0 when /readyz says 200, else 1 with the reason on stderr: also when the process hangs, is
stopped, or is not there.

Examples:
  evenkeel ready-check || echo no traffic for this node";

/// # Errors
/// Where this node should get no traffic, with the reasons in one line, or does not say so in time.
pub(super) fn ready_check(remote: &Remote, timeout: Duration) -> anyhow::Result<()> {
    let answer = remote.fetch_within(timeout, "/readyz");
    answer.map(drop).map_err(|error| match &error {
        ClientError::Refused { status: 503, text } => anyhow!("not ready: {}", reasons(text)),
        _ => anyhow!("not ready: {}", plain(&error.to_string())),
    })
}

/// A line each, made one line.
fn reasons(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(plain).collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_reasons_are_one_line() {
        assert_eq!(
            reasons("left: x\npool a has no server\n"),
            "left: x; pool a has no server"
        );
        assert!(!reasons("\u{1b}[2J\n").contains('\u{1b}'));
    }
}
