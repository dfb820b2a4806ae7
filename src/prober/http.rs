//! The check that sends an HTTP/1.1 GET and judges the answer's status and body.
//!
//! The answer is read by [`crate::wire::http`]; here stands what is asked and what is expected. The
//! verdict is given as early as it is known: at the head where no body is expected.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use super::answer::{Answer, Reason};
use super::needle::Needle;
use super::script::{Request, Talk};
use crate::address::Address;
use crate::config::HttpCheck;
use crate::wire::http::{HttpError, Item, ResponseReader};

/// One target's talk.
#[derive(Debug)]
pub(super) struct Http {
    request: Request,
    expect_status: Box<[RangeInclusive<u16>]>,
    expect_body: Needle,
    reader: ResponseReader,
    /// Of the answer that is being read; 0 before its head is complete.
    status: u16,
}

impl Http {
    /// For checks of what listens at `address`.
    pub(super) fn new(check: &HttpCheck, address: &Address) -> Self {
        Self {
            request: Request::new(request(check, address).into_bytes()),
            expect_status: check.expect_status.as_slice().into(),
            expect_body: Needle::new(check.expect_body.as_deref().unwrap_or("").as_bytes()),
            reader: ResponseReader::new(),
            status: 0,
        }
    }

    fn judge(&mut self, item: Item<'_>) -> Option<Answer> {
        let is_found = match item {
            Item::Status(status) => {
                self.status = status;
                // A wrong status decides alone, so a server's error page is not read.
                if !self
                    .expect_status
                    .iter()
                    .any(|range| range.contains(&status))
                {
                    return Some(Answer::Bad(Reason::Status(status)));
                }
                self.expect_body.is_found()
            }
            Item::Body(piece) => self.expect_body.is_found_in(piece),
            Item::End => return Some(Answer::Bad(Reason::BodyLacks(self.status))),
        };
        is_found.then_some(Answer::Good(Reason::Status(self.status)))
    }
}

impl Talk for Http {
    fn restart(&mut self) {
        self.request.restart();
        self.expect_body.restart();
        // What the last check's reader held is freed: few answers come in pieces.
        self.reader = ResponseReader::new();
        self.status = 0;
    }

    fn request(&self) -> &Request {
        &self.request
    }

    fn request_mut(&mut self) -> &mut Request {
        &mut self.request
    }

    fn receive(&mut self, mut bytes: &[u8]) -> Option<Answer> {
        loop {
            let answer = match self.reader.read(&mut bytes) {
                Ok(Some(item)) => self.judge(item),
                Ok(None) => return None,
                Err(error) => Some(Answer::Bad(Reason::Http(error))),
            };
            if answer.is_some() {
                return answer;
            }
        }
    }

    fn closed(&self) -> Answer {
        Answer::Bad(match self.reader.end() {
            Ok(()) => Reason::BodyLacks(self.status),
            Err(HttpError::Truncated) if self.status == 0 => Reason::Closed,
            Err(error) => Reason::Http(error),
        })
    }
}

/// One connection is one check, hence `Connection: close`: most servers then end it first, and the
/// TIME_WAIT is theirs.
fn request(check: &HttpCheck, address: &Address) -> String {
    let checked;
    let host = match &check.host {
        Some(host) => host,
        None => {
            checked = authority(address);
            &checked
        }
    };
    format!(
        "GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: evenkeel/{}\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n",
        check.path,
        env!("CARGO_PKG_VERSION"),
    )
}

/// As in a URL: without the zone that an IPv6 address may have, and without port 80.
pub(super) fn authority(address: &Address) -> String {
    // A unix socket has no name that a server could know; curl takes this one, too.
    let Some(address) = address.ip() else {
        return "localhost".to_owned();
    };
    match (address.ip(), address.port()) {
        (ip, 80) if ip.is_ipv4() => ip.to_string(),
        (ip, 80) => format!("[{ip}]"),
        (ip, port) => SocketAddr::new(ip, port).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(expect_body: Option<&str>) -> Http {
        let check = HttpCheck {
            path: "/health".to_owned(),
            host: None,
            expect_status: vec![200..=299, 304..=304],
            expect_body: expect_body.map(str::to_owned),
        };
        let address: SocketAddr = "[::1]:8080".parse().unwrap();
        Http::new(&check, &address.into())
    }

    /// The answer to `pieces`, and to the connection's end after them.
    fn answer(http: &mut Http, pieces: &[&[u8]]) -> Answer {
        http.restart();
        let early = pieces.iter().find_map(|piece| http.receive(piece));
        early.unwrap_or_else(|| http.closed())
    }

    #[test]
    fn the_request_is_http() {
        let sent = String::from_utf8(http(None).request.rest().to_vec()).unwrap();
        assert!(
            sent.starts_with("GET /health HTTP/1.1\r\nHost: [::1]:8080\r\n"),
            "{sent}"
        );
        assert!(sent.ends_with("\r\nConnection: close\r\n\r\n"), "{sent}");
    }

    #[test]
    fn hosts_are_written_as_in_urls() {
        for (address, host) in [
            ("10.0.0.1:80", "10.0.0.1"),
            ("10.0.0.1:81", "10.0.0.1:81"),
            ("[::1]:80", "[::1]"),
            ("[fe80::1%3]:443", "[fe80::1]:443"),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(authority(&address.into()), host);
        }
    }

    #[test]
    fn the_status_decides_where_no_body_is_expected() {
        let mut http = http(None);
        for (status, answer_wanted) in [
            (200, Answer::Good(Reason::Status(200))),
            (304, Answer::Good(Reason::Status(304))),
            (303, Answer::Bad(Reason::Status(303))),
            (503, Answer::Bad(Reason::Status(503))),
            (999, Answer::Bad(Reason::Status(999))),
        ] {
            let head = format!("HTTP/1.1 {status} X\r\n\r\n");
            assert_eq!(answer(&mut http, &[head.as_bytes()]), answer_wanted);
        }
    }

    #[test]
    fn the_body_is_searched_across_pieces_and_chunks() {
        let mut http = http(Some("all well"));
        let good = Answer::Good(Reason::Status(200));
        let chunked: &[&[u8]] = &[
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nal",
            b"l \r\n4\r\nwe",
            b"ll",
        ];
        assert_eq!(answer(&mut http, chunked), good);
        let until_close: &[&[u8]] = &[b"HTTP/1.0 200 OK\r\n\r\nall ", b"well"];
        assert_eq!(answer(&mut http, until_close), good);
        let elsewhere: &[&[u8]] =
            &[b"HTTP/1.1 200 OK\r\nA: all well\r\nContent-Length: 4\r\n\r\nall well"];
        assert_eq!(
            answer(&mut http, elsewhere),
            Answer::Bad(Reason::BodyLacks(200))
        );
    }

    #[test]
    fn an_early_end_is_told_from_a_body_that_lacks() {
        let mut http = http(Some("x"));
        assert_eq!(answer(&mut http, &[]), Answer::Bad(Reason::Closed));
        let lacks = Answer::Bad(Reason::BodyLacks(200));
        assert_eq!(answer(&mut http, &[b"HTTP/1.1 200 OK\r\n\r\nyz"]), lacks);
        let truncated = Answer::Bad(Reason::Http(HttpError::Truncated));
        let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nyz";
        assert_eq!(answer(&mut http, &[cut]), truncated);
    }
}
