//! The admin API as an ordinary HTTP client sees it: curl, over the unix socket or over TCP. Where a
//! client is not ordinary (it stops half way, or reads on for ever), a [`Visit`] speaks byte by byte.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{DEADLINE, eventually_some};

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

    /// A connection on which nothing has been said yet; `None` where it is refused.
    pub(crate) fn try_visit(&self) -> Option<Visit> {
        let stream: Box<dyn Wire> = match self {
            Self::Unix(socket) => {
                let stream = UnixStream::connect(socket).ok()?;
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                stream.set_write_timeout(Some(DEADLINE)).unwrap();
                Box::new(stream)
            }
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).ok()?;
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                stream.set_write_timeout(Some(DEADLINE)).unwrap();
                Box::new(stream)
            }
        };
        let text = String::new();
        Some(Visit { stream, text })
    }

    /// As [`Self::try_visit`] where it must not be refused.
    #[track_caller]
    pub(crate) fn visit(&self) -> Visit {
        self.try_visit().expect("the API takes a connection")
    }

    /// The whole answer to a request without a body, head included.
    #[track_caller]
    pub(crate) fn whole(&self, method: &str, path: &str, headers: &[&str]) -> String {
        let mut visit = self.visit();
        visit.ask(method, path, &[headers, &["Connection: close"]].concat());
        visit.rest()
    }

    /// What a Host header may say here.
    pub(crate) fn host(&self) -> String {
        match self {
            Self::Unix(_) => "localhost".into(),
            Self::Tcp(address) => address.to_string(),
        }
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

/// A read with a timeout ends where the process is stopped and goes on, or gets a signal.
fn is_interrupted(read: &io::Result<usize>) -> bool {
    read.as_ref()
        .is_err_and(|error| error.kind() == ErrorKind::Interrupted)
}

/// A stream of either kind.
trait Wire: Read + Write + Send {}

impl<S: Read + Write + Send> Wire for S {}

/// One connection to the API, byte by byte; every read and write has the deadline.
pub(crate) struct Visit {
    stream: Box<dyn Wire>,
    /// Read, and not taken yet.
    text: String,
}

impl fmt::Debug for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Visit({:?})", self.text)
    }
}

impl Visit {
    /// Sends bytes; whether they were taken.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends a whole request without a body. The headers have a Host already.
    #[track_caller]
    pub(crate) fn ask(&mut self, method: &str, path: &str, headers: &[&str]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|header| header.starts_with("Host:")) {
            head += "Host: localhost\r\n";
        }
        for header in headers {
            head += &format!("{header}\r\n");
        }
        assert!(self.send(format!("{head}\r\n").as_bytes()), "{head}");
    }

    /// Everything up to and including `end`.
    #[track_caller]
    pub(crate) fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(place) = self.text.find(end) {
                let rest = self.text.split_off(place + end.len());
                return std::mem::replace(&mut self.text, rest);
            }
            let mut buffer = [0; 16 * 1024];
            let read = self.stream.read(&mut buffer);
            if is_interrupted(&read) {
                continue;
            }
            let read = read.unwrap_or_else(|error| panic!("{error} after {:?}", self.text));
            assert!(read > 0, "no {end:?} in {:?}", self.text);
            self.text += &String::from_utf8_lossy(&buffer[..read]);
        }
    }

    /// Everything to the end, in order or not.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> String {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => self.text += &String::from_utf8_lossy(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("still open after {:?}", self.text)
                }
                Err(_) => break,
            }
        }
        std::mem::take(&mut self.text)
    }
}
