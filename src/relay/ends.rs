//! What a flow may do to its two sockets, as a trait: the worker implements it over real ones, tests
//! script every short count and error and need no kernel.

use std::io;

use super::pipe_cache::Pipe;

/// The source and the target of one flow. Everything is non-blocking.
pub trait Ends {
    /// Reads from the source; 0 is its end. An error is delivered once and then gone (trap 6).
    ///
    /// # Errors
    /// `WouldBlock` where nothing is there; else the socket has failed.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes to the target, some or all of it. Where it `is_last`, the end of the flow is passed on
    /// right behind it, and both can go out as one segment.
    ///
    /// # Errors
    /// `WouldBlock` where there is no room; else the socket has failed.
    fn send(&mut self, bytes: &[u8], is_last: bool) -> io::Result<usize>;

    /// Moves from the source into a pipe.
    ///
    /// # Errors
    /// `WouldBlock` says that the pipe is full or the source is empty; `InvalidInput` that one of
    /// them cannot splice; else the socket has failed.
    fn splice_in(&mut self, pipe: &Pipe, bytes: usize) -> io::Result<usize>;

    /// Moves from a pipe into the target.
    ///
    /// # Errors
    /// As [`splice_in`](Self::splice_in), for the target.
    fn splice_out(&mut self, pipe: &Pipe, bytes: usize) -> io::Result<usize>;

    /// Takes bytes out of a pipe whose target turned out not to splice.
    ///
    /// # Errors
    /// `WouldBlock` where it is empty.
    fn unload(&mut self, pipe: &Pipe, buffer: &mut [u8]) -> io::Result<usize>;

    /// The next send follows an earlier one or has a short tail: Nagle's algorithm would hold it
    /// back until the peer acknowledges what came before.
    fn disable_nagle(&mut self);
}
