//! A file with servers in it, for whatever else knows them: one a line, or YAML in the forms of
//! `servers`.
//!
//! ```text
//! # ADDRESS [weight=N] [name=X] [max_connections=N] [backup]
//! 10.0.0.11:5432
//! 10.0.0.12:5432 weight=3 name=db2 backup
//! ```
//! Pure: bytes in, servers or every mistake out. Names of hosts are refused: whoever writes the file
//! may look them up, and a file that is read once a second must not wait for somebody else.

use std::path::Path as FilePath;

use super::check::{SERVERS_MAX, Seen, checked_servers};
use super::file::Server;
use super::found::Found;
use super::mistake::{self, Mistakes, Place, Wrong, quoted, write_one_of};
use super::target::{Target, target};
use super::tree::{Kind, Located, Path, items};
use super::{Question, reader, words, yaml};

const KEYS: [&str; 4] = ["weight", "name", "max_connections", "backup"];

/// Reads the servers of a file, in its order; `path` is what messages call it, and its ending may say
/// that it is YAML.
///
/// # Errors
/// Everything that is wrong with it. No server at all is no mistake.
pub fn read_servers(path: &FilePath, bytes: &[u8]) -> Result<Vec<Found>, Mistakes> {
    let name = super::name_of(path);
    let text = mistake::text(&name, bytes)?;
    let mut mistakes = Mistakes::new(&name);
    let servers = match is_yaml(path, text) {
        true => yaml_servers(text, &mut mistakes),
        false => Some(line_servers(text, &mut mistakes)),
    };
    if let Some(servers) = &servers {
        check(servers, &mut mistakes);
    }
    let found = servers.map(|servers| servers.iter().flat_map(found).collect());
    mistakes.or_else_this(found)
}

/// A line of ours begins with an address, which no dash does.
fn is_yaml(path: &FilePath, text: &str) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    let is_written = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let first = text.lines().map(str::trim).find(is_written);
    matches!(ending, Some("yaml" | "yml")) || first.is_some_and(|line| line.starts_with('-'))
}

fn yaml_servers(text: &str, mistakes: &mut Mistakes) -> Option<Vec<Server>> {
    let root = yaml::parse(text, mistakes)?;
    if let Kind::Nothing = root.kind {
        return Some(Vec::new());
    }
    let list = items(&root, &Path::Root, mistakes)?.iter().enumerate();
    let read_one = |(index, node)| reader::server(node, &Path::Item(&Path::Root, index), mistakes);
    Some(list.filter_map(read_one).collect())
}

fn line_servers(text: &str, mistakes: &mut Mistakes) -> Vec<Server> {
    let lines = (1..).zip(text.lines());
    lines
        .filter_map(|(number, line)| line_server(number, line, mistakes))
        .collect()
}

/// `None` for a line without a server, and where a mistake was noted.
fn line_server(line: u32, text: &str, mistakes: &mut Mistakes) -> Option<Server> {
    let written = text.split('#').next().unwrap_or_default();
    let mut words = words_of(line, written);
    let (place, word) = words.next()?;
    if word == "-" {
        // Everything behind it is of a form that this file has not.
        let remedy = "write ADDRESS [weight=N] as in the first line, or a dash before each line";
        let wrong = Wrong::new("the line begins with a dash", remedy);
        mistakes.add(place, &Path::Root, wrong);
        return None;
    }
    let target = target(word, place);
    let mut server = target.map(|target| plain(place, target));
    for (place, word) in words {
        // What cannot be a server may have more mistakes behind it.
        let mut unread = plain(place, Target::Question(Question::Service("".into())));
        if let Err(wrong) = option(word, place, server.as_mut().unwrap_or(&mut unread)) {
            mistakes.add(place, &Path::Root, wrong);
        }
    }
    server
        .map_err(|wrong| mistakes.add(place, &Path::Root, wrong))
        .ok()
}

