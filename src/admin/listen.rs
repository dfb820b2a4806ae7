//! The sockets of the admin side: the unix socket, which appears with its mode already set and
//! replaces a stale one but never a living one, and the TCP socket.
//!
//! It knows paths and addresses, and nothing of what is said over them.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{AdminError, DEFAULT_SOCKET};
use crate::bind;
use crate::config::AdminSocket;

/// More than the places that the thread gives out, so that a short crowd waits and is not refused.
const BACKLOG: i32 = 128;
/// Full control is the owner's alone.
const SOCKET_MODE: u32 = 0o600;
/// The folder itself is no secret: who looks for the socket should see that it is there.
const FOLDER_MODE: u32 = 0o755;

/// What stands in the way, and what to do about it.
#[derive(Debug)]
struct Obstacle {
    source: io::Error,
    hint: String,
}

impl Obstacle {
    fn at(self, place: impl ToString) -> AdminError {
        AdminError::Bind {
            place: place.to_string(),
            source: self.source,
            hint: self.hint,
        }
    }
}

/// A socket's file; it goes away with this, unless it has become another's.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: a successor may have replaced the file.
    identity: (u64, u64),
}

impl SocketFile {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| identity(&metadata) == self.identity);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            log::info!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// A unix socket that listens.
pub(super) type Unix = (UnixListener, SocketFile);

/// The unix socket that the config asks for; `None` where it asks for none, or where the usual path
/// cannot be had, which is logged.
pub(super) fn unix(wanted: &AdminSocket) -> Result<Option<Unix>, AdminError> {
    match wanted {
        AdminSocket::Off => Ok(None),
        AdminSocket::At(path) => bind_unix(path)
            .map(Some)
            .map_err(|obstacle| obstacle.at(path.display())),
        AdminSocket::Default => Ok(bind_unix(Path::new(DEFAULT_SOCKET))
            .map_err(|obstacle| tell_of_absence(&obstacle))
            .ok()),
    }
}

fn tell_of_absence(obstacle: &Obstacle) {
    let Obstacle { source, hint } = obstacle;
    // A second process is more likely a mistake than an ordinary user's first try.
    let level = match source.kind() {
        ErrorKind::AddrInUse => log::Level::Warn,
        _ => log::Level::Info,
    };
    log::log!(
        level,
        "no admin socket at {DEFAULT_SOCKET}: {source}: {hint}"
    );
}

fn bind_unix(path: &Path) -> Result<Unix, Obstacle> {
    make_folder(path)?;
    clear(path)?;
    bind_clear(path).map_err(|source| Obstacle {
        hint: unix_hint(&source, path),
        source,
    })
}

fn make_folder(path: &Path) -> Result<(), Obstacle> {
    let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    else {
        return Ok(());
    };
    match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
        Err(source) if source.kind() != ErrorKind::AlreadyExists => Err(Obstacle {
            hint: format!(
                "make the folder {} for the user of evenkeel, or set admin.socket",
                folder.display()
            ),
            source,
        }),
        _ => Ok(()),
    }
}

/// Removes a socket that nobody answers at.
fn clear(path: &Path) -> Result<(), Obstacle> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        // Binding says what is wrong, if anything is.
        return Ok(());
    };
    let obstacle = |source: io::Error, hint: &str| Obstacle {
        source,
        hint: hint.to_owned(),
    };
    if !metadata.file_type().is_socket() {
        let source = io::Error::new(ErrorKind::AlreadyExists, "what is there is no socket");
        return Err(obstacle(
            source,
            "remove it, or name another path as admin.socket in a file",
        ));
    }
    match is_answered(path) {
        Ok(false) => fs::remove_file(path)
            .map_err(|source| obstacle(source, "a stale socket is in the way: remove it")),
        Ok(true) => Err(obstacle(
            ErrorKind::AddrInUse.into(),
            "another evenkeel answers there: end it, or set admin.socket to another path",
        )),
        Err(source) => Err(obstacle(
            source,
            "a socket of somebody else is there: name another path as admin.socket in a file",
        )),
    }
}

