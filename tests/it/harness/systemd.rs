//! What a service manager is to a program: it hears what is told, and passes sockets.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::DEADLINE;
use super::program::{Evenkeel, binary};
use super::tools::{debian_python, tool};

/// Hears what is told to `NOTIFY_SOCKET`.
#[derive(Debug)]
pub(crate) struct Systemd {
    socket: UnixDatagram,
    /// As the environment has it.
    address: String,
    _folder: Option<TempDir>,
}

impl Systemd {
    /// At a path, to which anybody may write.
    pub(crate) fn at_a_path() -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("notify");
        Self {
            socket: UnixDatagram::bind(&path).unwrap(),
            address: path.display().to_string(),
            _folder: Some(folder),
        }
    }

    /// At an abstract name.
    pub(crate) fn at_a_name(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        Self {
            socket: UnixDatagram::bind_addr(&address).unwrap(),
            address: format!("@{name}"),
            _folder: None,
        }
    }

    /// Where it hears.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The next message, where one comes within `patience`.
    pub(crate) fn hear_within(&self, patience: Duration) -> Option<String> {
        let mut buffer = [0; 4096];
        self.socket.set_read_timeout(Some(patience)).unwrap();
        match self.socket.recv(&mut buffer) {
            Ok(length) => Some(String::from_utf8(buffer[..length].to_vec()).unwrap()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                None
            }
        }
    }

    /// The next message.
    #[track_caller]
    pub(crate) fn hear(&self) -> String {
        let heard = self.hear_within(DEADLINE);
        heard.unwrap_or_else(|| panic!("nothing was told within {DEADLINE:?}"))
    }

    /// Fills its queue with messages of others, so that there is no room.
    pub(crate) fn fill(&self, path: &Path) {
        let other = UnixDatagram::unbound().unwrap();
        other.set_nonblocking(true).unwrap();
        while other.send_to(b"of another", path).is_ok() {}
    }
}

/// Starts the program with one descriptor that is passed to it under the name `name`.
pub(crate) fn launch_passing(config: &str, name: &str, passed: impl Into<OwnedFd>) -> Evenkeel {
    // It comes as standard input and is moved to the first number of those that are passed.
    let script = "exec 3<&0 </dev/null; export LISTEN_PID=$$; exec \"$0\" \"$@\"";
    let mut command = Command::new(tool("sh"));
    command.args(["-c", script]).arg(binary());
    command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name);
    Evenkeel::launch_reading(config, command, Stdio::from(passed.into()))
}

/// The program with sockets that are made and passed to it, such as `web=tcp:127.0.0.1:80`.
pub(crate) fn passing(sockets: &[&str], program: &Command) -> Command {
    let mut command = Command::new(debian_python());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    command.arg(folder.join("passing.py")).args(sockets);
    command.arg("--").arg(program.get_program());
    command.args(program.get_args());
    command
}
