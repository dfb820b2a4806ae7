//! Relaying bytes in one direction: the state machine [`Flow`], free of sockets and of the loop.
//!
//! # Theory of operation
//! A connection has two flows. A flow reads from its *source* and writes to its *target*, and obeys
//! one rule that bounds its memory: **nothing is read from the source while anything is held**. What
//! is held is one of: nothing, a header that goes first, a [`Stash`](stash::Stash) (the rest of one
//! read), or a lent [`Pipe`](pipe_cache::Pipe) with bytes in it.
//!
//! | held    | source | target  | a turn does                                              |
//! |---------|--------|---------|----------------------------------------------------------|
//! | nothing | open   | open    | reads (copy) or fills a pipe (splice), then sends         |
//! | header  | open   | open    | sends it, uncounted; nothing was read before it            |
//! | stash   | any    | open    | sends the rest; a short send waits for room               |
//! | pipe    | any    | open    | splices out; the pipe goes back as soon as it is empty    |
//! | nothing | ended  | open    | nothing: the worker forwards the end (`Progress::Ended`)  |
//! | nothing | failed | open    | nothing: the worker resets the target                     |
//! | any     | any    | failed  | drops what is held: nobody will read it                   |
//!
//! # Guards, by the trap they are for
//! Edge-triggered epoll reports a change once, so `source_ready` and `target_ready` stay true until
//! the kernel itself says that there is nothing more.
//! 1. EAGAIN of a splice can mean a full pipe or an empty socket: fills happen into an empty pipe only,
//!    and after EAGAIN a plain `recv` decides whether the source is empty.
//! 2. No new edge comes for data that was left unread: readiness survives budgets and drains.
//! 3. Urgent data stalls splice for ever and makes reads short: a flow that has seen it copies for good
//!    and reads until EAGAIN; elsewhere a `recv` after each declined splice steps over the mark.
//! 4. Splice returning 0 is no proof of an end: only `recv` returning 0 is, or EPOLLRDHUP together with
//!    a short `recv` (not a short splice). Where `recv` has bytes after all, the flow copies for good.
//! 5. An end is forwarded only when nothing is held.
//! 6. A failure is delivered once: it is kept in the flow's state, and after the *target* has failed the
//!    opposite flow takes its source's end for that failure ([`Flow::doom`]). So does a flow whose
//!    source reports EPOLLERR; it reads on after a short read too, for no other edge will come. What
//!    fails a splice leaves the last word to `recv`: bytes may be queued behind an urgent mark.
//! 7. SPLICE_F_MORE is not used (`sys::splice`).
//! 8. Pipes are non-blocking and never leave their worker (`pipe_cache`).
//! 9. Splices ask for at most the pipe's size; EINVAL pins the flow to copying.
//! 10. A splice out of a pipe that moves nothing ends the flow rather than looping; a send that takes
//!     nothing waits for room.
//! 12. A turn has a budget; `Turn::Again` asks for another one behind everybody else.
//!
//! Traps 11, 14, 15 are the worker's. Numbers are those that tests use (`trap_NN_...`).

pub mod ends;
pub mod flow;
pub mod mode;
pub mod pipe_cache;
pub mod stash;
pub mod state;

pub use ends::Ends;
pub use flow::{Flow, Lent, Progress, Turn};
pub use state::{FlowState, ThawError};

/// Bytes of the buffer that all of a worker's copies go through. A read that fills it is one of two
/// that prove a flow to be bulk; larger buffers fall out of a core's cache.
pub const BUFFER_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests;
