//! `evenkeel check` from outside: each file of `config/` has one kind of mistake, or many, and the
//! exact message beside it; hostile files get a short answer in little memory; wrong usage is told
//! from a wrong file by the exit code.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const EVENKEEL: &str = env!("CARGO_BIN_EXE_evenkeel");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn evenkeel(arguments: &[&str]) -> Output {
    Command::new(EVENKEEL).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The `*.yaml` of a folder of the repository, in order.
fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(ROOT).join(folder)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    files.sort();
    files
}

#[test]
fn each_wrong_file_gets_its_exact_messages() {
    let files = yaml_files("tests/it/config");
    assert!(files.len() >= 99, "only {} files", files.len());
    for file in files {
        let output = Command::new(EVENKEEL)
            .args(["check", "-c"])
            .arg(file.file_name().unwrap())
            .current_dir(file.parent().unwrap())
            .output()
            .unwrap();
        let expected = fs::read_to_string(file.with_extension("expected")).unwrap();
        assert_eq!(stderr(&output), expected);
        assert_eq!(output.status.code(), Some(1), "{}", file.display());
        assert_eq!(stdout(&output), "", "{}", file.display());
    }
}

#[test]
fn the_examples_are_good() {
    let files = yaml_files("conf");
    assert!(files.len() >= 3);
    for file in files {
        let output = evenkeel(&["check", "-c", file.to_str().unwrap()]);
        assert_eq!(stderr(&output), "");
        assert_eq!(output.status.code(), Some(0));
    }
}

/// The blocks of YAML in a document that are whole files.
fn whole_files(document: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(ROOT).join(document)).unwrap();
    let blocks = text.split("\n```yaml\n").skip(1);
    let blocks = blocks.map(|rest| rest.split("\n```").next().unwrap());
    let has = |block: &str, key: &str| block.lines().any(|line| line == key);
    blocks
        .filter(|block| has(block, "listeners:") && has(block, "pools:"))
        .map(|block| format!("{block}\n"))
        .collect()
}

#[test]
fn whole_files_in_the_documents_are_good() {
    let folder = tempfile::tempdir().unwrap();
    for (document, least) in [
        ("README.md", 1),
        ("docs/configuration.md", 4),
        ("docs/operations.md", 2),
    ] {
        let files = whole_files(document);
        assert!(files.len() >= least, "{document}: {}", files.len());
        for text in files {
            let read = evenkeel::config::read(document, &text);
            assert!(read.is_ok(), "{text}{}", read.unwrap_err());
            // The others name folders that a machine of its own has.
            if document != "docs/operations.md" {
                let file = folder.path().join("x.yaml");
                fs::write(&file, &text).unwrap();
                let output = evenkeel(&["check", file.to_str().unwrap()]);
                assert!(output.status.success(), "{text}{}", stderr(&output));
            }
        }
    }
}

#[test]
fn a_good_file_is_summed_up() {
    let output = evenkeel(&["check", "-c", &format!("{ROOT}/conf/web.yaml")]);
    let summary = stdout(&output);
    let lines: Vec<_> = summary.lines().collect();
    assert!(
        lines[0].ends_with("web.yaml: good, 1 listener, 1 pool, 3 servers"),
        "{summary}"
    );
    assert_eq!(lines[1], "  listener web: 0.0.0.0:80, [::]:80 to pool web");
    assert_eq!(
        lines[2],
        "  pool web: 3 servers, least_connections, http check of /health every 5s"
    );
}

#[test]
fn what_will_be_looked_up_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.yaml");
    let text = "
listeners: {pg: {bind: 127.0.0.1:5432, pool: pg}}
pools:
  pg:
    health: {type: postgres, user: evenkeel, role: primary}
    servers: ['db.example.com:5432', 'srv:_pg._tcp.example.com', 10.0.0.1:5432-5433]
";
    fs::write(&file, text).unwrap();
    let summary = stdout(&evenkeel(&["check", file.to_str().unwrap()]));
    let lines: Vec<_> = summary.lines().collect();
    assert!(
        lines[0].ends_with("good, 1 listener, 1 pool, 2 servers, 2 lookups"),
        "{summary}"
    );
    assert_eq!(
        lines[2],
        "  pool pg: 2 servers, 2 lookups, least_connections, postgres check for a primary every 5s"
    );
}

