//! What this process may do with a file, asked without opening it.
#![allow(unsafe_code, reason = "sys is where unsafe code lives")]

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::check;

/// Something that may be done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Of a folder: to make files in it.
    Write,
    /// To run it as a program.
    Execute,
}

/// `faccessat(2)` with AT_EACCESS: whether the user that this process acts as has a right.
///
/// # Errors
/// EACCES, EROFS where it has not; ENOENT, ENOTDIR, ELOOP where nothing is there.
pub fn demand(path: &Path, right: Right) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mode = match right {
        Right::Write => libc::W_OK,
        Right::Execute => libc::X_OK,
    };
    // SAFETY: `path` ends with a NUL and outlives the call, which only reads it.
    let result = unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), mode, libc::AT_EACCESS) };
    check(i64::from(result)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn rights_are_those_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        let kind = |right| demand(&path, right).map_err(|error| error.kind());
        assert_eq!(kind(Right::Write), Err(io::ErrorKind::NotFound));
        fs::write(&path, "").unwrap();
        assert_eq!(kind(Right::Write), Ok(()));
        // Even root may run only what somebody may run.
        assert_eq!(kind(Right::Execute), Err(io::ErrorKind::PermissionDenied));
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        assert_eq!(kind(Right::Execute), Ok(()));
        assert_eq!(demand(folder.path(), Right::Write).ok(), Some(()));
    }

    #[test]
    fn a_path_with_a_nul_leads_nowhere() {
        assert!(demand(Path::new("a\0b"), Right::Write).is_err());
    }
}
