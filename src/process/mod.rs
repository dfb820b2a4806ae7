//! The wiring: builds everything from a config, starts the threads in order, and ends them in order.
//!
//! Start: descriptors, the admin side's sockets, logs, threads; then the config is applied as any later
//! one is (`apply`): sockets bound, first health checks answered, listening. Whatever fails before
//! listening ends the process with one line and nothing half-started.
//! While it runs: `serve` waits for signals and requests; `serving` knows who is who, `transition` what
//! a change means for the threads, `drains` how connections are brought to their end, `upgrade` how
//! another process takes over.
//! End: doors closed, connections given `shutdown_timeout`, the rest reset, logs written.

mod absent;
mod apply;
mod asking;
mod binding;
mod circle;
mod discovery;
mod drains;
mod ejections;
mod heritage;
mod limits;
mod listen;
mod outlook;
mod preflight;
mod reload;
mod requests;
mod serve;
mod serving;
mod shown;
mod signals;
mod start;
mod succession;
mod supervision;
mod survival;
mod tables;
mod tell;
mod transition;
mod upgrade;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::time::Duration;

pub use self::heritage::{IntakeError, Predecessor};
pub use self::limits::{connections_within, descriptors_for};
pub use self::preflight::{Preflight, preflight};
use self::serve::Ended;
use self::start::Running;
pub use self::succession::SuccessionError;
use self::survival::Survival;
use self::upgrade::Leave;
use crate::address::Address;
use crate::admin::exhibit::Exhibit;
use crate::admin::{self, AdminError};
use crate::config::Config;
use crate::relay::pipe_cache::Quota;
use crate::sys;
use crate::systemd::Given;
use crate::telemetry::process_log;
use crate::telemetry::process_log::ProcessLog;

/// Why the process did not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address.
    #[error("listener {listener}: cannot bind {address}: {source}: {hint}")]
    Bind {
        /// Its name.
        listener: String,
        /// As the config has it.
        address: Address,
        /// What the kernel said.
        source: io::Error,
        /// What to do about it.
        hint: String,
    },
    /// Not even one connection.
    #[error(
        "{limit} descriptors are too few: {needed} do for one connection, and each further one \
         takes two; raise `ulimit -n` or LimitNOFILE"
    )]
    Descriptors {
        /// The hard limit of open files.
        limit: u64,
        /// For one connection.
        needed: u64,
    },
    /// `max_connections` of the config.
    #[error(
        "max_connections: {asked} needs {needed} descriptors and the limit is {limit}: write at \
         most {room}, or raise `ulimit -n` or LimitNOFILE"
    )]
    TooManyConnections {
        /// By the config.
        asked: u32,
        /// What fits.
        room: u32,
        /// The hard limit of open files.
        limit: u64,
        /// For what was asked.
        needed: u64,
    },
    /// The file of `log.access`.
    #[error("log.access: cannot write to {path}: {source}")]
    AccessLog {
        /// As the config has it.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Where the admin side is reached.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Anything else that the kernel refused.
    #[error("{doing}: {source}")]
    System {
        /// What we were doing.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nothing came of taking over from another process.
    #[error(transparent)]
    Succession(#[from] SuccessionError),
    /// A thread that must run has ended.
    #[error("a worker has ended: {0}")]
    Worker(io::Error),
}

/// How long a panic may take to be told.
const PANIC_TELL_MAX: Duration = Duration::from_secs(1);

/// Says what we were doing where an `io::Error` leaves a call.
trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, StartError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str) -> Result<T, StartError> {
        self.map_err(|source| StartError::System { doing, source })
    }
}

/// What a process is to run.
#[derive(Debug)]
pub struct Start {
    /// Checked and complete.
    pub config: Config,
    /// Where it was read from, for reloads; `None` where arguments gave it.
    pub file: Option<PathBuf>,
    /// The [`config::digest`](crate::config::digest) of what it said.
    pub digest: Option<String>,
    /// Only in a demonstration.
    pub exhibit: Option<Arc<dyn Exhibit>>,
    /// Whom it takes over from.
    pub predecessor: Option<Predecessor>,
}

/// Balances connections until SIGTERM or SIGINT.
///
/// # Errors
/// Where it cannot start, or a worker fails.
pub fn run(start: Start) -> Result<(), StartError> {
    end_with_any_panic();
    let log = process_log::start(start.config.log.level).doing("start the log")?;
    let outcome = start_and_serve(start, &log);
    log.flush();
    outcome
}