/// The words of a line with their places.
fn words_of(line: u32, text: &str) -> impl Iterator<Item = (Place, &str)> {
    let mut rest = text;
    let mut column: u32 = 1;
    std::iter::from_fn(move || {
        let word_start = rest.find(|c: char| !c.is_whitespace())?;
        let from_word = &rest[word_start..];
        let end = from_word
            .find(char::is_whitespace)
            .unwrap_or(from_word.len());
        let (word, after) = from_word.split_at(end);
        let count = |text: &str| u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        let place = Place::Text {
            line,
            column: column.saturating_add(count(&rest[..word_start])),
        };
        column = column.saturating_add(count(&rest[..word_start + end]));
        rest = after;
        Some((place, word))
    })
}

fn plain(place: Place, value: Target) -> Server {
    Server {
        name: None,
        address: Located { place, value },
        weight: None,
        max_connections: None,
        backup: None,
    }
}

/// Sets what one word behind the address says.
fn option(word: &str, place: Place, server: &mut Server) -> Result<(), Wrong> {
    let (key, value) = match word.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (word, None),
    };
    match (key, value) {
        ("backup", None | Some("true")) => server.backup = Some(true),
        ("backup", Some(value)) => server.backup = Some(words::truth(value)?),
        ("weight", Some(value)) => server.weight = Some(words::weight(value)?),
        ("max_connections", Some(value)) => server.max_connections = Some(reader::count(value)?),
        ("name", Some(value)) => {
            let value = words::name(value)?;
            server.name = Some(Located { place, value });
        }
        (key, None) if KEYS.contains(&key) => {
            let what = format!("{} has no value", quoted(key));
            return Err(Wrong::new(what, format!("write {key}=VALUE")));
        }
        (key, _) => {
            let what = format!("unknown word {}", quoted(key));
            return Err(Wrong::new(what, write_one_of(key, &KEYS)));
        }
    }
    Ok(())
}

/// Addresses and names are there once, and not too many; and names of hosts not at all.
fn check(servers: &[Server], mistakes: &mut Mistakes) {
    let counts = servers.iter().map(|server| server.address.value.count());
    let count: usize = counts.sum();
    if count > SERVERS_MAX {
        let what = format!("there are {count} servers");
        let wrong = Wrong::new(what, format!("write at most {SERVERS_MAX}"));
        mistakes.add(Place::START, &Path::Root, wrong);
        return;
    }
    let mut seen = Seen::default();
    for server in servers {
        let name = server.address.value.question().map(|name| {
            let what = format!("{} has to be looked up", quoted(&name.to_string()));
            let remedy = "write its addresses, or the name under servers of the pool";
            (server.address.place, Wrong::new(what, remedy))
        });
        if let Some((place, wrong)) = name.or_else(|| seen.wrong(server)) {
            mistakes.add(place, &Path::Root, wrong);
        }
    }
}

