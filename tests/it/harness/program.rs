//! The real program: started from an inline configuration, its addresses read from what it says,
//! ended by its own process id.
//!
//! After an upgrade another process serves, which is no child of the test. It keeps the folder of its
//! configuration on its command line, which no other process has: so those are found that are to be
//! ended, also after a test that has failed in the middle of an upgrade.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tempfile::TempDir;

use super::api::Api;
use super::lines::{AccessLine, Lines};
use super::peers::{self, Server};
use super::proc::Proc;
use super::{eventually, eventually_some};

/// One running evenkeel.
#[derive(Debug)]
pub(crate) struct Evenkeel {
    /// The first process.
    child: Mutex<Child>,
    /// The process that serves now, which upgrades change.
    serving: AtomicU32,
    /// Holds its configuration and its admin socket.
    folder: TempDir,
    output: Lines,
    errors: Lines,
}

impl Evenkeel {
    /// Starts it and waits for its ready line.
    #[track_caller]
    pub(crate) fn start(config: &str) -> Self {
        let started = Self::launch(config);
        started.errors.wait_for("ready: ");
        started
    }

    /// Starts it and does not wait.
    pub(crate) fn launch(config: &str) -> Self {
        Self::launch_with(config, Command::new(binary()))
    }

    /// Starts it through `command`, which gets `run -c FILE` added: a wrapper such as `setpriv`.
    pub(crate) fn launch_with(config: &str, command: Command) -> Self {
        Self::launch_reading(config, command, Stdio::null())
    }

