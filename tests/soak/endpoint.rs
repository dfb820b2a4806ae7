//! One end of one connection: sends and receives by its plan on a socket that never blocks, and
//! says in the end what it saw. Client and server ends are the same thing.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use evenkeel::clock::Now;
use mio::net::TcpStream;
use socket2::SockRef;

use crate::harness::blocks::Blocks;
use crate::plan::{Direction, Part};

/// Bytes each way before others get their turn.
const BUDGET_BYTES: u64 = 1 << 20;

/// A socket and what is left of its plan.
#[derive(Debug)]
pub(crate) struct Endpoint {
    socket: TcpStream,
    sending: Sending,
    receiving: Receiving,
    /// When a byte last passed, either way.
    pub(crate) progressed: Now,
}

#[derive(Debug)]
struct Sending {
    stream: Blocks,
    direction: Direction,
    /// The last part waits for the other end's FIN.
    keeps_last: bool,
    resets: bool,
    ended: bool,
}

#[derive(Debug)]
struct Receiving {
    stream: Blocks,
    direction: Direction,
    stalled_until: Option<Now>,
    ended: bool,
}

/// What an end wants after its turn.
#[derive(Debug)]
pub(crate) enum Next {
    /// Nothing before an event.
    Wait,
    /// Another turn.
    Again,
    /// A turn at that time.
    At(Now),
    /// Nothing more: this is what it saw.
    Done(Outcome),
}

/// What one end saw.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) ending: Seen,
}

/// How a connection ended at one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// FIN both ways.
    Fin,
    /// RST came.
    Reset,
    /// This end sent RST.
    Own,
    /// A byte that should not be there, or an unheard-of error.
    Wrong(String),
}

/// What one step of a direction came to.
enum Step {
    Moved(u64),
    Blocked,
    Stalled(Now),
    Over(Seen),
}

/// What one direction's steps of a turn came to.
#[derive(Default)]
struct Progress {
    moved: bool,
    wake: Option<Now>,
    over: Option<Seen>,
}

impl Endpoint {
    /// An end that sends `sends` and receives `receives`.
    pub(crate) fn new(now: Now, socket: TcpStream, sends: Direction, receives: Direction) -> Self {
        let sending = Sending {
            stream: Blocks::new(sends.seed),
            direction: sends,
            keeps_last: false,
            resets: false,
            ended: false,
        };
        let receiving = Receiving {
            stream: Blocks::new(receives.seed),
            direction: receives,
            stalled_until: None,
            ended: false,
        };
        Self {
            socket,
            sending,
            receiving,
            progressed: now,
        }
    }

    /// Keeps the last part until the other end's FIN.
    pub(crate) fn keep_last_part(mut self) -> Self {
        self.sending.keeps_last = true;
        self
    }

    /// Ends by RST where the others end by FIN.
    pub(crate) fn end_by_reset(mut self) -> Self {
        self.sending.resets = true;
        self
    }

    /// For registering it.
    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// Closes by RST, and what was seen so far.
    pub(crate) fn reset(self) -> Outcome {
        let outcome = self.outcome(Seen::Own);
        set_reset(&self.socket);
        outcome
    }

    /// Does what can be done now; `scratch` holds bytes only during the call.
    pub(crate) fn turn(&mut self, now: Now, scratch: &mut [u8]) -> Next {
        let receipt = self.pump(now, scratch, Self::receive);
        if let Some(seen) = receipt.over {
            return self.finish(seen);
        }
        let dispatch = self.pump(now, scratch, Self::send);
        if let Some(seen) = dispatch.over {
            return self.finish(seen);
        }
        if self.sending.ended && self.receiving.ended {
            return self.finish(Seen::Fin);
        }
        if receipt.moved || dispatch.moved {
            self.progressed = now;
            return Next::Again;
        }
        receipt.wake.map_or(Next::Wait, Next::At)
    }

    fn finish(&self, seen: Seen) -> Next {
        if seen != Seen::Fin {
            set_reset(&self.socket);
        }
        Next::Done(self.outcome(seen))
    }

    /// Repeats `step` within the budget; small messages go out one a turn, so that they stay small.
    fn pump(
        &mut self,
        now: Now,
        scratch: &mut [u8],
        step: fn(&mut Self, Now, &mut [u8]) -> Step,
    ) -> Progress {
        let mut progress = Progress::default();
        let mut budget = BUDGET_BYTES;
        while budget > 0 {
            let bytes = match step(self, now, scratch) {
                Step::Moved(bytes) => bytes,
                Step::Blocked => return progress,
                Step::Stalled(time) => {
                    return Progress {
                        wake: Some(time),
                        ..progress
                    };
                }
                Step::Over(seen) => {
                    return Progress {
                        over: Some(seen),
                        ..progress
                    };
                }
            };
            progress.moved = true;
            budget = if bytes < 1_500 {
                0
            } else {
                budget.saturating_sub(bytes)
            };
        }
        progress
    }

