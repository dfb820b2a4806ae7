//! Where a server is, as people write it: an address, several ports of one, a host name with a port,
//! or the name of a service (RFC 2782) behind `srv:`.
//!
//! Names are read here and looked up elsewhere, while the process runs: nothing here waits.

use std::net::SocketAddr;
use std::sync::Arc;

use super::mistake::{Place, Wrong, plain, quoted};
use super::{Question, address, elsewhere};
use crate::address::Address;

/// What DNS allows, in bytes: of a name as it is written, and between two dots.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// Before the name of a service.
const SERVICE: &str = "srv:";

/// What stands where a server's address belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// One server.
    Address(Address),
    /// A server at each port, from that of the address to this one. Not written out: a short text may
    /// stand for 65,535 of them, and how many there are altogether is seen later.
    Ports(SocketAddr, u16),
    /// Servers that are still to be found.
    Question(Question),
}

impl Target {
    /// How many servers it is known to be.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Address(_) => 1,
            Self::Ports(first, last) => usize::from(last - first.port()) + 1,
            Self::Question(_) => 0,
        }
    }

    /// Those of the servers that are known.
    pub(super) fn addresses(&self) -> impl Iterator<Item = Address> {
        let (first, last) = match self {
            Self::Address(address) => (Some(address.clone()), None),
            Self::Ports(first, last) => (Some(Address::Ip(*first)), Some((*first, *last))),
            Self::Question(_) => (None, None),
        };
        let rest = last.into_iter().flat_map(|(first, last)| {
            (first.port()..=last).skip(1).map(move |port| {
                let mut address = first;
                address.set_port(port);
                Address::Ip(address)
            })
        });
        first.into_iter().chain(rest)
    }

    pub(super) fn question(&self) -> Option<&Question> {
        match self {
            Self::Question(question) => Some(question),
            Self::Address(_) | Self::Ports(..) => None,
        }
    }
}

/// Reads where a server is; `place` is where it was written.
pub(super) fn target(text: &str, place: Place) -> Result<Target, Wrong> {
    if let Some(name) = text.strip_prefix(SERVICE) {
        return Ok(Target::Question(Question::Service(service(name)?)));
    }
    if let Some(wrong) = capital_service(text).or_else(|| words_behind(text, place)) {
        return Err(wrong);
    }
    if let Some((name, port)) = name_and_port(text) {
        return host_at(text, name, port).map(Target::Question);
    }
    if let Some(wrong) = ports_of_a_name(text) {
        return Err(wrong);
    }
    if let Some((host, first, last)) = port_range(text) {
        return several(text, &format!("{host}:{first}"), last, place);
    }
    Ok(Target::Address(address::server(text, place)?))
}

/// What is wrong with `ADDRESS weight=3`; arguments have another form for it.
fn words_behind(text: &str, place: Place) -> Option<Wrong> {
    let is_file = matches!(place, Place::Text { .. });
    is_file.then(|| elsewhere::server_line(text)).flatten()
}

/// What is wrong with `SRV:`: records are written in capitals elsewhere.
fn capital_service(text: &str) -> Option<Wrong> {
    let (prefix, name) = text.split_at_checked(SERVICE.len())?;
    prefix.eq_ignore_ascii_case(SERVICE).then(|| {
        let what = format!("{} begins with {}", quoted(text), quoted(prefix));
        Wrong::new(what, format!("write {SERVICE}{}", plain(name)))
    })
}

/// What is wrong with `NAME:FIRST-LAST`: how many servers a name is, only its answer says.
fn ports_of_a_name(text: &str) -> Option<Wrong> {
    let (rest, last) = text.rsplit_once('-')?;
    port(last)?;
    name_and_port(rest)?;
    let what = format!("{} has several ports behind a name", quoted(text));
    Some(Wrong::new(what, "write an item for each port"))
}

/// `HOST:FIRST-LAST` where the host is an IP address.
fn port_range(text: &str) -> Option<(&str, u16, u16)> {
    let (host, ports) = text.rsplit_once(':')?;
    let (first, last) = ports.split_once('-')?;
    let (first, last) = (port(first)?, port(last)?);
    let address: SocketAddr = format!("{host}:{first}").parse().ok()?;
    Some((host, address.port(), last))
}

fn several(text: &str, first: &str, last: u16, place: Place) -> Result<Target, Wrong> {
    let address = address::server(first, place)?;
    match address.ip() {
        Some(first) if first.port() <= last => Ok(Target::Ports(first, last)),
        _ => {
            let what = format!("{} runs backwards", quoted(text));
            Err(Wrong::new(what, "write the lower port first"))
        }
    }
}

/// Not by `parse` alone: that takes a sign.
fn port(text: &str) -> Option<u16> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_digits)
}

/// `HOST:PORT` where the host looks like a name. Digits and dots alone are an IP address, or meant to
/// be one.
fn name_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, digits) = text.rsplit_once(':')?;
    let is_name = host.bytes().all(may_be_in_a_name) && !is_numeric(host) && host != "unix";
    Some((host, port(digits)?)).filter(|_| is_name)
}

