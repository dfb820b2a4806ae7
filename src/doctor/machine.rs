//! A machine as the kernel shows it in `/proc` and `/sys`: each value read when it is asked for, below
//! a root that tests can make up, and from the process that it is about.
//!
//! Knows no need and no config. Files of the kernel are small: more of one than that is not read.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use super::cgroup;
use crate::sys::limits::{PipeLimits, effective_capabilities};

/// The largest file that is read here is an environment, in which systemd may name all descriptors that it
/// has passed: 128 KiB (MAX_ARG_STRLEN).
const FILE_BYTES_MAX: u64 = 512 << 10;

/// What the process is called, by which one in another pid namespace is told from it.
const COMMAND: &str = "evenkeel";

/// A value that cannot be had here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread(pub(super) String);

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value, or why it is not known.
pub type Reading<T> = Result<T, Unread>;

/// Where everything is read.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
    /// Whose limits count; `None` is this one.
    process: Option<u32>,
}

impl Machine {
    /// This machine. The limits are those of the process with the number `running`, if that is an
    /// evenkeel that can be seen from here, else those of the one that asks.
    #[must_use]
    pub fn here(running: Option<u32>) -> Self {
        Self::below(Path::new("/"), running)
    }

    /// One whose `/proc` and `/sys` are in a folder.
    #[must_use]
    pub fn below(root: &Path, running: Option<u32>) -> Self {
        let mut machine = Self {
            root: root.to_owned(),
            process: running,
        };
        // In a container it may have a number that is somebody else's out here.
        let command = machine.of_process("comm");
        if !command.is_ok_and(|command| command.starts_with(COMMAND)) {
            machine.process = None;
        }
        machine
    }

    /// The process whose limits count; `None` is the one that asks.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        self.process
    }

    /// Descriptors that the process may raise its limit to.
    pub(super) fn descriptors(&self) -> Reading<u64> {
        let limits = self.of_process("limits")?;
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"));
        match line.and_then(|line| line.split_whitespace().nth(1)) {
            Some("unlimited") => Ok(u64::MAX),
            Some(hard) => number(hard, "/proc/PID/limits"),
            None => Err(Unread("/proc/PID/limits names no open files".to_owned())),
        }
    }

    /// A variable of the environment that the process was started with.
    pub(super) fn variable(&self, name: &str) -> Reading<Option<String>> {
        let environment = self.of_process("environ")?;
        let mut all = environment.split('\0').filter_map(|it| it.split_once('='));
        let found = all.find(|(found, _)| *found == name);
        Ok(found.map(|(_, value)| value.to_owned()))
    }

    /// Capabilities in effect, as bits.
    pub(super) fn capabilities(&self) -> Reading<u64> {
        let status = self.of_process("status")?;
        effective_capabilities(&status)
            .ok_or_else(|| Unread("/proc/PID/status names no capabilities".to_owned()))
    }

    /// What the process may do with pipes; the kernel's defaults where that is not said.
    pub(super) fn pipes(&self) -> PipeLimits {
        PipeLimits::of(self.capabilities().unwrap_or(0), |name| {
            self.read(&format!("proc/sys/fs/{name}")).ok()
        })
    }

    /// Cores that the process may be run on.
    pub(super) fn cores(&self) -> Reading<usize> {
        let status = self.of_process("status")?;
        let list = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let ranges = list.and_then(ranges);
        let ranges = ranges.ok_or_else(|| Unread("/proc/PID/status names no cores".to_owned()))?;
        let counts = ranges.iter().map(|(first, last)| last - first + 1);
        Ok(usize::try_from(counts.sum::<u64>()).unwrap_or(usize::MAX))
    }

    /// The share of time that cgroups leave the process, in cores; `None` is no bound.
    pub(super) fn quota(&self) -> Reading<Option<f64>> {
        let groups = self.of_process("cgroup")?;
        Ok(cgroup::quota(&groups, |path| {
            self.read(&format!("sys/fs/cgroup/{path}")).ok()
        }))
    }

    /// Pages of memory.
    pub(super) fn memory_pages(&self) -> Reading<u64> {
        let all = self.read("proc/meminfo")?;
        let line = all.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kibibytes = line.and_then(|line| line.split_whitespace().next());
        let kibibytes = number(kibibytes.unwrap_or_default(), "/proc/meminfo")?;
        Ok(kibibytes * 1024 / crate::sys::limits::page_size() as u64)
    }

    /// A kernel parameter by its file below `/proc/sys`, such as `net/core/somaxconn`.
    pub(super) fn parameter(&self, path: &str) -> Reading<String> {
        let text = self.read(&format!("proc/sys/{path}"))?;
        Ok(text.trim().to_owned())
    }

    /// A kernel parameter that is a number.
    pub(super) fn count(&self, path: &str) -> Reading<u64> {
        number(&self.parameter(path)?, &format!("/proc/sys/{path}"))
    }

    /// A kernel parameter that is several numbers.
    pub(super) fn counts<const N: usize>(&self, path: &str) -> Reading<[u64; N]> {
        let text = self.parameter(path)?;
        let words = text.split_whitespace();
        let numbers: Option<Vec<u64>> = words.map(|word| word.parse().ok()).collect();
        let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
        numbers.ok_or_else(|| Unread(format!("/proc/sys/{path} says {text:?}")))
    }

    /// Whether there is such a parameter; `true` where that cannot be told.
    pub(super) fn has(&self, path: &str) -> bool {
        let path = self.root.join("proc/sys").join(path);
        // Where all of `/proc/sys` is hidden, nothing follows from a file that is not there.
        path.try_exists().unwrap_or(true) || !self.root.join("proc/sys/net").exists()
    }

    /// Network interfaces, each with what its `net.ipv4.conf` says in this file.
    pub(super) fn interfaces(&self, file: &str) -> Reading<Vec<(String, u64)>> {
        let folder = self.root.join("proc/sys/net/ipv4/conf");
        let entries = fs::read_dir(&folder).map_err(|error| unread(&folder, &error))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut all = Vec::new();
        for name in names.filter(|name| !["all", "default", "lo"].contains(&name.as_str())) {
            let value = self.count(&format!("net/ipv4/conf/{name}/{file}"))?;
            all.push((name, value));
        }
        all.sort();
        Ok(all)
    }

    fn of_process(&self, file: &str) -> Reading<String> {
        match self.process {
            Some(number) => self.read(&format!("proc/{number}/{file}")),
            None => self.read(&format!("proc/self/{file}")),
        }
    }

    fn read(&self, path: &str) -> Reading<String> {
        let shown = Path::new("/").join(path);
        let mut text = String::new();
        File::open(self.root.join(path))
            .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
            .map_err(|error| unread(&shown, &error))?;
        Ok(text)
    }
}

fn unread(path: &Path, error: &io::Error) -> Unread {
    Unread(format!("cannot read {}: {error}", path.display()))
}

fn number(text: &str, file: &str) -> Reading<u64> {
    let number = text.trim().parse();
    number.map_err(|_| Unread(format!("{file} says {:?}", text.trim())))
}

/// Numbers and ranges as the kernel lists them: `0-3,7`; nothing is an empty list.
pub(super) fn ranges(list: &str) -> Option<Vec<(u64, u64)>> {
    let words = list.trim().split(',').filter(|word| !word.is_empty());
    let range = |word: &str| {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let range: (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        (range.0 <= range.1 && range.1 < u64::MAX).then_some(range)
    };
    words.map(range).collect()
}
