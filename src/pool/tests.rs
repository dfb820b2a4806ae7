//! Picks through the ledger: tiers, maxima, retries, verdicts.

use std::num::NonZeroU32;
use std::time::Duration;

use super::*;
use crate::balance::Algorithm;

pub(super) fn server(name: &str, max: u32, backup: bool) -> config::Server {
    config::Server {
        name: name.into(),
        address: Address::local(9001),
        weight: 1,
        max_connections: NonZeroU32::new(max),
        backup,
        found_by: None,
    }
}

pub(super) fn config(
    algorithm: Algorithm,
    servers: Vec<config::Server>,
    bounded_load: Option<f64>,
) -> config::Pool {
    config::Pool {
        algorithm,
        hash: config::Hash {
            ipv4_prefix: 32,
            ipv6_prefix: 64,
            bounded_load,
        },
        ..config::Pool::plain("web", servers)
    }
}

pub(super) fn checked(mut config: config::Pool) -> config::Pool {
    config.health = Some(Arc::new(config::Health {
        check: config::Check::Tcp,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        rise: 2.try_into().unwrap(),
        fall: 3.try_into().unwrap(),
        port: None,
        tls: None,
    }));
    config
}

/// What a process keeps: the counts of a pool and of its servers, by id.
pub(super) struct Process {
    pub(super) pool: Arc<PoolTally>,
    pub(super) servers: Vec<Arc<ServerTally>>,
}

impl Process {
    pub(super) fn new() -> Self {
        let tally = || Arc::new(ServerTally::new(1));
        Self {
            pool: Arc::new(PoolTally::new(1)),
            servers: std::iter::repeat_with(tally).take(8).collect(),
        }
    }

    /// The pool 0 with the servers of these ids, all open.
    pub(super) fn pool(&self, config: &config::Pool, ids: &[usize]) -> Pool {
        let member = |id: &usize| Member {
            id: ServerId::new(*id),
            tally: Arc::clone(&self.servers[*id]),
            is_open: true,
        };
        let members = ids.iter().map(member).collect();
        Pool::new(pool_id(), config, Arc::clone(&self.pool), members)
    }
}

pub(super) fn pool_id() -> PoolId {
    PoolId::new(0)
}

pub(super) fn empty() -> Pools {
    Pools::new(0, Ledger::new(1, u32::MAX))
}

fn pools(algorithm: Algorithm, servers: Vec<config::Server>, bounded_load: Option<f64>) -> Pools {
    let ids: Vec<_> = (0..servers.len()).collect();
    let mut pools = empty();
    pools.install(
        Process::new().pool(&config(algorithm, servers, bounded_load), &ids),
        Now::default(),
    );
    pools
}

pub(super) fn plain(names: &[&str]) -> Vec<config::Server> {
    names.iter().map(|name| server(name, 0, false)).collect()
}

pub(super) fn verdict(server: usize, is_up: bool) -> Verdict {
    Verdict {
        share: Share::default(),
        server: ServerId::new(server),
        is_up,
    }
}

fn pick(pools: &mut Pools, tried: &[ServerId]) -> Option<usize> {
    let client = Peer::Unix;
    let ask = Ask {
        client,
        tried,
        now: Now::default(),
    };
    let server = pools.pick(pool_id(), &ask, &mut fastrand::Rng::with_seed(1));
    server.map(ServerId::index)
}

#[test]
fn a_full_server_is_passed_over_until_a_place_is_released() {
    for algorithm in Algorithm::ALL {
        let mut pools = pools(
            *algorithm,
            vec![server("a", 1, false), server("b", 1, false)],
            None,
        );
        let mut picked = [
            pick(&mut pools, &[]).unwrap(),
            pick(&mut pools, &[]).unwrap(),
        ];
        picked.sort_unstable();
        assert_eq!(picked, [0, 1], "{algorithm}");
        assert_eq!(pick(&mut pools, &[]), None, "{algorithm}");
        pools.release(ServerId::new(1));
        assert_eq!(pick(&mut pools, &[]), Some(1), "{algorithm}");
    }
}

#[test]
fn a_backup_is_picked_only_while_no_other_can_take() {
    let servers = vec![server("a", 0, false), server("b", 0, true)];
    let config = checked(config(Algorithm::RoundRobin, servers, None));
    let mut pools = empty();
    pools.install(Process::new().pool(&config, &[0, 1]), Now::default());
    pools.apply(verdict(0, true), Now::default());
    pools.apply(verdict(1, true), Now::default());
    assert_eq!(pick(&mut pools, &[]), Some(0));
    assert_eq!(pick(&mut pools, &[ServerId::new(0)]), Some(1));
    pools.apply(verdict(0, false), Now::default());
    assert_eq!(pick(&mut pools, &[]), Some(1));
    pools.apply(verdict(0, true), Now::default());
    assert_eq!(pick(&mut pools, &[]), Some(0));
}

