//! What goes before the bytes of a connection: a PROXY header and a ClientHello that a client begins
//! with, and the PROXY header that its server gets.
//!
//! What comes is looked at where it lies, in the socket (MSG_PEEK), from its beginning each time that
//! more has come: so a connection that waits costs no memory here, however slowly its bytes come. A
//! PROXY header is then taken out of the socket, to the byte; a hello stays for the relay to read.
//! Readiness is kept in the flow as at all times, because no edge tells of it again (trap 2).

use std::io::{self, ErrorKind, Read};

use super::Worker;
use super::command::Rules;
use super::connection::{Awaited, Connection, Phase};
use super::token::Key;
use crate::address::Peer;
use crate::clock::Now;
use crate::config::SendProxy;
use crate::end::{End, Side};
use crate::ids::PoolId;
use crate::relay::BUFFER_BYTES;
use crate::sys;
use crate::wire::client_hello;
use crate::wire::proxy_protocol::{self, Origin, Version};

impl Awaited {
    /// As what the connection ends where it does not come, or something else does.
    pub(super) fn end(self) -> End {
        match self {
            Self::ProxyHeader => End::BadProxyHeader,
            Self::ClientHello => End::BadClientHello,
        }
    }

    /// The most that may have to be looked at.
    const fn window(self) -> usize {
        match self {
            Self::ProxyHeader => proxy_protocol::HEADER_MAX_BYTES,
            Self::ClientHello => client_hello::PREFIX_MAX_BYTES,
        }
    }
}

const _: () = assert!(Awaited::ProxyHeader.window() <= BUFFER_BYTES);
const _: () = assert!(Awaited::ClientHello.window() <= BUFFER_BYTES);

/// What a look has found.
enum Found {
    Proxy(Origin, usize),
    /// The name that it asks for.
    Hello(Option<String>),
    /// A part, and more may come.
    Part,
}

impl Worker {
    /// Takes a registered connection to what comes first. Where it `has_header`, nothing was asked yet
    /// about its client's address.
    pub(super) fn greet(&mut self, key: Key, has_header: bool, now: Now) {
        let Some(rules) = self.rules_of(key) else {
            debug_assert!(false, "who is adopted has a listener");
            return self.end(key, End::Error, now);
        };
        let until = now + rules.header_timeout;
        if has_header {
            self.await_header(key, Awaited::ProxyHeader, until);
        } else {
            self.proceed(key, until, now);
        }
    }

    /// The client was let in: goes on to its hello or to a server.
    fn proceed(&mut self, key: Key, until: Now, now: Now) {
        let rules = self.rules_of(key);
        if rules.is_some_and(|rules| rules.server_names.is_some()) {
            self.await_header(key, Awaited::ClientHello, until);
        } else {
            self.connect(key, End::NoServer, now);
        }
    }

    fn rules_of(&mut self, key: Key) -> Option<&Rules> {
        let connection = self.table.find(key)?;
        Some(&self.listeners.find(connection.listener)?.rules)
    }

    fn await_header(&mut self, key: Key, awaited: Awaited, until: Now) {
        if let Some(connection) = self.table.find(key) {
            connection.phase = Phase::Reading { until, awaited };
            self.timers.arm(key.slot, until);
        }
    }

    /// Looks at what has come of what a client must begin with. Looks twice where a PROXY header is
    /// whole: a hello may have come with it.
    pub(super) fn read_header(&mut self, key: Key, now: Now) {
        // Bounded: a header is followed by a hello, and a hello by nothing.
        while let Some((awaited, until)) = self.awaited(key) {
            let Some(connection) = self.table.find(key) else {
                return;
            };
            match connection.read_header(awaited, &mut self.buffer) {
                Ok(Found::Part) => return,
                // Its client is known now, and the rules about it are asked.
                Ok(Found::Proxy(_, bytes)) => {
                    self.note_taken_ahead(key, bytes);
                    match self.admit_client(key, now) {
                        Ok(()) => self.proceed(key, until, now),
                        Err(end) => return self.end(key, end, now),
                    }
                }
                Ok(Found::Hello(name)) => {
                    self.route(key, name.as_deref());
                    self.connect(key, End::NoServer, now);
                }
                Err(end) => return self.end(key, end, now),
            }
        }
    }

    /// What is awaited of the client, and until when.
    fn awaited(&mut self, key: Key) -> Option<(Awaited, Now)> {
        match self.table.find(key)?.phase {
            Phase::Reading { until, awaited } => Some((awaited, until)),
            Phase::Queued { .. }
            | Phase::Connecting { .. }
            | Phase::Relaying
            | Phase::Lingering { .. } => None,
        }
    }

