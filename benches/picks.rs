//! What a pick costs: each algorithm at 10, 1,000 and 10,000 servers, in nanoseconds.
//!
//! `cargo bench --bench picks`. Counts are as workers share them: one cache-padded atomic a server,
//! side by side in memory. The pool holds two connections a server throughout: before each pick one
//! of them, at random, ends, and after it the picked server's count is raised. The figure is the
//! median of several rounds and includes both.
#![allow(missing_docs, reason = "a program, not a library")]

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crossbeam_utils::CachePadded;
use evenkeel::balance::{Algorithm, Candidate, Load, Picker};

const SIZES: [usize; 3] = [10, 1_000, 10_000];
/// Many short rounds, so that most are not interrupted even where the machine has other work.
const ROUNDS: usize = 301;
/// Before those, so that caches and loads have settled.
const WARM_UP: usize = 30;
/// A round takes about half a millisecond: so many servers are looked at where a pick looks at all
/// of them, else a twentieth of that many picks are made.
const LOOKS: usize = 400_000;

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
    /// By index of the server and size of the pool.
    is_full: fn(usize, usize) -> bool,
}

impl Case {
    fn new(label: &'static str, algorithm: Algorithm) -> Self {
        Self {
            label,
            algorithm,
            weight: |_| 1,
            bounded_load: None,
            is_full: |_, _| false,
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
            is_full: |server, _| server % 2 == 0,
            ..Case::new(label, algorithm)
        });
    }
    let bounded = Case::new("ip_hash, bounded_load 1.25", Algorithm::IpHash);
    cases.push(Case {
        bounded_load: Some(1.25),
        ..bounded
    });
    let first = Case::new("first, all but the last full", Algorithm::First);
    cases.push(Case {
        is_full: |server, size| server + 1 < size,
        ..first
    });
    cases
}

/// Holds two connections, but for one that is full.
fn server(index: usize, is_full: bool) -> CachePadded<Server> {
    CachePadded::new(Server {
        connections: AtomicU32::new(2),
        max_connections: if is_full { 2 } else { u32::MAX },
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
    let is_full = |server| (case.is_full)(server, size);
    let pool = Pool(
        (0..size)
            .map(|index| server(index, is_full(index)))
            .collect(),
    );
    // Two connections each, one by one; those of full servers never end.
    let open = || (0..size).filter(|&server| !is_full(server));
    let mut held: Vec<_> = open().chain(open()).collect();
    let mut picker = Picker::new(case.algorithm, &members, case.bounded_load);
    picker.set_candidates(&candidates);
    let mut rng = fastrand::Rng::with_seed(1);

    let looks_at_all = matches!(
        case.algorithm,
        Algorithm::LeastConnections | Algorithm::First
    );
    let picks = if looks_at_all {
        LOOKS / size
    } else {
        LOOKS / 20
    };
    let mut rounds: Vec<f64> = (0..WARM_UP + ROUNDS)
        .map(|_| round(&mut picker, &pool, &mut rng, &mut held, picks))
        .skip(WARM_UP)
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn round(
    picker: &mut Picker,
    pool: &Pool,
    rng: &mut fastrand::Rng,
    held: &mut [usize],
    picks: usize,
) -> f64 {
    #[allow(
        clippy::disallowed_methods,
        reason = "a benchmark is there to measure time"
    )]
    let start = Instant::now();
    for _ in 0..picks {
        let place = rng.usize(..held.len());
        pool.0[held[place]]
            .connections
            .fetch_sub(1, Ordering::Relaxed);
        let client = rng.u64(..);
        let pick = black_box(picker.pick(pool, client, rng)).expect("one server has room");
        pool.0[pick.server]
            .connections
            .fetch_add(1, Ordering::Relaxed);
        held[place] = pick.server;
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
