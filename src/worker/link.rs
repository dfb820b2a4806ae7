//! The two real sockets of a flow, as the relay's `Ends`.

use std::io::{self, Read};
use std::os::fd::AsFd;

use socket2::Socket;

use crate::relay::Ends;
use crate::relay::pipe_cache::Pipe;
use crate::sys::{self, splice};

/// The server's socket of a connection.
#[derive(Debug)]
pub(super) struct ServerSocket {
    pub(super) socket: Socket,
    /// Whether TCP_NODELAY is set. A client's socket inherits it from its listener; a server's gets
    /// it with the first send that needs it, which short connections never make.
    pub(super) is_nagle_off: bool,
}

/// One direction between two sockets.
#[derive(Debug)]
pub(super) struct Link<'a> {
    pub(super) source: &'a Socket,
    pub(super) target: &'a Socket,
    /// `None` where Nagle's algorithm is off already.
    pub(super) is_nagle_off: Option<&'a mut bool>,
}

impl Ends for Link<'_> {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut source = self.source;
        source.read(buffer)
    }

    fn send(&mut self, bytes: &[u8], is_last: bool) -> io::Result<usize> {
        sys::socket::send(self.target, bytes, is_last)
    }

    fn splice_in(&mut self, pipe: &Pipe, bytes: usize) -> io::Result<usize> {
        splice::splice(self.source.as_fd(), pipe.write_end(), bytes)
    }

    fn splice_out(&mut self, pipe: &Pipe, bytes: usize) -> io::Result<usize> {
        splice::splice(pipe.read_end(), self.target.as_fd(), bytes)
    }

    fn unload(&mut self, pipe: &Pipe, buffer: &mut [u8]) -> io::Result<usize> {
        splice::read_pipe(pipe.read_end(), buffer)
    }

    fn disable_nagle(&mut self) {
        if let Some(is_off) = self.is_nagle_off.as_deref_mut().filter(|is_off| !**is_off) {
            *is_off = true;
            if let Err(error) = self.target.set_tcp_nodelay(true) {
                // Only a socket that has failed refuses; the next send will say so.
                log::debug!("set TCP_NODELAY: {error}");
            }
        }
    }
}
