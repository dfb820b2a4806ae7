//! The header of the PROXY protocol, versions 1 and 2, read and written: who the client is, said by a
//! proxy in front of us or by us to a server.
//!
//! Reading looks at all that has come so far and remembers nothing, so the result cannot depend on how
//! the bytes were cut. Lengths are those that the header states, checked before anything behind them
//! is looked at; what follows an address within them (TLVs) is passed over unread. Whether the sender
//! may be believed, and how long to wait for it, the caller knows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// The longest header of version 1, its line end included, as the specification has it.
const V1_MAX_BYTES: usize = 107;
/// The longest header that is read: the specification's 64 KiB of TLVs are more than anybody sends.
pub const HEADER_MAX_BYTES: usize = 16 * 1024;

const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_FIXED_BYTES: usize = 16;
const V2_LOCAL: u8 = 0x20;
const V2_PROXY: u8 = 0x21;
const V2_UNSPECIFIED: u8 = 0x00;
const V2_TCP4: u8 = 0x11;
const V2_TCP6: u8 = 0x21;
const V2_UNIX: u8 = 0x31;
/// Two addresses and two ports.
const V2_TCP4_BYTES: usize = 12;
const V2_TCP6_BYTES: usize = 36;
/// Two names of 108 bytes.
const V2_UNIX_BYTES: usize = 216;

/// Which form of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What a header says of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing: the proxy speaks for itself (LOCAL), or has no name for who it speaks for (UNKNOWN).
    /// The addresses of the connection itself hold.
    Unnamed,
    /// A process at the proxy's own machine.
    Unix,
    /// An IPv4 address is always one of its own kind here, never in IPv6 form.
    Ip {
        /// The client.
        source: SocketAddr,
        /// Where the client had connected to.
        destination: SocketAddr,
    },
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// It begins in another way.
    #[error("not a PROXY header")]
    NotProxy,
    /// No end within what a header may have.
    #[error("PROXY header too long")]
    TooLong,
    /// A version 1 line with other words than the specification's.
    #[error("malformed PROXY line")]
    Line,
    /// A command that version 2 does not have, or another version.
    #[error("unknown PROXY version or command")]
    Command,
    /// Not a kind of stream that version 2 knows.
    #[error("unknown PROXY address family")]
    Family,
    /// The stated length leaves no room for the addresses.
    #[error("PROXY addresses cut short")]
    Short,
}

/// Reads the header at the beginning of `received`, which is all that has come so far: what it says and
/// how many bytes it has, or `None` where more are needed. Never asks for more than
/// [`HEADER_MAX_BYTES`].
///
/// # Errors
/// What has come cannot become a header.
pub fn read(received: &[u8]) -> Result<Option<(Origin, usize)>, HeaderError> {
    if begins_like(received, V1_SIGNATURE) {
        read_v1(received)
    } else if begins_like(received, V2_SIGNATURE) {
        read_v2(received)
    } else {
        Err(HeaderError::NotProxy)
    }
}

/// Whether nothing of what has come differs from `signature`.
fn begins_like(received: &[u8], signature: &[u8]) -> bool {
    let common = received.len().min(signature.len());
    received[..common] == signature[..common]
}

fn read_v1(received: &[u8]) -> Result<Option<(Origin, usize)>, HeaderError> {
    let line = &received[..received.len().min(V1_MAX_BYTES)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return match received.len() < V1_MAX_BYTES {
            true => Ok(None),
            false => Err(HeaderError::TooLong),
        };
    };
    let words = line[..end].strip_prefix(V1_SIGNATURE);
    let origin = words.and_then(v1_origin).ok_or(HeaderError::Line)?;
    Ok(Some((origin, end + 2)))
}

/// What stands behind the signature; `None` where it is not as it must be.
fn v1_origin(words: &[u8]) -> Option<Origin> {
    if words == b"UNKNOWN" || words.starts_with(b"UNKNOWN ") {
        // Whatever stands behind it is to be ignored.
        return Some(Origin::Unnamed);
    }
    let mut words = std::str::from_utf8(words).ok()?.split(' ');
    let family = words.next()?;
    let (source, destination) = (words.next()?, words.next()?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    let (source, destination) = match family {
        "TCP4" => (ip::<Ipv4Addr>(source)?, ip::<Ipv4Addr>(destination)?),
        "TCP6" => (ip::<Ipv6Addr>(source)?, ip::<Ipv6Addr>(destination)?),
        _ => return None,
    };
    let origin = origin((source, source_port), (destination, destination_port));
    words.next().is_none().then_some(origin)
}

fn ip<T: std::str::FromStr + Into<IpAddr>>(word: &str) -> Option<IpAddr> {
    word.parse::<T>().ok().map(Into::into)
}

/// Digits alone, without zeros before them: `parse` would take a sign.
fn port(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit());
    let is_short = word == "0" || !word.starts_with('0');
    (is_plain && is_short).then(|| word.parse().ok()).flatten()
}

