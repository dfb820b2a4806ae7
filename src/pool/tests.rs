//! Picks through the ledger: tiers, maxima, retries, verdicts.

use std::num::NonZeroU32;
use std::time::Duration;

use super::*;
use crate::balance::Algorithm;

fn server(name: &str, max: u32, backup: bool) -> config::Server {
    config::Server {
        name: name.into(),
        address: "127.0.0.1:9001".parse().unwrap(),
        weight: 1,
        max_connections: NonZeroU32::new(max),
        backup,
    }
}

fn pools(algorithm: Algorithm, servers: Vec<config::Server>, bounded_load: Option<f64>) -> Pools {
    let pool = config::Pool {
        name: "web".into(),
        algorithm,
        hash: config::Hash {
            ipv4_prefix: 32,
            ipv6_prefix: 64,
            bounded_load,
        },
        connect_timeout: Duration::from_secs(2),
        retries: 2,
        on_down: config::OnDown::Keep,
        health: None,
        servers,
    };
    let config = config::Config {
        workers: None,
        max_connections: None,
        shutdown_timeout: Duration::ZERO,
        admin: config::Admin::default(),
        log: config::Log {
            level: log::LevelFilter::Info,
            access: config::AccessLog::Off,
            format: config::LogFormat::Text,
        },
        listeners: Vec::new(),
        pools: vec![pool],
    };
    let servers = config.pools[0].servers.len();
    Pools::new(&config, Ledger::new(servers, 1, 1, u32::MAX))
}

fn pick(pools: &mut Pools, tried: &[ServerId]) -> Option<usize> {
    let client = "127.0.0.1".parse().unwrap();
    let ask = Ask {
        client,
        tried,
        now: Now::default(),
    };
    let server = pools.pick(PoolId::new(0), &ask, &mut fastrand::Rng::with_seed(1));
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
    let mut pools = pools(Algorithm::RoundRobin, servers, None);
    assert_eq!(pick(&mut pools, &[]), Some(0));
    assert_eq!(pick(&mut pools, &[ServerId::new(0)]), Some(1));
    pools.apply(Verdict {
        server: ServerId::new(0),
        is_up: false,
    });
    assert_eq!(pick(&mut pools, &[]), Some(1));
    pools.apply(Verdict {
        server: ServerId::new(0),
        is_up: true,
    });
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
fn counts_of_the_pool_return_to_zero() {
    let servers = vec![server("a", 0, false), server("b", 0, false)];
    let mut pools = pools(Algorithm::IpHash, servers, Some(1.25));
    let picked: Vec<_> = (0..10).map(|_| pick(&mut pools, &[]).unwrap()).collect();
    assert!(
        picked.contains(&0) && picked.contains(&1),
        "one client overflows its server"
    );
    assert_eq!(pools.ledger().pool_connections(PoolId::new(0)), 10);
    for server in picked {
        pools.release(ServerId::new(server));
    }
    assert_eq!(pools.ledger().pool_connections(PoolId::new(0)), 0);
}

#[test]
fn each_worker_begins_at_another_server() {
    let servers = (0..3).map(|i| server(&format!("s{i}"), 0, false)).collect();
    let pools = pools(Algorithm::RoundRobin, servers, None);
    let firsts = [0, 1, 2].map(|worker| pick(&mut pools.clone().for_worker(worker), &[]));
    assert_eq!(firsts, [Some(0), Some(1), Some(2)]);
}
