//! Networks as people write them: `10.0.0.0/8`, `2001:db8::/32`, or an address alone.
//!
//! Knows neither what they are for nor how they are looked up.

use std::net::IpAddr;

use ipnet::IpNet;

use super::mistake::{Wrong, quoted};
use super::words;

const REMEDY: &str = "write one such as 10.0.0.0/8 or 2001:db8::/32, or an address";

/// A network; an address alone is one of its own.
pub(super) fn network(text: &str) -> Result<IpNet, Wrong> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let Ok(ip) = address.parse::<IpAddr>() else {
        let (lack, remedy) = lack(text, address);
        return Err(Wrong::new(format!("{} {lack}", quoted(text)), remedy));
    };
    let network = match length {
        Some(length) => IpNet::new_assert(ip, prefix(text, ip, length)?),
        None => IpNet::from(ip),
    };
    refuse_mapped(text, network)?;
    if network.trunc() != network {
        let what = format!("{} has bits behind its prefix", quoted(text));
        let remedy = format!("write {} or the address alone", network.trunc());
        return Err(Wrong::new(what, remedy));
    }
    Ok(network)
}

/// How many bits of an address count: at most as many as it has.
fn prefix(text: &str, ip: IpAddr, length: &str) -> Result<u8, Wrong> {
    let most = IpNet::from(ip).max_prefix_len();
    words::number(length, 0..=most).map_err(|_| {
        let what = format!("{} has the prefix length {}", quoted(text), quoted(length));
        let mask = length.parse().ok();
        match mask.and_then(|mask| ipnet::ip_mask_to_prefix(mask).ok()) {
            Some(prefix) if prefix <= most => Wrong::new(what, format!("write {ip}/{prefix}")),
            _ => Wrong::new(what, format!("write one from 0 to {most}")),
        }
    })
}

/// A client that came in over IPv4 has an IPv4 address here, and would never be found in these.
fn refuse_mapped(text: &str, network: IpNet) -> Result<(), Wrong> {
    /// Of `::ffff:0:0/96`, where the IPv4 address begins.
    const MAPPED_BITS: u8 = 96;
    let IpNet::V6(v6) = network else {
        return Ok(());
    };
    let prefix = v6.prefix_len().checked_sub(MAPPED_BITS);
    let (Some(mapped), Some(prefix)) = (v6.addr().to_ipv4_mapped(), prefix) else {
        return Ok(());
    };
    let what = format!("{} is an IPv4 network in IPv6 form", quoted(text));
    let plain = IpNet::new_assert(IpAddr::V4(mapped), prefix).trunc();
    Err(Wrong::new(what, format!("write {plain}")))
}

/// What a text lacks to be a network, and what to write.
fn lack(text: &str, address: &str) -> (&'static str, String) {
    if text.contains(',') {
        let remedy = "write a list with each as an item".to_owned();
        return ("is more than one network", remedy);
    }
    if text.trim() != text {
        return ("begins or ends with a blank", "write it without".to_owned());
    }
    if let Ok(with_port) = address.parse::<std::net::SocketAddr>() {
        let remedy = format!("write {} without it", with_port.ip());
        return ("has a port", remedy);
    }
    let inside = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
    if let Some(Ok(ip)) = inside.map(str::parse::<IpAddr>) {
        return ("has brackets", format!("write {ip} without them"));
    }
    if text.starts_with("unix:") {
        let remedy = "remove it: who may open the socket is a matter of its file".to_owned();
        return ("is a unix socket", remedy);
    }
    ("is not a network", REMEDY.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::mistake::{Mistakes, Place};
    use crate::config::tree::Path;

    fn wording(text: &str) -> String {
        let mut mistakes = Mistakes::new("x");
        let wrong = network(text).unwrap_err();
        mistakes.add(Place::Argument("--x"), &Path::Root, wrong);
        mistakes.to_string()["--x: ".len()..].to_owned()
    }

    #[test]
    fn networks_are_read_as_they_are_shown() {
        for text in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "::/0",
            "2001:db8::/32",
            "192.0.2.1/32",
            "::1/128",
        ] {
            assert_eq!(network(text).unwrap().to_string(), text);
        }
        assert_eq!(network("192.0.2.1").unwrap().to_string(), "192.0.2.1/32");
        assert_eq!(network("::1").unwrap().to_string(), "::1/128");
    }

    #[test]
    fn what_is_no_network_is_told_what_to_write() {
        for (text, expected) in [
            (
                "10.0.0.1/8",
                "`10.0.0.1/8` has bits behind its prefix, write 10.0.0.0/8 or the address alone",
            ),
            (
                "2001:db8::1/32",
                "`2001:db8::1/32` has bits behind its prefix, write 2001:db8::/32 or the address alone",
            ),
            (
                "10.0.0.0/33",
                "`10.0.0.0/33` has the prefix length `33`, write one from 0 to 32",
            ),
            (
                "::/129",
                "`::/129` has the prefix length `129`, write one from 0 to 128",
            ),
            (
                "10.0.0.0/",
                "`10.0.0.0/` has the prefix length ``, write one from 0 to 32",
            ),
            (
                "10.0.0.0/255.0.0.0",
                "`10.0.0.0/255.0.0.0` has the prefix length `255.0.0.0`, write 10.0.0.0/8",
            ),
            (
                "::ffff:10.0.0.0/104",
                "`::ffff:10.0.0.0/104` is an IPv4 network in IPv6 form, write 10.0.0.0/8",
            ),
            (
                "::ffff:10.0.0.1",
                "`::ffff:10.0.0.1` is an IPv4 network in IPv6 form, write 10.0.0.1/32",
            ),
            (
                "10.0.0.1:80",
                "`10.0.0.1:80` has a port, write 10.0.0.1 without it",
            ),
            ("[::1]", "`[::1]` has brackets, write ::1 without them"),
            (
                "10.0.0.1, 10.0.0.2",
                "`10.0.0.1, 10.0.0.2` is more than one network, write a list with each as an item",
            ),
            (
                "localhost",
                "`localhost` is not a network, write one such as 10.0.0.0/8 or 2001:db8::/32, or an address",
            ),
        ] {
            assert_eq!(wording(text), expected);
        }
        for text in [
            "",
            "/",
            "/8",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10/8",
            "fe80::1%2",
            "::/0/0",
        ] {
            assert!(network(text).is_err(), "{text}");
        }
    }
}
