//! TLS below a script: what a check says and hears goes through a session here on its way to the
//! socket and from it.
//!
//! rustls does no input or output of its own, so the exchange stays the only one that waits. What
//! the server may send is bounded here once more, in bytes of the socket: a certificate chain is
//! longer than most answers, and each byte of an answer may come in a record of its own.

use std::io::{self, Read, Write};

use rustls::pki_types::{IpAddr, ServerName};
use rustls::{CertificateError, ClientConnection, Error};
use socket2::Socket;

use super::answer::Reason;
use super::pinned::is_an_authority;
use super::said::{Escaped, Said};
use super::trust::Trust;
use crate::address::Address;
use crate::config::Tls;

/// The largest handshake message that rustls takes is 64 KiB, and so is the largest answer; records
/// of a few bytes need several times that.
const RECEIVED_MAX_BYTES: usize = 512 * 1024;

/// Room for the names of a certificate in a reason, so that the name that was expected stands in it
/// as well.
const NAMES_MAX_BYTES: usize = 40;

/// How sessions with one target begin.
#[derive(Clone, Debug)]
pub(super) struct Client {
    trust: Trust,
    name: ServerName<'static>,
}

impl Client {
    /// For what listens at `address`.
    ///
    /// # Errors
    /// `server_name` is no name.
    pub(super) fn new(tls: &Tls, trust: &Trust, address: &Address) -> Result<Self, Said> {
        let name = match (&tls.server_name, address.ip()) {
            (None, Some(address)) => ServerName::IpAddress(IpAddr::from(address.ip())),
            // A unix socket has no name that a certificate could have.
            (None, None) => name("localhost")?,
            (Some(written), _) => name(written)?,
        };
        Ok(Self {
            trust: trust.clone(),
            name,
        })
    }

    /// Begins one session.
    ///
    /// # Errors
    /// What the config asks for cannot be had of rustls.
    pub(super) fn session(&self) -> Result<Session, Reason> {
        let config = self.trust.config.clone();
        let connection = ClientConnection::new(config, self.name.clone());
        Ok(Session {
            connection: Box::new(connection.map_err(|error| reason_of(&error))?),
            received_bytes: 0,
        })
    }
}

fn name(written: &str) -> Result<ServerName<'static>, Said> {
    let wrong = |_| Said::new(format_args!("server_name: {written} is no name"));
    ServerName::try_from(written.to_owned()).map_err(wrong)
}

/// TLS on one socket. The socket is handed in by its owner each time.
#[derive(Debug)]
pub(super) struct Session {
    connection: Box<ClientConnection>,
    received_bytes: usize,
}

impl Session {
    /// Goes on with the handshake; true once it is done.
    ///
    /// # Errors
    /// Those of the socket except "would block", and whatever TLS finds wrong.
    pub(super) fn open(&mut self, socket: &Socket) -> io::Result<bool> {
        loop {
            self.flush(socket)?;
            if !self.connection.is_handshaking() {
                return Ok(true);
            }
            match self.receive(socket) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// As `read` of a socket that does not block; 0 is the end, announced or not.
    pub(super) fn read(&mut self, socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Many servers do not announce the end.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                done => return done,
            }
            self.receive(socket)?;
            // The server may ask for new keys, which is answered.
            self.flush(socket)?;
        }
    }

    /// As `write` of a socket that does not block. What is taken may wait here for the socket.
    pub(super) fn write(&mut self, socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
        self.flush(socket)?;
        let count = self.connection.writer().write(bytes)?;
        self.flush(socket)?;
        match count {
            0 if !bytes.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(count),
        }
    }

    /// Sends what waits here, as far as the socket takes it.
    pub(super) fn flush(&mut self, mut socket: &Socket) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Announces the end, as far as the socket takes it.
    pub(super) fn close(&mut self, socket: &Socket) -> io::Result<()> {
        self.connection.send_close_notify();
        self.flush(socket)
    }

