//! Several evenkeels side by side: how each is asked (`ask`), what its status says (`view`), what they
//! have not in common (`comparison`), and how the page's are kept at hand (`watch`).
//!
//! Read-only, and of others' statuses alone: one GET of one path, without a token, to addresses that a
//! user has named. What comes back is a stranger's text: bounded, read leniently, and never believed to
//! be more than text.

mod ask;
mod comparison;
mod node;
pub(super) mod show;
mod view;
pub(super) mod watch;

pub use self::ask::{NodeError, ask_all, is_status};
pub use self::comparison::{ComparedPool, Comparison, Row, Seen, Told};
pub use self::node::{DEFAULT_PORT, Node, NotANode};
pub use self::view::{PoolView, ServerView, View};
