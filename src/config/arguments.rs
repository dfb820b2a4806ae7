//! The command line's way to a configuration: `--listen` and `--server` become the tree of values
//! that a file with one listener and one pool would give, so that the same checks and the same words
//! apply. Only the place of a mistake differs.

use super::mistake::{Mistakes, Place, Wrong, nearest, quoted};
use super::tree::{Key, Kind, Node, Path};
use super::{Config, from_tree, words};

/// What the only listener and the only pool are called in logs and metrics.
const NAME: &str = "default";

const LISTEN: Place = Place::Argument("--listen");
const SERVER: Place = Place::Argument("--server");
const ALGORITHM: Place = Place::Argument("--algorithm");
const CHECK: Place = Place::Argument("--check");
const ADMIN: Place = Place::Argument("--admin");

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
    /// Where HTTP is answered: `ADDR`, or `off`.
    pub admin: Option<String>,
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
    let servers = arguments.server.iter();
    let servers = servers.map(|server| self::server(server, mistakes));
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
    let mut all = vec![("listeners", listeners), ("pools", pools)];
    if let Some(address) = &arguments.admin {
        all.push(("admin", map(ADMIN, vec![("http", text(ADMIN, address))])));
    }
    map(LISTEN, all)
}

/// `ADDR@WEIGHT`: no address has an @ in it but that of `unix:@NAME`.
fn server(argument: &str, mistakes: &mut Mistakes) -> Node {
    let name = argument.strip_prefix("unix:@").unwrap_or(argument);
    let before = argument.len() - name.len();
    let parts = name.find('@').map(|at| argument.split_at(before + at));
    let parts = parts.map(|(address, weight)| (address, &weight[1..]));
    let (address, weight) = match parts {
        Some((address, weight)) if !weight.contains('@') => (address, weight),
        _ => return text(SERVER, argument),
    };
    // Here rather than where a file's weights are read: there is no key that would say what it is.
    let weight = match words::weight(weight) {
        Ok(_) => text(SERVER, weight),
        Err(_) => {
            let what = format!("{} has the weight {}", quoted(argument), quoted(weight));
            let wrong = Wrong::new(what, "write one from 0 to 256");
            noted(SERVER, wrong, mistakes)
        }
    };
    let address = text(SERVER, address);
    map(SERVER, vec![("address", address), ("weight", weight)])
}

fn health(argument: &str, mistakes: &mut Mistakes) -> Node {
    match argument.split_once(':') {
        None if argument == "off" => text(CHECK, argument),
        None if argument == "tcp" => map(CHECK, vec![("type", text(CHECK, argument))]),
        Some(("http", path)) if path.starts_with("//") => {
            let what = format!("{} names a host", quoted(argument));
            noted(CHECK, Wrong::new(what, "write http:/PATH"), mistakes)
        }
        Some(("http", path)) => {
            let kind = text(CHECK, "http");
            map(CHECK, vec![("type", kind), ("path", text(CHECK, path))])
        }
        split => {
            let kind = split.map_or(argument, |(kind, _)| kind);
            let remedy = match nearest(kind, ["tcp", "http", "off"].into_iter()) {
                Some("http") => "write http:/PATH",
                Some("tcp") => "write tcp",
                Some("off") => "write off",
                _ => "write tcp, http:/PATH or off",
            };
            let what = format!("{} is not a health check", quoted(argument));
            noted(CHECK, Wrong::new(what, remedy), mistakes)
        }
    }
}

