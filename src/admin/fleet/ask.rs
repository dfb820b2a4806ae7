//! Asking a node for its status: one GET over TCP, within a time and a size, and one line of advice
//! where no status comes.
//!
//! Knows nothing of what a status says, but for what tells it from any other answer.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{ACCEPT, HOST};
use axum::http::{HeaderValue, Request};
use http_body_util::Full;
use serde_json::Value;
use tokio::net::{TcpStream, lookup_host};
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

use super::node::Node;
use crate::admin::client::{Answer, Broken, PAUSE, TRIES, exchange};

const STATUS: &str = "/api/v1/status";

/// Of the addresses that a name has, so many are tried.
const ADDRESSES_MAX: usize = 4;
/// For one of several: the next one may do.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Characters of a stranger's text that fit into a line of ours.
const SAID_MAX: usize = 120;

/// How much a node may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// From the look-up of its name to the last byte.
    pub(super) time: Duration,
    /// Of the answer's body.
    pub(super) bytes: usize,
}

/// Those of a command: a person waits, and 64 MiB are a status of more than 100,000 servers.
const COMMAND_LIMITS: Limits = Limits {
    time: Duration::from_secs(3),
    bytes: 64 << 20,
};

/// Why a node has told no status, as one line: what, why, what to do. Its name is not in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NodeError(String);

/// Asks all of them at once; the answers are in the order of the nodes.
///
/// # Errors
/// Where this machine lacks what is needed to ask anybody.
pub fn ask_all(nodes: &[Node]) -> io::Result<Vec<Result<Value, NodeError>>> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let answers = runtime.block_on(async {
        let ask_one = |node: &Node| {
            let node = node.clone();
            tokio::spawn(async move { ask(&node, COMMAND_LIMITS).await })
        };
        let asked: Vec<_> = nodes.iter().map(ask_one).collect();
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            // A panic has ended the process long before, and nobody aborts it.
            let lost = |error| Err(NodeError(format!("it was not asked: {error}")));
            answers.push(answer.await.unwrap_or_else(lost));
        }
        answers
    });
    // A look-up that still waits for DNS is waited for by nobody.
    runtime.shutdown_background();
    Ok(answers)
}

/// Asks one of them.
pub(super) async fn ask(node: &Node, limits: Limits) -> Result<Value, NodeError> {
    let late = |_| NodeError(no_answer(limits.time));
    let answer = timeout(limits.time, insist(node, limits)).await;
    let answer = answer.map_err(late)??;
    status_of(node, &answer)
}

/// Once more where a node hands over to the next process in this moment.
async fn insist(node: &Node, limits: Limits) -> Result<Answer, NodeError> {
    let mut left = TRIES;
    loop {
        left -= 1;
        let stream = connect(node, limits.time).await?;
        match exchange(stream, request(node)?, limits.bytes).await {
            Ok(answer) => return Ok(answer),
            Err(Broken::CutOff) if left > 0 => sleep(PAUSE).await,
            Err(broken) => return Err(torn(&broken, limits)),
        }
    }
}

