//! The admin API as an ordinary HTTP client sees it: curl, over the unix socket or over TCP.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::eventually_some;

/// Where the API is spoken to.
#[derive(Clone, Debug)]
pub(crate) enum Api {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// An answer: its status and its body.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body as JSON, where the status is `status`.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        match self.body.is_empty() {
            true => Value::Null,
            false => self.json(),
        }
    }
}

impl Api {
    /// One request; `headers` as `Name: value`.
    #[track_caller]
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: Option<&str>,
    ) -> Answer {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "30"]);
        command.args(["--request", method, "--write-out", "\n%{http_code}"]);
        for header in headers {
            command.args(["--header", header]);
        }
        if let Some(body) = body {
            command.args(["--data-binary", body]);
            command.args(["--header", "Content-Type: application/json"]);
        }
        let url = match self {
            Self::Unix(socket) => {
                command.arg("--unix-socket").arg(socket);
                format!("http://localhost{path}")
            }
            Self::Tcp(address) => format!("http://{address}{path}"),
        };
        let output = command
            .arg(url)
            .stdin(Stdio::null())
            .output()
            .expect("curl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
        let problem = String::from_utf8_lossy(&output.stderr);
        assert_ne!(status, "000", "{method} {path}: {problem}");
        Answer {
            status: status.parse().expect("a status"),
            body: body.to_owned(),
        }
    }

    /// GET, answered with 200 and JSON.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Value {
        self.request("GET", path, &[], None).expect(200)
    }

    /// A request with a JSON body.
    #[track_caller]
    pub(crate) fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        self.request(method, path, &[], Some(body))
    }

    /// A request without a body.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str) -> Answer {
        self.request(method, path, &[], None)
    }

    /// The status document.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.get("/api/v1/status")
    }

    /// Polls the status until `found` gives something.
    #[track_caller]
    pub(crate) fn status_where<T>(&self, what: &str, found: impl Fn(&Value) -> Option<T>) -> T {
        eventually_some(what, || found(&self.status()))
    }

    /// The socket's path, for client commands.
    #[track_caller]
    pub(crate) fn socket(&self) -> &Path {
        match self {
            Self::Unix(socket) => socket,
            Self::Tcp(address) => panic!("{address} is no socket path"),
        }
    }
}
