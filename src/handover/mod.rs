//! What one process hands to the next: how it is framed and said, and how descriptors go with it.
//!
//! The two are joined by a socketpair. What they say to each other, and in which order, is the business
//! of those above; here is what every message has in common. It blocks, within a timeout, so no loop
//! that carries connections may use it.

pub mod connection;
pub mod frame;

pub use connection::{ConnectionState, Connections, EndedState, PhaseState, SideState};
pub use frame::{Frame, FrameError, Hello, Message, Receiver, Sender, channel};
