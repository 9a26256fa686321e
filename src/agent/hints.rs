// SPDX-License-Identifier: GPL-2.0-only
//! Which hints about waits stand: concluded from the graph for the waiters that BPF
//! has asked about by giving up a walk. A look takes no more steps than there are waits. Pure: no I/O, no
//! clock of its own.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use crate::abi;
use crate::events::{Event, What};

use super::ends::{ChainEnd, Ends, Graph};

/// How long BPF may believe a hint; the agent renews it well before.
pub const LIFETIME: Duration = Duration::from_millis(200);
/// How long a cycle must stand to be reported as a deadlock: signals and timeouts end some.
const DEADLOCK_AFTER: Duration = Duration::from_secs(1);

/// Waiters that are asked about at a time; BPF asks again about those beyond.
const ASKED_MAX: usize = 4 * abi::HINTS_MAX as usize;
/// Deadlocks that are told at a time; the others wait for their turn.
const NEW_DEADLOCKS_MAX: usize = 4;

/// What has to be done to the hint map.
#[derive(Debug, Default)]
pub struct Changes {
    /// Hints to be written, by pid of the waiter.
    pub set: Vec<(u32, abi::wait_hint)>,
    /// Waiters whose hint is to be removed.
    pub removed: Vec<u32>,
    /// Cycles that have stood for long, each once.
    pub new_deadlocks: Vec<Rc<[u32]>>,
    /// Waits that were looked at.
    pub steps: usize,
}

/// The hints that stand, and the waiters that BPF wants to know about.
#[derive(Debug, Default)]
pub struct HintTable {
    /// waiters at which BPF gave a walk up → their wait's number, once it is known
    asked: HashMap<u32, Option<u64>>,
    standing: HashSet<u32>,
    /// cycle, its least pid first → when it was first seen, and whether it was reported
    cycles: HashMap<Rc<[u32]>, (u64, bool)>,
    rounds: u64,
}

impl HintTable {
    /// Hints that stand.
    pub fn len(&self) -> usize {
        self.standing.len()
    }

    /// Whether BPF wants to know about any waiter.
    pub fn is_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Notes what BPF could not find out.
    pub fn learn(&mut self, event: &Event) {
        let about = match event.what {
            What::Truncated { at, .. } => at,
            What::Cycle { donor, .. } => donor,
            _ => return,
        };
        if self.asked.len() < ASKED_MAX {
            self.asked.entry(about).or_default();
        }
    }

    /// All hints anew, as the graph is at `now_ns` (`bpf_ktime_get_ns()`). Without `tell` no deadlock is
    /// told: those that stand are told later.
    pub fn refresh(&mut self, graph: &Graph, now_ns: u64, tell: bool) -> Changes {
        self.rounds += 1;
        let mut changes = Changes::default();
        let (mut ends, mut cycles) = (Ends::new(graph), HashMap::new());
        // each cycle once, whoever is asked about: its members share one list
        let mut noted = HashSet::new();
        // of another wait BPF asks again
        self.asked.retain(|pid, asked| {
            let number = graph.get(*pid).map(|wait| wait.number);
            let same = asked.is_none_or(|asked| Some(asked) == number);
            *asked = number;
            same && number.is_some()
        });
        let asked: Vec<u32> = self.asked.keys().copied().collect();
        for pid in asked {
            let hint = match ends.of(pid) {
                None => continue,
                Some(ChainEnd::Waiter(last)) => {
                    self.hint(graph, abi::hint_kind_HINT_SKIP, pid, last, now_ns)
                }
                Some(ChainEnd::Cycle(members)) => {
                    if noted.insert(Rc::as_ptr(&members).cast::<u32>()) {
                        let (cycle, seen) = self.cycle(&members, now_ns);
                        cycles.insert(cycle, seen);
                    }
                    self.hint(graph, abi::hint_kind_HINT_CYCLE, pid, pid, now_ns)
                }
            };
            changes.set.extend(hint.map(|hint| (pid, hint)));
        }
        changes.steps = ends.steps();
        if tell {
            let stand = |(since_ns, told): (u64, bool)| {
                !told && now_ns.saturating_sub(since_ns) >= DEADLOCK_AFTER.as_nanos() as u64
            };
            let new = cycles.iter_mut().filter(|(_, seen)| stand(**seen));
            for (cycle, seen) in new.take(NEW_DEADLOCKS_MAX) {
                seen.1 = true;
                changes.new_deadlocks.push(cycle.clone());
            }
        }
        changes.set.truncate(abi::HINTS_MAX as usize);
        let standing: HashSet<u32> = changes.set.iter().map(|(pid, _)| *pid).collect();
        changes.removed = self.standing.difference(&standing).copied().collect();
        self.standing = standing;
        self.cycles = cycles;
        changes
    }

    /// A cycle that was to be reported does not stand: it counts from now on.
    pub fn not_confirmed(&mut self, cycle: &[u32], now_ns: u64) {
        if let Some(seen) = self.cycles.get_mut(cycle) {
            *seen = (now_ns, false);
        }
    }

    fn hint(
        &self,
        graph: &Graph,
        kind: u32,
        pid: u32,
        to: u32,
        now_ns: u64,
    ) -> Option<abi::wait_hint> {
        Some(abi::wait_hint {
            wait_seq: graph.get(pid)?.number,
            to_wait_seq: graph.get(to)?.number,
            expires_ns: now_ns + LIFETIME.as_nanos() as u64,
            hint_seq: self.rounds,
            to_pid: to,
            kind,
            pid,
            pad: 0,
        })
    }

