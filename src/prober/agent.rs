//! The check that lets the server itself say how it is: one line of words, as HAProxy's agents send
//! it, up to an end of the line or of the connection.
//!
//! Each line stands for itself: `up` after `drain` takes all of the weight again. Of several words
//! the one that gives the server least decides: `down`, then `maint`, then `drain`, then a
//! percentage. What stands after `#` is for people. `maxconn:` is passed over, as limits are the
//! config's, and the reason says so.

use super::answer::{Answer, Reason};
use super::said::{Escaped, Said};
use super::script::{Request, Talk};
use crate::wire::line::LineReader;

const LINE_MAX_BYTES: usize = 1024;

/// HAProxy's largest weight is 256, so its agents may ask for as many percent.
const SHARE_MAX_PERCENT: u16 = 256;

/// One target's talk.
#[derive(Debug)]
pub(super) struct Agent {
    request: Request,
    line: LineReader,
}

impl Agent {
    pub(super) fn new(send: &[u8]) -> Self {
        Self {
            request: Request::new(send),
            line: LineReader::new(LINE_MAX_BYTES),
        }
    }
}

impl Talk for Agent {
    fn restart(&mut self) {
        self.request.restart();
        self.line.restart();
    }

    fn request(&self) -> &Request {
        &self.request
    }

    fn request_mut(&mut self) -> &mut Request {
        &mut self.request
    }

    fn receive(&mut self, mut bytes: &[u8]) -> Option<Answer> {
        match self.line.read(&mut bytes) {
            Ok(line) => line.map(judge),
            Err(_) => Some(Answer::Bad(Reason::Fact("agent: no line within 1 KiB"))),
        }
    }

    fn closed(&self) -> Answer {
        match self.line.rest() {
            [] => Answer::Bad(Reason::Closed),
            rest => judge(rest),
        }
    }
}

/// What a line asks for.
#[derive(Debug, Default)]
struct Wish {
    is_known: bool,
    is_down: bool,
    is_maintenance: bool,
    is_drain: bool,
    share_percent: Option<u16>,
    has_limit: bool,
}

impl Wish {
    fn note(&mut self, word: &str) {
        self.is_known = true;
        match word {
            "up" | "ready" => {}
            "down" | "fail" | "failed" | "stopped" => self.is_down = true,
            "maint" => self.is_maintenance = true,
            "drain" => self.is_drain = true,
            _ if word.starts_with("maxconn:") => {
                self.has_limit = true;
                self.is_known = false;
            }
            _ => match percent(word) {
                Some(share) => self.share_percent = Some(share),
                None => self.is_known = false,
            },
        }
    }
}

fn judge(line: &[u8]) -> Answer {
    let is_end = |byte: &u8| *byte == b'#';
    let (words, comment) = match line.iter().position(is_end) {
        Some(at) => (&line[..at], line[at + 1..].trim_ascii()),
        None => (line, b"".as_slice()),
    };
    let lower = words.to_ascii_lowercase();
    let text = String::from_utf8_lossy(&lower);
    let mut wish = Wish::default();
    let mut is_known = false;
    for word in text
        .split([' ', '\t', ',', '\r'])
        .filter(|word| !word.is_empty())
    {
        wish.note(word);
        is_known |= wish.is_known;
    }
    if !is_known {
        let said = Said::new(format_args!("agent: no known word: {}", Escaped(words)));
        return Answer::Bad(Reason::Said(said));
    }
    if wish.is_down {
        let mark = if comment.is_empty() { "" } else { ": " };
        let said = Said::new(format_args!("agent: down{mark}{}", Escaped(comment)));
        return Answer::Bad(Reason::Said(said));
    }
    let (word, percent) = match wish.share_percent {
        _ if wish.is_maintenance => ("maint", 0),
        _ if wish.is_drain => ("drain", 0),
        Some(percent) => ("", percent),
        None => ("up", 100),
    };
    Answer::Good(Reason::Share {
        word,
        percent,
        is_limit_ignored: wish.has_limit,
    })
}

/// Of `75%`; larger ones than there are count as the largest.
fn percent(word: &str) -> Option<u16> {
    let digits = word.strip_suffix('%')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let largest = SHARE_MAX_PERCENT;
    is_number.then(|| {
        digits
            .parse()
            .map_or(largest, |share: u16| share.min(largest))
    })
}

#[cfg(test)]
mod tests {
    use super::super::talks::{any_split, said};
    use super::*;

    /// The answer to a line, with the share that it asks for.
    fn answer(line: &str) -> String {
        let mut agent = Agent::new(b"");
        agent.restart();
        let answer = agent.receive(line.as_bytes());
        match answer.unwrap_or_else(|| agent.closed()) {
            Answer::Good(reason) => format!("{reason} = {}", reason.share_percent()),
            Answer::Bad(reason) => reason.to_string(),
            Answer::Unknown(reason) => panic!("{reason}"),
        }
    }

    #[test]
    fn words_are_understood() {
        for (line, expected) in [
            ("up\n", "agent: up = 100"),
            ("READY\r\n", "agent: up = 100"),
            ("drain\n", "agent: drain = 0"),
            ("maint", "agent: maint = 0"),
            ("75%\n", "agent: 75% = 75"),
            ("up, 0%\n", "agent: 0% = 0"),
            ("300%\n", "agent: 256% = 256"),
            ("99999999999999%\n", "agent: 256% = 256"),
            ("up 50% drain\n", "agent: drain = 0"),
            ("maxconn:30 50%\n", "agent: 50% (maxconn is ignored) = 50"),
            ("down\n", "agent: down"),
            ("up stopped#over\x1bload\n", "agent: down: over\\u{1b}load"),
            ("fail # disk full\n", "agent: down: disk full"),
            ("maxconn:30\n", "agent: no known word: maxconn:30"),
            ("fine -5% % 5\n", "agent: no known word: fine -5% % 5"),
            ("\n", "agent: no known word: "),
            ("# up\n", "agent: no known word: "),
            ("", "connection closed without the expected answer"),
        ] {
            assert_eq!(answer(line), expected, "{line:?}");
        }
        assert_eq!(answer(&"x".repeat(2000)), "agent: no line within 1 KiB");
    }

    #[test]
    fn pieces_and_nonsense_change_nothing() {
        any_split(
            || Agent::new(b"how?\n"),
            &[b"up 50%\n", b"down#x", b"7%,drain\r\n"],
        );
        let mut agent = Agent::new(b"");
        assert_eq!(
            said(&mut agent, &[b"\xff\xfe\n"]),
            "- agent: no known word: \\xff\\xfe"
        );
    }
}
