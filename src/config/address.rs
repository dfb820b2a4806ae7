//! Addresses as people write them: `10.0.0.11:5432`, `[2001:db8::1]:80`. Whatever else is written
//! where an address belongs is told what it lacks.
//!
//! Names are not looked up: nothing here waits.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::mistake::{Wrong, quoted};

/// An address to listen at. Port 0 asks the kernel for a free one.
pub(super) fn bind(text: &str) -> Result<SocketAddr, Wrong> {
    let address = socket_address(text, "0.0.0.0:5432")?;
    refuse_mapped(text, address)?;
    Ok(address)
}

/// An address to connect to.
pub(super) fn server(text: &str) -> Result<SocketAddr, Wrong> {
    let address = socket_address(text, "10.0.0.11:5432")?;
    refuse_mapped(text, address)?;
    let port = address.port();
    if port == 0 {
        let remedy = "write the port that the server listens at";
        return Err(Wrong::new(format!("{} has port 0", quoted(text)), remedy));
    }
    if address.ip().is_unspecified() {
        let loopback = match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        let what = format!("{} is no single address", quoted(text));
        let remedy = format!("write {} for this machine", SocketAddr::new(loopback, port));
        return Err(Wrong::new(what, remedy));
    }
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

/// `example` is what an address of this use looks like.
fn socket_address(text: &str, example: &str) -> Result<SocketAddr, Wrong> {
    text.parse().map_err(|_| {
        let (lack, remedy) = lack(text, example);
        Wrong::new(format!("{} {lack}", quoted(text)), remedy)
    })
}

/// What a text lacks to be an address, and what to write.
fn lack(text: &str, example: &str) -> (String, String) {
    // In the order of how often it happens: no port, no host, a name, no brackets.
    let unbracketed = text.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = unbracketed.parse::<IpAddr>() {
        return bare_ip(ip, text, example);
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        let remedy = format!("write HOST:PORT, such as {example}");
        return match text.parse::<u16>() {
            Ok(port) => ("has no host".to_owned(), host_for(port)),
            Err(_) => ("has no port".to_owned(), remedy),
        };
    };
    let Ok(port) = port.parse::<u16>() else {
        let lack = format!("has the port {}", quoted(port));
        return (lack, "write one from 1 to 65535".to_owned());
    };
    if host.is_empty() || host == "*" {
        return ("has no host".to_owned(), host_for(port));
    }
    let inside = host.trim_start_matches('[').trim_end_matches(']');
    if inside.contains(':') {
        let lack = "is not an IPv6 address and its port".to_owned();
        return (lack, "write one such as \"[2001:db8::1]:80\"".to_owned());
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
fn bare_ip(ip: IpAddr, text: &str, example: &str) -> (String, String) {
    let port = example.rsplit(':').next().unwrap_or("80");
    if ip.is_ipv4() || text.starts_with('[') {
        let host = if ip.is_ipv4() {
            ip.to_string()
        } else {
            format!("[{ip}]")
        };
        return (
            "has no port".to_owned(),
            format!("write {host}:{port} with the right port"),
        );
    }
    // `::1:80` is an address as a whole; meant was probably port 80 at `::1`.
    let meant = text.rsplit_once(':').and_then(|(host, port)| {
        let host: Ipv6Addr = host.parse().ok()?;
        Some(SocketAddr::new(IpAddr::V6(host), port.parse().ok()?))
    });
    let remedy = match meant {
        Some(meant) => format!("write \"{meant}\""),
        None => format!("write \"[{ip}]:{port}\" with the right port"),
    };
    ("is an IPv6 address without brackets".to_owned(), remedy)
}

fn host_for(port: u16) -> String {
    format!("write 0.0.0.0:{port} for every IPv4 address, \"[::]:{port}\" for every IPv6 address")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::mistake::{Mistakes, Place};
    use crate::config::tree::Path;

    fn wording(wrong: Wrong) -> String {
        let mut mistakes = Mistakes::new("x");
        mistakes.add(Place::Argument("--x"), &Path::Root, wrong);
        mistakes.to_string()["--x: ".len()..].to_owned()
    }

    #[test]
    fn addresses_are_read() {
        for text in [
            "10.0.0.1:80",
            "127.0.0.1:65535",
            "[::1]:80",
            "[fe80::1%2]:80",
        ] {
            assert_eq!(bind(text).unwrap().to_string(), text);
            assert_eq!(server(text).unwrap().to_string(), text);
        }
        assert_eq!(bind("0.0.0.0:0").unwrap().to_string(), "0.0.0.0:0");
    }

    #[test]
    fn what_is_no_address_is_told_what_it_lacks() {
        for (text, expected) in [
            ("", "`` has no port, write HOST:PORT, such as 0.0.0.0:5432"),
            (
                "10.0.0.1",
                "`10.0.0.1` has no port, write 10.0.0.1:5432 with the right port",
            ),
            (
                "[::1]",
                "`[::1]` has no port, write [::1]:5432 with the right port",
            ),
            (
                "::1",
                "`::1` is an IPv6 address without brackets, write \"[::1]:5432\" with the right port",
            ),
            (
                "::1:80",
                "`::1:80` is an IPv6 address without brackets, write \"[::1]:80\"",
            ),
            (
                "db:99999",
                "`db:99999` has the port `99999`, write one from 1 to 65535",
            ),
            (
                "1.2.3.4:7000-7010",
                "`1.2.3.4:7000-7010` has the port `7000-7010`, write one from 1 to 65535",
            ),
            (
                "db.example.com:80",
                "`db.example.com:80` has the name `db.example.com` for a host, write an IP address such as 0.0.0.0:5432",
            ),
            (
                "1.2.3.400:80",
                "`1.2.3.400:80` is not an address and its port, write an IP address such as 0.0.0.0:5432",
            ),
            (
                "[::x]:80",
                "`[::x]:80` is not an IPv6 address and its port, write one such as \"[2001:db8::1]:80\"",
            ),
            (
                "[::ffff:10.0.0.1]:80",
                "`[::ffff:10.0.0.1]:80` is an IPv4 address in IPv6 form, write 10.0.0.1:80",
            ),
            (
                ":80",
                "`:80` has no host, write 0.0.0.0:80 for every IPv4 address, \"[::]:80\" for every IPv6 address",
            ),
            (
                "80",
                "`80` has no host, write 0.0.0.0:80 for every IPv4 address, \"[::]:80\" for every IPv6 address",
            ),
        ] {
            assert_eq!(wording(bind(text).unwrap_err()), expected);
        }
    }

    #[test]
    fn a_server_is_one_address_with_one_port() {
        for (text, expected) in [
            (
                "10.0.0.1:0",
                "`10.0.0.1:0` has port 0, write the port that the server listens at",
            ),
            (
                "0.0.0.0:80",
                "`0.0.0.0:80` is no single address, write 127.0.0.1:80 for this machine",
            ),
            (
                "[::]:80",
                "`[::]:80` is no single address, write [::1]:80 for this machine",
            ),
        ] {
            assert_eq!(wording(server(text).unwrap_err()), expected);
        }
    }
}
