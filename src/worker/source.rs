//! From where a connection to a server goes out: one of the pool's own addresses, picked at random, and
//! others where that one has no port left towards the server.
//!
//! Without addresses the kernel picks one, which gives some 28,000 connections to each server. A
//! connect that finds no port has searched all of them, 1.1 ms for 8,000 (Linux 6.18), during which the
//! worker does nothing else: so which pairs have none is remembered for a moment. That this machine
//! lacks an address costs a call to find out, and is asked anew each time: it may come back at any moment.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Socket, Type};

use super::tuning;
use crate::address::Address;
use crate::clock::Now;
use crate::config::ServerTcp;
use crate::sys;

/// How long a pair without a port is left alone, for each address that there is: some ten searches a
/// second for each server, however many addresses. Longer would turn clients away for whom there is
/// a port again.
const REST: Duration = Duration::from_millis(100);
/// With many addresses there is another one to go on with.
const REST_MAX: Duration = Duration::from_secs(1);
/// Pairs remembered; more are searched again.
const SPENT_MAX: usize = 128;

/// An address that this machine lacks is told of this often, not at each connection.
const ABSENCES_TOLD: Duration = Duration::from_secs(10);

/// Where a connection is to go, and how.
#[derive(Debug)]
pub(super) struct Way<'a> {
    pub(super) server: &'a Address,
    /// Our own addresses to go out from; those of the other family do not count, and where none is
    /// left the kernel picks one.
    pub(super) sources: &'a [IpAddr],
    pub(super) tcp: ServerTcp,
}

/// No port is left from an address towards a server; `None` is whichever the kernel picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    source: Option<IpAddr>,
    server: SocketAddr,
}

/// What a worker knows of its own addresses.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Until when they are left alone; the oldest first.
    spent: Vec<(Pair, Now)>,
    /// When it was last told that an address is not there.
    absence_told: Option<Now>,
}

impl Sources {
    /// A socket whose connect was begun.
    ///
    /// # Errors
    /// `AddrNotAvailable` where no address is there and has a port left; `ResourceBusy` where the queue
    /// of a unix socket is full; else what the kernel says.
    pub(super) fn connect(
        &mut self,
        way: &Way<'_>,
        random: &mut fastrand::Rng,
        now: Now,
    ) -> io::Result<Socket> {
        let Some(server) = way.server.ip() else {
            return connect(prepare(way)?, way);
        };
        let fitting = way
            .sources
            .iter()
            .filter(|s| s.is_ipv4() == server.is_ipv4());
        let count = fitting.clone().count();
        if count == 0 {
            let pair = Pair {
                source: None,
                server,
            };
            return self.begin(way, pair, REST, now);
        }
        let rest = (REST * u32::try_from(count).unwrap_or(u32::MAX)).min(REST_MAX);
        // Not by turns: those of the servers would go in step with them.
        let first = random.usize(..count);
        let mut outcome = Err(ErrorKind::AddrNotAvailable.into());
        for source in fitting.cycle().skip(first).take(count) {
            let source = Some(*source);
            outcome = self.begin(way, Pair { source, server }, rest, now);
            if !outcome.as_ref().is_err_and(is_spent) {
                break;
            }
        }
        outcome
    }

    fn begin(&mut self, way: &Way<'_>, pair: Pair, rest: Duration, now: Now) -> io::Result<Socket> {
        if !self.spent.is_empty() {
            self.spent.retain(|(_, until)| *until > now);
            if self.spent.iter().any(|(spent, _)| *spent == pair) {
                return Err(ErrorKind::AddrNotAvailable.into());
            }
        }
        let socket = prepare(way)?;
        if let Some(source) = pair.source
            && let Err(error) = bind(&socket, source)
        {
            // Whatever is wrong with our address, the server is not to blame for it.
            self.tell_absent(source, &error, now);
            return Err(ErrorKind::AddrNotAvailable.into());
        }
        let outcome = connect(socket, way);
        if outcome.as_ref().is_err_and(is_spent) {
            self.leave_alone(pair, now + rest);
        }
        outcome
    }

    fn leave_alone(&mut self, pair: Pair, until: Now) {
        if self.spent.len() == SPENT_MAX {
            self.spent.remove(0);
        }
        self.spent.push((pair, until));
    }

    /// A bind takes no port, so that EADDRNOTAVAIL never says that none is left.
    fn tell_absent(&mut self, source: IpAddr, error: &io::Error, now: Now) {
        if self
            .absence_told
            .is_some_and(|told| now.since(told) < ABSENCES_TOLD)
        {
            return;
        }
        self.absence_told = Some(now);
        if is_spent(error) {
            log::warn!("source {source} is not an address of this machine");
        } else {
            log::warn!("cannot connect from source {source}: {error}");
        }
    }
}

