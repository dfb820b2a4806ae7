//! Sources counted by one and by many threads, in made-up time.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::AtomicU32;
use std::thread;
use std::time::Duration;

fn limits(connections_max: u32, rate: Option<&str>) -> PerSource {
    PerSource {
        connections_max: NonZeroU32::new(connections_max),
        pace: rate.map(|rate| Pace::of(rate.parse().unwrap())),
        ipv4_prefix: 32,
        ipv6_prefix: 64,
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn numbered(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

const NOW: Now = Now::from_nanoseconds(1_000_000_000);

#[test]
fn without_a_limit_nothing_is_allocated() {
    let sources = Sources::default();
    let free = sources.admit(numbered(1), &limits(0, None), NOW);
    assert_eq!(free, Ok(None));
    assert!(sources.0.get().is_none() && sources.count() == 0);
}

#[test]
fn a_place_that_is_given_back_is_free_for_the_next_one() {
    let (sources, limits) = (Sources::default(), limits(2, None));
    let one = sources.admit(numbered(1), &limits, NOW).unwrap().unwrap();
    let _two = sources.admit(numbered(1), &limits, NOW).unwrap().unwrap();
    let third = sources.admit(numbered(1), &limits, NOW);
    assert_eq!(third, Err(Refused::Full));
    assert!(sources.admit(numbered(2), &limits, NOW).is_ok());
    sources.release(numbered(1), one, NOW);
    assert!(sources.admit(numbered(1), &limits, NOW).is_ok());
}

#[test]
fn a_source_is_an_address_cut_to_a_prefix() {
    let mut limits = limits(1, None);
    limits.ipv4_prefix = 24;
    for (one, other, are_one) in [
        ("192.0.2.1", "192.0.2.255", true),
        ("192.0.2.1", "192.0.3.1", false),
        ("192.0.2.1", "::ffff:192.0.2.9", true),
        ("2001:db8::1", "2001:db8::ffff:1", true),
        ("2001:db8::1", "2001:db8:0:1::1", false),
        ("::1", "0.0.0.0", false),
    ] {
        let sources = Sources::default();
        let _place = sources.admit(address(one), &limits, NOW).unwrap();
        let second = sources.admit(address(other), &limits, NOW);
        assert_eq!(second == Err(Refused::Full), are_one, "{one} {other}");
    }
}

#[test]
fn a_place_is_given_back_where_it_was_taken_whatever_the_prefix_is_by_then() {
    for (ipv4_prefix, ipv6_prefix) in [(0, 0), (8, 128), (32, 1)] {
        let sources = Sources::default();
        let limits = PerSource {
            ipv4_prefix,
            ipv6_prefix,
            ..limits(1, None)
        };
        for address in ["10.1.2.3", "2001:db8::1"].map(address) {
            let place = sources.admit(address, &limits, NOW).unwrap().unwrap();
            sources.release(address, place, NOW);
        }
        assert_eq!(sources.count(), 0);
    }
}

#[test]
fn who_is_refused_takes_no_token() {
    let (sources, both) = (Sources::default(), limits(1, Some("2/s")));
    let place = sources.admit(numbered(1), &both, NOW).unwrap().unwrap();
    for _ in 0..10 {
        let full = sources.admit(numbered(1), &both, NOW);
        assert_eq!(full, Err(Refused::Full));
    }
    sources.release(numbered(1), place, NOW);
    let _second = sources.admit(numbered(1), &both, NOW).unwrap();
    let third = sources.admit(numbered(1), &both, NOW);
    assert_eq!(third, Err(Refused::Rate));
    let soon = NOW + Duration::from_millis(500);
    let third = sources.admit(numbered(1), &limits(9, Some("2/s")), soon);
    assert!(third.is_ok(), "tries in vain cost nothing");
}

#[test]
fn a_reload_with_a_faster_rate_lets_in_who_waited_for_the_slow_one() {
    let (sources, slow) = (Sources::default(), limits(0, Some("5/h")));
    let come = |limits: &PerSource, now| sources.admit(numbered(1), limits, now).is_ok();
    assert!(come(&slow, NOW) && !come(&slow, NOW));
    let fast = limits(0, Some("10/s"));
    assert!(!come(&fast, NOW));
    assert!(come(&fast, NOW + Duration::from_millis(100)));
}

#[test]
fn a_flood_of_sources_is_bounded_and_forgotten() {
    let (sources, limits) = (Sources::default(), limits(0, Some("5/h")));
    let flood = 2 * u32::try_from(IDLE_MAX).unwrap();
    for number in 0..flood {
        let place = sources.admit(numbered(number), &limits, NOW);
        assert_eq!(place, Ok(None), "who is new is not refused");
    }
    assert_eq!(sources.count(), IDLE_MAX);
    let later = NOW + Duration::from_secs(3600);
    // One client alone does it, refused or not.
    for _ in 0..flood / 4 {
        sources.admit(numbered(0), &limits, later).unwrap_or(None);
    }
    assert_eq!(sources.count(), 1);
}

#[test]
fn no_worker_lets_more_in_than_all_may() {
    let sources = Sources::default();
    let held: [_; 4] = std::array::from_fn(|_| AtomicU32::new(0));
    thread::scope(|scope| {
        for seed in 0..16 {
            let (sources, held) = (&sources, &held);
            scope.spawn(move || come_and_go(sources, held, seed));
        }
    });
    assert_eq!(sources.count(), 0);
}

/// Takes and gives back places, and looks that there are never more than seven.
fn come_and_go(sources: &Sources, held: &[AtomicU32; 4], seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..5_000 {
        let number = random.u32(0..4);
        let place = sources.admit(numbered(number), &limits(7, None), NOW);
        let Ok(Some(place)) = place else { continue };
        let before = held[number as usize].fetch_add(1, Relaxed);
        assert!(before < 7);
        if random.bool() {
            thread::yield_now();
        }
        held[number as usize].fetch_sub(1, Relaxed);
        sources.release(numbered(number), place, NOW);
    }
}

#[test]
fn no_worker_gives_more_tokens_than_there_are() {
    let (sources, limits) = (Sources::default(), limits(0, Some("100/s")));
    let got = AtomicU32::new(0);
    // Each thread has its own clock; they agree where it ends.
    let come_for_a_while = || {
        for tick in 0..=900 {
            let now = NOW + Duration::from_millis(tick);
            let come = sources.admit(numbered(1), &limits, now);
            got.fetch_add(u32::from(come.is_ok()), Relaxed);
        }
    };
    thread::scope(|scope| [(); 4].map(|()| drop(scope.spawn(come_for_a_while))));
    assert_eq!(got.into_inner(), 190, "a full bucket and 900 ms worth");
}

proptest! {
    #[test]
    fn counts_are_those_of_a_map_and_nothing_leaks(
        steps in proptest::collection::vec((0_u32..20, any::<bool>(), 0_u64..3), 1..300),
    ) {
        let (sources, limits) = (Sources::default(), limits(3, Some("4/s")));
        let mut held: HashMap<u32, Vec<Place>> = HashMap::new();
        let mut now = NOW;
        for (number, comes, passed) in steps {
            now = now + Duration::from_millis(100 * passed);
            let mine = held.entry(number).or_default();
            if !comes {
                if let Some(place) = mine.pop() {
                    sources.release(numbered(number), place, now);
                }
                continue;
            }
            match sources.admit(numbered(number), &limits, now) {
                Ok(place) => mine.push(place.unwrap()),
                Err(Refused::Full) => prop_assert_eq!(mine.len(), 3),
                Err(Refused::Rate) => {}
            }
            prop_assert!(mine.len() <= 3);
        }
        for (number, places) in held {
            for place in places {
                sources.release(numbered(number), place, now);
            }
        }
        let later = now + Duration::from_secs(2);
        for _ in 0..SHARDS * 4 {
            sources.admit(numbered(99), &limits, later).map(|place| {
                place.map(|place| sources.release(numbered(99), place, later))
            }).unwrap_or(None);
        }
        prop_assert!(sources.count() <= 1);
    }
}
