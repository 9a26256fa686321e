// SPDX-License-Identifier: GPL-2.0-only
//! The wait-for graph: who waits for which lock, who owns it, as told by events. Whatever events come, it
//! has at most [`WAITS_MAX`] waits, and to follow all chains takes no more steps than there are waits.
//! Pure: no I/O, no clock.

use std::collections::HashMap;
use std::rc::Rc;

use crate::abi;

use super::edge;

/// Most waits that are known. Those beyond get no hints while they last.
pub const WAITS_MAX: usize = 16_384;

/// A task that sleeps on a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Edge word of the lock, see `edge`.
    pub lock: u64,
    /// Number of the wait, as BPF counts them for this task.
    pub seq: u64,
    /// When it began, `bpf_ktime_get_ns()`.
    pub since_ns: u64,
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
    /// In these tasks, each of which waits for the next and the last for the first; the same for all
    /// whose chains lead there.
    Cycle(Rc<[u32]>),
}

/// Ends of chains, as the graph stands now: each task is passed once, however many chains lead through it.
pub struct Ends<'a> {
    graph: &'a Graph,
    known: HashMap<u32, ChainEnd>,
    steps: usize,
}

impl Ends<'_> {
    /// The end of the chain from waiter `pid`; `None` if it does not wait.
    pub fn of(&mut self, pid: u32) -> Option<ChainEnd> {
        self.graph.wait(pid)?;
        let mut path = Vec::new();
        // task → its place in the path
        let mut passed = HashMap::new();
        let mut at = pid;
        let end = loop {
            if let Some(end) = self.known.get(&at) {
                break end.clone();
            }
            if let Some(start) = passed.insert(at, path.len()) {
                break ChainEnd::Cycle(path[start..].into());
            }
            path.push(at);
            self.steps += 1;
            match self.graph.waits_for(at) {
                Some(next) if self.graph.wait(next).is_some() => at = next,
                _ => break ChainEnd::Waiter(at),
            }
        };
        for pid in path {
            self.known.insert(pid, end.clone());
        }
        Some(end)
    }

    /// Tasks that were passed.
    pub fn steps(&self) -> usize {
        self.steps
    }
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
        if self.waits.len() >= WAITS_MAX {
            return;
        }
        let wait = Wait {
            lock: event.lock,
            seq: event.value,
            since_ns: event.time_ns,
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

    /// To follow chains with.
    pub fn ends(&self) -> Ends<'_> {
        Ends {
            graph: self,
            known: HashMap::new(),
            steps: 0,
        }
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
        assert_eq!(graph.ends().of(1), Some(ChainEnd::Waiter(99)));
        assert_eq!(graph.ends().of(99), Some(ChainEnd::Waiter(99)));
        assert_eq!(graph.ends().of(100), None, "it waits for nothing");
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
        assert_eq!(graph.ends().of(1), Some(ChainEnd::Cycle([2, 3, 4].into())));
        assert_eq!(graph.ends().of(3), Some(ChainEnd::Cycle([3, 4, 2].into())));
        assert!(graph.has_cycle(&[2, 3, 4]) && !graph.has_cycle(&[2, 3]));
        graph.apply(&wake(3));
        assert_eq!(graph.ends().of(1), Some(ChainEnd::Waiter(2)));
        assert!(!graph.has_cycle(&[2, 3, 4]));
    }
    #[test]
    fn a_ring_is_passed_once_whoever_is_asked_about() {
        const RING: u32 = 5000;
        let mut graph = chain(RING);
        graph.apply(&block(RING, 1 << 40, 1, 1));
        let mut ends = graph.ends();
        let first = ends.of(1);
        assert!(matches!(&first, Some(ChainEnd::Cycle(all)) if all.len() == RING as usize));
        for pid in 1..=RING {
            assert_eq!(ends.of(pid), first);
        }
        assert_eq!(ends.steps(), RING as usize);
    }

    #[test]
    fn waits_have_a_bound() {
        let mut graph = Graph::default();
        for pid in 1..=200_000 {
            graph.apply(&block(pid, u64::from(pid) << 8, pid + 1, 1));
        }
        assert_eq!(graph.waits().len(), WAITS_MAX);
        assert_eq!(graph.owners.len(), WAITS_MAX);
        let mut ends = graph.ends();
        for pid in 1..=200_000 {
            ends.of(pid);
        }
        assert_eq!(ends.steps(), WAITS_MAX);
        // there is room again when some are over
        graph.apply(&wake(1));
        graph.apply(&block(200_000, 0x77, 5, 9));
        assert_eq!(graph.waits_for(200_000), Some(5));
        (1..=200_000).for_each(|pid| graph.apply(&wake(pid)));
        assert!(graph.waits().is_empty() && graph.owners.is_empty());
    }
}
