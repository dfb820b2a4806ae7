//! Who keeps a connection from being faster: a pure judgement on what the kernel and the flows say.
//!
//! In this order, because each makes all that follow it look bad:
//! 1. segments are lost, or the congestion window is full: the network;
//! 2. bytes wait for a side whose receive window is full: that side does not read;
//! 3. bytes wait here although their way is free: evenkeel;
//! 4. nothing waits: whoever spoke last waits for the other one.

use std::time::Duration;

use crate::end::Side;
use crate::sys::tcp_info::TcpInfo;
use crate::telemetry::connection::{BothSides, Limiter};

/// What is known of one of a connection's sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SideFacts {
    /// As the kernel tells it; zeros for a socket that has failed.
    pub(super) info: TcpInfo,
    /// Received by the kernel and not read by us.
    pub(super) unread_bytes: usize,
    /// Written by us and not acknowledged by the peer.
    pub(super) queued_bytes: usize,
    /// Whether a flow holds bytes for it.
    pub(super) is_awaited: bool,
    /// Whether a byte of it was ever passed on.
    pub(super) has_spoken: bool,
}

/// What is known of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// What the client must begin with is not there; `server` means nothing.
    pub(super) is_reading: bool,
    /// `server` means nothing while this is true.
    pub(super) is_connecting: bool,
    /// Who has come to its end, in order or not, and will say nothing more.
    pub(super) ended: Option<Side>,
    pub(super) sides: BothSides<SideFacts>,
}

/// Who keeps a connection from being faster.
pub(super) fn limited_by(facts: &Facts) -> Limiter {
    if facts.is_reading {
        return Limiter::Client;
    }
    if facts.is_connecting {
        return Limiter::Server;
    }
    let BothSides { client, server } = &facts.sides;
    let jams = [(Side::Client, client), (Side::Server, server)].map(|(side, it)| it.jam(side));
    let found = |limiter| jams.contains(&Some(limiter)).then_some(limiter);
    found(Limiter::Network)
        .or_else(|| found(Limiter::Client))
        .or_else(|| found(Limiter::Server))
        .or_else(|| found(Limiter::Evenkeel))
        .unwrap_or_else(|| turn(facts))
}

impl SideFacts {
    /// What holds bytes up that are to go to this side, which is `side`, or that came from it.
    fn jam(&self, side: Side) -> Option<Limiter> {
        let unsent = self.info.unsent_bytes.unwrap_or(0) as usize;
        if self.info.is_losing {
            Some(Limiter::Network)
        } else if unsent > 0 && !self.has_window(unsent) {
            Some(at(side))
        } else if unsent > 0 || (self.is_awaited && self.queued_bytes > 0) {
            // The peer has room: the congestion window has not, or acknowledgements are awaited.
            Some(Limiter::Network)
        } else {
            let is_ours = self.is_awaited || self.unread_bytes > 0;
            is_ours.then_some(Limiter::Evenkeel)
        }
    }

    /// Whether the peer would take one more segment. A kernel that does not tell is believed to
    /// hold back for the peer's sake, which is the common reason.
    fn has_window(&self, unsent: usize) -> bool {
        let in_flight = self.queued_bytes.saturating_sub(unsent);
        let next = in_flight + self.info.segment_bytes as usize;
        let window = self.info.window_bytes;
        window.is_some_and(|window| window as usize >= next)
    }

    /// Since when it has said nothing; `None` where it never spoke.
    fn silent(&self) -> Option<Duration> {
        self.has_spoken.then_some(self.info.silent)
    }
}

/// Whose turn it is to say something. Where nobody has spoken it is the client's: most protocols
/// begin so. Of two that spoke within one tick of the kernel's clock the server is taken to be the
/// later one, because an answer follows its question closely and not the other way round.
fn turn(facts: &Facts) -> Limiter {
    if let Some(ended) = facts.ended {
        return at(ended.other());
    }
    let BothSides { client, server } = &facts.sides;
    match (client.silent(), server.silent()) {
        (Some(client), Some(server)) if client < server => Limiter::Server,
        (Some(_), None) => Limiter::Server,
        _ => Limiter::Client,
    }
}