fn is_spent(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable
}

fn prepare(way: &Way<'_>) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(way.server.domain(), kind, None)?;
    if way.server.ip().is_some() {
        tuning::prepare(&socket, &way.tcp)?;
    }
    Ok(socket)
}

fn connect(socket: Socket, way: &Way<'_>) -> io::Result<Socket> {
    match socket.connect(&way.server.to_kernel()?) {
        // A unix socket is connected at once or not at all: EAGAIN says that its queue is full.
        Err(error) if way.server.ip().is_none() && error.kind() == ErrorKind::WouldBlock => {
            Err(ErrorKind::ResourceBusy.into())
        }
        Err(error) if !sys::socket::is_in_progress(&error) => Err(error),
        Ok(()) | Err(_) => Ok(socket),
    }
}

fn bind(socket: &Socket, source: IpAddr) -> io::Result<()> {
    sys::socket::bind_address_no_port(socket)?;
    socket.bind(&SocketAddr::new(source, 0).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const NO_TCP: ServerTcp = ServerTcp {
        keepalive: None,
        user_timeout: None,
    };

    fn source_of(socket: &Socket) -> IpAddr {
        socket.local_addr().unwrap().as_socket().unwrap().ip()
    }

    fn ips<const N: usize>(texts: [&str; N]) -> [IpAddr; N] {
        texts.map(|text| text.parse().unwrap())
    }

    #[test]
    fn each_address_of_the_family_gets_its_share() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap().into();
        let sources = ips(["127.0.0.2", "::1", "127.0.0.3"]);
        let way = Way {
            server: &server,
            sources: &sources,
            tcp: NO_TCP,
        };
        let mut random = fastrand::Rng::with_seed(1);
        let mut known = Sources::default();
        let mut counts = [0; 3];
        for _ in 0..64 {
            let socket = known.connect(&way, &mut random, Now::default()).unwrap();
            let own = source_of(&socket);
            counts[sources.iter().position(|source| *source == own).unwrap()] += 1;
        }
        assert!(
            counts[0] > 10 && counts[1] == 0 && counts[2] > 10,
            "{counts:?}"
        );
    }

    #[test]
    fn without_one_of_the_family_the_kernel_picks() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap().into();
        let way = Way {
            server: &server,
            sources: &ips(["::1"]),
            tcp: NO_TCP,
        };
        let mut random = fastrand::Rng::with_seed(1);
        let socket = Sources::default().connect(&way, &mut random, Now::default());
        assert_eq!(source_of(&socket.unwrap()), ips(["127.0.0.1"])[0]);
    }

    #[test]
    fn an_address_that_is_not_there_is_passed_over_and_is_not_out_of_ports() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap().into();
        // The first is no address of this machine (RFC 5737).
        let sources = ips(["192.0.2.1", "127.0.0.3"]);
        let way = Way {
            server: &server,
            sources: &sources,
            tcp: NO_TCP,
        };
        let mut random = fastrand::Rng::with_seed(1);
        let mut known = Sources::default();
        for _ in 0..16 {
            let socket = known.connect(&way, &mut random, Now::default()).unwrap();
            assert_eq!(source_of(&socket), sources[1]);
        }
        // It may be there the next moment, so it does not rest.
        assert!(known.spent.is_empty() && known.absence_told.is_some());
        let alone = Way {
            sources: &sources[..1],
            ..way
        };
        let error = known.connect(&alone, &mut random, Now::default());
        assert_eq!(error.unwrap_err().kind(), ErrorKind::AddrNotAvailable);
        assert!(known.spent.is_empty());
    }

    #[test]
    fn a_pair_without_a_port_rests_and_is_tried_anew() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let address = Address::from(server);
        let sources = ips(["127.0.0.3"]);
        let way = Way {
            server: &address,
            sources: &sources,
            tcp: NO_TCP,
        };
        let pair = Pair {
            source: Some(sources[0]),
            server,
        };
        let mut random = fastrand::Rng::with_seed(1);
        let mut known = Sources::default();
        known.leave_alone(pair, Now::default() + REST);
        let error = known.connect(&way, &mut random, Now::default());
        assert_eq!(error.unwrap_err().kind(), ErrorKind::AddrNotAvailable);
        let later = Now::default() + REST;
        known.connect(&way, &mut random, later).unwrap();
        assert!(known.spent.is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let mut known = Sources::default();
        for port in 1..300 {
            let pair = Pair {
                source: None,
                server: SocketAddr::from(([127, 0, 0, 1], port)),
            };
            known.leave_alone(pair, Now::default() + REST);
        }
        assert_eq!(known.spent.len(), SPENT_MAX);
    }
}
