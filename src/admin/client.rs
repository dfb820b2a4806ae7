//! The other end of the API: a blocking HTTP client for the program's own commands, over the unix
//! socket.
//!
//! Each call is a connection and a small runtime of its own: commands make few calls, and nothing of
//! tokio shows outside.

use std::error::Error as _;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

/// A little longer than the process itself takes to say that something was not done in time.
const ANSWER_MAX: Duration = Duration::from_secs(35);
/// The same for what reads files or awaits health checks.
const SLOW_ANSWER_MAX: Duration = Duration::from_secs(310);

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
    /// The connection ended before a word of the answer: whoever accepted it has ended.
    #[error("{0}")]
    CutOff(String),
    /// What came back is not what this version understands.
    #[error("{0}")]
    Garbled(String),
}

/// So often a question that changes nothing is asked where it is cut off: once more than a process that
/// hands over to the next can do it.
const TRIES: u32 = 3;
/// Between two of them: short against what `ready-check` has in all.
const PAUSE: Duration = Duration::from_millis(5);

/// A name as it stands in a path: percent-encoded.
pub fn segment(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte.into());
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
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
    /// is none, a text where it is no JSON. Names in the path go through [`segment`].
    ///
    /// # Errors
    /// Where nobody answers within 35 seconds, or the status is 400 or above.
    pub fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        self.call_within(ANSWER_MAX, (method, path), body)
    }

    /// The same with as much time as a reload, a plan or a new server may take.
    ///
    /// # Errors
    /// As [`Client::call`], after 310 seconds.
    pub fn call_slow(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        self.call_within(SLOW_ANSWER_MAX, (method, path), body)
    }

    /// The same with a time of one's own for the whole call.
    ///
    /// # Errors
    /// As [`Client::call`], after `most`.
    pub fn call_within(
        &self,
        most: Duration,
        (method, path): (&str, &str),
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let request = request(method, path, body)?;
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error| self.unreachable(&error))?;
        let answer = runtime.block_on(async { timeout(most, self.insist(request)).await });
        answer.unwrap_or_else(|_| Err(self.unreachable(&ErrorKind::TimedOut.into())))
    }

    /// What changes nothing may be asked again: a process that was upgraded in this moment has gone with
    /// the connection, and the one after it answers at the same socket.
    async fn insist(&self, request: Request<Full<Bytes>>) -> Result<Value, ClientError> {
        let mut more = match *request.method() {
            Method::GET => TRIES - 1,
            _ => 0,
        };
        loop {
            let outcome = self.exchange(request.clone()).await;
            if more == 0 || !matches!(outcome, Err(ClientError::CutOff(_))) {
                return outcome;
            }
            more -= 1;
            sleep(PAUSE).await;
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Value, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.unreachable(&error))?;
        let broken = |error| self.broken(&error);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(broken)?;
        let answer = read(response).await.map_err(broken)?;
        connection.abort();
        answer.value(&self.socket)
    }

    fn broken(&self, error: &hyper::Error) -> ClientError {
        let path = self.socket.display();
        match is_cut_off(error) {
            true => ClientError::CutOff(format!(
                "{path}: the connection ended without an answer: evenkeel has ended or was upgraded in \
                 this moment, look whether it was done"
            )),
            false => ClientError::Garbled(format!("{path}: no whole answer came: {error}")),
        }
    }

    fn unreachable(&self, error: &io::Error) -> ClientError {
        let path = self.socket.display();
        let text = match error.kind() {
            ErrorKind::NotFound => format!(
                "no evenkeel answers at {path}: is it running? name its socket with --socket PATH"
            ),
            ErrorKind::PermissionDenied => {
                format!("{path}: permission denied: run as the user that evenkeel runs as, or root")
            }
            ErrorKind::ConnectionRefused if !is_socket(&self.socket) => {
                format!("{path} is no socket: name that of evenkeel with --socket PATH")
            }
            ErrorKind::InvalidInput => {
                format!("{path}: too long for a socket's path, which has at most 107 bytes")
            }
            ErrorKind::ConnectionRefused => format!(
                "no evenkeel answers at {path}: the socket is left over from one that has ended; \
                 start it, or name another socket with --socket PATH"
            ),
            // Of a unix socket whose queue is full.
            ErrorKind::WouldBlock => {
                format!(
                    "{path}: too many wait for an answer already: the process is busy or stopped"
                )
            }
            ErrorKind::TimedOut => {
                format!("{path}: no answer in time: the process is busy or stopped, or no evenkeel")
            }
            _ => format!("{path}: {error}: name the socket of evenkeel with --socket PATH"),
        };
        ClientError::Unreachable(text)
    }
}

/// Not a word has come.
fn is_cut_off(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref());
    let kind = source.map(io::Error::kind);
    error.is_incomplete_message()
        || error.is_canceled()
        || matches!(
            kind,
            Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
        )
}

