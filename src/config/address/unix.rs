//! Unix sockets as people write them: `unix:/run/web.sock` for a file, `unix:@web` for a name that
//! only the kernel knows.
//!
//! Whether there is a socket, and whose, is seen when it is used.

use std::path::{Component, Path, PathBuf};

use super::super::mistake::{self, Wrong, quoted};
use super::{Purpose, Use};
use crate::address::UnixName;

const PREFIX: &str = "unix:";

/// What to write, wherever it is too unclear what was meant.
const REMEDY: &str = "write one such as unix:/run/web.sock, or unix:@web for one without a file";

/// The name of the socket, or what is wrong with it; `None` where the text is not about one.
pub(super) fn name(text: &str, wanted: Use) -> Option<Result<UnixName, Wrong>> {
    if wanted.purpose == Purpose::Admin || text.contains(',') || text.trim() != text {
        return None;
    }
    if text.starts_with(['/', '@']) {
        let what = format!("{} has no {PREFIX} before it", quoted(text));
        let remedy = format!("write {PREFIX}{}", mistake::plain(text));
        return Some(Err(Wrong::new(what, remedy)));
    }
    let name = text.strip_prefix(PREFIX)?;
    Some(checked(name).map_err(|(lack, remedy)| {
        let what = format!("{} {lack}", quoted(text));
        Wrong::new(what, remedy)
    }))
}

fn checked(name: &str) -> Result<UnixName, (String, String)> {
    let wrong = |lack: &str, remedy: &str| Err((lack.to_owned(), remedy.to_owned()));
    // It goes into logs, metrics and URLs as it stands.
    if let Some(bad) = name.chars().find(|character| !character.is_ascii_graphic()) {
        let lack = format!("has {} in it", quoted(&bad.to_string()));
        return Err((lack, "write printable ASCII without blanks".to_owned()));
    }
    if name.len() > UnixName::BYTES_MAX {
        let (count, most) = (name.len(), UnixName::BYTES_MAX);
        let lack = format!("has {count} bytes behind {PREFIX}");
        let remedy = format!("write at most {most}, the kernel takes no more");
        return Err((lack, remedy));
    }
    match name.strip_prefix('@') {
        Some("") => wrong("has no name behind the @", REMEDY),
        Some(_) => Ok(UnixName::new(name)),
        None if !name.starts_with('/') => wrong("has no absolute path", REMEDY),
        None if name.ends_with('/') => wrong("is a directory", REMEDY),
        None if has_parent(name) => wrong("has .. in its path", "write the path without"),
        None => Ok(UnixName::new(&plain(name))),
    }
}

/// What it leads to depends on links, so that nobody could tell whether two paths are the same.
fn has_parent(path: &str) -> bool {
    Path::new(path)
        .components()
        .any(|part| part == Component::ParentDir)
}

/// The same path without what makes no difference (`//`, `/./`): one socket, one spelling.
fn plain(path: &str) -> String {
    let plain: PathBuf = Path::new(path).components().collect();
    plain.display().to_string()
}
