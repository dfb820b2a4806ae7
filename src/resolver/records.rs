//! From DNS records to servers: both families of a name put together, and a service's targets with
//! their weights and priorities. Pure: records in, answers out.
//!
//! A family that could not be asked keeps what it said last. One that says "there is none" is
//! believed as soon as the other one has addresses: many name servers answer for one family only,
//! and an answer without any address never drops all that is known.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::Failure;
use crate::config::{Found, WEIGHT_MAX};

/// Addresses, or targets, of one answer that are taken: more is an attack or a mistake.
pub(super) const RECORDS_MAX: usize = 1000;

/// Looked at of one answer, with those that come twice.
const FOUND_MAX: usize = 32 * RECORDS_MAX;

/// What came of asking for one kind of record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome<T> {
    /// At least one.
    Records(Vec<T>),
    /// A definite answer, and why there is none.
    Nothing(&'static str),
    /// No answer, and why.
    Failed(String),
}

/// The last good answers for the names that one question leads to, IPv4 and IPv6.
#[derive(Debug, Default)]
pub(super) struct Memory(HashMap<String, [Vec<IpAddr>; 2]>);

impl Memory {
    /// The addresses of a name, of both families' `outcomes`, IPv4 first.
    pub(super) fn merge(
        &mut self,
        name: &str,
        outcomes: [Outcome<IpAddr>; 2],
    ) -> Result<Vec<IpAddr>, Failure> {
        let known = self.0.get(name).cloned().unwrap_or_default();
        if let Some(failure) = failure(&outcomes) {
            return Err(failure);
        }
        let mut merged = known;
        for (addresses, outcome) in merged.iter_mut().zip(outcomes) {
            match outcome {
                Outcome::Records(records) => *addresses = few(records),
                Outcome::Nothing(_) => addresses.clear(),
                Outcome::Failed(_) => {}
            }
        }
        let addresses = merged.concat();
        self.0.insert(name.to_owned(), merged);
        Ok(addresses)
    }

    /// What is known of a name.
    pub(super) fn recall(&self, name: &str) -> Vec<IpAddr> {
        self.0
            .get(name)
            .map(|known| known.concat())
            .unwrap_or_default()
    }

    /// Forgets all other names.
    pub(super) fn keep(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| is_kept(name));
    }
}

/// As many as are ever used: a thousand targets may each have an answer of 64 KiB.
fn few(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(RECORDS_MAX);
    addresses.shrink_to_fit();
    addresses
}

/// `None` where one of the families has addresses.
fn failure(outcomes: &[Outcome<IpAddr>; 2]) -> Option<Failure> {
    let mut reason = None;
    for outcome in outcomes {
        match outcome {
            Outcome::Records(_) => return None,
            // What failed says more than that the other family has nothing.
            Outcome::Failed(why) => reason = Some(why.clone()),
            Outcome::Nothing(why) => reason = reason.or_else(|| Some((*why).to_owned())),
        }
    }
    reason.map(Failure::new)
}

/// One target of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    /// The lower ones are asked first.
    pub(super) priority: u16,
    pub(super) name: String,
    pub(super) port: u16,
    /// Among targets of the same priority.
    pub(super) weight: u16,
}

/// The servers of one name, sorted and each once.
pub(super) fn of_host(addresses: Vec<IpAddr>, port: u16) -> Vec<Found> {
    let at = |ip: IpAddr| Found::at(SocketAddr::new(ip, port).into());
    bounded(addresses.into_iter().filter(is_usable).map(at).collect())
}

/// The servers of a service: targets of the lowest priority are ordinary, all others backup. Each
/// address of a target has the target's weight.
pub(super) fn of_service(
    targets: &[Target],
    addresses: impl Fn(&str) -> Vec<IpAddr>,
) -> Vec<Found> {
    let first = targets.iter().map(|target| target.priority).min();
    let heaviest = targets.iter().map(|target| target.weight).max();
    let all = targets.iter().flat_map(|target| {
        let weight = scaled(target.weight, heaviest.unwrap_or_default());
        let backup = Some(target.priority) != first;
        let addresses = addresses(&target.name).into_iter().filter(is_usable);
        addresses.map(move |ip| Found {
            weight: Some(weight),
            backup,
            ..Found::at(SocketAddr::new(ip, target.port).into())
        })
    });
    let all = all.filter(|found| found.address.ip().is_some_and(|ip| ip.port() != 0));
    bounded(all.take(FOUND_MAX).collect())
}

/// Weights of records go up to 65535; their proportions are kept as far as ours allow. A weight of 0
/// means "hardly ever" there, and never with us.
fn scaled(weight: u16, heaviest: u16) -> u32 {
    let (weight, heaviest) = (u32::from(weight), u32::from(heaviest));
    match heaviest > WEIGHT_MAX {
        true => (weight * WEIGHT_MAX / heaviest).max(1),
        false => weight.max(1),
    }
}

/// `0.0.0.0`, which blocking name servers answer, is no server but this machine; nor are groups.
fn is_usable(ip: &IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast()
}

