//! The check that asks Redis, or what speaks like it, for a `PONG`.
//!
//! With a password, `AUTH` goes before `PING` in the same bytes: one way there and back. Without
//! one, a server that asks for it is well. One that loads its data, has lost its primary or refuses
//! more clients says so in an error, which is the reason.

use super::answer::{Answer, Reason};
use super::kit::Password;
use super::said::{Escaped, Said};
use super::script::{Request, Talk};
use crate::wire::line::LineReader;

/// Redis' own errors are far shorter.
const LINE_MAX_BYTES: usize = 1024;

/// One target's talk.
#[derive(Debug)]
pub(super) struct Redis {
    request: Request,
    line: LineReader,
    has_password: bool,
    /// True exactly while the answer to `AUTH` is still to come.
    awaits_auth: bool,
}

impl Redis {
    pub(super) fn new(password: Option<&Password>) -> Self {
        let mut request = Vec::new();
        if let Some(password) = password {
            command(&mut request, &[b"AUTH", password.bytes()]);
        }
        command(&mut request, &[b"PING"]);
        Self {
            request: Request::new(request),
            line: LineReader::new(LINE_MAX_BYTES),
            has_password: password.is_some(),
            awaits_auth: false,
        }
    }
}

impl Talk for Redis {
    fn restart(&mut self) {
        self.request.restart();
        self.line.restart();
        self.awaits_auth = self.has_password;
    }

    fn request(&self) -> &Request {
        &self.request
    }

    fn request_mut(&mut self) -> &mut Request {
        &mut self.request
    }

    fn receive(&mut self, mut bytes: &[u8]) -> Option<Answer> {
        while !bytes.is_empty() {
            let answer = match self.line.read(&mut bytes) {
                Ok(Some(b"+OK")) if self.awaits_auth => {
                    self.awaits_auth = false;
                    None
                }
                Ok(Some(line)) => Some(judge(line, self.has_password, self.awaits_auth)),
                Ok(None) => None,
                Err(_) => Some(not_redis(self.line.rest())),
            };
            if answer.is_some() {
                return answer;
            }
        }
        None
    }
}

fn judge(line: &[u8], has_password: bool, is_to_auth: bool) -> Answer {
    match line {
        b"+PONG" if !is_to_auth => Answer::Good(Reason::Fact("redis: PONG")),
        _ if line.starts_with(b"-NOAUTH") && !has_password => {
            Answer::Good(Reason::Fact("redis: asks for a password"))
        }
        [b'-', error @ ..] => {
            let said = Said::new(format_args!("redis: {}", Escaped(error)));
            Answer::Bad(Reason::Said(said))
        }
        _ => not_redis(line),
    }
}

fn not_redis(line: &[u8]) -> Answer {
    let shown = &line[..line.len().min(40)];
    let said = Said::new(format_args!("not an answer of redis: {}", Escaped(shown)));
    Answer::Bad(Reason::Said(said))
}

/// As an array of strings, which may hold any byte.
fn command(request: &mut Vec<u8>, words: &[&[u8]]) {
    request.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::super::talks::{any_split, said};
    use super::*;

    fn answers(password: Option<&str>, table: &[(&str, &str)]) {
        let password = password.map(Password::from);
        let mut redis = Redis::new(password.as_ref());
        for (sent, expected) in table {
            assert_eq!(said(&mut redis, &[sent.as_bytes()]), *expected, "{sent:?}");
        }
    }

    #[test]
    fn without_a_password_to_be_asked_for_one_is_good() {
        answers(
            None,
            &[
                ("+PONG\r\n", "+ redis: PONG"),
                (
                    "-NOAUTH Authentication required.\r\n",
                    "+ redis: asks for a password",
                ),
                (
                    "-LOADING Redis is loading the dataset in memory\r\n",
                    "- redis: LOADING Redis is loading the dataset in memory",
                ),
                (
                    "-MASTERDOWN Link with MASTER is down\r\n",
                    "- redis: MASTERDOWN Link with MASTER is down",
                ),
                ("-ERR \x1b[2J\r\n", "- redis: ERR \\u{1b}[2J"),
                (
                    "HTTP/1.1 400 Bad Request\r\n",
                    "- not an answer of redis: HTTP/1.1 400 Bad Request",
                ),
                ("+OK\r\n", "- not an answer of redis: +OK"),
                ("+PON", "- connection closed without the expected answer"),
                ("", "- connection closed without the expected answer"),
            ],
        );
    }

    #[test]
    fn a_password_must_be_the_right_one() {
        answers(
            Some("secret"),
            &[
                ("+OK\r\n+PONG\r\n", "+ redis: PONG"),
                ("+PONG\r\n", "- not an answer of redis: +PONG"),
                (
                    "-WRONGPASS invalid\r\n-NOAUTH\r\n",
                    "- redis: WRONGPASS invalid",
                ),
                ("+OK\r\n-NOAUTH x\r\n", "- redis: NOAUTH x"),
                ("+OK\r\n+OK\r\n", "- not an answer of redis: +OK"),
            ],
        );
        let redis = Redis::new(Some(&Password::from("sec\r\nret")));
        let sent = b"*2\r\n$4\r\nAUTH\r\n$8\r\nsec\r\nret\r\n*1\r\n$4\r\nPING\r\n";
        assert_eq!(redis.request.rest(), sent);
        assert!(!format!("{redis:?}").contains("sec"), "{redis:?}");
    }

    #[test]
    fn a_line_without_an_end_is_no_answer() {
        let mut redis = Redis::new(None);
        let shown = format!("- not an answer of redis: {}", "x".repeat(40));
        assert_eq!(said(&mut redis, &[&[b'x'; 2000]]), shown);
    }

    #[test]
    fn pieces_and_nonsense_change_nothing() {
        any_split(|| Redis::new(None), &[b"+PONG\r\n", b"-LOADING x\r\n"]);
        any_split(
            || Redis::new(Some(&Password::from("p"))),
            &[b"+OK\r\n+PONG\r\n", b"-ERR\r\n"],
        );
    }
}
