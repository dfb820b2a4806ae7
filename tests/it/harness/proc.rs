//! A process as /proc shows it: descriptors, epoll sets, memory, processor time, threads.

use std::fs;
use std::path::PathBuf;

use super::eventually;

/// One process by its id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proc(pub(crate) u32);

impl Proc {
    /// Descriptors with what they are: `socket:[1]`, `pipe:[2]`, `anon_inode:[eventpoll]`.
    pub(crate) fn descriptors(self) -> Vec<(u32, String)> {
        let entries = fs::read_dir(self.path("fd")).unwrap();
        let named = entries.filter_map(|entry| {
            let entry = entry.ok()?;
            let link = fs::read_link(entry.path()).ok()?;
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                link.to_string_lossy().into_owned(),
            ))
        });
        named.collect()
    }

    /// Descriptors of a kind, such as `socket:`.
    pub(crate) fn count(self, kind: &str) -> usize {
        self.descriptors()
            .iter()
            .filter(|(_, link)| link.starts_with(kind))
            .count()
    }

    /// The open flags of a descriptor (`O_NONBLOCK` is 0o4000).
    pub(crate) fn flags(self, descriptor: u32) -> u32 {
        let info = self.read(&format!("fdinfo/{descriptor}"));
        let flags = info
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .unwrap();
        u32::from_str_radix(flags.trim(), 8).unwrap()
    }

    /// Per epoll set, in order of descriptors, how many descriptors are registered in it.
    pub(crate) fn registered(self) -> Vec<usize> {
        let descriptors = self.descriptors();
        let mut sets: Vec<u32> = descriptors
            .into_iter()
            .filter(|(_, link)| link.contains("eventpoll"))
            .map(|(descriptor, _)| descriptor)
            .collect();
        sets.sort_unstable();
        let count = |set| {
            let info = self.read(&format!("fdinfo/{set}"));
            info.lines().filter(|line| line.starts_with("tfd:")).count()
        };
        sets.into_iter().map(count).collect()
    }

    /// As [`Self::registered`], once it has stayed the same for a while: threads that have just
    /// started are still at it.
    pub(crate) fn registered_at_rest(self) -> Vec<usize> {
        let (mut last, mut same) = (self.registered(), 0);
        eventually("epoll sets at rest", || {
            let now = self.registered();
            same = if now == last { same + 1 } else { 0 };
            last = now;
            same == 20
        });
        last
    }

    /// Waits until each of its threads has slept for a while in a call that lasts: a thread that strace
    /// holds in the middle of a call is stopped, and does not sleep.
    pub(crate) fn sleeps(self) {
        let mut times = 0;
        eventually("all threads sleep", || {
            times = if self.states().all(|state| state == 'S') {
                times + 1
            } else {
                0
            };
            times == 5
        });
    }

    /// The state of each of its threads (proc(5)); the name before it may have spaces and parentheses.
    fn states(self) -> impl Iterator<Item = char> {
        let threads = fs::read_dir(self.path("task")).unwrap();
        threads.filter_map(|thread| {
            let stat = fs::read_to_string(thread.ok()?.path().join("stat")).ok()?;
            stat.rsplit_once(") ")?.1.chars().next()
        })
    }

    /// Whether it has ended; its parent may not have waited for it yet.
    pub(crate) fn is_gone(self) -> bool {
        let stat = fs::read_to_string(self.path("stat")).unwrap_or_default();
        let state = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next());
        matches!(state, None | Some('Z' | 'X'))
    }

    /// Its children, with those that have ended and that it has not waited for.
    pub(crate) fn children(self) -> Vec<u32> {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let own = numbers.filter(|pid| {
            let stat = fs::read_to_string(Self(*pid).path("stat")).unwrap_or_default();
            let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            rest.split_whitespace().nth(1) == Some(&self.0.to_string())
        });
        own.collect()
    }

    /// Its TCP sockets.
    pub(crate) fn tcp_sockets(self) -> Vec<u32> {
        let table = self.read("net/tcp") + &self.read("net/tcp6");
        let inodes: Vec<&str> = table
            .lines()
            .filter_map(|line| line.split_whitespace().nth(9))
            .collect();
        let is_tcp = |link: &str| {
            let inode = link
                .strip_prefix("socket:[")
                .and_then(|link| link.strip_suffix(']'));
            inode.is_some_and(|inode| inodes.contains(&inode))
        };
        let mut descriptors = self.descriptors();
        descriptors.retain(|(_, link)| is_tcp(link));
        descriptors
            .into_iter()
            .map(|(descriptor, _)| descriptor)
            .collect()
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(self) -> u64 {
        let status = self.read("status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim().trim_end_matches("kB").trim().parse().unwrap()
    }

    fn read(self, file: &str) -> String {
        let path = self.path(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn path(self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.0))
    }
}
