//! The new program from its start to the moment at which it is ready to take over, on a thread of its
//! own; and its end, where it comes to nothing.
//!
//! Its end of the socketpair is its standard input, and a variable tells it so. Whatever goes wrong, it
//! is killed and waited for here, and what it has said is passed on in words.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::newcomer::Newcomer;
use super::snapshot::Parts;
use crate::config;
use crate::handover::dialogue::{self, Ready, Refused};
use crate::handover::{self, FrameError, Hello, Message, Receiver, channel};
use crate::process::reload::Loaded;
use crate::sys;

/// Tells the new program which descriptor leads to the old one.
const HANDOVER: &str = "EVENKEEL_HANDOVER";
/// Standard input.
const HANDOVER_DESCRIPTOR: &str = "0";
/// What is about this very process in its environment.
const OWN_VARIABLES: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// How long a program takes until it says anything: it has only been loaded then.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one message may take, either way.
pub(super) const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to be ready, beside the slowest first answer of a check: a changed config may
/// have names that are looked up first.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long its last words may be under way.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// A program that is ready, or why there is none.
pub(in crate::process) type Progress = Result<Prepared, String>;

/// A program that is ready to take over.
#[derive(Debug)]
pub(in crate::process) struct Prepared {
    pub(super) outlet: handover::Sender,
    pub(super) peer: Peer,
}

/// The new process, as far as one listens to it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) newcomer: Newcomer,
    pub(super) inlet: Receiver,
    /// To cut the exchange short.
    pub(super) link: UnixStream,
    /// The version of its program.
    pub(super) version: String,
}

/// What a thread has to do.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) link: UnixStream,
    pub(super) parts: Parts,
    pub(super) slowest_answer: Duration,
}

/// The program to start: `asked`, else the one that runs, by the name that it was started with if that
/// is a path, because a link there may lead to a newer one by now; else `own`.
///
/// # Errors
/// It cannot be started, and why.
pub(super) fn program(asked: Option<&Path>, own: Option<&Path>) -> Result<PathBuf, String> {
    let chosen = match asked {
        Some(asked) if !asked.is_absolute() => {
            let shown = asked.display();
            return Err(format!("{shown} is no absolute path: write one"));
        }
        Some(asked) => Some(asked.to_owned()),
        None => by_its_name(env::args_os().next()).or_else(|| own.map(Path::to_owned)),
    };
    let chosen = chosen.ok_or("it is not known which program runs: name one as --binary")?;
    let shown = chosen.display();
    let metadata = fs::metadata(&chosen).map_err(|error| format!("{shown}: {error}"))?;
    if !metadata.is_file() {
        return Err(format!("{shown} is no file: name a program"));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(format!("{shown} is not executable: `chmod +x` makes it so"));
    }
    Ok(chosen)
}

fn by_its_name(name: Option<OsString>) -> Option<PathBuf> {
    let name = PathBuf::from(name?);
    (name.components().count() > 1).then_some(name)
}

/// What the program is to run: the file that is loaded now, or what this process was told instead of
/// one.
///
/// # Errors
/// What was read can be read only once.
pub(super) fn arguments(loaded: &Loaded) -> Result<Vec<OsString>, String> {
    match (&loaded.file, &loaded.digest) {
        (Some(file), _) if fs::metadata(file).is_ok_and(|metadata| !metadata.is_file()) => {
            let name = config::name_of(file);
            Err(format!("{name} {READ_ONCE}"))
        }
        (Some(file), _) => Ok(vec!["run".into(), "-c".into(), file.into()]),
        (None, Some(_)) => Err(format!(
            "the config came by standard input, which {READ_ONCE}"
        )),
        (None, None) => Ok(env::args_os().skip(1).collect()),
    }
}

const READ_ONCE: &str =
    "is no ordinary file and can be read only once: reload from a file first (-c FILE)";

