// SPDX-License-Identifier: GPL-2.0-only
//! The wait-for graph: who waits for which lock, who owns it, as told by events.
//! Pure: no I/O, no clock.

use std::collections::{HashMap, HashSet};

use crate::abi;
use crate::watch::Site;

use super::edge;

/// A task that sleeps on a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Edge word of the lock, see `edge`.
    pub lock: u64,
    /// Number of the wait, as BPF counts them for this task.
    pub seq: u64,
    /// When it began, `bpf_ktime_get_ns()`.
    pub since_ns: u64,
    /// What asked for the lock.
    pub site: Site,
}

/// All waits that are known, and the owners of the locks in them.
#[derive(Debug, Default)]
pub struct Graph {
    waits: HashMap<u32, Wait>,
    /// lock → owner, and how many wait for it
    owners: HashMap<u64, Owner>,
}

#[derive(Debug, Default)]
struct Owner {
    pid: u32,
    nr_waiting: u32,
}

/// Where a chain ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainEnd {
    /// At this waiter, whose lock's owner waits for nothing (or is not known).
    Waiter(u32),
    /// In these tasks, each of which waits for the next and the last for the first.
    Cycle(Vec<u32>),
}

impl Graph {
    /// Takes in one event. Events of other kinds change nothing.
    pub fn apply(&mut self, event: &abi::proxy_event) {
        match event.kind {
            abi::proxy_event_kind_EVENT_BLOCK | abi::proxy_event_kind_EVENT_SNAPSHOT => {
                self.blocked(event)
            }
            abi::proxy_event_kind_EVENT_WAKE => self.woke(event.pid),
            _ => {}
        }
    }

    fn blocked(&mut self, event: &abi::proxy_event) {
        self.forget(event.pid);
        let wait = Wait {
            lock: event.lock,
            seq: event.value,
            since_ns: event.time_ns,
            site: Site::of(event),
        };
        self.waits.insert(event.pid, wait);
        let owner = self.owners.entry(event.lock).or_default();
        owner.nr_waiting += 1;
        if event.other != 0 {
            owner.pid = event.other;
        }
    }

    /// A waiter that wakes has the lock, unless a signal woke it; the next who blocks
    /// on that lock says so. Of a lock that may have been given to readers nobody is
    /// known to be the owner until then.
    fn woke(&mut self, pid: u32) {
        if let Some(wait) = self.forget(pid)
            && let Some(owner) = self.owners.get_mut(&wait.lock)
        {
            owner.pid = if edge::is_exclusive(wait.lock) {
                pid
            } else {
                0
            };
        }
    }

    fn forget(&mut self, pid: u32) -> Option<Wait> {
        let wait = self.waits.remove(&pid)?;
        if let Some(owner) = self.owners.get_mut(&wait.lock) {
            owner.nr_waiting -= 1;
            if owner.nr_waiting == 0 {
                self.owners.remove(&wait.lock);
            }
        }
        Some(wait)
    }

    /// All waits, by pid.
    pub fn waits(&self) -> &HashMap<u32, Wait> {
        &self.waits
    }

    /// The wait of `pid`, if it waits.
    pub fn wait(&self, pid: u32) -> Option<&Wait> {
        self.waits.get(&pid)
    }

    /// The task that `pid` waits for.
    pub fn waits_for(&self, pid: u32) -> Option<u32> {
        let wait = self.waits.get(&pid)?;
        let owner = self.owners.get(&wait.lock)?.pid;
        (owner != 0 && owner != pid).then_some(owner)
    }

    /// Follows the chain from waiter `pid` to its end; `None` if it does not wait.
    pub fn chain_end(&self, pid: u32) -> Option<ChainEnd> {
        self.waits.get(&pid)?;
        let mut path = vec![pid];
        let mut seen = HashSet::from([pid]);
        let mut last = pid;
        while let Some(next) = self.waits_for(last)
            && self.waits.contains_key(&next)
        {
            if !seen.insert(next) {
                let start = path.iter().position(|p| *p == next)?;
                return Some(ChainEnd::Cycle(path.split_off(start)));
            }
            path.push(next);
            last = next;
        }
        Some(ChainEnd::Waiter(last))
    }

    /// Whether each of these tasks waits for the next, and the last for the first.
    pub fn has_cycle(&self, cycle: &[u32]) -> bool {
        let next = cycle.iter().cycle().skip(1);
        !cycle.is_empty()
            && cycle
                .iter()
                .zip(next)
                .all(|(pid, next)| self.waits_for(*pid) == Some(*next))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn block(pid: u32, lock: u64, owner: u32, seq: u64) -> abi::proxy_event {
        abi::proxy_event {
            time_ns: seq,
            lock,
            value: seq,
            kind: abi::proxy_event_kind_EVENT_BLOCK,
            pid,
            other: owner,
            ..Default::default()
        }
    }

    pub fn wake(pid: u32) -> abi::proxy_event {
        abi::proxy_event {
            kind: abi::proxy_event_kind_EVENT_WAKE,
            ..block(pid, 0, 0, 0)
        }
    }

    /// 1 → 2 → ... → n, who waits for nothing.
    pub fn chain(n: u32) -> Graph {
        let mut graph = Graph::default();
        for pid in 1..n {
            graph.apply(&block(pid, u64::from(pid) << 8, pid + 1, 1));
        }
        graph
    }

    #[test]
    fn chains_are_followed_to_the_last_waiter() {
        let graph = chain(100);
        assert_eq!(graph.chain_end(1), Some(ChainEnd::Waiter(99)));
        assert_eq!(graph.chain_end(99), Some(ChainEnd::Waiter(99)));
        assert_eq!(graph.chain_end(100), None, "it waits for nothing");
        assert_eq!(graph.waits_for(99), Some(100));
    }

    #[test]
    fn who_wakes_owns_the_lock() {
        let mut graph = Graph::default();
        graph.apply(&block(1, 0x10, 9, 1));
        graph.apply(&block(2, 0x10, 9, 1));
        graph.apply(&wake(1));
        assert_eq!(graph.waits_for(2), Some(1));
        graph.apply(&wake(2));
        assert!(graph.waits().is_empty() && graph.owners.is_empty());
    }

    #[test]
    fn readers_that_wake_are_no_owners() {
        let rwsem = 0x10 | u64::from(abi::lock_type_LOCK_RWSEM);
        let mut graph = Graph::default();
        graph.apply(&block(1, rwsem, 9, 1));
        graph.apply(&block(2, rwsem, 9, 1));
        graph.apply(&wake(1));
        assert_eq!(graph.waits_for(2), None);
    }

    #[test]
    fn a_wait_replaces_the_last_one() {
        let mut graph = Graph::default();
        graph.apply(&block(1, 0x10, 9, 1));
        graph.apply(&block(1, 0x20, 8, 2));
        assert_eq!((graph.waits().len(), graph.owners.len()), (1, 1));
        assert_eq!(graph.waits_for(1), Some(8));
    }

    #[test]
    fn cycles_are_found_from_inside_and_outside() {
        let mut graph = chain(4);
        graph.apply(&block(4, 0x99, 2, 1));
        assert_eq!(graph.chain_end(1), Some(ChainEnd::Cycle(vec![2, 3, 4])));
        assert_eq!(graph.chain_end(3), Some(ChainEnd::Cycle(vec![3, 4, 2])));
        assert!(graph.has_cycle(&[2, 3, 4]) && !graph.has_cycle(&[2, 3]));
        graph.apply(&wake(3));
        assert_eq!(graph.chain_end(1), Some(ChainEnd::Waiter(2)));
        assert!(!graph.has_cycle(&[2, 3, 4]));
    }
}
