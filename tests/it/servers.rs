//! Real servers behind the program: nginx, PostgreSQL and Redis as Debian ships them, started by
//! the tests on ports from the kernel and in folders of their own.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::harness::blocks::{Blocks, Finish};
use crate::harness::daemons::{self, Daemon};
use crate::harness::databases::{postgres, redis};
use crate::harness::peers::{Peer, Refusing};
use crate::harness::program::Evenkeel;
use crate::harness::tools::{postgres_tool, succeed, tool};
use crate::harness::{eventually, plain, with_health};

const FILE_BYTES: u64 = 50_000_000;

fn nginx(folder: &Path) -> Daemon {
    let port = Refusing::new();
    let root = folder.display();
    let servers = format!(
        "http {{ access_log off; client_max_body_size 100m; sendfile on;\n\
         server {{ listen {}; root {root}; location / {{ dav_methods PUT; }} }} }}",
        port.address()
    );
    daemons::nginx(folder, port, &servers)
}

/// Sends a request head; gives the reader behind the answer's head.
#[track_caller]
fn request(client: TcpStream, head: &str, status: &str) -> BufReader<TcpStream> {
    (&client).write_all(head.as_bytes()).unwrap();
    read_head(client, status)
}

#[track_caller]
fn read_head(client: TcpStream, status: &str) -> BufReader<TcpStream> {
    let mut answer = BufReader::new(client);
    let mut line = String::new();
    answer.read_line(&mut line).unwrap();
    assert!(line.contains(status), "{line}");
    while line != "\r\n" {
        line.clear();
        assert!(
            answer.read_line(&mut line).unwrap() > 0,
            "the head ended early"
        );
    }
    answer
}

#[test]
fn nginx_serves_fifty_megabytes_whole() {
    let folder = TempDir::new().unwrap();
    let mut file = fs::File::create(folder.path().join("file")).unwrap();
    Blocks::new(50).send(&mut file, FILE_BYTES).unwrap();
    let server = nginx(folder.path());
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let mut body = request(evenkeel.connect(), "GET /file HTTP/1.0\r\n\r\n", "200");
    let received = Blocks::new(50).receive_to_end(&mut body);
    assert_eq!((received.bytes, received.finish), (FILE_BYTES, Finish::Fin));
    drop(body);
    let end = evenkeel.end();
    assert_eq!(end.end(), "server_closed");
    assert!(end.bytes("downstream_bytes") > FILE_BYTES);
}

#[test]
fn nginx_gets_fifty_megabytes_whole() {
    let folder = TempDir::new().unwrap();
    let server = nginx(folder.path());
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let mut client = evenkeel.connect();
    let head = format!("PUT /up HTTP/1.0\r\nContent-Length: {FILE_BYTES}\r\n\r\n");
    client.write_all(head.as_bytes()).unwrap();
    Blocks::new(51).send(&mut client, FILE_BYTES).unwrap();
    drop(read_head(client, "201"));
    let mut stored = fs::File::open(folder.path().join("up")).unwrap();
    assert_eq!(
        Blocks::new(51).receive_to_end(&mut stored).bytes,
        FILE_BYTES
    );
    assert_eq!(
        evenkeel.end().bytes("upstream_bytes"),
        FILE_BYTES + head.len() as u64
    );
}

#[test]
fn nginx_answers_many_requests_on_one_connection() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("small"), "0123456789").unwrap();
    let server = nginx(folder.path());
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let mut client = evenkeel.connect();
    for _ in 0..200 {
        client =
            request(client, "GET /small HTTP/1.1\r\nHost: x\r\n\r\n", "200").into_inner_with_body();
    }
}

/// What a keep-alive answer leaves behind.
trait IntoInnerWithBody {
    fn into_inner_with_body(self) -> TcpStream;
}

impl IntoInnerWithBody for BufReader<TcpStream> {
    fn into_inner_with_body(self) -> TcpStream {
        let buffered = self.buffer().to_vec();
        let mut client = self.into_inner();
        client.expect(&b"0123456789"[buffered.len()..]);
        client
    }
}

