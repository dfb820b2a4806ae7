//! `evenkeel keeper`: the process that holds parked connections. evenkeel starts it, nobody else does.

use std::path::Path;

use crate::park::{KEEPER_PATIENCE, Keeper};
use crate::sys;

/// Keeps what the process at the other end of standard input brings, until there is nobody to keep for.
pub(super) fn keep(path: &Path) -> anyhow::Result<()> {
    // It must outlive whoever has started it. Where it leads a group already, somebody has seen to that.
    sys::process::leave_session().unwrap_or(());
    // Whoever has started evenkeel may wait for the end of something that it has left to it. Linux before
    // 5.9 cannot do that at once.
    sys::inherited::close_all().unwrap_or(());
    // Two for each connection: with fewer, fewer are kept.
    sys::limits::raise_descriptors()?;
    let first = sys::inherited::take_stdin()?;
    Ok(Keeper::new(first, path, KEEPER_PATIENCE)?.run()?)
}
