//! Typed indexes: what a listener, a pool, a server and a connection are called inside the process.
//!
//! Users know things by name; the loops know them by these numbers. A number is not reused while
//! anyone may still speak of what had it, so a late message about something that is gone cannot hit its
//! successor: those of servers not before a minute after the last connection, all others never. Inside,
//! an index is one higher than outside: where there may be none, that takes no more room.

use std::fmt;
use std::num::NonZeroU32;

macro_rules! index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(NonZeroU32);

        impl $name {
            /// The id of the `index`-th thing of its kind, counted from 0.
            ///
            /// # Panics
            /// Where the index does not fit 32 bits: the config's limits are far below that.
            pub fn new(index: usize) -> Self {
                let number = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
                Self(number.expect("the config's limits keep indexes below 2^32"))
            }

            /// The place in a table that is indexed by this kind of id.
            pub fn index(self) -> usize {
                self.0.get() as usize - 1
            }
        }
    };
}

index!(
    /// A listener, in the order of the config.
    ListenerId
);
index!(
    /// A pool, in the order of the config.
    PoolId
);
index!(
    /// A server, counted over all pools of the process.
    ServerId
);

/// A connection, unique over the life of the process and over all its workers; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
