// SPDX-License-Identifier: GPL-2.0-only
//! What the agent knows and concludes: the graph of waits, hints, deadlocks. No I/O but through
//! [`KernelSide`], and for the report of a deadlock.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use log::warn;

use super::ends::{Graph, is_cycle};
use super::hints::HintTable;
use super::kernel::KernelSide;
use super::outcomes::Outcomes;
use super::{AgentState, deadlock};
use crate::clock;
use crate::events::Event;

/// Between two rounds of reports: each asks the kernel for all waits, and reads what is in `/proc`.
const REPORT_PERIOD: Duration = Duration::from_secs(1);
/// Deadlocks that are described at once, and how long until another may be: thousands of deadlocks must
/// not fill the log.
const REPORTS_MAX: u32 = 8;
const REPORT_AGAIN: Duration = Duration::from_secs(10);
/// Pause after each scan, per wait that was scanned: chains of many thousands do not keep the agent busy.
const REST_PER_STEP: Duration = Duration::from_micros(1);

/// See above.
#[derive(Default)]
pub struct Analysis {
    graph: Graph,
    hints: HintTable,
    outcomes: Outcomes,
    deadlocks: u64,
    reports: Reports,
    reported_ns: u64,
    /// No hints before.
    rest_until_ns: u64,
}

/// How many reports may be made: a bucket of `REPORTS_MAX` that fills by one in `REPORT_AGAIN`.
#[derive(Debug, Default)]
struct Reports {
    made: u32,
    since_ns: u64,
    left_out: u64,
}

impl Reports {
    /// Whether one more may be made at `now_ns`.
    fn may(&mut self, now_ns: u64) -> bool {
        let again_ns = REPORT_AGAIN.as_nanos() as u64;
        let back = now_ns.saturating_sub(self.since_ns) / again_ns;
        let back = u32::try_from(back).unwrap_or(u32::MAX).min(self.made);
        self.made -= back;
        self.since_ns = match self.made {
            0 => now_ns,
            _ => self.since_ns + u64::from(back) * again_ns,
        };
        if self.made >= REPORTS_MAX {
            self.left_out += 1;
            return false;
        }
        self.made += 1;
        true
    }
}

impl Analysis {
    /// Takes in one event of a wait.
    pub fn learn(&mut self, event: &Event) {
        self.graph.take(event);
    }

    /// Takes in what is told also while nobody watches.
    pub fn learn_asked(&mut self, events: &[Event]) {
        for event in events {
            self.hints.learn(event);
            self.outcomes.learn(event);
        }
    }

    /// Whether BPF has asked for a hint about a wait that goes on.
    pub fn is_asked(&self) -> bool {
        self.hints.is_asked()
    }

    /// Forgets all waits; `snapshot` says which there are.
    pub fn restate(&mut self, snapshot: &[Event]) {
        self.graph = Graph::default();
        self.graph.restate(snapshot);
    }

    /// Writes what follows from the graph into the maps, and reports deadlocks.
    pub fn give_hints(&mut self, side: &mut KernelSide) -> Result<()> {
        let now_ns = clock::monotonic_ns();
        if now_ns < self.rest_until_ns {
            return Ok(());
        }
        let tell = now_ns.saturating_sub(self.reported_ns) >= REPORT_PERIOD.as_nanos() as u64;
        let changes = self.hints.refresh(&self.graph, now_ns, tell);
        let rest = REST_PER_STEP * u32::try_from(changes.steps)?;
        self.rest_until_ns = now_ns + rest.as_nanos() as u64;
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
            self.reported_ns = now_ns;
            let mut now = Graph::default();
            now.restate(&side.snapshot()?);
            self.report(&changes.new_deadlocks, &now, now_ns);
        }
        for (class, hint) in self.outcomes.hints(now_ns) {
            side.set_return_hint(class, &hint)?;
        }
        Ok(())
    }

    /// Says which of these cycles stand in `now`; the others are looked at again later.
    fn report(&mut self, cycles: &[Rc<[u32]>], now: &Graph, now_ns: u64) {
        for cycle in cycles {
            if !is_cycle(now, cycle) {
                self.hints.not_confirmed(cycle, now_ns);
                continue;
            }
            self.deadlocks += 1;
            if !self.reports.may(now_ns) {
                continue;
            }
            let left_out = std::mem::take(&mut self.reports.left_out);
            if left_out > 0 {
                warn!("{left_out} more deadlocks were found, and are not described");
            }
            // a line each, so that what reads the log keeps them apart
            for line in deadlock::lines(cycle, now, now_ns, &deadlock::Proc) {
                warn!("{line}");
            }
        }
    }

    /// Tells the stats server.
    pub fn show(&self, events: usize, state: &AgentState) {
        state.rounds.fetch_add(1, Ordering::Relaxed);
        state.events.fetch_add(events as u64, Ordering::Relaxed);
        let waits = self.graph.all().len() as u64;
        state.waits_now.store(waits, Ordering::Relaxed);
        let hints = self.hints.len() as u64;
        state.hints_now.store(hints, Ordering::Relaxed);
        state.deadlocks.store(self.deadlocks, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_come_in_a_burst_and_then_now_and_then() {
        const SECOND: u64 = 1_000_000_000;
        let mut reports = Reports::default();
        let made = |reports: &mut Reports, at_s: u64| {
            (0..100).filter(|_| reports.may(at_s * SECOND)).count()
        };
        assert_eq!(made(&mut reports, 1000), REPORTS_MAX as usize);
        assert_eq!(reports.left_out, 92);
        assert_eq!(made(&mut reports, 1009), 0);
        assert_eq!(made(&mut reports, 1011), 1);
        assert_eq!(made(&mut reports, 1032), 2);
        assert_eq!(made(&mut reports, 9999), REPORTS_MAX as usize);
    }
}