impl Task {
    /// Begins; `theirs` is the new program's end of the link. One message tells what came of it.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn begin(
        self,
        theirs: OwnedFd,
        progress: crossbeam_channel::Sender<Progress>,
    ) -> io::Result<()> {
        let body = move || {
            let outcome = self.prepare(theirs);
            if let Err(Ok(prepared)) = progress.send(outcome).map_err(|unsent| unsent.0) {
                // The process is ending.
                prepared.end();
            }
        };
        let thread = thread::Builder::new().name("upgrade".into());
        thread.spawn(body).map(drop)
    }

    fn prepare(self, theirs: OwnedFd) -> Progress {
        let newcomer = start(&self.program, &self.arguments, theirs);
        let mut newcomer = newcomer.map_err(|error| {
            let program = self.program.display();
            format!("cannot start {program}: {error}")
        })?;
        match self.make_ready(&mut newcomer) {
            Ok((outlet, inlet, version)) => Ok(Prepared {
                outlet,
                peer: Peer {
                    newcomer,
                    inlet,
                    link: self.link,
                    version,
                },
            }),
            Err(fault) => {
                // What it does with its end is of no more interest, also to a child of its own.
                self.link.shutdown(Shutdown::Both).unwrap_or(());
                let end = newcomer.end();
                Err(fault.in_words(&end))
            }
        }
    }

    /// Says what is to be said until it is ready; both ways to it, and its version.
    fn make_ready(
        &self,
        newcomer: &mut Newcomer,
    ) -> Result<(handover::Sender, Receiver, String), Fault> {
        let link = self.link.try_clone().map_err(Fault::of_this_process)?;
        let exchange = channel(link, HELLO_TIMEOUT).map_err(Fault::of_this_process)?;
        let (mut outlet, mut inlet) = exchange;
        let theirs: Hello = hear(&mut inlet).map_err(|it| self.at_hello(it))?;
        theirs.check().map_err(Fault::Exchange)?;
        let known = newcomer.is_now(theirs.pid);
        known.map_err(Fault::of_this_process)?;
        let said = outlet.send(&Hello::ours(), &[]);
        said.map_err(|error| last_words(&mut inlet, error))?;
        let (world, doors) = self.parts.gather().map_err(Fault::of_this_process)?;
        let descriptors = doors.iter().map(AsFd::as_fd).chain(self.parts.others());
        let descriptors: Vec<_> = descriptors.collect();
        let said = dialogue::send_world(&mut outlet, &world, &descriptors);
        said.map_err(|error| last_words(&mut inlet, error))?;
        drop(doors);
        let patience = inlet.set_timeout(READY_TIMEOUT + self.slowest_answer);
        patience.map_err(Fault::of_this_process)?;
        hear::<Ready>(&mut inlet)?;
        let patience = [
            outlet.set_timeout(MESSAGE_TIMEOUT),
            inlet.set_timeout(MESSAGE_TIMEOUT),
        ];
        let patience: io::Result<Vec<()>> = patience.into_iter().collect();
        patience.map_err(Fault::of_this_process)?;
        Ok((outlet, inlet, theirs.program))
    }

    /// A program that knows nothing of a handover says nothing.
    fn at_hello(&self, fault: Fault) -> Fault {
        match fault {
            Fault::Exchange(FrameError::TimedOut(_)) => Fault::Silent(self.program.clone()),
            Fault::Exchange(FrameError::Closed) => Fault::Ended(self.program.clone()),
            other => other,
        }
    }
}

/// Starts the program, with `theirs` as its standard input, which is closed here.
fn start(program: &Path, arguments: &[OsString], theirs: OwnedFd) -> io::Result<Newcomer> {
    // Or nobody could wait for it.
    sys::process::await_children()?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(theirs);
    command.env(HANDOVER, HANDOVER_DESCRIPTOR);
    for variable in OWN_VARIABLES {
        command.env_remove(variable);
    }
    command.spawn().and_then(Newcomer::new)
}

/// What went wrong in the exchange with it.
#[derive(Debug)]
pub(super) enum Fault {
    /// It has said so.
    Refused(String),
    /// It said nothing at all.
    Silent(PathBuf),
    /// It has ended before it said anything.
    Ended(PathBuf),
    /// It did not say what it should, or did not listen.
    Exchange(FrameError),
    /// It has lost some on the way, or found more.
    Miscount {
        /// As it says.
        taken: u64,
        /// As they were sent.
        sent: u64,
    },
    /// This process is short of something.
    Own(io::Error),
    /// A thread of this process does not do its part.
    OfWorker(&'static str),
}

impl Fault {
    pub(super) fn of_this_process(error: io::Error) -> Self {
        Self::Own(error)
    }