/// What the machine gives this process, and how much of it is used.
#[derive(Clone, Copy, Debug)]
struct Room {
    workers: usize,
    /// Descriptors.
    limit: u64,
    /// Of them, those of listening sockets that a process with more workers has left.
    surplus: u64,
    /// Pipes of one worker.
    quota: Quota,
    /// Connections of the whole process.
    max_connections: u32,
}

fn start_and_serve(mut start: Start, log: &ProcessLog) -> Result<(), StartError> {
    let mut running = match start.predecessor.take() {
        // Where nothing comes of it, the workers are left as they stand: ending them would end
        // connections that the other process serves.
        Some(predecessor) => succession::succeed(start, predecessor)?,
        None => {
            let mut running = launch(start, admin::Sockets::default(), true)?;
            running.open_admin()?;
            running
        }
    };
    let outcome = running.live();
    if let Ok(Ended::Upgraded(leave)) = outcome {
        running.leave();
        log.flush();
        // Not in order, in which sockets and files would be closed and removed: they are another
        // process's by now.
        process::exit(match leave {
            Leave::InOrder => 0,
            Leave::InVain => 1,
        });
    }
    if matches!(outcome, Err(StartError::Succession(_))) {
        // The workers stand still for ever, and what they were given waits for the next start.
        return outcome.map(|_| ());
    }
    // Also after a failure: what is in the logs' queues is written.
    running.stop(outcome.is_ok());
    outcome.map(|_| ())
}

/// Everything that comes before the config is applied.
fn launch(start: Start, inherited: admin::Sockets, is_alone: bool) -> Result<Running, StartError> {
    // Before anything is opened here that could have the number of what was passed.
    let mut given = Given::take();
    let asked = signals::listen().doing("handle signals")?;
    let limit = sys::limits::raise_descriptors().doing("read the limit of open files")?;
    let workers = worker_count(&start.config);
    let quota = Quota::new(sys::limits::PipeLimits::read(), limit, workers);
    let mut room = Room {
        workers,
        limit,
        surplus: 0,
        quota,
        max_connections: 0,
    };
    room.max_connections = limits::max_connections(&start.config, &room)?;
    let bound = admin::bind_with(&start.config.admin, inherited)?;
    let passed = &mut given.descriptors;
    let survival = Survival::prepare(&start.config, passed, (workers, is_alone));
    let mut running = Running::start(start, bound, asked, (room, survival))?;
    running.supervise(given);
    Ok(running)
}

/// One for each core that this process may use: `available_parallelism` looks at the CPU affinity and
/// at the quota of the cgroup.
fn worker_count(config: &Config) -> usize {
    let usable = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    config.workers.map_or_else(usable, std::num::NonZero::get)
}

/// A thread that has panicked leaves a hole that nobody would see: the process ends instead, whatever
/// the profile's panic strategy is, and systemd starts it anew.
fn end_with_any_panic() {
    std::panic::set_hook(Box::new(|panic| {
        // Standard error may be a pipe that nobody reads; the end must not wait for it.
        let end_soon = std::thread::Builder::new().spawn(|| {
            std::thread::park_timeout(PANIC_TELL_MAX);
            process::abort();
        });
        if end_soon.is_err() {
            process::abort();
        }
        let thread = std::thread::current();
        // Not through the log: its thread may be the one that has panicked.
        let name = thread.name().unwrap_or("?");
        let text = format!(
            "thread {name} panicked: {panic}\n\
             this is a bug in evenkeel; the process ends rather than go on without a part\n"
        );
        // A closed standard error leaves nowhere to say so.
        io::stderr().write_all(text.as_bytes()).unwrap_or(());
        process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::thread;

    /// Set in the child alone, which is this test once more.
    const CHILD: &str = "EVENKEEL_TEST_PANIC";

    #[test]
    fn a_panic_in_one_thread_is_told_and_ends_the_process() {
        if std::env::var_os(CHILD).is_some() {
            end_with_any_panic();
            let thread = thread::Builder::new().name("worker-7".into());
            let panicking = thread.spawn(|| panic!("a bug")).unwrap();
            // Without the hook only that thread ends, and this test passes in the child.
            assert!(panicking.join().is_err());
            return;
        }
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "a_panic_in_one_thread_is_told_and_ends_the_process",
                "--nocapture",
            ])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{told}");
        assert!(
            told.contains("thread worker-7 panicked") && told.contains("a bug"),
            "{told}"
        );
    }
}
