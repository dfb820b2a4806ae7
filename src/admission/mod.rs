//! Who may come in: decisions about an address, made before any server is touched.
//!
//! Knows addresses, and time as it is passed in; nothing of sockets, listeners, or what a connection
//! is told that is turned away. What a rule needs to be fast is prepared off the workers; what
//! workers must count together ([`Sources`]) is shared by them in small pieces, each locked for less
//! than a microsecond at most times.

pub mod access;
pub mod bucket;
pub mod networks;
pub mod server_names;
mod shard;
pub mod sources;

pub use access::Access;
pub use bucket::Pace;
pub use networks::Networks;
pub use server_names::ServerNames;
pub use sources::{PerSource, Place, Refused, Sources};
