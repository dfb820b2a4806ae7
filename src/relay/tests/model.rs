//! A model of the kernel of one flow: its two sockets, a pipe that counts slots, and odd answers. It
//! checks every byte and every promise of a flow as calls are made.
//!
//! Bytes are known by their position in the source's stream; their values come from a table, so that
//! a block that is lost, doubled or out of place shows.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};

use fastrand::Rng;

use super::sockets::{SourceSocket, TargetSocket};
use crate::relay::ends::Ends;
use crate::relay::pipe_cache::Pipe;

const PAGE_BYTES: usize = 4096;

/// Which odd answers this connection's kernel gives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Oddities {
    /// One call in so many is interrupted by a signal; 0 is none.
    pub(super) interrupts: u32,
    /// The source's socket answers EINVAL to a splice.
    pub(super) source_cannot_splice: bool,
    /// The target's socket answers EINVAL to a splice.
    pub(super) target_cannot_splice: bool,
    /// A splice from the source may answer 0 with data queued, as in a sockmap.
    pub(super) splice_of_nothing: bool,
}

/// How often what was seen, to prove that schedules reach it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) calls: u64,
    pub(super) bytes: u64,
    pub(super) fills: u64,
    pub(super) splices_out: u64,
    pub(super) unloads: u64,
    pub(super) marks_stepped_over: u64,
    pub(super) stalled_splices: u64,
    pub(super) source_resets: u64,
    pub(super) target_resets: u64,
    pub(super) blocked_sends: u64,
    pub(super) short_sends: u64,
}

/// The kernel of one connection, for one direction.
#[derive(Debug)]
pub(super) struct Kernel<'a> {
    pub(super) rng: Rng,
    pub(super) source: SourceSocket,
    pub(super) target: TargetSocket,
    pub(super) seen: Seen,
    /// No turn may go on beyond this many calls.
    pub(super) calls_end: u64,
    oddities: Oddities,
    table: &'a [u8],
    /// Lengths of the slots in use of the one pipe that the flow can hold.
    pipe: VecDeque<usize>,
    /// Position of the next byte that the target expects.
    next: u64,
    /// Positions of urgent bytes that the kernel dropped, and that the target must not get.
    dropped: VecDeque<u64>,
    /// Bytes taken out of the pipe by `unload`.
    unloaded: usize,
    nagle_is_off: bool,
}

impl<'a> Kernel<'a> {
    pub(super) fn new(mut rng: Rng, oddities: Oddities, table: &'a [u8]) -> Self {
        Self {
            source: SourceSocket::new(rng.u8(..4) == 0),
            target: TargetSocket::new(rng.usize(1..=8) * (4096 << rng.u8(..7))),
            rng,
            seen: Seen::default(),
            calls_end: 0,
            oddities,
            table,
            pipe: VecDeque::new(),
            next: 0,
            dropped: VecDeque::new(),
            unloaded: 0,
            nagle_is_off: false,
        }
    }

    pub(super) fn arrive_urgent(&mut self) {
        let dropped = self.source.arrive_urgent();
        self.dropped.extend(dropped);
    }

    /// Bytes that were read and not delivered.
    pub(super) fn held(&self) -> u64 {
        let dropped = self.dropped.len() as u64;
        self.source.head - self.next - dropped
    }

    /// Bytes in the flow's pipe.
    pub(super) fn piped(&self) -> usize {
        self.pipe.iter().sum()
    }

    fn start_call(&mut self) -> io::Result<()> {
        self.seen.calls += 1;
        assert!(
            self.seen.calls <= self.calls_end,
            "a turn of too many calls"
        );
        let interrupts = self.oddities.interrupts;
        if interrupts > 0 && self.rng.u32(..interrupts) == 0 {
            return Err(ErrorKind::Interrupted.into());
        }
        Ok(())
    }

    fn start_read(&mut self) -> io::Result<()> {
        assert_eq!(self.held(), 0, "read while something was held");
        assert_eq!(self.piped(), 0, "read while the pipe held bytes");
        self.start_call()
    }

