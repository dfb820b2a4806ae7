//! Where log lines go: a stream, or a file that may be moved away, filled up or torn under us.
//!
//! A file that was moved (log rotation) is opened anew under its name; after a write that failed in
//! the middle, the next one begins a new line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::Now;
use crate::sys::file::{self, Right};

/// How often a file is looked for under its name.
const LOOK: Duration = Duration::from_secs(1);

/// The place that lines are written to.
pub(super) struct LogFile {
    target: Target,
    /// True exactly while the last write may have ended within a line.
    is_torn: bool,
}

enum Target {
    Stream(Box<dyn Write + Send>),
    File {
        path: PathBuf,
        file: File,
        looked: Now,
    },
}

impl LogFile {
    /// A stream such as standard output.
    pub(super) fn stream(stream: impl Write + Send + 'static) -> Self {
        Self {
            target: Target::Stream(Box::new(stream)),
            is_torn: false,
        }
    }

    /// Appends to the file at `path`, which is made where it is not there.
    ///
    /// # Errors
    /// Where it cannot be opened for writing.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        let target = Target::File {
            path: path.into(),
            file,
            looked: Now::read(),
        };
        Ok(Self {
            target,
            is_torn: false,
        })
    }

    /// Writes whole lines.
    ///
    /// # Errors
    /// What the kernel says; some of the lines may have been written.
    pub(super) fn write(&mut self, lines: &[u8], now: Now) -> io::Result<()> {
        self.follow(now)?;
        let out: &mut dyn Write = match &mut self.target {
            Target::Stream(stream) => stream,
            Target::File { file, .. } => file,
        };
        if self.is_torn {
            out.write_all(b"\n")?;
        }
        self.is_torn = true;
        out.write_all(lines)?;
        out.flush()?;
        self.is_torn = false;
        Ok(())
    }

    /// Opens the file anew where its name no longer leads to it.
    fn follow(&mut self, now: Now) -> io::Result<()> {
        let Target::File { path, file, looked } = &mut self.target else {
            return Ok(());
        };
        if now.since(*looked) < LOOK {
            return Ok(());
        }
        *looked = now;
        let ours = file.metadata()?;
        let is_ours = |named: fs::Metadata| (named.dev(), named.ino()) == (ours.dev(), ours.ino());
        if !fs::metadata(&*path).is_ok_and(is_ours) {
            *file = open(path)?;
            self.is_torn = false;
        }
        Ok(())
    }
}

/// Looks for what would stand in the way of [`LogFile::open`], without making the file.
///
/// # Errors
/// Where it could not be opened for writing.
pub(super) fn foresee(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => file::demand(path, Right::Write),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => file::demand(folder, Right::Write),
            _ => file::demand(Path::new("."), Right::Write),
        },
        Err(error) => Err(error),
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Opening a FIFO for writing alone waits for a reader (fifo(7)); the start must not.
    let is_fifo = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    if is_fifo {
        return OpenOptions::new().read(true).write(true).open(path);
    }
    OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let mut log = LogFile::open(&path).unwrap();
        let start = Now::read();
        log.write(b"one\n", start).unwrap();
        fs::rename(&path, &moved).unwrap();
        log.write(b"two\n", start).unwrap();
        log.write(b"three\n", start + 2 * LOOK).unwrap();
        assert_eq!(fs::read_to_string(moved).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(path).unwrap(), "three\n");
    }

    #[test]
    fn what_would_stand_in_the_way_is_seen_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        assert!(foresee(&path).is_ok() && !path.exists());
        fs::write(&path, "").unwrap();
        for (path, kind) in [
            (folder.path().to_owned(), Some(io::ErrorKind::IsADirectory)),
            (
                folder.path().join("none/log"),
                Some(io::ErrorKind::NotFound),
            ),
            (path.join("log"), Some(io::ErrorKind::NotADirectory)),
            (path, None),
        ] {
            let foreseen = foresee(&path).err().map(|error| error.kind());
            assert_eq!(foreseen, kind, "{}", path.display());
            let opened = LogFile::open(&path).err().map(|error| error.kind());
            assert_eq!(opened, kind, "{}", path.display());
        }
    }

    #[test]
    fn after_a_torn_line_comes_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = LogFile::open(&path).unwrap();
        log.is_torn = true;
        log.write(b"whole\n", Now::read()).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "\nwhole\n");
    }

    #[test]
    fn a_full_disk_is_an_error_each_time_and_no_end() {
        let mut log = LogFile::open(Path::new("/dev/full")).unwrap();
        for _ in 0..2 {
            let error = log.write(b"line\n", Now::read()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
    }
}
