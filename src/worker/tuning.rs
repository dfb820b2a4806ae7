//! What a config asks of the kernel for sockets (tcp(7)). A listening socket is told once, because
//! those that are accepted at it inherit each of these options: a connection costs no call more.
//! Towards servers only what is asked for is set, socket by socket.
//!
//! Unix sockets have none of this but the backlog.

use std::io;
use std::time::Duration;

use socket2::{Domain, Socket, TcpKeepalive, Type};

use crate::config::{Keepalive, ServerTcp, Tcp};
use crate::sys;

/// Begins to listen, as `tcp` says.
///
/// # Errors
/// What the kernel says to an option, or to `listen`.
pub fn listen(socket: &Socket, tcp: &Tcp) -> io::Result<()> {
    if is_tcp(socket)? {
        set_options(socket, &Tcp::default(), tcp)?;
    }
    set_backlog(socket, tcp)
}

/// The same for a socket that may listen already with any options.
///
/// # Errors
/// As [`listen`].
pub(super) fn listen_anew(socket: &Socket, tcp: &Tcp) -> io::Result<()> {
    if is_tcp(socket)? {
        // Whatever is asked for is set in any case; what is not, is set to nothing.
        if tcp.keepalive.is_none() {
            socket.set_keepalive(false)?;
        }
        if tcp.user_timeout.is_none() {
            set_user_timeout(socket, None)?;
        }
        if !tcp.fast_open {
            sys::socket::set_fast_open(socket, 0)?;
        }
    }
    listen(socket, tcp)
}

/// Makes a socket that listens as `before` says do so as `next` says; who has been accepted already
/// goes on as before.
///
/// # Errors
/// As [`listen`].
pub(super) fn change(socket: &Socket, before: &Tcp, next: &Tcp) -> io::Result<()> {
    if is_tcp(socket)? {
        set_options(socket, before, next)?;
    }
    if before.backlog == next.backlog {
        return Ok(());
    }
    // A socket that listens already takes the number alone from a second `listen`.
    set_backlog(socket, next)
}

fn is_tcp(socket: &Socket) -> io::Result<bool> {
    Ok(socket.domain()? != Domain::UNIX)
}

fn set_backlog(socket: &Socket, tcp: &Tcp) -> io::Result<()> {
    socket.listen(i32::try_from(tcp.backlog.get()).unwrap_or(i32::MAX))
}

fn set_options(socket: &Socket, before: &Tcp, next: &Tcp) -> io::Result<()> {
    if before.keepalive != next.keepalive {
        match next.keepalive {
            Some(keepalive) => set_whole_keepalive(socket, keepalive)?,
            None => socket.set_keepalive(false)?,
        }
    }
    if before.user_timeout != next.user_timeout {
        set_user_timeout(socket, next.user_timeout)?;
    }
    let waiting = |tcp: &Tcp| if tcp.fast_open { tcp.backlog.get() } else { 0 };
    if waiting(before) != waiting(next) {
        sys::socket::set_fast_open(socket, waiting(next))?;
    }
    Ok(())
}

/// What is left to the kernel is set, too: an earlier config may have said something else.
fn set_whole_keepalive(socket: &Socket, keepalive: Keepalive) -> io::Result<()> {
    let fresh = Socket::new(socket.domain()?, Type::STREAM, None)?;
    let interval = keepalive
        .interval
        .map_or_else(|| fresh.tcp_keepalive_interval(), Ok)?;
    let probes = match keepalive.probes {
        Some(probes) => probes.get(),
        None => fresh.tcp_keepalive_retries()?,
    };
    let whole = TcpKeepalive::new().with_time(keepalive.idle);
    socket.set_tcp_keepalive(&whole.with_interval(interval).with_retries(probes))
}

fn set_user_timeout(socket: &Socket, timeout: Option<Duration>) -> io::Result<()> {
    socket.set_tcp_user_timeout(timeout)
}

