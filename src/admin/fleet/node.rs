//! Where another evenkeel's `admin.http` is, as people write it: a name or an address, with a port or
//! without.
//!
//! Nothing is looked up here.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Where `admin.http` is in every example.
pub const DEFAULT_PORT: u16 = 9900;

/// What DNS allows, in bytes.
const HOST_BYTES_MAX: usize = 253;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// As it was written.
    text: String,
    /// A name, or an address without brackets.
    host: String,
    port: u16,
}

/// Why a text names no node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotANode(&'static str);

impl Node {
    /// What a resolver takes.
    pub(super) fn place(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Whether an address, and no name, was written.
    pub(super) fn is_address(&self) -> bool {
        self.unscoped().parse::<IpAddr>().is_ok()
    }

    /// The name or address alone, as it would stand in `admin.http_hosts`.
    pub(super) fn host(&self) -> &str {
        self.unscoped()
    }

    /// What the header `Host` says: as dialled, but for the interface of a link-local address, which
    /// means nothing to anybody else.
    pub(super) fn authority(&self) -> String {
        let (host, port) = (self.unscoped(), self.port);
        match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        }
    }

    fn unscoped(&self) -> &str {
        let scoped = self.host.split_once('%');
        scoped.map_or(&self.host, |(address, _)| address)
    }
}

impl From<SocketAddr> for Node {
    fn from(address: SocketAddr) -> Self {
        // Where a link-local address is depends on the interface.
        let host = match address {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
            other => other.ip().to_string(),
        };
        Self {
            text: address.to_string(),
            host,
            port: address.port(),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Node {
    type Err = NotANode;

    fn from_str(text: &str) -> Result<Self, NotANode> {
        if text.contains("://") || text.contains('/') {
            let what = "write HOST or HOST:PORT of its admin.http, without a scheme and a path";
            return Err(NotANode(what));
        }
        let (host, port) = split(text)?;
        let is_odd = |c: char| c.is_whitespace() || c.is_control() || c == '@' || c == ',';
        if host.is_empty() || host.len() > HOST_BYTES_MAX || host.contains(is_odd) {
            let what = "write one HOST, HOST:PORT or [v6]:PORT each, with blanks between them";
            return Err(NotANode(what));
        }
        Ok(Self {
            text: text.to_owned(),
            host: host.to_owned(),
            port,
        })
    }
}

/// Host and port; an IPv6 address may stand alone without brackets.
fn split(text: &str) -> Result<(&str, u16), NotANode> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest
            .split_once(']')
            .filter(|(host, _)| is_v6(host))
            .ok_or(NotANode("write an IPv6 address as [2001:db8::1]:9900"))?;
        return match rest {
            "" => Ok((host, DEFAULT_PORT)),
            rest => port(rest.strip_prefix(':').unwrap_or("")).map(|port| (host, port)),
        };
    }
    match text.split_once(':') {
        None => Ok((text, DEFAULT_PORT)),
        Some(_) if is_v6(text) => Ok((text, DEFAULT_PORT)),
        Some((host, rest)) => port(rest).map(|port| (host, port)),
    }
}

fn is_v6(host: &str) -> bool {
    let (address, _) = host.split_once('%').unwrap_or((host, ""));
    address.parse::<Ipv6Addr>().is_ok()
}

fn port(text: &str) -> Result<u16, NotANode> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| is_digits && *port > 0);
    port.ok_or(NotANode("write a port from 1 to 65535, or none for 9900"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_told_apart() {
        for (text, place, authority) in [
            ("lb1", ("lb1", 9900), "lb1:9900"),
            (
                "lb1.example.com:80",
                ("lb1.example.com", 80),
                "lb1.example.com:80",
            ),
            ("10.0.0.2", ("10.0.0.2", 9900), "10.0.0.2:9900"),
            ("10.0.0.2:1", ("10.0.0.2", 1), "10.0.0.2:1"),
            ("::1", ("::1", 9900), "[::1]:9900"),
            ("[::1]", ("::1", 9900), "[::1]:9900"),
            (
                "[2001:db8::1]:65535",
                ("2001:db8::1", 65535),
                "[2001:db8::1]:65535",
            ),
            (
                "[fe80::1%eth0]:9900",
                ("fe80::1%eth0", 9900),
                "[fe80::1]:9900",
            ),
        ] {
            let node: Node = text.parse().unwrap();
            assert_eq!(node.place(), place, "{text}");
            assert_eq!(node.authority(), authority, "{text}");
            assert_eq!(node.to_string(), text);
        }
    }

    #[test]
    fn an_address_is_asked_as_it_would_be_written() {
        for text in ["10.0.0.2:1", "[::1]:9900", "[fe80::1%2]:9900"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Node::from(address), text.parse().unwrap());
        }
    }

    #[test]
    fn what_is_no_node_is_told_what_to_write() {
        for (text, advice) in [
            ("", "HOST:PORT"),
            (":80", "HOST:PORT"),
            ("a b", "HOST:PORT"),
            ("a,b", "with blanks between"),
            ("user@a", "HOST:PORT"),
            ("a\u{1b}[2J", "HOST:PORT"),
            ("http://lb1:9900", "without a scheme"),
            ("lb1:9900/x", "without a scheme"),
            ("lb1:0", "from 1 to 65535"),
            ("lb1:", "from 1 to 65535"),
            ("lb1:+9", "from 1 to 65535"),
            ("lb1:70000", "from 1 to 65535"),
            ("[::1", "[2001:db8::1]:9900"),
            ("[lb1]:80", "[2001:db8::1]:9900"),
            ("[::1]80", "from 1 to 65535"),
            ("1:2:3", "from 1 to 65535"),
        ] {
            let error = text.parse::<Node>().unwrap_err().to_string();
            assert!(error.contains(advice), "{text}: {error}");
        }
    }
}