fn origin(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Origin {
    let plain = |(ip, port): (IpAddr, u16)| SocketAddr::new(ip.to_canonical(), port);
    Origin::Ip {
        source: plain(source),
        destination: plain(destination),
    }
}

fn read_v2(received: &[u8]) -> Result<Option<(Origin, usize)>, HeaderError> {
    let [command, family, high, low] = match received.get(V2_SIGNATURE.len()..V2_FIXED_BYTES) {
        Some(&[command, family, high, low]) => [command, family, high, low],
        _ => return Ok(None),
    };
    if command != V2_LOCAL && command != V2_PROXY {
        return Err(HeaderError::Command);
    }
    let stated = usize::from(u16::from_be_bytes([high, low]));
    let bytes = V2_FIXED_BYTES + stated;
    if bytes > HEADER_MAX_BYTES {
        return Err(HeaderError::TooLong);
    }
    let needed = match family {
        // Of LOCAL nothing else counts, whatever it says.
        _ if command == V2_LOCAL => 0,
        V2_UNSPECIFIED => 0,
        V2_TCP4 => V2_TCP4_BYTES,
        V2_TCP6 => V2_TCP6_BYTES,
        V2_UNIX => V2_UNIX_BYTES,
        // Datagrams cannot have become a stream.
        _ => return Err(HeaderError::Family),
    };
    if stated < needed {
        return Err(HeaderError::Short);
    }
    let addresses = received.get(V2_FIXED_BYTES..bytes);
    Ok(addresses.map(|addresses| (v2_origin(&addresses[..needed]), bytes)))
}

/// `addresses` has as many bytes as its family takes.
fn v2_origin(addresses: &[u8]) -> Origin {
    let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
    match addresses.len() {
        V2_TCP4_BYTES => {
            let ip = |at| IpAddr::from(fixed::<4>(addresses, at));
            origin((ip(0), port(8)), (ip(4), port(10)))
        }
        V2_TCP6_BYTES => {
            let ip = |at| IpAddr::from(fixed::<16>(addresses, at));
            origin((ip(0), port(32)), (ip(16), port(34)))
        }
        V2_UNIX_BYTES => Origin::Unix,
        _ => Origin::Unnamed,
    }
}

fn fixed<const BYTES: usize>(bytes: &[u8], at: usize) -> [u8; BYTES] {
    let mut fixed = [0; BYTES];
    fixed.copy_from_slice(&bytes[at..at + BYTES]);
    fixed
}

/// The header that says what `origin` says. Where the two addresses are not of one kind, an IPv4
/// address takes the form that IPv6 has for it.
#[must_use]
pub fn write(origin: Origin, version: Version) -> Vec<u8> {
    match version {
        Version::V1 => write_v1(origin),
        Version::V2 => write_v2(origin),
    }
}

fn write_v1(origin: Origin) -> Vec<u8> {
    let line = match of_one_kind(origin) {
        Some((source, destination)) => format!(
            "PROXY {} {} {} {} {}\r\n",
            if source.is_ipv4() { "TCP4" } else { "TCP6" },
            source.ip(),
            destination.ip(),
            source.port(),
            destination.port()
        ),
        None => "PROXY UNKNOWN\r\n".to_owned(),
    };
    debug_assert!(line.len() <= V1_MAX_BYTES);
    line.into_bytes()
}

/// Servers take LOCAL for a connection of the proxy itself, about which there is nothing to know; it
/// is what HAProxy sends as well where it has no address.
fn write_v2(origin: Origin) -> Vec<u8> {
    let addresses = of_one_kind(origin);
    let (command, family, bytes) = match addresses {
        Some((source, _)) if source.is_ipv4() => (V2_PROXY, V2_TCP4, V2_TCP4_BYTES),
        Some(_) => (V2_PROXY, V2_TCP6, V2_TCP6_BYTES),
        None => (V2_LOCAL, V2_UNSPECIFIED, 0),
    };
    let stated = u16::try_from(bytes).unwrap_or(u16::MAX);
    let mut header = Vec::with_capacity(V2_FIXED_BYTES + bytes);
    header.extend_from_slice(V2_SIGNATURE);
    header.extend_from_slice(&[command, family]);
    header.extend_from_slice(&stated.to_be_bytes());
    if let Some((source, destination)) = addresses {
        for ip in [source.ip(), destination.ip()] {
            match ip {
                IpAddr::V4(ip) => header.extend_from_slice(&ip.octets()),
                IpAddr::V6(ip) => header.extend_from_slice(&ip.octets()),
            }
        }
        header.extend_from_slice(&source.port().to_be_bytes());
        header.extend_from_slice(&destination.port().to_be_bytes());
    }
    debug_assert_eq!(header.len(), V2_FIXED_BYTES + bytes);
    header
}

/// Source and destination, both of IPv4 or both of IPv6.
fn of_one_kind(origin: Origin) -> Option<(SocketAddr, SocketAddr)> {
    let Origin::Ip {
        source,
        destination,
    } = origin
    else {
        return None;
    };
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (source, destination) = (plain(source), plain(destination));
    if source.is_ipv4() == destination.is_ipv4() {
        return Some((source, destination));
    }
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    Some((mapped(source), mapped(destination)))
}

#[cfg(test)]
mod tests;
