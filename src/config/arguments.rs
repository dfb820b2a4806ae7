//! The command line's way to a configuration: `--listen` and `--server` become the tree of values
//! that a file with one listener and one pool would give, so that the same checks and the same words
//! apply. Only the place of a mistake differs.

use super::mistake::{Mistakes, Place, Wrong, quoted};
use super::tree::{Key, Kind, Node, Path};
use super::{Config, from_tree};

/// What the only listener and the only pool are called in logs and metrics.
const NAME: &str = "default";

const LISTEN: Place = Place::Argument("--listen");
const SERVER: Place = Place::Argument("--server");
const ALGORITHM: Place = Place::Argument("--algorithm");
const CHECK: Place = Place::Argument("--check");

/// What `run` was told instead of a file.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// Each `ADDR`.
    pub listen: Vec<String>,
    /// Each `ADDR` or `ADDR@WEIGHT`.
    pub server: Vec<String>,
    /// The name of an algorithm.
    pub algorithm: Option<String>,
    /// `tcp`, `http:/PATH` or `off`.
    pub check: Option<String>,
}

/// One listener and one pool, both called `default`; everything that was not said has the default
/// that it has in a file.
///
/// # Errors
/// Everything that is wrong with the arguments.
pub fn from_arguments(arguments: &Arguments) -> Result<Config, Mistakes> {
    let mut mistakes = Mistakes::new("evenkeel");
    let root = tree(arguments, &mut mistakes);
    let config = from_tree(&root, &mut mistakes);
    mistakes.or_else_this(config)
}

fn tree(arguments: &Arguments, mistakes: &mut Mistakes) -> Node {
    let addresses = arguments.listen.iter().map(|address| text(LISTEN, address));
    let servers = arguments.server.iter().map(|server| self::server(server));
    let mut pool = vec![("servers", list(SERVER, servers.collect()))];
    if let Some(algorithm) = &arguments.algorithm {
        pool.push(("algorithm", text(ALGORITHM, algorithm)));
    }
    if let Some(check) = &arguments.check {
        pool.push(("health", health(check, mistakes)));
    }
    let listener = vec![
        ("bind", list(LISTEN, addresses.collect())),
        ("pool", text(LISTEN, NAME)),
    ];
    let one = |place, keys| map(place, vec![(NAME, map(place, keys))]);
    let listeners = one(LISTEN, listener);
    let pools = one(SERVER, pool);
    map(LISTEN, vec![("listeners", listeners), ("pools", pools)])
}

/// `ADDR@WEIGHT`: no address has an @ in it.
fn server(argument: &str) -> Node {
    match argument.rsplit_once('@') {
        None => text(SERVER, argument),
        Some((address, weight)) => map(
            SERVER,
            vec![
                ("address", text(SERVER, address)),
                ("weight", text(SERVER, weight)),
            ],
        ),
    }
}

fn health(argument: &str, mistakes: &mut Mistakes) -> Node {
    match argument.split_once(':') {
        None if argument == "off" => text(CHECK, argument),
        None if argument == "tcp" => map(CHECK, vec![("type", text(CHECK, argument))]),
        Some(("http", path)) => {
            let kind = text(CHECK, "http");
            map(CHECK, vec![("type", kind), ("path", text(CHECK, path))])
        }
        _ => {
            let what = format!("{} is not a health check", quoted(argument));
            let wrong = Wrong::new(what, "write tcp, http:/PATH or off");
            mistakes.add(CHECK, &Path::Root, wrong);
            let kind = Kind::Noted;
            Node { place: CHECK, kind }
        }
    }
}

fn text(place: Place, text: &str) -> Node {
    let kind = Kind::Text(text.to_owned());
    Node { place, kind }
}

fn list(place: Place, items: Vec<Node>) -> Node {
    let kind = Kind::List(items);
    Node { place, kind }
}

fn map(place: Place, entries: Vec<(&str, Node)>) -> Node {
    let entry = |(key, node): (&str, Node)| {
        let text = key.to_owned();
        (Key { place, text }, node)
    };
    let kind = Kind::Map(entries.into_iter().map(entry).collect());
    Node { place, kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(listen: &[&str], server: &[&str]) -> Arguments {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Arguments {
            listen: owned(listen),
            server: owned(server),
            ..Arguments::default()
        }
    }

    #[test]
    fn arguments_are_what_a_file_would_say() {
        let written = "
            listeners: {default: {bind: ['127.0.0.1:80', '[::1]:80'], pool: default}}
            pools:
              default:
                algorithm: random
                health: {type: http, path: '/a:b'}
                servers: ['10.0.0.1:80', {address: '[::2]:80', weight: 3}]
        ";
        let given = Arguments {
            algorithm: Some("random".to_owned()),
            check: Some("http:/a:b".to_owned()),
            ..arguments(
                &["127.0.0.1:80", "[::1]:80"],
                &["10.0.0.1:80", "[::2]:80@3"],
            )
        };
        let config = from_arguments(&given).unwrap();
        assert_eq!(config, crate::config::read("x", written).unwrap());
    }

    #[test]
    fn every_mistake_names_its_option() {
        let given = Arguments {
            algorithm: Some("randm".to_owned()),
            check: Some("https:/".to_owned()),
            ..arguments(&["80"], &["10.0.0.1:80@x", "10.0.0.2"])
        };
        let mistakes = from_arguments(&given).unwrap_err().to_string();
        let expected = "\
            --algorithm: `randm` is not an algorithm, write random\n\
            --check: `https:/` is not a health check, write tcp, http:/PATH or off\n\
            --listen: `80` has no host, write 0.0.0.0:80 for every IPv4 address, \"[::]:80\" for every IPv6 address\n\
            --server: `x` is not a whole number, write one from 0 to 256\n\
            --server: `10.0.0.2` has no port, write 10.0.0.2:5432 with the right port\
        ";
        assert_eq!(mistakes, expected);
    }

    #[test]
    fn checks_can_be_turned_off() {
        let check = Some("off".to_owned());
        let given = Arguments {
            check,
            ..arguments(&["127.0.0.1:80"], &["10.0.0.1:80"])
        };
        let config = from_arguments(&given).unwrap();
        assert_eq!(config.pools[0].health, None);
    }
}
