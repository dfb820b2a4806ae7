//! Redis, PostgreSQL and MariaDB as Debian ships them.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::nonsense;
use crate::harness::checks::{Checks, config};
use crate::harness::daemons::Daemon;
use crate::harness::databases::{
    hand_over, mariadb, postgres, redis, start_postgres, without_root,
};
use crate::harness::eventually;
use crate::harness::tools::{postgres_tool, succeed, tool};

/// `password_file` keys for the passwords "secret" and "wrong".
fn passwords(folder: &Path) -> [String; 2] {
    ["secret", "wrong"].map(|password| {
        let path = folder.join(password);
        fs::write(&path, format!("{password}\n")).unwrap();
        format!("password_file: \"{}\"", path.display())
    })
}

#[test]
fn redis_is_asked_and_may_ask_for_a_password() {
    let (folder, files) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut server = redis(folder.path());
    let [right, wrong] = passwords(files.path()).map(|file| format!("type: redis, {file}"));
    let address = server.address();
    let checks = Checks::start(&[
        ("plain", "type: redis", address),
        ("right", &right, address),
        ("wrong", &wrong, address),
        (
            "other",
            "type: redis",
            nonsense(&[b"HTTP/1.1 400 Bad Request\r\n"]),
        ),
        (
            "torn",
            "type: redis",
            nonsense(&[b"+", b"P", b"O", b"N", b"G", b"\r", b"\n"]),
        ),
        ("mute", "type: redis", nonsense(&[])),
    ]);
    checks.expect("plain", "up", "redis: PONG");
    checks.expect("right", "down", "without any password configured");
    checks.expect("other", "down", "not an answer of redis: HTTP/1.1 400");
    checks.expect("torn", "up", "redis: PONG");
    checks.expect(
        "mute",
        "down",
        "connection closed without the expected answer",
    );
    let port = address.port().to_string();
    let ask = |arguments: &[&str]| {
        let mut cli = Command::new(tool("redis-cli"));
        succeed(cli.args(["-p", &port]).args(arguments))
    };
    ask(&["config", "set", "requirepass", "secret"]);
    checks.expect("plain", "up", "asks for a password");
    checks.expect("right", "up", "redis: PONG");
    checks.expect("wrong", "down", "WRONGPASS");
    ask(&[
        "-a",
        "secret",
        "config",
        "set",
        "replica-serve-stale-data",
        "no",
    ]);
    ask(&["-a", "secret", "replicaof", "127.0.0.1", "1"]);
    checks.expect("right", "down", "MASTERDOWN");
    ask(&["-a", "secret", "replicaof", "no", "one"]);
    checks.expect("right", "up", "redis: PONG");
    server.signal("STOP");
    checks.expect("right", "down", "timeout after 1s (waiting for the answer)");
    server.signal("CONT");
    checks.expect("right", "up", "redis: PONG");
    server.stop();
    checks.expect("right", "down", "connection refused");
}