#[test]
fn postgresql_keeps_pgbench_s_sums_and_copies_a_table_whole() {
    let folder = TempDir::new().unwrap();
    let server = postgres(folder.path());
    let evenkeel = Evenkeel::start(&with_health("workers: 2", "", &[server.address()]));
    let through = |name: &str| {
        let mut command = Command::new(postgres_tool(name));
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-p"]);
        command.arg(evenkeel.address().port().to_string());
        command
    };
    eventually("PostgreSQL takes queries", || {
        through("psql")
            .args(["-c", "select 1", "postgres"])
            .output()
            .unwrap()
            .status
            .success()
    });
    let query = |query: &str| succeed(through("psql").args(["-XAtc", query, "postgres"]));
    succeed(through("pgbench").args(["-i", "-q", "-s", "1", "postgres"]));
    succeed(through("pgbench").args(["-c", "8", "-j", "2", "-t", "50", "postgres"]));
    // A new connection for each transaction, and no cleaning of the first run's history.
    succeed(through("pgbench").args(["-n", "-C", "-c", "4", "-t", "25", "postgres"]));
    let sums = query(
        "select (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from \
         pgbench_branches), (select sum(delta) from pgbench_history), (select count(*) from \
         pgbench_history)",
    );
    let sums: Vec<&str> = sums.trim().split('|').collect();
    assert_eq!(
        (sums[0], sums[1], sums[3]),
        (sums[1], sums[2], "500"),
        "{sums:?}"
    );
    copy_roundtrip(folder.path(), &query);
}

#[test]
fn postgresql_takes_more_clients_than_it_may_through_a_queue() {
    let folder = TempDir::new().unwrap();
    let server = postgres(folder.path());
    let config = with_health("workers: 2", "    queue: {limit: 100, timeout: 1m}", &[])
        + &format!(
            "      - {{address: \"{}\", max_connections: 3}}\n",
            server.address()
        );
    let evenkeel = Evenkeel::start(&config);
    let through = |name: &str| {
        let mut command = Command::new(postgres_tool(name));
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-p"]);
        command.arg(evenkeel.address().port().to_string());
        command
    };
    let mut ask = through("psql");
    ask.args(["-XAtc", "select 1", "postgres"]);
    eventually("PostgreSQL takes queries", || {
        ask.output().unwrap().status.success()
    });
    succeed(through("pgbench").args(["-i", "-q", "-s", "1", "postgres"]));
    // A thread for each client: one that connects keeps its thread's other clients waiting. Each
    // transaction has a connection of its own, or those that wait would wait for the run's end.
    let run = ["-n", "-C", "-c", "12", "-j", "12", "-t", "10", "postgres"];
    let said = succeed(through("pgbench").args(run));
    assert!(said.contains("actually processed: 120/120"), "{said}");
    assert!(
        evenkeel
            .access()
            .iter()
            .all(|end| end.end() != "queue_full")
    );
    let count = through("psql")
        .args(["-XAtc", "select count(*) from pgbench_history", "postgres"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&count.stdout).trim(), "120");
}

/// A table out through COPY, in again through COPY, and both the same.
fn copy_roundtrip(folder: &Path, query: &dyn Fn(&str) -> String) {
    let own = folder.file_name().unwrap().display();
    let file = format!("/tmp/copied-{own}-{}", std::process::id());
    let digest = |table: &str| {
        query(&format!(
            "select md5(string_agg(line, '' order by number)) from {table}"
        ))
    };
    query(
        "create table original as select number, repeat(md5(number::text), 10) as line from \
         generate_series(1, 30000) number",
    );
    query(&format!("\\copy original to '{file}'"));
    query("create table copied (like original)");
    query(&format!("\\copy copied from '{file}'"));
    fs::remove_file(&file).unwrap();
    assert_eq!(digest("original"), digest("copied"));
}

#[test]
fn redis_takes_pipelined_load_and_keeps_values_whole() {
    let folder = TempDir::new().unwrap();
    let server = redis(folder.path());
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let port = evenkeel.address().port().to_string();
    let load = [
        "-n",
        "20000",
        "-c",
        "20",
        "-P",
        "16",
        "-d",
        "200",
        "-q",
        "-t",
        "set,get,lpush",
    ];
    let said = succeed(
        Command::new(tool("redis-benchmark"))
            .args(["-p", &port])
            .args(load),
    );
    assert!(said.contains("LPUSH"), "{said}");
    let cli = |arguments: &[&str]| {
        succeed(
            Command::new(tool("redis-cli"))
                .args(["-p", &port])
                .args(arguments),
        )
    };
    assert_eq!(cli(&["llen", "mylist"]).trim(), "20000");
    let value = "value ".repeat(10_000);
    cli(&["set", "large", &value]);
    assert_eq!(cli(&["get", "large"]).trim_end_matches('\n'), value);
    assert_eq!(
        evenkeel
            .access()
            .iter()
            .filter(|end| !end.end().ends_with("closed"))
            .count(),
        0
    );
}