    /// The table from a position on: never empty, perhaps shorter than `bytes`.
    fn content(&self, position: u64, bytes: usize) -> &'a [u8] {
        let start = usize::try_from(position % self.table.len() as u64).unwrap();
        &self.table[start..self.table.len().min(start + bytes)]
    }

    fn copy_out(&self, position: u64, buffer: &mut [u8]) {
        let mut done = 0;
        while done < buffer.len() {
            let part = self.content(position + done as u64, buffer.len() - done);
            buffer[done..done + part.len()].copy_from_slice(part);
            done += part.len();
        }
    }

    fn skip_dropped(&mut self) {
        while self.dropped.front() == Some(&self.next) {
            self.dropped.pop_front();
            self.next += 1;
        }
    }

    /// Checks bytes that the target got; `given` are theirs where they went through our memory.
    fn deliver(&mut self, bytes: usize, given: Option<&[u8]>) {
        self.seen.bytes += bytes as u64;
        let mut done = 0;
        while done < bytes {
            self.skip_dropped();
            let gap = self.dropped.front().map_or(u64::MAX, |gap| gap - self.next);
            let run = (bytes - done).min(usize::try_from(gap).unwrap());
            let expected = self.content(self.next, run);
            if let Some(given) = given {
                let given = &given[done..done + expected.len()];
                assert!(given == expected, "wrong bytes from {} on", self.next);
            }
            done += expected.len();
            self.next += expected.len() as u64;
        }
        self.skip_dropped();
        assert!(
            self.next <= self.source.head,
            "more was delivered than read"
        );
    }

    /// Takes bytes out of the pipe's slots; a slot that is partly drained stays occupied.
    fn drain_slots(&mut self, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            let first = self.pipe.front_mut().expect("the pipe holds what it gives");
            let part = left.min(*first);
            *first -= part;
            left -= part;
            if *first == 0 {
                self.pipe.pop_front();
            }
        }
    }

    fn read_past_mark(&mut self) {
        let source = &mut self.source;
        if source.mark != Some(source.head) {
            return;
        }
        self.seen.marks_stepped_over += 1;
        source.mark = None;
        if !source.urgent_inline {
            self.dropped.push_back(source.head);
            source.consume(1);
        }
        // With nothing held, the target waits behind the byte that was dropped.
        self.skip_dropped();
    }
}

impl Ends for Kernel<'_> {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.start_read()?;
        self.read_past_mark();
        let bytes = buffer.len().min(self.source.before_mark());
        if bytes == 0 {
            let answer = self.source.without_bytes();
            self.seen.source_resets += u64::from(answer.as_ref().is_err_and(is_reset));
            return answer;
        }
        self.copy_out(self.source.head, &mut buffer[..bytes]);
        self.source.consume(bytes);
        Ok(bytes)
    }

    fn send(&mut self, bytes: &[u8], _is_last: bool) -> io::Result<usize> {
        assert!(!bytes.is_empty() && bytes.len() as u64 <= self.held());
        assert!(
            self.nagle_is_off || (self.seen.bytes == 0 && bytes.len() <= 1220),
            "Nagle holds it"
        );
        self.start_call()?;
        let answer = self.target.accept(bytes.len());
        match &answer {
            Ok(sent) => {
                self.deliver(*sent, Some(&bytes[..*sent]));
                self.unloaded = self.unloaded.saturating_sub(*sent);
                self.seen.short_sends += u64::from(*sent < bytes.len());
            }
            Err(_) if self.target.has_told => self.seen.target_resets += 1,
            Err(_) => self.seen.blocked_sends += 1,
        }
        answer
    }

    fn splice_in(&mut self, pipe: &Pipe, bytes: usize) -> io::Result<usize> {
        assert!(
            bytes > 0 && bytes <= pipe.capacity(),
            "trap 9: {bytes} asked"
        );
        self.start_read()?;
        if self.oddities.source_cannot_splice {
            return Err(ErrorKind::InvalidInput.into());
        }
        if self.oddities.splice_of_nothing && self.rng.u8(..4) == 0 {
            return Ok(0);
        }
        if self.source.mark == Some(self.source.head) {
            // tcp_read_sock stops here whatever comes behind.
            self.seen.stalled_splices += 1;
            return match self.source.is_closed() {
                true => self.source.without_bytes(),
                false => Err(ErrorKind::WouldBlock.into()),
            };
        }
        let slots = pipe.capacity() / PAGE_BYTES;
        let mut left = bytes.min(self.source.before_mark());
        let mut moved = 0;
        while left > 0 && self.pipe.len() < slots {
            let first = self.source.fragments[0];
            let part = left.min(first);
            self.pipe.push_back(part);
            self.source.consume(part);
            left -= part;
            moved += part;
        }
        if moved == 0 {
            return self.source.without_bytes();
        }
        self.seen.fills += 1;
        Ok(moved)
    }

    fn splice_out(&mut self, _: &Pipe, bytes: usize) -> io::Result<usize> {
        assert_eq!(bytes, self.piped(), "the flow's count of its pipe");
        assert!(self.nagle_is_off, "Nagle's algorithm holds a tail back");
        self.start_call()?;
        if self.oddities.target_cannot_splice {
            return Err(ErrorKind::InvalidInput.into());
        }
        // A drain may end at a batch of fragments with room left.
        let batch = self.pipe.iter().take(16).sum();
        let offered = if self.rng.bool() { bytes } else { batch };
        let moved = self.target.accept(offered)?;
        self.drain_slots(moved);
        self.deliver(moved, None);
        self.seen.splices_out += 1;
        Ok(moved)
    }

    fn unload(&mut self, _: &Pipe, buffer: &mut [u8]) -> io::Result<usize> {
        self.start_call()?;
        let most = buffer.len().min(self.piped());
        let taken = if most > 1 && self.rng.bool() {
            self.rng.usize(1..most)
        } else {
            most
        };
        self.copy_out(self.next + self.unloaded as u64, &mut buffer[..taken]);
        self.drain_slots(taken);
        self.unloaded += taken;
        self.seen.unloads += 1;
        if taken == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(taken)
    }

    fn disable_nagle(&mut self) {
        self.nagle_is_off = true;
    }
}

fn is_reset(error: &io::Error) -> bool {
    error.kind() == ErrorKind::ConnectionReset
}
