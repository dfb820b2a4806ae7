//! The check that runs a program: how it is started, waited for without blocking, and ended with
//! its process group.
//!
//! ```text
//! running --its pidfd can be read--> its group is killed, it is reaped: an answer
//!    +------deadline, forgotten, stop: dropped--> its group is killed --> reaped by [`Programs`]
//! ```
//! It gets a process group of its own. The group is killed only before its leader is reaped, because
//! until then the number can be nobody else's. What the program writes is read so that it is never
//! held up; only the first line is kept. Others may hold the pipe open for as long as they like: the
//! program's own end decides.
//!
//! It knows no time and no epoll token's meaning.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::unix::pipe;
use mio::{Registry, Token};

use super::answer::{Answer, Reason, Shortage, from_start, of_our_own};
use super::said::{Escaped, Said};
use crate::address::Address;
use crate::config::ExecCheck;
use crate::sys::{epoll, process};

/// Programs that run at once, or were killed and have not ended yet; other checks wait for their
/// turn. Each has two descriptors, and a machine has few processors for them.
pub const PROGRAMS_MAX: usize = 64;

/// Kept of what a program writes: its first line fits a reason then.
const LINE_MAX_BYTES: usize = 200;

/// Where programs look for others unless we have a path of our own.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is run for one target.
#[derive(Debug)]
pub(super) struct Plan {
    /// The program by its path, and its arguments; not empty.
    words: Box<[String]>,
    /// All that the program finds in its environment.
    environment: Vec<(&'static str, String)>,
}

impl Plan {
    /// For checks of the server `name`, as `pool/server`, at `address`.
    pub(super) fn new(check: &ExecCheck, name: &str, address: &Address) -> Self {
        let (pool, server) = name.split_once('/').unwrap_or(("", name));
        let path = std::env::var("PATH").unwrap_or_else(|_| USUAL_PATH.to_owned());
        let mut environment = vec![
            ("PATH", path),
            ("EVENKEEL_POOL", pool.to_owned()),
            ("EVENKEEL_SERVER", server.to_owned()),
            ("EVENKEEL_ADDRESS", address.to_string()),
        ];
        if let Some(address) = address.ip() {
            environment.push(("EVENKEEL_HOST", address.ip().to_string()));
            environment.push(("EVENKEEL_PORT", address.port().to_string()));
        }
        Self {
            words: check.command.as_slice().into(),
            environment,
        }
    }

    /// Starts the program; what it writes comes out at the other end of `output`.
    fn start(&self, output: &OwnedFd) -> io::Result<Child> {
        let (program, arguments) = self.words.split_first().ok_or(io::ErrorKind::NotFound)?;
        // The standard library takes care of what a program inherits: no signal is blocked, SIGPIPE
        // is not ignored, and all descriptors but these three are closed, as ours all are on exec.
        Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?)
            .spawn()
    }
}

/// Programs of all targets: how many there are, and those that are to be reaped.
#[derive(Debug)]
pub(super) struct Programs {
    /// Shared by each program that was started and not reaped, so its count is theirs and this one.
    place: Arc<()>,
    sender: Sender<Ward>,
    killed: Receiver<Ward>,
    /// Killed, and not ended when that was last looked at.
    ending: Vec<Ward>,
}

/// A program until it is reaped.
#[derive(Debug)]
struct Ward {
    child: Child,
    /// Wakes the loop when the program has ended. Registered until it is closed.
    descriptor: OwnedFd,
    _place: Arc<()>,
}

impl Programs {
    pub(super) fn new() -> Self {
        let (sender, killed) = unbounded();
        Self {
            place: Arc::default(),
            sender,
            killed,
            ending: Vec::new(),
        }
    }

    /// Whether another program may run.
    pub(super) fn has_room(&self) -> bool {
        Arc::strong_count(&self.place) <= PROGRAMS_MAX
    }

    /// Reaps those that were killed and have ended. The loop wakes at each such end.
    pub(super) fn reap(&mut self) {
        self.ending.extend(self.killed.try_iter());
        // One that cannot be waited for is nobody's any more.
        let is_alive = |ward: &mut Ward| matches!(ward.child.try_wait(), Ok(None));
        self.ending.retain_mut(is_alive);
    }
}

/// A program that runs. Dropped, its group is killed.
#[derive(Debug)]
pub(super) struct Run {
    /// `None` once it is reaped.
    ward: Option<Ward>,
    killed: Sender<Ward>,
    /// `None` once nobody can write to it any more: it would wake the loop for ever.
    output: Option<pipe::Receiver>,
    /// The beginning of what was written, without blanks before it.
    line: Vec<u8>,
}

