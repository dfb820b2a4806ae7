//! Server programs of the system, started on ports from the kernel and ended by their own process ids.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::eventually;
use super::lines::Lines;
use super::peers::Refusing;
use super::program::send_signal;
use super::tools::tool;

/// A server program of the system, stopped by its own process id.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    port: Refusing,
    said: Lines,
    /// How it is told to stop at once.
    signal: &'static str,
}

impl Daemon {
    /// Starts `command`, which is to listen at `port`, and waits until it does.
    #[track_caller]
    pub(crate) fn start(command: &mut Command, port: Refusing, signal: &'static str) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = Lines::gather(child.stderr.take().expect("stderr is piped"));
        let daemon = Self {
            child,
            port,
            said,
            signal,
        };
        wait_until_listening(daemon.address());
        daemon
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// What it has said on standard error.
    pub(crate) fn said(&self) -> String {
        self.said.text()
    }

    /// Sends it a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        send_signal(self.child.id(), name);
    }

    /// Stops it at once.
    pub(crate) fn stop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // One that was stopped takes no other signal.
            send_signal(self.child.id(), "CONT");
            send_signal(self.child.id(), self.signal);
        }
        // It fails only when the process was waited for already.
        drop(self.child.wait());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("--- what the server said:\n{}", self.said.text());
        }
    }
}

/// Waits until somebody listens.
#[track_caller]
pub(crate) fn wait_until_listening(address: SocketAddr) {
    eventually("the server listens", || TcpStream::connect(address).is_ok());
}

/// nginx with `servers` (`http` or `stream` blocks), which listens at `port` and wherever else they say.
#[track_caller]
pub(crate) fn nginx(folder: &Path, port: Refusing, servers: &str) -> Daemon {
    let root = folder.display();
    let modules = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
    let load = match modules.exists() {
        true => format!("load_module {};", modules.display()),
        false => String::new(),
    };
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {root}/{kind};"))
        .join(" ");
    let config = format!(
        "{load} daemon off; master_process off; pid {root}/pid; error_log stderr;\n\
         events {{ worker_connections 256; }}\n{}\n",
        servers.replace("http {", &format!("http {{ {temporary}")),
    );
    fs::write(folder.join("nginx.conf"), config).unwrap();
    let mut command = Command::new(tool("nginx"));
    command
        .arg("-p")
        .arg(folder)
        .arg("-c")
        .arg(folder.join("nginx.conf"));
    Daemon::start(&mut command, port, "TERM")
}
