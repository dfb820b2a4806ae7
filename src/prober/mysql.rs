//! The check that goes through MySQL's or MariaDB's handshake to its end and no further.
//!
//! A handshake that is broken off counts against our address, which the server blocks after
//! `max_connect_errors` of them, clients and all. So there is always an answer to the greeting, and
//! a session that begins is ended in order. Without a password, "access denied" is good: a server
//! that judges users is well. Too many connections or a blocked address are bad.

use std::fmt;

use ring::digest;

use super::answer::{Answer, Reason};
use super::kit::Password;
use super::said::{Escaped, Said};
use super::script::{Request, Talk};
use crate::config::MysqlCheck;
use crate::wire::mysql::{self as wire, Greeting, Packet, PacketReader, Reply};

const NATIVE: &str = "mysql_native_password";
const CACHING_SHA2: &str = "caching_sha2_password";

/// `ER_ACCESS_DENIED_ERROR` and `ER_ACCESS_DENIED_NO_PASSWORD_ERROR`.
const ACCESS_DENIED: [u16; 2] = [1045, 1698];

/// The steps of `caching_sha2_password`: the server knows the hash, or needs the password itself.
const FAST_OK: u8 = 3;
const FULL_AUTHENTICATION: u8 = 4;

/// Greeting, a switch, a step of that and an end are all that a server may say.
const PACKETS_MAX: u8 = 8;

/// One target's talk.
#[derive(Debug)]
pub(super) struct Mysql {
    user: String,
    password: Option<Password>,
    request: Request,
    packets: PacketReader,
    progress: Progress,
}

/// How far a check has come.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    count: u8,
    is_logged_in: bool,
    /// The server has asked for more than we send without TLS; what it says next ends it.
    needs_full: bool,
    /// The server has asked for a way to log in that is not known here.
    is_unknown_way: bool,
}

impl Mysql {
    pub(super) fn new(check: &MysqlCheck, password: Option<&Password>) -> Self {
        Self {
            user: check.user.clone(),
            password: password.cloned(),
            request: Request::new(Vec::new()),
            packets: PacketReader::default(),
            progress: Progress::default(),
        }
    }

    fn hear(&mut self, packet: Packet<'_>) -> Option<Answer> {
        self.progress.count += 1;
        if self.progress.count > PACKETS_MAX {
            return bad("its handshake does not end");
        }
        if self.progress.count == 1 {
            return self.greet(packet);
        }
        match Reply::parse(packet.payload) {
            Some(Reply::Ok) => {
                self.progress.is_logged_in = true;
                Some(Answer::Good(Reason::Fact("mysql: a session begins")))
            }
            Some(Reply::Error { code, message }) => self.judge(code, message),
            Some(Reply::Switch { plugin, data }) => {
                let plugin = String::from_utf8_lossy(plugin);
                let proof = self.proof(&plugin, data);
                self.progress.is_unknown_way = proof.is_none();
                self.say(packet.number, &proof.unwrap_or_default());
                None
            }
            Some(Reply::More([FAST_OK])) => None,
            Some(Reply::More([FULL_AUTHENTICATION])) if self.password.is_some() => {
                self.progress.needs_full = true;
                // No password, which the server refuses: that ends the handshake in order.
                self.say(packet.number, b"\0");
                None
            }
            // Whatever it wants, nothing is an answer.
            Some(Reply::More(_)) => {
                self.say(packet.number, b"");
                None
            }
            None => bad(wire::NotAPacket),
        }
    }

    fn greet(&mut self, packet: Packet<'_>) -> Option<Answer> {
        if let Some(Reply::Error { code, message }) = Reply::parse(packet.payload) {
            return error(code, message);
        }
        let Some(greeting) = Greeting::parse(packet.payload) else {
            return bad("not a greeting of MySQL");
        };
        // Where the user has another way to log in than the server prefers, it switches.
        let plugin = match greeting.plugin {
            plugin if plugin == CACHING_SHA2.as_bytes() => CACHING_SHA2,
            _ => NATIVE,
        };
        let proof = self.proof(plugin, &greeting.challenge).unwrap_or_default();
        let response = wire::response(&self.user, plugin, &proof);
        self.say(packet.number, &response);
        None
    }

