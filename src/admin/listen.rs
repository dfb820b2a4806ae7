//! The sockets of the admin side: the unix socket, which appears with its mode already set and
//! replaces a stale one but never a living one, and the TCP socket.
//!
//! It knows paths and addresses, and nothing of what is said over them.

use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::{AdminError, DEFAULT_SOCKET};
use crate::bind;
use crate::bind::unix::{Obstacle, SocketFile};
use crate::config::AdminSocket;

/// More than the places that the thread gives out, so that a short crowd waits and is not refused.
const BACKLOG: i32 = 128;
/// Where another path would be written: without a file there is no such setting.
const SETTING: &str = "admin.socket in a file";
/// Full control is the owner's alone.
const SOCKET_MODE: u32 = 0o600;
/// The folder itself is no secret: who looks for the socket should see that it is there.
const FOLDER_MODE: u32 = 0o755;

/// A unix socket that listens.
pub(super) type Unix = (UnixListener, SocketFile);

/// The unix socket that the config asks for; `None` where it asks for none, or where the usual path
/// cannot be had, which is logged.
pub(super) fn unix(wanted: &AdminSocket) -> Result<Option<Unix>, AdminError> {
    match wanted {
        AdminSocket::Off => Ok(None),
        AdminSocket::At(path) => bind_unix(path)
            .map(Some)
            .map_err(|obstacle| failed(path.display(), obstacle)),
        AdminSocket::Default => Ok(bind_unix(Path::new(DEFAULT_SOCKET))
            .map_err(|obstacle| tell_of_absence(&obstacle))
            .ok()),
    }
}

/// Looks for what would stand in the way of [`unix`], without a socket. Whether its folder may be
/// written is left out: who starts evenkeel often makes the folder for it (systemd does).
pub(super) fn foresee(wanted: &AdminSocket) -> Result<(), AdminError> {
    let AdminSocket::At(path) = wanted else {
        return Ok(());
    };
    let is_made = |folder: &Path| folder.parent().is_some_and(Path::is_dir);
    let foreseen = match bind::unix::foresee(path, SETTING) {
        Err(obstacle) if obstacle.source.kind() == ErrorKind::NotFound => {
            match path.parent().filter(|folder| !is_made(folder)) {
                Some(folder) => Err(without_folder(obstacle.source, folder)),
                // It is made at the start.
                None => Ok(()),
            }
        }
        foreseen => foreseen,
    };
    foreseen.map_err(|obstacle| failed(path.display(), obstacle))
}

fn without_folder(source: io::Error, folder: &Path) -> Obstacle {
    let hint = format!(
        "make the folder {} for the user of evenkeel, or name another path as {SETTING}",
        folder.display()
    );
    Obstacle { source, hint }
}

fn failed(place: impl ToString, obstacle: Obstacle) -> AdminError {
    AdminError::Bind {
        place: place.to_string(),
        source: obstacle.source,
        hint: obstacle.hint,
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
    let (socket, file) = bind::unix::file(path, SOCKET_MODE, SETTING)?;
    socket.listen(BACKLOG).map_err(|source| Obstacle {
        source,
        hint: format!("name another path as {SETTING}"),
    })?;
    Ok((UnixListener::from(OwnedFd::from(socket)), file))
}

fn make_folder(path: &Path) -> Result<(), Obstacle> {
    let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    else {
        return Ok(());
    };
    match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
        Err(source) if source.kind() != ErrorKind::AlreadyExists => {
            Err(without_folder(source, folder))
        }
        _ => Ok(()),
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
        failed(address, Obstacle { source, hint })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
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
    fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let living = at(&path).unwrap();
        let error = at(&path).unwrap_err();
        assert!(error.contains("answers there"), "{error}");
        UnixStream::connect(&path).unwrap();
        drop(living);
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
