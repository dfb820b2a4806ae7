//! The check that begins a session with PostgreSQL, asks for its role where that matters, and ends
//! the session in order.
//!
//! ```text
//! startup --R--> logging in --R0--> starting --Z--> (role known: answer) | asking --Z--> answer
//! ```
//! Without a password, to be asked for one is good where any role passes: the server is well. Each
//! error of the server is bad with its code and message: it starts, has no room, or does not let the
//! user in. That includes a wrong password: who gives one wants it tried.

use std::fmt::{self, Write};

use super::answer::{Answer, Reason};
use super::kit::Password;
use super::said::{Escaped, Said};
use super::scram::{MECHANISM, Scram, ScramError};
use super::script::{Request, Talk};
use crate::config::{PostgresCheck, PostgresRole};
use crate::wire::postgres::{self as wire, Authentication, Message, MessageReader};

/// Each server since 9.0 answers it; those since 14 tell at the start, unasked.
const QUESTION: &str = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')";

/// SCRAM takes the most: a list of mechanisms, and two messages of the server's.
const LOGIN_STEPS_MAX: u8 = 3;

const ASKS_FOR_PASSWORD: &str = "postgres: asks for a password";

/// One target's talk.
#[derive(Debug)]
pub(super) struct Postgres {
    user: String,
    startup: Vec<u8>,
    role: PostgresRole,
    password: Option<Password>,
    scram: Option<Scram>,
    request: Request,
    messages: MessageReader,
    progress: Progress,
}

/// How far a check has come.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// What the server has asked for before it let us in.
    steps: u8,
    /// The server takes an end of the session in order from now on.
    is_logged_in: bool,
    /// SASL: the server owes its own proof.
    owes_proof: bool,
    is_asking: bool,
    /// It follows another server.
    in_recovery: Option<bool>,
    is_read_only: bool,
}

impl Postgres {
    pub(super) fn new(check: &PostgresCheck, password: Option<&Password>) -> Self {
        let database = check.database.as_ref().unwrap_or(&check.user);
        Self {
            user: check.user.clone(),
            startup: wire::startup(&check.user, database),
            role: check.role,
            password: password.cloned(),
            scram: password.cloned().map(Scram::new),
            request: Request::new(Vec::new()),
            messages: MessageReader::default(),
            progress: Progress::default(),
        }
    }

    fn log_in(&mut self, asked: Authentication<'_>) -> Option<Answer> {
        if matches!(asked, Authentication::Ok) {
            if self.progress.owes_proof {
                return bad("the server does not prove that it knows the password");
            }
            self.progress.is_logged_in = true;
            return None;
        }
        let (Some(password), Some(scram)) = (&self.password, &mut self.scram) else {
            return Some(match self.role {
                PostgresRole::Any => Answer::Good(Reason::Fact(ASKS_FOR_PASSWORD)),
                PostgresRole::Primary | PostgresRole::Replica => Answer::Bad(Reason::Fact(
                    "postgres: asks for a password before it tells its role",
                )),
            });
        };
        self.progress.steps += 1;
        if self.progress.steps > LOGIN_STEPS_MAX {
            return bad("asks for more than a login takes");
        }
        let owes_proof = &mut self.progress.owes_proof;
        let message = match asked {
            Authentication::Cleartext => Ok(wire::password_text(password.bytes())),
            Authentication::Md5(salt) => Ok(hashed(&self.user, password, salt)),
            Authentication::Sasl(list) if wire::has_mechanism(list, MECHANISM) => {
                *owes_proof = true;
                let first = scram.first();
                first.map(|first| wire::sasl_initial(MECHANISM, first.as_bytes()))
            }
            Authentication::SaslContinue(first) => {
                let last = scram.last(first);
                last.map(|last| wire::password(last.as_bytes()))
            }
            Authentication::SaslFinal(last) => match scram.verify(last) {
                Ok(()) => {
                    *owes_proof = false;
                    return None;
                }
                Err(error) => Err(error),
            },
            _ => return bad("asks to be logged in to in a way that is not known here"),
        };
        self.say(message)
    }

    fn say(&mut self, message: Result<Vec<u8>, ScramError>) -> Option<Answer> {
        match message {
            Ok(message) => {
                self.request.add(&message);
                None
            }
            Err(error) => bad(error),
        }
    }

