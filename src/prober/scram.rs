//! SCRAM-SHA-256 (RFC 5802, 7677) as PostgreSQL's clients speak it: both sides prove that they know
//! the password, and neither sends it. Without channel binding.
//!
//! Deriving the key costs as many hashes as the server says. That is bounded, as the server may be
//! anyone, and done once as long as salt and count stay the same: checks repeat. Passwords are taken
//! as they are written; SASLprep would change only some that are not ASCII.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac, pbkdf2};

use super::kit::Password;

pub(super) const MECHANISM: &str = "SCRAM-SHA-256";

/// PostgreSQL's default is 4,096, some 2 ms of the prober's time; this is 16 times that.
const ITERATIONS_MAX: u32 = 65_536;

const KEY_BYTES: usize = digest::SHA256_OUTPUT_LEN;
const NONCE_BYTES: usize = 18;

/// No channel binding, and none wanted.
const HEADER: &str = "n,,";

/// Why the exchange came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScramError {
    #[error("the server's SCRAM message cannot be read")]
    Unreadable,
    #[error("the server asks for {0} SCRAM iterations, more than {ITERATIONS_MAX}")]
    TooCostly(u32),
    #[error("the server does not know the password itself")]
    WrongServer,
    #[error("this machine gives no random bytes")]
    NoRandomness,
}

/// One side of it, used again for each check.
pub(super) struct Scram {
    password: Password,
    /// What the server proved to know the key with, from the last exchange.
    derived: Option<Derived>,
    nonce: String,
    expected_proof: Option<hmac::Tag>,
}

struct Derived {
    salt: Vec<u8>,
    iterations: NonZeroU32,
    key: [u8; KEY_BYTES],
}

impl Scram {
    pub(super) fn new(password: Password) -> Self {
        Self {
            password,
            derived: None,
            nonce: String::new(),
            expected_proof: None,
        }
    }

    /// The first message, with a new nonce.
    pub(super) fn first(&mut self) -> Result<String, ScramError> {
        let mut random = [0; NONCE_BYTES];
        let filled = SystemRandom::new().fill(&mut random);
        filled.map_err(|_| ScramError::NoRandomness)?;
        self.expected_proof = None;
        self.nonce = STANDARD.encode(random);
        Ok(format!("{HEADER}{}", self.first_bare()))
    }

    /// PostgreSQL takes the name from the startup message.
    fn first_bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    /// The answer to the server's first message.
    pub(super) fn last(&mut self, server_first: &[u8]) -> Result<String, ScramError> {
        let first = parse_first(server_first).ok_or(ScramError::Unreadable)?;
        // One that answers another exchange would have us prove ourselves to somebody else.
        if self.nonce.is_empty() || !first.nonce.starts_with(&self.nonce) {
            return Err(ScramError::Unreadable);
        }
        if first.iterations.get() > ITERATIONS_MAX {
            return Err(ScramError::TooCostly(first.iterations.get()));
        }
        let first_bare = self.first_bare();
        // One key for each exchange: a server that goes on asking would keep us deriving.
        self.nonce.clear();
        let key = self.key(first.salt, first.iterations);
        let last_bare = format!("c={},r={}", STANDARD.encode(HEADER), first.nonce);
        let said = format!("{first_bare},{},{last_bare}", first.text);
        let client_key = sign(&key, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        let signature = sign(stored_key.as_ref(), said.as_bytes());
        let proof = client_key.as_ref().iter().zip(signature.as_ref());
        let proof: Vec<u8> = proof.map(|(key, signature)| key ^ signature).collect();
        let server_key = sign(&key, b"Server Key");
        self.expected_proof = Some(sign(server_key.as_ref(), said.as_bytes()));
        Ok(format!("{last_bare},p={}", STANDARD.encode(proof)))
    }

    /// Whether the server's last message proves that it knows the password, too.
    pub(super) fn verify(&mut self, server_last: &[u8]) -> Result<(), ScramError> {
        let proof = server_last.strip_prefix(b"v=");
        let proof = proof.and_then(|proof| STANDARD.decode(proof).ok());
        let proof = proof.ok_or(ScramError::Unreadable)?;
        match self.expected_proof.take() {
            Some(expected) if expected.as_ref() == proof => Ok(()),
            _ => Err(ScramError::WrongServer),
        }
    }

    fn key(&mut self, salt: Vec<u8>, iterations: NonZeroU32) -> [u8; KEY_BYTES] {
        if let Some(derived) = &self.derived
            && derived.salt == salt
            && derived.iterations == iterations
        {
            return derived.key;
        }
        let mut key = [0; KEY_BYTES];
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(
            algorithm,
            iterations,
            &salt,
            self.password.bytes(),
            &mut key,
        );
        self.derived = Some(Derived {
            salt,
            iterations,
            key,
        });
        key
    }
}

/// Keys are as secret as the password.
impl fmt::Debug for Scram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scram(..)")
    }
}

