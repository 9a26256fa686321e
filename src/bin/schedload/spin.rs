// SPDX-License-Identifier: GPL-2.0-only
//! Owns the spinners: tasks that read the clock in a loop and remember the longest gap between two readings.

use crate::shared::{Shared, Zeroed};
use crate::spec::Group;
use crate::stage::{Part, Phase, Span, Stage};
use crate::summary::{Range, round};
use crate::sys;
use anyhow::{Context, Result};
use scx_proxy::clock;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};

/// Written by one spinner, in a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    standstill_ns: AtomicU64,
    seen_ns: AtomicU64,
}

// SAFETY: all of it is atomic, and zero is valid.
unsafe impl Zeroed for Slot {}

#[derive(Debug)]
pub struct Spinners {
    groups: Vec<Group>,
    pids: Vec<libc::pid_t>,
    slots: Shared<Slot>,
}

/// CPU time of a spinner, and when it was read.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    at_ns: u64,
    cpu_ns: u64,
}

#[derive(Debug, Serialize)]
pub struct GroupReport {
    spec: String,
    count: u32,
    /// CPU time over time.
    share: Range,
    standstill_max_us: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    spinners: Vec<SpinnerReport>,
}

#[derive(Debug, Serialize)]
pub struct SpinnerReport {
    share: f64,
    standstill_max_us: f64,
}

impl Spinners {
    pub fn start(stage: &mut Stage, groups: &[Group]) -> Result<Spinners> {
        let count = groups.iter().map(|group| group.count as usize).sum();
        let mut spinners = Spinners {
            groups: groups.to_vec(),
            pids: Vec::with_capacity(count),
            slots: Shared::new(count)?,
        };
        for group in groups {
            let cpus = group.cpus.as_ref().map(|cpus| cpus.0.as_slice());
            sys::check_cpus(cpus.unwrap_or_default())?;
            let part = Part {
                weight: group.weight,
                cpus,
                starts_on: None,
            };
            for _ in 0..group.count {
                let slot = &spinners.slots[spinners.pids.len()];
                let pid = stage.task(part, |phase| spin(slot, phase))?;
                spinners.pids.push(pid);
            }
        }
        Ok(spinners)
    }

    pub fn read(&self) -> Result<Vec<Reading>> {
        let read = |pid: &libc::pid_t| {
            Ok(Reading {
                cpu_ns: sys::cpu_time_ns(*pid).context("cannot read a spinner's CPU time")?,
                at_ns: clock::monotonic_ns(),
            })
        };
        self.pids.iter().map(read).collect()
    }

    /// A report a group; with a line a spinner if `each`.
    pub fn report(
        &self,
        span: Span,
        before: &[Reading],
        after: &[Reading],
        each: bool,
    ) -> Vec<GroupReport> {
        let mut all = before.iter().zip(after).zip(self.slots.iter());
        let report = |group: &Group| {
            let spinners: Vec<_> = all
                .by_ref()
                .take(group.count as usize)
                .map(|((before, after), slot)| SpinnerReport {
                    share: share(*before, *after),
                    standstill_max_us: slot.standstill_ns(span) as f64 / 1e3,
                })
                .collect();
            let shares: Vec<_> = spinners.iter().map(|spinner| spinner.share).collect();
            let standstills = spinners.iter().map(|spinner| spinner.standstill_max_us);
            GroupReport {
                spec: group.text.clone(),
                count: group.count,
                share: Range::of(&shares),
                standstill_max_us: standstills.fold(0.0, f64::max),
                spinners: if each { spinners } else { Vec::new() },
            }
        };
        self.groups.iter().map(report).collect()
    }
}

fn share(before: Reading, after: Reading) -> f64 {
    let time_ns = after.at_ns.saturating_sub(before.at_ns).max(1);
    round(after.cpu_ns.saturating_sub(before.cpu_ns) as f64 / time_ns as f64)
}

impl Slot {
    /// Also of a spinner that stands still at the end, or has all the while.
    fn standstill_ns(&self, span: Span) -> u64 {
        let seen_ns = self.seen_ns.load(Ordering::Relaxed).max(span.from_ns);
        let last_ns = span.to_ns.saturating_sub(seen_ns);
        self.standstill_ns.load(Ordering::Relaxed).max(last_ns)
    }
}

fn spin(slot: &Slot, phase: &Phase) -> i32 {
    let (mut last_ns, mut longest_ns) = (clock::monotonic_ns(), 0);
    loop {
        let now_ns = clock::monotonic_ns();
        if let Some(since_ns) = phase.since_ns() {
            let gap_ns = now_ns.saturating_sub(last_ns.max(since_ns));
            if gap_ns > longest_ns {
                longest_ns = gap_ns;
                slot.standstill_ns.store(gap_ns, Ordering::Relaxed);
            }
            slot.seen_ns.store(now_ns, Ordering::Relaxed);
        }
        last_ns = now_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_never_ran_stood_still_all_the_while() {
        let span = Span {
            from_ns: 1000,
            to_ns: 5000,
        };
        for (standstill_ns, seen_ns, wanted_ns) in
            [(0, 0, 4000), (300, 4900, 300), (300, 4000, 1000)]
        {
            let slot = Slot {
                standstill_ns: AtomicU64::new(standstill_ns),
                seen_ns: AtomicU64::new(seen_ns),
            };
            assert_eq!(slot.standstill_ns(span), wanted_ns);
        }
    }
}
