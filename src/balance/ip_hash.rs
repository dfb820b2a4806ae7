//! The same client gets the same server, from every evenkeel that has the same pool: the client's
//! hash points to an entry of a [`Table`], which all nodes build alike from the servers' names.
//!
//! While a server is down or full each of its clients walks on through the table, by a stride of
//! its own, so that they spread over all others by weight; nobody else's clients move. A server
//! taken out of the list makes a new table, in which a small part of the others' clients moves too.
//!
//! With `bounded_load` a server also counts as full at that many times its fair share
//! (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016).
//!
//! A pick is one division and one read of the table however large the pool; it grows with the
//! entries that it has to walk.

use std::net::IpAddr;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

pub use super::maglev::Table;
use super::{Candidate, Load, Pick};

/// Part of the result: another value sends clients to other servers.
const CLIENT_SEED: u64 = 3;

/// What `ip_hash` knows a client by: the leading bits of its address, hashed. The same in every
/// process. An IPv4 address that is written as IPv6 counts as IPv4; a prefix that is longer than
/// the address counts as all of it.
pub fn client_hash(address: IpAddr, ipv4_prefix: u8, ipv6_prefix: u8) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let dropped = 32_u32.saturating_sub(ipv4_prefix.into());
            let mask = u32::MAX.checked_shl(dropped).unwrap_or(0);
            xxh3_64_with_seed(&(address.to_bits() & mask).to_be_bytes(), CLIENT_SEED)
        }
        IpAddr::V6(address) => {
            let dropped = 128_u32.saturating_sub(ipv6_prefix.into());
            let mask = u128::MAX.checked_shl(dropped).unwrap_or(0);
            xxh3_64_with_seed(&(address.to_bits() & mask).to_be_bytes(), CLIENT_SEED)
        }
    }
}

/// A table, and which of its servers may be picked.
#[derive(Clone, Debug)]
pub struct IpHash {
    table: Arc<Table>,
    bounded_load: Option<f64>,
    /// By index in the pool; 0 where the server must not be picked.
    shares: Vec<u32>,
    /// The sum of `shares`.
    total: u64,
}

impl IpHash {
    /// Picks by `table`; a server takes at most `bounded_load` times its fair share while another
    /// one can take the connection.
    pub fn new(table: Arc<Table>, bounded_load: Option<f64>) -> Self {
        Self {
            table,
            bounded_load,
            shares: Vec::new(),
            total: 0,
        }
    }

    /// See [`super::Picker::set_candidates`].
    pub fn set_candidates(&mut self, candidates: &[Candidate]) {
        self.shares.clear();
        self.shares
            .extend(candidates.iter().map(|candidate| candidate.share()));
        self.total = self.shares.iter().map(|&share| u64::from(share)).sum();
    }

    /// See [`super::Picker::pick`].
    #[inline]
    pub fn pick<L: Load>(&self, load: &L, client: u64) -> Option<Pick> {
        match self.bounded_load {
            Some(bound) => self.pick_bounded(load, client, bound),
            None => self.pick_plain(load, client),
        }
    }

    fn pick_plain<L: Load>(&self, load: &L, client: u64) -> Option<Pick> {
        let mut choices = self.table.choices(client);
        let server = choices.find(|&server| self.can_take(load, server))?;
        Some(Pick {
            server,
            connections: None,
        })
    }

    fn pick_bounded<L: Load>(&self, load: &L, client: u64, bound: f64) -> Option<Pick> {
        // What a server of weight 1 may hold, with the new connection counted in.
        let unit = bound * (f64::from(load.pool_connections()) + 1.0) / self.total as f64;
        let within_bound = |&server: &usize| {
            let limit = (unit * f64::from(self.shares[server])).ceil();
            f64::from(load.connections(server)) + 1.0 <= limit
        };
        let able = || {
            self.table
                .choices(client)
                .filter(|&server| self.can_take(load, server))
        };
        // Where only servers over their bound can take it, one of them has to.
        let server = able().find(within_bound).or_else(|| able().next())?;
        Some(Pick {
            server,
            connections: Some(load.connections(server)),
        })
    }

    fn can_take<L: Load>(&self, load: &L, server: usize) -> bool {
        self.shares.get(server).is_some_and(|&share| share > 0) && load.can_take(server)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fake, candidates, weights};
    use super::*;

    const CLIENTS: u64 = 20_000;

    fn names(count: usize) -> Vec<String> {
        (0..count)
            .map(|server| format!("server-{server}"))
            .collect()
    }

    fn picker(names: &[String], weights: &[u32], bounded_load: Option<f64>) -> IpHash {
        let members: Vec<_> = names
            .iter()
            .map(String::as_str)
            .zip(weights.to_vec())
            .collect();
        let mut picker = IpHash::new(Arc::new(Table::build(&members)), bounded_load);
        picker.set_candidates(&candidates(weights));
        picker
    }

