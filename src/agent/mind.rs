// SPDX-License-Identifier: GPL-2.0-only
//! What the agent knows and concludes: the graph of waits, hints, deadlocks. No I/O but through
//! [`KernelSide`], and for the report of a deadlock.

use std::sync::atomic::Ordering;

use anyhow::Result;
use log::warn;

use super::graph::Graph;
use super::hints::HintTable;
use super::kernel::KernelSide;
use super::outcomes::Outcomes;
use super::{AgentState, deadlock};
use crate::abi;
use crate::clock;
use crate::watch::NameTable;

/// See above.
#[derive(Default)]
pub struct Mind {
    graph: Graph,
    hints: HintTable,
    outcomes: Outcomes,
    deadlocks: u64,
}

impl Mind {
    /// Takes in one event.
    pub fn learn(&mut self, event: &abi::proxy_event) {
        self.graph.apply(event);
        self.hints.learn(event);
        self.outcomes.learn(event);
    }

    /// Forgets all waits; `snapshot` says which there are.
    pub fn restate(&mut self, snapshot: &[abi::proxy_event]) {
        self.graph = Graph::default();
        snapshot.iter().for_each(|event| self.graph.apply(event));
    }

    /// Writes what follows from the graph into the maps, and reports deadlocks.
    pub fn give_hints(&mut self, side: &mut KernelSide, names: &NameTable) -> Result<()> {
        let now_ns = clock::monotonic_ns();
        let changes = self.hints.refresh(&self.graph, now_ns);
        // the map has room for those that stand, no more
        for pid in &changes.removed {
            side.remove_wait_hint(*pid)?;
        }
        for (pid, hint) in &changes.set {
            side.set_wait_hint(*pid, hint)?;
        }
        if !changes.new_deadlocks.is_empty() {
            // owners are remembered from when somebody last blocked: ask the kernel who has
            // the locks now, before anybody is told
            let mut now = Graph::default();
            side.snapshot()?.iter().for_each(|event| now.apply(event));
            self.report(&changes.new_deadlocks, &now, names, now_ns);
        }
        for (class, hint) in self.outcomes.hints(now_ns) {
            side.set_return_hint(class, &hint)?;
        }
        Ok(())
    }

    /// Says which of these cycles stand in `now`; the others are looked at again later.
    fn report(&mut self, cycles: &[Vec<u32>], now: &Graph, names: &NameTable, now_ns: u64) {
        for cycle in cycles {
            if !now.has_cycle(cycle) {
                self.hints.not_confirmed(cycle, now_ns);
                continue;
            }
            self.deadlocks += 1;
            // a line each, so that what reads the log keeps them apart
            for line in deadlock::lines(cycle, now, names, now_ns, &deadlock::Proc) {
                warn!("{line}");
            }
        }
    }

    /// Tells the stats server.
    pub fn show(&self, events: usize, state: &AgentState) {
        state.rounds.fetch_add(1, Ordering::Relaxed);
        state.events.fetch_add(events as u64, Ordering::Relaxed);
        let waits = self.graph.waits().len() as u64;
        state.waits_now.store(waits, Ordering::Relaxed);
        let hints = self.hints.len() as u64;
        state.hints_now.store(hints, Ordering::Relaxed);
        state.deadlocks.store(self.deadlocks, Ordering::Relaxed);
    }
}