fn at(side: Side) -> Limiter {
    match side {
        Side::Client => Limiter::Client,
        Side::Server => Limiter::Server,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A side that spoke so many milliseconds ago, and has read everything.
    fn spoke(silent_ms: u64) -> SideFacts {
        SideFacts {
            info: TcpInfo {
                unsent_bytes: Some(0),
                window_bytes: Some(65_536),
                segment_bytes: 1448,
                silent: Duration::from_millis(silent_ms),
                ..TcpInfo::default()
            },
            has_spoken: true,
            ..SideFacts::default()
        }
    }

    /// A side for which so much was written, of which so much was not sent, with such a window.
    fn owed(queued_bytes: usize, unsent: u32, window: u32) -> SideFacts {
        let mut side = spoke(1000);
        side.info.unsent_bytes = Some(unsent);
        side.info.window_bytes = Some(window);
        SideFacts {
            queued_bytes,
            ..side
        }
    }

    fn limiter(client: SideFacts, server: SideFacts) -> Limiter {
        limited_by(&Facts {
            sides: BothSides { client, server },
            ..Facts::default()
        })
    }

    #[test]
    fn a_side_that_does_not_read_is_to_blame_and_not_the_one_that_sends() {
        let sender = SideFacts {
            unread_bytes: 100_000,
            ..spoke(0)
        };
        for window in [0, 1000, 10_000] {
            let in_flight = window as usize;
            let reader = owed(50_000 + in_flight, 50_000, window);
            let held = SideFacts {
                is_awaited: true,
                ..reader
            };
            for reader in [reader, held] {
                assert_eq!(limiter(reader, sender), Limiter::Client, "{window}");
                assert_eq!(limiter(sender, reader), Limiter::Server, "{window}");
            }
        }
    }

    #[test]
    fn an_open_window_or_a_loss_blames_the_network() {
        assert_eq!(
            limiter(owed(30_000, 20_000, 60_000), spoke(0)),
            Limiter::Network
        );
        let mut losing = owed(1000, 0, 60_000);
        losing.info.is_losing = true;
        assert_eq!(limiter(spoke(0), losing), Limiter::Network);
        let mut both = owed(60_000, 20_000, 30_000);
        both.info.is_losing = true;
        assert_eq!(
            limiter(both, spoke(0)),
            Limiter::Network,
            "a loss closes windows"
        );
        let awaited = SideFacts {
            is_awaited: true,
            ..owed(2000, 0, 60_000)
        };
        assert_eq!(limiter(awaited, spoke(0)), Limiter::Network);
    }

    #[test]
    fn bytes_that_wait_here_although_the_way_is_free_are_ours() {
        let unread = SideFacts {
            unread_bytes: 10,
            ..spoke(0)
        };
        assert_eq!(limiter(unread, spoke(9)), Limiter::Evenkeel);
        let awaited = SideFacts {
            is_awaited: true,
            ..spoke(0)
        };
        assert_eq!(limiter(spoke(9), awaited), Limiter::Evenkeel);
    }

    #[test]
    fn where_nothing_waits_it_is_the_other_one_s_turn() {
        let silent = SideFacts {
            has_spoken: false,
            ..spoke(5)
        };
        let cases = [
            (spoke(10), spoke(20), Limiter::Server),
            (spoke(20), spoke(10), Limiter::Client),
            (spoke(10), spoke(10), Limiter::Client),
            (spoke(10), silent, Limiter::Server),
            (silent, spoke(10), Limiter::Client),
            (silent, silent, Limiter::Client),
        ];
        for (client, server, expected) in cases {
            assert_eq!(limiter(client, server), expected, "{client:?} {server:?}");
        }
        // What was sent and is on its way changes nothing.
        assert_eq!(limiter(spoke(10), owed(100, 0, 60_000)), Limiter::Server);
    }

    #[test]
    fn who_has_ended_has_no_turn_and_who_connects_waits_for_the_server() {
        let mut facts = Facts {
            sides: BothSides {
                client: spoke(20),
                server: spoke(10),
            },
            ended: Some(Side::Client),
            ..Facts::default()
        };
        assert_eq!(limited_by(&facts), Limiter::Server);
        facts.ended = Some(Side::Server);
        assert_eq!(limited_by(&facts), Limiter::Client);
        facts.is_connecting = true;
        assert_eq!(limited_by(&facts), Limiter::Server);
        // Bytes that nobody has read yet are a part of what it must begin with.
        facts.sides.client.unread_bytes = 10;
        facts.is_reading = true;
        assert_eq!(limited_by(&facts), Limiter::Client);
    }

    #[test]
    fn a_kernel_that_does_not_tell_the_window_leaves_the_reader_to_blame() {
        let mut reader = owed(50_000, 50_000, 0);
        reader.info.window_bytes = None;
        assert_eq!(limiter(reader, spoke(0)), Limiter::Client);
    }
}