    /// Takes some bytes of the socket into the session; 0 is the socket's end.
    fn receive(&mut self, mut socket: &Socket) -> io::Result<usize> {
        if self.received_bytes >= RECEIVED_MAX_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let count = self.connection.read_tls(&mut socket)?;
        self.received_bytes += count;
        if let Err(error) = self.connection.process_new_packets() {
            // The server is told why, if it still listens; the error stays the same.
            self.flush(socket).unwrap_or(());
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(count)
    }
}

/// What an error of a session's methods says about the server.
pub(super) fn reason(error: &io::Error) -> Reason {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match (cause, error.kind()) {
        (Some(error), _) => reason_of(error),
        (None, io::ErrorKind::UnexpectedEof) => Reason::Closed,
        (None, io::ErrorKind::FileTooLarge) => Reason::TooLong {
            bytes: RECEIVED_MAX_BYTES,
        },
        (None, kind) => Reason::Failed(kind),
    }
}

/// In the same words at each check: what rustls says of an expired certificate counts seconds.
fn reason_of(error: &Error) -> Reason {
    use CertificateError as Wrong;
    let said =
        |text: &str| Reason::Said(Said::new(format_args!("tls: {}", Escaped(text.as_bytes()))));
    match error {
        Error::InvalidCertificate(wrong) => match wrong {
            Wrong::Expired | Wrong::ExpiredContext { .. } => said("certificate expired"),
            Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => {
                said("certificate not valid yet")
            }
            Wrong::UnknownIssuer => said("certificate of an unknown authority"),
            Wrong::NotValidForName => said("certificate is for another name"),
            Wrong::NotValidForNameContext {
                expected,
                presented,
            } => said(&format!(
                "certificate is for {}, not for {}",
                names(presented),
                expected.to_str()
            )),
            // As `openssl req -x509` makes them.
            wrong if is_an_authority(wrong) => {
                said("certificate is an authority's and not one of ca: name it there to trust it")
            }
            other => said(&format!("certificate refused: {other}")),
        },
        Error::InvalidMessage(_) => said("the server does not speak it"),
        Error::AlertReceived(alert) => said(&format!("refused by the server: {alert:?}")),
        other => said(&other.to_string()),
    }
}

/// The names of a certificate, as far as there is room; `presented` is what rustls calls them:
/// `DnsName("a.example")`, `IpAddress(127.0.0.1)`.
fn names(presented: &[String]) -> String {
    let mut text = String::new();
    for (index, name) in presented.iter().enumerate() {
        let name = name.split_once('(').map_or(&**name, |(_, name)| name);
        let name = name.trim_end_matches(')').trim_matches('"');
        if !text.is_empty() && text.len() + name.len() > NAMES_MAX_BYTES {
            return format!("{text} and {} more", presented.len() - index);
        }
        let mark = if text.is_empty() { "" } else { ", " };
        text = format!("{text}{mark}{}", cut(name));
    }
    match text.is_empty() {
        true => "no name (subjectAltName)".to_owned(),
        false => text,
    }
}

/// A name may be as long as a certificate, and none of that length is one.
fn cut(name: &str) -> String {
    match name.char_indices().nth(NAMES_MAX_BYTES) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_short_and_always_the_same() {
        let wrong = |wrong| reason_of(&Error::InvalidCertificate(wrong)).to_string();
        assert_eq!(wrong(CertificateError::Expired), "tls: certificate expired");
        let eof = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert_eq!(reason(&eof), Reason::Closed);
    }

    #[test]
    fn another_name_is_told_in_plain_words() {
        let reason = |presented: &[&str]| {
            let wrong = CertificateError::NotValidForNameContext {
                expected: ServerName::try_from("c.example").unwrap(),
                presented: presented.iter().copied().map(str::to_owned).collect(),
            };
            reason_of(&Error::InvalidCertificate(wrong)).to_string()
        };
        let (one, other) = ("DnsName(\"a.example\")", "IpAddress(127.0.0.1)");
        assert_eq!(
            reason(&[one, other]),
            "tls: certificate is for a.example, 127.0.0.1, not for c.example"
        );
        assert_eq!(
            reason(&[]),
            "tls: certificate is for no name (subjectAltName), not for c.example"
        );
        let many = reason(&[one; 50]);
        assert!(
            many.ends_with("a.example and 46 more, not for c.example"),
            "{many}"
        );
        let long = format!("DnsName(\"{}\")", "b.example\n".repeat(50));
        let long = reason(&[&long, one]);
        assert!(
            long.starts_with("tls: certificate is for b.example\\nb.example\\n"),
            "{long}"
        );
        assert!(long.len() <= 118 && !long.contains('\n'), "{long}");
        assert!(reason(&["Unsupported(0x05)", ")(", "(\u{df}"]).contains("0x05"));
    }

    #[test]
    fn names_are_the_config_or_the_address() {
        let trust = Trust::anyone(&crate::config::Check::Tcp).unwrap();
        let client = |name: Option<&str>| {
            let tls = Tls {
                verify: false,
                ca: None,
                server_name: name.map(Into::into),
            };
            let address: std::net::SocketAddr = "[::1]:443".parse().unwrap();
            Client::new(&tls, &trust, &address.into())
        };
        assert_eq!(client(None).unwrap().name.to_str(), "::1");
        assert_eq!(
            client(Some("a.example")).unwrap().name.to_str(),
            "a.example"
        );
        let wrong = client(Some("no name")).unwrap_err();
        assert_eq!(wrong.to_string(), "server_name: no name is no name");
    }
}
