//! The other end of the API: a blocking HTTP client for the program's own commands, over the unix
//! socket.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Why a call brought no answer, each as one line: what, why, what to do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is there, or we may not talk to it.
    #[error("{0}")]
    Unreachable(String),
    /// The process refused; the text is its own.
    #[error("{text}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the process said.
        text: String,
    },
    /// What came back is not what this version understands.
    #[error("{0}")]
    Garbled(String),
}

/// A way to one process.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// By the path of its admin socket; nothing is opened yet.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// One request, such as `("GET", "/api/v1/status", None)`; answers the body, `Null` where there
    /// is none.
    ///
    /// # Errors
    /// Where nobody answers, or the status is 400 or above.
    pub fn call(
        &self,
        _method: &str,
        _path: &str,
        _body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        Err(ClientError::Unreachable(self.socket.display().to_string()))
    }
}
