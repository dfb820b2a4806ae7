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

    /// What the server asks for while somebody listens: a verdict may still be on its way when checks
    /// end, and nobody would ever take it back.
    fn share(&self, server: &Server, seats: &Seats) -> Share {
        match self.is_checked {
            true => seats.share(server.id),
            false => Share::default(),
        }
    }

    /// Scaled weights would order the same picks in the same way, but servers of one weight take
    /// turns as a group: pools that never need parts of a weight keep theirs.
    fn scale(&self, seats: &Seats) -> u32 {
        let has_own_share = |server: &Server| self.share(server, seats) != Share::default();
        let is_scaled = ramp::is_weighted(self.algorithm)
            && (!self.slow_start.is_zero() || self.servers.iter().any(has_own_share));
        if is_scaled { ramp::SCALE } else { 1 }
    }

    /// What a server counts for, and when its ramp makes the next step. A server that wants no new
    /// connection counts for nothing, also while the pool fails open.
    fn weight(&self, server: &Server, seats: &Seats, scale: u32, now: Now) -> (u32, Option<Now>) {
        let share = self.share(server, seats);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::outlier::Finding;
    use super::super::tests::{Process, checked, config, empty, plain, pool_id, verdict};
    use super::super::{Ask, Pools, Verdict};
    use super::*;
    use crate::address::Peer;
    use crate::balance::Algorithm;
    use crate::config as settings;
    use crate::ids::ServerId;

    const SECOND: Duration = Duration::from_secs(1);
    const WEIGHTED: [Algorithm; 5] = [
        Algorithm::RoundRobin,
        Algorithm::LeastConnections,
        Algorithm::PowerOfTwo,
        Algorithm::Random,
        Algorithm::LeastTime,
    ];

    fn at(seconds: u32) -> Now {
        Now::default() + SECOND * seconds
    }

    /// How many of 10,000 connections, which end at once, each of three servers gets at `now`.
    fn counts(pools: &mut Pools, now: Now) -> [u32; 3] {
        let mut random = fastrand::Rng::with_seed(3);
        let mut counts = [0; 3];
        for _ in 0..10_000 {
            let ask = Ask {
                client: Peer::Unix,
                tried: &[],
                now,
            };
            let Some(server) = pools.pick(pool_id(), &ask, &mut random) else {
                break;
            };
            counts[server.index()] += 1;
            pools.release(server);
        }
        counts
    }

    /// Three checked servers, all up from the start.
    fn three(algorithm: Algorithm, change: impl FnOnce(&mut settings::Pool)) -> Pools {
        let mut settings = checked(config(algorithm, plain(&["a", "b", "c"]), None));
        change(&mut settings);
        let mut pools = empty();
        (0..3).for_each(|server| pools.apply(verdict(server, true), Now::default()));
        pools.install(Process::new().pool(&settings, &[0, 1, 2]), Now::default());
        pools
    }

    fn slow(settings: &mut settings::Pool) {
        settings.slow_start = 10 * SECOND;
    }

    #[track_caller]
    fn assert_near(algorithm: Algorithm, counts: [u32; 3], weights: [u32; 3]) {
        let total: u32 = weights.iter().sum();
        for (count, weight) in counts.into_iter().zip(weights) {
            let wanted = 10_000 * weight / total;
            assert!(
                count.abs_diff(wanted) <= 150,
                "{algorithm}: {counts:?} for {weights:?}"
            );
        }
    }

    #[test]
    fn a_recovered_server_s_share_grows_from_a_tenth_to_all() {
        for algorithm in WEIGHTED {
            let mut pools = three(algorithm, slow);
            assert_near(algorithm, counts(&mut pools, at(1)), [1, 1, 1]);
            pools.apply(verdict(2, false), at(50));
            pools.apply(verdict(2, true), at(100));
            assert_near(algorithm, counts(&mut pools, at(100)), [100, 100, 10]);
            assert_near(algorithm, counts(&mut pools, at(105)), [100, 100, 55]);
            assert_near(algorithm, counts(&mut pools, at(110)), [1, 1, 1]);
        }
    }

    #[test]
    fn a_server_that_joins_a_pool_which_is_there_starts_slowly() {
        let (algorithm, process) = (Algorithm::RoundRobin, Process::new());
        let mut settings = config(algorithm, plain(&["a", "b"]), None);
        slow(&mut settings);
        let mut pools = empty();
        pools.install(process.pool(&settings, &[0, 1]), at(1));
        assert_near(algorithm, counts(&mut pools, at(1)), [1, 1, 0]);
        settings.servers = plain(&["a", "b", "c"]);
        pools.install(process.pool(&settings, &[0, 1, 2]), at(50));
        assert_near(algorithm, counts(&mut pools, at(50)), [100, 100, 10]);
        // Another change meanwhile does not begin it anew.
        settings.retries = 1;
        pools.install(process.pool(&settings, &[0, 1, 2]), at(55));
        assert_near(algorithm, counts(&mut pools, at(55)), [100, 100, 55]);
    }

    #[test]
    fn the_first_verdict_of_a_server_that_has_joined_begins_its_ramp() {
        let (algorithm, process) = (Algorithm::LeastConnections, Process::new());
        let mut settings = checked(config(algorithm, plain(&["a"]), None));
        slow(&mut settings);
        let mut pools = empty();
        pools.apply(verdict(0, true), at(0));
        pools.install(process.pool(&settings, &[0]), at(0));
        settings.servers = plain(&["a", "b"]);
        pools.install(process.pool(&settings, &[0, 1]), at(10));
        pools.apply(verdict(1, true), at(60));
        assert_near(algorithm, counts(&mut pools, at(60)), [100, 10, 0]);
    }

    #[test]
    fn a_share_multiplies_the_weight_and_none_keeps_a_server_out() {
        let says = |server, percent| Verdict {
            share: Share(percent),
            ..verdict(server, true)
        };
        for algorithm in WEIGHTED {
            let mut pools = three(algorithm, |_| {});
            pools.apply(says(0, 50), at(1));
            pools.apply(says(1, 200), at(1));
            assert_near(algorithm, counts(&mut pools, at(1)), [50, 200, 100]);
            pools.apply(says(1, 0), at(1));
            assert_near(algorithm, counts(&mut pools, at(1)), [50, 0, 100]);
            (0..2).for_each(|server| pools.apply(says(server, 100), at(1)));
            assert_near(algorithm, counts(&mut pools, at(1)), [1, 1, 1]);
        }
        for algorithm in [Algorithm::IpHash, Algorithm::First] {
            let mut pools = three(algorithm, |settings| settings.fail_open = true);
            (0..3).for_each(|server| pools.apply(says(server, 0), at(1)));
            assert_eq!(counts(&mut pools, at(1)), [0; 3], "{algorithm}");
        }
    }

    #[test]
    fn a_verdict_that_comes_after_the_end_of_checks_changes_nothing() {
        let settings = config(Algorithm::RoundRobin, plain(&["a", "b"]), None);
        let mut pools = empty();
        pools.install(Process::new().pool(&settings, &[0, 1]), at(0));
        pools.apply(
            Verdict {
                share: Share(0),
                ..verdict(0, true)
            },
            at(1),
        );
        let mut random = fastrand::Rng::with_seed(3);
        let mut picked = [0, 1].map(|_| {
            let ask = Ask {
                client: Peer::Unix,
                tried: &[],
                now: at(1),
            };
            pools
                .pick(pool_id(), &ask, &mut random)
                .map(ServerId::index)
        });
        picked.sort_unstable();
        assert_eq!(picked, [Some(0), Some(1)]);
    }

    #[test]
    fn least_time_weighs_connections_alike_whether_weights_are_scaled_or_not() {
        let held = |change: fn(&mut settings::Pool)| -> Vec<usize> {
            let mut pools = three(Algorithm::LeastTime, change);
            let mut random = fastrand::Rng::with_seed(5);
            let ask = Ask {
                client: Peer::Unix,
                tried: &[],
                now: at(1),
            };
            let mut pick = || {
                let server = pools.pick(pool_id(), &ask, &mut random).unwrap();
                let took = Duration::from_millis(10 + 5 * server.index() as u64);
                pools.observe_connect(server, took, at(1));
                server.index()
            };
            (0..300).map(|_| pick()).collect()
        };
        let share = |picks: Vec<usize>, server| picks.iter().filter(|&&one| one == server).count();
        for server in 0..3 {
            let (plain, scaled) = (share(held(|_| {}), server), share(held(slow), server));
            assert!(plain.abs_diff(scaled) <= 20, "{server}: {plain}, {scaled}");
        }
    }

    #[test]
    fn while_all_are_down_fail_open_uses_those_that_the_operator_has_let_in() {
        let mut pools = three(Algorithm::RoundRobin, |settings| settings.fail_open = true);
        (0..3).for_each(|server| pools.apply(verdict(server, false), at(1)));
        assert_near(Algorithm::RoundRobin, counts(&mut pools, at(1)), [1, 1, 1]);
        pools.apply(verdict(1, true), at(2));
        assert_eq!(counts(&mut pools, at(2)), [0, 10_000, 0]);
        let mut closed = three(Algorithm::RoundRobin, |_| {});
        (0..3).for_each(|server| closed.apply(verdict(server, false), at(1)));
        assert_eq!(counts(&mut closed, at(1)), [0; 3]);
    }

    #[test]
    fn an_ejected_server_is_left_alone_until_its_time_has_passed() {
        let rules = settings::Outlier {
            failures: 2.try_into().unwrap(),
            ejection: 30 * SECOND,
            max_ejected_percent: 50,
        };
        let mut pools = three(Algorithm::RoundRobin, |settings| {
            settings.outlier = Some(rules);
        });
        let fail = |pools: &mut Pools, server| {
            let one = |_| pools.observe(ServerId::new(server), Finding::Bad, at(1));
            [0; 2].map(one)
        };
        counts(&mut pools, at(1));
        assert_eq!(fail(&mut pools, 2), [None, Some(pool_id())]);
        assert_near(Algorithm::RoundRobin, counts(&mut pools, at(1)), [1, 1, 0]);
        assert_eq!(fail(&mut pools, 1), [None, None], "one of three is half");
        assert_near(Algorithm::RoundRobin, counts(&mut pools, at(31)), [1, 1, 1]);
    }

    #[test]
    fn who_is_ejected_comes_back_where_too_few_others_stay() {
        let rules = settings::Outlier {
            failures: 1.try_into().unwrap(),
            ejection: 30 * SECOND,
            max_ejected_percent: 67,
        };
        let pool = |names: &[&str]| settings::Pool {
            outlier: Some(rules),
            ..config(Algorithm::RoundRobin, plain(names), None)
        };
        let (process, mut pools) = (Process::new(), empty());
        let all = process.pool(&pool(&["a", "b", "c"]), &[0, 1, 2]);
        pools.install(all, at(1));
        counts(&mut pools, at(1));
        for (server, second) in [(0, 1), (1, 2)] {
            let server = ServerId::new(server);
            pools.observe(server, Finding::Bad, at(second)).unwrap();
        }
        assert_eq!(counts(&mut pools, at(2)), [0, 0, 10_000]);
        // One of two at most: the one whose time comes later stays out.
        pools.install(process.pool(&pool(&["a", "b"]), &[0, 1]), at(3));
        assert_eq!(counts(&mut pools, at(3)), [10_000, 0, 0]);
        pools.install(process.pool(&pool(&["b"]), &[1]), at(4));
        assert_eq!(counts(&mut pools, at(4)), [0, 10_000, 0]);
    }
}