#[test]
fn no_server_is_tried_twice_in_a_round() {
    for algorithm in Algorithm::ALL {
        let servers = (0..4)
            .map(|i| server(&format!("s{i}"), 0, i == 3))
            .collect();
        let mut pools = pools(*algorithm, servers, None);
        let mut tried = Vec::new();
        while let Some(server) = pick(&mut pools, &tried) {
            assert!(!tried.contains(&ServerId::new(server)), "{algorithm}");
            tried.push(ServerId::new(server));
        }
        assert_eq!(tried.len(), 4, "{algorithm}");
    }
}

#[test]
fn counts_of_the_pool_return_to_zero_however_it_changes_meanwhile() {
    let process = Process::new();
    let count = || process.pool.connections();
    let servers = || plain(&["a", "b"]);
    let bounded = config(Algorithm::IpHash, servers(), Some(1.25));
    let unbounded = config(Algorithm::IpHash, servers(), None);
    let mut pools = empty();
    pools.install(process.pool(&bounded, &[0, 1]), Now::default());
    let picked: Vec<_> = (0..10).map(|_| pick(&mut pools, &[]).unwrap()).collect();
    assert!(
        picked.contains(&0) && picked.contains(&1),
        "one client overflows its server"
    );
    assert_eq!(count(), 10);
    pools.install(process.pool(&unbounded, &[0, 1]), Now::default());
    assert_eq!(count(), 0);
    pools.install(process.pool(&bounded, &[0, 1]), Now::default());
    assert_eq!(count(), 10);
    let alone = config(Algorithm::IpHash, plain(&["b"]), Some(1.25));
    pools.install(process.pool(&alone, &[1]), Now::default());
    let of_b = picked.iter().filter(|server| **server == 1).count();
    assert_eq!(
        count() as usize,
        of_b,
        "who has left is no part of the load"
    );
    for server in picked {
        pools.release(ServerId::new(server));
    }
    assert_eq!(count(), 0);
    assert!(
        process
            .servers
            .iter()
            .all(|server| server.connections() == 0)
    );
}

#[test]
fn each_worker_begins_at_another_server() {
    let config = config(Algorithm::RoundRobin, plain(&["a", "b", "c"]), None);
    let pool = Process::new().pool(&config, &[0, 1, 2]);
    let firsts = [0, 1, 2].map(|worker| {
        let mut pools = Pools::new(worker, Ledger::new(3, u32::MAX));
        pools.install(pool.clone(), Now::default());
        pick(&mut pools, &[])
    });
    assert_eq!(firsts, [Some(0), Some(1), Some(2)]);
}

#[test]
fn a_checked_server_is_up_when_a_verdict_says_so_also_one_that_came_before_the_pool() {
    let process = Process::new();
    let config = checked(config(Algorithm::First, plain(&["a", "b"]), None));
    let mut pools = empty();
    pools.apply(verdict(1, true), Now::default());
    pools.install(process.pool(&config, &[0, 1]), Now::default());
    assert_eq!(
        pick(&mut pools, &[]),
        Some(1),
        "nobody has spoken of the other"
    );
    pools.apply(verdict(0, true), Now::default());
    assert_eq!(pick(&mut pools, &[]), Some(0));
    // A reload changes nothing of what is known.
    pools.apply(verdict(0, false), Now::default());
    pools.install(process.pool(&config, &[0, 1]), Now::default());
    assert_eq!(pick(&mut pools, &[]), Some(1));
}

#[test]
fn verdicts_mean_nothing_to_a_pool_without_checks() {
    let process = Process::new();
    let unchecked = config(Algorithm::First, plain(&["a", "b"]), None);
    let with_checks = checked(unchecked.clone());
    let mut pools = empty();
    pools.apply(verdict(0, false), Now::default());
    pools.install(process.pool(&unchecked, &[0, 1]), Now::default());
    assert_eq!(pick(&mut pools, &[]), Some(0));
    pools.apply(verdict(0, false), Now::default());
    assert_eq!(pick(&mut pools, &[]), Some(0), "too late to count");
    // Where checks begin again, old verdicts are forgotten; one that came just before is not.
    pools.install(process.pool(&with_checks, &[0, 1]), Now::default());
    pools.apply(verdict(0, true), Now::default());
    pools.install(process.pool(&unchecked, &[0, 1]), Now::default());
    pools.apply(verdict(1, true), Now::default());
    pools.install(process.pool(&with_checks, &[0, 1]), Now::default());
    assert_eq!(pick(&mut pools, &[]), Some(1));
}

