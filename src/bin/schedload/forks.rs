// SPDX-License-Identifier: GPL-2.0-only
//! Owns the fork storm: tasks that fork a child, wait for its end, and fork the next.

use crate::crew;
use crate::shared::{Shared, Zeroed};
use crate::spec::Weight;
use crate::stage::{Part, Phase, Span, Stage};
use crate::summary::{Range, round};
use crate::work;
use anyhow::Result;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};

/// Written by one forker, in a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    forks: AtomicU64,
}

// SAFETY: all of it is atomic, and zero is valid.
unsafe impl Zeroed for Slot {}

#[derive(Debug)]
pub struct Forkers {
    slots: Shared<Slot>,
}

#[derive(Debug, Serialize)]
pub struct ForkersReport {
    jobs: usize,
    /// Of all together.
    forks_per_sec: f64,
    job_forks_per_sec: Range,
}

impl Forkers {
    /// `jobs` of them, whose children compute for `child_us` each.
    pub fn start(stage: &mut Stage, jobs: usize, child_us: u64) -> Result<Forkers> {
        let forkers = Forkers {
            slots: Shared::new(jobs)?,
        };
        let part = Part {
            weight: Weight::Nice(0),
            cpus: None,
            starts_on: None,
        };
        for slot in forkers.slots.iter() {
            stage.task(part, |phase| storm(slot, child_us * 1000, phase))?;
        }
        Ok(forkers)
    }

    pub fn report(&self, span: Span) -> ForkersReport {
        let rate = |slot: &Slot| round(slot.forks.load(Ordering::Relaxed) as f64 / span.secs());
        let each: Vec<_> = self.slots.iter().map(rate).collect();
        ForkersReport {
            jobs: each.len(),
            forks_per_sec: round(each.iter().sum()),
            job_forks_per_sec: Range::of(&each),
        }
    }
}

fn storm(slot: &Slot, child_ns: u64, phase: &Phase) -> i32 {
    let mut forks = 0;
    loop {
        let Ok(pid) = crew::fork(|| compute(child_ns)) else {
            return 1;
        };
        crew::wait(pid);
        if phase.since_ns().is_some() {
            forks += 1;
            slot.forks.store(forks, Ordering::Relaxed);
        }
    }
}

fn compute(ns: u64) -> i32 {
    work::compute(ns);
    0
}
