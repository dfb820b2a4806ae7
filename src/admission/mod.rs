//! Who may come in: pure decisions about an address, made before any server is touched.
//!
//! Knows addresses and time as they are passed in; nothing of sockets, listeners or why a connection
//! is told that it ended. What a rule needs to be fast is prepared off the workers.

pub mod networks;
pub mod server_names;
