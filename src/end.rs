//! Why a connection ended. One value is set once, by whoever ends the connection; the access log,
//! the counters and the tests all read it.

use std::fmt;

/// The two sockets of a connection, by who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The socket that a listener accepted.
    Client,
    /// The socket that we connected to a server.
    Server,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

macro_rules! ends {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)*) => {
        /// Why a connection ended; the words stand in the access log.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum End {
            $($(#[$doc])* $variant,)*
        }

        impl End {
            /// Each of them, in the order of their indexes.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word for it in the access log and in metrics.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }
    };
}

ends! {
    /// Both sides ended in order; the client was first.
    ClientClosed = "client_closed",
    /// Both sides ended in order; the server was first.
    ServerClosed = "server_closed",
    /// The client's socket failed: it sent RST, or it stopped answering.
    ClientReset = "client_reset",
    /// The server's socket failed after it had been connected.
    ServerReset = "server_reset",
    /// No server that was tried accepted: refused, unreachable, or a unix socket whose queue is full.
    ConnectFailed = "connect_failed",
    /// The last server that was tried did not answer within `connect_timeout`.
    ConnectTimeout = "connect_timeout",
    /// No byte either way for `idle_timeout`.
    IdleTimeout = "idle_timeout",
    /// One side had ended and the other sent nothing for `half_close_timeout`.
    HalfCloseTimeout = "half_close_timeout",
    /// No server of the pool could take the connection.
    NoServer = "no_server",
    /// It was held for a server, and none could take it within the queue's `timeout`.
    QueueTimeout = "queue_timeout",
    /// No server could take it, and the queue was at its `limit`.
    QueueFull = "queue_full",
    /// `allow` and `deny` of the listener kept it out.
    Denied = "denied",
    /// Its address had come more often than `connection_rate_per_ip` allows.
    RateLimited = "rate_limited",
    /// `max_connections` of the process or the listener, or `max_connections_per_ip`, was reached.
    Limit = "limit",
    /// It did not begin with a PROXY header from a trusted peer, in time.
    BadProxyHeader = "bad_proxy_header",
    /// It did not begin with a ClientHello, in time, at a listener with `sni`.
    BadClientHello = "bad_client_hello",
    /// Its server was drained: it was closed for being quiet, or at the deadline.
    Drained = "drained",
    /// Somebody killed it.
    Killed = "killed",
    /// Its server went down, and the pool says `on_down: close`.
    ServerDown = "server_down",
    /// The process was told to stop, and `shutdown_timeout` passed.
    Shutdown = "shutdown",
    /// The process ran out of something: descriptors, memory, ports.
    Error = "error",
}

impl End {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The end in order that began at `side`.
    pub const fn closed(side: Side) -> Self {
        match side {
            Side::Client => Self::ClientClosed,
            Side::Server => Self::ServerClosed,
        }
    }

    /// The end by a failure of the socket at `side`.
    pub const fn reset(side: Side) -> Self {
        match side {
            Side::Client => Self::ClientReset,
            Side::Server => Self::ServerReset,
        }
    }

    /// Whether the client was turned away before any server was tried.
    pub const fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::NoServer
                | Self::QueueTimeout
                | Self::QueueFull
                | Self::Denied
                | Self::RateLimited
                | Self::Limit
                | Self::BadProxyHeader
                | Self::BadClientHello
        )
    }

    /// Whether both peers said what they had to say, and see FIN. Any other end shows RST, but for a
    /// quiet connection that is drained: nothing is on its way there, so FIN is as true.
    pub const fn is_orderly(self) -> bool {
        matches!(self, Self::ClientClosed | Self::ServerClosed)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_distinct() {
        let mut words: Vec<_> = End::ALL.iter().map(|end| end.word()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), End::COUNT);
    }
}
