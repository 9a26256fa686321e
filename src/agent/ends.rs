// SPDX-License-Identifier: GPL-2.0-only
//! Where chains of waits end, in a graph whose state is the tracker's ([`Waits`]). To follow all chains takes
//! no more steps than there are waits. Pure: no I/O, no clock.

use std::collections::HashMap;
use std::rc::Rc;

use crate::waits::Waits;

/// Who waits for which lock, and who owns it: no more than hints need.
pub type Graph = Waits<()>;

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

impl<'a> Ends<'a> {
    /// To follow chains with.
    pub fn new(graph: &'a Graph) -> Self {
        Self {
            graph,
            known: HashMap::new(),
            steps: 0,
        }
    }

    /// The end of the chain from waiter `pid`; `None` if it does not wait.
    pub fn of(&mut self, pid: u32) -> Option<ChainEnd> {
        self.graph.get(pid)?;
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
                Some(next) if self.graph.get(next).is_some() => at = next,
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

/// Whether each of these tasks waits for the next, and the last for the first.
pub fn is_cycle(graph: &Graph, cycle: &[u32]) -> bool {
    let next = cycle.iter().cycle().skip(1);
    !cycle.is_empty()
        && cycle
            .iter()
            .zip(next)
            .all(|(pid, next)| graph.waits_for(*pid) == Some(*next))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::events::Event;
    use crate::events::event::tests as event;
    use crate::waits::WAITS_MAX;

    pub fn block(pid: u32, lock: u64, owner: u32, number: u64) -> Event {
        event::block(number, pid, lock, owner, number)
    }

    pub fn wake(pid: u32) -> Event {
        event::wake(u64::MAX, pid)
    }

    /// 1 → 2 → ... → n, who waits for nothing.
    pub fn chain(n: u32) -> Graph {
        let mut graph = Graph::default();
        for pid in 1..n {
            graph.take(&block(pid, u64::from(pid) << 8, pid + 1, 1));
        }
        graph
    }

    #[test]
    fn chains_are_followed_to_the_last_waiter() {
        let graph = chain(100);
        assert_eq!(Ends::new(&graph).of(1), Some(ChainEnd::Waiter(99)));
        assert_eq!(Ends::new(&graph).of(99), Some(ChainEnd::Waiter(99)));
        assert_eq!(Ends::new(&graph).of(100), None, "it waits for nothing");
        assert_eq!(graph.waits_for(99), Some(100));
    }

    #[test]
    fn cycles_are_found_from_inside_and_outside() {
        let mut graph = chain(4);
        graph.take(&block(4, 0x99, 2, 1));
        assert_eq!(
            Ends::new(&graph).of(1),
            Some(ChainEnd::Cycle([2, 3, 4].into()))
        );
        assert_eq!(
            Ends::new(&graph).of(3),
            Some(ChainEnd::Cycle([3, 4, 2].into()))
        );
        assert!(is_cycle(&graph, &[2, 3, 4]) && !is_cycle(&graph, &[2, 3]));
        graph.take(&wake(3));
        assert_eq!(Ends::new(&graph).of(1), Some(ChainEnd::Waiter(2)));
        assert!(!is_cycle(&graph, &[2, 3, 4]));
    }
    #[test]
    fn a_ring_is_passed_once_whoever_is_asked_about() {
        const RING: u32 = 5000;
        let mut graph = chain(RING);
        graph.take(&block(RING, 1 << 40, 1, 1));
        let mut ends = Ends::new(&graph);
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
            graph.take(&block(pid, u64::from(pid) << 8, pid + 1, 1));
        }
        assert_eq!(graph.all().len(), WAITS_MAX);
        assert_eq!(graph.nr_locks(), WAITS_MAX);
        let mut ends = Ends::new(&graph);
        for pid in 1..=200_000 {
            ends.of(pid);
        }
        assert_eq!(ends.steps(), WAITS_MAX);
        // there is room again when some are over
        graph.take(&wake(1));
        graph.take(&block(200_000, 0x77, 5, 9));
        assert_eq!(graph.waits_for(200_000), Some(5));
        for pid in 1..=200_000 {
            graph.take(&wake(pid));
        }
        assert!(graph.all().is_empty() && graph.nr_locks() == 0);
    }
}
