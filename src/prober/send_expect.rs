//! The check that sends given bytes and waits for given bytes: enough for Redis' `PING`, an SMTP
//! greeting or any protocol of one question and one answer.
//!
//! What is expected may stand anywhere in the answer and is searched as it arrives.

use super::answer::{Answer, Reason};
use super::needle::Needle;
use super::script::{Request, Talk};

/// One target's talk.
#[derive(Debug)]
pub(super) struct SendExpect {
    request: Request,
    expect: Needle,
}

impl SendExpect {
    pub(super) fn new(send: &[u8], expect: &[u8]) -> Self {
        Self {
            request: Request::new(send),
            expect: Needle::new(expect),
        }
    }
}

impl Talk for SendExpect {
    fn restart(&mut self) {
        self.request.restart();
        self.expect.restart();
    }

    /// Nothing expected is there from the start.
    fn connected(&self) -> Option<Answer> {
        self.expect
            .is_found()
            .then_some(Answer::Good(Reason::Matched))
    }

    fn request(&self) -> &Request {
        &self.request
    }

    fn request_mut(&mut self) -> &mut Request {
        &mut self.request
    }

    fn receive(&mut self, bytes: &[u8]) -> Option<Answer> {
        self.expect
            .is_found_in(bytes)
            .then_some(Answer::Good(Reason::Matched))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_may_come_in_pieces_and_each_check_begins_anew() {
        let mut talk = SendExpect::new(b"PING\r\n", b"+PONG");
        assert_eq!(talk.connected(), None);
        assert_eq!(talk.receive(b"hello +PO"), None);
        assert_eq!(talk.receive(b"NG\r\n"), Some(Answer::Good(Reason::Matched)));
        talk.restart();
        assert_eq!(talk.receive(b"NG\r\n"), None);
    }

    #[test]
    fn where_nothing_is_expected_the_connect_is_enough() {
        let talk = SendExpect::new(b"", b"");
        assert_eq!(talk.connected(), Some(Answer::Good(Reason::Matched)));
    }
}
