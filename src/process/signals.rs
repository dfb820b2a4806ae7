//! Signals as messages.

use std::io;
use std::thread;

use crossbeam_channel::{Receiver, unbounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator::Signals;

/// What the process was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// SIGTERM, SIGINT.
    Stop,
    /// SIGHUP: the file is to be looked at again.
    HangUp,
    /// SIGUSR2: another process is to take over.
    Upgrade,
}

impl Asked {
    /// Whether it is to stop.
    pub(super) fn stops(self) -> bool {
        self == Self::Stop
    }
}

/// From now on each SIGTERM, SIGINT, SIGHUP and SIGUSR2 is one message.
///
/// # Errors
/// Where a handler cannot be set or no thread be started.
pub(super) fn listen() -> io::Result<Receiver<Asked>> {
    let (sender, receiver) = unbounded();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR2])?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in &mut signals {
                let asked = match signal {
                    SIGHUP => Asked::HangUp,
                    SIGUSR2 => Asked::Upgrade,
                    _ => Asked::Stop,
                };
                if sender.send(asked).is_err() {
                    // Nobody wants to know any more: the process is ending.
                    return;
                }
            }
        })?;
    Ok(receiver)
}
