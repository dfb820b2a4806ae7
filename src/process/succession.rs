//! A start that takes over from a living process: what is said to it and when, and what comes of it.
//!
//! ```text
//! the world comes        everything is made ready, as at any start (`heritage`)
//! Ready                  from now on the other process may stand still at any moment
//! counts, connections    taken in by workers that stand still
//! Took ... Go            from now on this is the process that serves
//! Serving
//! ```
//! Any error before `Go` is told to the other process, which serves on, and this one ends without a word
//! to anybody else: no order to its workers, no file removed.

use super::apply::Outcome;
use super::heritage::{Handed, Heritage, IntakeError, Predecessor};
use super::start::Running;
use super::{Start, StartError, launch};
use crate::clock::Now;
use crate::handover::FrameError;
use crate::roster::Stage;
use crate::sys;
use crate::telemetry::events::Kind;
use crate::units::counted;

/// Descriptors of a connection, with pipes for some.
const PER_CONNECTION: u64 = 3;
/// Beside those of connections, and for those that come until all are taken in.
const SPARE: u64 = 1024;

/// Why nothing came of taking over.
#[derive(Debug, thiserror::Error)]
pub enum SuccessionError {
    /// The other process does not say what it should.
    #[error("the process before this one: {0}")]
    Link(#[from] FrameError),
    /// Its connections cannot be taken in.
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// Something else, which the other process was told, and tells.
    #[error("{0}")]
    Told(String),
    /// This process was told to stop first.
    #[error("told to stop before it could take over")]
    Stopping,
}

/// Starts, and takes over from `predecessor`; returns when this process serves.
///
/// # Errors
/// The other process serves on, and has been told why.
pub(super) fn succeed(start: Start, mut predecessor: Predecessor) -> Result<Running, StartError> {
    match take_over(start, &mut predecessor) {
        Ok((running, connections)) => Ok(running.begin_to_serve(predecessor, connections)),
        Err(error) => match predecessor.refuse(&error) {
            true => Err(SuccessionError::Told(error.to_string()).into()),
            false => Err(error),
        },
    }
}

/// All up to `Go`; how many connections there are.
fn take_over(start: Start, predecessor: &mut Predecessor) -> Result<(Running, u64), StartError> {
    let (world, descriptors) = predecessor.world().map_err(SuccessionError::from)?;
    let Heritage {
        heir,
        admin,
        passed,
    } = Heritage::new(world, descriptors);
    let mut running = launch(start, admin, false)?;
    running.inherit_passed(passed);
    running.survival.follow(heir.kept());
    running.make_room(heir.connections());
    (running.upgrade.started, running.upgrade.before) = heir.line();
    running.has_left = heir.has_left();
    let config = running.loaded.config.clone();
    if running.prepare(heir, &config)? == Outcome::Stopping {
        return Err(SuccessionError::Stopping.into());
    }
    let connections = running.receive(predecessor)?;
    predecessor
        .took(connections)
        .map_err(SuccessionError::from)?;
    Ok((running, connections))
}

impl Running {
    /// Has room for so many connections made now, or all of them would wait for it while they come.
    fn make_room(&self, connections: u32) {
        let descriptors = u64::from(connections) * PER_CONNECTION + SPARE;
        let made = sys::limits::make_room_for_descriptors(descriptors, self.room.limit);
        // It only takes longer then.
        made.unwrap_or_else(|error| log::debug!("make room for descriptors: {error}"));
    }

    /// Takes everything in; how many connections.
    fn receive(&mut self, predecessor: &mut Predecessor) -> Result<u64, SuccessionError> {
        self.hold_workers()?;
        let counts = predecessor.ready()?;
        let begun = Now::read();
        self.add_counts(&counts);
        let Some(heir) = &self.heir else {
            return Ok(0);
        };
        let mut intake = heir.intake()?;
        loop {
            match predecessor.hand()? {
                Handed::Some(connections, descriptors) => intake.take(connections, descriptors)?,
                Handed::All(announced) => {
                    let taken = intake.finish(announced)?;
                    log::debug!("took {taken} in within {:?}", Now::read().since(begun));
                    return Ok(taken);
                }
            }
        }
    }

    /// Nobody else serves any more.
    fn begin_to_serve(mut self, mut predecessor: Predecessor, connections: u64) -> Self {
        let pid = self.heir.as_ref().map_or(0, |heir| heir.pid());
        let program = predecessor.program().to_owned();
        // Before anything moves: if this process died first, the other one would go on.
        predecessor.serving();
        self.take_up();
        self.stage = Stage::Serving;
        self.publish();
        if let Err(error) = self.open_admin() {
            // The other process has let go of everything: without its admin side it serves all the same.
            log::error!("{error}: the admin side is gone until the next start");
        }
        self.settle_passed();
        let connections = counted(connections, "connection");
        predecessor.await_end();
        // Not before: the service manager would not listen.
        self.begin_to_park();
        let text = format!("took over {connections} from process {pid} (evenkeel {program})");
        self.tell_serving(&text);
        self.tell(Kind::Upgraded, text);
        self
    }
}