    /// In one line; `end` is how the program has ended.
    pub(super) fn in_words(&self, end: &str) -> String {
        match self {
            Self::Refused(reason) => format!("the new program refused: {reason}"),
            Self::Silent(program) => {
                let seconds = HELLO_TIMEOUT.as_secs();
                stranger(program, &format!("said nothing within {seconds} s"))
            }
            Self::Ended(program) => {
                stranger(program, &format!("said nothing and has ended: {end}"))
            }
            Self::Exchange(FrameError::Closed | FrameError::Short) => {
                format!("the new program has ended: {end}")
            }
            Self::Exchange(error) => format!("the new program: {error}"),
            Self::Miscount { taken, sent } => {
                format!("the new program took {taken} connections of {sent}")
            }
            Self::Own(error) => format!("this process: {error}"),
            Self::OfWorker(what) => format!("this process: {what}"),
        }
    }
}

/// A program that does not speak as one does that takes over.
fn stranger(program: &Path, what: &str) -> String {
    let program = program.display();
    format!(
        "{program} {what}; it is no evenkeel, or one that is too old to take over: \
         `{program} --version` says which, --binary names another one"
    )
}

/// The next message, which must be this one, or else the new program's refusal.
pub(super) fn hear<M: Message>(inlet: &mut Receiver) -> Result<M, Fault> {
    let frame = inlet.receive().map_err(Fault::Exchange)?;
    if frame.kind() == Refused::KIND {
        let (refused, _) = frame.read::<Refused>().map_err(Fault::Exchange)?;
        return Err(Fault::Refused(refused.reason));
    }
    let (message, _) = frame.read::<M>().map_err(Fault::Exchange)?;
    Ok(message)
}

/// It does not listen any more: why, if it has said so before.
pub(super) fn last_words(inlet: &mut Receiver, error: FrameError) -> Fault {
    let patience = inlet.set_timeout(LAST_WORDS_TIMEOUT);
    match patience.map(|()| hear::<Refused>(inlet)) {
        Ok(Err(fault @ Fault::Refused(_))) => fault,
        _ => Fault::Exchange(error),
    }
}

impl Prepared {
    /// It comes to nothing.
    pub(super) fn end(self) {
        drop(self.peer.end());
    }
}

impl Peer {
    /// Whether it begins to say something, or has ended, within `timeout`, which is not zero.
    pub(super) fn comes_within(&mut self, timeout: Duration) -> Result<bool, Fault> {
        let comes = self.inlet.comes_within(timeout);
        comes.map_err(Fault::of_this_process)
    }

    /// Kills it and waits for it. What it had said before can still be heard.
    pub(super) fn stop(&mut self) {
        drop(self.newcomer.end());
    }

    /// Ends it; how it has ended.
    pub(super) fn end(mut self) -> String {
        self.link.shutdown(Shutdown::Both).unwrap_or(());
        self.newcomer.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, Permissions};

    use crate::process::upgrade::snapshot;

    /// What becomes of a shell script as the new program.
    fn outcome_of(script: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let task = Task {
            program,
            arguments: Vec::new(),
            link: ours,
            parts: snapshot::Parts::nothing(),
            slowest_answer: Duration::ZERO,
        };
        task.prepare(theirs.into()).unwrap_err()
    }

    #[test]
    fn a_program_that_says_nothing_is_told_by_its_end() {
        let said = outcome_of("exit 3");
        let words = "/program said nothing and has ended: exit status: 3;";
        assert!(said.contains(words), "{said}");
        assert!(said.contains("/program --version` says"), "{said}");
    }

    #[test]
    fn a_program_that_is_no_evenkeel_is_found_out_at_once() {
        let said = outcome_of("printf 'HTTP/1.1 400 Bad Request' >&0; exec sleep 600");
        assert!(said.contains("the new program: a message of"), "{said}");
    }

    #[test]
    fn what_a_program_refuses_for_is_passed_on() {
        // 21 bytes of a message of kind 2.
        let refused = r#"{"reason":"no luck"}"#;
        let header = r"\024\000\000\000\000\000\002\000";
        let said = outcome_of(&format!("printf '{header}{refused}' >&0; exit 1"));
        assert_eq!(said, "the new program refused: no luck");
    }

    #[test]
    fn a_program_is_looked_at_before_anything_starts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        File::create(&path).unwrap();
        let refused = |path: &Path| program(Some(path), None).unwrap_err();
        assert!(refused(&path).contains("not executable"));
        assert!(refused(folder.path()).contains("no file"));
        assert!(refused(Path::new("p")).contains("no absolute path"));
        assert!(refused(&folder.path().join("q")).contains("No such file"));
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(program(Some(&path), None).unwrap(), path);
    }

    #[test]
    fn only_a_name_with_a_folder_is_a_path() {
        let path = |name: &str| by_its_name(Some(name.into()));
        assert_eq!(path("evenkeel"), None);
        assert_eq!(path("./evenkeel"), Some("./evenkeel".into()));
        assert_eq!(path("/usr/bin/evenkeel"), Some("/usr/bin/evenkeel".into()));
        assert_eq!(by_its_name(None), None);
    }

    #[test]
    fn a_child_is_killed_and_waited_for() {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let newcomer = start(Path::new("/bin/sleep"), &["600".into()], theirs.into());
        let mut newcomer = newcomer.unwrap();
        assert!(newcomer.end().contains("SIGKILL"));
        assert!(newcomer.has_ended());
    }
}