    /// The same with a standard input.
    pub(crate) fn launch_reading(config: &str, mut command: Command, input: Stdio) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("evenkeel.yaml");
        fs::write(&file, with_socket(config, folder.path())).unwrap();
        make_readable(folder.path());
        command.arg("run").arg("-c").arg(&file);
        command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self::spawn(command, folder)
    }

    /// Starts `command` as it stands.
    pub(crate) fn spawn(mut command: Command, folder: TempDir) -> Self {
        let mut child = command.spawn().unwrap();
        let output = child.stdout.take().map(Lines::gather).unwrap_or_default();
        let errors = child.stderr.take().map(Lines::gather).unwrap_or_default();
        Self {
            serving: AtomicU32::new(child.id()),
            child: Mutex::new(child),
            folder,
            output,
            errors,
        }
    }

    /// Where the first listener is.
    #[track_caller]
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses()[0].1
    }

    /// Every listener's name and address, in the order they were opened.
    #[track_caller]
    pub(crate) fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.errors.wait_for("ready: ");
        self.errors
            .all()
            .iter()
            .filter_map(|line| listening(line))
            .flatten()
            .collect()
    }

    /// A client of the first listener.
    #[track_caller]
    pub(crate) fn connect(&self) -> TcpStream {
        peers::connect(self.address())
    }

    /// A connection through it: the client's socket and the server's.
    #[track_caller]
    pub(crate) fn pair(&self, server: &Server) -> (TcpStream, TcpStream) {
        let client = self.connect();
        (client, server.accept())
    }

    /// Its API over the unix socket, which is there once it is ready.
    pub(crate) fn api(&self) -> Api {
        Api::Unix(self.folder.path().join("admin.sock"))
    }

    /// Its API over TCP, where the configuration has `admin.http`.
    #[track_caller]
    pub(crate) fn http(&self) -> Api {
        let line = self.errors.wait_for("admin: http://");
        let address = line.split("http://").nth(1).unwrap_or_default();
        Api::Tcp(address.trim().parse().unwrap())
    }

    /// Its configuration's path.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("evenkeel.yaml")
    }

    /// Replaces its configuration, which it reads at the next reload.
    pub(crate) fn rewrite(&self, config: &str) {
        fs::write(self.file(), with_socket(config, self.folder.path())).unwrap();
    }

    /// A client command that talks to it.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        Command::new(binary())
            .args(arguments)
            .env("EVENKEEL_SOCKET", self.folder.path().join("admin.sock"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Its process id: after an upgrade that of the new process.
    pub(crate) fn pid(&self) -> u32 {
        self.serving.load(Ordering::SeqCst)
    }

    /// Has it hand over to a new process of the same program; the answer.
    #[track_caller]
    pub(crate) fn upgrade(&self) -> Value {
        self.upgrade_with("{}")
    }

    /// The same with a body of the request.
    #[track_caller]
    pub(crate) fn upgrade_with(&self, body: &str) -> Value {
        let old = self.proc();
        let answer = self.api().send("POST", "/api/v1/upgrade", body);
        let answer = answer.expect(200);
        self.follow(old);
        answer
    }

    /// Asks for an upgrade that is to fail; the reason that is given.
    #[track_caller]
    pub(crate) fn upgrade_fails(&self, body: &str) -> String {
        let answer = self.api().send("POST", "/api/v1/upgrade", body);
        assert!(
            (400..600).contains(&answer.status),
            "it did not fail: {answer:?}"
        );
        let reason = answer.json()["error"].as_str().map(str::to_owned);
        reason.unwrap_or_else(|| panic!("no reason in {}", answer.body))
    }

    /// Waits until `old` is gone and another process answers, which is "it" from then on.
    #[track_caller]
    pub(crate) fn follow(&self, old: Proc) {
        eventually("the old process is gone", || old.is_gone());
        // Its main thread may have ended before the others.
        let status = eventually_some("the first process's end", || {
            self.lock().try_wait().unwrap()
        });
        assert!(status.success(), "the first process: {status}");
        let pid = self.api().status()["pid"].as_u64().unwrap();
        let pid = u32::try_from(pid).unwrap();
        assert_ne!(pid, old.0, "another process serves");
        assert_eq!(self.processes(), [pid], "and no other one");
        self.serving.store(pid, Ordering::SeqCst);
    }

    /// Its processes: one, or two during an upgrade. Those that are only not waited for do not count.
    pub(crate) fn processes(&self) -> Vec<u32> {
        self.processes_of("run")
    }

    /// Those of one command that name its folder.
    fn processes_of(&self, command: &str) -> Vec<u32> {
        let command = format!("\0{command}\0");
        let folder = self.folder.path().display().to_string();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut found: Vec<u32> = numbers
            .filter(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let is_command = String::from_utf8_lossy(&line).contains(&command);
                is_command && String::from_utf8_lossy(&line).contains(&folder)
            })
            .filter(|pid| !Proc(*pid).is_gone())
            .collect();
        found.sort_unstable();
        found
    }

    /// Its folder, for whatever a test puts beside the configuration.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn lock(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What /proc says about it.
    pub(crate) fn proc(&self) -> Proc {
        Proc(self.pid())
    }

    /// The process log.
    pub(crate) fn errors(&self) -> &Lines {
        &self.errors
    }

    /// Standard output: the access log, unless the configuration sends it elsewhere.
    pub(crate) fn output(&self) -> &Lines {
        &self.output
    }

    /// The access lines so far.
    pub(crate) fn access(&self) -> Vec<AccessLine> {
        self.output
            .all()
            .iter()
            .filter_map(|line| AccessLine::parse(line))
            .collect()
    }

    /// Waits for `count` access lines and gives all there are.
    #[track_caller]
    pub(crate) fn ends(&self, count: usize) -> Vec<AccessLine> {
        self.output.wait(&format!("{count} access lines"), |lines| {
            let ends: Vec<_> = lines
                .iter()
                .filter_map(|line| AccessLine::parse(line))
                .collect();
            (ends.len() >= count).then_some(ends)
        })
    }

    /// Waits for the only connection so far to end.
    #[track_caller]
    pub(crate) fn end(&self) -> AccessLine {
        let mut ends = self.ends(1);
        assert_eq!(ends.len(), 1, "one connection, one line: {ends:?}");
        ends.remove(0)
    }

    /// Sends a signal by name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        send_signal(self.pid(), name);
    }

    /// Waits until the first process has ended of itself, and whoever has taken over from it.
    #[track_caller]
    pub(crate) fn exit(&mut self) -> ExitStatus {
        let status = eventually_some("exit", || self.lock().try_wait().unwrap());
        self.errors.wait_for_end();
        status
    }

    /// Waits until it holds as much as `before`: nothing leaked.
    #[track_caller]
    pub(crate) fn back_to(&self, before: &Holding) {
        eventually("descriptors return to where they were", || {
            self.holding() == *before
        });
    }

    /// The descriptors it holds once their number has stayed the same for a while.
    pub(crate) fn holding_at_rest(&self) -> Holding {
        let (mut last, mut same) = (self.holding(), 0);
        eventually("descriptors at rest", || {
            let now = self.holding();
            same = if now == last { same + 1 } else { 0 };
            last = now;
            same == 20
        });
        last
    }

    /// The descriptors it holds now.
    pub(crate) fn holding(&self) -> Holding {
        let descriptors = self.proc().descriptors();
        Holding(
            descriptors
                .iter()
                .filter(|(_, link)| !link.starts_with("pipe:"))
                .count(),
        )
    }
}

