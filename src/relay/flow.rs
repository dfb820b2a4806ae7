//! One direction of one connection. The table of its states stands in the folder's `mod.rs`.

use std::io::{self, ErrorKind};

use serde::{Deserialize, Serialize};

use super::BUFFER_BYTES;
use super::ends::Ends;
use super::mode::Mode;
use super::pipe_cache::{Pipe, PipeCache};
use super::stash::Stash;
use crate::clock::Now;

/// Most bytes that a flow copies in one turn: four full buffers.
const COPY_BUDGET: usize = 4 * BUFFER_BYTES;
/// Most bytes that a flow splices in one turn.
const SPLICE_BUDGET: usize = 1024 * 1024;
/// What one round costs of the budget at least, so that a turn of tiny reads or sends ends too.
const ROUND_COST_MIN: usize = 1024;
/// A first send up to this size leaves at once in one segment even with Nagle's algorithm on: below
/// the smallest MSS in use, IPv6's minimal MTU of 1,280 less its headers.
const FIRST_SEND_MAX: usize = 1220;

/// What a worker lends to the flow whose turn it is.
#[derive(Debug)]
pub struct Lent<'a> {
    /// The worker's buffer, [`BUFFER_BYTES`] long.
    pub buffer: &'a mut [u8],
    /// The worker's pipes.
    pub pipes: &'a mut PipeCache,
    /// The time of this turn of the loop.
    pub now: Now,
}

/// How a turn of a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing more to do until an event.
    Wait,
    /// The budget is used up: there is more to do.
    Again,
}

/// How far a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It may still carry bytes.
    Flowing,
    /// The source has ended in order, and all of it was delivered.
    Ended,
    /// The source has failed, and all that came before was delivered.
    SourceFailed,
    /// The target has failed; nothing more can be delivered.
    TargetFailed,
}

/// What a flow has read and not delivered yet.
#[derive(Debug, Default)]
pub(super) enum Held {
    #[default]
    Nothing,
    /// What the target gets ahead of all that the source sends.
    Header(Stash),
    Stash(Stash),
    Pipe(Pipe, u32),
}

/// What is known of the source. The names are those of a flow that is handed over (`state`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// It may send more.
    #[default]
    Open,
    /// Bytes may still be queued, but its socket has failed: when it ends, that is the failure, which
    /// the kernel reports only once, perhaps to the opposite flow.
    Doomed,
    /// Its peer has sent FIN, and all before it was read.
    Ended,
    /// Its socket has failed, and all before that was read.
    Failed,
}

/// One direction of one connection.
#[derive(Debug)]
pub struct Flow {
    pub(super) held: Held,
    /// Bytes of the source delivered to the target's socket.
    pub(super) delivered: u64,
    pub(super) mode: Mode,
    pub(super) source: Source,
    pub(super) target_failed: bool,
    /// False exactly when the kernel said that there is nothing to read.
    pub(super) source_ready: bool,
    /// False exactly when the kernel said that there is no room, and before the target is connected.
    pub(super) target_ready: bool,
    /// EPOLLRDHUP was seen: after the bytes that are queued comes the end.
    pub(super) source_ending: bool,
    /// Urgent data may be queued: a short read may have stopped at the mark.
    pub(super) urgent: bool,
}

/// Two of them are the larger part of an idle connection.
const _: () = assert!(size_of::<Flow>() <= 48);

impl Default for Flow {
    fn default() -> Self {
        Self {
            held: Held::Nothing,
            delivered: 0,
            mode: Mode::default(),
            source: Source::Open,
            target_failed: false,
            source_ready: false,
            target_ready: false,
            source_ending: false,
            urgent: false,
        }
    }
}

impl Flow {
    /// The source may have bytes, an end or an error.
    pub fn source_is_ready(&mut self) {
        self.source_ready = true;
    }

    /// The target may have room, or an error.
    pub fn target_is_ready(&mut self) {
        self.target_ready = true;
    }

