//! Telling the service manager, one datagram a message (sd_notify(3)). Nothing here waits, and nothing
//! that goes wrong is more than one line in the log.
//!
//! The socket is not connected: one that the manager has made anew at the same place is found again.
//! What its full queue does not take, as while it executes itself anew, is kept and tried again: a
//! manager that never hears of READY=1 would end the process.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::clock::Now;

/// Messages that are kept for a manager whose queue is full; of more, the oldest are given up.
const UNSENT_MAX: usize = 16;
/// Of a status, so that it is one line of `systemctl status`, and fits a datagram whatever it quotes.
const STATUS_CHARS_MAX: usize = 200;

/// Something that is told.
#[derive(Clone, Copy, Debug)]
pub enum State<'a> {
    /// It serves; also the end of a reload.
    Ready,
    /// A reload has begun, at this time.
    Reloading(Now),
    /// It is coming to its end.
    Stopping,
    /// What it is doing may take so long from now on, whatever the manager's own limit says.
    ExtendTimeout(Duration),
    /// For people to read. Only the first line is told, and of a long one the beginning.
    Status(&'a str),
    /// All is well.
    Watchdog,
    /// The process with this number is the service from now on.
    MainPid(u32),
}

impl fmt::Display for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("READY=1"),
            // What makes it one message for Type=notify-reload (systemd 253): the manager compares it
            // with the time at which it asked.
            Self::Reloading(now) => {
                let microseconds = now.as_nanoseconds() / 1000;
                write!(f, "RELOADING=1\nMONOTONIC_USEC={microseconds}")
            }
            Self::Stopping => f.write_str("STOPPING=1"),
            Self::ExtendTimeout(time) => write!(f, "EXTEND_TIMEOUT_USEC={}", time.as_micros()),
            Self::Status(text) => write!(f, "STATUS={}", one_line(text)),
            Self::Watchdog => f.write_str("WATCHDOG=1"),
            Self::MainPid(pid) => write!(f, "MAINPID={pid}"),
        }
    }
}

/// The way to the service manager; without one, nothing is told.
#[derive(Debug)]
pub struct Notifier(Option<Channel>);

#[derive(Debug)]
struct Channel {
    socket: Socket,
    address: SockAddr,
    /// Oldest first.
    unsent: VecDeque<String>,
    /// Whether a failure was logged.
    is_told: bool,
}

impl Notifier {
    /// Tells whoever listens at `address`, which is as `NOTIFY_SOCKET` has it: a path, or `@` and an
    /// abstract name.
    pub fn new(address: Option<&OsStr>) -> Self {
        let Some(address) = address.filter(|address| !address.is_empty()) else {
            return Self(None);
        };
        let channel = Channel::new(address);
        if let Err(error) = &channel {
            let address = address.display();
            log::warn!("nothing is told to NOTIFY_SOCKET={address}: {error}");
        }
        Self(channel.ok())
    }

    /// Tells all of `states` in one message.
    pub fn tell(&mut self, states: &[State<'_>]) {
        let Some(channel) = &mut self.0 else {
            return;
        };
        let lines: Vec<_> = states.iter().map(ToString::to_string).collect();
        if channel.unsent.len() == UNSENT_MAX {
            channel.unsent.pop_front();
        }
        channel.unsent.push_back(lines.join("\n"));
        channel.send();
    }

    /// Tells that all is well, unless the manager's queue is full: that is true now, not later.
    pub fn feed(&mut self) {
        if let Some(channel) = &mut self.0 {
            channel.send();
            if channel.unsent.is_empty() {
                let message = State::Watchdog.to_string();
                // Nothing is lost with one of them.
                let _is_sent = channel.try_send(&message);
            }
        }
    }

    /// Tries again what could not be told.
    pub fn retry(&mut self) {
        if let Some(channel) = &mut self.0 {
            channel.send();
        }
    }
}

impl Channel {
    fn new(address: &OsStr) -> io::Result<Self> {
        let (socket, address) = datagrams(address)?;
        Ok(Self {
            socket,
            address,
            unsent: VecDeque::new(),
            is_told: false,
        })
    }

    /// Sends what is unsent, as far as there is room.
    fn send(&mut self) {
        while let Some(message) = self.unsent.pop_front() {
            if !self.try_send(&message) {
                self.unsent.push_front(message);
                return;
            }
        }
    }

