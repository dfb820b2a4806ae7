//! The running evenkeel that a command asks: where its socket is, and what it answers, as types.
//!
//! Knows no command and prints nothing.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::figures::plain;
use super::table::cut;
use super::view::Status;
use crate::admin::DEFAULT_SOCKET;
use crate::admin::client::{Client, ClientError};

const SOCKET_VARIABLE: &str = "EVENKEEL_SOCKET";

/// What is only read is there at once, or nobody is; a sample of connections takes its time.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Characters of somebody else's message that fit into a line of ours.
const ERROR_MAX: usize = 100;

/// A way to one process.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    client: Client,
    socket: PathBuf,
}

impl Remote {
    /// At the socket that the command line or the environment names; nothing is opened yet.
    pub(super) fn new(socket: Option<PathBuf>) -> Self {
        Self::near(socket, None)
    }

    /// The same, but `own` rather than the usual place where neither names one.
    pub(super) fn near(socket: Option<PathBuf>, own: Option<PathBuf>) -> Self {
        let usual = own.unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET));
        let socket = socket_path(
            socket,
            env::var_os(SOCKET_VARIABLE).map(PathBuf::from),
            usual,
        );
        Self {
            client: Client::new(&socket),
            socket,
        }
    }

    /// Where it is asked.
    pub(super) fn socket(&self) -> String {
        self.socket.display().to_string()
    }

    /// Asks for something that is there at once.
    ///
    /// # Errors
    /// Where nobody answers, or the answer is a refusal.
    pub(super) fn fetch(&self, path: &str) -> anyhow::Result<Value> {
        Ok(self.client.call_within(READ_TIMEOUT, ("GET", path), None)?)
    }

    /// Asks for something that is of no use later than `most` from now.
    ///
    /// # Errors
    /// Where nobody answers in time, or the answer is a refusal.
    pub(super) fn fetch_within(&self, most: Duration, path: &str) -> Result<Value, ClientError> {
        self.client.call_within(most, ("GET", path), None)
    }

    /// Asks for a change.
    ///
    /// # Errors
    /// Where nobody answers, or the answer is a refusal.
    pub(super) fn change(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        Ok(self.client.call(method, path, body)?)
    }

    /// Asks for something that may take minutes, such as a reload of a large file.
    ///
    /// # Errors
    /// Where nobody answers, or the answer is a refusal.
    pub(super) fn change_slowly(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        Ok(self.client.call_slow("POST", path, Some(body))?)
    }

    /// How everything is.
    ///
    /// # Errors
    /// Where nobody answers, or something that is no status.
    pub(super) fn status(&self) -> anyhow::Result<Status> {
        understood(self.fetch("/api/v1/status")?)
    }
}

/// An empty variable counts as none: it is how one is unset in a unit file.
fn socket_path(argument: Option<PathBuf>, variable: Option<PathBuf>, usual: PathBuf) -> PathBuf {
    let variable = variable.filter(|path| !path.as_os_str().is_empty());
    argument.or(variable).unwrap_or(usual)
}

/// An answer as what it should be.
///
/// # Errors
/// Where it is something else, as from another version.
pub(super) fn understood<T: DeserializeOwned>(answer: Value) -> anyhow::Result<T> {
    serde_json::from_value(answer).map_err(|error| {
        // It may quote the whole answer.
        let error = cut(&plain(&error.to_string()), ERROR_MAX);
        anyhow!(
            "evenkeel answered what this command does not understand ({error}): use the command \
             of the same version"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_what_was_said_last() {
        let path = |text: &str| Some(PathBuf::from(text));
        let said = |argument, variable| socket_path(argument, variable, PathBuf::from("/c"));
        assert_eq!(said(path("/a"), path("/b")), PathBuf::from("/a"));
        assert_eq!(said(None, path("/b")), PathBuf::from("/b"));
        assert_eq!(said(None, path("")), PathBuf::from("/c"));
        assert_eq!(said(None, None), PathBuf::from("/c"));
    }

    #[test]
    fn an_answer_of_another_kind_is_refused() {
        let answer = Value::String("\u{1b}[2J".repeat(1000));
        let text = understood::<Status>(answer).unwrap_err().to_string();
        assert!(
            text.ends_with("use the command of the same version"),
            "{text}"
        );
        assert!(text.len() < 300 && !text.contains('\u{1b}'), "{text}");
    }
}