/// Prepares a new TCP socket towards a server.
///
/// # Errors
/// What the kernel says to an option.
pub(super) fn prepare(socket: &Socket, tcp: &ServerTcp) -> io::Result<()> {
    if let Some(Keepalive {
        idle,
        interval,
        probes,
    }) = tcp.keepalive
    {
        let mut asked = TcpKeepalive::new().with_time(idle);
        if let Some(interval) = interval {
            asked = asked.with_interval(interval);
        }
        if let Some(probes) = probes {
            asked = asked.with_retries(probes.get());
        }
        socket.set_tcp_keepalive(&asked)?;
    }
    match tcp.user_timeout {
        Some(timeout) => set_user_timeout(socket, Some(timeout)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use std::num::NonZeroU32;

    const SECOND: Duration = Duration::from_secs(1);

    fn tuned() -> Tcp {
        Tcp {
            keepalive: Some(Keepalive {
                idle: 60 * SECOND,
                interval: Some(7 * SECOND),
                probes: NonZeroU32::new(4),
            }),
            user_timeout: Some(30 * SECOND),
            fast_open: true,
            backlog: NonZeroU32::new(9).unwrap(),
        }
    }

    fn bound() -> Socket {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        crate::bind::tcp(any, true).unwrap()
    }

    /// What the server's end of a new connection has: keepalive, idle, interval, probes, user timeout.
    fn inherited(listening: &Socket) -> (bool, Duration, Duration, u32, Option<Duration>) {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.connect(&listening.local_addr().unwrap()).unwrap();
        listening.set_nonblocking(false).unwrap();
        let (socket, _) = listening.accept().unwrap();
        assert!(socket.tcp_nodelay().unwrap());
        (
            socket.keepalive().unwrap(),
            socket.tcp_keepalive_time().unwrap(),
            socket.tcp_keepalive_interval().unwrap(),
            socket.tcp_keepalive_retries().unwrap(),
            socket.tcp_user_timeout().unwrap(),
        )
    }

    #[test]
    fn accepted_sockets_inherit_what_the_listening_one_was_told() {
        let socket = bound();
        listen(&socket, &tuned()).unwrap();
        let expected = (true, 60 * SECOND, 7 * SECOND, 4, Some(30 * SECOND));
        assert_eq!(inherited(&socket), expected);
    }

    #[test]
    fn a_change_reaches_a_socket_that_listens_and_takes_back_what_is_not_said_any_more() {
        let socket = bound();
        listen(&socket, &tuned()).unwrap();
        let plain = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let short = Tcp {
            keepalive: Some(Keepalive {
                idle: 5 * SECOND,
                interval: None,
                probes: None,
            }),
            ..Tcp::default()
        };
        change(&socket, &tuned(), &short).unwrap();
        let interval = plain.tcp_keepalive_interval().unwrap();
        let probes = plain.tcp_keepalive_retries().unwrap();
        let expected = (true, 5 * SECOND, interval, probes, None);
        assert_eq!(inherited(&socket), expected);
        change(&socket, &short, &Tcp::default()).unwrap();
        assert!(!inherited(&socket).0);
    }

    #[test]
    fn a_server_s_socket_gets_what_is_asked_for_and_nothing_else() {
        let plain = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let mut tcp = ServerTcp {
            keepalive: None,
            user_timeout: Some(SECOND),
        };
        prepare(&socket, &tcp).unwrap();
        assert!(!socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(SECOND));
        tcp.keepalive = Some(Keepalive {
            idle: 9 * SECOND,
            interval: None,
            probes: None,
        });
        prepare(&socket, &tcp).unwrap();
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), 9 * SECOND);
        let interval = plain.tcp_keepalive_interval().unwrap();
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), interval);
    }

    #[test]
    fn a_unix_socket_takes_the_backlog_alone() {
        let name = format!("@evenkeel-tuning-{}", std::process::id());
        let (socket, _) = crate::bind::unix::named(&crate::address::UnixName::new(&name)).unwrap();
        listen(&socket, &tuned()).unwrap();
        change(&socket, &tuned(), &Tcp::default()).unwrap();
    }
}
