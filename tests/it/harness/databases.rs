//! PostgreSQL, Redis and MariaDB as Debian ships them, in folders of their own.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;

use super::daemons::Daemon;
use super::peers::Refusing;
use super::tools::{postgres_tool, succeed, tool};

/// The user that they run as where the test is root.
const NOBODY: u32 = 65534;

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
        "--unixsocketperm",
        "777",
        "--unixsocket",
    ]);
    command
        .arg(folder.join("redis.sock"))
        .arg("--port")
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
