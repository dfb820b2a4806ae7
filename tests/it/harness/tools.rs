//! Programs of the system that tests rely on. One that is missing fails the test, with what to do.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output};

use super::program::Evenkeel;

/// Where such programs stand beside `PATH`; daemons are often outside a user's.
const FOLDERS: [&str; 5] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin"];

/// The program's path; panics where it is not installed.
#[track_caller]
pub(crate) fn tool(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(FOLDERS.map(PathBuf::from));
    found(name, folders)
}

/// A program of PostgreSQL, which Debian keeps in a folder a version.
#[track_caller]
pub(crate) fn postgres_tool(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    found(name, versions.map(|version| version.path().join("bin")))
}

/// Debian's Python, which has Debian's packages; `python3` may be another.
#[track_caller]
pub(crate) fn debian_python() -> PathBuf {
    found("python3", std::iter::once(PathBuf::from("/usr/bin")))
}

/// Runs a command to its end; panics with what it said where it fails.
#[track_caller]
pub(crate) fn succeed(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let said = String::from_utf8_lossy(&stdout).into_owned();
    assert!(
        status.success(),
        "{command:?}: {status}\n{said}\n{}",
        String::from_utf8_lossy(&stderr)
    );
    said
}

/// A process that can open no further descriptor, until this is dropped.
#[derive(Debug)]
pub(crate) struct LimitedDescriptors {
    pid: u32,
    before: String,
}

impl LimitedDescriptors {
    /// Limits it to the descriptors that it has.
    #[track_caller]
    pub(crate) fn at_those_of(evenkeel: &Evenkeel) -> Self {
        let open = evenkeel.proc().descriptors();
        let highest = open
            .iter()
            .map(|(descriptor, _)| *descriptor)
            .max()
            .expect("descriptors");
        Self::at(evenkeel.pid(), highest + 1)
    }

    /// Limits it to descriptors below `limit`.
    #[track_caller]
    pub(crate) fn at(pid: u32, limit: u32) -> Self {
        let shown = prlimit(pid, &["--nofile", "--output=SOFT", "--noheadings"]);
        prlimit(pid, &[&format!("--nofile={limit}:")]);
        Self {
            pid,
            before: shown.trim().to_owned(),
        }
    }
}

impl Drop for LimitedDescriptors {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            prlimit(self.pid, &[&format!("--nofile={}:", self.before)]);
        }
    }
}

#[track_caller]
fn prlimit(pid: u32, arguments: &[&str]) -> String {
    succeed(
        Command::new(tool("prlimit"))
            .arg("--pid")
            .arg(pid.to_string())
            .args(arguments),
    )
}

/// `program` as a user without rights, without any capability.
pub(crate) fn as_nobody(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(tool("setpriv"));
    command.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--no-new-privs",
    ]);
    command
        .args(["--inh-caps=-all", "--bounding-set=-all"])
        .arg(program);
    command
}

#[track_caller]
fn found(name: &str, folders: impl Iterator<Item = PathBuf>) -> PathBuf {
    let mut candidates = folders.map(|folder| folder.join(name));
    candidates
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed: run make test"))
}
