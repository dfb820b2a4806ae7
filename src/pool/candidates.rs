//! Which servers of a pool may be picked, and for how much each counts: from what the config, the
//! operator, the prober, the servers themselves and real connections say.

use super::ramp;
use super::seat::Seats;
use super::server::{Server, Tier};
use super::{Plan, Share};
use crate::balance::Candidate;
use crate::clock::Now;

/// All servers of a pool as its pickers see them, until something changes.
#[derive(Debug)]
pub(super) struct Candidates {
    /// In the order of the pool; whatever their tier.
    servers: Vec<Candidate>,
    /// What a weight of 1 counts.
    pub(super) scale: u32,
    /// When time alone makes a difference: a ramp's next step, an ejection's end.
    pub(super) until: Option<Now>,
}

impl Candidates {
    /// As `seats` knows the servers of `plan` at `now`.
    pub(super) fn of(plan: &Plan, seats: &Seats, now: Now) -> Self {
        let scale = plan.scale(seats);
        let mut until = None;
        let mut servers: Vec<_> = plan
            .servers
            .iter()
            .map(|server| {
                let (weight, next) = plan.weight(server, seats, scale, now);
                until = earlier(until, earlier(next, plan.ejected_until(server, now)));
                Candidate {
                    weight,
                    is_eligible: plan.is_usable(server, seats, now),
                }
            })
            .collect();
        let is_any = |one: &Candidate| one.is_eligible && one.weight > 0;
        if plan.fail_open && !servers.iter().any(is_any) {
            for (candidate, server) in servers.iter_mut().zip(&plan.servers) {
                candidate.is_eligible = server.is_open;
            }
        }
        Self {
            servers,
            scale,
            until,
        }
    }

    /// What `plan`'s picker of a tier gets.
    pub(super) fn of_tier(&self, plan: &Plan, tier: Tier) -> Vec<Candidate> {
        let servers = self.servers.iter().zip(&plan.servers);
        let candidate = |(candidate, server): (&Candidate, &Server)| Candidate {
            is_eligible: candidate.is_eligible && server.tier == tier,
            ..*candidate
        };
        servers.map(candidate).collect()
    }
}

impl Plan {
    /// Whether new connections may go to a server, as far as this worker has heard.
    fn is_usable(&self, server: &Server, seats: &Seats, now: Now) -> bool {
        let is_up = || !self.is_checked || seats.is_up(server.id) == Some(true);
        server.is_open && is_up() && self.ejected_until(server, now).is_none()
    }

    /// When a server that is ejected is let in again.
    fn ejected_until(&self, server: &Server, now: Now) -> Option<Now> {
        self.outlier?;
        let until = server.tally.record().until();
        (until > now).then_some(until)
    }

    /// Scaled weights would order the same picks in the same way, but servers of one weight take
    /// turns as a group: pools that never need parts of a weight keep theirs.
    fn scale(&self, seats: &Seats) -> u32 {
        let has_own_share = |server: &Server| seats.share(server.id) != Share::default();
        let is_scaled = ramp::is_weighted(self.algorithm)
            && (!self.slow_start.is_zero() || self.servers.iter().any(has_own_share));
        if is_scaled { ramp::SCALE } else { 1 }
    }

    /// What a server counts for, and when its ramp makes the next step. A server that wants no new
    /// connection counts for nothing, also while the pool fails open.
    fn weight(&self, server: &Server, seats: &Seats, scale: u32, now: Now) -> (u32, Option<Now>) {
        let share = seats.share(server.id);
        if scale == 1 {
            let weight = if share.0 == 0 { 0 } else { server.weight };
            return (weight, None);
        }
        let (height, next) = ramp::height(seats.since(server.id), self.slow_start, now);
        (ramp::scaled(server.weight, height, share), next)
    }
}

fn earlier(one: Option<Now>, other: Option<Now>) -> Option<Now> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
