//! What differs in health checks, in words. Of a password there is only the path of its file.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::pair::{Thing, duration, or};
use crate::config::health::{plain_as, plain_check_as};
use crate::config::mistake::{plain, quoted};
use crate::config::{
    AgentCheck, Check, ExecCheck, GrpcCheck, Health, HttpCheck, MysqlCheck, PostgresCheck,
    PostgresRole, RedisCheck, Tls,
};
use crate::units::show_duration;

/// Where no other host is named.
const CHECKED: &str = "the checked address";

pub(super) fn diff_health(
    running: Option<&Health>,
    wanted: Option<&Health>,
    thing: &mut Thing<'_>,
) {
    let (Some(running), Some(wanted)) = (running, wanted) else {
        let words = |health: &Option<&Health>| health.map_or("off".to_owned(), health_words);
        thing.key("health", &running, &wanted, words);
        if let Some(wanted) = wanted {
            diff_on(&plain_as(wanted), wanted, thing);
        }
        return;
    };
    diff_on(running, wanted, thing);
}

/// Between two sets of checks that are made.
fn diff_on(running: &Health, wanted: &Health, thing: &mut Thing<'_>) {
    let Health {
        check,
        interval,
        timeout,
        rise,
        fall,
        port,
        tls,
    } = running;
    diff_check(check, &wanted.check, thing);
    diff_tls(tls.as_deref(), wanted.tls.as_deref(), thing);
    thing.key("health.interval", interval, &wanted.interval, duration);
    thing.key("health.timeout", timeout, &wanted.timeout, duration);
    thing.key("health.rise", rise, &wanted.rise, ToString::to_string);
    thing.key("health.fall", fall, &wanted.fall, ToString::to_string);
    let port_words = or("the server's own");
    thing.key("health.port", port, &wanted.port, port_words);
}

fn diff_check(running: &Check, wanted: &Check, thing: &mut Thing<'_>) {
    match (running, wanted) {
        (Check::Http(old), Check::Http(new)) => diff_http(old, new, thing),
        (
            Check::SendExpect { send, expect },
            Check::SendExpect {
                send: new_send,
                expect: new_expect,
            },
        ) => {
            thing.key("health.send", send, new_send, |bytes| bytes_words(bytes));
            thing.key("health.expect", expect, new_expect, |bytes| {
                bytes_words(bytes)
            });
        }
        (Check::Redis(old), Check::Redis(new)) => {
            let RedisCheck { password_file } = old;
            diff_path("password_file", password_file, &new.password_file, thing);
        }
        (Check::Postgres(old), Check::Postgres(new)) => diff_postgres(old, new, thing),
        (Check::Mysql(old), Check::Mysql(new)) => {
            let MysqlCheck {
                user,
                password_file,
            } = old;
            thing.key("health.user", user, &new.user, String::clone);
            diff_path("password_file", password_file, &new.password_file, thing);
        }
        (Check::Grpc(old), Check::Grpc(new)) => {
            let GrpcCheck { service, host } = old;
            thing.key("health.service", service, &new.service, |name| {
                text_words(name)
            });
            thing.key("health.host", host, &new.host, or(CHECKED));
        }
        (Check::Exec(old), Check::Exec(new)) => {
            let ExecCheck { command } = old;
            thing.key("health.command", command, &new.command, |words| {
                command_words(words)
            });
        }
        (Check::Agent(old), Check::Agent(new)) => {
            let AgentCheck { send } = old;
            thing.key("health.send", send, &new.send, |bytes| bytes_words(bytes));
        }
        (Check::Tcp, Check::Tcp) => {}
        _ => {
            thing.key("health.type", running, wanted, check_words);
            // What else is written belongs to the new type alone.
            diff_check(&plain_check_as(wanted), wanted, thing);
        }
    }
}

