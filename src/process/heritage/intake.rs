//! Connections that come in: split by worker, and taken in while others still come.
//!
//! The workers stand still from before the first one until all is decided. Where it comes to nothing
//! they stand so for ever, because one that went on would serve connections that another process
//! serves: the process ends then, and the kernel closes nothing that the other one still has.

use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use std::{io, mem};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::past::Past;
use super::translate::Unnamed;
use crate::handover::{ConnectionState, Connections, FrameError};
use crate::mailbox::Outbox;
use crate::worker::{self, Command, Door, Order, Parcel, Still};

/// Connections that a worker is given at a time: it works on them while others are read.
const BATCH: usize = 64;
/// Workers answer within milliseconds.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why connections cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// What came does not fit together.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// One speaks of something that was never named.
    #[error(transparent)]
    Unnamed(#[from] Unnamed),
    /// The kernel refuses something.
    #[error("a connection cannot be taken over: {0}")]
    Refused(#[from] io::Error),
    /// A worker says nothing.
    #[error("a worker takes long")]
    Silent,
    /// Some are missing.
    #[error("{came} connections came, and {announced} were announced")]
    Count {
        /// By whoever hands over.
        announced: u64,
        /// Really.
        came: u64,
    },
}

/// Workers that stand still. Only [`Held::go_on`] ends that.
#[derive(Debug)]
pub(super) struct Held(ManuallyDrop<Vec<Sender<Order>>>);

impl Held {
    /// Has all workers stand still.
    pub(super) fn all(outboxes: &[Outbox<Command>]) -> Result<Self, IntakeError> {
        let (reached_sender, reached) = bounded(outboxes.len());
        let mut all = Vec::new();
        for outbox in outboxes {
            let (sender, orders) = unbounded();
            all.push(sender);
            let still = Still {
                reached: reached_sender.clone(),
                orders,
            };
            outbox
                .send(Command::Still(still))
                .map_err(|_| IntakeError::Silent)?;
        }
        let held = Self(ManuallyDrop::new(all));
        for _ in outboxes {
            let reached = reached.recv_timeout(TIMEOUT);
            reached.map_err(|_| IntakeError::Silent)?;
        }
        Ok(held)
    }

    /// They serve, with their doors open.
    pub(super) fn go_on(self, doors: Vec<Vec<Door>>, past: &Past) {
        let (reply, _) = unbounded();
        let mut doors = doors.into_iter();
        for orders in ManuallyDrop::into_inner(self.0) {
            let doors = doors.next().unwrap_or_default();
            let intake = intake(doors, Vec::new(), past, &reply);
            // A worker that has ended is told of by itself.
            orders.send(Order::TakeIn(intake)).unwrap_or(());
            orders.send(Order::GoOn).unwrap_or(());
        }
    }

    fn give(&self, worker: usize, intake: Box<worker::Intake>) -> Result<(), IntakeError> {
        let sent = self.0[worker].send(Order::TakeIn(intake));
        sent.map_err(|_| IntakeError::Silent)
    }
}

type Reply = Sender<io::Result<usize>>;

fn intake(
    doors: Vec<Door>,
    connections: Vec<Parcel>,
    past: &Past,
    reply: &Reply,
) -> Box<worker::Intake> {
    Box::new(worker::Intake {
        doors,
        connections,
        left: Arc::clone(&past.left),
        last_id: past.last_id,
        reply: reply.clone(),
    })
}

/// Connections on their way to the workers.
#[derive(Debug)]
pub(in crate::process) struct Intake<'h> {
    held: &'h Held,
    past: &'h Past,
    /// By worker, those that are not given to it yet.
    batches: Vec<Vec<Parcel>>,
    given: usize,
    came: u64,
    reply: Reply,
    replies: Receiver<io::Result<usize>>,
}

impl<'h> Intake<'h> {
    pub(super) fn new(held: &'h Held, past: &'h Past) -> Self {
        let (reply, replies) = unbounded();
        Self {
            held,
            past,
            batches: held.0.iter().map(|_| Vec::new()).collect(),
            given: 0,
            came: 0,
            reply,
            replies,
        }
    }

    /// Takes some.
    pub(in crate::process) fn take(
        &mut self,
        message: Connections,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), IntakeError> {
        for parcel in Parcel::unpack(message, descriptors)? {
            let worker = self.worker_of(&parcel.state);
            let state = self.past.translate(parcel.state)?;
            self.came += 1;
            self.batches[worker].push(Parcel { state, ..parcel });
            if self.batches[worker].len() >= BATCH {
                self.flush(worker)?;
            }
        }
        Ok(())
    }

    /// Whoever gives an id is found by it (`Worker::has_named`). One that has none yet gets it where it
    /// comes.
    fn worker_of(&self, state: &ConnectionState) -> usize {
        let number = state.id.checked_sub(1).unwrap_or(self.came);
        let workers = self.batches.len() as u64;
        usize::try_from(number % workers).expect("there are fewer workers than that")
    }

    fn flush(&mut self, worker: usize) -> Result<(), IntakeError> {
        let batch = mem::take(&mut self.batches[worker]);
        self.given += 1;
        let intake = intake(Vec::new(), batch, self.past, &self.reply);
        self.held.give(worker, intake)
    }

    /// That were all, as many as were `announced`: they are with their workers when this returns.
    pub(in crate::process) fn finish(mut self, announced: u64) -> Result<u64, IntakeError> {
        for worker in 0..self.batches.len() {
            self.flush(worker)?;
        }
        let mut taken = 0;
        for _ in 0..self.given {
            let reply = self.replies.recv_timeout(TIMEOUT);
            taken += reply.map_err(|_| IntakeError::Silent)??;
        }
        let came = taken as u64;
        match came == announced {
            true => Ok(came),
            false => Err(IntakeError::Count { announced, came }),
        }
    }
}
