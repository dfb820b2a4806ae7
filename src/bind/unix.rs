//! Unix sockets that are bound to a file or to an abstract name. A file appears with its mode already
//! set, replaces a stale one but never a living one, and goes away with its owner, unless it has become
//! another's by then.
//!
//! It knows paths and modes, and nothing of who listens there; the caller gives the words for hints.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::address::{Address, UnixName};

/// For a listener's file: to connect takes the right to write. Like a port of 127.0.0.1 it is open to
/// everyone on this machine (nginx and systemd do the same); the folder can say otherwise.
const OPEN_MODE: u32 = 0o666;

/// Where another path for a listener would be written.
const BIND: &str = "bind";

/// What stands in the way, and what to do about it.
#[derive(Debug)]
pub struct Obstacle {
    /// What the kernel said.
    pub source: io::Error,
    /// What to do.
    pub hint: String,
}

impl Obstacle {
    fn new(source: io::Error, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        Self { source, hint }
    }
}

/// A socket's file; it goes away with this, unless it has become another's.
///
/// To be dropped before the socket is closed: from then on nobody comes in, and as long as the socket
/// is open, no other file can have its inode.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: a successor may have replaced the file.
    identity: (u64, u64),
}

impl SocketFile {
    /// The file of a socket that another process has bound and gives away: from now on it goes away with
    /// this.
    ///
    /// # Errors
    /// Nothing is there, or it cannot be looked at.
    pub fn adopt(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            identity: identity(&metadata),
        })
    }

    /// The file stays: it is another process's business from now on.
    pub fn let_go(mut self) {
        // Without its end, which would remove the file; nothing else of it is left to be freed.
        drop(mem::take(&mut self.path));
        mem::forget(self);
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether whoever connects there comes to our socket.
    pub fn is_ours(&self) -> bool {
        let metadata = fs::symlink_metadata(&self.path);
        metadata.is_ok_and(|metadata| identity(&metadata) == self.identity)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_ours()
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::info!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// A listener's socket at `name`, non-blocking, with its file where it has one. Everyone on this
/// machine may connect who can reach the file.
///
/// # Errors
/// Whatever stands in the way; nothing was changed then, but that a stale file may be gone.
pub fn named(name: &UnixName) -> Result<(Socket, Option<SocketFile>), Obstacle> {
    let Some(path) = name.path() else {
        return abstractly(name)
            .map(|socket| (socket, None))
            .map_err(|source| {
                Obstacle::new(
                    source,
                    "another program has the name; `ss -lxp` shows which",
                )
            });
    };
    let (socket, file) = file(path, OPEN_MODE, BIND)?;
    Ok((socket, Some(file)))
}

/// Looks for what would stand in the way of [`named`], as [`foresee`] does.
///
/// # Errors
/// As [`foresee`].
pub fn foresee_named(name: &UnixName) -> Result<(), Obstacle> {
    name.path().map_or(Ok(()), |path| foresee(path, BIND))
}

fn abstractly(name: &UnixName) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&Address::Unix(name.clone()).to_kernel()?)?;
    Ok(socket)
}

/// A socket at `path`, non-blocking, whose file has `mode` whatever the umask is. `setting` is where
/// another path would be written.
///
/// # Errors
/// As [`named`].
pub fn file(path: &Path, mode: u32, setting: &str) -> Result<(Socket, SocketFile), Obstacle> {
    clear(path, setting)?;
    bind_clear(path, mode).map_err(|source| Obstacle {
        hint: hint(&source, path, setting),
        source,
    })
}

