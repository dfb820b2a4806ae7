//! Signals as messages.

use std::io;
use std::thread;

use crossbeam_channel::{Receiver, unbounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What the process was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// SIGTERM, SIGINT.
    Stop,
    /// SIGHUP: the file is to be looked at again.
    HangUp,
}

impl Asked {
    /// Whether it is to stop.
    pub(super) fn stops(self) -> bool {
        self == Self::Stop
    }
}

/// From now on each SIGTERM, SIGINT and SIGHUP is one message.
///
/// # Errors
/// Where a handler cannot be set or no thread be started.
pub(super) fn listen() -> io::Result<Receiver<Asked>> {
    let (sender, receiver) = unbounded();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in &mut signals {
                let asked = if signal == SIGHUP {
                    Asked::HangUp
                } else {
                    Asked::Stop
                };
                if sender.send(asked).is_err() {
                    // Nobody wants to know any more: the process is ending.
                    return;
                }
            }
        })?;
    Ok(receiver)
}