#[test]
fn a_closed_server_gets_nobody_new() {
    let process = Process::new();
    let config = config(Algorithm::First, plain(&["a", "b"]), None);
    let member = |(id, is_open)| Member {
        id: ServerId::new(id),
        tally: Arc::clone(&process.servers[id]),
        is_open,
    };
    let members = [(0, false), (1, true)].map(member).to_vec();
    let mut pools = empty();
    pools.install(
        Pool::new(pool_id(), &config, Arc::clone(&process.pool), members),
        Now::default(),
    );
    assert_eq!(pick(&mut pools, &[]), Some(1));
    assert_eq!(pick(&mut pools, &[ServerId::new(1)]), None);
}

#[test]
fn turns_go_on_through_a_change_of_weights_and_begin_anew_with_other_servers() {
    let process = Process::new();
    let names = ["a", "b", "c"];
    let mut config = config(Algorithm::RoundRobin, plain(&names), None);
    let mut pools = empty();
    pools.install(process.pool(&config, &[0, 1, 2]), Now::default());
    assert_eq!(pick(&mut pools, &[]), Some(0));
    pools.install(process.pool(&config, &[0, 1, 2]), Now::default());
    assert_eq!(pick(&mut pools, &[]), Some(1));
    config.servers[0].weight = 3;
    pools.install(process.pool(&config, &[0, 1, 2]), Now::default());
    let picks: Vec<_> = (0..5).map(|_| pick(&mut pools, &[]).unwrap()).collect();
    let of_a = picks.iter().filter(|server| **server == 0).count();
    assert_eq!(of_a, 3, "the new weights: {picks:?}");
    config.servers[0].weight = 1;
    pools.install(process.pool(&config, &[3, 1, 2]), Now::default());
    let picks: Vec<_> = (0..3).map(|_| pick(&mut pools, &[]).unwrap()).collect();
    assert_eq!(picks, [3, 1, 2]);
}

#[test]
fn an_ip_hash_follows_the_new_weights() {
    let process = Process::new();
    let mut config = config(Algorithm::IpHash, plain(&["a", "b"]), None);
    let mut pools = empty();
    pools.install(process.pool(&config, &[0, 1]), Now::default());
    let first = pick(&mut pools, &[]).unwrap();
    assert_eq!(pick(&mut pools, &[]), Some(first));
    let kept = process.pool(&config, &[0, 1]);
    config.servers[first].weight = 0;
    let members = |is_open: [bool; 2]| {
        let member = |id| Member {
            id: ServerId::new(id),
            tally: Arc::clone(&process.servers[id]),
            is_open: is_open[id],
        };
        [0, 1].map(member).to_vec()
    };
    let kept = kept.renew(&config, members([true, true]));
    pools.install(kept.clone(), Now::default());
    assert_eq!(pick(&mut pools, &[]), Some(1 - first));
    // Without another table, who is open still counts.
    pools.install(
        kept.renew(&config, members([first == 1, first == 0])),
        Now::default(),
    );
    assert_eq!(pick(&mut pools, &[]), Some(1 - first));
    pools.install(kept.renew(&config, members([false, false])), Now::default());
    assert_eq!(pick(&mut pools, &[]), None);
}

#[test]
fn a_removed_server_is_released_and_known_until_it_is_forgotten() {
    let process = Process::new();
    let mut pools = empty();
    let one = |name: &str| config(Algorithm::First, plain(&[name]), None);
    pools.install(process.pool(&one("a"), &[0]), Now::default());
    let server = ServerId::new(pick(&mut pools, &[]).unwrap());
    pools.install(process.pool(&one("b"), &[1]), Now::default());
    assert_eq!(pick(&mut pools, &[]), Some(1));
    pools.forget(&[server, ServerId::new(1)]);
    assert!(pools.address(server).is_some(), "it is still connected to");
    assert_eq!(process.servers[0].connections(), 1);
    pools.release(server);
    assert_eq!(process.servers[0].connections(), 0);
    pools.forget(&[server]);
    assert_eq!(pools.address(server), None);
    assert!(
        pools.tally(ServerId::new(1)).is_some(),
        "it is in a pool and was picked"
    );
}

