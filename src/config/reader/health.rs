//! The keys of a pool's health checks, of every type together.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::file::{CheckKind, Health, HealthKeys};
use super::super::mistake::{Mistakes, Wrong, quoted};
use super::super::tree::{Kind, Path, Section};
use super::super::words;
use super::plain;

const INTERVAL: Duration = Duration::from_secs(5);
/// Answers in a row: at the default interval, a thousand are more than an hour.
const TIMES_MAX: NonZeroU32 = NonZeroU32::new(1000).expect("it is not zero");

/// `off`, or keys; absent is the same as no keys.
pub(super) fn health(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Option<Health> {
    let path = Path::Key(section.path, "health");
    let Some((key, node)) = section.entry("health") else {
        let absent = Section::empty(section.place, &path);
        return Some(Health::On(Box::new(health_keys(absent, mistakes))));
    };
    match &node.kind {
        Kind::Text(text) if text == "off" => Some(Health::Off),
        Kind::Text(text) => {
            let what = format!("{} is not a health check", quoted(text));
            let remedy = format!("write off, or type: {text} on a line of its own below");
            let is_type = CheckKind::ALL.iter().any(|kind| kind.name() == text);
            let remedy = if is_type {
                &remedy
            } else {
                "write off, or keys such as type: http"
            };
            mistakes.add(node.place, &path, Wrong::new(what, remedy));
            None
        }
        _ => {
            let section = Section::open(node, key.place, &path, mistakes)?;
            Some(Health::On(Box::new(health_keys(section, mistakes))))
        }
    }
}

fn health_keys(mut section: Section<'_>, mistakes: &mut Mistakes) -> HealthKeys {
    let host = |text: &str| words::http_word(text, 255);
    let times = |text: &str| words::number(text, NonZeroU32::MIN..=TIMES_MAX);
    let port = |text: &str| words::number(text, 1..=u16::MAX);
    let kind = section.value_or("type", CheckKind::Tcp, mistakes, check_kind);
    let needs_expect = kind.is_some_and(|kind| kind.value == CheckKind::SendExpect);
    if needs_expect && !section.has("expect") {
        let wrong = Wrong::new("the key expect is missing", "write expect: and the answer");
        mistakes.add(section.place, section.path, wrong);
    }
    let keys = HealthKeys {
        kind,
        path: section.value("path", mistakes, words::http_path),
        host: section.value("host", mistakes, host),
        expect_status: section.value("expect_status", mistakes, words::status_list),
        expect_body: section.value("expect_body", mistakes, words::content),
        send: section.value("send", mistakes, words::content),
        expect: section.value("expect", mistakes, words::content),
        interval: plain(section.value_or("interval", INTERVAL, mistakes, words::interval)),
        timeout: plain(section.value("timeout", mistakes, words::timeout)),
        rise: plain(section.value("rise", mistakes, times)),
        fall: plain(section.value("fall", mistakes, times)),
        port: plain(section.value("port", mistakes, port)),
    };
    section.close(mistakes);
    keys
}

fn check_kind(text: &str) -> Result<CheckKind, Wrong> {
    let found = CheckKind::ALL.into_iter().find(|kind| kind.name() == text);
    found.ok_or_else(|| {
        let names = CheckKind::ALL.map(CheckKind::name);
        words::unknown_word(text, "a type of check", &names)
    })
}