/// What must return to where it was once connections are over. Pipes may stay, in a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holding(usize);

impl Holding {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0
    }
}

impl Drop for Evenkeel {
    fn drop(&mut self) {
        // Each fails only where the process is gone already. Whoever is started meanwhile is a child of
        // one that is ended here, so there is an end to it.
        let all = (0..10).flat_map(|_| self.processes());
        // Keepers wait for somebody to come back, and start nobody.
        for pid in all.chain(self.processes_of("keeper")) {
            let mut kill = Command::new("kill");
            drop(kill.arg("-KILL").arg(pid.to_string()).status());
        }
        drop(self.lock().kill());
        drop(self.lock().wait());
        if std::thread::panicking() {
            eprintln!("--- what evenkeel said:\n{}", self.errors.text());
            let lines = self.output.all();
            let tail = &lines[lines.len().saturating_sub(20)..];
            eprintln!("--- the end of its output:\n{}", tail.join("\n"));
        }
    }
}

/// The configuration with an admin socket of its own, unless it says itself where that is: many
/// tests run at once, and the usual place is for one.
fn with_socket(config: &str, folder: &Path) -> String {
    if config.lines().any(|line| line.starts_with("admin:")) {
        return config.replace("SOCKET", &folder.join("admin.sock").display().to_string());
    }
    let socket = folder.join("admin.sock");
    format!("{config}\nadmin: {{socket: {}}}\n", socket.display())
}

/// The program under test.
pub(crate) fn binary() -> PathBuf {
    // The soak runs a release build through its own tests.
    std::env::var_os("EVENKEEL_BINARY").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_evenkeel")),
        PathBuf::from,
    )
}

/// Sends a signal by name to a process that the test started.
pub(crate) fn send_signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid.to_string())
        .status();
    assert!(sent.expect("kill").success(), "SIG{name} to {pid}");
}

/// Whether anybody listens at an IPv4 address; asked of the kernel's table, because a connect would
/// be one more client.
pub(crate) fn is_listening(address: SocketAddr) -> bool {
    const LISTEN: &str = "0A";
    let port = format!(":{:04X}", address.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().take(4).collect();
        fields.len() == 4 && fields[1].ends_with(&port) && fields[3] == LISTEN
    })
}

/// `... listening on 127.0.0.1:4711 (listener web)`, or `127.0.0.1:4711-4713 (listener web, 3 ports)`.
fn listening(line: &str) -> Option<Vec<(String, SocketAddr)>> {
    let (address, notes) = line
        .split_once("listening on ")?
        .1
        .split_once(" (listener ")?;
    let name = notes.split([',', ')']).next()?;
    let (first, last) = address.split_once('-').unwrap_or((address, ""));
    let first: SocketAddr = first.parse().ok()?;
    let ports = first.port()..=last.parse().unwrap_or(first.port());
    let address = |port| (name.to_owned(), SocketAddr::new(first.ip(), port));
    Some(ports.map(address).collect())
}

/// Temporary folders are closed to others, but some tests run the program as another user.
fn make_readable(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}
