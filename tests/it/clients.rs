//! Clients of databases that move much at once through the program, with sums of what arrived.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::harness::databases::{mariadb, postgres};
use crate::harness::lines::AccessLine;
use crate::harness::program::Evenkeel;
use crate::harness::tools::{postgres_tool, succeed, tool};
use crate::harness::{eventually, plain};

const ROWS: usize = 200_000;

/// Rows of a number, its digest and a text without any system, as both databases' files have them.
fn rows() -> String {
    let row = |number| {
        let digest = format!("{:x}", md5::compute(format!("row {number}")));
        format!("{number}\t{digest}\t{}\n", "x".repeat(number % 97))
    };
    (0..ROWS).map(row).collect()
}

/// Fails with no more than the places where two large texts part.
#[track_caller]
fn assert_same(one: &str, other: &str) {
    let parted = one.bytes().zip(other.bytes()).position(|(a, b)| a != b);
    assert_eq!((one.len(), parted), (other.len(), None));
}

/// A client that says goodbye and its server close at nearly the same time.
fn is_in_order(end: &AccessLine) -> bool {
    ["client_closed", "server_closed"].contains(&end.end())
}

fn psql(address: SocketAddr, commands: &[&str]) -> String {
    let mut psql = Command::new(postgres_tool("psql"));
    let port = address.port().to_string();
    psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1"]);
    psql.args(["-U", "postgres", "-p", &port]);
    for command in commands {
        psql.args(["-c", command]);
    }
    succeed(psql.arg("postgres"))
}

#[test]
fn psql_copies_two_hundred_thousand_rows_in_and_out() {
    let folders = [0; 2].map(|_| TempDir::new().unwrap());
    let server = postgres(folders[0].path());
    eventually("PostgreSQL takes queries", || {
        let mut ready = Command::new(postgres_tool("pg_isready"));
        let port = server.address().port().to_string();
        let asked = ready
            .args(["-U", "postgres", "-h", "127.0.0.1", "-p", &port])
            .output();
        asked.unwrap().status.success()
    });
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let file = |name: &str| folders[1].path().join(name).display().to_string();
    let (sent, received) = (file("sent"), file("received"));
    let text = rows();
    fs::write(&sent, &text).unwrap();
    psql(
        evenkeel.address(),
        &[
            "create table loaded (number int, digest text, filler text)",
            &format!("\\copy loaded from '{sent}'"),
            // PostgreSQL itself need not keep the order.
            &format!("\\copy (select * from loaded order by number) to '{received}'"),
        ],
    );
    assert_same(&fs::read_to_string(&received).unwrap(), &text);
    // What PostgreSQL has, asked past the program.
    let sums = "select count(*), count(*) filter (where digest = md5('row ' || number) and \
                length(filler) = number % 97), sum(number::bigint) from loaded";
    let sum = ROWS * (ROWS - 1) / 2;
    let sums = psql(server.address(), &[sums]);
    assert_eq!(sums.trim(), format!("{ROWS}|{ROWS}|{sum}"));
    let end = evenkeel.end();
    assert!(is_in_order(&end), "{end:?}");
    assert!(
        end.bytes("upstream_bytes")
            .min(end.bytes("downstream_bytes"))
            > text.len() as u64
    );
}

fn mysql(address: SocketAddr, statements: &str) -> String {
    let mut client = Command::new(tool("mariadb"));
    let port = address.port().to_string();
    client.args(["--no-defaults", "--protocol=tcp", "-h", "127.0.0.1"]);
    client.args(["-u", "loader", "-P", &port, "--local-infile=1"]);
    // Rows as they are, one a line, without the names of columns.
    client.args(["--batch", "--raw", "--skip-column-names", "--quick"]);
    succeed(client.args(["-e", statements, "data"]))
}

/// Makes `table` of the rows in a file.
fn load(address: SocketAddr, table: &str, file: &Path) {
    let columns = "(number int primary key, digest varchar(32), filler varchar(100))";
    let file = file.display();
    let statements = format!(
        "create table {table} {columns} checksum=1; load data local infile '{file}' into table {table}"
    );
    mysql(address, &statements);
}

#[test]
fn the_mariadb_client_loads_a_table_and_reads_it_back() {
    let folders = [0; 2].map(|_| TempDir::new().unwrap());
    let user = "create database data;\ncreate user loader@'127.0.0.1';\n\
                grant all on *.* to loader@'127.0.0.1';\n";
    let server = mariadb(folders[0].path(), user);
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let (text, file) = (rows(), folders[1].path().join("rows"));
    fs::write(&file, &text).unwrap();
    load(evenkeel.address(), "through", &file);
    load(server.address(), "direct", &file);
    let read = mysql(evenkeel.address(), "select * from through order by number");
    assert_same(&read, &text);
    let sums = mysql(server.address(), "checksum table through, direct");
    let sums: Vec<_> = sums
        .lines()
        .filter_map(|line| line.split('\t').nth(1))
        .collect();
    assert!(
        sums.len() == 2 && sums[0] == sums[1] && sums[0] != "NULL",
        "{sums:?}"
    );
    let ends = evenkeel.ends(2);
    assert!(ends.iter().all(is_in_order), "{ends:?}");
}