struct First<'a> {
    text: &'a str,
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: NonZeroU32,
}

fn parse_first(message: &[u8]) -> Option<First<'_>> {
    let text = std::str::from_utf8(message).ok()?;
    let mut parts = text.split(',');
    let nonce = parts.next()?.strip_prefix("r=")?;
    let salt = parts.next()?.strip_prefix("s=")?;
    let iterations = parts.next()?.strip_prefix("i=")?;
    Some(First {
        text,
        nonce,
        salt: STANDARD.decode(salt).ok()?,
        iterations: iterations.parse().ok()?,
    })
}

fn sign(key: &[u8], text: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exchange_of_a_real_server_is_understood() {
        // The exchange of RFC 7677 with an empty name, computed by Python's hashlib and hmac.
        let mut scram = Scram::new(Password::from("pencil"));
        scram.nonce = "rOprNGfwEbeRWgbNEkqO".to_owned();
        let first = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                      s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let last = scram.last(first).unwrap();
        let expected = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=qvT2SWdEH5Q06albL+hjSYuUhCG7VndFyzIb7CK4n9k=";
        assert_eq!(last, expected);
        let proof = b"v=3HO6Qt1M4MKJrmlKaoOqLAI0/0TV0HZe7J9H3MBtSOg=";
        assert_eq!(scram.verify(proof), Ok(()));
        // A proof counts once.
        assert_eq!(scram.verify(proof), Err(ScramError::WrongServer));
    }

    #[test]
    fn nonsense_is_told_and_costs_nothing() {
        let mut scram = Scram::new(Password::from("x"));
        let unreadable = Err(ScramError::Unreadable);
        assert_eq!(scram.last(b"r=,s=AAAA,i=1"), unreadable);
        let nonce = scram.first().unwrap().split_off("n,,n=,r=".len());
        let last =
            |scram: &mut Scram, tail: &str| scram.last(format!("r={nonce}x,{tail}").as_bytes());
        for tail in [
            "",
            "s=AAAA",
            "s=A,i=1",
            "s=AAAA,i=0",
            "s=AAAA,i=-1",
            "i=1,s=AAAA",
        ] {
            assert_eq!(last(&mut scram, tail), unreadable, "{tail}");
        }
        assert_eq!(scram.last(b"r=other,s=AAAA,i=1"), unreadable);
        let costly = last(&mut scram, "s=AAAA,i=4294967295");
        assert_eq!(costly, Err(ScramError::TooCostly(u32::MAX)));
        assert_eq!(scram.verify(b"v=AAAA"), Err(ScramError::WrongServer));
        assert!(last(&mut scram, "s=AAAA,i=1").is_ok());
        // Each key may cost the prober 30 ms: there is one for each exchange.
        assert_eq!(last(&mut scram, "s=AAAB,i=65536"), unreadable);
        assert_eq!(format!("{scram:?}"), "Scram(..)");
    }
}