/// An address that comes twice is the ordinary one, or else the heavier.
fn bounded(mut all: Vec<Found>) -> Vec<Found> {
    all.sort_by(|a, b| (&a.address, a.backup, b.weight).cmp(&(&b.address, b.backup, a.weight)));
    all.dedup_by(|later, first| later.address == first.address);
    all.truncate(RECORDS_MAX);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(all: &[&str]) -> Vec<IpAddr> {
        all.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn records(all: &[&str]) -> Outcome<IpAddr> {
        Outcome::Records(ips(all))
    }

    const NOTHING: Outcome<IpAddr> = Outcome::Nothing("no addresses");

    fn failed() -> Outcome<IpAddr> {
        Outcome::Failed("no answer".to_owned())
    }

    #[test]
    fn both_families_together_are_the_answer() {
        let mut memory = Memory::default();
        let merged = memory.merge("a", [records(&["10.0.0.1"]), records(&["::1"])]);
        assert_eq!(merged, Ok(ips(&["10.0.0.1", "::1"])));
        let merged = memory.merge("a", [records(&["10.0.0.2"]), NOTHING]);
        assert_eq!(merged, Ok(ips(&["10.0.0.2"])));
    }

    #[test]
    fn a_family_that_fails_keeps_what_it_said() {
        let mut memory = Memory::default();
        let merged = memory.merge("a", [records(&["10.0.0.1"]), failed()]);
        assert_eq!(merged, Ok(ips(&["10.0.0.1"])), "nothing was known of IPv6");
        memory
            .merge("a", [records(&["10.0.0.1"]), records(&["::1"])])
            .unwrap();
        let merged = memory.merge("a", [records(&["10.0.0.2"]), failed()]);
        assert_eq!(merged, Ok(ips(&["10.0.0.2", "::1"])));
        assert_eq!(memory.recall("a"), ips(&["10.0.0.2", "::1"]));
    }

    #[test]
    fn an_answer_without_addresses_is_a_failure_and_drops_nothing() {
        let mut memory = Memory::default();
        memory
            .merge("a", [records(&["10.0.0.1"]), records(&["::1"])])
            .unwrap();
        let reason = |merged: Result<_, Failure>| merged.unwrap_err().reason;
        assert_eq!(
            reason(memory.merge("a", [NOTHING, NOTHING])),
            "no addresses"
        );
        assert_eq!(reason(memory.merge("a", [NOTHING, failed()])), "no answer");
        assert_eq!(reason(memory.merge("a", [failed(), NOTHING])), "no answer");
        assert_eq!(memory.recall("a"), ips(&["10.0.0.1", "::1"]));
        memory.keep(|name| name != "a");
        assert!(memory.recall("a").is_empty());
    }

    #[test]
    fn what_is_kept_of_an_answer_is_bounded() {
        let many = |first: u32| {
            let all = (0..5000).rev();
            Outcome::Records(
                all.map(|n| std::net::Ipv4Addr::from(first + n).into())
                    .collect(),
            )
        };
        let mut memory = Memory::default();
        memory.merge("a", [many(0x0a00_0000), NOTHING]).unwrap();
        let kept = memory.recall("a");
        assert_eq!(kept.len(), RECORDS_MAX);
        // The same ones in whatever order they come.
        assert_eq!(kept[0], IpAddr::from([10, 0, 0, 0]));
        let targets = vec![target("a", 1, 1); RECORDS_MAX];
        let found = of_service(&targets, |name| memory.recall(name));
        assert_eq!(found.len(), RECORDS_MAX);
    }

    #[test]
    fn a_hosts_servers_are_sorted_and_bounded() {
        let found = of_host(
            ips(&["10.0.0.2", "0.0.0.0", "::1", "10.0.0.1", "10.0.0.2"]),
            80,
        );
        let shown: Vec<_> = found.iter().map(|f| f.address.to_string()).collect();
        assert_eq!(shown, ["10.0.0.1:80", "10.0.0.2:80", "[::1]:80"]);
        let many = (0..5000u32).map(|n| IpAddr::from(std::net::Ipv4Addr::from(n + 0x0a00_0000)));
        assert_eq!(of_host(many.collect(), 80).len(), RECORDS_MAX);
    }

    fn target(name: &str, priority: u16, weight: u16) -> Target {
        Target {
            priority,
            name: name.to_owned(),
            port: 80,
            weight,
        }
    }

    fn service(targets: &[Target]) -> Vec<(String, u32, bool)> {
        let found = of_service(targets, |name| ips(&name.split(',').collect::<Vec<_>>()));
        let row = |f: &Found| (f.address.to_string(), f.weight.unwrap(), f.backup);
        found.iter().map(row).collect()
    }

    #[test]
    fn a_services_weights_and_priorities_are_ours() {
        let rows = service(&[
            target("10.0.0.1", 10, 0),
            target("10.0.0.2,10.0.0.3", 10, 5),
            target("10.0.0.4", 20, 7),
            target("10.0.0.2", 20, 9),
        ]);
        let wanted = [
            ("10.0.0.1:80", 1, false),
            ("10.0.0.2:80", 5, false),
            ("10.0.0.3:80", 5, false),
            ("10.0.0.4:80", 7, true),
        ];
        let wanted = wanted.map(|(address, weight, backup)| (address.to_owned(), weight, backup));
        assert_eq!(rows, wanted);
    }

    #[test]
    fn large_weights_keep_their_proportions() {
        let weights = [65535, 32768, 100, 0].map(|weight| scaled(weight, 65535));
        assert_eq!(weights, [256, 128, 1, 1]);
        assert_eq!([0, 1, 256].map(|weight| scaled(weight, 256)), [1, 1, 256]);
    }

    #[test]
    fn a_target_without_a_port_is_no_server() {
        let nowhere = Target {
            port: 0,
            ..target("10.0.0.1", 1, 1)
        };
        assert!(service(&[nowhere]).is_empty());
    }
}