    /// The source's peer has sent FIN (EPOLLRDHUP without EPOLLERR).
    pub fn source_is_ending(&mut self) {
        self.source_ready = true;
        self.source_ending = true;
    }

    /// The source has urgent data (EPOLLPRI), which splice cannot pass (trap 3).
    pub fn source_is_urgent(&mut self) {
        self.source_ready = true;
        self.urgent = true;
        self.mode = Mode::Pinned;
    }

    /// The source's socket has failed, as EPOLLERR or a write to it said: what is still queued is
    /// delivered, and the end that follows is that failure (trap 6). False where that was known.
    pub fn doom(&mut self) -> bool {
        self.source = match self.source {
            Source::Open => Source::Doomed,
            Source::Ended => Source::Failed,
            Source::Doomed | Source::Failed => return false,
        };
        self.source_ready = true;
        true
    }

    /// Whether EPOLLRDHUP was seen: what is queued at the source is all that will come.
    pub fn is_source_ending(&self) -> bool {
        self.source_ending
    }

    /// Has the target get `header` ahead of all that the source sends, and does not count it; an empty
    /// one is none. An earlier header is forgotten. To be called before the first turn.
    pub fn begin_with(&mut self, header: Vec<u8>) {
        debug_assert!(matches!(self.held, Held::Nothing | Held::Header(_)));
        self.held = match header.is_empty() {
            true => Held::Nothing,
            false => Held::Header(Stash::new(header)),
        };
    }

    /// Bytes of the source delivered to the target's socket.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Whether something is read and not delivered.
    pub fn is_holding(&self) -> bool {
        !matches!(self.held, Held::Nothing)
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        match self.source {
            _ if self.target_failed => Progress::TargetFailed,
            _ if self.is_holding() => Progress::Flowing,
            Source::Ended => Progress::Ended,
            Source::Failed => Progress::SourceFailed,
            Source::Open | Source::Doomed => Progress::Flowing,
        }
    }

    /// Gives a lent pipe up, for a connection that ends with bytes undelivered.
    pub fn release(&mut self, pipes: &mut PipeCache) {
        if let Held::Pipe(pipe, _) = std::mem::take(&mut self.held) {
            pipes.discard(pipe);
        }
    }

    /// Carries bytes until nothing is to be read, there is no room, or the budget is used up.
    pub fn turn<E: Ends>(&mut self, ends: &mut E, lent: &mut Lent<'_>) -> Turn {
        let mut budget = match self.mode {
            Mode::Splice { .. } => SPLICE_BUDGET,
            Mode::Copy { .. } | Mode::Pinned => COPY_BUDGET,
        };
        while self.can_move() {
            if budget == 0 {
                return Turn::Again;
            }
            let read = if self.is_holding() {
                self.drain(ends, lent);
                0
            } else {
                self.fill(ends, lent, budget)
            };
            budget = budget.saturating_sub(read.max(ROUND_COST_MIN));
        }
        Turn::Wait
    }

    /// Whether a system call may get this flow further now.
    fn can_move(&self) -> bool {
        if self.target_failed || !self.target_ready {
            return false;
        }
        let is_open = matches!(self.source, Source::Open | Source::Doomed);
        self.is_holding() || (is_open && self.source_ready)
    }

    /// Reads once while nothing is held, and sends what came; returns how many bytes came.
    fn fill<E: Ends>(&mut self, ends: &mut E, lent: &mut Lent<'_>, budget: usize) -> usize {
        match self.mode {
            Mode::Splice { .. } => self.fill_pipe(ends, lent, budget),
            Mode::Copy { .. } | Mode::Pinned => self.copy(ends, lent),
        }
    }

