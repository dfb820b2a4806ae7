//! Who may ask for what: pure rules over a request's head and the way it came. Nothing is read or
//! changed before they agree.
//!
//! The unix socket's mode is its rule: whoever can connect may do everything. Over TCP, `Host` must
//! be ours, so that no name of somebody else's that resolves to us (DNS rebinding) opens the door to
//! a web page; `Origin` must be the same, so that pages from elsewhere cannot use a visitor's way to
//! us; and a change needs the token.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use axum::http::uri::{Authority, Uri};
use axum::http::{HeaderMap, Method, StatusCode};

use super::fault::Fault;
use super::token::Token;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// Over the unix socket.
    Unix,
    /// Over TCP, to this address of ours.
    Tcp(SocketAddr),
}

/// The head of a request, as far as the rules look at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) headers: &'a HeaderMap,
}

impl<'a> Head<'a> {
    fn is_change(&self) -> bool {
        !matches!(*self.method, Method::GET | Method::HEAD)
    }

    /// The value of a header that may come once; `Err` where it comes twice or is not text.
    fn only(&self, name: &HeaderName) -> Result<Option<&'a str>, Fault> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next();
        let is_odd = || Fault::invalid(format!("header {name}: send it once, in ASCII"));
        if values.next().is_some() {
            return Err(is_odd());
        }
        first
            .map(|value| value.to_str().map_err(|_| is_odd()))
            .transpose()
    }
}

/// The rules of one process.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// Lets changes over TCP in.
    pub(super) token: Option<Token>,
    /// Names, besides our own address and `localhost`, that a Host may have.
    pub(super) hosts: Vec<String>,
    /// Changes over TCP need no token.
    pub(super) is_open: bool,
}

impl Rules {
    /// Whether the request may go on.
    pub(super) fn check(&self, transport: Transport, head: Head<'_>) -> Result<(), Fault> {
        let Transport::Tcp(local) = transport else {
            return Ok(());
        };
        let host = host(head)?;
        if !self.is_ours(host.host(), local.ip()) {
            let text = format!(
                "host {} is not ours: use the address, or add the name to admin.http_hosts",
                host.host()
            );
            return Err(Fault::new(StatusCode::MISDIRECTED_REQUEST, text));
        }
        check_origin(head, &host)?;
        self.check_token(head)
    }

    fn is_ours(&self, host: &str, local: IpAddr) -> bool {
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        bare.parse() == Ok(local)
            || (local.is_loopback() && host.eq_ignore_ascii_case("localhost"))
            || self
                .hosts
                .iter()
                .any(|name| name.eq_ignore_ascii_case(host) || name.eq_ignore_ascii_case(bare))
    }

    fn check_token(&self, head: Head<'_>) -> Result<(), Fault> {
        if self.is_open {
            return Ok(());
        }
        let forbidden = |text: &str| Err(Fault::new(StatusCode::FORBIDDEN, text));
        match (bearer(head)?, &self.token) {
            (None, _) if !head.is_change() => Ok(()),
            (_, None) => forbidden("read-only: set admin.http_token_file"),
            (None, Some(_)) => Err(Fault::new(
                StatusCode::UNAUTHORIZED,
                "send the token of admin.http_token_file: `Authorization: Bearer TOKEN`",
            )),
            (Some(given), Some(token)) if token.is(given.as_bytes()) => Ok(()),
            (Some(_), Some(_)) => forbidden("wrong token"),
        }
    }
}

/// Whom the request is for.
fn host(head: Head<'_>) -> Result<Authority, Fault> {
    let Some(text) = head.only(&HOST)? else {
        return Err(Fault::invalid("header host is missing"));
    };
    let host: Authority = text
        .parse()
        .ok()
        .filter(|host: &Authority| !host.as_str().contains('@'))
        .ok_or_else(|| Fault::invalid("header host: that is no host"))?;
    // A proxy's way to ask, `GET http://other/ HTTP/1.1`: where the two differ, someone is fooled.
    match head.uri.authority() {
        Some(other) if other != &host => {
            Err(Fault::invalid("the address and the header host differ"))
        }
        _ => Ok(host),
    }
}

