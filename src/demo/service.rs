//! The small HTTP/1.1 service of a server: bytes in, requests out, and the text of each answer.
//!
//! `GET /` says which server it is, `GET /health` that it is well. It knows no socket and no time.

use std::fmt::Write as _;

/// A head that is longer is refused.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// More headers are refused.
const HEADERS_MAX: usize = 64;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Front,
    Health,
    Missing,
    /// Another method than GET and HEAD.
    NotAllowed,
    /// Not HTTP/1, or too much of it.
    Unreadable,
}

/// One request, read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) page: Page,
    /// The head of the answer alone.
    is_head: bool,
    /// The connection ends after the answer.
    pub(super) closes: bool,
}

/// Requests as they arrive on one connection.
#[derive(Debug, Default)]
pub(super) struct Requests {
    received: Vec<u8>,
}

impl Requests {
    /// Takes bytes; what they make, [`Self::next`] says.
    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// Bytes that are not read yet.
    pub(super) fn unread_bytes(&self) -> usize {
        self.received.len()
    }

    /// The next request that is complete.
    pub(super) fn next(&mut self) -> Option<Request> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        let (request, bytes) = match parsed.parse(&self.received) {
            Ok(httparse::Status::Complete(bytes)) => (request(&parsed), bytes),
            Ok(httparse::Status::Partial) if self.received.len() <= HEAD_BYTES_MAX => return None,
            // What follows cannot be told apart from the rest of this: nothing of it is read.
            Ok(httparse::Status::Partial) | Err(_) => (UNREADABLE, self.received.len()),
        };
        self.received.drain(..bytes);
        Some(request)
    }
}

const UNREADABLE: Request = Request {
    page: Page::Unreadable,
    is_head: false,
    closes: true,
};

fn request(parsed: &httparse::Request<'_, '_>) -> Request {
    let method = parsed.method.unwrap_or_default();
    let path = parsed.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let page = match (method, path) {
        ("GET" | "HEAD", "/") => Page::Front,
        ("GET" | "HEAD", "/health") => Page::Health,
        ("GET" | "HEAD", _) => Page::Missing,
        _ => Page::NotAllowed,
    };
    let mut closes = page == Page::NotAllowed || parsed.version == Some(0);
    for header in parsed.headers.iter() {
        let says_close = header.value.eq_ignore_ascii_case(b"close");
        closes |= match header.name.to_ascii_lowercase().as_str() {
            "connection" => says_close,
            // A body is not read, so nothing can follow it.
            "content-length" | "transfer-encoding" => true,
            _ => false,
        };
    }
    Request {
        page,
        is_head: method == "HEAD",
        closes,
    }
}

/// The answer of the server called `name`.
pub(super) fn answer(request: Request, name: &str) -> String {
    let (status, body) = match request.page {
        Page::Front => ("200 OK", format!("{{\"server\":\"{name}\"}}\n")),
        Page::Health => ("200 OK", "{\"health\":\"ok\"}\n".to_owned()),
        Page::Missing => ("404 Not Found", said("there is / and /health")),
        Page::NotAllowed => ("405 Method Not Allowed", said("GET and HEAD do")),
        Page::Unreadable => ("400 Bad Request", said("this is no HTTP/1 request")),
    };
    let mut text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
        body.len()
    );
    if request.closes {
        text.push_str("Connection: close\r\n");
    }
    // Writing to a String cannot fail.
    write!(text, "\r\n{}", if request.is_head { "" } else { &body }).unwrap_or(());
    text
}

fn said(error: &str) -> String {
    format!("{{\"error\":\"{error}\"}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(text: &str) -> Vec<(Page, bool)> {
        let mut requests = Requests::default();
        requests.receive(text.as_bytes());
        std::iter::from_fn(|| requests.next())
            .map(|request| (request.page, request.closes))
            .collect()
    }

    #[test]
    fn requests_say_what_they_are_for() {
        let table = [
            ("GET / HTTP/1.1\r\n\r\n", Page::Front, false),
            ("HEAD /?a HTTP/1.1\r\nHost: a\r\n\r\n", Page::Front, false),
            (
                "GET /health HTTP/1.1\r\nConnection: Close\r\n\r\n",
                Page::Health,
                true,
            ),
            ("GET / HTTP/1.0\r\n\r\n", Page::Front, true),
            ("GET /favicon.ico HTTP/1.1\r\n\r\n", Page::Missing, false),
            (
                "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n",
                Page::NotAllowed,
                true,
            ),
            (
                "GET / HTTP/1.1\r\nContent-Length: 2\r\n\r\n",
                Page::Front,
                true,
            ),
            ("\x16\x03\x01\x02\x00\x01", Page::Unreadable, true),
        ];
        for (text, page, closes) in table {
            assert_eq!(pages(text), [(page, closes)], "{text:?}");
        }
    }

    #[test]
    fn requests_come_out_whole_however_they_are_cut() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /health HTTP/1.1\r\n\r\n";
        for cut in 0..text.len() {
            let mut requests = Requests::default();
            let mut seen = Vec::new();
            for part in [&text[..cut], &text[cut..]] {
                requests.receive(part.as_bytes());
                seen.extend(std::iter::from_fn(|| requests.next()).map(|request| request.page));
            }
            assert_eq!(seen, [Page::Front, Page::Health], "cut at {cut}");
        }
    }

    #[test]
    fn a_head_without_an_end_is_refused() {
        let long = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(HEAD_BYTES_MAX));
        assert_eq!(pages(&long), [(Page::Unreadable, true)]);
    }

    #[test]
    fn answers_have_the_length_that_they_state() {
        let front = Request {
            page: Page::Front,
            is_head: false,
            closes: true,
        };
        let text = answer(front, "s3");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "{\"server\":\"s3\"}\n");
        assert!(
            head.contains(&format!("Content-Length: {}", body.len())),
            "{head}"
        );
        assert!(head.contains("Connection: close"), "{head}");
        let only_head = answer(
            Request {
                is_head: true,
                ..front
            },
            "s3",
        );
        assert_eq!(only_head, format!("{head}\r\n\r\n"));
    }
}