impl Run {
    /// Starts what is planned; events come to `registry` under `token`. Where that fails there is an
    /// answer at once, and no program.
    pub(super) fn begin(
        plan: &Plan,
        programs: &Programs,
        registry: &Registry,
        token: Token,
    ) -> Result<Self, Answer> {
        let (writer, output) = pipe().map_err(|error| of_our_own(&error))?;
        let mut child = plan.start(&writer).map_err(|error| from_spawn(&error))?;
        let descriptor = match process::open(&child) {
            Ok(descriptor) => descriptor,
            Err(error) => {
                // Nobody would hear of its end. Killed before it did much, it ends at once.
                process::kill_group(&child).unwrap_or(());
                drop(child.wait());
                return Err(of_our_own(&error));
            }
        };
        let ward = Ward {
            child,
            descriptor,
            _place: Arc::clone(&programs.place),
        };
        let run = Self {
            ward: Some(ward),
            killed: programs.sender.clone(),
            output: Some(output),
            line: Vec::new(),
        };
        run.register(registry, token)
            .map_err(|error| of_our_own(&error))?;
        Ok(run)
    }

    /// Level-triggered, so that one read a turn is enough, however much is written.
    fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        if let Some(ward) = &self.ward {
            epoll::add_level_triggered(registry, &ward.descriptor, token, false)?;
        }
        if let Some(output) = &self.output {
            epoll::add_level_triggered(registry, output, token, false)?;
        }
        Ok(())
    }

    /// Looks at what has come; the answer where the program has ended.
    pub(super) fn advance(&mut self, buffer: &mut [u8]) -> Option<Answer> {
        self.read(buffer);
        // EINTR, ENOMEM: the event comes again.
        let ended = |ward: &Ward| process::has_ended(&ward.descriptor).unwrap_or(false);
        if !self.ward.as_ref().is_some_and(ended) {
            return None;
        }
        // What it wrote last, if the look before was too early for that.
        self.read(buffer);
        let mut ward = self.ward.take()?;
        // Whatever it has left behind. Nobody left is no error.
        process::kill_group(&ward.child).unwrap_or(());
        Some(match ward.child.try_wait() {
            Ok(Some(status)) => judge(status, &self.line),
            // It has ended, so only somebody else can have taken the news.
            Ok(None) | Err(_) => Answer::Unknown(Reason::Shortage(Shortage::Other)),
        })
    }

    /// Reads once.
    fn read(&mut self, buffer: &mut [u8]) {
        let Some(output) = &mut self.output else {
            return;
        };
        match output.read(buffer) {
            Ok(0) => self.output = None,
            Ok(count) => self.keep(&buffer[..count]),
            // Nothing to read, or interrupted: the event comes again. A pipe has no other error.
            Err(_) => {}
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let bytes = match self.line.is_empty() {
            true => bytes.trim_ascii_start(),
            false => bytes,
        };
        let room = LINE_MAX_BYTES - self.line.len();
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(ward) = self.ward.take() {
            // It may have ended already, with nobody left.
            process::kill_group(&ward.child).unwrap_or(());
            // Without the loop, the process ends, and its parent's parent reaps.
            drop(self.killed.send(ward));
        }
    }
}

/// A pipe: the end for the program, which may block as programs expect it, and ours, which does not.
fn pipe() -> io::Result<(OwnedFd, pipe::Receiver)> {
    let (writer, output) = pipe::new()?;
    writer.set_nonblocking(false)?;
    Ok((writer.into(), output))
}

/// What a program's end means.
fn judge(status: ExitStatus, output: &[u8]) -> Answer {
    let line = output.split(|&byte| byte == b'\n').next();
    let line = line.unwrap_or_default().trim_ascii_end();
    let line = Line(line);
    let reason = |said| Reason::Said(said);
    match (status.code(), status.signal()) {
        (Some(0), _) => Answer::Good(reason(Said::new(format_args!("exit 0{line}")))),
        (Some(code), _) => Answer::Bad(reason(Said::new(format_args!("exit {code}{line}")))),
        (None, signal) => Answer::Bad(reason(Said::new(format_args!(
            "killed by signal {}{line}",
            signal.unwrap_or_default()
        )))),
    }
}

/// A line behind something else, if there is one.
struct Line<'a>(&'a [u8]);

impl std::fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            [] => Ok(()),
            line => write!(f, ": {}", Escaped(line)),
        }
    }
}

/// The program cannot be run, or we lack something.
fn from_spawn(error: &io::Error) -> Answer {
    // Of a fork: no more processes, for this user or in this container.
    if error.kind() == io::ErrorKind::WouldBlock {
        return Answer::Unknown(Reason::Shortage(Shortage::Processes));
    }
    match from_start(error) {
        Answer::Bad(_) => Answer::Bad(Reason::Said(Said::new(format_args!(
            "cannot run the program: {error}"
        )))),
        answer => answer,
    }
}
