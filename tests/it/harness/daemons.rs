//! Server programs of the system, started by the tests on ports from the kernel and in folders of
//! their own.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::eventually;
use super::lines::Lines;
use super::peers::Refusing;
use super::program::send_signal;
use super::tools::{postgres_tool, succeed, tool};

const NOBODY: u32 = 65534;

/// A server program of the system, stopped by its own process id.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    port: Refusing,
    said: Lines,
    /// How it is told to stop at once.
    signal: &'static str,
}

impl Daemon {
    /// Starts it and waits until it listens at `port`.
    pub(crate) fn start(command: &mut Command, port: Refusing, signal: &'static str) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = Lines::gather(child.stderr.take().expect("stderr is piped"));
        let daemon = Self {
            child,
            port,
            said,
            signal,
        };
        eventually("the server listens", || {
            TcpStream::connect(daemon.address()).is_ok()
        });
        daemon
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// What it has said on standard error.
    pub(crate) fn said(&self) -> String {
        self.said.text()
    }

    /// Sends it a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        send_signal(self.child.id(), name);
    }

    pub(crate) fn stop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // One that was stopped takes no other signal.
            send_signal(self.child.id(), "CONT");
            send_signal(self.child.id(), self.signal);
        }
        // It fails only when the process was waited for already.
        drop(self.child.wait());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("--- what the server said:\n{}", self.said.text());
        }
    }
}

/// Whether the test is root, whom PostgreSQL and MariaDB refuse.
fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Lets a program run by [`without_root`] write there.
pub(crate) fn hand_over(path: &Path) {
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// The user that a daemon runs as where the test is root: PostgreSQL refuses root.
pub(crate) fn without_root(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new(tool("setpriv"));
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(program);
    command.current_dir("/");
    command
}

/// PostgreSQL with a new data folder below `folder`, where everyone is trusted.
pub(crate) fn postgres(folder: &Path) -> Daemon {
    let data = folder.join("data");
    fs::create_dir(&data).unwrap();
    hand_over(folder);
    hand_over(&data);
    let mut create = without_root(&postgres_tool("initdb"));
    succeed(
        create
            .args(["-U", "postgres", "-A", "trust", "--no-sync", "-D"])
            .arg(&data),
    );
    start_postgres(&data)
}

/// PostgreSQL with a data folder that is there.
pub(crate) fn start_postgres(data: &Path) -> Daemon {
    let port = Refusing::new();
    let mut command = without_root(&postgres_tool("postgres"));
    command
        .arg("-D")
        .arg(data)
        .arg("-k")
        .arg(data)
        .arg("-p")
        .arg(port.address().port().to_string());
    command.args([
        "-c",
        "fsync=off",
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        "max_connections=40",
    ]);
    Daemon::start(&mut command, port, "QUIT")
}

/// Redis without a password, and without a file.
pub(crate) fn redis(folder: &Path) -> Daemon {
    let port = Refusing::new();
    let mut command = Command::new(tool("redis-server"));
    command.args([
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--daemonize",
        "no",
        "--port",
    ]);
    command
        .arg(port.address().port().to_string())
        .arg("--dir")
        .arg(folder);
    Daemon::start(&mut command, port, "KILL")
}

/// MariaDB with a new data folder below `folder`, and the users that `statements` make, one a line.
pub(crate) fn mariadb(folder: &Path, statements: &str) -> Daemon {
    let data = folder.join("data");
    fs::create_dir(&data).unwrap();
    hand_over(folder);
    hand_over(&data);
    let base = |more: &[&str]| {
        let mut command = without_root(&tool("mariadbd"));
        command.args(["--no-defaults", "--innodb-buffer-pool-size=8M"]);
        command.args(["--innodb-log-file-size=4M", "--default-storage-engine=Aria"]);
        command
            .arg(format!("--datadir={}", data.display()))
            .args(more);
        command
    };
    let written = folder.join("statements");
    let tables = ["mysql_system_tables.sql", "mysql_system_tables_data.sql"].map(mariadb_file);
    let [first, second] = tables;
    let all = format!(
        "create database mysql;\nuse mysql;\n{first}{second}flush privileges;\n{statements}"
    );
    fs::write(&written, all).unwrap();
    succeed(base(&["--bootstrap"]).stdin(fs::File::open(&written).unwrap()));
    let port = Refusing::new();
    let (number, socket) = (port.address().port(), folder.join("socket"));
    let mut command = base(&["--bind-address=127.0.0.1", "--log-warnings=4"]);
    command.args(["--max-connections=10", "--max-connect-errors=1"]);
    command.arg(format!("--port={number}"));
    command.arg(format!("--socket={}", socket.display()));
    Daemon::start(&mut command, port, "KILL")
}

/// A file that MariaDB makes its own tables of.
fn mariadb_file(name: &str) -> String {
    let folders = ["/usr/share/mysql", "/usr/share/mariadb"].map(Path::new);
    let found = folders
        .iter()
        .find_map(|folder| fs::read_to_string(folder.join(name)).ok());
    found.expect("the files of mariadb-server-core")
}
