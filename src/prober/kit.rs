//! What a check needs of files: a password, authorities to believe. Read by whoever makes targets,
//! because the prober's own thread must not wait for a disk, and again with each reload, which so takes
//! up a new password or a renewed authority.
//!
//! What cannot be read is no error here but stands in the way of the check, which says so.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::said::{Escaped, Said};
use super::trust::Trust;
use crate::config::{Check, Health, Tls};

/// A password is a line; more is another file than was meant.
const PASSWORD_MAX_BYTES: u64 = 4 * 1024;

/// All authorities of a machine are some 250 KiB.
const CA_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Of a path in a reason.
const PATH_MAX_BYTES: usize = 56;

/// What was read for one check; `Default` is that of a check that needs nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kit {
    password: Option<Result<Password, Said>>,
    trust: Option<Result<Trust, Said>>,
}

impl Kit {
    /// Reads what `health` names. May wait for a disk. A file is read once for each call, so what
    /// many servers share is to be shared by its callers.
    pub fn read(health: &Health) -> Self {
        Self {
            password: password_file(&health.check).map(read_password),
            trust: health
                .tls
                .as_deref()
                .map(|tls| read_trust(tls, &health.check)),
        }
    }

    /// Whether `health` names anything to be read.
    pub fn is_needed(health: &Health) -> bool {
        health.tls.is_some() || password_file(&health.check).is_some()
    }

    /// Whether `one` and `other` have the same kit, without a look at the files.
    pub fn is_shared(one: &Health, other: &Health) -> bool {
        password_file(&one.check) == password_file(&other.check)
            && one.tls == other.tls
            && (one.tls.is_none() || one.check.name() == other.check.name())
    }

    /// What stands in the way of asking.
    pub fn obstacle(&self) -> Option<Said> {
        let password = self.password.as_ref().and_then(|read| read.as_ref().err());
        let trust = self.trust.as_ref().and_then(|read| read.as_ref().err());
        password.or(trust).copied()
    }

    pub(super) fn password(&self) -> Option<&Password> {
        self.password.as_ref()?.as_ref().ok()
    }

    pub(super) fn trust(&self) -> Option<&Trust> {
        self.trust.as_ref()?.as_ref().ok()
    }
}

/// Never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Password(Box<[u8]>);

impl Password {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for Password {
    fn from(password: &str) -> Self {
        Self(password.as_bytes().into())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

fn password_file(check: &Check) -> Option<&Path> {
    match check {
        Check::Redis(check) => check.password_file.as_deref(),
        Check::Postgres(check) => check.password_file.as_deref(),
        Check::Mysql(check) => check.password_file.as_deref(),
        Check::Tcp
        | Check::Http(_)
        | Check::SendExpect { .. }
        | Check::Grpc(_)
        | Check::Exec(_)
        | Check::Agent(_) => None,
    }
}

/// The file's text without the end of its line.
fn read_password(path: &Path) -> Result<Password, Said> {
    let said = |error: &dyn fmt::Display| {
        Said::new(format_args!("password_file {}: {error}", shown(path)))
    };
    let bytes = read(path, PASSWORD_MAX_BYTES).map_err(|error| said(&error))?;
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(said(&"it is empty"));
    }
    Ok(Password(line.into()))
}

fn read_trust(tls: &Tls, check: &Check) -> Result<Trust, Said> {
    let said = |error: &dyn fmt::Display| match &tls.ca {
        Some(path) => Said::new(format_args!("ca {}: {error}", shown(path))),
        None => Said::new(format_args!("ca: {error}")),
    };
    match &tls.ca {
        _ if !tls.verify => Trust::anyone(check),
        Some(path) => {
            let bytes = read(path, CA_MAX_BYTES).map_err(|error| said(&error))?;
            Trust::of_pem(&bytes, check)
        }
        None => Trust::of_machine(check),
    }
    .map_err(|error| said(&error))
}

/// The path in a reason; where it is long, its end, so that what is wrong with it has room as well.
fn shown(path: &Path) -> String {
    let text = Escaped(path.as_os_str().as_bytes()).to_string();
    let left_out = text.len().saturating_sub(PATH_MAX_BYTES);
    if left_out == 0 {
        return text;
    }
    let start = (left_out..).find(|&at| text.is_char_boundary(at));
    format!("...{}", &text[start.unwrap_or(0)..])
}

/// A small ordinary file: a pipe would hold us up for as long as nobody writes to it.
fn read(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no ordinary file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(max_bytes + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        let text = format!("it is over {} KiB", max_bytes / 1024);
        return Err(io::Error::other(text));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::config::RedisCheck;

    fn password(folder: &TempDir, written: &[u8]) -> Result<Vec<u8>, String> {
        let path = folder.path().join("password");
        fs::write(&path, written).unwrap();
        let read = read_password(&path);
        read.map(|password| password.bytes().to_vec())
            .map_err(|said| said.to_string().replace(&*shown(&path), "FILE"))
    }

    #[test]
    fn a_password_is_one_short_line() {
        let folder = TempDir::new().unwrap();
        assert_eq!(password(&folder, b"a b\r\n"), Ok(b"a b".to_vec()));
        assert_eq!(password(&folder, b"a\n\n"), Ok(b"a\n".to_vec()));
        let empty = Err("password_file FILE: it is empty".to_owned());
        assert_eq!(password(&folder, b"\n"), empty);
        let long = Err("password_file FILE: it is over 4 KiB".to_owned());
        assert_eq!(password(&folder, &[b'x'; 5000]), long);
    }

    #[test]
    fn what_cannot_be_read_is_an_obstacle_and_passwords_are_never_shown() {
        let folder = TempDir::new().unwrap();
        let read = |path: std::path::PathBuf| Kit {
            password: Some(read_password(&path)),
            trust: None,
        };
        let none = folder.path().join("none");
        let missing = read(none.clone()).obstacle().unwrap().to_string();
        let expected = format!("password_file {}: No such file or", shown(&none));
        assert!(missing.starts_with(&expected), "{missing}");
        let not_a_file = read(folder.path().to_owned()).obstacle().unwrap();
        assert_eq!(
            not_a_file.to_string(),
            format!(
                "password_file {}: it is no ordinary file",
                shown(folder.path())
            )
        );
        let path = folder.path().join("password");
        fs::write(&path, "secret").unwrap();
        let kit = read(path.clone());
        assert_eq!(kit.obstacle(), None);
        assert!(!format!("{kit:?}").contains("secret"), "{kit:?}");
        let check = Check::Redis(RedisCheck {
            password_file: Some(path.clone()),
        });
        assert_eq!(password_file(&check), Some(&*path));
    }

    #[test]
    fn paths_are_told_and_leave_room_for_what_is_wrong() {
        assert_eq!(shown(Path::new("/etc/evenkeel/pg")), "/etc/evenkeel/pg");
        let long = format!("/srv/{}db\n.pem", "\u{df}/".repeat(100));
        let tls = Tls {
            verify: true,
            ca: Some(long.into()),
            server_name: None,
        };
        let said = read_trust(&tls, &Check::Tcp).unwrap_err().to_string();
        assert!(said.starts_with("ca ..."), "{said}");
        let rest = "\u{df}/db\\n.pem: No such file or directory (os error 2)";
        assert!(said.contains(rest), "{said}");
    }
}
