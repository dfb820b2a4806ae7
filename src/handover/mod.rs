//! What one process hands to the next: how it is framed and said, and how descriptors go with it.
//!
//! The two are joined by a socketpair. It blocks, within a timeout, so no loop that carries connections
//! may use it.
//!
//! ```text
//! frame       one message with its descriptors, and the versions of the words
//! dialogue    who says what, and when
//! world       who is who by name, and what was counted
//! connection  one connection between two events
//! ```
//! It knows how things are said, and nothing of how they are come by: that is `process`'s and
//! `worker`'s business.

pub mod connection;
pub mod dialogue;
pub mod frame;
pub mod world;

pub use connection::{ConnectionState, Connections, EndedState, PhaseState, SideState};
pub use frame::{Frame, FrameError, Hello, Message, Receiver, Sender, channel};