    /// A cycle as it is known by, the least pid first, and since when; and whether it was told.
    fn cycle(&self, members: &[u32], now_ns: u64) -> (Rc<[u32]>, (u64, bool)) {
        let mut members = members.to_vec();
        let least = (0..members.len()).min_by_key(|i| members[*i]).unwrap_or(0);
        members.rotate_left(least);
        let known = self.cycles.get(members.as_slice()).copied();
        (members.into(), known.unwrap_or((now_ns, false)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::ends::tests::{block, chain, wake};
    use super::*;

    fn given_up(what: What) -> Event {
        Event {
            time_ns: 0,
            cpu: 0,
            what,
        }
    }

    fn truncated(donor: u32, at: u32) -> Event {
        given_up(What::Truncated { donor, at })
    }

    fn cycle(donor: u32, at: u32) -> Event {
        given_up(What::Cycle { donor, at })
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_walk_given_up_goes_on_at_the_last_waiter() {
        let graph = chain(100);
        let mut table = HintTable::default();
        assert!(
            table.refresh(&graph, 0, true).set.is_empty(),
            "not asked for"
        );
        table.learn(&truncated(1, 17));
        let changes = table.refresh(&graph, 5, true);
        let (pid, hint) = changes.set[0];
        assert_eq!(
            (pid, hint.to_pid, hint.kind),
            (17, 99, abi::hint_kind_HINT_SKIP)
        );
        assert_eq!(hint.expires_ns, 5 + LIFETIME.as_nanos() as u64);
        let again = table.refresh(&graph, 6, true).set[0].1;
        assert!(again.hint_seq > hint.hint_seq && again.expires_ns > hint.expires_ns);
    }

    #[test]
    fn hints_go_with_the_waits_they_are_about() {
        let mut graph = chain(40);
        let mut table = HintTable::default();
        table.learn(&truncated(1, 17));
        table.refresh(&graph, 0, true);
        graph.take(&wake(17));
        let changes = table.refresh(&graph, 1, true);
        assert_eq!((changes.set.len(), changes.removed), (0, vec![17]));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn another_wait_of_the_same_task_is_asked_about_again() {
        let mut graph = chain(40);
        let mut table = HintTable::default();
        table.learn(&truncated(1, 17));
        assert_eq!(table.refresh(&graph, 0, true).set.len(), 1);
        graph.take(&wake(17));
        graph.take(&block(17, 0x77, 18, 2));
        assert!(table.refresh(&graph, 1, true).set.is_empty() && !table.is_asked());
        table.learn(&truncated(1, 17));
        assert_eq!(table.refresh(&graph, 2, true).set.len(), 1);
    }

    #[test]
    fn a_cycle_is_hinted_at_once_and_reported_once_when_it_lasts() {
        let mut graph = chain(4);
        graph.take(&block(4, 0x99, 2, 1));
        let mut table = HintTable::default();
        for pid in [3, 4] {
            table.learn(&cycle(pid, 2));
        }
        let changes = table.refresh(&graph, 10, true);
        assert_eq!(changes.set.len(), 2);
        let kind = abi::hint_kind_HINT_CYCLE;
        assert!(changes.set.iter().all(|(_, hint)| hint.kind == kind));
        assert!(changes.new_deadlocks.is_empty(), "it may be over at once");
        let early = table.refresh(&graph, 10 + SECOND, false);
        assert!(early.new_deadlocks.is_empty(), "not now");
        let changes = table.refresh(&graph, 11 + SECOND, true);
        assert_eq!(changes.new_deadlocks, vec![Rc::from([2, 3, 4])]);
        let again = table.refresh(&graph, 20 + SECOND, true);
        assert!(again.new_deadlocks.is_empty());
    }

    #[test]
    fn a_look_at_a_ring_takes_a_step_for_each_of_its_tasks() {
        const RING: u32 = 5000;
        let mut graph = chain(RING);
        graph.take(&block(RING, 1 << 40, 1, 1));
        let mut table = HintTable::default();
        for pid in 1..=RING {
            table.learn(&cycle(pid, pid));
        }
        let changes = table.refresh(&graph, 0, true);
        assert_eq!(changes.steps, RING as usize);
        assert_eq!(changes.set.len(), abi::HINTS_MAX as usize);
        let changes = table.refresh(&graph, SECOND, true);
        assert_eq!(changes.new_deadlocks.len(), 1);
    }

    #[test]
    fn who_is_asked_about_has_a_bound_and_deadlocks_come_in_turns() {
        let (mut graph, mut table) = (Graph::default(), HintTable::default());
        for pid in (1..=200_000).step_by(2) {
            for (pid, owner) in [(pid, pid + 1), (pid + 1, pid)] {
                graph.take(&block(pid, u64::from(pid) << 8, owner, 1));
                table.learn(&cycle(pid, pid));
            }
        }
        let changes = table.refresh(&graph, 0, true);
        assert_eq!((table.asked.len(), changes.steps), (ASKED_MAX, ASKED_MAX));
        let mut told = HashSet::new();
        for round in 1..=3 {
            let new = table.refresh(&graph, round * SECOND, true).new_deadlocks;
            assert_eq!(new.len(), NEW_DEADLOCKS_MAX);
            told.extend(new);
        }
        assert_eq!(told.len(), 3 * NEW_DEADLOCKS_MAX, "each once");
    }
}