/// What stands for a value whose mistake has been told.
fn noted(place: Place, wrong: Wrong, mistakes: &mut Mistakes) -> Node {
    mistakes.add(place, &Path::Root, wrong);
    let kind = Kind::Noted;
    Node { place, kind }
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
            listeners: {default: {bind: ['127.0.0.1:80', '[::1]:80', 'unix:/x', '*:81'], pool: default}}
            pools:
              default:
                algorithm: random
                health: {type: http, path: '/a:b'}
                servers:
                  - 10.0.0.1:80
                  - {address: '[::2]:80', weight: 3}
                  - {address: 'db.x:1', weight: 2}
                  - unix:@a
                  - {address: unix:@b, weight: 4}
                  - {address: unix:/c, weight: 5}
        ";
        let given = Arguments {
            algorithm: Some("random".to_owned()),
            check: Some("http:/a:b".to_owned()),
            ..arguments(
                &["127.0.0.1:80", "[::1]:80", "unix:/x", "*:81"],
                &[
                    "10.0.0.1:80",
                    "[::2]:80@3",
                    "db.x:1@2",
                    "unix:@a",
                    "unix:@b@4",
                    "unix:/c@5",
                ],
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
            --check: `https:/` is not a health check, write http:/PATH\n\
            --listen: `80` has no host, write *:80 for every address, 0.0.0.0:80 for every IPv4 address, [::]:80 for every IPv6 address\n\
            --server: `10.0.0.1:80@x` has the weight `x`, write one from 0 to 256\n\
            --server: `10.0.0.2` has no port, write 10.0.0.2:5432 with the right port\
        ";
        assert_eq!(mistakes, expected);
    }

    fn first_mistake(given: &Arguments) -> String {
        let mistakes = from_arguments(given).unwrap_err().to_string();
        mistakes.lines().next().unwrap().to_owned()
    }

    #[test]
    fn a_wrong_server_is_told_as_it_was_written() {
        for (server, expected) in [
            (
                "127.0.0.1:1@257",
                "`127.0.0.1:1@257` has the weight `257`, write one from 0 to 256",
            ),
            (
                "127.0.0.1:1@3@4",
                "`127.0.0.1:1@3@4` has more than one weight, write one, as --server ADDR@WEIGHT",
            ),
            (
                "127.0.0.1:1,127.0.0.1:2",
                "`127.0.0.1:1,127.0.0.1:2` is more than one address, write --server before each",
            ),
            (
                "::1:18080",
                "`::1:18080` is an IPv6 address without brackets, write [::1]:18080",
            ),
            (
                "9001",
                "`9001` has no host, write an IP address such as 127.0.0.1:9001",
            ),
        ] {
            let message = first_mistake(&arguments(&["127.0.0.1:80"], &[server]));
            assert_eq!(message, format!("--server: {expected}"));
        }
        let message = first_mistake(&arguments(&["127.0.0.1:80@3"], &["127.0.0.1:1"]));
        assert_eq!(
            message,
            "--listen: `127.0.0.1:80@3` has a weight, write it behind a server, as --server ADDR@WEIGHT"
        );
    }

    #[test]
    fn a_wrong_check_is_told_how_it_is_written() {
        for (check, remedy) in [
            ("http://x/y", "names a host, write http:/PATH"),
            ("HTTP:/x", "is not a health check, write http:/PATH"),
            ("http", "is not a health check, write http:/PATH"),
            ("OFF", "is not a health check, write off"),
            (
                "icmp:7",
                "is not a health check, write tcp, http:/PATH or off",
            ),
        ] {
            let given = Arguments {
                check: Some(check.to_owned()),
                ..arguments(&["127.0.0.1:80"], &["127.0.0.1:1"])
            };
            assert_eq!(
                first_mistake(&given),
                format!("--check: `{check}` {remedy}")
            );
        }
    }

    #[test]
    fn the_admin_address_is_read_like_that_of_a_file() {
        let with = |admin: &str| Arguments {
            admin: Some(admin.to_owned()),
            ..arguments(&["127.0.0.1:80"], &["127.0.0.1:1"])
        };
        let http = |admin| from_arguments(&with(admin)).unwrap().admin.http;
        assert_eq!(http("127.0.0.1:0"), Some("127.0.0.1:0".parse().unwrap()));
        assert_eq!(http("off"), None);
        for (admin, expected) in [
            (
                "9900",
                "`9900` has no host, write off or 127.0.0.1:9900 for this machine, 0.0.0.0:9900 for every IPv4 address",
            ),
            (
                "localhost:9900",
                "`localhost:9900` has the name `localhost` for a host, write off or an IP address such as 127.0.0.1:9900",
            ),
            (
                "127.0.0.1:80",
                "127.0.0.1:80 is taken by 127.0.0.1:80 in --listen, write another address or port",
            ),
        ] {
            assert_eq!(first_mistake(&with(admin)), format!("--admin: {expected}"));
        }
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
