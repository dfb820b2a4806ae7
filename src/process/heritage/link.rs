//! The way to the process before this one, where there is one: what is said to it, and in which order
//! (`handover::dialogue`).
//!
//! It is this process's standard input, because that needs no number to be agreed on; the environment
//! says that it is so. What is done with all that comes is not decided here.

use std::env;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::{Domain, SockRef, Type};

use crate::handover::dialogue::{self, Complete, Go, Ready, Refused, Serving, Took};
use crate::handover::world::{Counts, World};
use crate::handover::{Connections, FrameError, Hello, Message, Receiver, Sender, channel};
use crate::sys::{self, inherited};

/// Set by a process that hands over, for the one that it starts.
const VARIABLE: &str = "EVENKEEL_HANDOVER";
/// The descriptor of the socket, in that variable: standard input.
const NUMBER: &str = "0";
/// One message, where nobody has to think about it. The old process waits as impatiently: all its
/// connections stand still meanwhile.
const TIMEOUT: Duration = Duration::from_secs(10);
/// From `Ready` to the first word after it: the old process may have to finish what it is about.
const STANDSTILL_TIMEOUT: Duration = Duration::from_secs(60);
/// For the old process to hear that this one serves.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(1);
/// Longer reasons are cut; a line says enough.
const REASON_CHARS_MAX: usize = 2000;

/// The process before this one, which serves until this one says that it can.
#[derive(Debug)]
pub struct Predecessor {
    outlet: Sender,
    inlet: Receiver,
    /// Its version, once it has said it.
    program: String,
}

/// What comes while connections are handed over.
#[derive(Debug)]
pub(in crate::process) enum Handed {
    /// Some of them, with their descriptors.
    Some(Connections, Vec<OwnedFd>),
    /// That were all, so many.
    All(u64),
}

impl Predecessor {
    /// Whoever has started this process to hand over to it; `None` where that is not so. To be called
    /// before anything else is opened or read.
    ///
    /// # Errors
    /// Where the kernel refuses a descriptor, or nobody is there any more.
    pub fn find() -> Result<Option<Self>, FrameError> {
        if env::var_os(VARIABLE).is_none_or(|number| number != NUMBER) || !is_socket(&io::stdin()) {
            return Ok(None);
        }
        let failed = |doing| move |source| FrameError::Socket { doing, source };
        // No thread was started yet. systemd would kill a main process without waiting for its end if it
        // was named while it was another one's child.
        sys::process::leave_parent().map_err(failed("leave the process before this one"))?;
        let socket = inherited::take_stdin().map_err(failed("take standard input over"))?;
        let ends = channel(UnixStream::from(socket), TIMEOUT);
        let (mut outlet, inlet) = ends.map_err(failed("prepare the socket of the handover"))?;
        outlet.send(&Hello::ours(), &[])?;
        Ok(Some(Self {
            outlet,
            inlet,
            program: String::new(),
        }))
    }

    /// Says why nothing comes of it; the old process serves on. Whether it has all of the reason, which
    /// it then tells: nobody else has to.
    pub fn refuse(&mut self, reason: &impl ToString) -> bool {
        let whole = reason.to_string();
        let reason: String = whole.chars().take(REASON_CHARS_MAX).collect();
        let is_whole = reason.len() == whole.len();
        self.outlet.send(&Refused { reason }, &[]).is_ok() && is_whole
    }

    /// Its version, for people.
    pub(in crate::process) fn program(&self) -> &str {
        &self.program
    }

    /// All that it knows by name, with as many descriptors as that says.
    pub(in crate::process) fn world(&mut self) -> Result<(World, Vec<OwnedFd>), FrameError> {
        let (hello, _) = self.inlet.expect::<Hello>()?;
        hello.check()?;
        self.program = hello.program.chars().take(40).collect();
        dialogue::receive_world(&mut self.inlet)
    }

    /// Everything is ready: connections may come. What it has counted, once all its workers stand still.
    pub(in crate::process) fn ready(&mut self) -> Result<Counts, FrameError> {
        self.outlet.send(&Ready {}, &[])?;
        self.set_patience(STANDSTILL_TIMEOUT)?;
        let counts = dialogue::receive_large(&mut self.inlet)?;
        self.set_patience(TIMEOUT)?;
        Ok(counts)
    }

    /// The next connections.
    pub(in crate::process) fn hand(&mut self) -> Result<Handed, FrameError> {
        let frame = self.inlet.receive()?;
        if frame.kind() == Complete::KIND {
            let (complete, _) = frame.read::<Complete>()?;
            return Ok(Handed::All(complete.connections));
        }
        let (connections, descriptors) = frame.read::<Connections>()?;
        Ok(Handed::Some(connections, descriptors))
    }

    /// All are here; returns when it touches nothing any more. An error is that it serves on.
    pub(in crate::process) fn took(&mut self, connections: u64) -> Result<(), FrameError> {
        self.outlet.send(&Took { connections }, &[])?;
        self.inlet.expect::<Go>().map(|_| ())
    }

    /// This process serves from now on: the old one hangs up, and ends.
    pub(in crate::process) fn serving(&mut self) {
        let program = env!("CARGO_PKG_VERSION").to_owned();
        // It may have ended already: whether it hears this changes nothing any more.
        self.outlet.send(&Serving { program }, &[]).unwrap_or(());
    }

    /// Waits until it has hung up: before that it has told the service manager whom to listen to.
    pub(in crate::process) fn await_end(mut self) {
        let waits = self.set_patience(HANG_UP_TIMEOUT);
        drop(waits.map(|()| self.inlet.receive()));
    }

    fn set_patience(&mut self, timeout: Duration) -> Result<(), FrameError> {
        let set = self.inlet.set_timeout(timeout);
        set.map_err(|source| FrameError::Socket {
            doing: "prepare the socket of the handover",
            source,
        })
    }
}

/// Somebody may have the variable from a process that was handed over to, and a standard input of its
/// own.
fn is_socket(stdin: &io::Stdin) -> bool {
    let socket = SockRef::from(stdin);
    let is = |domain: io::Result<Domain>, kind: io::Result<Type>| {
        domain.is_ok_and(|it| it == Domain::UNIX) && kind.is_ok_and(|it| it == Type::STREAM)
    };
    is(socket.domain(), socket.r#type())
}