#[test]
fn a_reload_reads_passwords_anew() {
    let (folder, files) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let server = redis(folder.path());
    let file = files.path().join("password");
    let health = format!("type: redis, password_file: \"{}\"", file.display());
    let checks = Checks::start(&[("p", &health, server.address())]);
    checks.expect("p", "down", "/password: No such file");
    let port = server.address().port().to_string();
    let mut cli = Command::new(tool("redis-cli"));
    succeed(cli.args(["-p", &port, "config", "set", "requirepass", "secret"]));
    fs::write(&file, "wrong\n").unwrap();
    checks.evenkeel().signal("HUP");
    checks.expect("p", "down", "WRONGPASS");
    fs::write(&file, "secret\n").unwrap();
    checks.evenkeel().signal("HUP");
    checks.expect("p", "up", "redis: PONG");
    // Another change keeps what was read.
    fs::write(&file, "wrong\n").unwrap();
    let api = checks.evenkeel().api();
    api.send("PATCH", "/api/v1/pools/p/servers/s", r#"{"weight":7}"#)
        .expect(200);
    checks.wait_for_checks("p", 3.0);
    checks.expect("p", "up", "redis: PONG");
    checks.evenkeel().signal("HUP");
    checks.expect("p", "down", "WRONGPASS");
    fs::write(&file, "secret\n").unwrap();
    checks.evenkeel().signal("HUP");
    checks.expect("p", "up", "redis: PONG");
    // What cannot be read any more is no fault of the server.
    fs::remove_file(&file).unwrap();
    checks.evenkeel().signal("HUP");
    checks.expect("p", "up", "/password: No such file");
    let said = checks.evenkeel().errors().text();
    assert!(
        said.contains("pool p cannot be checked: password_file"),
        "{said}"
    );
    assert!(!said.contains("secret\n"), "{said}");
}

#[test]
fn a_check_of_another_type_that_cannot_be_made_takes_nobody_down() {
    let folder = TempDir::new().unwrap();
    let server = redis(folder.path());
    let checks = Checks::start(&[("p", "type: tcp", server.address())]);
    checks.expect("p", "up", "connected");
    let evenkeel = checks.evenkeel();
    let missing = folder.path().join("none");
    let health = format!("type: redis, password_file: \"{}\"", missing.display());
    evenkeel.rewrite(&config(&[("p", &health, server.address())]));
    evenkeel.api().ask("POST", "/api/v1/reload").expect(200);
    checks.expect("p", "up", "/none: No such file");
}

/// A primary that asks some users for a password, each in another way.
fn primary(folder: &Path) -> Daemon {
    let server = postgres(folder);
    let data = folder.join("data");
    let rules = "local all all trust\n\
                 host replication all 127.0.0.1/32 trust\n\
                 host all plain 127.0.0.1/32 password\n\
                 host all hashed 127.0.0.1/32 md5\n\
                 host all salted 127.0.0.1/32 scram-sha-256\n\
                 host all refused 127.0.0.1/32 reject\n\
                 host all all 127.0.0.1/32 trust\n";
    fs::write(data.join("pg_hba.conf"), rules).unwrap();
    eventually("PostgreSQL takes queries", || {
        psql(server.address())
            .args(["-c", "select 1"])
            .output()
            .unwrap()
            .status
            .success()
    });
    for statement in [
        "select pg_reload_conf()",
        "create user plain password 'secret'",
        "create user salted password 'secret'",
        "set password_encryption = md5; create user hashed password 'secret'",
    ] {
        succeed(psql(server.address()).args(["-c", statement]));
    }
    server.signal("HUP");
    server
}

fn psql(address: SocketAddr) -> Command {
    let mut command = Command::new(postgres_tool("psql"));
    let port = address.port().to_string();
    command.args([
        "-X",
        "-h",
        "127.0.0.1",
        "-U",
        "postgres",
        "-p",
        &port,
        "postgres",
    ]);
    command
}

/// A server that follows `primary`, below `folder`.
fn replica(primary: SocketAddr, folder: &Path) -> Daemon {
    hand_over(folder);
    let data = folder.join("data");
    let mut copy = without_root(&postgres_tool("pg_basebackup"));
    copy.args([
        "-h",
        "127.0.0.1",
        "-U",
        "postgres",
        "-R",
        "-c",
        "fast",
        "--no-sync",
    ]);
    copy.arg("-p")
        .arg(primary.port().to_string())
        .arg("-D")
        .arg(&data);
    succeed(&mut copy);
    start_postgres(&data)
}

/// The keys of a check by `user`.
fn keys(user: &str, more: &str) -> String {
    format!("type: postgres, user: {user}, database: postgres, {more}")
}

/// Clients that say goodbye leave no such lines behind.
#[track_caller]
fn expect_orderly_ends(server: &Daemon) {
    let said = server.said();
    assert!(!said.contains("unexpected EOF"), "{said}");
    assert!(
        !said.contains("could not receive data from client"),
        "{said}"
    );
}

#[test]
fn postgresql_is_logged_in_to() {
    let folders = [0; 2].map(|_| TempDir::new().unwrap());
    let server = primary(folders[0].path());
    let [right, wrong] = passwords(folders[1].path());
    let address = server.address();
    let checks = Checks::start(&[
        ("any", &keys("postgres", "role: any"), address),
        ("asked", &keys("salted", "role: any"), address),
        ("asked_role", &keys("salted", "role: primary"), address),
        ("plain", &keys("plain", &right), address),
        ("hashed", &keys("hashed", &right), address),
        ("salted", &keys("salted", &right), address),
        ("wrong", &keys("salted", &wrong), address),
        ("wrong_plain", &keys("plain", &wrong), address),
        ("refused", &keys("refused", &right), address),
        ("nobody", &keys("nobody", "role: any"), address),
        ("other", &keys("x", "role: any"), nonsense(&[b"+PONG\r\n"])),
        ("mute", &keys("x", "role: any"), nonsense(&[])),
    ]);
    for (pool, state, words) in [
        ("any", "up", "postgres: a session begins"),
        ("asked", "up", "postgres: asks for a password"),
        (
            "asked_role",
            "down",
            "postgres: asks for a password before it tells its role",
        ),
        ("plain", "up", "postgres: a session begins"),
        ("hashed", "up", "postgres: a session begins"),
        ("salted", "up", "postgres: a session begins"),
        (
            "wrong",
            "down",
            "postgres: 28P01: password authentication failed",
        ),
        (
            "wrong_plain",
            "down",
            "postgres: 28P01: password authentication failed",
        ),
        ("refused", "down", "postgres: 28000: pg_hba.conf rejects"),
        (
            "nobody",
            "down",
            "postgres: 28000: role \"nobody\" does not exist",
        ),
        ("other", "down", "postgres: not a PostgreSQL message"),
        ("mute", "down", "connection closed"),
    ] {
        checks.expect(pool, state, words);
    }
    checks.wait_for_checks("salted", 5.0);
    expect_orderly_ends(&server);
}

#[test]
fn postgresql_tells_its_role_through_a_failover() {
    let folders = [0; 3].map(|_| TempDir::new().unwrap());
    let mut first = primary(folders[0].path());
    let second = replica(first.address(), folders[1].path());
    let [right, _] = passwords(folders[2].path());
    let role = |role: &str| keys("postgres", &format!("role: {role}"));
    let salted = keys("salted", &format!("role: replica, {right}"));
    let (one, two) = (first.address(), second.address());
    let checks = Checks::start(&[
        ("primary", &role("primary"), one),
        ("primary2", &role("primary"), two),
        ("replica", &role("replica"), one),
        ("replica2", &role("replica"), two),
        ("any2", &role("any"), two),
        ("salted2", &salted, two),
    ]);
    for (pool, state, words) in [
        ("primary", "up", "postgres: primary"),
        ("primary2", "down", "postgres: replica, not the primary"),
        ("replica", "down", "postgres: primary, not a replica"),
        ("replica2", "up", "postgres: replica"),
        ("any2", "up", "postgres: a session begins"),
        ("salted2", "up", "postgres: replica"),
    ] {
        checks.expect(pool, state, words);
    }
    first.signal("STOP");
    checks.expect(
        "primary",
        "down",
        "timeout after 1s (waiting for the answer)",
    );
    first.signal("CONT");
    checks.expect("primary", "up", "postgres: primary");
    first.stop();
    checks.expect("primary", "down", "connection refused");
    let mut promote = without_root(&postgres_tool("pg_ctl"));
    succeed(
        promote
            .args(["promote", "-D"])
            .arg(folders[1].path().join("data")),
    );
    checks.expect("primary2", "up", "postgres: primary");
    checks.expect("replica2", "down", "postgres: primary, not a replica");
    succeed(psql(two).args(["-c", "alter system set default_transaction_read_only = on"]));
    second.signal("HUP");
    checks.expect(
        "primary2",
        "down",
        "postgres: primary that is set to read only",
    );
    expect_orderly_ends(&first);
    expect_orderly_ends(&second);
}

const USERS: &str = "create user evenkeel@'127.0.0.1';\n\
                     create user checked@'127.0.0.1' identified by 'secret';\n";

#[test]
fn mariadb_is_logged_in_to_and_no_handshake_is_broken_off() {
    let (folder, files) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut server = mariadb(folder.path(), USERS);
    let [right, wrong] = passwords(files.path());
    let checked = |more: &str| format!("type: mysql, user: checked, {more}");
    let address = server.address();
    let checks = Checks::start(&[
        ("plain", "type: mysql", address),
        ("nobody", "type: mysql, user: nobody", address),
        ("right", &checked(&right), address),
        ("wrong", &checked(&wrong), address),
        (
            "other",
            "type: mysql",
            nonsense(&[b"HTTP/1.1 400 Bad Request\r\n"]),
        ),
        ("mute", "type: mysql", nonsense(&[])),
    ]);
    let is_well = || {
        checks.expect("plain", "up", "mysql: a session begins");
        checks.expect("nobody", "up", "mysql: answers, and does not let nobody in");
        checks.expect("right", "up", "mysql: a session begins");
        checks.expect(
            "wrong",
            "down",
            "mysql: 1045: Access denied for user 'checked'",
        );
        checks.expect("other", "down", "mysql: not a MySQL packet");
        checks.expect("mute", "down", "connection closed");
    };
    is_well();
    // The server would block us after one handshake that is broken off.
    checks.wait_for_checks("plain", 10.0);
    is_well();
    let said = server.said();
    // The one is the test's own look whether it listens.
    assert!(said.matches("Aborted connection").count() <= 1, "{said}");
    // One more than `max_connections` is for administrators.
    let held: Vec<_> = (0..12)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    checks.expect("plain", "down", "mysql: 1040: Too many connections");
    drop(held);
    is_well();
    server.signal("STOP");
    checks.expect("plain", "down", "timeout after 1s (waiting for the answer)");
    server.signal("CONT");
    checks.expect("plain", "up", "mysql: a session begins");
    server.stop();
    checks.expect("plain", "down", "connection refused");
}

#[test]
fn the_config_of_these_checks_is_one_that_check_accepts() {
    let address = "127.0.0.1:1".parse().unwrap();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("evenkeel.yaml");
    fs::write(&file, config(&[("p", "type: redis", address)])).unwrap();
    let mut check = Command::new(crate::harness::program::binary());
    succeed(check.arg("check").arg("-c").arg(&file));
}
