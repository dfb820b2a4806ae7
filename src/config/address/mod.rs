//! Addresses as people write them: `10.0.0.11:5432`, `[2001:db8::1]:80`, `unix:/run/web.sock`; and
//! several in one where something listens (`bind`). Whatever else is written where an address belongs
//! is told what it lacks.
//!
//! Names are not looked up: nothing here waits.

mod bind;
#[cfg(test)]
mod tests;
mod unix;

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::mistake::{Place, Wrong, quoted};
use crate::address::Address;

pub(super) use bind::{Bind, bind};

/// What an address is for and where it was written: the advice depends on both.
#[derive(Clone, Copy, Debug)]
struct Use {
    purpose: Purpose,
    place: Place,
}

/// Who connects to the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Clients.
    Bind,
    /// Browsers and scripts, mostly of this machine.
    Admin,
    /// We do.
    Server,
    /// We do, to another evenkeel.
    Node,
}

impl Use {
    /// What an address of this use looks like.
    const fn example(self) -> SocketAddr {
        let (ip, port) = match self.purpose {
            Purpose::Bind => (Ipv4Addr::UNSPECIFIED, 5432),
            Purpose::Admin => (Ipv4Addr::LOCALHOST, 9900),
            Purpose::Server => (Ipv4Addr::new(10, 0, 0, 11), 5432),
            Purpose::Node => (Ipv4Addr::new(10, 0, 0, 2), 9900),
        };
        SocketAddr::new(IpAddr::V4(ip), port)
    }

    /// An address as it must be written there: in YAML `[` begins a list, `*` an alias, and in a
    /// shell there are no such quotes.
    fn written(self, address: impl Display) -> String {
        let address = address.to_string();
        let is_special = address.starts_with(['[', '*']);
        let needs_quotes = is_special && matches!(self.place, Place::Text { .. });
        if needs_quotes {
            format!("\"{address}\"")
        } else {
            address
        }
    }
}

/// An address to answer HTTP at. Port 0 asks the kernel for a free one.
pub(super) fn admin(text: &str, place: Place) -> Result<SocketAddr, Wrong> {
    let purpose = Purpose::Admin;
    socket_address(text, Use { purpose, place })
}

/// An address to connect to.
pub(super) fn server(text: &str, place: Place) -> Result<Address, Wrong> {
    let purpose = Purpose::Server;
    let wanted = Use { purpose, place };
    match unix::name(text, wanted) {
        Some(name) => name.map(Address::Unix),
        None => server_ip(text, wanted).map(Address::Ip),
    }
}

/// Where another evenkeel answers HTTP.
pub(super) fn node(text: &str, place: Place) -> Result<SocketAddr, Wrong> {
    let purpose = Purpose::Node;
    server_ip(text, Use { purpose, place })
}

fn server_ip(text: &str, wanted: Use) -> Result<SocketAddr, Wrong> {
    let address = socket_address(text, wanted)?;
    let port = address.port();
    if port == 0 {
        let remedy = match wanted.purpose {
            Purpose::Node => "write the port of its admin.http",
            _ => "write the port that the server listens at",
        };
        return Err(Wrong::new(format!("{} has port 0", quoted(text)), remedy));
    }
    if address.ip().is_unspecified() {
        let loopback = match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        let what = format!("{} is no single address", quoted(text));
        let loopback = wanted.written(SocketAddr::new(loopback, port));
        let remedy = match wanted.purpose {
            Purpose::Node => format!("write the other machine's, such as {}", wanted.example()),
            _ => format!("write {loopback} for this machine"),
        };
        return Err(Wrong::new(what, remedy));
    }
    Ok(address)
}

fn socket_address(text: &str, wanted: Use) -> Result<SocketAddr, Wrong> {
    let address = text.parse().map_err(|_| {
        let (lack, remedy) = foreign(text, wanted).unwrap_or_else(|| lack(text, wanted));
        Wrong::new(format!("{} {lack}", quoted(text)), remedy)
    })?;
    refuse_mapped(text, address)?;
    Ok(address)
}

/// The two families have sockets of their own here, so an IPv4 address must be written as one.
fn refuse_mapped(text: &str, address: SocketAddr) -> Result<(), Wrong> {
    let IpAddr::V6(ip) = address.ip() else {
        return Ok(());
    };
    let Some(mapped) = ip.to_ipv4_mapped() else {
        return Ok(());
    };
    let what = format!("{} is an IPv4 address in IPv6 form", quoted(text));
    let plain = SocketAddr::new(IpAddr::V4(mapped), address.port());
    Err(Wrong::new(what, format!("write {plain}")))
}