/// The servers of an item; without a name of their own they are called by their addresses, as
/// everywhere.
fn found(item: &Server) -> impl Iterator<Item = Found> {
    checked_servers(item).map(|server| Found {
        name: item.name.is_some().then_some(server.name),
        address: server.address,
        weight: item.weight,
        max_connections: item.max_connections,
        backup: server.backup,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, text: &str) -> Result<Vec<Found>, String> {
        read_servers(FilePath::new(path), text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_is_a_server() {
        let text = "# ours\n\n10.0.0.1:80\n [::1]:81\tweight=0 name=b # old\n\
                    10.0.0.2:80 backup max_connections=7\r\n10.0.0.3:80 backup=false\n";
        let servers = read("s", text).unwrap();
        let lines: Vec<_> = servers
            .iter()
            .map(|s| {
                let max = s.max_connections.map_or(0, std::num::NonZeroU32::get);
                format!(
                    "{} {:?} {:?} {max} {}",
                    s.address, s.name, s.weight, s.backup
                )
            })
            .collect();
        let wanted = [
            "10.0.0.1:80 None None 0 false",
            "[::1]:81 Some(\"b\") Some(0) 0 false",
            "10.0.0.2:80 None None 7 true",
            "10.0.0.3:80 None None 0 false",
        ];
        assert_eq!(lines, wanted);
    }

    #[test]
    fn yaml_has_the_forms_of_a_config() {
        let text =
            "# x\n- 10.0.0.1:80\n- {address: 10.0.0.2:80, name: b, weight: 3, backup: true}\n";
        let servers = read("s", text).unwrap();
        assert_eq!(servers[1].name.as_deref(), Some("b"));
        assert_eq!((servers[1].weight, servers[1].backup), (Some(3), true));
        assert_eq!(read("s.yaml", "[10.0.0.1:80]").unwrap().len(), 1);
        assert_eq!(read("s.yml", "# nobody\n").unwrap(), []);
    }

    #[test]
    fn no_server_is_no_mistake() {
        assert_eq!(read("s", "").unwrap(), []);
        assert_eq!(read("s", "# 10.0.0.1:80\n\n").unwrap(), []);
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let text = "10.0.0.1:80 wieght=3\nexample\n10.0.0.2:80  weight=300 nmae\n\
                    10.0.0.3:80 weight\n10.0.0.4:80 name=a\n10.0.0.4:80\n\
                    10.0.0.5:80 name=a\ndb.example.com:80\n";
        let told = read("s", text).unwrap_err();
        let starts = [
            "s:1:13: unknown word `wieght`, write weight",
            "s:2:1: `example` has no port",
            "s:3:14: `300` is out of range",
            "s:3:25: unknown word `nmae`, write name",
            "s:4:13: `weight` has no value, write weight=VALUE",
            "s:6:1: 10.0.0.4:80 is a server in line 5 already",
            "s:7:13: `a` is a server's name in line 5 already",
            "s:8:1: `db.example.com:80` has to be looked up, write its addresses",
        ];
        for (line, start) in told.lines().zip(starts) {
            assert!(line.starts_with(start), "{line}\n{start}");
        }
        assert_eq!(told.lines().count(), starts.len(), "{told}");
    }

    #[test]
    fn two_forms_in_one_file_are_one_mistake_a_line() {
        let told = read("s", "10.0.0.1:80\n- {address: 10.0.0.2:80}\n").unwrap_err();
        assert!(
            told.starts_with("s:2:1: the line begins with a dash, write"),
            "{told}"
        );
        assert_eq!(told.lines().count(), 1, "{told}");
    }

    #[test]
    fn what_is_no_text_is_told() {
        let told = read_servers(FilePath::new("s"), b"10.0.0.1:80\n\xff").unwrap_err();
        assert!(
            told.to_string().starts_with("s:2:1: the byte 0xff"),
            "{told}"
        );
        assert!(read("s.yaml", "a: {b: [").is_err());
        assert!(read("s.yaml", "servers: [10.0.0.1:80]").is_err());
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_written_is_read_or_refused(
            words in proptest::collection::vec(0..WORDS.len(), 0..40),
            noise in ".{0,20}",
        ) {
            let words = words.into_iter().map(|word| WORDS[word]);
            let text: String = words.chain([noise.as_str()]).collect();
            for path in ["s", "s.yaml"] {
                let Ok(servers) = read(path, &text) else { continue };
                for (place, server) in servers.iter().enumerate() {
                    let before = &servers[..place];
                    assert!(before.iter().all(|other| other.address != server.address));
                }
            }
        }
    }

    const WORDS: [&str; 16] = [
        "10.0.0.1:80",
        "[::1]:80",
        "10.0.0.2:1-9",
        "unix:/x",
        "db.x:80",
        "srv:_a._b.c",
        " ",
        "\n",
        "\n- ",
        "weight=",
        "name=a",
        "backup",
        "max_connections=7",
        "#",
        "{address: ",
        "}",
    ];
}
