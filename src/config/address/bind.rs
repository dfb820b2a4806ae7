//! What `bind` takes: an address, the same address with a range of ports (`0.0.0.0:7000-7010`), every
//! address of the machine (`*:80`), or a unix socket.
//!
//! Nothing is written out before somebody asks for it: a short text may stand for 131,070 addresses.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use super::super::mistake::{Place, Wrong, quoted};
use super::super::words;
use super::{Purpose, Use, foreign, lack, refuse_mapped, socket_address, unix};
use crate::address::{Address, UnixName};

/// Behind it comes a port: every address of the machine, of both families.
const EVERY: &str = "*:";

/// The addresses that one text stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) enum Bind {
    /// Each of these ports at each of these.
    Ports {
        /// With the first port; the two families' wildcards, or one address.
        hosts: Vec<SocketAddr>,
        /// Either 0 alone, which asks the kernel for a free one at each host, or without 0.
        ports: RangeInclusive<u16>,
    },
    /// One socket.
    Unix(UnixName),
}

impl Bind {
    /// How many addresses there are.
    pub(in crate::config) fn count(&self) -> usize {
        match self {
            Self::Ports { hosts, ports } => hosts.len() * ports.len(),
            Self::Unix(_) => 1,
        }
    }

    /// Every address, all of a host's before the next host's.
    pub(in crate::config) fn addresses(&self) -> impl Iterator<Item = Address> {
        let (hosts, ports, unix) = match self {
            Self::Ports { hosts, ports } => (&**hosts, ports.clone(), None),
            Self::Unix(name) => (&[][..], 0..=0, Some(Address::Unix(name.clone()))),
        };
        let with_ports = move |host: &SocketAddr| {
            let mut host = *host;
            ports.clone().map(move |port| {
                host.set_port(port);
                Address::Ip(host)
            })
        };
        hosts.iter().flat_map(with_ports).chain(unix)
    }
}

/// Addresses to listen at.
pub(in crate::config) fn bind(text: &str, place: Place) -> Result<Bind, Wrong> {
    let purpose = Purpose::Bind;
    let wanted = Use { purpose, place };
    if let Some(name) = unix::name(text, wanted) {
        return name.map(Bind::Unix);
    }
    if let Some((host, ports)) = range(text) {
        let ports = read_ports(text, ports)?;
        let hosts = hosts_of_range(text, host, *ports.start(), wanted)?;
        return Ok(Bind::Ports { hosts, ports });
    }
    let hosts = match every(text) {
        Some(hosts) => hosts,
        None => vec![socket_address(text, wanted)?],
    };
    let port = hosts[0].port();
    let ports = port..=port;
    Ok(Bind::Ports { hosts, ports })
}

/// The host, and what stands for the ports, where those are digits around a dash.
fn range(text: &str) -> Option<(&str, &str)> {
    let (host, ports) = text.rsplit_once(':')?;
    let is_range = ports.contains('-') && ports.bytes().all(|b| b == b'-' || b.is_ascii_digit());
    is_range.then_some((host, ports))
}

fn read_ports(text: &str, ports: &str) -> Result<RangeInclusive<u16>, Wrong> {
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let port = |text: &str| words::number(text, 1..=u16::MAX).ok();
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        (Some(first), Some(last)) => {
            let what = format!("{} has the ports {}", quoted(text), quoted(ports));
            let remedy = format!("write the lower one first: {last}-{first}");
            Err(Wrong::new(what, remedy))
        }
        _ => {
            let what = format!("{} has the ports {}", quoted(text), quoted(ports));
            Err(Wrong::new(
                what,
                "write two from 1 to 65535, such as 7000-7010",
            ))
        }
    }
}

/// Where a range of ports is, each with the first of them.
fn hosts_of_range(
    text: &str,
    host: &str,
    first: u16,
    wanted: Use,
) -> Result<Vec<SocketAddr>, Wrong> {
    let alone = format!("{host}:{first}");
    if let Some(hosts) = every(&alone) {
        return Ok(hosts);
    }
    let address = alone.parse().map_err(|_| {
        let (lack, remedy) = foreign(text, wanted).unwrap_or_else(|| lack(&alone, wanted));
        Wrong::new(format!("{} {lack}", quoted(text)), remedy)
    })?;
    refuse_mapped(text, address)?;
    Ok(vec![address])
}

/// The wildcards of both families: sockets for IPv6 take no IPv4 here.
fn every(text: &str) -> Option<Vec<SocketAddr>> {
    let port = words::number(text.strip_prefix(EVERY)?, 0..=u16::MAX).ok()?;
    Some(vec![
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
    ])
}