    fn say(&mut self, after: u8, payload: &[u8]) {
        let packet = wire::packet(after.wrapping_add(1), payload);
        self.request.add(&packet);
    }

    /// What shows that we know the password, if we do; `None` for ways that are not known here,
    /// such as to send it as it is.
    fn proof(&self, plugin: &str, challenge: &[u8]) -> Option<Vec<u8>> {
        let Some(password) = &self.password else {
            return Some(Vec::new());
        };
        let password = password.bytes();
        match plugin {
            NATIVE => {
                let hash = |parts: &[&[u8]]| hash(&digest::SHA1_FOR_LEGACY_USE_ONLY, parts);
                let once = hash(&[password]);
                let twice = hash(&[once.as_ref()]);
                Some(xor(once, hash(&[challenge, twice.as_ref()])))
            }
            CACHING_SHA2 => {
                let hash = |parts: &[&[u8]]| hash(&digest::SHA256, parts);
                let once = hash(&[password]);
                let twice = hash(&[once.as_ref()]);
                Some(xor(once, hash(&[twice.as_ref(), challenge])))
            }
            _ => None,
        }
    }

    fn judge(&self, code: u16, message: &[u8]) -> Option<Answer> {
        let is_denied = ACCESS_DENIED.contains(&code);
        if is_denied && self.progress.needs_full {
            let fact = "mysql: asks for full authentication, which needs TLS";
            return Some(Answer::Good(Reason::Fact(fact)));
        }
        if is_denied && self.password.is_none() {
            let user = Escaped(self.user.as_bytes());
            let said = Said::new(format_args!("mysql: answers, and does not let {user} in"));
            return Some(Answer::Good(Reason::Said(said)));
        }
        if self.progress.is_unknown_way {
            return bad("asks to be logged in to in a way that is not known here");
        }
        error(code, message)
    }
}

impl Talk for Mysql {
    fn restart(&mut self) {
        self.request.clear();
        self.packets.restart();
        self.progress = Progress::default();
    }

    fn request(&self) -> &Request {
        &self.request
    }

    fn request_mut(&mut self) -> &mut Request {
        &mut self.request
    }

    fn receive(&mut self, mut bytes: &[u8]) -> Option<Answer> {
        // Out of `self` while its packets are looked at: it is put back whatever they say.
        let mut packets = std::mem::take(&mut self.packets);
        let mut answer = None;
        while answer.is_none() && !bytes.is_empty() {
            answer = match packets.read(&mut bytes) {
                Ok(Some(packet)) => self.hear(packet),
                Ok(None) => None,
                Err(error) => bad(error),
            };
        }
        self.packets = packets;
        answer
    }

    fn farewell(&self) -> &[u8] {
        match self.progress.is_logged_in {
            true => wire::QUIT,
            // Until then a goodbye would be taken for a password.
            false => &[],
        }
    }
}

fn hash(algorithm: &'static digest::Algorithm, parts: &[&[u8]]) -> digest::Digest {
    let mut context = digest::Context::new(algorithm);
    parts.iter().for_each(|part| context.update(part));
    context.finish()
}

fn xor(one: digest::Digest, other: digest::Digest) -> Vec<u8> {
    let pairs = one.as_ref().iter().zip(other.as_ref());
    pairs.map(|(one, other)| one ^ other).collect()
}

fn error(code: u16, message: &[u8]) -> Option<Answer> {
    bad(format_args!("{code}: {}", Escaped(message)))
}

fn bad(why: impl fmt::Display) -> Option<Answer> {
    let said = Said::new(format_args!("mysql: {why}"));
    Some(Answer::Bad(Reason::Said(said)))
}

#[cfg(test)]
mod tests;
