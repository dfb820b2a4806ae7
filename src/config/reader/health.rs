//! The keys of a pool's health checks, of every type together.

use std::time::Duration;

use super::super::checks::CheckKind;
use super::super::file::{Health, HealthKeys};
use super::super::mistake::{Mistakes, Wrong, nearest, quoted};
use super::super::tree::{Kind, Located, Path, Section, items, value};
use super::super::{Tls, elsewhere, terms, words};
use super::plain;

const INTERVAL: Duration = Duration::from_secs(5);

/// The program and what it is given.
const COMMAND_MAX: usize = 100;

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
            mistakes.add(node.place, &path, no_health(text));
            None
        }
        _ => {
            let section = Section::open(node, key.place, &path, mistakes)?;
            Some(Health::On(Box::new(health_keys(section, mistakes))))
        }
    }
}

/// A word that is not `off`: probably a type, which others take alone.
fn no_health(text: &str) -> Wrong {
    let names = CheckKind::ALL.map(CheckKind::name);
    let kind = nearest(text, names.into_iter());
    let remedy = match elsewhere::word(text, &names).or(kind) {
        Some(kind) => format!("write {{type: {kind}}}, or off"),
        None => "write off, or keys such as type: http".to_owned(),
    };
    Wrong::new(format!("{} is not a health check", quoted(text)), remedy)
}

fn health_keys(mut section: Section<'_>, mistakes: &mut Mistakes) -> HealthKeys {
    let host = |text: &str| words::http_word(text, 255);
    let port = |text: &str| words::number(text, 1..=u16::MAX);
    let kind = section.value_or("type", CheckKind::Tcp, mistakes, terms::check_kind);
    let needed = kind.and_then(|kind| needed(kind.value));
    if let Some((key, example)) = needed.filter(|(key, _)| !section.has(key)) {
        let what = format!("the key {key} is missing");
        let wrong = Wrong::new(what, format!("write {key}: {example}"));
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
        user: section.value("user", mistakes, terms::login),
        database: section.value("database", mistakes, terms::login),
        role: section.value("role", mistakes, terms::role),
        password_file: section.value("password_file", mistakes, terms::password_file),
        service: section.value("service", mistakes, terms::service),
        command: command(&mut section, mistakes),
        tls: tls(&mut section, mistakes),
        interval: plain(section.value_or("interval", INTERVAL, mistakes, words::interval)),
        timeout: plain(section.value("timeout", mistakes, words::timeout)),
        rise: plain(section.value("rise", mistakes, terms::times)),
        fall: plain(section.value("fall", mistakes, terms::times)),
        port: section.value("port", mistakes, port),
    };
    section.close(mistakes);
    keys
}

/// The key that a type of check cannot do without, and what is written there.
fn needed(kind: CheckKind) -> Option<(&'static str, &'static str)> {
    match kind {
        CheckKind::SendExpect => Some(("expect", "and the answer")),
        CheckKind::Postgres => Some(("user", "and a role that may log in")),
        CheckKind::Exec => Some(("command", "[/path/program, argument]")),
        CheckKind::Tcp
        | CheckKind::Http
        | CheckKind::Redis
        | CheckKind::Mysql
        | CheckKind::Grpc
        | CheckKind::Agent => None,
    }
}

/// A program by its path, and its arguments, each an item of its own: nobody takes a line apart.
fn command(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Option<Located<Vec<String>>> {
    let (key, node) = section.entry("command")?;
    let path = Path::Key(section.path, &key.text);
    if let Kind::Text(text) = &node.kind {
        let what = format!("{} is a single text, and there is no shell", quoted(text));
        let remedy = "write a list such as [/path/program, argument]";
        mistakes.add(node.place, &path, Wrong::new(what, remedy));
        return None;
    }
    let list = items(node, &path, mistakes)?;
    let wrong = match list.len() {
        0 => Some(Wrong::new("there is no program", "write its path")),
        1..=COMMAND_MAX => None,
        count => {
            let what = format!("there are {count} items");
            Some(Wrong::new(what, format!("write at most {COMMAND_MAX}")))
        }
    };
    if let Some(wrong) = wrong {
        mistakes.add(node.place, &path, wrong);
        return None;
    }
    let read_one = |(index, item)| {
        let read = if index == 0 {
            terms::program
        } else {
            terms::argument
        };
        plain(value(item, &Path::Item(&path, index), mistakes, read))
    };
    // All of them are read before one that cannot be ends it.
    let words: Vec<_> = list.iter().enumerate().map(read_one).collect();
    Some(Located {
        place: node.place,
        value: words.into_iter().collect::<Option<_>>()?,
    })
}

/// True, false, or keys, which mean true.
fn tls(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Option<Located<Option<Tls>>> {
    let (key, node) = section.entry("tls")?;
    let path = Path::Key(section.path, &key.text);
    if let Kind::Text(_) = node.kind {
        let is_wanted = value(node, &path, mistakes, |text| {
            words::truth(text).map_err(|_| {
                let what = format!("{} is neither true nor false", quoted(text));
                Wrong::new(
                    what,
                    "write true, false, or keys such as server_name: web.example.com",
                )
            })
        })?;
        return Some(Located {
            place: node.place,
            value: is_wanted.value.then(Tls::default),
        });
    }
    let mut section = Section::open(node, key.place, &path, mistakes)?;
    let verify = plain(section.value("verify", mistakes, words::truth)).unwrap_or(true);
    let ca = section.value("ca", mistakes, |text| terms::file(text, "ca.pem"));
    let server_name = plain(section.value("server_name", mistakes, terms::server_name));
    section.close(mistakes);
    if let Some(ca) = ca.as_ref().filter(|_| !verify) {
        let wrong = Wrong::new(
            "ca has no effect with verify: false",
            "write verify: true or remove the key",
        );
        mistakes.add(ca.place, &Path::Key(&path, "ca"), wrong);
    }
    let tls = Tls {
        verify,
        ca: plain(ca),
        server_name,
    };
    Some(Located {
        place: node.place,
        value: Some(tls),
    })
}
