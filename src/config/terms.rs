//! Single values of pools and of health checks that are words, addresses or paths, beside those of
//! [`super::words`], which has the ones that every part of the file shares.
//!
//! Each function knows one kind of value and no key.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::checks::CheckKind;
use super::mistake::{Wrong, quoted};
use super::target::host_name;
use super::words::{self, file_path, is_path, unknown_word};
use super::{PostgresRole, SendProxy};

/// Of a user, a database, a gRPC service: more than any of the servers takes.
const WORD_BYTES_MAX: usize = 255;

/// In a row, of answers or failures.
const TIMES_MAX: NonZeroU32 = NonZeroU32::new(1000).expect("it is not zero");

/// Whether servers are told of the client.
pub(super) fn send_proxy(text: &str) -> Result<SendProxy, Wrong> {
    let found = SendProxy::ALL.into_iter().find(|one| one.name() == text);
    found.ok_or_else(|| {
        // None of them is near to another number.
        let what = format!("{} is neither off, v1 nor v2", quoted(text));
        Wrong::new(what, "write off, v1 or v2")
    })
}

/// Which PostgreSQL servers pass.
pub(super) fn role(text: &str) -> Result<PostgresRole, Wrong> {
    one_of(text, "a role", PostgresRole::ALL, PostgresRole::name)
}

/// A check's type.
pub(super) fn check_kind(text: &str) -> Result<CheckKind, Wrong> {
    one_of(text, "a type of check", CheckKind::ALL, CheckKind::name)
}

fn one_of<T: Copy, const N: usize>(
    text: &str,
    kind: &str,
    all: [T; N],
    name: fn(T) -> &'static str,
) -> Result<T, Wrong> {
    let found = all.into_iter().find(|one| name(*one) == text);
    found.ok_or_else(|| unknown_word(text, kind, &all.map(name)))
}

/// So many in a row: at a second each, a thousand are a quarter of an hour.
pub(super) fn times(text: &str) -> Result<NonZeroU32, Wrong> {
    words::number(text, NonZeroU32::MIN..=TIMES_MAX)
}

/// How often names are looked up: a resolver keeps an answer for seconds at least.
pub(super) fn resolve(text: &str) -> Result<Duration, Wrong> {
    words::duration_from(Duration::from_secs(1), text)
}

/// One of our own addresses, to connect from.
pub(super) fn source(text: &str) -> Result<IpAddr, Wrong> {
    const REMEDY: &str = "write one of this machine's, such as 10.0.0.5";
    if let Ok(address) = text.parse::<SocketAddr>() {
        let what = format!("{} has a port", quoted(text));
        return Err(Wrong::new(what, format!("write {}", address.ip())));
    }
    let Ok(ip) = text.parse::<IpAddr>() else {
        let what = format!("{} is not an IP address", quoted(text));
        return Err(Wrong::new(what, REMEDY));
    };
    if let IpAddr::V6(ip) = ip
        && let Some(mapped) = ip.to_ipv4_mapped()
    {
        let what = format!("{} is an IPv4 address in IPv6 form", quoted(text));
        return Err(Wrong::new(what, format!("write {mapped}")));
    }
    if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        let what = format!("{} is no address of a machine", quoted(text));
        return Err(Wrong::new(what, REMEDY));
    }
    Ok(ip)
}

/// The path of a file; `example` is what one may be called.
pub(super) fn file(text: &str, example: &str) -> Result<PathBuf, Wrong> {
    if is_path(text) {
        return file_path(text, example);
    }
    let what = format!("{} is not a path", quoted(text));
    let remedy = format!("write one such as ./{example}, or remove the key");
    Err(Wrong::new(what, remedy))
}

/// The file that holds a password.
pub(super) fn password_file(text: &str) -> Result<PathBuf, Wrong> {
    file(text, "password")
}

/// Who logs in, or where: the protocols end such a text with a NUL.
pub(super) fn login(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.len() > WORD_BYTES_MAX {
        let what = format!("this has {} bytes", text.len());
        return Err(Wrong::new(what, format!("write 1 to {WORD_BYTES_MAX}")));
    }
    if text.contains(char::is_control) {
        let what = format!("{} has a control character in it", quoted(text));
        return Err(Wrong::new(what, "write it without"));
    }
    Ok(text.to_owned())
}

/// The name of a gRPC service; empty is the server as a whole.
pub(super) fn service(text: &str) -> Result<String, Wrong> {
    if text.is_empty() {
        return Ok(String::new());
    }
    words::http_word(text, WORD_BYTES_MAX)
}

/// What a certificate must be for: a host name, or an address.
pub(super) fn server_name(text: &str) -> Result<Arc<str>, Wrong> {
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok(Arc::from(ip.to_string())),
        Err(_) => host_name(text),
    }
}

/// A program that is run: by its whole path, because there is no shell to look it up.
pub(super) fn program(text: &str) -> Result<String, Wrong> {
    if !text.starts_with('/') || text.ends_with('/') {
        let what = format!("{} is not the whole path of a program", quoted(text));
        return Err(Wrong::new(what, "write one such as /usr/local/bin/check"));
    }
    argument(text)
}

/// What a program is given; a NUL ends it for the kernel.
pub(super) fn argument(text: &str) -> Result<String, Wrong> {
    const BYTES_MAX: usize = 4096;
    if text.len() > BYTES_MAX {
        let what = format!("this has {} bytes", text.len());
        return Err(Wrong::new(what, format!("write at most {BYTES_MAX}")));
    }
    if text.contains('\0') {
        let what = format!("{} has a NUL in it", quoted(text));
        return Err(Wrong::new(what, "write it without"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_that_there_are() {
        assert_eq!(send_proxy("v2"), Ok(SendProxy::V2));
        assert_eq!(role("replica"), Ok(PostgresRole::Replica));
        for kind in CheckKind::ALL {
            assert_eq!(check_kind(kind.name()), Ok(kind));
        }
        assert!(send_proxy("2").is_err());
        assert!(role("master").is_err());
        assert!(check_kind("pgsql").is_err());
    }

    #[test]
    fn a_source_is_an_address_that_a_machine_can_have() {
        assert_eq!(source("10.0.0.5"), Ok("10.0.0.5".parse().unwrap()));
        assert_eq!(source("2001:db8::5"), Ok("2001:db8::5".parse().unwrap()));
        for text in [
            "",
            "eth0",
            "10.0.0.5:0",
            "[::1]:1",
            "[::1]",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "::ffff:10.0.0.5",
            "10.0.0.0/8",
        ] {
            assert!(source(text).is_err(), "{text}");
        }
    }

    #[test]
    fn programs_and_logins_fit_what_they_are_for() {
        assert!(program("/usr/bin/check").is_ok());
        for text in ["", "check", "./check", "/usr/bin/", "/a\0b"] {
            assert!(program(text).is_err(), "{text}");
        }
        assert!(argument("").is_ok());
        assert!(argument(&"x".repeat(4097)).is_err());
        assert!(login("lb user").is_ok());
        for text in ["", "a\0b", "a\nb", &"x".repeat(256)] {
            assert!(login(text).is_err(), "{text}");
        }
        assert_eq!(service("").as_deref(), Ok(""));
        assert!(service("a b").is_err());
        assert_eq!(server_name("DB.x").as_deref(), Ok("db.x"));
        assert_eq!(server_name("::0001").as_deref(), Ok("::1"));
        assert!(server_name("a:80").is_err());
    }
}