    /// Whether there is nothing more to be done about `message`.
    fn try_send(&mut self, message: &str) -> bool {
        let Err(error) = self.socket.send_to(message.as_bytes(), &self.address) else {
            return true;
        };
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => false,
            // Nobody is there, or we may not: what comes later may get through.
            _ => {
                if !std::mem::replace(&mut self.is_told, true) {
                    log::warn!("cannot tell NOTIFY_SOCKET: {error}");
                }
                true
            }
        }
    }
}

/// A socket that never waits, and where to send to by it: `address` is as `NOTIFY_SOCKET` has it, a path or
/// `@` and an abstract name.
///
/// # Errors
/// It is neither; what the kernel says.
pub fn datagrams(address: &OsStr) -> io::Result<(Socket, SockAddr)> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SockAddr::unix(OsStr::from_bytes(&[b"\0".as_slice(), name].concat()))?,
        [b'/', ..] => SockAddr::unix(address)?,
        _ => {
            let text = "it is neither an absolute path nor an abstract name";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
    };
    let socket = Socket::new(Domain::UNIX, Type::DGRAM.nonblocking(), None)?;
    Ok((socket, address))
}

/// The beginning of the first line, with nothing in it that would begin another message.
fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let shown = line
        .chars()
        .map(|it| if it.is_control() { ' ' } else { it });
    let mut shown: String = shown.take(STATUS_CHARS_MAX).collect();
    if line.chars().count() > STATUS_CHARS_MAX {
        shown += "...";
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    fn read(systemd: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 4096];
        let length = systemd.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    #[test]
    fn a_message_has_a_line_for_each_state() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_nonblocking(true).unwrap();
        let mut notifier = Notifier::new(Some(path.as_os_str()));
        let status = State::Status("one\ntwo\n");
        notifier.tell(&[State::Reloading(Now::from_nanoseconds(1_234_567)), status]);
        notifier.tell(&[
            State::Stopping,
            State::ExtendTimeout(Duration::from_millis(2)),
        ]);
        notifier.feed();
        assert_eq!(
            read(&systemd).unwrap(),
            "RELOADING=1\nMONOTONIC_USEC=1234\nSTATUS=one"
        );
        assert_eq!(
            read(&systemd).unwrap(),
            "STOPPING=1\nEXTEND_TIMEOUT_USEC=2000"
        );
        assert_eq!(read(&systemd).unwrap(), "WATCHDOG=1");
        assert_eq!(read(&systemd), None);
        // One that was made anew is found.
        drop(systemd);
        notifier.tell(&[State::Ready]);
        std::fs::remove_file(&path).unwrap();
        let systemd = UnixDatagram::bind(&path).unwrap();
        notifier.tell(&[State::Ready]);
        assert_eq!(read(&systemd).unwrap(), "READY=1");
    }

    #[test]
    fn what_a_full_queue_does_not_take_is_told_later_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_nonblocking(true).unwrap();
        let other = UnixDatagram::unbound().unwrap();
        other.set_nonblocking(true).unwrap();
        while other.send_to(b"other", &path).is_ok() {}
        let mut notifier = Notifier::new(Some(path.as_os_str()));
        notifier.tell(&[State::Status("given up")]);
        for number in 1..UNSENT_MAX {
            notifier.tell(&[State::Status(&number.to_string())]);
        }
        notifier.tell(&[State::Ready]);
        notifier.feed();
        while read(&systemd).is_some() {}
        // The queue may have less room than is unsent.
        let mut next = || {
            notifier.retry();
            read(&systemd)
        };
        for number in 1..UNSENT_MAX {
            assert_eq!(next().unwrap(), format!("STATUS={number}"));
        }
        assert_eq!(next().unwrap(), "READY=1");
        assert_eq!(next(), None);
    }

    #[test]
    fn an_address_that_leads_nowhere_is_passed_over() {
        for address in ["", "relative", "vsock:2:1", "/nonexistent/notify", "@"] {
            Notifier::new(Some(OsStr::new(address))).tell(&[State::Ready]);
        }
        Notifier::new(None).feed();
    }

    #[test]
    fn a_status_is_one_short_line() {
        assert_eq!(one_line("a\tb\nREADY=1"), "a b");
        assert_eq!(one_line(""), "");
        let long = "\u{fc}".repeat(STATUS_CHARS_MAX + 1);
        let shown = "\u{fc}".repeat(STATUS_CHARS_MAX) + "...";
        assert_eq!(one_line(&long), shown);
    }
}
