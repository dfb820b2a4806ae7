//! What one check came to, and why in words. A [`Reason`] is plain data, so a check that repeats
//! the last one's answer allocates nothing; it becomes text only where a line is written.
//!
//! Knows nothing of rise and fall, which turn answers into a state.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use super::said::Said;
use crate::wire::http::HttpError;

/// What one check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// As expected.
    Good(Reason),
    /// Anything else that the server is to blame for.
    Bad(Reason),
    /// We could not ask properly: neither a success nor a failure of the server.
    Unknown(Reason),
}

/// Why a check came out as it did; `Display` is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The connect succeeded, and no more was asked.
    Connected,
    /// The final status of an HTTP answer, good or bad.
    Status(u16),
    /// The bytes that were expected came.
    Matched,
    /// The status was good; the body ended without the text that was expected.
    BodyLacks(u16),
    /// The server ended the connection before the bytes that were expected came.
    Closed,
    /// So many bytes came without a verdict.
    TooLong {
        /// The limit that was passed.
        bytes: usize,
    },
    /// The answer is not HTTP as it should be.
    Http(HttpError),
    /// No connection within this time.
    ConnectTimeout(Duration),
    /// Connected, but no complete answer within this time, the connect included.
    Timeout(Duration),
    /// The program did not end within this time.
    Overrun(Duration),
    /// The connect or the connection failed.
    Failed(io::ErrorKind),
    /// Our own process lacked something: descriptors, ports, memory.
    Shortage(Shortage),
    /// This machine has none of the pool's `source` addresses that fit the server; the first of them.
    NoSource(IpAddr),
    /// The prober was held up for so long while the check ran.
    Late(Duration),
    /// What a check has found that always is the same.
    Fact(&'static str),
    /// What a server has said, or what stands in the way of asking it.
    Said(Said),
    /// A server wants so much of its weight.
    Share {
        /// The word that it used; empty where the percentage says all.
        word: &'static str,
        /// Of its weight: 0 takes no new connection.
        percent: u16,
        /// It asked for a limit of connections as well, which only the config sets.
        is_limit_ignored: bool,
    },
}

/// What our own process lacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// `EMFILE`: this process's limit.
    Descriptors,
    /// `ENFILE`: the machine's limit.
    Files,
    /// `ENOMEM`, `ENOBUFS`, `ENOSPC` (registrations with epoll).
    Memory,
    /// `EADDRNOTAVAIL`: every local port is taken for this destination.
    Ports,
    /// `EAGAIN` of a fork: this user's limit, or this container's.
    Processes,
    /// Anything else that failed on our side.
    Other,
}

/// All of a server's weight.
pub(super) const ALL_PERCENT: u16 = 100;

impl Reason {
    /// Whether our own slowness may have brought it about: the server waited for our bytes, gave
    /// up, or answered what we did not come to read. A refusal and a wrong answer stand.
    pub(super) fn may_be_our_doing(self) -> bool {
        use io::ErrorKind as Kind;
        match self {
            Self::Closed
            | Self::ConnectTimeout(_)
            | Self::Timeout(_)
            | Self::Overrun(_)
            | Self::Http(HttpError::Truncated)
            // 408, Request Timeout: the server did not get our request in time.
            | Self::Status(408) => true,
            Self::Failed(kind) => matches!(
                kind,
                Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe | Kind::TimedOut
            ),
            Self::Connected
            | Self::Status(_)
            | Self::Matched
            | Self::BodyLacks(_)
            | Self::TooLong { .. }
            | Self::Http(_)
            | Self::Shortage(_)
            | Self::NoSource(_)
            | Self::Late(_)
            | Self::Fact(_)
            | Self::Said(_)
            | Self::Share { .. } => false,
        }
    }

