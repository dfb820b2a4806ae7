//! Why a name could not be found, in the words of whoever runs name servers. Pure.

use std::fmt;
use std::net::IpAddr;

use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;

/// Name servers that are named; more are seldom asked.
const NAMED_MAX: usize = 3;

pub(super) const NO_NAME: &str = "there is no such name (NXDOMAIN)";
pub(super) const NO_ADDRESS: &str = "the name has no address";
pub(super) const NO_SERVICE: &str = "the name has none";
/// A target `.` (RFC 2782).
pub(super) const NOT_OFFERED: &str = "it says that there is no such service";

/// The name servers, for a bracket: `asked 127.0.0.53`.
pub(super) fn shown_servers(servers: impl Iterator<Item = IpAddr>) -> String {
    let mut servers: Vec<_> = servers.map(|ip| ip.to_string()).collect();
    servers.dedup();
    if servers.len() > NAMED_MAX {
        servers.truncate(NAMED_MAX);
        servers.push("...".to_owned());
    }
    format!("asked {}", servers.join(", "))
}

/// What is the matter with a service, which the source beside it may name in another way.
pub(super) fn of_service(name: &str, why: impl fmt::Display) -> String {
    format!("no SRV record for {}: {why}", shown(name))
}

/// What is the matter with a target of a service.
pub(super) fn of_target(name: &str, why: impl fmt::Display) -> String {
    format!(
        "no address for {}, which the SRV record names: {why}",
        shown(name)
    )
}

/// Without the dot at its end, which nobody writes.
fn shown(name: &str) -> &str {
    match name.strip_suffix('.') {
        Some("") | None => name,
        Some(name) => name,
    }
}

/// Why there was no definite answer; `servers` as [`shown_servers`] has them.
pub(super) fn of_failure(error: &NetError, servers: &str) -> String {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => of_code(none.response_code, servers),
        NetError::Dns(DnsError::ResponseCode(code)) => of_code(*code, servers),
        NetError::Timeout => format!("no name server answers in time ({servers})"),
        NetError::Io(error) => format!("no name server can be reached ({servers}): {error}"),
        NetError::NoConnections | NetError::Busy => {
            format!("no name server can be reached ({servers})")
        }
        NetError::Truncated => {
            format!("the answer is too long for UDP, and none comes by TCP ({servers})")
        }
        NetError::ForeignClassRecord { .. } | NetError::QueryCaseMismatch => {
            format!("the name server answers another question ({servers})")
        }
        NetError::Proto(error) => {
            format!("the name server's answer cannot be read ({servers}): {error}")
        }
        error => format!("the name server's answer cannot be used ({servers}): {error}"),
    }
}

fn of_code(code: ResponseCode, servers: &str) -> String {
    match code {
        ResponseCode::ServFail => format!("the name server failed (SERVFAIL, {servers})"),
        ResponseCode::Refused => format!("the name server refuses to answer (REFUSED, {servers})"),
        ResponseCode::NotImp => format!("the name server cannot answer this (NOTIMP, {servers})"),
        ResponseCode::FormErr => {
            format!("the name server does not understand the question (FORMERR, {servers})")
        }
        code => format!(
            "the name server says no, code {} ({servers})",
            u16::from(code)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_in_plain_words() {
        let told = |error: NetError| of_failure(&error, "asked 127.0.0.53");
        let code = |code| told(NetError::Dns(DnsError::ResponseCode(code)));
        assert_eq!(
            code(ResponseCode::ServFail),
            "the name server failed (SERVFAIL, asked 127.0.0.53)"
        );
        assert_eq!(
            code(ResponseCode::NotAuth),
            "the name server says no, code 9 (asked 127.0.0.53)"
        );
        assert_eq!(
            told(NetError::Timeout),
            "no name server answers in time (asked 127.0.0.53)"
        );
        assert_eq!(
            told(NetError::NoConnections),
            "no name server can be reached (asked 127.0.0.53)"
        );
    }

    #[test]
    fn services_and_targets_are_named() {
        assert_eq!(
            of_service("_pg._tcp.example.com", NO_NAME),
            "no SRV record for _pg._tcp.example.com: there is no such name (NXDOMAIN)"
        );
        assert_eq!(
            of_target("db.example.com.", NO_ADDRESS),
            "no address for db.example.com, which the SRV record names: the name has no address"
        );
    }

    #[test]
    fn few_name_servers_are_named() {
        let servers = |count: u8| (0..count).map(|n| IpAddr::from([10, 0, 0, n]));
        assert_eq!(shown_servers(servers(1)), "asked 10.0.0.0");
        assert_eq!(
            shown_servers(servers(9)),
            "asked 10.0.0.0, 10.0.0.1, 10.0.0.2, ..."
        );
    }
}
