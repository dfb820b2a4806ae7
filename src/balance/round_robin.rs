//! Smooth weighted round robin, as nginx has it (`ngx_stream_upstream_round_robin.c`): at each pick
//! every server earns its weight, the richest is picked and pays the sum of the weights. Weights
//! 5:1:1 give `a a b a c a a`: picks of a heavy server are spread, not bunched.
//!
//! nginx looks at every server for each pick. Here up to 64 servers are looked at; beyond that the
//! servers of one weight form a group which earns for all its members and hands out its turns in
//! rotation; and where there are more than 64 different weights, blocks of 64 groups take turns in
//! the same way. So a pick costs the same at any number of servers: less than a hundred additions.
//!
//! A server that cannot take its turn leaves it to all others by weight, not to its neighbour.
//! Where most of them cannot, the pick looks for one that can, in proportion to the pool at worst.

use super::{Candidate, Load, Pick};

/// How many credits a pick compares: 64 take well under 100 ns.
const BLOCK: usize = 64;
/// Up to this many servers, which are one block, the order is exactly nginx's.
const SINGLES_MAX: usize = BLOCK;
/// Turns that a pick lets pass before it looks for a server that can take the connection.
const FORFEITS: usize = 4;

/// What a group has earned; apart from [`Group`], because a pick walks over all of these.
#[derive(Clone, Copy, Debug)]
struct Credit {
    /// The sum over its members.
    weight: i64,
    /// Stays within plus and minus the sum of all weights.
    current: i64,
}

/// Servers that take turns. All positions are in `RoundRobin::members`.
#[derive(Clone, Copy, Debug)]
struct Group {
    /// By which it is found again after a change: the server if it is alone, else the weight.
    key: u32,
    first: u32,
    /// One after its last member.
    end: u32,
    /// Whose turn is next, within `first..end`.
    next: u32,
}

/// Whose turn it is.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    /// Each stands for the next `BLOCK` of `credits`.
    blocks: Vec<Credit>,
    /// Parallel to `groups`.
    credits: Vec<Credit>,
    /// Ascending by key.
    groups: Vec<Group>,
    /// Servers, group after group, within each in the order of the pool.
    members: Vec<u32>,
    /// Of all weights.
    total: i64,
}

impl RoundRobin {
    /// See [`super::Picker::set_candidates`]. What a server or group had earned is kept in
    /// proportion: else each change of health would begin again with the first server.
    pub fn set_candidates(&mut self, candidates: &[Candidate]) {
        let weight = |server: u32| candidates[server as usize].weight;
        let mut members: Vec<u32> = (0..).take(candidates.len()).collect();
        members.retain(|&server| candidates[server as usize].share() > 0);
        let is_grouped = members.len() > SINGLES_MAX;
        let key = |server: u32| if is_grouped { weight(server) } else { server };
        members.sort_by_key(|&server| key(server));

        let total = members
            .iter()
            .map(|&server| i64::from(weight(server)))
            .sum();
        let old = std::mem::take(self);
        let is_comparable = is_grouped == (old.members.len() > SINGLES_MAX);
        let mut first = 0;
        for group in members.chunk_by(|&one, &other| key(one) == key(other)) {
            let len = u32::try_from(group.len()).expect("a pool has fewer than 2^32 servers");
            let end = first + len;
            let key = key(group[0]);
            let weight = i64::from(weight(group[0])) * i64::from(len);
            let (mut current, mut next) = (0, first);
            if let Some(before) = is_comparable.then(|| old.group(key)).flatten() {
                current = scaled(old.credits[before].current, old.total, total);
                next = first + rotated(group, old.members[old.groups[before].next as usize]);
            }
            self.credits.push(Credit { weight, current });
            self.groups.push(Group {
                key,
                first,
                end,
                next,
            });
            first = end;
        }
        let blocks = self.credits.chunks(BLOCK);
        let weights = blocks.map(|credits| credits.iter().map(|credit| credit.weight).sum());
        self.blocks = weights
            .map(|weight| Credit { weight, current: 0 })
            .collect();
        self.members = members;
        self.total = total;
    }

    /// The server whose turn it is, whether it can take the connection or not.
    pub(super) fn turn(&mut self) -> Option<usize> {
        let group = self.step()?;
        Some(self.rotate(group))
    }

