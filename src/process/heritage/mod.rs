//! Taking over from the process before this one: what it served goes on here, and nobody is cut.
//!
//! ```text
//! link       the way to a living predecessor: what it says, in which order
//! doors      its listening sockets
//! past       who is who by name, and who has no seat in the new config
//! wishes     what operators wanted of it without the file, and what names have answered
//! translate  a connection by this process's numbers
//! intake     connections, split by worker and taken in
//! counts     what it has counted
//! running    the steps, as the main thread does them
//! ```
//! In which order:
//! 1. [`Running::prepare`]: the config is applied as at any start, but seats get their past, addresses
//!    their sockets, and the doors are held back. Everything that can be wrong is found here, while the
//!    other process serves, which may take as long as first health checks do.
//! 2. [`Running::hold_workers`]: this process's workers do nothing any more but what they are told.
//! 3. [`Heir::intake`], [`Running::add_counts`]: connections come in, and what was counted.
//! 4. [`Running::take_up`]: the other process touches nothing any more. Nothing here can fail.
//!
//! Up to the last step this process has only duplicates of the other one's descriptors, and does nothing
//! to them that could be seen elsewhere: no option, no shutdown, no linger, no file removed. So it may
//! end at any moment before, and the other one serves on. Its workers must not end in order then, because
//! that resets connections (`intake`).
//!
//! Where the heritage comes from is the caller's business: `succession` has it of a living process.

mod counts;
mod doors;
mod intake;
mod link;
mod past;
mod running;
#[cfg(test)]
mod tests;
mod translate;
mod wishes;

use std::mem;
use std::os::fd::OwnedFd;

pub(super) use self::doors::InheritedDoors;
pub use self::intake::IntakeError;
use self::intake::{Held, Intake};
pub(super) use self::link::Handed;
pub use self::link::Predecessor;
use self::past::Past;
use super::serving::Serving;
use crate::admin::{self, HttpSocket};
use crate::clock::Now;
use crate::handover::world::{AbsentState, KeptState, WishesState, World};
use crate::worker::Door;

/// What comes with a world, each to be used by another part of the start.
#[derive(Debug)]
pub(super) struct Heritage {
    pub(super) heir: Heir,
    pub(super) admin: admin::Sockets,
    /// Sockets that whoever started the first process of the line has passed to it.
    pub(super) passed: Vec<(String, OwnedFd)>,
}

/// What this process takes over, until it has.
#[derive(Debug)]
pub(super) struct Heir {
    world: World,
    pub(super) doors: InheritedDoors,
    past: Past,
    /// Doors by worker, to be opened when nobody else accepts there.
    held_back: Vec<Vec<Door>>,
    /// What the workers are held by, once they stand still.
    held: Option<Held>,
}

impl Heritage {
    /// Of a world and as many descriptors as it says.
    pub(super) fn new(mut world: World, descriptors: Vec<OwnedFd>) -> Self {
        let mut descriptors = descriptors.into_iter();
        let doors = InheritedDoors::new(&world, &mut descriptors);
        let socket = world.admin.socket.take();
        let socket = socket.and_then(|path| Some((path, descriptors.next()?)));
        let written = world.admin.http_written.or(world.admin.http);
        let http = world.admin.http.and_then(|_| descriptors.next());
        let http = written.zip(http);
        let http = http.map(|(written, socket)| HttpSocket { written, socket });
        let passed = mem::take(&mut world.passed);
        Self {
            admin: admin::Sockets { socket, http },
            passed: passed.into_iter().zip(descriptors).collect(),
            heir: Heir {
                doors,
                past: Past::default(),
                held_back: Vec::new(),
                held: None,
                world,
            },
        }
    }
}

impl Heir {
    /// Gives the seats of `next` their past.
    pub(super) fn give(&mut self, next: &mut Serving, now: Now) {
        self.past = Past::give(&self.world, next, now);
    }

    /// Begins to take connections in; to be finished before anything else is done.
    ///
    /// # Errors
    /// The workers do not stand still.
    pub(super) fn intake(&self) -> Result<Intake<'_>, IntakeError> {
        let held = self.held.as_ref().ok_or(IntakeError::Silent)?;
        Ok(Intake::new(held, &self.past))
    }

    /// When the first process of the line began to serve, and how many there have been.
    pub(super) fn line(&self) -> (Now, u64) {
        let process = &self.world.process;
        let started = match process.started {
            0 => Now::read(),
            started => Now::from_nanoseconds(started),
        };
        (started, process.upgrades.saturating_add(1))
    }

    /// The number of the process before this one.
    pub(super) fn pid(&self) -> u32 {
        self.world.process.pid
    }

    /// What somebody keeps for that process.
    pub(super) fn kept(&self) -> KeptState {
        self.world.process.kept.clone()
    }

    /// Whether an operator wants it to get no traffic.
    pub(super) fn has_left(&self) -> bool {
        self.world.process.has_left
    }

    /// How many connections it held when it said who is who.
    pub(super) fn connections(&self) -> u32 {
        self.world.process.connections
    }

    /// What operators wanted without the file, where that still says what it said then.
    fn wishes(&self, digest: Option<&String>) -> WishesState {
        let is_same = self.world.process.digest.as_ref() == digest;
        match is_same {
            true => self.world.wishes.clone(),
            // A file that has changed is the last word, but nobody is let in for that whom an operator
            // has taken out.
            false => WishesState {
                absent: standings_alone(&self.world.wishes),
                ..WishesState::default()
            },
        }
    }
}

fn standings_alone(wishes: &WishesState) -> Vec<AbsentState> {
    let mut absent = wishes.absent.clone();
    absent.iter_mut().for_each(|state| state.weight = None);
    absent
}
