//! The check that only connects, and how it leaves no trace at the server.
//!
//! There is nothing to say, so it ends by a reset and not in order: with thousands of checks each
//! interval, orderly ends would leave a minute's worth of TIME_WAIT sockets on this machine, which
//! take up local ports. The ACK that would complete the handshake is held back as well, as HAProxy
//! does: the kernel then answers the server's SYN-ACK by the reset alone, so the server's program
//! never accepts, and logs, a connection that says nothing.

use std::io;
use std::time::Duration;

use socket2::Socket;

/// Prepares a socket that is about to connect. The reset is armed here and not at the end, so that
/// a check which is broken off ends in the same way.
pub(super) fn prepare(socket: &Socket) -> io::Result<()> {
    // Holds the ACK back; the kernel sends it all the same after 40 ms, should we be late.
    socket.set_tcp_quickack(false)?;
    // Makes each close of a connected socket a reset.
    socket.set_linger(Some(Duration::ZERO))
}