/// Whether anybody listens at a unix socket.
fn is_answered(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        // Its backlog is full: it is stopped or busy, but it lives.
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Binds where nothing is, and listens.
fn bind_clear(path: &Path) -> io::Result<Unix> {
    let socket = bind_private(path)?;
    let metadata = fs::symlink_metadata(path)?;
    if metadata.permissions().mode() & 0o777 != SOCKET_MODE {
        // An odd umask, or a kernel that only looks like Linux.
        fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    }
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(&metadata),
    };
    socket.listen(BACKLOG)?;
    Ok((UnixListener::from(OwnedFd::from(socket)), file))
}

/// Linux gives the new file the mode of the socket's own inode (`unix_bind_bsd` in
/// net/unix/af_unix.c), less the umask: set before, nobody else can connect even for a moment.
fn bind_private(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    let file = File::from(OwnedFd::from(socket));
    file.set_permissions(Permissions::from_mode(SOCKET_MODE))?;
    let socket = Socket::from(OwnedFd::from(file));
    socket.bind(&SockAddr::unix(path)?)?;
    Ok(socket)
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn unix_hint(error: &io::Error, path: &Path) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "run as a user that may write there, or set admin.socket".into()
        }
        ErrorKind::NotFound => "its folder is missing, and so is the one above it: make it".into(),
        ErrorKind::InvalidInput => format!(
            "a socket's path has at most 107 bytes, not {}: name a shorter one",
            path.as_os_str().len()
        ),
        ErrorKind::AddrInUse => "another evenkeel has just taken it".into(),
        _ => "set admin.socket to a path where a socket can be, or to off".into(),
    }
}

/// A TCP socket that listens.
pub(super) fn tcp(address: SocketAddr) -> Result<TcpListener, AdminError> {
    let listening = bind::tcp(address, false).and_then(|socket| {
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    });
    listening.map_err(|source| {
        let hint = bind::hint(&source, &address.into());
        Obstacle { source, hint }.at(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn at(path: &Path) -> Result<Option<Unix>, String> {
        unix(&AdminSocket::At(path.to_owned())).map_err(|error| error.to_string())
    }

    #[test]
    fn a_socket_appears_with_its_mode_and_goes_away_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/admin.sock");
        let bound = at(&path).unwrap();
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        UnixStream::connect(&path).unwrap();
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn the_mode_is_there_from_the_first_moment() {
        // Between bind and chmod the file would have the mode that the umask leaves.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _socket = bind_private(&path).unwrap();
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let living = at(&path).unwrap();
        let error = at(&path).unwrap_err();
        assert!(error.contains("another evenkeel answers there"), "{error}");
        UnixStream::connect(&path).unwrap();
        drop(living);
    }

    #[test]
    fn a_successor_s_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let first = at(&path).unwrap();
        fs::rename(&path, folder.path().join("moved")).unwrap();
        let second = at(&path).unwrap();
        drop(first);
        UnixStream::connect(&path).unwrap();
        drop(second);
    }

    #[test]
    fn what_cannot_be_had_is_said_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "precious").unwrap();
        let long = folder.path().join("x".repeat(120));
        for (path, part) in [
            (
                file.clone(),
                "no socket: remove it, or name another path as admin.socket",
            ),
            (folder.path().join("a/b/s"), "make the folder"),
            (file.join("s"), "Not a directory"),
            (long, "name a shorter one"),
        ] {
            let error = at(&path).unwrap_err();
            assert!(error.contains(part), "{error}");
            assert!(error.starts_with("admin: cannot listen on /"), "{error}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = tcp(taken.local_addr().unwrap()).unwrap_err().to_string();
        assert!(error.contains("another program has it"), "{error}");
        let error = tcp("192.0.2.1:0".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("no interface of this machine"), "{error}");
    }
}
