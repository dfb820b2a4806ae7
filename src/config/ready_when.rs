//! Which pools must have a server for this node to get traffic: the key `ready_when`.

use std::fmt;
use std::sync::Arc;

/// Of the pools that a listener leads to; others never count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ReadyWhen {
    /// Each of them.
    #[default]
    AllPools,
    /// One of them, whichever.
    AnyPool,
    /// Each that is named here; the others may be without.
    Pools(Vec<Arc<str>>),
}

impl fmt::Display for ReadyWhen {
    /// As the file has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllPools => f.write_str("all_pools"),
            Self::AnyPool => f.write_str("any_pool"),
            Self::Pools(names) => write!(f, "[{}]", names.join(", ")),
        }
    }
}
