//! A pool's health checks: which keys belong to which type, which durations fit each other, and the
//! defaults. The part of [`super::check`] that looks at nothing but `health`.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::checks::CheckKind;
use super::file::{self, HealthKeys};
use super::mistake::{Mistakes, Place, Wrong};
use super::tree::{Located, Path};
use super::{
    AgentCheck, Check, ExecCheck, GrpcCheck, Health, HttpCheck, MysqlCheck, PostgresCheck,
    RedisCheck,
};

const TIMEOUT: Duration = Duration::from_secs(2);
const RISE: NonZeroU32 = NonZeroU32::new(2).expect("it is not zero");
const FALL: NonZeroU32 = NonZeroU32::new(3).expect("it is not zero");

/// Who logs in to MySQL where nothing is said: a user that need not exist.
const MYSQL_USER: &str = "evenkeel";

/// The checks that were asked for; `None` is `health: off`, or a mistake that has been noted.
pub(super) fn health(
    written: Option<&file::Health>,
    path: &Path<'_>,
    mistakes: &mut Mistakes,
) -> Option<Health> {
    match written? {
        file::Health::Off => None,
        file::Health::On(keys) => checked_health(keys, path, mistakes),
    }
}

fn checked_health(keys: &HealthKeys, path: &Path<'_>, mistakes: &mut Mistakes) -> Option<Health> {
    let kind = keys.kind?.value;
    check_keys(keys, kind, path, mistakes);
    Some(Health {
        check: check(keys, kind),
        interval: keys.interval?,
        // It may be over the interval: the next check waits for the end of this one.
        timeout: keys.timeout.unwrap_or(TIMEOUT),
        rise: keys.rise.unwrap_or(RISE),
        fall: keys.fall.unwrap_or(FALL),
        port: keys.port.map(|port| port.value),
        tls: keys.tls.clone().and_then(|tls| tls.value).map(Arc::new),
    })
}

/// Checks as often and of the same type as those of `health`, with nothing else written.
pub(super) fn plain_as(health: &Health) -> Health {
    Health {
        check: plain_check_as(&health.check),
        interval: health.interval,
        timeout: TIMEOUT,
        rise: RISE,
        fall: FALL,
        port: None,
        tls: None,
    }
}

/// A check of the same type with nothing written but what messages name it by. Where something has to
/// be written, it is empty.
pub(super) fn plain_check_as(same: &Check) -> Check {
    let mut plain = check(&HealthKeys::default(), same.kind());
    match (&mut plain, same) {
        (Check::Http(plain), Check::Http(same)) => plain.path.clone_from(&same.path),
        (Check::Exec(plain), Check::Exec(same)) => plain.command.clone_from(&same.command),
        _ => {}
    }
    plain
}

/// Notes each key that the type of check would ignore.
fn check_keys(keys: &HealthKeys, kind: CheckKind, path: &Path<'_>, mistakes: &mut Mistakes) {
    use CheckKind::{Agent, Exec, Grpc, Http, Mysql, Postgres, Redis, SendExpect, Tcp};
    let owned: [(&str, Option<Place>, &[CheckKind]); 13] = [
        ("path", place_of(&keys.path), &[Http]),
        ("host", place_of(&keys.host), &[Http, Grpc]),
        ("expect_status", place_of(&keys.expect_status), &[Http]),
        ("expect_body", place_of(&keys.expect_body), &[Http]),
        ("send", place_of(&keys.send), &[SendExpect, Agent]),
        ("expect", place_of(&keys.expect), &[SendExpect]),
        ("user", place_of(&keys.user), &[Postgres, Mysql]),
        ("database", place_of(&keys.database), &[Postgres]),
        ("role", place_of(&keys.role), &[Postgres]),
        (
            "password_file",
            place_of(&keys.password_file),
            &[Redis, Postgres, Mysql],
        ),
        ("service", place_of(&keys.service), &[Grpc]),
        ("command", place_of(&keys.command), &[Exec]),
        ("tls", place_of(&keys.tls), &[Tcp, Http, Grpc]),
    ];
    for (key, place, owners) in owned {
        if let Some(place) = place.filter(|_| !owners.contains(&kind)) {
            let remedy = format!("write type: {} or remove the key", words_of(owners));
            note(key, place, (kind, &remedy), path, mistakes);
        }
    }
    // Every other type connects.
    if let Some(place) = place_of(&keys.port).filter(|_| kind == Exec) {
        note("port", place, (kind, "remove the key"), path, mistakes);
    }
}

/// `http`, `redis, postgres, mysql`: any of them may be written.
fn words_of(kinds: &[CheckKind]) -> String {
    let words: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
    match words.as_slice() {
        [rest @ .., last] if !rest.is_empty() => format!("{} or {last},", rest.join(", ")),
        words => words.concat(),
    }
}

fn note(
    key: &str,
    place: Place,
    (kind, remedy): (CheckKind, &str),
    path: &Path<'_>,
    mistakes: &mut Mistakes,
) {
    let what = format!("{key} has no effect with type {}", kind.name());
    mistakes.add(place, &Path::Key(path, key), Wrong::new(what, remedy));
}

fn place_of<T>(key: &Option<Located<T>>) -> Option<Place> {
    key.as_ref().map(|key| key.place)
}

fn written<T: Clone>(key: &Option<Located<T>>) -> Option<T> {
    key.as_ref().map(|key| key.value.clone())
}

/// What is sent and expected. Keys that are missing or of another type have been noted before.
fn check(keys: &HealthKeys, kind: CheckKind) -> Check {
    let password_file = written(&keys.password_file);
    match kind {
        CheckKind::Tcp => Check::Tcp,
        CheckKind::Http => Check::Http(HttpCheck {
            path: written(&keys.path).unwrap_or_else(|| "/".to_owned()),
            host: written(&keys.host),
            expect_status: written(&keys.expect_status).unwrap_or_else(|| vec![200..=200]),
            expect_body: written(&keys.expect_body),
        }),
        CheckKind::SendExpect => Check::SendExpect {
            send: written(&keys.send).unwrap_or_default().into_bytes(),
            expect: written(&keys.expect).unwrap_or_default().into_bytes(),
        },
        CheckKind::Redis => Check::Redis(RedisCheck { password_file }),
        CheckKind::Postgres => Check::Postgres(PostgresCheck {
            user: written(&keys.user).unwrap_or_default(),
            database: written(&keys.database),
            role: written(&keys.role).unwrap_or_default(),
            password_file,
        }),
        CheckKind::Mysql => Check::Mysql(MysqlCheck {
            user: written(&keys.user).unwrap_or_else(|| MYSQL_USER.to_owned()),
            password_file,
        }),
        CheckKind::Grpc => Check::Grpc(GrpcCheck {
            service: written(&keys.service).unwrap_or_default(),
            host: written(&keys.host),
        }),
        CheckKind::Exec => Check::Exec(ExecCheck {
            command: written(&keys.command).unwrap_or_default(),
        }),
        CheckKind::Agent => Check::Agent(AgentCheck {
            send: written(&keys.send).unwrap_or_default().into_bytes(),
        }),
    }
}