    /// See [`super::Picker::pick`].
    #[inline]
    pub fn pick<L: Load>(&mut self, load: &L) -> Option<Pick> {
        for _ in 0..FORFEITS {
            let group = self.step()?;
            let server = self.rotate(group);
            if load.can_take(server) {
                return Some(Pick {
                    server,
                    connections: None,
                });
            }
            if self.groups[group].len() == 1 {
                // Its next turn may be the very next one: better to leave it out, as nginx does.
                self.step_back(group);
                break;
            }
        }
        self.pick_among_able(load)
    }

    /// One step among the blocks and one within the block chosen: the group whose turn it is.
    fn step(&mut self) -> Option<usize> {
        let block = richest(&mut self.blocks, self.total)?;
        let credits = self.credits.chunks_mut(BLOCK).nth(block)?;
        let group = richest(credits, self.blocks[block].weight)?;
        Some(block * BLOCK + group)
    }

    /// Undoes the step that chose `group`.
    fn step_back(&mut self, group: usize) {
        let block = group / BLOCK;
        if let Some(credits) = self.credits.chunks_mut(BLOCK).nth(block) {
            refund(credits, group % BLOCK, self.blocks[block].weight);
        }
        refund(&mut self.blocks, block, self.total);
    }

    /// The same step over those groups alone that have a member who can take the connection.
    #[cold]
    fn pick_among_able<L: Load>(&mut self, load: &L) -> Option<Pick> {
        let mut richest: Option<(usize, u32)> = None;
        let mut total = 0;
        for group in 0..self.groups.len() {
            let Some(position) = self.able_member(group, load) else {
                continue;
            };
            let credit = &mut self.credits[group];
            credit.current += credit.weight;
            total += credit.weight;
            let current = credit.current;
            if richest.is_none_or(|(other, _)| current > self.credits[other].current) {
                richest = Some((group, position));
            }
        }
        let (group, position) = richest?;
        self.credits[group].current -= total;
        self.groups[group].next = position;
        Some(Pick {
            server: self.rotate(group),
            connections: None,
        })
    }

    /// The position of a group's next member who can take the connection.
    fn able_member<L: Load>(&self, group: usize, load: &L) -> Option<u32> {
        let Group {
            first, end, next, ..
        } = self.groups[group];
        let can_take = |&at: &u32| load.can_take(self.members[at as usize] as usize);
        (next..end).chain(first..next).find(can_take)
    }

    /// Takes the turn of a group's next member.
    fn rotate(&mut self, group: usize) -> usize {
        let group = &mut self.groups[group];
        let position = group.next;
        group.next = if position + 1 == group.end {
            group.first
        } else {
            position + 1
        };
        self.members[position as usize] as usize
    }

    fn group(&self, key: u32) -> Option<usize> {
        self.groups
            .binary_search_by_key(&key, |group| group.key)
            .ok()
    }
}

impl Group {
    fn len(&self) -> u32 {
        self.end - self.first
    }
}

/// Each earns its weight; the richest, and of equals the first, pays what all have earned.
fn richest(credits: &mut [Credit], total: i64) -> Option<usize> {
    let mut richest = None;
    let mut most = i64::MIN;
    for (place, credit) in credits.iter_mut().enumerate() {
        credit.current += credit.weight;
        if credit.current > most {
            most = credit.current;
            richest = Some(place);
        }
    }
    credits[richest?].current -= total;
    richest
}

/// Undoes `richest`, which returned `place`.
fn refund(credits: &mut [Credit], place: usize, total: i64) {
    credits[place].current += total;
    for credit in credits {
        credit.current -= credit.weight;
    }
}

/// Credit in terms of another sum of weights: what counts is the part of a turn that it buys.
fn scaled(current: i64, total_before: i64, total: i64) -> i64 {
    let credit = i128::from(current) * i128::from(total) / i128::from(total_before.max(1));
    i64::try_from(credit).unwrap_or(0)
}

