//! Ends that answer from a script, and a bench that runs one turn of a flow against one. A call that
//! is not the script's next one fails the test, and so does a script that is not used up.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};

use crate::clock::Now;
use crate::relay::ends::Ends;
use crate::relay::flow::{Flow, Lent, Turn};
use crate::relay::pipe_cache::{Pipe, PipeCache, Quota};
use crate::relay::{BUFFER_BYTES, Progress};
use crate::sys::limits::PipeLimits;

/// A read that fills the worker's buffer.
pub(super) const FULL: usize = BUFFER_BYTES;

pub(super) use Step::{Receive, Send, SpliceIn, SpliceOut, Unload};

/// One expected call with its answer: so many bytes, or an error.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Receive(Answer),
    Send(Answer),
    SpliceIn(Answer),
    SpliceOut(Answer),
    Unload(Answer),
}

pub(super) type Answer = Result<usize, ErrorKind>;

pub(super) const WOULD_BLOCK: Answer = Err(ErrorKind::WouldBlock);
pub(super) const INTERRUPTED: Answer = Err(ErrorKind::Interrupted);
pub(super) const RESET: Answer = Err(ErrorKind::ConnectionReset);
pub(super) const BROKEN: Answer = Err(ErrorKind::BrokenPipe);
pub(super) const INVALID: Answer = Err(ErrorKind::InvalidInput);

/// The byte at a position of the stream. A prime period: a shift by any power of two shows.
fn content(position: usize) -> u8 {
    u8::try_from(position % 251).unwrap()
}

#[derive(Debug, Default)]
struct Script {
    steps: VecDeque<Step>,
    /// What each call asked for, in bytes.
    asked: Vec<usize>,
    /// Bytes that left the source.
    read: usize,
    /// Bytes that came to the target.
    written: usize,
    /// Bytes that were taken out of the pipe and not written yet.
    unloaded: usize,
    nagle_is_off: bool,
    /// What the latest send was told of what follows it.
    is_last: bool,
    /// An answer is cut to what was asked, for rounds up to the end of a budget.
    cuts_answers: bool,
}

impl Script {
    fn next(&mut self, call: fn(Answer) -> Step, bytes: usize) -> io::Result<usize> {
        let step = self.steps.pop_front();
        let step =
            step.unwrap_or_else(|| panic!("a call beyond the script: {:?}", call(Ok(bytes))));
        let expected = std::mem::discriminant(&call(Ok(bytes)));
        assert_eq!(
            expected,
            std::mem::discriminant(&step),
            "called {:?}, not {step:?}",
            call(Ok(bytes))
        );
        self.asked.push(bytes);
        let (Receive(answer) | Send(answer) | SpliceIn(answer) | SpliceOut(answer)
        | Unload(answer)) = step;
        let answer = match answer {
            Ok(given) if self.cuts_answers => Ok(given.min(bytes)),
            _ => answer,
        };
        assert!(
            answer.is_ok_and(|given| given <= bytes) || answer.is_err(),
            "{step:?} of {bytes}"
        );
        answer.map_err(io::Error::from)
    }
}

impl Ends for Script {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        assert_eq!(self.read, self.written, "read while something was held");
        let bytes = self.next(Receive, buffer.len())?;
        for byte in &mut buffer[..bytes] {
            *byte = content(self.read);
            self.read += 1;
        }
        Ok(bytes)
    }

    fn send(&mut self, bytes: &[u8], is_last: bool) -> io::Result<usize> {
        self.is_last = is_last;
        let sent = self.next(Send, bytes.len())?;
        for byte in &bytes[..sent] {
            assert_eq!(
                *byte,
                content(self.written),
                "byte {} is wrong",
                self.written
            );
            self.written += 1;
        }
        self.unloaded = self.unloaded.saturating_sub(sent);
        Ok(sent)
    }

    fn splice_in(&mut self, pipe: &Pipe, bytes: usize) -> io::Result<usize> {
        assert_eq!(self.read, self.written, "read while something was held");
        assert!(bytes <= pipe.capacity(), "trap 9: {bytes} asked");
        let moved = self.next(SpliceIn, bytes)?;
        self.read += moved;
        Ok(moved)
    }

    fn splice_out(&mut self, _: &Pipe, bytes: usize) -> io::Result<usize> {
        let moved = self.next(SpliceOut, bytes)?;
        self.written += moved;
        Ok(moved)
    }

    fn unload(&mut self, _: &Pipe, buffer: &mut [u8]) -> io::Result<usize> {
        let taken = self.next(Unload, buffer.len())?;
        for byte in &mut buffer[..taken] {
            *byte = content(self.written + self.unloaded);
            self.unloaded += 1;
        }
        Ok(taken)
    }

    fn disable_nagle(&mut self) {
        self.nagle_is_off = true;
    }
}

