//! SIGTERM and SIGINT as messages.

use std::io;
use std::thread;

use crossbeam_channel::{Receiver, unbounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The process was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StopAsked;

/// From now on each SIGTERM and SIGINT is one message.
///
/// # Errors
/// Where a handler cannot be set or no thread be started.
pub(super) fn listen() -> io::Result<Receiver<StopAsked>> {
    let (sender, receiver) = unbounded();
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            // Ends with the process, or when nobody wants to know any more.
            while signals.forever().next().is_some() && sender.send(StopAsked).is_ok() {}
        })?;
    Ok(receiver)
}