#[test]
fn a_pool_that_is_gone_picks_nobody_and_its_servers_are_released() {
    let process = Process::new();
    let mut pools = empty();
    assert_eq!(pick(&mut pools, &[]), None, "there never was one");
    pools.install(
        process.pool(&config(Algorithm::First, plain(&["a"]), Some(1.5)), &[0]),
        Now::default(),
    );
    let server = ServerId::new(pick(&mut pools, &[]).unwrap());
    pools.remove(pool_id());
    assert_eq!(pick(&mut pools, &[]), None);
    assert_eq!(
        (pools.retries(pool_id()), pools.connect_timeout(pool_id())),
        (0, Duration::ZERO)
    );
    pools.apply(verdict(0, false), Now::default());
    pools.observe_connect(server, Duration::ZERO, Now::default());
    pools.release(server);
    assert_eq!(process.pool.connections(), 0);
    assert_eq!(process.servers[0].connections(), 0);
}

#[test]
fn how_quickly_a_server_accepts_is_remembered_through_changes() {
    let process = Process::new();
    let config = config(Algorithm::LeastTime, plain(&["a", "b"]), None);
    let mut pools = empty();
    pools.install(process.pool(&config, &[0, 1]), Now::default());
    pools.observe_connect(ServerId::new(0), Duration::from_secs(1), Now::default());
    pools.observe_connect(ServerId::new(1), Duration::from_millis(1), Now::default());
    pools.install(process.pool(&config, &[0, 1]), Now::default());
    for _ in 0..4 {
        assert_eq!(pick(&mut pools, &[]), Some(1));
        pools.release(ServerId::new(1));
    }
}

#[test]
fn a_server_that_comes_back_is_picked_when_it_has_been_checked_anew() {
    let process = Process::new();
    let both = checked(config(Algorithm::RoundRobin, plain(&["a", "b"]), None));
    let one = checked(config(Algorithm::RoundRobin, plain(&["a"]), None));
    let mut pools = empty();
    pools.install(process.pool(&both, &[0, 1]), Now::default());
    pools.apply(verdict(0, false), Now::default());
    pools.apply(verdict(1, true), Now::default());
    assert_eq!(pick(&mut pools, &[]), Some(1));
    pools.install(process.pool(&one, &[0]), Now::default());
    pools.install(process.pool(&both, &[0, 1]), Now::default());
    assert_eq!(pick(&mut pools, &[]), None, "what was known of it is old");
    pools.apply(verdict(1, true), Now::default());
    assert_eq!(pick(&mut pools, &[]), Some(1));
}

#[test]
fn whatever_may_help_who_waits_stirs_the_pool() {
    let process = Process::new();
    let mut settings = checked(config(
        Algorithm::RoundRobin,
        vec![server("a", 1, false)],
        None,
    ));
    settings.queue.limit = 5;
    let mut pools = empty();
    let now = Now::default();
    pools.install(process.pool(&settings, &[0]), now);
    pools.apply(verdict(0, true), now);
    assert_eq!(pick(&mut pools, &[]), Some(0));
    pools.release(ServerId::new(0));
    assert!(!pools.is_stirred(), "nobody waits");

    assert_eq!(pick(&mut pools, &[]), Some(0));
    assert_eq!(pick(&mut pools, &[]), None);
    let waiter = queue::Waiter {
        worker: 0,
        slot: 0,
        generation: 0,
    };
    let (tally, rules) = pools.queue(pool_id()).unwrap();
    tally.queue().join(waiter, rules.limit).unwrap();
    let mut stirs = |change: &mut dyn FnMut(&mut Pools)| {
        change(&mut pools);
        pools.take_stirred() == [pool_id()]
    };
    assert!(stirs(&mut |pools| pools.release(ServerId::new(0))));
    assert!(stirs(&mut |pools| pools.apply(verdict(0, true), now)));
    assert!(stirs(&mut |pools| pools.reconsider(pool_id())));
    assert!(stirs(
        &mut |pools| pools.install(process.pool(&settings, &[0]), now)
    ));
    assert!(!stirs(&mut |_| {}));

    // Who was there before a reload took the queue away waits on.
    settings.queue.limit = 0;
    assert!(stirs(
        &mut |pools| pools.install(process.pool(&settings, &[0]), now)
    ));
    assert!(stirs(&mut |pools| {
        assert_eq!(pick(pools, &[]), Some(0));
        pools.release(ServerId::new(0));
    }));
}
