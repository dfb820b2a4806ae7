//! What `allow` and `deny` cost: building a set of networks off the workers, in milliseconds, and a
//! lookup with each connection, in nanoseconds, at 100 to 1,000,000 networks.
//!
//! `cargo bench --bench networks`. Networks are random prefixes of 16 to 32 bits, or 32 to 64 in IPv6; half
//! of the addresses that are looked up are in one of them. The figures are medians of several rounds.
#![allow(missing_docs, reason = "a program, not a library")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use evenkeel::admission::Networks;
use fastrand::Rng;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const SIZES: [usize; 4] = [100, 10_000, 100_000, 1_000_000];
const ROUNDS: usize = 11;
const LOOKUPS: usize = 200_000;

fn v4(rng: &mut Rng) -> IpNet {
    let address = Ipv4Addr::from_bits(rng.u32(..));
    Ipv4Net::new(address, rng.u8(16..=32))
        .expect("at most 32")
        .into()
}

fn v6(rng: &mut Rng) -> IpNet {
    let address = Ipv6Addr::from_bits(rng.u128(..));
    Ipv6Net::new(address, rng.u8(32..=64))
        .expect("at most 128")
        .into()
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    #[allow(
        clippy::disallowed_methods,
        reason = "a benchmark is there to measure time"
    )]
    let start = Instant::now();
    let outcome = work();
    (start.elapsed(), outcome)
}

fn median(mut rounds: Vec<Duration>) -> f64 {
    rounds.sort();
    rounds[rounds.len() / 2].as_secs_f64()
}

/// Half of them in one of the networks, the others anywhere.
fn addresses(networks: &[IpNet], rng: &mut Rng) -> Vec<IpAddr> {
    let address = |rng: &mut Rng| match (networks[rng.usize(..networks.len())], rng.bool()) {
        (network, true) => network.addr(),
        (IpNet::V4(_), false) => Ipv4Addr::from_bits(rng.u32(..)).into(),
        (IpNet::V6(_), false) => Ipv6Addr::from_bits(rng.u128(..)).into(),
    };
    (0..LOOKUPS).map(|_| address(rng)).collect()
}

/// Milliseconds to build, nanoseconds a lookup.
fn measure(size: usize, make: fn(&mut Rng) -> IpNet) -> (f64, f64) {
    let mut rng = Rng::with_seed(1);
    let list: Vec<_> = (0..size).map(|_| make(&mut rng)).collect();
    let probes = addresses(&list, &mut rng);
    let (mut builds, mut lookups) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (took, set) = timed(|| Networks::new(list.iter().copied()));
        builds.push(took);
        let all = || probes.iter().filter(|it| set.contains(**it)).count();
        let (took, found) = timed(all);
        assert!(black_box(found) >= LOOKUPS / 3);
        lookups.push(took / u32::try_from(LOOKUPS).expect("a small number"));
    }
    (median(builds) * 1e3, median(lookups) * 1e9)
}

fn main() {
    println!("| networks | IPv4 built, ms | lookup, ns | IPv6 built, ms | lookup, ns |");
    println!("|---:|---:|---:|---:|---:|");
    for size in SIZES {
        let (v4, v6) = (measure(size, v4), measure(size, v6));
        println!(
            "| {size} | {:.2} | {:.0} | {:.2} | {:.0} |",
            v4.0, v4.1, v6.0, v6.1
        );
    }
}