    fn note_parameter(&mut self, body: &[u8]) {
        match wire::parameter(body) {
            Some((b"in_hot_standby", value)) => self.progress.in_recovery = Some(value == b"on"),
            Some((b"default_transaction_read_only", b"on")) => self.progress.is_read_only = true,
            _ => {}
        }
    }

    fn note_row(&mut self, body: &[u8]) {
        if let Some((in_recovery, read_only)) = wire::two_columns(body) {
            self.progress.in_recovery = Some(in_recovery == b"t");
            self.progress.is_read_only |= read_only == b"on";
        }
    }

    /// The server waits for a question.
    fn ready(&mut self) -> Option<Answer> {
        let good = |fact| Some(Answer::Good(Reason::Fact(fact)));
        match (self.role, self.progress.in_recovery) {
            _ if !self.progress.is_logged_in => bad("a session that nobody has begun"),
            (PostgresRole::Any, _) => good("postgres: a session begins"),
            (_, None) if self.progress.is_asking => bad("no answer about its role"),
            (_, None) => {
                self.progress.is_asking = true;
                self.request.add(&wire::query(QUESTION));
                None
            }
            (PostgresRole::Replica, Some(true)) => good("postgres: replica"),
            (PostgresRole::Replica, Some(false)) => bad("primary, not a replica"),
            (PostgresRole::Primary, Some(true)) => bad("replica, not the primary"),
            (PostgresRole::Primary, Some(false)) if self.progress.is_read_only => {
                bad("primary that is set to read only")
            }
            (PostgresRole::Primary, Some(false)) => good("postgres: primary"),
        }
    }
}

impl Talk for Postgres {
    fn restart(&mut self) {
        self.request.clear();
        self.request.add(&self.startup);
        self.messages.restart();
        self.progress = Progress::default();
    }

    fn request(&self) -> &Request {
        &self.request
    }

    fn request_mut(&mut self) -> &mut Request {
        &mut self.request
    }

    fn receive(&mut self, mut bytes: &[u8]) -> Option<Answer> {
        // Out of `self` while its messages are looked at: it is put back whatever they say.
        let mut messages = std::mem::take(&mut self.messages);
        let mut answer = None;
        while answer.is_none() && !bytes.is_empty() {
            answer = match messages.read(&mut bytes) {
                Ok(Some(message)) => self.hear(message),
                Ok(None) => None,
                Err(error) => bad(error),
            };
        }
        self.messages = messages;
        answer
    }

    fn farewell(&self) -> &[u8] {
        match self.progress.is_logged_in {
            true => wire::TERMINATE,
            // Until then the server takes a plain close for a client that has no password.
            false => &[],
        }
    }
}

impl Postgres {
    fn hear(&mut self, message: Message<'_>) -> Option<Answer> {
        match message.kind {
            b'R' if !self.progress.is_logged_in => match Authentication::parse(message.body) {
                Some(asked) => self.log_in(asked),
                None => bad("not a PostgreSQL message"),
            },
            b'E' => {
                let (code, text) = wire::error(message.body);
                bad(format_args!("{}: {}", Escaped(code), Escaped(text)))
            }
            b'S' => {
                self.note_parameter(message.body);
                None
            }
            b'D' if self.progress.is_asking => {
                self.note_row(message.body);
                None
            }
            b'Z' => self.ready(),
            // A key to cancel with, notices, versions, what comes around a row.
            b'K' | b'N' | b'v' | b'T' | b'C' | b'A' => None,
            _ => bad("not a PostgreSQL message"),
        }
    }
}

fn bad(why: impl fmt::Display) -> Option<Answer> {
    let said = Said::new(format_args!("postgres: {why}"));
    Some(Answer::Bad(Reason::Said(said)))
}

/// `md5` and, in hexadecimal, the MD5 of the MD5 of password and user with the salt.
fn hashed(user: &str, password: &Password, salt: [u8; 4]) -> Vec<u8> {
    let stored = format!(
        "{:x}",
        md5::compute([password.bytes(), user.as_bytes()].concat())
    );
    let mut text = String::new();
    let salted = md5::compute([stored.as_bytes(), &salt].concat());
    // A string takes all that is written to it.
    write!(text, "md5{salted:x}").unwrap_or(());
    wire::password_text(text.as_bytes())
}

#[cfg(test)]
mod tests;
