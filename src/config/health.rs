//! A pool's health checks: which keys belong to which type, which durations fit each other, and the
//! defaults. The part of [`super::check`] that looks at nothing but `health`.

use std::num::NonZeroU32;
use std::time::Duration;

use super::file::{self, CheckKind, HealthKeys};
use super::mistake::{Mistakes, Place, Wrong};
use super::tree::{Located, Path};
use super::{Check, Health, HttpCheck};

const TIMEOUT: Duration = Duration::from_secs(2);
const RISE: NonZeroU32 = NonZeroU32::new(2).expect("it is not zero");
const FALL: NonZeroU32 = NonZeroU32::new(3).expect("it is not zero");

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
        port: keys.port,
        tls: None,
    })
}

/// Notes each key that the type of check would ignore.
fn check_keys(keys: &HealthKeys, kind: CheckKind, path: &Path<'_>, mistakes: &mut Mistakes) {
    use CheckKind::{Http, SendExpect};
    for (key, place, owner) in [
        ("path", place_of(&keys.path), Http),
        ("host", place_of(&keys.host), Http),
        ("expect_status", place_of(&keys.expect_status), Http),
        ("expect_body", place_of(&keys.expect_body), Http),
        ("send", place_of(&keys.send), SendExpect),
        ("expect", place_of(&keys.expect), SendExpect),
    ] {
        let Some(place) = place else { continue };
        if owner != kind {
            let what = format!("{key} has no effect with type {}", kind.name());
            let remedy = format!("write type: {} or remove the key", owner.name());
            mistakes.add(place, &Path::Key(path, key), Wrong::new(what, remedy));
        }
    }
}

fn place_of<T>(key: &Option<Located<T>>) -> Option<Place> {
    key.as_ref().map(|key| key.place)
}

/// What is sent and expected. Keys that are missing or of another type have been noted before.
fn check(keys: &HealthKeys, kind: CheckKind) -> Check {
    let written = |key: &Option<Located<String>>| key.as_ref().map(|key| key.value.clone());
    match kind {
        CheckKind::Tcp => Check::Tcp,
        CheckKind::Http => Check::Http(HttpCheck {
            path: written(&keys.path).unwrap_or_else(|| "/".to_owned()),
            host: written(&keys.host),
            expect_status: match &keys.expect_status {
                Some(ranges) => ranges.value.clone(),
                None => vec![200..=200],
            },
            expect_body: written(&keys.expect_body),
        }),
        CheckKind::SendExpect => Check::SendExpect {
            send: written(&keys.send).unwrap_or_default().into_bytes(),
            expect: written(&keys.expect).unwrap_or_default().into_bytes(),
        },
    }
}
