//! The new process: at first a child of this one, then the process that this child has made of itself.
//!
//! It leaves its parent before it says anything (`sys::process::leave_parent`). systemd waits for the
//! end of a main process only where that is its own child at the moment at which it is named, and
//! kills any other one in a stop without giving it time. Nobody here can wait for such a process as for
//! a child, so it is held by a descriptor. It knows nothing of what is said to it.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::time::Duration;

use signal_hook::consts::SIGKILL;

use crate::sys;

/// How long a process that was killed may take to be gone: the kernel frees its memory before.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// The new process.
#[derive(Debug)]
pub(super) struct Newcomer {
    /// What was started.
    child: Child,
    /// The process itself.
    process: OwnedFd,
    number: u32,
}

impl Newcomer {
    /// What was just started.
    ///
    /// # Errors
    /// No descriptor is left; the child is ended.
    pub(super) fn new(mut child: Child) -> io::Result<Self> {
        match sys::process::open(&child) {
            Ok(process) => Ok(Self {
                number: child.id(),
                child,
                process,
            }),
            Err(error) => {
                child.kill().and_then(|()| child.wait()).map(drop)?;
                Err(error)
            }
        }
    }

    /// It has said that it is process `number`, or 0 where it does not know.
    ///
    /// # Errors
    /// There is no such process, or no descriptor left.
    pub(super) fn is_now(&mut self, number: u32) -> io::Result<()> {
        if number == 0 || number == self.number {
            return Ok(());
        }
        self.process = sys::process::open_number(number)?;
        self.number = number;
        // The child has ended, or was to: it must not be waited for in vain.
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Its number.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Whether it is gone; that cannot be known only where the kernel has no memory.
    pub(super) fn has_ended(&self) -> bool {
        sys::process::has_ended(&self.process).unwrap_or(false)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It is gone.
    pub(super) fn send(&self, signal: i32) -> io::Result<()> {
        sys::process::send_signal(&self.process, signal)
    }

    /// Kills it and waits for its end; how it has ended, which one that had begun to end by itself has
    /// decided already.
    pub(super) fn end(&mut self) -> String {
        let ended = if self.number == self.child.id() {
            let killed = self.child.kill().and_then(|()| self.child.wait());
            killed.map(|status| status.to_string())
        } else {
            self.end_orphan()
        };
        ended.unwrap_or_else(|error| {
            log::error!("upgrade: cannot end process {}: {error}", self.number);
            "it cannot be waited for".to_owned()
        })
    }

    /// How an orphan has ended is told to whoever has adopted it.
    fn end_orphan(&self) -> io::Result<String> {
        if self.has_ended() {
            return Ok("its own log lines may say why".to_owned());
        }
        let sent = self.send(SIGKILL);
        if sys::process::ends_within(&self.process, END_TIMEOUT)? {
            return Ok("it was killed".to_owned());
        }
        Err(sent.err().unwrap_or(io::ErrorKind::TimedOut.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    /// A shell that leaves a `sleep` behind and ends, and the number of that.
    fn orphan() -> (Newcomer, u32) {
        sys::process::await_children().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 600 >/dev/null & echo $!"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_to_string(&mut said).unwrap();
        (Newcomer::new(child).unwrap(), said.trim().parse().unwrap())
    }

    #[test]
    fn who_has_left_its_parent_is_followed_and_ended() {
        let (mut newcomer, number) = orphan();
        newcomer.is_now(number).unwrap();
        assert_eq!(newcomer.number(), number);
        assert!(!newcomer.has_ended());
        assert_eq!(newcomer.end(), "it was killed");
        assert!(newcomer.has_ended());
        assert_eq!(newcomer.end(), "its own log lines may say why");
    }

    #[test]
    fn a_child_that_stays_one_is_ended_as_one() {
        sys::process::await_children().unwrap();
        let child = Command::new("/bin/sleep").arg("600").spawn().unwrap();
        let mut newcomer = Newcomer::new(child).unwrap();
        newcomer.is_now(0).unwrap();
        newcomer.is_now(newcomer.number()).unwrap();
        assert!(!newcomer.has_ended());
        assert!(newcomer.end().contains("SIGKILL"));
        assert!(newcomer.has_ended());
    }
}
