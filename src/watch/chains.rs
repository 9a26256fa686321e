// SPDX-License-Identifier: GPL-2.0-only
//! Chains of waits as they stand: which there are, where each ends.

use std::collections::{HashMap, HashSet};

use crate::waits::Waits;

/// Most tasks of one chain that are shown.
pub const LINKS_MAX: usize = 128;
/// Most chains that are shown.
pub const CHAINS_MAX: usize = 256;
/// Most tasks of all chains together: a view has to fit into a heap of fixed size.
const ALL_LINKS_MAX: usize = 2048;

/// donor → lock → owner → ... by pids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The waiters, from the donor on.
    pub waiters: Vec<u32>,
    /// The first task that waits for nothing, if it is known who has the last lock.
    pub end: Option<u32>,
    /// The last of them waits for one of them.
    pub cycle: bool,
}

/// The chains that are the tail of no other, that of the longest wait of a donor first, at most
/// `rows`.
pub fn chains(waits: &Waits, rows: usize) -> Vec<Path> {
    let mut starts = starts(waits);
    starts.sort_unstable_by_key(|pid| (waits.get(*pid).map(|wait| wait.since_ns), *pid));
    starts.truncate(rows.min(CHAINS_MAX));
    let mut links = 0;
    let paths = starts.into_iter().map(|pid| follow(waits, pid));
    paths
        .take_while(|path| {
            links += path.waiters.len();
            links <= ALL_LINKS_MAX
        })
        .collect()
}

/// Waiters for whom nobody waits; and of cycles that no other waiter leads into, who has waited
/// the longest.
fn starts(waits: &Waits) -> Vec<u32> {
    let all = waits.all();
    let waited_for: HashSet<u32> = all.keys().filter_map(|pid| waits.waits_for(*pid)).collect();
    let roots = all.keys().filter(|pid| !waited_for.contains(pid)).copied();
    let mut starts: Vec<u32> = roots.collect();
    // pid → on which walk it was met
    let mut met: HashMap<u32, u32> = HashMap::new();
    for root in &starts {
        walk(waits, *root, 0, &mut met);
    }
    // whoever was not met from a root is on a cycle that nobody leads into
    for (number, pid) in (1..).zip(all.keys()) {
        if !met.contains_key(pid) {
            let members = walk(waits, *pid, number, &mut met);
            let longest = |pid: &u32| (waits.get(*pid).map(|wait| wait.since_ns), *pid);
            starts.extend(members.into_iter().min_by_key(longest));
        }
    }
    starts
}

/// Marks all waiters from `pid` on that no walk has met yet, and returns them.
fn walk(waits: &Waits, pid: u32, number: u32, met: &mut HashMap<u32, u32>) -> Vec<u32> {
    let mut members = Vec::new();
    let mut next = Some(pid);
    while let Some(pid) = next.filter(|pid| waits.get(*pid).is_some()) {
        if met.insert(pid, number).is_some() {
            break;
        }
        members.push(pid);
        next = waits.waits_for(pid);
    }
    members
}

fn follow(waits: &Waits, donor: u32) -> Path {
    let mut path = Path {
        waiters: vec![donor],
        end: None,
        cycle: false,
    };
    let mut seen = HashSet::from([donor]);
    let mut last = donor;
    while path.waiters.len() < LINKS_MAX
        && let Some(next) = waits.waits_for(last)
    {
        if waits.get(next).is_none() {
            path.end = Some(next);
            break;
        }
        if !seen.insert(next) {
            path.cycle = true;
            break;
        }
        path.waiters.push(next);
        last = next;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::event::tests as event;

    fn block(waits: &mut Waits, pid: u32, owner: u32, since_ns: u64) {
        waits.take(&event::block(since_ns, pid, u64::from(pid) << 8, owner, 0));
    }

    fn path(waiters: &[u32], end: Option<u32>, cycle: bool) -> Path {
        Path {
            waiters: waiters.to_vec(),
            end,
            cycle,
        }
    }

    #[test]
    fn the_tail_of_a_chain_is_no_chain_of_its_own() {
        let mut waits = Waits::default();
        block(&mut waits, 1, 2, 50);
        block(&mut waits, 2, 3, 10);
        block(&mut waits, 4, 2, 40);
        block(&mut waits, 5, 0, 60);
        let expected = [
            path(&[4, 2], Some(3), false),
            path(&[1, 2], Some(3), false),
            path(&[5], None, false),
        ];
        assert_eq!(chains(&waits, 9), expected);
        assert_eq!(chains(&waits, 1), expected[..1]);
    }

    #[test]
    fn a_cycle_is_shown_once_and_marked() {
        let mut waits = Waits::default();
        block(&mut waits, 1, 2, 30);
        block(&mut waits, 2, 3, 20);
        block(&mut waits, 3, 1, 25);
        assert_eq!(chains(&waits, 9), [path(&[2, 3, 1], None, true)]);
        block(&mut waits, 9, 3, 40);
        assert_eq!(chains(&waits, 9), [path(&[9, 3, 1, 2], None, true)]);
    }

    #[test]
    fn very_long_chains_are_cut() {
        let mut waits = Waits::default();
        (1..10_000).for_each(|pid| block(&mut waits, pid, pid + 1, 1));
        let all = chains(&waits, 9);
        assert_eq!((all.len(), all[0].waiters.len()), (1, LINKS_MAX));
        assert!(!all[0].cycle && all[0].end.is_none());
    }
}