/// What `check` says of a file with these parts, `FOLDER` being a folder of our own with a program
/// that may not be run: standard output, standard error, and whether it is good.
fn checked(top: &str, listener: &str, pool: &str) -> (String, String, bool) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.yaml");
    fs::write(folder.path().join("plain"), "short").unwrap();
    let place = folder.path().to_str().unwrap();
    let text = format!(
        "{top}\nlisteners: {{web: {{bind: [{listener}], pool: web}}}}\n\
         pools: {{web: {{{pool}, servers: [127.0.0.1:1]}}}}\n"
    );
    fs::write(&file, text.replace("FOLDER", place)).unwrap();
    let output = evenkeel(&["check", file.to_str().unwrap()]);
    let code = output.status.code().unwrap();
    let short = |text: String| text.replace(place, "FOLDER");
    (short(stdout(&output)), short(stderr(&output)), code == 0)
}

#[test]
fn what_run_would_refuse_is_a_mistake() {
    let any = "127.0.0.1:0";
    let admin = |keys: &str| format!("admin: {{{keys}}}");
    let token = |path: &str| admin(&format!("http: 127.0.0.1:0, http_token_file: {path}"));
    for (top, listener, expected) in [
        (
            token("FOLDER"),
            any,
            "admin.http_token_file: FOLDER: Is a directory (os error 21): write a file that the user \
             of evenkeel may read",
        ),
        (
            token("/dev/null"),
            any,
            "admin.http_token_file: /dev/null: the file is empty: write one long random word",
        ),
        (
            "log: {access: FOLDER}".to_owned(),
            any,
            "log.access: cannot write to FOLDER: is a directory",
        ),
        (
            admin("socket: FOLDER/plain"),
            any,
            "admin: cannot listen on FOLDER/plain: what is there is no socket: remove it",
        ),
        (
            String::new(),
            "'unix:FOLDER/plain'",
            "listener web: cannot bind unix:FOLDER/plain: what is there is no socket",
        ),
    ] {
        let (out, told, is_good) = checked(&top, listener, "health: off");
        assert!(told.starts_with(expected), "{told}{out}\nnot: {expected}");
        assert_eq!(told.lines().count(), 1, "{told}");
        assert_eq!((out.as_str(), is_good), ("", false));
    }
    // What run makes itself is no mistake, and nothing of it is made here.
    let top = "admin: {socket: FOLDER/none/admin.sock}\nlog: {access: FOLDER/access.log}";
    let (out, told, is_good) = checked(top, "'unix:FOLDER/web.sock'", "health: off");
    assert!(is_good && !out.contains("warning"), "{out}{told}");
    // What is not there may be on the machine that the file is for.
    let (out, told, is_good) = checked("", "'unix:FOLDER/none/web.sock'", "health: off");
    let warning = "\nwarning: `run` refuses to start: listener web: cannot bind unix:FOLDER/none/";
    assert!(is_good && out.contains(warning), "{out}{told}");
}

#[test]
fn what_cannot_work_as_it_stands_is_a_warning() {
    let health = |keys: &str| format!("health: {{{keys}}}");
    for (top, pool, expected) in [
        (
            "admin: {http: 127.0.0.1:0, http_token_file: FOLDER/plain}",
            "health: off".to_owned(),
            "admin.http_token_file: the token in FOLDER/plain can be guessed",
        ),
        (
            "log: {access: FOLDER/none/access.log}",
            "health: off".to_owned(),
            "`run` refuses to start: log.access: cannot write to FOLDER/none/access.log: No such file",
        ),
        (
            "admin: {socket: FOLDER/none/none/admin.sock}",
            "health: off".to_owned(),
            "`run` refuses to start: admin: cannot listen on FOLDER/none/none/admin.sock: No such file",
        ),
        (
            "admin: {http: 127.0.0.1:0, http_token_file: FOLDER/none}",
            "health: off".to_owned(),
            "`run` refuses to start: admin.http_token_file: FOLDER/none: No such file",
        ),
        (
            "",
            health("type: redis, password_file: FOLDER/none"),
            "pool web: it cannot be checked: password_file FOLDER/none: No such file",
        ),
        (
            "",
            health("tls: {ca: FOLDER/plain}"),
            "pool web: it cannot be checked: ca FOLDER/plain: it has no certificate in PEM",
        ),
        (
            "",
            health("type: exec, command: [FOLDER/none]"),
            "pool web: it cannot be checked: command: cannot run FOLDER/none: No such file",
        ),
        (
            "",
            health("type: exec, command: [FOLDER/plain]"),
            "pool web: it cannot be checked: command: cannot run FOLDER/plain: Permission denied",
        ),
        (
            "",
            "outlier: {}".to_owned(),
            "pool web: outlier has no effect, the only server is never left alone",
        ),
        (
            "max_connections: 4000000000",
            "health: off".to_owned(),
            "max_connections: 4000000000 needs",
        ),
    ] {
        let (out, told, is_good) = checked(top, "127.0.0.1:0", &pool);
        assert!(
            out.contains(&format!("\nwarning: {expected}")),
            "{out}{told}"
        );
        assert_eq!((told.as_str(), is_good), ("", true));
    }
}