    fn copy<E: Ends>(&mut self, ends: &mut E, lent: &mut Lent<'_>) -> usize {
        match ends.receive(lent.buffer) {
            Ok(0) => self.end_source(),
            Ok(bytes) => {
                let is_full = bytes == lent.buffer.len();
                self.mode = self.mode.after_read(is_full);
                if !is_full && self.is_short_final() {
                    self.note_drained();
                }
                self.send(ends, &lent.buffer[..bytes]);
                return bytes;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.note_empty(),
            Err(error) => self.fail_source(&error),
        }
        0
    }

    /// Whether a short read has emptied the source: it may have stopped at an urgent mark, or before
    /// a failure that is still to be read and for which no other edge will come (traps 3, 6).
    fn is_short_final(&self) -> bool {
        !self.urgent && self.source != Source::Doomed
    }

    /// A `recv` came back short: nothing is left in the socket, and FIN behind it is the end.
    fn note_drained(&mut self) {
        self.source_ready = false;
        if self.source_ending {
            self.end_source();
        }
    }

    /// Nothing is queued, and no end either.
    fn note_empty(&mut self) {
        self.source_ready = false;
        self.urgent = false;
        if self.source == Source::Doomed {
            // The failure was not the socket's own, or is not told again: it is final all the same.
            self.end_source();
        }
    }

    fn end_source(&mut self) {
        self.source_ready = false;
        self.source = match self.source {
            Source::Open | Source::Ended => Source::Ended,
            Source::Doomed | Source::Failed => Source::Failed,
        };
    }

    fn fail_source(&mut self, error: &io::Error) {
        // A signal between two reads says nothing about the source: it is read again.
        if error.kind() != ErrorKind::Interrupted {
            self.source_ready = false;
            self.source = Source::Failed;
        }
    }

    fn send<E: Ends>(&mut self, ends: &mut E, bytes: &[u8]) {
        if self.delivered > 0 || bytes.len() > FIRST_SEND_MAX {
            ends.disable_nagle();
        }
        let is_last = self.source == Source::Ended;
        let sent = self.outcome(ends.send(bytes, is_last));
        if sent < bytes.len() && !self.target_failed {
            self.held = Held::Stash(Stash::new(bytes[sent..].to_vec()));
            self.note_short(sent);
        }
    }

    /// A send took less than it was offered: there is no room for more. (Where it took nothing,
    /// `outcome` has seen why.)
    fn note_short(&mut self, sent: usize) {
        if sent > 0 {
            self.target_ready = false;
        }
    }

    /// Fills an empty pipe from the source. Whatever splice declines, `recv` handles: EAGAIN, 0 and
    /// EINVAL of a splice are never taken for what the socket would say (traps 1, 3, 4, 9).
    fn fill_pipe<E: Ends>(&mut self, ends: &mut E, lent: &mut Lent<'_>, budget: usize) -> usize {
        let Some(pipe) = lent.pipes.take(lent.now) else {
            self.mode = self.mode.after_refusal();
            return self.copy(ends, lent);
        };
        match ends.splice_in(&pipe, pipe.capacity().min(budget)) {
            Ok(bytes) if bytes > 0 => {
                self.mode = self.mode.after_fill(bytes);
                self.held = Held::Pipe(pipe, u32::try_from(bytes).unwrap_or(u32::MAX));
                bytes
            }
            outcome => {
                lent.pipes.give_back(pipe);
                self.after_declined(outcome, ends, lent)
            }
        }
    }

    fn after_declined<E: Ends>(
        &mut self,
        outcome: io::Result<usize>,
        ends: &mut E,
        lent: &mut Lent<'_>,
    ) -> usize {
        let says_ended = outcome.is_ok();
        match outcome {
            Err(error) if is_unsupported(&error) => self.mode = Mode::Pinned,
            // At an urgent mark a splice meets the failure before the bytes behind the mark.
            Err(error) if !is_transient(&error) => {
                self.doom();
            }
            Ok(_) | Err(_) => {}
        }
        let copied = self.copy(ends, lent);
        if says_ended && copied > 0 {
            // A socket in a sockmap answers 0 for ever (trap 4).
            self.mode = Mode::Pinned;
        }
        copied
    }

    fn drain<E: Ends>(&mut self, ends: &mut E, lent: &mut Lent<'_>) {
        match std::mem::take(&mut self.held) {
            Held::Nothing => {}
            Held::Header(header) => self.drain_header(ends, header),
            Held::Stash(stash) => self.drain_stash(ends, stash),
            Held::Pipe(pipe, bytes) => self.drain_pipe(ends, lent, pipe, bytes),
        }
    }

    fn drain_stash<E: Ends>(&mut self, ends: &mut E, mut stash: Stash) {
        ends.disable_nagle();
        let is_last = self.source == Source::Ended;
        let sent = self.outcome(ends.send(stash.rest(), is_last));
        if self.target_failed || stash.advance(sent) {
            return;
        }
        self.note_short(sent);
        self.held = Held::Stash(stash);
    }

    /// As for a stash, but for the count. What the source sends follows at once: Nagle's algorithm would
    /// hold that back for as long as the target delays its acknowledgement.
    fn drain_header<E: Ends>(&mut self, ends: &mut E, mut header: Stash) {
        ends.disable_nagle();
        let delivered = self.delivered;
        let sent = self.outcome(ends.send(header.rest(), false));
        self.delivered = delivered;
        if self.target_failed || header.advance(sent) {
            return;
        }
        self.note_short(sent);
        self.held = Held::Header(header);
    }

    fn drain_pipe<E: Ends>(&mut self, ends: &mut E, lent: &mut Lent<'_>, pipe: Pipe, bytes: u32) {
        let outcome = ends.splice_out(&pipe, bytes as usize);
        if outcome.as_ref().is_err_and(is_unsupported) {
            self.mode = Mode::Pinned;
            return self.unload(ends, lent, pipe, bytes);
        }
        if matches!(outcome, Ok(0)) {
            return self.lose(lent, pipe);
        }
        let moved = u32::try_from(self.outcome(outcome)).unwrap_or(u32::MAX);
        let rest = bytes.saturating_sub(moved);
        if self.target_failed {
            lent.pipes.discard(pipe);
        } else if rest == 0 {
            lent.pipes.give_back(pipe);
        } else {
            self.held = Held::Pipe(pipe, rest);
        }
    }

    /// The target cannot splice: what the pipe holds becomes a stash and goes on by copy.
    fn unload<E: Ends>(&mut self, ends: &mut E, lent: &mut Lent<'_>, pipe: Pipe, bytes: u32) {
        let mut rest = vec![0; bytes as usize];
        let mut taken = 0;
        while taken < rest.len() {
            match ends.unload(&pipe, &mut rest[taken..]) {
                Ok(more) if more > 0 => taken += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Fewer bytes than were counted in: as in trap 10, never guess.
                Ok(_) | Err(_) => return self.lose(lent, pipe),
            }
        }
        lent.pipes.give_back(pipe);
        self.held = Held::Stash(Stash::new(rest));
    }

    /// The kernel says that a pipe is empty, our count says that it is not: bytes are lost
    /// (trap 10). Failing both ends is the one answer that can neither corrupt nor spin.
    fn lose(&mut self, lent: &mut Lent<'_>, pipe: Pipe) {
        lent.pipes.discard(pipe);
        self.source = Source::Failed;
        self.target_failed = true;
    }

    /// Books a send or a splice into the target; returns how many bytes it took.
    fn outcome(&mut self, outcome: io::Result<usize>) -> usize {
        match outcome {
            Ok(bytes) => {
                self.delivered += bytes as u64;
                // A target that takes nothing is waited for: asking again at once would spin (trap 10).
                self.target_ready &= bytes > 0;
                bytes
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            Err(error) if is_transient(&error) => {
                self.target_ready = false;
                0
            }
            Err(_) => {
                self.target_failed = true;
                0
            }
        }
    }
}

/// Nothing now, more later.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// EINVAL and ENOSYS: this socket cannot splice (or has a kTLS control record at its head).
fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidInput | ErrorKind::Unsupported
    )
}