/// A flow between two scripted ends, with what a worker would lend it.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) flow: Flow,
    pub(super) pipes: PipeCache,
    script: Script,
    buffer: Vec<u8>,
}

impl Bench {
    /// A new connection, both of whose ends are ready, and `pipes` to lend.
    pub(super) fn with_pipes(pipes: usize) -> Self {
        let mut flow = Flow::default();
        flow.source_is_ready();
        flow.target_is_ready();
        Self {
            flow,
            pipes: pipes_for_tests(pipes),
            script: Script::default(),
            buffer: vec![0; BUFFER_BYTES],
        }
    }

    pub(super) fn new() -> Self {
        Self::with_pipes(2)
    }

    /// As [`new`](Self::new), with a header of `bytes` that goes before the stream: its bytes take the
    /// first positions.
    pub(super) fn with_header(bytes: usize) -> Self {
        let mut bench = Self::new();
        bench.flow.begin_with((0..bytes).map(content).collect());
        bench.script.read = bytes;
        bench
    }

    /// A flow that two full reads have just proven to be bulk; more is to be read.
    pub(super) fn bulk() -> Self {
        let mut bench = Self::new();
        let full = [Receive(Ok(FULL)), Send(Ok(FULL))];
        bench.turn(
            &[
                &full[..],
                &full,
                &[SpliceIn(WOULD_BLOCK), Receive(WOULD_BLOCK)],
            ]
            .concat(),
        );
        bench.flow.source_is_ready();
        bench
    }

    /// One turn, which makes exactly these calls; answers what each asked for.
    pub(super) fn turn(&mut self, steps: &[Step]) -> Vec<usize> {
        let (turn, asked) = self.turn_with(steps);
        assert_eq!(turn, Turn::Wait);
        asked
    }

    /// As [`turn`](Self::turn), whether it ends in waiting or not.
    pub(super) fn turn_with(&mut self, steps: &[Step]) -> (Turn, Vec<usize>) {
        self.script.steps = steps.iter().copied().collect();
        self.script.asked.clear();
        let turn = self.flow.turn(
            &mut self.script,
            &mut Lent {
                buffer: &mut self.buffer,
                pipes: &mut self.pipes,
                now: Now::default(),
            },
        );
        assert!(
            self.script.steps.is_empty(),
            "not called: {:?}",
            self.script.steps
        );
        (turn, self.script.asked.clone())
    }

    /// Turns that all do the same until the budget ends them; answers how many rounds it took.
    pub(super) fn rounds_of_a_turn(&mut self, round: &[Step]) -> usize {
        const ENOUGH: usize = 5_000;
        self.script.steps = round.repeat(ENOUGH).into();
        self.script.cuts_answers = true;
        let turn = self.flow.turn(
            &mut self.script,
            &mut Lent {
                buffer: &mut self.buffer,
                pipes: &mut self.pipes,
                now: Now::default(),
            },
        );
        assert_eq!(turn, Turn::Again);
        self.script.cuts_answers = false;
        ENOUGH - self.script.steps.len() / round.len()
    }

    /// A turn that finds nothing to do.
    pub(super) fn rests(&mut self) -> bool {
        self.turn(&[]).is_empty()
    }

    pub(super) fn progress(&self) -> Progress {
        self.flow.progress()
    }

    /// Whether the latest send was said to be followed by the end.
    pub(super) fn last_was_sent(&self) -> bool {
        self.script.is_last
    }

    pub(super) fn nagle_is_off(&self) -> bool {
        self.script.nagle_is_off
    }

    /// Whether all that was read was written, in order.
    pub(super) fn is_delivered(&self) -> bool {
        self.script.read == self.script.written
            && self.flow.delivered() == self.script.written as u64
    }
}

/// A cache that lends at most `pipes`.
pub(super) fn pipes_for_tests(pipes: usize) -> PipeCache {
    const PIPE_BYTES: usize = 256 * 1024;
    // A worker gets three quarters of the limit.
    let user_soft = Some((pipes * PIPE_BYTES * 4).div_ceil(3).next_multiple_of(4));
    PipeCache::new(Quota::new(
        PipeLimits {
            max_size: PIPE_BYTES,
            user_soft,
        },
        16 * pipes as u64,
        1,
    ))
}