fn is_numeric(host: &str) -> bool {
    host.bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// Underscores are in no host name by RFC 1123, and in many by use.
fn may_be_in_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_".contains(&byte)
}

fn host_at(text: &str, name: &str, port: u16) -> Result<Question, Wrong> {
    if port == 0 {
        let remedy = "write the port that the server listens at";
        return Err(Wrong::new(format!("{} has port 0", quoted(text)), remedy));
    }
    let name = host_name(name)?;
    Ok(Question::Host { name, port })
}

/// The name of a host as DNS has it: in lower case, without a dot at its end.
pub(super) fn host_name(text: &str) -> Result<Arc<str>, Wrong> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() > NAME_BYTES_MAX {
        let what = format!("the name has {} bytes", name.len());
        return Err(Wrong::new(what, format!("write at most {NAME_BYTES_MAX}")));
    }
    if let Some(long) = name.split('.').find(|label| label.len() > LABEL_BYTES_MAX) {
        let what = format!("the name has {} bytes between two dots", long.len());
        return Err(Wrong::new(what, format!("write at most {LABEL_BYTES_MAX}")));
    }
    if !name.split('.').all(is_label) || is_numeric(name) {
        let what = format!("{} is not a host name", quoted(text));
        return Err(Wrong::new(what, "write one such as db.example.com"));
    }
    Ok(Arc::from(name.to_ascii_lowercase()))
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|byte| may_be_in_a_name(byte) && byte != b'.')
}

/// `_SERVICE._PROTOCOL.DOMAIN`.
fn service(text: &str) -> Result<Arc<str>, Wrong> {
    const REMEDY: &str = "write one such as srv:_pg._tcp.example.com";
    if text.contains(':') {
        let what = format!("{} has a port", quoted(text));
        let remedy = "write the name without it, the answer brings each server's";
        return Err(Wrong::new(what, remedy));
    }
    let is_service = |label: &str| label.len() > 1 && label.starts_with('_');
    let mut labels = text.trim_end_matches('.').split('.');
    let begins = labels.by_ref().take(2).filter(|one| is_service(one));
    if begins.count() < 2 || labels.next().is_none() {
        let what = format!("{} is not the name of a service", quoted(text));
        return Err(Wrong::new(what, REMEDY));
    }
    host_name(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Target, Wrong> {
        target(text, Place::START)
    }

    fn shown(text: &str) -> Option<String> {
        read(text).ok()?.question().map(ToString::to_string)
    }

    #[test]
    fn names_are_questions_in_lower_case_without_a_dot_at_their_end() {
        for (text, expected) in [
            ("db.example.com:5432", "db.example.com:5432"),
            ("DB.Example.com.:5432", "db.example.com:5432"),
            ("localhost:9001", "localhost:9001"),
            ("db_1.my-net:1", "db_1.my-net:1"),
            ("10-0-0-1:80", "10-0-0-1:80"),
            ("3com.com:80", "3com.com:80"),
            ("srv:_pg._tcp.example.com", "srv:_pg._tcp.example.com"),
            ("srv:_PG._tcp.Example.com.", "srv:_pg._tcp.example.com"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_is_neither_a_name_nor_an_address_is_refused() {
        let long = format!("{}:80", "x".repeat(64));
        let longer = format!("{}x:80", "abcdefg.".repeat(32));
        for text in [
            "",
            "db",
            "db:0",
            "db:65536",
            "db:+80",
            "db:7000-7010",
            "-db:80",
            "db-.x:80",
            "a..b:80",
            ".a:80",
            ".:80",
            "a b:80",
            "10.0.0.300:80",
            "256.1.1.1:80",
            "1.2.3:80",
            "1.2.3.4.:80",
            "unix:80",
            "srv:",
            "srv:_pg",
            "srv:_pg._tcp",
            "srv:_pg._tcp.",
            "srv:pg._tcp.a",
            "srv:_._tcp.a",
            "srv:_pg._tcp.a:80",
            "srv:_pg._tcp..a",
            &long,
            &longer,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_range_is_a_server_at_each_port() {
        let shown = |text: &str| -> Vec<String> {
            let target = read(text).unwrap();
            let addresses: Vec<_> = target.addresses().map(|one| one.to_string()).collect();
            assert_eq!(addresses.len(), target.count());
            addresses
        };
        assert_eq!(
            shown("[::1]:7000-7002"),
            ["[::1]:7000", "[::1]:7001", "[::1]:7002"]
        );
        assert_eq!(shown("10.0.0.1:80-80"), ["10.0.0.1:80"]);
        assert_eq!(shown("10.0.0.1:80"), ["10.0.0.1:80"]);
        assert_eq!(read("10.0.0.1:1-65535").unwrap().count(), 65_535);
        for text in [
            "10.0.0.1:81-80",
            "10.0.0.1:0-80",
            "10.0.0.1:80-65536",
            "10.0.0.1:80-",
            "10.0.0.1:-80",
            "10.0.0.1:1-2-3",
            "0.0.0.0:80-81",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
