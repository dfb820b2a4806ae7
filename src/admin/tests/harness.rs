//! A running admin side and ways to speak to it. Every read has a deadline, so that what does not
//! come is a failure and not a hang.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::unbounded;
use serde_json::Value;
use tempfile::TempDir;

use crate::address::Address;
use crate::admin::bounds::Bounds;
use crate::admin::exhibit::Exhibit;
use crate::admin::request::{Answer, Ask, Done, Request};
use crate::admin::{Admin, Bound, Shared, bind};
use crate::balance::Algorithm;
use crate::clock::Now;
use crate::config::{self, AdminSocket};
use crate::ids::{ListenerId, PoolId, ServerId};
use crate::pool::ledger::Ledger;
use crate::pool::tally::{ListenerTally, PoolTally, ServerTally};
use crate::roster::{Board, Listener, Pool, Roster, Server, Stage, Standing};
use crate::telemetry::counters::Counters;
use crate::telemetry::events::Events;
use crate::telemetry::lag::Lag;

/// Nothing here takes longer unless it never comes.
const PATIENCE: Duration = Duration::from_secs(20);
/// As many as in a small process.
pub(super) const WORKERS: usize = 2;

pub(super) fn server(id: usize, name: &str) -> Server {
    Server {
        id: ServerId::new(id),
        name: name.into(),
        address: Address::local((9001 + id).try_into().unwrap()),
        weight: 1,
        max_connections: None,
        is_backup: false,
        standing: Standing::Ready,
        drain: None,
        tally: Arc::new(ServerTally::new(WORKERS)),
    }
}

pub(super) fn pool(id: usize, name: &str, servers: Vec<Server>) -> Pool {
    Pool {
        id: PoolId::new(id),
        name: name.into(),
        algorithm: Algorithm::RoundRobin,
        is_checked: true,
        queue_limit: 0,
        fail_open: false,
        slow_start: Duration::ZERO,
        discovery: Vec::new(),
        servers,
        tally: Arc::new(PoolTally::new(WORKERS)),
    }
}

fn listener(id: usize, name: &str, pool: &str) -> Listener {
    Listener {
        id: ListenerId::new(id),
        name: name.into(),
        bind: vec![Address::local((8080 + id).try_into().unwrap())],
        pool: pool.into(),
        sni: Vec::new(),
        max_connections: None,
        tally: Arc::new(ListenerTally::new(WORKERS)),
    }
}

/// Two listeners, two pools; names that no map would keep in this order.
pub(super) fn roster() -> Roster {
    let mut roster = Roster {
        stage: Stage::Serving,
        listeners: vec![listener(0, "web", "web"), listener(1, "db", "db")],
        pools: vec![
            pool(0, "web", vec![server(0, "b"), server(1, "a")]),
            pool(1, "db", vec![server(2, "127.0.0.1:9003")]),
        ],
        ..Roster::default()
    };
    let by_name = ("*.example.com".into(), "web".into());
    roster.listeners[1].sni.push(by_name);
    for pool in &roster.pools {
        for server in &pool.servers {
            let checkup = server.tally.checkup();
            checkup.note_verdict(true, Now::read());
        }
    }
    roster
}

/// What the process answers, and what it does to the board.
pub(super) type Process = Box<dyn FnMut(&Ask, &Board) -> Answer + Send>;

/// How a site differs from the usual one.
pub(super) struct Plan {
    pub(super) bounds: Bounds,
    pub(super) token: Option<&'static str>,
    pub(super) process: Process,
    pub(super) exhibit: Option<Arc<dyn Exhibit>>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            bounds: Bounds::USUAL,
            token: None,
            process: Box::new(|_, _| Ok(Done::Changed)),
            exhibit: None,
        }
    }
}

/// A running admin side.
pub(super) struct Site {
    pub(super) folder: TempDir,
    pub(super) http: SocketAddr,
    pub(super) shared: Shared,
    /// What the process was asked.
    pub(super) asked: Arc<Mutex<Vec<Ask>>>,
    pub(super) config: config::Admin,
    admin: Option<Admin>,
    process: Option<JoinHandle<()>>,
}

impl Site {
    pub(super) fn new() -> Self {
        Self::with(Plan::default())
    }

    pub(super) fn answering(process: impl FnMut(&Ask, &Board) -> Answer + Send + 'static) -> Self {
        Self::with(Plan {
            process: Box::new(process),
            ..Plan::default()
        })
    }