fn diff_http(running: &HttpCheck, wanted: &HttpCheck, thing: &mut Thing<'_>) {
    let HttpCheck {
        path,
        host,
        expect_status,
        expect_body,
    } = running;
    thing.key("health.path", path, &wanted.path, String::clone);
    thing.key("health.host", host, &wanted.host, or(CHECKED));
    let status = &wanted.expect_status;
    thing.key("health.expect_status", expect_status, status, |ranges| {
        status_words(ranges)
    });
    let body_words = |body: &Option<String>| match body {
        Some(body) => quoted(body),
        None => "any".to_owned(),
    };
    let body = &wanted.expect_body;
    thing.key("health.expect_body", expect_body, body, body_words);
}

fn diff_postgres(running: &PostgresCheck, wanted: &PostgresCheck, thing: &mut Thing<'_>) {
    let PostgresCheck {
        user,
        database,
        role,
        password_file,
    } = running;
    // Nobody is the user where the type is new.
    let user_words = |user: &String| match user.as_str() {
        "" => "none".to_owned(),
        user => user.to_owned(),
    };
    thing.key("health.user", user, &wanted.user, user_words);
    let database_words = or("the user's");
    let new = &wanted.database;
    thing.key("health.database", database, new, database_words);
    let role_word = |role: &PostgresRole| role.name().to_owned();
    thing.key("health.role", role, &wanted.role, role_word);
    diff_path("password_file", password_file, &wanted.password_file, thing);
}

fn diff_tls(running: Option<&Tls>, wanted: Option<&Tls>, thing: &mut Thing<'_>) {
    let (Some(running), Some(wanted)) = (running, wanted) else {
        let is_spoken = |tls: &Option<&Tls>| tls.is_some().to_string();
        thing.key("health.tls", &running, &wanted, is_spoken);
        if let Some(wanted) = wanted {
            diff_tls_on(&Tls::default(), wanted, thing);
        }
        return;
    };
    diff_tls_on(running, wanted, thing);
}

fn diff_tls_on(running: &Tls, wanted: &Tls, thing: &mut Thing<'_>) {
    let Tls {
        verify,
        ca,
        server_name,
    } = running;
    thing.key("health.tls.verify", verify, &wanted.verify, bool::to_string);
    let ca_words = |ca: &Option<PathBuf>| path_words(ca, "the machine's");
    thing.key("health.tls.ca", ca, &wanted.ca, ca_words);
    let new = &wanted.server_name;
    thing.key("health.tls.server_name", server_name, new, or(CHECKED));
}

/// The path alone: nothing reads the file for this.
fn diff_path(
    key: &str,
    running: &Option<PathBuf>,
    wanted: &Option<PathBuf>,
    thing: &mut Thing<'_>,
) {
    let words = |path: &Option<PathBuf>| path_words(path, "none");
    thing.key(&format!("health.{key}"), running, wanted, words);
}

fn path_words(path: &Option<PathBuf>, word: &str) -> String {
    match path {
        Some(path) => path.display().to_string(),
        None => word.to_owned(),
    }
}

/// `/bin/check --max "a b"`: blanks in an argument are seen.
fn command_words(command: &[String]) -> String {
    let word = |word: &String| match word.contains(char::is_whitespace) || word.is_empty() {
        true => format!("{word:?}"),
        false => plain(word),
    };
    let words: Vec<_> = command.iter().map(word).collect();
    words.join(" ")
}

fn text_words(text: &str) -> String {
    bytes_words(text.as_bytes())
}

fn health_words(health: &Health) -> String {
    let interval = show_duration(health.interval);
    format!("{} every {interval}", check_words(&health.check))
}

fn check_words(check: &Check) -> String {
    match check {
        Check::Http(http) => format!("http {}", http.path),
        Check::Exec(exec) => format!("exec {}", command_words(&exec.command)),
        check => check.name().to_owned(),
    }
}

fn bytes_words(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "nothing".to_owned();
    }
    quoted(&String::from_utf8_lossy(bytes))
}

/// `200-299,304`.
fn status_words(ranges: &[RangeInclusive<u16>]) -> String {
    let word = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    let words: Vec<_> = ranges.iter().map(word).collect();
    words.join(",")
}
