//! Pipes that a worker lends to its flows, last in first out. No lock: each worker has its own.
//!
//! A flow borrows a pipe for one turn and keeps it across turns only while its target is blocked, so
//! a worker needs one pipe and one more for each blocked bulk flow. Running out is no error: the flow
//! copies instead. The kernel counts pipe memory by *user* and hands out two-slot pipes beyond its
//! soft limit, hence the quota, and hence the size is read back.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::clock::Now;
use crate::sys::limits::PipeLimits;
use crate::sys::{socket, splice};

/// What a pipe should hold, in bytes. Measured for bulk relaying on loopback: docs/performance.md.
const PIPE_BYTES: usize = 1024 * 1024;
/// Below this a pipe saves less than its system calls cost, so copying is better.
const USEFUL_BYTES: usize = 64 * 1024;
/// Most pipes of one worker where the kernel sets no limit: what blocked flows can pin is this times
/// the size; two descriptors each.
const QUOTA_MAX: usize = 128;
/// With fewer than this for a worker, smaller ones are better.
const PIPES_MIN: usize = 8;
/// Empty pipes kept for the next borrower; more are closed.
const IDLE_MAX: usize = 32;
/// How long to copy after the kernel refused a useful pipe.
const COOL_DOWN: Duration = Duration::from_secs(1);

const _: () = assert!(USEFUL_BYTES <= PIPE_BYTES);

/// One pipe, empty unless a flow holds it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// Capacity in bytes of 4 KiB slots; the kernel fills slots with larger fragments at times.
    bytes: u32,
}

impl Pipe {
    /// Opens one of about `bytes`.
    fn open(bytes: usize) -> io::Result<Self> {
        let (read, write) = splice::pipe()?;
        // A refusal (EPERM over the user's limit) leaves the size that pipe2 gave: read it back.
        let given = match splice::resize_pipe(write.as_fd(), bytes) {
            Ok(given) => given,
            Err(_) => splice::pipe_size(write.as_fd())?,
        };
        Ok(Self {
            read,
            write,
            bytes: u32::try_from(given).unwrap_or(u32::MAX),
        })
    }

    /// One that somebody else has opened: where bytes come out, where they go in.
    fn of_ends([read, write]: [OwnedFd; 2]) -> io::Result<Self> {
        let bytes = splice::pipe_size(write.as_fd())?;
        Ok(Self {
            read,
            write,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        })
    }

    /// Bytes in it, as the kernel counts them.
    ///
    /// # Errors
    /// None that the kernel knows of a pipe.
    pub(super) fn held(&self) -> io::Result<usize> {
        socket::unread(&self.read)
    }

    /// Where bytes come out.
    pub fn read_end(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }

    /// Where bytes go in.
    pub fn write_end(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }

    /// The most to ask for in one splice.
    pub fn capacity(&self) -> usize {
        self.bytes as usize
    }
}

/// What a worker may lend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pipes: usize,
    pipe_bytes: usize,
}

impl Quota {
    /// A worker's share of what the kernel allows this user: three quarters of the pipe memory, so
    /// that other programs of the same user are not starved, and an eighth of the `descriptors`.
    pub fn new(limits: PipeLimits, descriptors: u64, workers: usize) -> Self {
        let workers = workers.max(1);
        let memory = limits
            .user_soft
            .map_or(usize::MAX, |bytes| bytes / 4 * 3 / workers);
        let mut pipe_bytes = PIPE_BYTES.min(limits.max_size).max(1);
        while memory / pipe_bytes < PIPES_MIN && pipe_bytes / 2 >= USEFUL_BYTES {
            pipe_bytes /= 2;
        }
        let descriptors = usize::try_from(descriptors / 8).unwrap_or(usize::MAX);
        let pipes = (memory / pipe_bytes)
            .min(descriptors / 2 / workers)
            .min(QUOTA_MAX);
        Self { pipes, pipe_bytes }
    }

    /// The pipe memory of a user, in bytes, of which so many workers get their least number of pipes,
    /// each as large as it should be.
    pub fn memory_wanted(workers: usize) -> usize {
        (PIPES_MIN * PIPE_BYTES * workers.max(1))
            .div_ceil(3)
            .saturating_mul(4)
    }

    /// What a pipe should hold, in bytes.
    pub const fn pipe_wanted() -> usize {
        PIPE_BYTES
    }

    /// Pipes that a worker may have lent at a time.
    pub fn pipes(self) -> usize {
        self.pipes
    }

    /// What each of them holds, in bytes.
    pub fn pipe_bytes(self) -> usize {
        self.pipe_bytes
    }

    /// Descriptors that the pipes of one worker may take.
    pub fn descriptors(self) -> u64 {
        2 * self.pipes as u64
    }
}

