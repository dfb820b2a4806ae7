//! Files with servers in them, looked at once a second. A look is one stat(2), which sees edits,
//! renames, and links that lead elsewhere (config maps), also on network file systems, whose changes
//! inotify(7) does not see. The content decides whether anything has changed.
//!
//! A file that is just being written may be half there. It is read once it has been left alone for a
//! moment, and again if it changed meanwhile.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{Failure, Out};
use crate::clock;
use crate::config::{self, Found, LoadError};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// While a file is being written.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// A file that was written longer ago is read at once, and not again before it changes: no file
/// system's clock is coarser than that.
const SETTLED: Duration = Duration::from_secs(2);

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
    place: (u64, u64),
}

impl Stamp {
    /// Follows links.
    ///
    /// # Errors
    /// The file is not there, or may not be looked at.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::from(&metadata))
    }
}

impl From<&fs::Metadata> for Stamp {
    fn from(metadata: &fs::Metadata) -> Self {
        Self {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            size: metadata.size(),
            place: (metadata.dev(), metadata.ino()),
        }
    }
}

/// What is known of a file between two looks.
#[derive(Debug, Default)]
struct Watch {
    /// As it was when it was last looked at.
    seen: Option<Stamp>,
    /// True exactly while the file as `seen` was read and cannot have changed unnoticed since.
    is_read: bool,
}

/// What one look has found.
enum Look {
    /// Nothing new.
    Same,
    /// It is being written.
    Unsettled,
    Read(Result<Vec<Found>, Failure>),
}

/// Looks at the file for as long as the task lives.
pub(super) async fn watch(path: PathBuf, mut out: Out) {
    let mut watch = Watch::default();
    loop {
        let path = path.clone();
        // On a thread of its own: a disk, or a server of files, may hang.
        let looked = spawn_blocking(move || {
            let look = watch.look(&path);
            (watch, look)
        });
        let Ok((back, look)) = looked.await else {
            // The runtime ends.
            return;
        };
        watch = back;
        let pause = match look {
            Look::Same => LOOK,
            Look::Unsettled => LOOK_AGAIN,
            Look::Read(answer) => {
                out.tell(answer);
                LOOK
            }
        };
        sleep(pause).await;
    }
}

impl Watch {
    fn look(&mut self, path: &Path) -> Look {
        match self.try_look(path) {
            Ok(look) => look,
            Err(error) => {
                *self = Self::default();
                Look::Read(Err(Failure::new(format!("cannot read it: {error}"))))
            }
        }
    }

    fn try_look(&mut self, path: &Path) -> io::Result<Look> {
        let metadata = fs::metadata(path)?;
        let stamp = Stamp::from(&metadata);
        let is_same = self.seen.replace(stamp) == Some(stamp);
        let is_settled = is_old(&metadata);
        if is_same && self.is_read {
            return Ok(Look::Same);
        }
        if !is_same && !is_settled {
            self.is_read = false;
            return Ok(Look::Unsettled);
        }
        let answer = servers(path)?;
        if Stamp::of(path)? != stamp {
            self.is_read = false;
            return Ok(Look::Unsettled);
        }
        self.is_read = is_settled;
        Ok(Look::Read(answer))
    }
}

/// Whether its last change is some time ago; clocks may differ, and a time to come is none.
fn is_old(metadata: &fs::Metadata) -> bool {
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    clock::wall()
        .duration_since(modified)
        .is_ok_and(|age| age >= SETTLED)
}

/// The answer that the file gives.
///
/// # Errors
/// It cannot be read.
fn servers(path: &Path) -> io::Result<Result<Vec<Found>, Failure>> {
    Ok(match config::load_servers(path) {
        Ok(servers) if servers.is_empty() => Err(Failure::new("there is no server in it")),
        Ok(servers) => Ok(servers),
        Err(LoadError::Unreadable { source, .. }) => return Err(source),
        Err(error @ LoadError::TooLarge { .. }) => Err(Failure::new(error.to_string())),
        Err(LoadError::Mistakes(mistakes)) => Err(Failure {
            reason: "there are mistakes in it, the log has them".to_owned(),
            mistakes: Some(mistakes.to_string()),
        }),
    })
}