    pub(super) fn with(plan: Plan) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let token_file = plan.token.map(|token| {
            let path = folder.path().join("token");
            std::fs::write(&path, token).unwrap();
            path
        });
        let config = config::Admin {
            socket: AdminSocket::At(folder.path().join("admin.sock")),
            http: Some("127.0.0.1:0".parse().unwrap()),
            http_hosts: vec!["lb.example.com".into()],
            http_token_file: token_file,
            is_open: false,
        };
        let (requests, receiver) = unbounded::<Request>();
        let shared = Shared {
            started: Now::default(),
            board: Board::default(),
            events: Events::default(),
            counters: (0..WORKERS)
                .map(|_| Arc::new(Counters::default()))
                .collect(),
            ledger: Ledger::new(WORKERS, 9000),
            lag: Arc::new(Lag::default()),
            resolutions: Arc::default(),
            requests,
            upgrades: 0,
            upgrades_failed: Arc::default(),
            exhibit: plan.exhibit,
        };
        shared.board.publish(roster());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (board, log, mut answer) = (shared.board.clone(), Arc::clone(&asked), plan.process);
        let process = thread::spawn(move || {
            for request in receiver {
                log.lock().unwrap().push(request.ask.clone());
                let answer = answer(&request.ask, &board);
                (request.reply)(answer);
            }
        });
        let bound = bind(&config).unwrap();
        Self {
            http: bound.http().unwrap(),
            admin: Some(bound.serve_within(plan.bounds, shared.clone()).unwrap()),
            folder,
            config,
            shared,
            asked,
            process: Some(process),
        }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    pub(super) fn admin(&self) -> &Admin {
        self.admin.as_ref().unwrap()
    }

    /// Whoever takes it ends it.
    pub(super) fn take_admin(&mut self) -> Admin {
        self.admin.take().unwrap()
    }

    /// Another one in its place.
    pub(super) fn serve(&mut self, bound: Bound) {
        self.admin = Some(bound.serve(self.shared.clone()).unwrap());
    }

    pub(super) fn stop(&mut self) {
        if let Some(admin) = self.admin.take() {
            admin.stop();
        }
    }

    /// A new connection over the unix socket.
    pub(super) fn connect(&self) -> Line<UnixStream> {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Line(stream)
    }

    /// A new connection over TCP.
    pub(super) fn connect_tcp(&self) -> Line<TcpStream> {
        let stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Line(stream)
    }

    /// One request over the unix socket.
    pub(super) fn ask(&self, method: &str, path: &str, body: &str) -> Reply {
        self.connect().ask(method, path, &[], body)
    }

    /// The JSON body of a request that is granted.
    pub(super) fn json(&self, method: &str, path: &str, body: &str) -> Value {
        let reply = self.ask(method, path, body);
        assert_eq!(reply.status / 100, 2, "{method} {path}: {}", reply.body);
        serde_json::from_str(&reply.body).unwrap()
    }

    /// The status and the text of one that is not.
    pub(super) fn fault(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.ask(method, path, body).fault()
    }

    /// One request over TCP with these headers besides Host, unless they have one.
    pub(super) fn ask_tcp(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.connect_tcp().ask(method, path, headers, "{}")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop();
        // The process thread ends when all ways to it are gone.
        let (requests, _) = unbounded();
        self.shared.requests = requests;
        if let Some(process) = self.process.take()
            && !thread::panicking()
        {
            process.join().unwrap();
        }
    }
}

/// One answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1);
        let mut pairs = lines.filter_map(|line| line.split_once(": "));
        let found = pairs.find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }

    pub(super) fn fault(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(body.as_object().unwrap().len(), 1);
        (self.status, body["error"].as_str().unwrap().to_owned())
    }
}

/// One connection.
pub(super) struct Line<S>(pub(super) S);

impl<S: Read + Write> Line<S> {
    pub(super) fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            head += "Host: 127.0.0.1\r\n";
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        self.send(head.as_bytes());
        let mut reply = self.reply(method);
        reply.body += &self.rest();
        reply
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Up to and with `end`.
    pub(super) fn until(&mut self, end: &str) -> String {
        let mut read = Vec::new();
        while !read.ends_with(end.as_bytes()) {
            let mut byte = [0];
            let count = self.0.read(&mut byte).unwrap();
            let so_far = String::from_utf8_lossy(&read);
            assert_eq!(count, 1, "the end came before {end:?}: {so_far}");
            read.push(byte[0]);
        }
        String::from_utf8(read).unwrap()
    }

    /// One answer with the length that it states, if it does.
    pub(super) fn reply(&mut self, method: &str) -> Reply {
        let head = self.until("\r\n\r\n");
        let mut reply = Reply {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body: String::new(),
        };
        let length = reply.header("content-length").map(|text| text.parse());
        if method != "HEAD" {
            let mut body = vec![0; length.transpose().unwrap().unwrap_or(0)];
            self.0.read_exact(&mut body).unwrap();
            reply.body = String::from_utf8(body).unwrap();
        }
        reply
    }

    /// Everything up to the peer's end, be it a reset.
    pub(super) fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let mut part = [0; 4096];
        loop {
            match self.0.read(&mut part) {
                Ok(0) => break,
                Ok(count) => rest.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("no end came: {error}"),
            }
        }
        String::from_utf8(rest).unwrap()
    }
}