    fn receive(&mut self, now: Now, scratch: &mut [u8]) -> Step {
        let receiving = &mut self.receiving;
        if receiving.ended {
            return Step::Blocked;
        }
        if let Some(stall) = receiving.stall(now) {
            return Step::Stalled(stall);
        }
        let length = receiving.direction.read_bytes.min(scratch.len());
        match self.socket.read(&mut scratch[..length]) {
            Ok(0) => {
                receiving.ended = true;
                Step::Moved(0)
            }
            Ok(read) => match receiving.stream.check(&scratch[..read]) {
                Ok(()) => Step::Moved(read as u64),
                Err(difference) => Step::Over(Seen::Wrong(difference)),
            },
            Err(error) => failed(&error),
        }
    }

    fn send(&mut self, _now: Now, scratch: &mut [u8]) -> Step {
        let sending = &mut self.sending;
        if sending.ended || (sending.waits_for_fin() && !self.receiving.ended) {
            return Step::Blocked;
        }
        if sending
            .direction
            .urgent_at
            .is_some_and(|at| sending.stream.position() >= at)
        {
            return match SockRef::from(&self.socket).send_out_of_band(b"!") {
                Ok(_) => {
                    sending.direction.urgent_at = None;
                    Step::Moved(1)
                }
                Err(error) => failed(&error),
            };
        }
        let Some(part) = sending.direction.parts.front_mut() else {
            return self.end_sending();
        };
        match write_piece(&mut self.socket, &mut sending.stream, part, scratch) {
            Ok(written) => {
                part.bytes -= written;
                if part.bytes == 0 {
                    sending.direction.parts.pop_front();
                }
                Step::Moved(written)
            }
            Err(error) => failed(&error),
        }
    }

    fn end_sending(&mut self) -> Step {
        if self.sending.resets {
            return Step::Over(Seen::Own);
        }
        self.sending.ended = true;
        match self.socket.shutdown(std::net::Shutdown::Write) {
            Ok(()) => Step::Moved(0),
            Err(error) => failed(&error),
        }
    }

    fn outcome(&self, ending: Seen) -> Outcome {
        let (sent, received) = (
            self.sending.stream.position(),
            self.receiving.stream.position(),
        );
        Outcome {
            sent,
            received,
            ending,
        }
    }
}

impl Sending {
    fn waits_for_fin(&self) -> bool {
        self.keeps_last && self.direction.parts.len() <= 1
    }
}

impl Receiving {
    /// Until when it looks away now.
    fn stall(&mut self, now: Now) -> Option<Now> {
        if let Some(&(at, time)) = self.direction.stalls.front()
            && self.stalled_until.is_none()
            && self.stream.position() >= at
        {
            self.direction.stalls.pop_front();
            self.stalled_until = Some(now + time.max(Duration::from_millis(1)));
        }
        self.stalled_until = self.stalled_until.filter(|until| now < *until);
        self.stalled_until
    }
}

/// Writes at most one piece; a short write moves the stream by what was taken.
fn write_piece(
    socket: &mut TcpStream,
    stream: &mut Blocks,
    part: &Part,
    scratch: &mut [u8],
) -> io::Result<u64> {
    let longest = part.piece.min(scratch.len());
    let length = usize::try_from(part.bytes).map_or(longest, |bytes| bytes.min(longest));
    let mut ahead = stream.clone();
    ahead.fill(&mut scratch[..length]);
    let written = socket.write(&scratch[..length])?;
    if written == length {
        *stream = ahead;
    } else {
        stream.skip(written as u64);
    }
    Ok(written as u64)
}

fn failed(error: &io::Error) -> Step {
    match error.kind() {
        ErrorKind::WouldBlock => Step::Blocked,
        ErrorKind::Interrupted => Step::Moved(0),
        // A write or a shutdown behind the RST that a read has not come to yet.
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected => {
            Step::Over(Seen::Reset)
        }
        _ => Step::Over(Seen::Wrong(error.to_string())),
    }
}

/// Its close will send RST. That fails only on a socket that is no longer connected.
fn set_reset(socket: &TcpStream) {
    drop(SockRef::from(socket).set_linger(Some(Duration::ZERO)));
}
