//! What a pick costs: each algorithm at 10, 1,000 and 10,000 servers, in nanoseconds.
//!
//! `cargo bench --bench picks`. Counts are as workers share them: one cache-padded atomic a server,
//! side by side in memory. Each pick raises its server's count and lowers that of a pick made
//! earlier, so that the pool holds two connections a server throughout. The figure is the median of
//! several rounds and includes that raising and lowering.
#![allow(missing_docs, reason = "a program, not a library")]

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crossbeam_utils::CachePadded;
use evenkeel::balance::{Algorithm, Candidate, Load, Picker};

const SIZES: [usize; 3] = [10, 1_000, 10_000];
const ROUNDS: usize = 9;
/// Each round looks at about this many servers where a pick looks at all of them.
const LOOKS: usize = 20_000_000;
const MAX_CONNECTIONS: u32 = 1_000;

/// What a worker shares about a server; all that a pick reads of it is in one line.
struct Server {
    connections: AtomicU32,
    max_connections: u32,
    connect_time: u64,
}

struct Pool(Vec<CachePadded<Server>>);

impl Load for Pool {
    #[inline]
    fn connections(&self, server: usize) -> u32 {
        self.0[server].connections.load(Ordering::Relaxed)
    }
    #[inline]
    fn can_take(&self, server: usize) -> bool {
        self.connections(server) < self.0[server].max_connections
    }
    #[inline]
    fn connect_time(&self, server: usize) -> u64 {
        self.0[server].connect_time
    }
    fn pool_connections(&self) -> u32 {
        u32::try_from(self.0.len() * 2).unwrap_or(u32::MAX)
    }
}

/// A row of the table.
struct Case {
    label: &'static str,
    algorithm: Algorithm,
    /// By index of the server.
    weight: fn(u32) -> u32,
    bounded_load: Option<f64>,
    /// One in so many servers has no room; 0 for none.
    full: usize,
}

impl Case {
    fn new(label: &'static str, algorithm: Algorithm) -> Self {
        Self {
            label,
            algorithm,
            weight: |_| 1,
            bounded_load: None,
            full: 0,
        }
    }
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<_> = Algorithm::ALL
        .iter()
        .map(|a| Case::new(a.name(), *a))
        .collect();
    for (label, algorithm) in [
        ("round_robin, weights 1..=256", Algorithm::RoundRobin),
        (
            "least_connections, weights 1..=256",
            Algorithm::LeastConnections,
        ),
        ("power_of_two, weights 1..=256", Algorithm::PowerOfTwo),
    ] {
        cases.push(Case {
            weight: |server| 1 + server % 256,
            ..Case::new(label, algorithm)
        });
    }
    for (label, algorithm) in [
        ("round_robin, half full", Algorithm::RoundRobin),
        ("random, half full", Algorithm::Random),
        ("ip_hash, half full", Algorithm::IpHash),
    ] {
        cases.push(Case {
            full: 2,
            ..Case::new(label, algorithm)
        });
    }
    let bounded = Case::new("ip_hash, bounded_load 1.25", Algorithm::IpHash);
    cases.push(Case {
        bounded_load: Some(1.25),
        ..bounded
    });
    cases
}

fn server(index: usize, case: &Case) -> CachePadded<Server> {
    let is_full = case.full > 0 && index.is_multiple_of(case.full);
    CachePadded::new(Server {
        connections: AtomicU32::new(0),
        max_connections: if is_full { 0 } else { MAX_CONNECTIONS },
        connect_time: 1_000_000 + index as u64 * 7_919 % 500_000,
    })
}

/// Nanoseconds a pick.
fn measure(case: &Case, size: usize) -> f64 {
    let names: Vec<_> = (0..size).map(|server| format!("server-{server}")).collect();
    let weights = (0..).map(case.weight);
    let members: Vec<_> = names.iter().map(String::as_str).zip(weights).collect();
    let candidates: Vec<_> = members
        .iter()
        .map(|&(_, weight)| Candidate {
            weight,
            is_eligible: true,
        })
        .collect();
    let pool = Pool((0..size).map(|index| server(index, case)).collect());
    let mut picker = Picker::new(case.algorithm, &members, case.bounded_load);
    picker.set_candidates(&candidates);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut held = vec![None; size * 2];

    let picks = if case.algorithm == Algorithm::LeastConnections {
        LOOKS / size
    } else {
        LOOKS / 20
    };
    let mut rounds: Vec<f64> = (0..=ROUNDS)
        .map(|_| round(&mut picker, &pool, &mut rng, &mut held, picks))
        .skip(1)
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn round(
    picker: &mut Picker,
    pool: &Pool,
    rng: &mut fastrand::Rng,
    held: &mut [Option<usize>],
    picks: usize,
) -> f64 {
    #[allow(
        clippy::disallowed_methods,
        reason = "a benchmark is there to measure time"
    )]
    let start = Instant::now();
    for pick in 0..picks {
        // The oldest ends, but for a few that stay or end out of turn, so that loads differ.
        let place = if pick % 8 == 0 {
            rng.usize(..held.len())
        } else {
            pick % held.len()
        };
        if let Some(server) = held[place].take() {
            pool.0[server].connections.fetch_sub(1, Ordering::Relaxed);
        }
        let client = rng.u64(..);
        if let Some(pick) = black_box(picker.pick(pool, client, rng)) {
            pool.0[pick.server]
                .connections
                .fetch_add(1, Ordering::Relaxed);
            held[place] = Some(pick.server);
        }
    }
    start.elapsed().as_secs_f64() * 1e9 / picks as f64
}

fn main() {
    println!("| ns a pick, at servers | 10 | 1,000 | 10,000 |");
    println!("|---|---:|---:|---:|");
    for case in cases() {
        print!("| {}", case.label);
        for size in SIZES {
            print!(" | {:.0}", measure(&case, size));
        }
        println!(" |");
    }
}