    /// Who asks for no name, or for one that nothing is said of, goes where all others go.
    fn route(&mut self, key: Key, name: Option<&str>) {
        let Some(connection) = self.table.find(key) else {
            return;
        };
        let listener = self.listeners.find(connection.listener);
        let names = listener.and_then(|listener| listener.rules.server_names.as_deref());
        connection.pool = names.and_then(|names| names.find(name?));
    }

    /// Has the server of `pool` that was just picked be told of the client, ahead of everything else,
    /// where the pool wants that.
    pub(super) fn introduce(&mut self, key: Key, pool: PoolId) {
        let version = match self.pools.send_proxy(pool) {
            SendProxy::Off => None,
            SendProxy::V1 => Some(Version::V1),
            SendProxy::V2 => Some(Version::V2),
        };
        let Some(connection) = self.table.find(key) else {
            return;
        };
        // An earlier try's pool may have been another one.
        let header = version.map(|version| proxy_protocol::write(connection.origin(), version));
        let header = header.unwrap_or_default();
        let bytes = header.len();
        connection.upstream.begin_with(header);
        self.note_given_ahead(key, bytes);
    }
}

impl Connection {
    /// Looks at what has come; a PROXY header is taken out of the socket and believed.
    fn read_header(&mut self, awaited: Awaited, buffer: &mut [u8]) -> Result<Found, End> {
        let found = look(self, awaited, buffer)?;
        if let Found::Proxy(origin, bytes) = found {
            take(self, bytes, buffer)?;
            self.believe(origin);
        }
        Ok(found)
    }

    /// Takes a trusted proxy's word for who the client is.
    fn believe(&mut self, origin: Origin) {
        match origin {
            Origin::Unnamed => {}
            Origin::Unix => self.client_address = Peer::Unix,
            Origin::Ip {
                source,
                destination,
            } => {
                self.client_address = source.into();
                self.destination = Some(Box::new(destination));
            }
        }
    }

    /// Who the client is, as a server is to be told.
    fn origin(&self) -> Origin {
        let Peer::Ip(source) = self.client_address else {
            return Origin::Unix;
        };
        let own = || self.client.local_addr().ok()?.as_socket();
        let destination = self.destination.as_deref().copied().or_else(own);
        // A process that came by a unix socket as a client of a proxy at another machine.
        destination.map_or(Origin::Unnamed, |destination| Origin::Ip {
            source,
            destination,
        })
    }
}

/// Looks at what has come, without taking it.
///
/// # Errors
/// As what the connection ends: it cannot become what is awaited.
fn look(connection: &Connection, awaited: Awaited, buffer: &mut [u8]) -> Result<Found, End> {
    let window = &mut buffer[..awaited.window()];
    let received = match sys::socket::peek(&connection.client, window) {
        // Whoever leaves without a word has done nothing wrong: so do health checks.
        Ok(0) => return Err(End::closed(Side::Client)),
        Ok(bytes) => &window[..bytes],
        Err(error) if is_transient(&error) => return Ok(Found::Part),
        Err(_) => return Err(End::reset(Side::Client)),
    };
    let found = match awaited {
        Awaited::ProxyHeader => proxy_protocol::read(received)
            .map(|found| found.map(|(origin, bytes)| Found::Proxy(origin, bytes)))
            .map_err(|error| error.to_string()),
        Awaited::ClientHello => client_hello::read(received)
            .map(|found| found.map(|hello| Found::Hello(hello.server_name)))
            .map_err(|error| error.to_string()),
    };
    match found {
        Ok(Some(found)) => Ok(found),
        // No more will come.
        Ok(None) if connection.upstream.is_source_ending() => Err(awaited.end()),
        Ok(None) => Ok(Found::Part),
        Err(error) => {
            log::debug!("{}: {error}", connection.client_address);
            Err(awaited.end())
        }
    }
}

/// Takes `bytes` out of the socket, which a look has found there.
///
/// # Errors
/// As what the connection ends.
fn take(connection: &Connection, bytes: usize, buffer: &mut [u8]) -> Result<(), End> {
    let mut left = bytes;
    while left > 0 {
        match (&connection.client).read(&mut buffer[..left]) {
            Ok(taken) if taken > 0 => left -= taken,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // It has failed since.
            Ok(_) | Err(_) => return Err(End::reset(Side::Client)),
        }
    }
    Ok(())
}

/// Nothing now, more later.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