async fn connect(node: &Node, time: Duration) -> Result<TcpStream, NodeError> {
    let found = lookup_host(node.place()).await;
    let unknown = |why: &dyn std::fmt::Display| {
        let host = node.host();
        NodeError(format!(
            "the name {host} is not known here ({why}): check the spelling, or write its address"
        ))
    };
    let found = found.map_err(|error| unknown(&error))?;
    let addresses: Vec<_> = found.take(ADDRESSES_MAX).collect();
    let mut last = unknown(&"it has no address");
    for address in &addresses {
        match connect_one(*address, addresses.len(), time).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_one(
    address: SocketAddr,
    of: usize,
    time: Duration,
) -> Result<TcpStream, NodeError> {
    let most = match of {
        1 => time,
        _ => CONNECT_TIMEOUT,
    };
    match timeout(most, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(not_reached(address, &error)),
        Err(_) => Err(NodeError(no_answer(most))),
    }
}

fn not_reached(address: SocketAddr, error: &io::Error) -> NodeError {
    NodeError(match error.kind() {
        ErrorKind::ConnectionRefused => format!(
            "{address} refuses connections: is evenkeel running there, with admin.http at this \
             address and port?"
        ),
        ErrorKind::TimedOut => no_answer_at(address),
        _ => format!("{address} cannot be reached: {error}: is there a way to it from here?"),
    })
}

fn no_answer_at(address: SocketAddr) -> String {
    format!("{address} does not answer: is the machine up, or does a firewall drop what is sent?")
}

fn no_answer(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    format!(
        "no answer within {seconds} s: the machine is down, a firewall drops what is sent, or the \
         process is stopped"
    )
}

fn torn(broken: &Broken, limits: Limits) -> NodeError {
    NodeError(match broken {
        Broken::CutOff => "it closes the connection without an answer: is that admin.http of an \
                           evenkeel?"
            .to_owned(),
        Broken::Garbled(error) => {
            let error = said(&error.to_string());
            format!("what it answers is no HTTP ({error}): is that the port of admin.http?")
        }
        Broken::TooLarge => {
            let most = limits.bytes >> 20;
            format!("its answer is over {most} MiB: look at it alone, on its own machine")
        }
    })
}

fn request(node: &Node) -> Result<Request<Full<Bytes>>, NodeError> {
    let host = HeaderValue::try_from(node.authority());
    let host = host.map_err(|_| NodeError("its name cannot stand in HTTP".to_owned()))?;
    let request = Request::builder()
        .uri(STATUS)
        .header(HOST, host)
        .header(ACCEPT, "application/json")
        .body(Full::default());
    request.map_err(|error| NodeError(error.to_string()))
}

/// The status, where it is one.
fn status_of(node: &Node, answer: &Answer) -> Result<Value, NodeError> {
    if answer.status != 200 {
        return Err(NodeError(refusal(node, answer)));
    }
    let value = serde_json::from_slice(&answer.body).ok();
    value.filter(is_status).ok_or_else(|| {
        let text = "it answers, but with no status: is that admin.http of an evenkeel?";
        NodeError(text.to_owned())
    })
}

/// Whether it may have been written by an evenkeel of any version.
pub fn is_status(value: &Value) -> bool {
    value["version"].is_string() && value["pools"].is_object()
}

/// What a status code means here.
fn refusal(node: &Node, answer: &Answer) -> String {
    let (status, host) = (answer.status, node.host());
    match status {
        421 if node.is_address() => format!(
            "it does not know itself by {host} (421), as behind NAT: add {host} to its \
             admin.http_hosts"
        ),
        421 => format!(
            "it does not know itself by the name {host} (421): ask by its address, or add {host} to \
             its admin.http_hosts"
        ),
        401 | 403 => format!(
            "it refuses ({status}: {}): evenkeel lets everybody look, so something stands before it",
            words(answer)
        ),
        404 => "it has no status (404): is that admin.http of an evenkeel?".to_owned(),
        503 => format!("not now ({status}: {}): ask again", words(answer)),
        _ => format!(
            "it answers {status} ({}): is that admin.http of an evenkeel?",
            words(answer)
        ),
    }
}

/// What it says for itself, as far as that fits into a line.
fn words(answer: &Answer) -> String {
    let value: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let error = value.and_then(|value| value["error"].as_str().map(said));
    error.unwrap_or_else(|| "without a reason".to_owned())
}

/// A stranger's text in one line that no terminal obeys.
fn said(text: &str) -> String {
    let characters = text.chars().take(SAID_MAX);
    let shown = characters.map(|c| if c.is_control() { ' ' } else { c });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    const SMALL: Limits = Limits {
        time: Duration::from_secs(10),
        bytes: 1 << 20,
    };

    /// Reads one head.
    fn hear(stream: &mut std::net::TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
    }

    /// What is made of an answer whose parts come one after the other to as many connections.
    fn asked(limits: Limits, answers: Vec<Vec<u8>>) -> Result<Value, NodeError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let node = Node::from(listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                hear(&mut stream);
                // Whoever has had enough closes.
                drop(stream.write_all(&answer));
            }
        });
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(ask(&node, limits));
        server.join().unwrap();
        outcome
    }

    fn ok(body: &str) -> Vec<u8> {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into()
    }

    #[test]
    fn an_answer_is_read_up_to_a_size_whether_it_says_its_length_or_not() {
        let status = r#"{"version": "1", "pools": {}}"#;
        assert_eq!(asked(SMALL, vec![ok(status)]).unwrap()["version"], "1");
        let large = ok(&" ".repeat(3 << 20));
        let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        endless.resize(3 << 20, b' ');
        for answer in [large, endless] {
            let error = asked(SMALL, vec![answer]).unwrap_err().to_string();
            assert!(error.contains("over 1 MiB"), "{error}");
        }
    }

    #[test]
    fn a_node_that_hands_over_to_the_next_process_is_asked_again() {
        let status = ok(r#"{"version": "2", "pools": {}}"#);
        let outcome = asked(SMALL, vec![Vec::new(), Vec::new(), status]);
        assert_eq!(outcome.unwrap()["version"], "2");
        let gone = asked(SMALL, vec![Vec::new(); 3]).unwrap_err().to_string();
        assert!(gone.contains("without an answer"), "{gone}");
    }

    #[test]
    fn only_what_an_evenkeel_writes_is_a_status() {
        for body in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"version": "1"}"#,
            r#"{"pools": {}}"#,
            "<html>",
        ] {
            let error = asked(SMALL, vec![ok(body)]).unwrap_err().to_string();
            assert!(error.contains("with no status"), "{body}: {error}");
        }
        let deep = ok(&("[".repeat(100_000) + "1"));
        assert!(asked(SMALL, vec![deep]).is_err());
    }
}