/// The place in `group` of the server whose turn was next, or of the one that follows it.
fn rotated(group: &[u32], next: u32) -> u32 {
    let place = group.partition_point(|&server| server < next);
    u32::try_from(place % group.len()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fake, candidates, weights};
    use super::*;

    fn picker(weights: &[u32]) -> RoundRobin {
        let mut picker = RoundRobin::default();
        picker.set_candidates(&candidates(weights));
        picker
    }

    fn picks(picker: &mut RoundRobin, load: &Fake, count: usize) -> Vec<usize> {
        (0..count)
            .map(|_| picker.pick(load).unwrap().server)
            .collect()
    }

    #[test]
    fn order_is_smooth() {
        let mut picker = picker(&[5, 1, 1]);
        let load = Fake::new(3);
        let order = [0, 0, 1, 0, 2, 0, 0];
        assert_eq!(picks(&mut picker, &load, 7), order);
        assert_eq!(picks(&mut picker, &load, 7), order);
    }

    #[test]
    fn no_cycle_is_off_by_more_than_one() {
        let weights: Vec<u32> = (1..=40).collect();
        let total: u32 = weights.iter().sum();
        let mut picker = picker(&weights);
        let mut counts = vec![0_u32; weights.len()];
        for pick in 1..=total {
            counts[picker.turn().unwrap()] += 1;
            for (count, weight) in counts.iter().zip(&weights) {
                let ideal = f64::from(pick * weight) / f64::from(total);
                assert!((f64::from(*count) - ideal).abs() < 2.0);
            }
        }
        assert_eq!(counts, weights);
    }

    #[test]
    fn groups_rotate_and_share_by_weight() {
        // 100 servers of weight 1 and 50 of weight 4: a cycle of 300.
        let weights = weights(&[(1, 100), (4, 50)]);
        let mut counts = vec![0; weights.len()];
        let order = picks(&mut picker(&weights), &Fake::new(150), 300);
        order.iter().for_each(|&server| counts[server] += 1);
        assert_eq!(counts, weights);
        assert!(order.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn many_different_weights_share_by_weight() {
        let weights: Vec<u32> = (1..=256).chain(1..=256).collect();
        let total: u32 = weights.iter().sum();
        let mut counts = vec![0_u32; weights.len()];
        let mut picker = picker(&weights);
        (0..total).for_each(|_| counts[picker.turn().unwrap()] += 1);
        for (count, weight) in counts.iter().zip(weights) {
            assert!(count.abs_diff(weight) <= 2, "{count} for {weight}");
        }
    }

    #[test]
    fn a_full_server_leaves_its_turns_to_all_by_weight() {
        for weights in [vec![6, 2, 1, 1], weights(&[(6, 1), (2, 1), (1, 100)])] {
            let mut picker = picker(&weights);
            let mut load = Fake::new(weights.len());
            load.full[0] = true;
            let rest: u32 = weights[1..].iter().sum();
            let mut counts = vec![0; weights.len()];
            for server in picks(&mut picker, &load, rest as usize * 100) {
                counts[server] += 1_u32;
            }
            assert_eq!(counts[0], 0);
            for (count, weight) in counts.iter().zip(&weights).skip(1) {
                assert!(count.abs_diff(weight * 100) <= 3, "{counts:?}");
            }
        }
    }

    #[test]
    fn full_members_of_a_group_lower_its_share() {
        // Half of the heavy group is full, so both groups have 100 to give.
        let weights = weights(&[(1, 100), (2, 100)]);
        let mut picker = picker(&weights);
        let mut load = Fake::new(200);
        load.full[100..]
            .iter_mut()
            .step_by(2)
            .for_each(|full| *full = true);
        let order = picks(&mut picker, &load, 20_000);
        let light = order.iter().filter(|&&server| server < 100).count();
        assert!(light.abs_diff(10_000) < 1_000, "{light}");
    }

    #[test]
    fn turns_survive_a_change() {
        for size in [3, 100] {
            let mut picker = picker(&vec![1; size]);
            let load = Fake::new(size);
            assert_eq!(picks(&mut picker, &load, 2), [0, 1]);
            picker.set_candidates(&candidates(&vec![1; size]));
            assert_eq!(picks(&mut picker, &load, 1), [2]);
        }
    }

    #[test]
    fn a_change_of_weights_does_not_bunch() {
        let mut picker = picker(&[256, 1]);
        let load = Fake::new(2);
        picks(&mut picker, &load, 128);
        picker.set_candidates(&candidates(&[1, 1]));
        let order = picks(&mut picker, &load, 8);
        assert!(
            order
                .windows(3)
                .all(|three| three.iter().sum::<usize>() % 3 != 0),
            "{order:?}"
        );
    }
}
