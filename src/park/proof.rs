//! Whether all that was taken from one socket was given to another, by the kernel's own counts.
//!
//! What was received and is not unread any more was taken. What was acknowledged or is on its way was
//! given. A process that was killed between the two has lost what lies between them, and never the
//! other way round: nothing is given that was not taken. FIN counts as a byte in both, and so does the
//! SYN of the side that has connected, which is ours towards a server.
//!
//! An urgent byte is taken by nobody: after one the counts differ, and the connection passes for broken.

use std::io;
use std::os::fd::BorrowedFd;

use crate::end::Side;
use crate::relay::FlowState;
use crate::relay::state::HeldState;
use crate::sys::{socket, tcp_info};

/// The counts are asked for one after the other, and peers go on meanwhile: so often at most.
const TRIES: usize = 64;

/// What was exchanged with the two sides beside the bytes that a flow has carried: PROXY headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Bytes to the server.
    pub given: u16,
    /// Bytes from the client.
    pub taken: u16,
}

/// Bytes carried upstream and downstream; `None` where some are lost, or where the kernel cannot tell.
///
/// # Errors
/// For what is no TCP socket.
pub fn delivered(
    client: BorrowedFd<'_>,
    server: BorrowedFd<'_>,
    ahead: Ahead,
) -> io::Result<Option<(u64, u64)>> {
    let upstream = carried(
        taken(client)?.and_then(|bytes| bytes.checked_sub(ahead.taken.into())),
        given(server, Side::Server)?.and_then(|bytes| bytes.checked_sub(ahead.given.into())),
    );
    let downstream = carried(taken(server)?, given(client, Side::Client)?);
    Ok(upstream.zip(downstream))
}

/// What was exchanged beside the bytes of the two flows, which carry nothing meanwhile; `None` where it
/// is not all there yet, or where the kernel cannot tell.
///
/// # Errors
/// For what is no TCP socket.
pub fn exchanged_ahead(
    client: BorrowedFd<'_>,
    server: BorrowedFd<'_>,
    [upstream, downstream]: [&FlowState; 2],
) -> io::Result<Option<Ahead>> {
    let beside = |bytes: Option<u64>, counted: u64| {
        bytes.and_then(|bytes| u16::try_from(bytes.checked_sub(counted)?).ok())
    };
    let is_read = |flow: &FlowState| match &flow.held {
        HeldState::Nothing => Some(flow.delivered),
        HeldState::Stash(bytes) => Some(flow.delivered + bytes.len() as u64),
        HeldState::Pipe(bytes) => Some(flow.delivered + u64::from(*bytes)),
        HeldState::Header(_) => None,
    };
    let (Some(up_read), Some(down_read)) = (is_read(upstream), is_read(downstream)) else {
        return Ok(None);
    };
    let ahead = Ahead {
        given: match beside(given(server, Side::Server)?, upstream.delivered) {
            Some(bytes) => bytes,
            None => return Ok(None),
        },
        taken: match beside(taken(client)?, up_read) {
            Some(bytes) => bytes,
            None => return Ok(None),
        },
    };
    // Nothing goes ahead on the way back, so this shows that the counts can be relied on.
    let is_sure = taken(server)? == Some(down_read)
        && given(client, Side::Client)? == Some(downstream.delivered);
    Ok(is_sure.then_some(ahead))
}

fn carried(taken: Option<u64>, given: Option<u64>) -> Option<u64> {
    taken.filter(|_| taken == given)
}

/// Bytes that somebody has read.
fn taken(source: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let unread = || socket::unread(source);
    let is_same = |one: tcp_info::Traffic, other: tcp_info::Traffic| {
        one.received == other.received && one.has_fin == other.has_fin
    };
    Ok(
        at_one_moment(source, unread, is_same)?.and_then(|(traffic, unread)| {
            let fin = u64::from(traffic.has_fin);
            traffic.received.checked_sub(fin)?.checked_sub(unread)
        }),
    )
}

/// Bytes that somebody has written.
fn given(target: BorrowedFd<'_>, side: Side) -> io::Result<Option<u64>> {
    let on_the_way = || socket::unacknowledged(target);
    let is_same = |one: tcp_info::Traffic, other: tcp_info::Traffic| {
        one.acknowledged == other.acknowledged && one.has_sent_fin == other.has_sent_fin
    };
    Ok(
        at_one_moment(target, on_the_way, is_same)?.and_then(|(traffic, on_the_way)| {
            let others = u64::from(traffic.has_sent_fin) + u64::from(side == Side::Server);
            (traffic.acknowledged + on_the_way).checked_sub(others)
        }),
    )
}

/// What the kernel says in two answers that belong together.
fn at_one_moment(
    socket: BorrowedFd<'_>,
    ask: impl Fn() -> io::Result<usize>,
    is_same: impl Fn(tcp_info::Traffic, tcp_info::Traffic) -> bool,
) -> io::Result<Option<(tcp_info::Traffic, u64)>> {
    for _ in 0..TRIES {
        let Some(before) = tcp_info::traffic(socket)? else {
            return Ok(None);
        };
        let count = ask()?;
        let Some(after) = tcp_info::traffic(socket)? else {
            return Ok(None);
        };
        if is_same(before, after) {
            return Ok(Some((before, count as u64)));
        }
    }
    Ok(None)
}

#[cfg(test)]
pub(super) mod tests;