/// In at most 400 MB of address space: what a hostile file takes is bounded.
fn check_in_little_memory(content: &[u8]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.yaml"), content).unwrap();
    Command::new("sh")
        .args([
            "-c",
            "ulimit -v 400000 && exec \"$0\" check -c x.yaml",
            EVENKEEL,
        ])
        .current_dir(folder.path())
        .output()
        .unwrap()
}

fn alias_bomb() -> String {
    let level = |n: usize| {
        let below = n - 1;
        format!("a{n}: &a{n} [*a{below}, *a{below}, *a{below}, *a{below}]\n")
    };
    let levels: String = (1..60).map(level).collect();
    format!("a0: &a0 [x, x]\n{levels}")
}

#[test]
fn hostile_files_get_a_short_answer_in_little_memory() {
    let mut not_utf8 = b"listeners:\n  \xc3\xa9 ".to_vec();
    not_utf8.push(0xff);
    for (content, expected) in [
        (
            alias_bomb().into_bytes(),
            "the file is too large from here on",
        ),
        (vec![b'['; 1 << 20], "this is nested more than 32 deep"),
        (
            "{a: ".repeat(1 << 18).into_bytes(),
            "this is nested more than 32 deep",
        ),
        (vec![b' '; 20 << 20], "x.yaml: the file is over 16 MiB"),
        (
            b"- x\n".repeat(3 << 20),
            "the file is too large from here on",
        ),
        (
            b"a: &a x\n".repeat(1 << 20),
            "the file is too large from here on",
        ),
        (vec![b'#'; 15 << 20], "the file is empty"),
        (vec![0; 1 << 20], "this is not YAML"),
        (not_utf8, "x.yaml:2:5: the byte 0xff is not UTF-8"),
    ] {
        let output = check_in_little_memory(&content);
        let message = stderr(&output);
        assert!(message.contains(expected), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(message.len() < 300, "{message}");
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn a_large_file_is_no_hostile_one() {
    let mut text = "listeners:\n  web: {bind: 127.0.0.1:80, pool: p0}\npools:\n".to_owned();
    for pool in 0..1000 {
        text.push_str(&format!("  p{pool}:\n    servers:\n"));
        for server in 0..10 {
            let (high, low) = (pool / 250, pool % 250);
            text.push_str(&format!(
                "      - {{name: s{server}, address: 10.{high}.{low}.{server}:80, weight: 1}}\n"
            ));
        }
    }
    let output = check_in_little_memory(text.as_bytes());
    assert_eq!(stderr(&output), "");
    assert!(stdout(&output).contains("good, 1 listener, 1000 pools, 10000 servers\n"));
    assert!(stdout(&output).ends_with("  and 950 more pools\n"));
}

#[test]
fn a_file_that_cannot_be_read_is_one_line() {
    for (path, expected) in [
        (
            "/nonexistent/x.yaml",
            "/nonexistent/x.yaml: there is no such file, name one with -c FILE",
        ),
        (
            "/",
            "cannot read /: Is a directory (os error 21), name a file in it\n",
        ),
        ("/dev/zero", "/dev/zero: the file is over 16 MiB"),
    ] {
        for command in ["check", "run"] {
            let output = evenkeel(&[command, "-c", path]);
            assert!(stderr(&output).starts_with(expected), "{}", stderr(&output));
            assert_eq!(stderr(&output).lines().count(), 1);
            assert_eq!(output.status.code(), Some(1));
        }
    }
}

#[test]
fn wrong_usage_is_told_from_a_wrong_file() {
    for arguments in [
        &[][..],
        &["rnu"],
        &["check", "--listen", "127.0.0.1:0"],
        &[
            "run",
            "-c",
            "x",
            "--listen",
            "127.0.0.1:0",
            "--server",
            "127.0.0.1:1",
        ],
        &["run", "--listen", "127.0.0.1:0"],
        &["run", "--server", "127.0.0.1:1"],
        &["run", "--algorithm", "first"],
        &["run", "--check", "off"],
    ] {
        let output = evenkeel(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn wrong_arguments_are_told_like_wrong_files() {
    let output = evenkeel(&[
        "run",
        "--listen",
        "8080",
        "--server",
        "256.1.1.1:80",
        "--server",
        "1.1.1.1:1@x",
    ]);
    let expected = "\
--listen: `8080` has no host, write *:8080 for every address, 0.0.0.0:8080 for every IPv4 address, [::]:8080 for every IPv6 address
--server: `1.1.1.1:1@x` has the weight `x`, write one from 0 to 256
--server: `256.1.1.1:80` is not an address and its port, write an IP address such as 10.0.0.11:5432
";
    assert_eq!(stderr(&output), expected);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn help_and_version_are_answers() {
    let version = evenkeel(&["--version"]);
    assert_eq!(
        stdout(&version),
        format!("evenkeel {}\n", env!("CARGO_PKG_VERSION"))
    );
    for command in ["run", "check"] {
        assert_eq!(stdout(&evenkeel(&[command, "--version"])), stdout(&version));
    }
    for arguments in [&["--help"][..], &["run", "--help"], &["check", "--help"]] {
        let output = evenkeel(arguments);
        assert!(stdout(&output).contains("Usage: evenkeel"), "{arguments:?}");
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn a_file_and_what_replaces_it_are_not_both_given() {
    for (option, value) in [
        ("--listen", "127.0.0.1:0"),
        ("--server", "127.0.0.1:1"),
        ("--algorithm", "first"),
        ("--check", "off"),
    ] {
        let output = evenkeel(&["run", "-c", "/nonexistent.yaml", option, value]);
        let message = stderr(&output);
        assert!(message.contains("cannot be used with"), "{message}");
        assert!(message.contains("--config <FILE>"), "{message}");
        assert!(message.contains(option), "{message}");
        assert_eq!(output.status.code(), Some(2), "{message}");
    }
}

#[test]
fn a_file_to_check_needs_no_option() {
    let file = &format!("{ROOT}/conf/web.yaml");
    let named = evenkeel(&["check", "-c", file]);
    let bare = evenkeel(&["check", file]);
    assert_eq!(stdout(&bare), stdout(&named));
    assert_eq!(bare.status.code(), Some(0));
    assert_eq!(
        evenkeel(&["check", "-c", file, file]).status.code(),
        Some(2)
    );
}

#[test]
fn a_dash_is_standard_input() {
    let check = |content: &str| {
        let mut stdin = tempfile::tempfile().unwrap();
        stdin.write_all(content.as_bytes()).unwrap();
        stdin.rewind().unwrap();
        let mut command = Command::new(EVENKEEL);
        command.args(["check", "-c", "-"]).stdin(stdin);
        command.output().unwrap()
    };
    let good = check(&fs::read_to_string(format!("{ROOT}/conf/web.yaml")).unwrap());
    assert!(stdout(&good).starts_with("standard input: good, "));
    let bad = stderr(&check("workers: 0"));
    assert!(bad.contains("standard input:1:10: workers: "), "{bad}");
}

#[test]
fn the_exit_code_stands_where_nothing_can_be_printed() {
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    for (arguments, code) in [
        (&["check", "-c", "/nonexistent.yaml"][..], 1),
        (&["run", "--listen", "x", "--server", "x"], 2),
        (&["rnu"], 2),
        (&["--help"], 1),
    ] {
        let mut command = Command::new(EVENKEEL);
        let status = command
            .args(arguments)
            .stdout(full())
            .stderr(full())
            .status();
        assert_eq!(status.unwrap().code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn a_reason_stands_once() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let output = evenkeel(&[
        "run",
        "--listen",
        &listen,
        "--server",
        "127.0.0.1:1",
        "--check=off",
    ]);
    let message = stderr(&output);
    assert_eq!(message.matches("os error 98").count(), 1, "{message}");
    assert_eq!(output.status.code(), Some(1));
}
