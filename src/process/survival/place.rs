//! Where connections are kept: found, or made, as the environment and the config say, and told to a
//! successor so that it knows where something of this process lies.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Child;

use crate::admin::DEFAULT_SOCKET;
use crate::clock::Now;
use crate::config::AdminSocket;
use crate::park::{Store, TakeError};
use crate::process::survival::GONE_MAX;

/// Whose part it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The service manager's, whose address this is.
    Systemd(OsString),
    /// That of a keeper which is found there.
    Keeper(PathBuf),
}

impl Place {
    /// `None` where there is none: no manager, and no path of which others know.
    pub(super) fn find(admin: &AdminSocket) -> Option<Self> {
        match env::var_os("NOTIFY_SOCKET") {
            Some(address) => Some(Self::Systemd(address)),
            None => keeper_path(admin).map(Self::Keeper),
        }
    }

    /// Whoever is there already.
    ///
    /// # Errors
    /// Nobody is.
    pub(super) fn join(&self) -> io::Result<Store> {
        match self {
            Self::Systemd(address) => Store::systemd(address),
            Self::Keeper(path) => Store::keeper(path),
        }
    }

    /// Whoever is there, or a keeper that `program` becomes.
    ///
    /// # Errors
    /// The manager is not reached, or the program does not start.
    pub(super) fn open(&self, program: &Path) -> io::Result<(Store, Option<Child>)> {
        match (self.join(), self) {
            (Err(_), Self::Keeper(path)) => {
                let (store, child) = Store::start_keeper(program, path)?;
                Ok((store, Some(child)))
            }
            (joined, _) => Ok((joined?, None)),
        }
    }

    /// The path of a keeper.
    pub(super) fn keeper(&self) -> Option<&Path> {
        match self {
            Self::Systemd(_) => None,
            Self::Keeper(path) => Some(path),
        }
    }
}

fn keeper_path(admin: &AdminSocket) -> Option<PathBuf> {
    let path = match admin {
        AdminSocket::Off => return None,
        AdminSocket::Default => Path::new(DEFAULT_SOCKET),
        AdminSocket::At(path) => path,
    };
    let mut path = std::path::absolute(path).ok()?.into_os_string();
    path.push(".keeper");
    Some(path.into())
}

/// What a keeper has; nothing of systemd, which has passed all at the start.
pub(super) fn taken(store: &Store) -> Vec<(String, std::os::fd::OwnedFd)> {
    let begun = Now::read();
    loop {
        match store.take() {
            Ok(found) => return found,
            // It has not heard yet that the other one is gone.
            Err(TakeError::Busy) if Now::read().since(begun) < GONE_MAX => std::thread::yield_now(),
            Err(error) => {
                log::warn!("survive_restart: what was kept is not given back: {error}");
                return Vec::new();
            }
        }
    }
}