    /// How much of its weight the server wants.
    pub(super) fn share_percent(self) -> u16 {
        match self {
            Self::Share { percent, .. } => percent,
            _ => ALL_PERCENT,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::Status(status) => write!(f, "http {status}"),
            Self::Matched => f.write_str("answered as expected"),
            Self::BodyLacks(status) => write!(f, "http {status} without the expected body"),
            Self::Closed => f.write_str("connection closed without the expected answer"),
            Self::TooLong { bytes } => {
                write!(
                    f,
                    "more than {} KiB without the expected answer",
                    bytes / 1024
                )
            }
            Self::Http(error) => error.fmt(f),
            Self::ConnectTimeout(timeout) => write!(f, "timeout after {timeout:?} (connecting)"),
            Self::Timeout(timeout) => {
                write!(f, "timeout after {timeout:?} (waiting for the answer)")
            }
            Self::Overrun(timeout) => {
                write!(f, "timeout after {timeout:?} (the program was killed)")
            }
            Self::Failed(kind) => kind.fmt(f),
            Self::Shortage(shortage) => shortage.fmt(f),
            Self::NoSource(source) => {
                write!(f, "source {source} is not an address of this machine")
            }
            Self::Late(lost) => write!(f, "the prober was held up for {lost:.1?}"),
            Self::Fact(fact) => f.write_str(fact),
            Self::Said(said) => said.fmt(f),
            Self::Share {
                word,
                percent,
                is_limit_ignored,
            } => {
                match *word {
                    "" => write!(f, "agent: {percent}%")?,
                    word => write!(f, "agent: {word}")?,
                }
                f.write_str(if *is_limit_ignored {
                    " (maxconn is ignored)"
                } else {
                    ""
                })
            }
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Descriptors => "out of file descriptors",
            Self::Files => "the machine is out of file descriptors",
            Self::Memory => "out of memory",
            Self::Ports => "out of local ports",
            Self::Processes => "out of processes",
            Self::Other => "internal error",
        })
    }
}

/// The errno values that the standard library has no portable kind for. They are the same on each
/// architecture that we run on.
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const ENOBUFS: i32 = 105;

/// What a failed `socket`, `connect` or registration means: our own shortage, or the server's.
pub(super) fn from_start(error: &io::Error) -> Answer {
    let shortage = match (error.raw_os_error(), error.kind()) {
        (Some(EMFILE), _) => Shortage::Descriptors,
        (Some(ENFILE), _) => Shortage::Files,
        (Some(ENOBUFS | ENOSPC), _) | (_, io::ErrorKind::OutOfMemory) => Shortage::Memory,
        // Of a connect: no room for another route.
        (_, io::ErrorKind::WouldBlock) => Shortage::Memory,
        (_, io::ErrorKind::AddrNotAvailable) => Shortage::Ports,
        // No route, a local firewall's EPERM, no IPv6 here: the server cannot be reached from
        // here, and asking again soon changes nothing.
        (_, kind) => return Answer::Bad(Reason::Failed(kind)),
    };
    Answer::Unknown(Reason::Shortage(shortage))
}

/// What it means where something failed that has nothing to do with the server.
pub(super) fn of_our_own(error: &io::Error) -> Answer {
    match from_start(error) {
        Answer::Bad(_) => Answer::Unknown(Reason::Shortage(Shortage::Other)),
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_shortages_are_not_held_against_the_server() {
        const ENOMEM: i32 = 12;
        const EADDRNOTAVAIL: i32 = 99;
        for errno in [EMFILE, ENFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL] {
            let answer = from_start(&io::Error::from_raw_os_error(errno));
            assert!(
                matches!(answer, Answer::Unknown(Reason::Shortage(_))),
                "{errno}: {answer:?}"
            );
        }
    }

    #[test]
    fn refusals_are_the_servers() {
        const ECONNREFUSED: i32 = 111;
        const ENETUNREACH: i32 = 101;
        for (errno, words) in [
            (ECONNREFUSED, "connection refused"),
            (ENETUNREACH, "network unreachable"),
        ] {
            let Answer::Bad(reason) = from_start(&io::Error::from_raw_os_error(errno)) else {
                panic!("{errno} is the server's");
            };
            assert_eq!(reason.to_string(), words);
            assert!(!reason.may_be_our_doing());
        }
    }

    #[test]
    fn reasons_read_well() {
        let second = Duration::from_secs(2);
        assert_eq!(Reason::Status(200).to_string(), "http 200");
        assert_eq!(
            Reason::ConnectTimeout(second).to_string(),
            "timeout after 2s (connecting)"
        );
        let reset = Reason::Failed(io::ErrorKind::ConnectionReset);
        assert_eq!(reset.to_string(), "connection reset");
    }
}