    /// One client address after the other, hashed.
    fn clients() -> impl Iterator<Item = u64> {
        (0..CLIENTS).map(|client| {
            let bits = u32::try_from(client).unwrap() + 0x0a00_0000;
            client_hash(IpAddr::V4(bits.into()), 32, 64)
        })
    }

    fn hash(address: &str) -> u64 {
        client_hash(address.parse().unwrap(), 24, 64)
    }

    #[test]
    fn clients_of_a_prefix_are_one() {
        assert_eq!(hash("192.0.2.1"), hash("192.0.2.254"));
        assert_ne!(hash("192.0.2.1"), hash("192.0.3.1"));
        assert_eq!(hash("2001:db8::1"), hash("2001:db8::ffff:0:0:1"));
        assert_ne!(hash("2001:db8::1"), hash("2001:db8:0:1::1"));
        assert_eq!(hash("::ffff:192.0.2.9"), hash("192.0.2.1"));
        let everyone = |address: &str| client_hash(address.parse().unwrap(), 0, 0);
        assert_eq!(everyone("192.0.2.1"), everyone("203.0.113.7"));
        assert_eq!(everyone("2001:db8::1"), everyone("fe80::2"));
        let too_long = client_hash("192.0.2.1".parse().unwrap(), 200, 200);
        assert_eq!(too_long, client_hash("192.0.2.1".parse().unwrap(), 32, 128));
    }

    #[test]
    fn hashes_are_what_they_always_were() {
        assert_eq!(
            [hash("192.0.2.1"), hash("2001:db8::1")],
            [342_231_717_625_020_492, 14_647_504_359_397_603_748]
        );
    }

    #[test]
    fn while_a_server_is_down_only_its_clients_move_and_then_return() {
        let names = names(10);
        let mut picker = picker(&names, &[1; 10], None);
        let load = Fake::new(10);
        let pick_all = |picker: &IpHash| -> Vec<usize> {
            clients()
                .map(|client| picker.pick(&load, client).unwrap().server)
                .collect()
        };
        let before = pick_all(&picker);
        let mut changed = candidates(&[1; 10]);
        changed[3].is_eligible = false;
        picker.set_candidates(&changed);
        let mut gained = [0; 10];
        for (before, during) in before.iter().zip(pick_all(&picker)) {
            assert!(*before == 3 || *before == during);
            gained[during] += u32::from(*before == 3);
        }
        // The orphans spread over all nine others: 222 each.
        assert_eq!(gained[3], 0);
        assert!(
            gained
                .iter()
                .enumerate()
                .all(|(s, &g)| s == 3 || (160..=280).contains(&g))
        );
        picker.set_candidates(&candidates(&[1; 10]));
        assert_eq!(pick_all(&picker), before);
    }

    #[test]
    fn removal_from_the_list_moves_few_clients_of_the_others() {
        let whole_names = names(10);
        let whole = picker(&whole_names, &[1; 10], None);
        for removed in 0..10 {
            let mut names = whole_names.clone();
            names.remove(removed);
            let without = picker(&names, &[1; 9], None);
            let (mut survivors, mut moved) = (0, 0);
            for client in clients() {
                let before = whole.pick(&Fake::new(10), client).unwrap().server;
                let after = without.pick(&Fake::new(9), client).unwrap().server;
                survivors += u32::from(before != removed);
                moved += u32::from(before != removed && whole_names[before] != names[after]);
            }
            assert!(moved * 50 <= survivors, "{moved} of {survivors}");
        }
    }

    #[test]
    fn a_lone_able_server_is_found_beyond_the_walk() {
        let weights = weights(&[(1, 5000)]);
        let picker = picker(&names(5000), &weights, None);
        let mut load = Fake::new(5000);
        load.full = vec![true; 5000];
        assert_eq!(picker.pick(&load, 99), None);
        load.full[4321] = false;
        assert!(
            clients()
                .take(200)
                .all(|c| picker.pick(&load, c).unwrap().server == 4321)
        );
    }

    #[test]
    fn bounded_load_bounds_what_one_client_fills() {
        let weights = [1, 2, 1, 4];
        let picker = picker(&names(4), &weights, Some(1.25));
        let mut load = Fake::new(4);
        for held in 0..4_000_u32 {
            let pick = picker.pick(&load, 42).unwrap();
            assert_eq!(pick.connections, Some(load.connections[pick.server]));
            load.connections[pick.server] += 1;
            let fair = f64::from(held + 1) * f64::from(weights[pick.server]) / 8.0;
            assert!(f64::from(load.connections[pick.server]) <= (1.25 * fair).ceil());
        }
    }

    #[test]
    fn bounded_load_gives_way_where_only_a_loaded_server_can_take_it() {
        let picker = picker(&names(3), &[1; 3], Some(1.0));
        let mut load = Fake::new(3);
        load.connections = vec![100, 0, 0];
        load.full = vec![false, true, true];
        assert_eq!(picker.pick(&load, 42).unwrap().server, 0);
    }
}