fn request(
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<Request<Full<Bytes>>, ClientError> {
    let bytes = body.map(Value::to_string).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "localhost")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::from(bytes));
    request.map_err(|error| ClientError::Garbled(format!("{method} {path}: {error}")))
}

/// What came back.
struct Answer {
    status: u16,
    is_json: bool,
    body: Bytes,
}

async fn read(response: Response<Incoming>) -> Result<Answer, hyper::Error> {
    let (head, body) = response.into_parts();
    let kind = head.headers.get(CONTENT_TYPE);
    Ok(Answer {
        status: head.status.as_u16(),
        is_json: kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json")),
        body: body.collect().await?.to_bytes(),
    })
}

impl Answer {
    fn value(self, socket: &Path) -> Result<Value, ClientError> {
        let value = match (self.is_json, self.body.is_empty()) {
            (_, true) => Value::Null,
            (false, false) => Value::String(String::from_utf8_lossy(&self.body).into_owned()),
            (true, false) => serde_json::from_slice(&self.body).map_err(|error| {
                ClientError::Garbled(format!("{}: no JSON came: {error}", socket.display()))
            })?,
        };
        if self.status < 400 {
            return Ok(value);
        }
        let said = value["error"].as_str().or(value.as_str());
        let text = said.map_or_else(|| format!("status {}", self.status), str::to_owned);
        Err(ClientError::Refused {
            status: self.status,
            text,
        })
    }
}

/// Where nothing answers, whether there is a socket at all.
fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::thread;

    #[test]
    fn names_are_encoded_for_paths() {
        assert_eq!(segment("db-1.a_b~"), "db-1.a_b~");
        assert_eq!(segment("[::1]:80"), "%5B%3A%3A1%5D%3A80");
        assert_eq!(segment("a/b?c d\u{e9}"), "a%2Fb%3Fc%20d%C3%A9");
    }

    #[test]
    fn nobody_there_is_said_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let call = || {
            let error = Client::new(&path).call("GET", "/", None).unwrap_err();
            assert!(matches!(error, ClientError::Unreachable(_)), "{error:?}");
            error.to_string()
        };
        assert!(call().contains("is it running? name its socket with --socket"));
        drop(UnixListener::bind(&path).unwrap());
        assert!(call().contains("left over"));
        fs::remove_file(&path).unwrap();
        let _silent = UnixListener::bind(&path).unwrap();
        let most = Duration::from_millis(50);
        let outcome = Client::new(&path).call_within(most, ("GET", "/"), None);
        assert!(
            outcome
                .unwrap_err()
                .to_string()
                .contains("no answer in time")
        );
    }

    /// Reads one head.
    fn hear(stream: &mut UnixStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
    }

    #[test]
    fn a_question_that_was_cut_off_is_asked_again_and_a_change_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            // The first is heard and not answered, the second is not even heard.
            hear(&mut listener.accept().unwrap().0);
            drop(listener.accept().unwrap());
            let (mut stream, _) = listener.accept().unwrap();
            hear(&mut stream);
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            stream.write_all(answer).unwrap();
            hear(&mut listener.accept().unwrap().0);
        });
        let client = Client::new(&path);
        assert_eq!(client.call("GET", "/", None).unwrap(), "ok");
        let error = client.call("POST", "/", None).unwrap_err();
        assert!(matches!(error, ClientError::CutOff(_)), "{error:?}");
        server.join().unwrap();
        // Nobody listens any more.
        let error = client.call("GET", "/", None).unwrap_err();
        assert!(matches!(error, ClientError::Unreachable(_)), "{error:?}");
    }

    /// What the client makes of an answer.
    fn answered(answer: &'static str) -> Result<Value, ClientError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            hear(&mut stream);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let outcome = Client::new(&path).call("GET", "/x", None);
        server.join().unwrap();
        outcome
    }

    #[test]
    fn answers_are_values_texts_or_refusals() {
        let ok = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n";
        let ordered = answered(Box::leak(format!("{ok}{{\"b\":1,\"a\":[]}}").into()));
        assert_eq!(ordered.unwrap().to_string(), "{\"b\":1,\"a\":[]}");
        assert_eq!(
            answered("HTTP/1.1 204 No Content\r\n\r\n").unwrap(),
            Value::Null
        );
        let text = answered("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n").unwrap();
        assert_eq!(text, Value::from("ok\n"));
        let refused = answered(
            "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: \
             16\r\n\r\n{\"error\":\"gone\"}",
        );
        match refused.unwrap_err() {
            ClientError::Refused { status, text } => assert_eq!((status, &*text), (404, "gone")),
            other => panic!("{other:?}"),
        }
        for garbled in [
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\nno",
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            "SSH-2.0-x\r\n\r\n",
        ] {
            let error = answered(garbled).unwrap_err();
            assert!(matches!(error, ClientError::Garbled(_)), "{error:?}");
        }
    }
}
