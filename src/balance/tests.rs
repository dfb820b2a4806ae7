//! What every algorithm must keep to, and the load that the tests of this folder share.

use proptest::prelude::*;

use super::*;

/// A load that a test sets by hand.
pub(super) struct Fake {
    pub(super) connections: Vec<u32>,
    pub(super) full: Vec<bool>,
    pub(super) connect_times: Vec<u64>,
}

impl Fake {
    /// Nothing held, nothing full, all equally quick.
    pub(super) fn new(servers: usize) -> Self {
        Self {
            connections: vec![0; servers],
            full: vec![false; servers],
            connect_times: vec![1_000_000; servers],
        }
    }
}

impl Load for Fake {
    fn connections(&self, server: usize) -> u32 {
        self.connections[server]
    }
    fn can_take(&self, server: usize) -> bool {
        !self.full[server]
    }
    fn connect_time(&self, server: usize) -> u64 {
        self.connect_times[server]
    }
    fn pool_connections(&self) -> u32 {
        self.connections.iter().sum()
    }
}

/// Eligible servers of these weights.
pub(super) fn candidates(weights: &[u32]) -> Vec<Candidate> {
    weights
        .iter()
        .map(|&weight| Candidate {
            weight,
            is_eligible: true,
        })
        .collect()
}

/// Each weight as often as it says.
pub(super) fn weights(runs: &[(u32, usize)]) -> Vec<u32> {
    runs.iter()
        .flat_map(|&(weight, count)| vec![weight; count])
        .collect()
}

fn picker(algorithm: Algorithm, weights: &[u32], bounded_load: Option<f64>) -> Picker {
    let names: Vec<_> = (0..weights.len())
        .map(|server| format!("server-{server}"))
        .collect();
    let members: Vec<_> = names
        .iter()
        .map(String::as_str)
        .zip(weights.to_vec())
        .collect();
    let mut picker = Picker::new(algorithm, &members, bounded_load);
    picker.set_candidates(&candidates(weights));
    picker
}

/// How many of `picks` each server got; `is_held` says whether connections stay.
fn shares(algorithm: Algorithm, weights: &[u32], picks: u32, is_held: bool) -> Vec<u32> {
    let mut picker = picker(algorithm, weights, None);
    let mut rng = fastrand::Rng::with_seed(7);
    let mut load = Fake::new(weights.len());
    let mut counts = vec![0; weights.len()];
    for _ in 0..picks {
        let client = rng.u64(..);
        let server = picker.pick(&load, client, &mut rng).unwrap().server;
        counts[server] += 1;
        load.connections[server] += u32::from(is_held);
    }
    counts
}

/// Each server's part of all picks is within one hundredth of what its weight says.
fn assert_by_weight(algorithm: Algorithm, weights: &[u32], is_held: bool) {
    const PICKS: u32 = 100_000;
    let counts = shares(algorithm, weights, PICKS, is_held);
    let total: u32 = weights.iter().sum();
    for (count, &weight) in counts.iter().zip(weights) {
        let ideal = f64::from(weight) / f64::from(total);
        let share = f64::from(*count) / f64::from(PICKS);
        assert!(
            (share - ideal).abs() <= 0.01,
            "{algorithm}: {counts:?} for {weights:?}"
        );
    }
}

#[test]
fn shares_follow_weights_in_an_idle_pool() {
    for weights in [
        &[5, 1, 1][..],
        &[1, 2, 3, 4],
        &[0, 256, 128, 1, 1],
        &[1; 10],
    ] {
        for algorithm in [
            Algorithm::RoundRobin,
            Algorithm::LeastConnections,
            Algorithm::PowerOfTwo,
            Algorithm::Random,
            Algorithm::IpHash,
            Algorithm::LeastTime,
        ] {
            assert_by_weight(algorithm, weights, false);
        }
    }
}

