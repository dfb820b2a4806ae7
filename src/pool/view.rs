//! The servers of a pool at the moment of a pick, as an algorithm asks about them, and taking the
//! place that was picked.

use super::seat::Seats;
use super::tally::Reserved;
use super::{Ask, Plan};
use crate::balance::{Load, Picker};

/// How often a pick is made again because another worker was quicker, before it is simply taken.
const RACES_MAX: usize = 8;

/// Picks and reserves until both agree, or no server of the tier can take the connection.
pub(super) fn take_place(
    picker: &mut Picker,
    view: &View<'_>,
    client: u64,
    random: &mut fastrand::Rng,
) -> Option<usize> {
    for round in 0.. {
        let pick = picker.pick(view, client, random)?;
        let server = &view.plan.servers[pick.server];
        let seen = pick.connections.filter(|_| round < RACES_MAX);
        // Full or raced: the next round sees the new counts. A server that filled up meanwhile can
        // no longer take a connection, so the pool bounds the rounds.
        if server.tally.reserve(server.max, seen) == Reserved::Yes {
            return Some(pick.server);
        }
    }
    None
}

/// The servers of a pool at the moment of a pick.
pub(super) struct View<'a> {
    pub(super) plan: &'a Plan,
    pub(super) seats: &'a Seats,
    pub(super) ask: &'a Ask<'a>,
}

impl Load for View<'_> {
    fn connections(&self, server: usize) -> u32 {
        self.plan.servers[server].tally.connections()
    }

    fn can_take(&self, server: usize) -> bool {
        let server = &self.plan.servers[server];
        (server.max == u32::MAX || server.tally.connections() < server.max)
            && !self.ask.tried.contains(&server.id)
    }

    fn connect_time(&self, server: usize) -> u64 {
        let server = &self.plan.servers[server];
        self.seats.connect_time(server.id, self.ask.now)
    }

    fn pool_connections(&self) -> u32 {
        self.plan.tally.connections()
    }
}
