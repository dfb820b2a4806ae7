//! `evenkeel keeper`: the process that holds parked connections. evenkeel starts it, nobody else does.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use crate::park::{KEEPER_PATIENCE, Keeper};
use crate::sys;

/// Keeps what the process at the other end of standard input brings, until there is nobody to keep for.
pub(super) fn keep(path: &Path) -> anyhow::Result<()> {
    // It must outlive whoever has started it. Where it leads a group already, somebody has seen to that.
    sys::process::leave_session().unwrap_or(());
    // Two for each connection: with fewer, fewer are kept.
    sys::limits::raise_descriptors()?;
    let first = io::stdin().as_fd().try_clone_to_owned()?;
    Ok(Keeper::new(first, path, KEEPER_PATIENCE)?.run()?)
}