/// Browsers say where the page that asks has come from: it must be one of ours, to the port, because
/// other programs of this machine have pages, too.
fn check_origin(head: Head<'_>, host: &Authority) -> Result<(), Fault> {
    let foreign = || {
        Fault::new(
            StatusCode::FORBIDDEN,
            "a page from elsewhere may not ask here",
        )
    };
    if let Some(origin) = head.only(&ORIGIN)? {
        let (scheme, rest) = origin.split_once("://").ok_or_else(foreign)?;
        let origin: Authority = rest.parse().map_err(|_| foreign())?;
        let default_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return Err(foreign()),
        };
        let port = |authority: &Authority| authority.port_u16().unwrap_or(default_port);
        if !origin.host().eq_ignore_ascii_case(host.host()) || port(&origin) != port(host) {
            return Err(foreign());
        }
    }
    if head.is_change() && head.only(&SEC_FETCH_SITE)? == Some("cross-site") {
        return Err(foreign());
    }
    Ok(())
}

/// The token that was sent; other ways to authenticate do not count.
fn bearer(head: Head<'_>) -> Result<Option<&str>, Fault> {
    let value = head.only(&AUTHORIZATION)?;
    let parts = value.and_then(|value| value.split_once(' '));
    let is_bearer = |scheme: &str| scheme.eq_ignore_ascii_case("bearer");
    Ok(parts
        .filter(|(scheme, _)| is_bearer(scheme))
        .map(|(_, token)| token.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "127.0.0.1:9900";
    const V6: &str = "[::1]:9900";
    const OUTER: &str = "10.1.2.3:9900";

    fn rules(token: Option<&str>) -> Rules {
        Rules {
            token: token.map(Token::of),
            hosts: vec!["lb.example.com".into()],
            is_open: false,
        }
    }

    /// The status, 200 where the rules agree.
    fn check(rules: &Rules, method: &str, local: &str, headers: &[(&str, &str)]) -> u16 {
        let transport = Transport::Tcp(local.parse().unwrap());
        let uri = Uri::from_static("/api/v1/status");
        check_head(rules, transport, (method, &uri), headers)
    }

    fn check_head(
        rules: &Rules,
        transport: Transport,
        (method, uri): (&str, &Uri),
        headers: &[(&str, &str)],
    ) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        let head = Head {
            method: &method.parse().unwrap(),
            uri,
            headers: &map,
        };
        match rules.check(transport, head) {
            Ok(()) => 200,
            Err(fault) => fault.status.as_u16(),
        }
    }

    #[test]
    fn only_our_own_hosts_are_answered() {
        for (local, host, status) in [
            (V4, "127.0.0.1:9900", 200),
            (V4, "127.0.0.1", 200),
            // Through a forwarded port.
            (V4, "127.0.0.1:1", 200),
            (V4, "localhost:9900", 200),
            (V4, "LocalHost", 200),
            (V4, "lb.example.com", 200),
            (V4, "LB.Example.com:8080", 200),
            (V4, "127.0.0.2:9900", 421),
            (V4, "evil.example", 421),
            (V4, "lb.example.com.evil.example", 421),
            (V4, "localhost.", 421),
            (V4, "", 400),
            (V4, "a b", 400),
            (V4, "user@127.0.0.1", 400),
            (V6, "[::1]:9900", 200),
            (V6, "[::1]", 200),
            (V6, "[0:0::1]", 200),
            (V6, "localhost", 200),
            (V6, "[::2]", 421),
            (V6, "127.0.0.1", 421),
            (OUTER, "10.1.2.3:9900", 200),
            (OUTER, "lb.example.com", 200),
            // Resolves to loopback everywhere, which this socket is not on.
            (OUTER, "localhost", 421),
        ] {
            for method in ["GET", "HEAD"] {
                let found = check(&rules(None), method, local, &[("host", host)]);
                assert_eq!(found, status, "{method} {local} {host}");
            }
        }
    }

    #[test]
    fn a_host_comes_once_and_agrees_with_the_address() {
        let rules = rules(None);
        assert_eq!(check(&rules, "GET", V4, &[]), 400);
        let twice = [("host", "127.0.0.1"), ("host", "127.0.0.1")];
        assert_eq!(check(&rules, "GET", V4, &twice), 400);
        let tcp = Transport::Tcp(V4.parse().unwrap());
        let head = [("host", "127.0.0.1")];
        for (uri, status) in [
            ("http://127.0.0.1/", 200),
            ("http://evil.example/", 400),
            ("http://127.0.0.1:80/", 400),
        ] {
            let uri = uri.parse().unwrap();
            assert_eq!(check_head(&rules, tcp, ("GET", &uri), &head), status);
        }
    }

    #[test]
    fn the_token_rules_over_changes_and_a_wrong_one_opens_nothing() {
        let (none, wrong, right) = (None, Some("Bearer nope"), Some("Bearer s3cret"));
        for (configured, method, given, status) in [
            (Some("s3cret"), "GET", none, 200),
            (Some("s3cret"), "HEAD", none, 200),
            (Some("s3cret"), "GET", right, 200),
            (Some("s3cret"), "GET", wrong, 403),
            (Some("s3cret"), "HEAD", wrong, 403),
            (Some("s3cret"), "POST", none, 401),
            (Some("s3cret"), "PATCH", Some("Basic s3cret"), 401),
            (Some("s3cret"), "PATCH", Some("Bearer"), 401),
            (Some("s3cret"), "DELETE", wrong, 403),
            (Some("s3cret"), "DELETE", Some("Bearer "), 403),
            (Some("s3cret"), "PATCH", Some("bearer  s3cret"), 200),
            (Some("s3cret"), "POST", right, 200),
            (Some("s3cret"), "OPTIONS", none, 401),
            (None, "GET", none, 200),
            (None, "GET", right, 403),
            (None, "POST", none, 403),
            (None, "POST", right, 403),
        ] {
            let mut headers = vec![("host", "127.0.0.1")];
            headers.extend(given.map(|given| ("authorization", given)));
            let found = check(&rules(configured), method, V4, &headers);
            assert_eq!(found, status, "{configured:?} {method} {given:?}");
        }
    }

    #[test]
    fn pages_from_elsewhere_may_not_ask() {
        for (method, name, value, status) in [
            ("GET", "origin", "http://127.0.0.1:9900", 200),
            ("POST", "origin", "http://127.0.0.1:9900", 200),
            ("POST", "origin", "https://127.0.0.1:9900", 200),
            ("GET", "origin", "http://evil.example", 403),
            ("GET", "origin", "null", 403),
            ("HEAD", "origin", "", 403),
            ("POST", "origin", "http://127.0.0.1:9901", 403),
            ("POST", "origin", "http://127.0.0.1", 403),
            ("POST", "origin", "http://localhost:9900", 403),
            ("POST", "origin", "file://", 403),
            ("POST", "sec-fetch-site", "cross-site", 403),
            ("POST", "sec-fetch-site", "same-origin", 200),
            ("POST", "sec-fetch-site", "none", 200),
            ("GET", "sec-fetch-site", "cross-site", 200),
        ] {
            let headers = [
                ("host", V4),
                ("authorization", "Bearer s3cret"),
                (name, value),
            ];
            let found = check(&rules(Some("s3cret")), method, V4, &headers);
            assert_eq!(found, status, "{method} {name}: {value}");
        }
        let secure = [
            ("host", "lb.example.com"),
            ("origin", "https://lb.example.com"),
        ];
        assert_eq!(check(&rules(None), "GET", V4, &secure), 200);
    }

    #[test]
    fn the_unix_socket_and_a_demonstration_need_no_token() {
        let uri = Uri::from_static("/");
        let strict = rules(Some("s3cret"));
        for headers in [vec![], vec![("origin", "null"), ("host", "evil.example")]] {
            let found = check_head(&strict, Transport::Unix, ("DELETE", &uri), &headers);
            assert_eq!(found, 200);
        }
        let open = Rules {
            is_open: true,
            ..rules(None)
        };
        let host = ("host", "127.0.0.1");
        assert_eq!(check(&open, "POST", V4, &[host]), 200);
        assert_eq!(check(&open, "POST", V4, &[host, ("origin", "null")]), 403);
        assert_eq!(check(&open, "POST", V4, &[("host", "evil.example")]), 421);
    }
}