/// What does not belong to an address at all: how other programs take one, or several.
fn foreign(text: &str, wanted: Use) -> Option<(String, String)> {
    if text.trim() != text {
        let lack = "begins or ends with a blank".to_owned();
        return Some((lack, "write it without".to_owned()));
    }
    if text.starts_with("unix:") || text.starts_with('/') {
        // Whoever may take one has looked for it before.
        let remedy = format!("write HOST:PORT such as {}", wanted.example());
        let lack = "is a unix socket, which has a key of its own";
        return Some((lack.to_owned(), remedy));
    }
    if let Some((scheme, _)) = text.split_once("://") {
        let scheme = format!("{scheme}://");
        let lack = format!("begins with {}", quoted(&scheme));
        return Some((lack, format!("leave out {}", quoted(&scheme))));
    }
    if text.contains('@') {
        let (lack, remedy) = weight(wanted);
        return Some((lack.to_owned(), remedy.to_owned()));
    }
    if text.contains(',') {
        let remedy = match wanted.place {
            Place::Argument(option) => format!("write {option} before each"),
            Place::Text { .. } => "write a list with each as an item".to_owned(),
        };
        return Some(("is more than one address".to_owned(), remedy));
    }
    None
}

/// Something stands behind an @: where weights belong.
fn weight(wanted: Use) -> (&'static str, &'static str) {
    match (wanted.purpose == Purpose::Server, wanted.place) {
        (true, Place::Argument(_)) => (
            "has more than one weight",
            "write one, as --server ADDR@WEIGHT",
        ),
        (false, Place::Argument(_)) => (
            "has a weight",
            "write it behind a server, as --server ADDR@WEIGHT",
        ),
        (true, Place::Text { .. }) => (
            "has an @ in it",
            "write {address: ADDR, weight: WEIGHT} for a weight",
        ),
        (false, Place::Text { .. }) => (
            "has an @ in it",
            "write an address without a weight: servers alone have one",
        ),
    }
}

/// What a text lacks to be an address, and what to write.
fn lack(text: &str, wanted: Use) -> (String, String) {
    // In the order of how often it happens: no port, no host, a name, no brackets.
    let example = wanted.example();
    let unbracketed = text.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = unbracketed.parse::<IpAddr>() {
        return bare_ip(ip, text, wanted);
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        let remedy = format!("write HOST:PORT, such as {example}");
        return match text.parse::<u16>() {
            Ok(port) => ("has no host".to_owned(), host_for(port, wanted)),
            Err(_) => ("has no port".to_owned(), remedy),
        };
    };
    let Ok(port) = port.parse::<u16>() else {
        let lack = format!("has the port {}", quoted(port));
        return (lack, "write one from 1 to 65535".to_owned());
    };
    if host.is_empty() || host == "*" {
        return ("has no host".to_owned(), host_for(port, wanted));
    }
    if let Ok(ip) = host.parse::<Ipv6Addr>() {
        return without_brackets(ip, Some(port), wanted);
    }
    let inside = host.trim_start_matches('[').trim_end_matches(']');
    if inside.contains(':') {
        let lack = "is not an IPv6 address and its port".to_owned();
        let example = wanted.written("[2001:db8::1]:80");
        return (lack, format!("write one such as {example}"));
    }
    let has_letters = host.bytes().any(|byte| byte.is_ascii_alphabetic());
    let lack = if has_letters {
        format!("has the name {} for a host", quoted(host))
    } else {
        "is not an address and its port".to_owned()
    };
    (lack, format!("write an IP address such as {example}"))
}

/// An IP address with nothing else, or what looks like one because its brackets are missing.
fn bare_ip(ip: IpAddr, text: &str, wanted: Use) -> (String, String) {
    let port = wanted.example().port();
    match ip {
        IpAddr::V6(ip) if !text.starts_with('[') => {
            // `::1:80` is an address as a whole; meant was probably port 80 at `::1`.
            let meant = text.rsplit_once(':').and_then(|(host, port)| {
                let host = host.parse().ok()?;
                Some((host, port.parse().ok()?))
            });
            match meant {
                Some((host, port)) => without_brackets(host, Some(port), wanted),
                None => without_brackets(ip, None, wanted),
            }
        }
        _ => {
            let address = wanted.written(SocketAddr::new(ip, port));
            let remedy = format!("write {address} with the right port");
            ("has no port".to_owned(), remedy)
        }
    }
}

fn without_brackets(ip: Ipv6Addr, port: Option<u16>, wanted: Use) -> (String, String) {
    let address = SocketAddr::new(IpAddr::V6(ip), port.unwrap_or(wanted.example().port()));
    let address = wanted.written(address);
    let remedy = match port {
        Some(_) => format!("write {address}"),
        None => format!("write {address} with the right port"),
    };
    ("is an IPv6 address without brackets".to_owned(), remedy)
}

/// What to put before a port that stands alone.
fn host_for(port: u16, wanted: Use) -> String {
    match wanted.purpose {
        Purpose::Server | Purpose::Node => format!("write an IP address such as 127.0.0.1:{port}"),
        Purpose::Admin => {
            format!(
                "write 127.0.0.1:{port} for this machine, 0.0.0.0:{port} for every IPv4 address"
            )
        }
        Purpose::Bind => {
            let every = wanted.written(format_args!("[::]:{port}"));
            let both = wanted.written(format_args!("*:{port}"));
            format!(
                "write {both} for every address, 0.0.0.0:{port} for every IPv4 address, {every} for every IPv6 address"
            )
        }
    }
}