/// The pipes of one worker.
#[derive(Debug)]
pub struct PipeCache {
    quota: Quota,
    idle: Vec<Pipe>,
    lent: usize,
    /// No pipe is opened before this time.
    cool_until: Now,
}

impl PipeCache {
    /// An empty one: pipes are opened when first needed.
    pub fn new(quota: Quota) -> Self {
        Self {
            quota,
            idle: Vec::new(),
            lent: 0,
            cool_until: Now::default(),
        }
    }

    /// An empty pipe, or `None` where the caller should copy.
    pub fn take(&mut self, now: Now) -> Option<Pipe> {
        let pipe = self.idle.pop().or_else(|| self.open(now))?;
        self.lent += 1;
        Some(pipe)
    }

    /// Counts a pipe with bytes in it, which another process had lent to a flow, as lent by this one. It
    /// may be one too many: as long as it is, no other one is opened.
    ///
    /// # Errors
    /// Where it is no pipe; it is closed.
    pub(super) fn adopt(&mut self, ends: [OwnedFd; 2]) -> io::Result<Pipe> {
        let pipe = Pipe::of_ends(ends)?;
        self.lent += 1;
        Ok(pipe)
    }

    /// Takes an *empty* pipe back.
    pub fn give_back(&mut self, pipe: Pipe) {
        debug_assert!(self.lent > 0);
        self.lent -= 1;
        // Adopted ones may be beyond the quota.
        let is_within = self.lent + self.idle.len() < self.quota.pipes;
        if is_within && self.idle.len() < IDLE_MAX {
            self.idle.push(pipe);
        }
    }

    /// Closes a pipe that still holds bytes: the next borrower must never see them.
    pub fn discard(&mut self, pipe: Pipe) {
        debug_assert!(self.lent > 0);
        self.lent -= 1;
        drop(pipe);
    }

    /// Pipes that flows hold now.
    pub fn lent(&self) -> usize {
        self.lent
    }

    /// Empty pipes that are kept for the next borrower.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    fn open(&mut self, now: Now) -> Option<Pipe> {
        if self.lent >= self.quota.pipes || now < self.cool_until {
            return None;
        }
        match Pipe::open(self.quota.pipe_bytes) {
            Ok(pipe) if pipe.capacity() >= USEFUL_BYTES.min(self.quota.pipe_bytes) => Some(pipe),
            // Too small, or none: other processes of this user took the kernel's limit.
            Ok(_) | Err(_) => {
                self.cool_until = now + COOL_DOWN;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(user_soft: Option<usize>) -> PipeLimits {
        PipeLimits {
            max_size: 1 << 20,
            user_soft,
        }
    }

    #[test]
    fn the_quota_is_three_quarters_shared_by_the_workers() {
        let quota = Quota::new(limits(Some(64 << 20)), 1 << 20, 2);
        assert_eq!(quota.pipes, (64 << 20) / 4 * 3 / PIPE_BYTES / 2);
        assert_eq!(Quota::new(limits(None), 1 << 20, 2).pipes, QUOTA_MAX);
    }

    #[test]
    fn many_workers_get_smaller_pipes_and_few_descriptors_fewer() {
        let quota = Quota::new(limits(Some(64 << 20)), 1 << 20, 64);
        assert!(quota.pipes >= PIPES_MIN && quota.pipe_bytes >= USEFUL_BYTES);
        let quota = Quota::new(limits(None), 64, 2);
        assert_eq!((quota.pipes, quota.descriptors()), (2, 4));
    }

    #[test]
    fn running_out_is_no_error_and_pipes_come_back() {
        let mut cache = PipeCache::new(Quota {
            pipes: 2,
            pipe_bytes: PIPE_BYTES,
        });
        let now = Now::default();
        let first = cache.take(now).unwrap();
        let second = cache.take(now).unwrap();
        assert!(cache.take(now).is_none());
        cache.give_back(first);
        assert!(cache.take(now).is_some());
        cache.discard(second);
        assert_eq!(cache.lent(), 1);
    }

    #[test]
    fn the_last_pipe_in_is_the_first_out() {
        let mut cache = PipeCache::new(Quota {
            pipes: 4,
            pipe_bytes: PIPE_BYTES,
        });
        let (a, b) = (
            cache.take(Now::default()).unwrap(),
            cache.take(Now::default()).unwrap(),
        );
        let last = format!("{:?}", b.read);
        cache.give_back(a);
        cache.give_back(b);
        assert_eq!(
            format!("{:?}", cache.take(Now::default()).unwrap().read),
            last
        );
    }

    #[test]
    fn a_refused_pipe_means_copying_for_a_while() {
        let mut cache = PipeCache::new(Quota {
            pipes: 2,
            pipe_bytes: PIPE_BYTES,
        });
        cache.cool_until = Now::default() + COOL_DOWN;
        assert!(cache.take(Now::default()).is_none());
        assert!(cache.take(Now::default() + COOL_DOWN).is_some());
    }
}