#[test]
fn redis_at_a_unix_socket_takes_load_from_tcp_clients() {
    let folder = TempDir::new().unwrap();
    let _server = redis(folder.path());
    let socket = format!("unix:{}", folder.path().join("redis.sock").display());
    let config = plain(&["127.0.0.1:9".parse().unwrap()]);
    let evenkeel = Evenkeel::start(&config.replace("127.0.0.1:9", &format!("\"{socket}\"")));
    let port = evenkeel.address().port().to_string();
    let load = ["-n", "20000", "-c", "20", "-P", "16", "-d", "200", "-q"];
    succeed(
        Command::new(tool("redis-benchmark"))
            .args(["-p", &port, "-t", "set,get"])
            .args(load),
    );
    let cli = |arguments: &[&str]| {
        let mut command = Command::new(tool("redis-cli"));
        succeed(command.args(["-p", &port]).args(arguments))
    };
    let fill = "return redis.call('set', 'large', string.rep('value ', 100000))";
    cli(&["eval", fill, "0"]);
    let value = "value ".repeat(100_000);
    assert_eq!(cli(&["get", "large"]).trim_end_matches('\n'), value);
    let ends = evenkeel.access();
    assert!(ends.iter().all(|end| end.field("server") == socket));
}

#[test]
fn psql_comes_by_a_unix_socket_and_goes_to_another_one() {
    let folder = TempDir::new().unwrap();
    let server = postgres(folder.path());
    let doors = TempDir::new().unwrap();
    let own = format!(".s.PGSQL.{}", server.address().port());
    let config = format!(
        "workers: 2\nlisteners:\n  pg: {{bind: \"unix:{}/.s.PGSQL.5432\", pool: pg}}\n\
         pools:\n  pg:\n    health: off\n    servers: [\"unix:{}/data/{own}\"]\n",
        doors.path().display(),
        folder.path().display(),
    );
    let evenkeel = Evenkeel::start(&config);
    let through = |name: &str| {
        let mut command = Command::new(postgres_tool(name));
        command.arg("-h").arg(doors.path());
        command.args(["-U", "postgres"]);
        command
    };
    eventually("PostgreSQL takes queries", || {
        let mut query = through("psql");
        let asked = query.args(["-c", "select 1", "postgres"]).output();
        asked.unwrap().status.success()
    });
    let query = |query: &str| succeed(through("psql").args(["-XAtc", query, "postgres"]));
    succeed(through("pgbench").args(["-i", "-q", "-s", "1", "postgres"]));
    succeed(through("pgbench").args(["-n", "-C", "-c", "4", "-t", "25", "postgres"]));
    assert_eq!(query("select count(*) from pgbench_history").trim(), "100");
    copy_roundtrip(folder.path(), &query);
    let ends = evenkeel.access();
    assert!(ends.iter().all(|end| end.field("client") == "unix:"));
}

#[test]
fn a_killed_redis_costs_no_new_client_anything() {
    let folders = [0; 3].map(|_| TempDir::new().unwrap());
    let mut servers = folders.each_ref().map(|folder| redis(folder.path()));
    let addresses = servers.each_ref().map(Daemon::address);
    let health = "    algorithm: round_robin\n    health: {interval: 200ms}";
    let evenkeel = Evenkeel::start(&with_health("workers: 1", health, &addresses));
    let answers = || {
        let mut client = evenkeel.connect();
        client.write_all(b"PING\r\n").unwrap();
        client.expect(b"+PONG\r\n");
        client
    };
    let held: Vec<_> = (0..6).map(|_| answers()).collect();
    servers[1].stop();
    for _ in 0..30 {
        answers();
    }
    let alive = held.into_iter().filter_map(|mut client| {
        client.write_all(b"PING\r\n").ok()?;
        let mut answer = [0; 7];
        std::io::Read::read_exact(&mut client, &mut answer).ok()
    });
    assert_eq!(alive.count(), 4, "the connections of the other two go on");
}