/// Looks for what would stand in the way of [`file()`], as far as that can be seen without a socket.
///
/// # Errors
/// Something else is there, or no folder.
pub fn foresee(path: &Path, setting: &str) -> Result<(), Obstacle> {
    if let Ok(metadata) = fs::symlink_metadata(path) {
        return refuse_other(&metadata, setting);
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let found = fs::metadata(folder);
    found.map(|_| ()).map_err(|source| Obstacle {
        hint: hint(&source, path, setting),
        source,
    })
}

/// Nothing but a socket is ever replaced.
fn refuse_other(metadata: &Metadata, setting: &str) -> Result<(), Obstacle> {
    if metadata.file_type().is_socket() {
        return Ok(());
    }
    let source = io::Error::new(ErrorKind::AlreadyExists, "what is there is no socket");
    let hint = format!("remove it, or name another path as {setting}");
    Err(Obstacle::new(source, hint))
}

/// Removes a socket that nobody answers at.
fn clear(path: &Path, setting: &str) -> Result<(), Obstacle> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        // Binding says what is wrong, if anything is.
        return Ok(());
    };
    refuse_other(&metadata, setting)?;
    let elsewhere = format!("name another path as {setting}");
    match is_answered(path) {
        Ok(false) => fs::remove_file(path)
            .map_err(|source| Obstacle::new(source, "a stale socket is in the way: remove it")),
        Ok(true) => Err(Obstacle::new(
            ErrorKind::AddrInUse.into(),
            format!("another program answers there: end it, or {elsewhere}"),
        )),
        Err(source) => Err(Obstacle::new(
            source,
            format!("a socket of somebody else is there: {elsewhere}"),
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

/// Binds where nothing is.
fn bind_clear(path: &Path, mode: u32) -> io::Result<(Socket, SocketFile)> {
    let socket = bind_with_mode(path, mode)?;
    let file = SocketFile::adopt(path)?;
    let metadata = fs::symlink_metadata(path)?;
    if metadata.permissions().mode() & 0o777 != mode {
        // The umask took some of it, or this is a kernel that only looks like Linux.
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok((socket, file))
}

/// Linux gives the new file the mode of the socket's own inode (`unix_bind_bsd` in
/// net/unix/af_unix.c), less the umask: set before, nobody else can connect even for a moment.
fn bind_with_mode(path: &Path, mode: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    let file = File::from(OwnedFd::from(socket));
    file.set_permissions(Permissions::from_mode(mode))?;
    let socket = Socket::from(OwnedFd::from(file));
    socket.bind(&SockAddr::unix(path)?)?;
    Ok(socket)
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn hint(error: &io::Error, path: &Path, setting: &str) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            format!("run as a user that may write there, or name another path as {setting}")
        }
        ErrorKind::NotFound => "its folder is missing: make it".into(),
        ErrorKind::InvalidInput => format!(
            "a socket's path has at most {} bytes, not {}: name a shorter one",
            UnixName::BYTES_MAX,
            path.as_os_str().len()
        ),
        ErrorKind::AddrInUse => "another program has just taken it".into(),
        _ => format!("name a path where a socket can be as {setting}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn name(path: &Path) -> UnixName {
        UnixName::new(path.to_str().unwrap())
    }

    #[test]
    fn the_mode_is_there_from_the_first_moment() {
        // Between bind and chmod the file would have the mode that the umask leaves.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _socket = bind_with_mode(&path, 0o600).unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn a_listener_s_file_is_open_to_all_and_goes_away_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (socket, file) = named(&name(&path)).unwrap();
        assert_eq!(mode(&path), OPEN_MODE);
        assert_eq!(
            UnixStream::connect(&path).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        socket.listen(1).unwrap();
        UnixStream::connect(&path).unwrap();
        assert!(file.as_ref().unwrap().is_ours());
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_file_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (living, file) = named(&name(&path)).unwrap();
        living.listen(1).unwrap();
        let obstacle = named(&name(&path)).unwrap_err();
        assert!(obstacle.hint.contains("answers there"), "{obstacle:?}");
        UnixStream::connect(&path).unwrap();
        drop(file);
    }

    #[test]
    fn a_successor_s_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (_first, first_file) = named(&name(&path)).unwrap();
        // Nobody listens yet: it looks stale to another program.
        let (second, second_file) = named(&name(&path)).unwrap();
        second.listen(1).unwrap();
        assert!(!first_file.as_ref().unwrap().is_ours());
        drop(first_file);
        UnixStream::connect(&path).unwrap();
        drop(second_file);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_was_let_go_stays_until_whoever_adopts_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        assert_eq!(
            SocketFile::adopt(&path).unwrap_err().kind(),
            ErrorKind::NotFound
        );
        let (socket, file) = named(&name(&path)).unwrap();
        socket.listen(1).unwrap();
        file.unwrap().let_go();
        UnixStream::connect(&path).unwrap();
        let adopted = SocketFile::adopt(&path).unwrap();
        assert!(adopted.is_ours());
        drop(adopted);
        assert!(!path.exists());
    }

    #[test]
    fn an_abstract_name_is_taken_once_and_leaves_nothing() {
        let name = UnixName::new(&format!("@evenkeel-bind-{}", std::process::id()));
        let (socket, file) = named(&name).unwrap();
        assert!(file.is_none());
        let obstacle = named(&name).unwrap_err();
        assert_eq!(obstacle.source.kind(), ErrorKind::AddrInUse);
        drop(socket);
        named(&name).unwrap();
    }

    #[test]
    fn what_is_in_the_way_is_said_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "precious").unwrap();
        for (path, part) in [
            (file.clone(), "remove it, or name another path as bind"),
            (folder.path().join("a/s"), "its folder is missing: make it"),
            (folder.path().join("x".repeat(120)), "name a shorter one"),
        ] {
            let obstacle = named(&name(&path)).unwrap_err();
            assert!(obstacle.hint.contains(part), "{obstacle:?}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }
}