#[test]
fn shares_follow_weights_while_connections_are_held() {
    for weights in [
        &[5, 1, 1][..],
        &[1, 2, 3, 4],
        &[0, 256, 128, 1, 1],
        &[1; 10],
    ] {
        for algorithm in [
            Algorithm::RoundRobin,
            Algorithm::LeastConnections,
            Algorithm::PowerOfTwo,
            Algorithm::Random,
            Algorithm::LeastTime,
        ] {
            assert_by_weight(algorithm, weights, true);
        }
    }
}

#[test]
fn two_choices_keep_the_fullest_lower_than_chance_does() {
    // 10^4 balls into 10^3 bins: the mean is 10.
    let fullest = |algorithm| {
        shares(algorithm, &[1; 1000], 10_000, true)
            .into_iter()
            .max()
    };
    let (random, two) = (fullest(Algorithm::Random), fullest(Algorithm::PowerOfTwo));
    assert!(two <= Some(14), "{two:?}");
    assert!(random >= Some(18), "{random:?}");
}

#[test]
fn names_are_read_back() {
    for &algorithm in Algorithm::ALL {
        assert_eq!(algorithm.name().parse(), Ok(algorithm));
    }
    assert_eq!(Algorithm::default().to_string(), "least_connections");
}

#[test]
fn a_wrong_name_is_told_the_right_ones() {
    let message = "Random".parse::<Algorithm>().unwrap_err().to_string();
    assert_eq!(
        message,
        "`Random` is no algorithm; write one of round_robin, least_connections, power_of_two, \
         random, ip_hash, least_time, first"
    );
}

#[test]
fn nothing_is_picked_before_candidates_are_known() {
    for &algorithm in Algorithm::ALL {
        let mut picker = Picker::new(algorithm, &[("a", 1)], None);
        let pick = picker.pick(&Fake::new(1), 0, &mut fastrand::Rng::with_seed(1));
        assert_eq!(pick, None, "{algorithm}");
    }
}

/// A server of the property test below, and what it changes to.
#[derive(Clone, Debug)]
struct Server {
    weight: u32,
    is_eligible: bool,
    is_full: bool,
    connections: u32,
    connect_time: u64,
}

fn server() -> impl Strategy<Value = Server> {
    (0_u32..4, any::<bool>(), 0..3, 0_u32..50, 0_u64..5).prop_map(
        |(weight, is_eligible, full, connections, connect_time)| Server {
            weight: weight * weight,
            is_eligible,
            is_full: full > 0,
            connections,
            connect_time,
        },
    )
}

proptest! {
    /// Whatever is down, full or without weight, through changes of all of it.
    #[test]
    fn picks_only_what_can_take_and_none_only_where_none_can(
        size in prop_oneof![1_usize..8, 60_usize..150],
        phases in prop::collection::vec(prop::collection::vec(server(), 150), 1..4),
        bounded_load in prop::option::of(1.0..2.0),
        seed in any::<u64>(),
    ) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let weights: Vec<u32> = phases[0][..size].iter().map(|server| server.weight).collect();
        for &algorithm in Algorithm::ALL {
            let mut picker = picker(algorithm, &weights, bounded_load);
            for servers in &phases {
                let servers = &servers[..size];
                let all: Vec<_> = servers
                    .iter()
                    .map(|s| Candidate { weight: s.weight, is_eligible: s.is_eligible })
                    .collect();
                picker.set_candidates(&all);
                let load = Fake {
                    connections: servers.iter().map(|s| s.connections).collect(),
                    full: servers.iter().map(|s| s.is_full).collect(),
                    connect_times: servers.iter().map(|s| s.connect_time).collect(),
                };
                let is_able = |server: usize| all[server].share() > 0 && !load.full[server];
                for _ in 0..20 {
                    let client = rng.u64(..);
                    let pick = picker.pick(&load, client, &mut rng);
                    prop_assert_eq!(pick.is_some(), (0..size).any(is_able), "{}", algorithm);
                    if let Some(Pick { server, connections }) = pick {
                        prop_assert!(is_able(server), "{} picked {}", algorithm, server);
                        prop_assert!(connections.is_none_or(|n| n == load.connections[server]));
                    }
                }
            }
        }
    }
}
