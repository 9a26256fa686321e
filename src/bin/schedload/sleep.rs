// SPDX-License-Identifier: GPL-2.0-only
//! Owns the sleepers: tasks that sleep for a time, again and again, and note how much later they ran.

use crate::shared::{Shared, Zeroed};
use crate::spec::Weight;
use crate::stage::{Part, Phase, Span, Stage};
use crate::summary::Micros;
use crate::sys;
use anyhow::Result;
use scx_proxy::clock;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Samples of all sleepers together.
const SAMPLES_MAX: u64 = 1 << 24;

/// Written by one sleeper, in a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    /// When the sleep that goes on began; 0 if none does.
    asleep_since_ns: AtomicU64,
    /// How many sleeps have ended; of these, as many as there is room for are kept.
    ended: AtomicU64,
}

// SAFETY: all of it is atomic, and zero is valid.
unsafe impl Zeroed for Slot {}

#[derive(Debug)]
pub struct Sleepers {
    sleep_ns: u64,
    slots: Shared<Slot>,
    room: usize,
    lateness_ns: Shared<AtomicU64>,
}

/// What the sleepers are.
#[derive(Debug)]
pub struct Plan<'a> {
    pub count: usize,
    pub sleep_us: u64,
    /// Each is pinned to one of these in turn; empty: they run anywhere.
    pub cpus: &'a [usize],
    pub nice: i32,
    /// For how long is measured at the most.
    pub secs: Duration,
}

#[derive(Debug, Serialize)]
pub struct SleepersReport {
    count: usize,
    sleep_us: f64,
    lateness: Micros,
    /// Samples for which there was no room.
    dropped: u64,
    /// Sleepers that should have run, and had not when measuring ended; they are samples, too.
    unfinished: usize,
}

impl Sleepers {
    pub fn start(stage: &mut Stage, plan: &Plan) -> Result<Sleepers> {
        sys::check_cpus(plan.cpus)?;
        let fit = u64::try_from(plan.secs.as_micros()).unwrap_or(u64::MAX) / plan.sleep_us;
        let room = (fit.saturating_add(2)).min(SAMPLES_MAX / plan.count as u64) as usize;
        let sleepers = Sleepers {
            sleep_ns: plan.sleep_us * 1000,
            slots: Shared::new(plan.count)?,
            room,
            lateness_ns: Shared::new(plan.count * room)?,
        };
        for nr in 0..plan.count {
            let cpu = plan.cpus.iter().cycle().nth(nr).map(std::slice::from_ref);
            let part = Part {
                weight: Weight::Nice(plan.nice),
                cpus: cpu,
                starts_on: None,
            };
            stage.task(part, |phase| sleepers.sleep(nr, phase))?;
        }
        Ok(sleepers)
    }

    fn samples(&self, nr: usize) -> &[AtomicU64] {
        &self.lateness_ns[nr * self.room..][..self.room]
    }

    fn sleep(&self, nr: usize, phase: &Phase) -> i32 {
        let (slot, samples) = (&self.slots[nr], self.samples(nr));
        sys::least_timer_slack();
        let mut ended = 0;
        loop {
            let since_ns = clock::monotonic_ns();
            slot.asleep_since_ns.store(since_ns, Ordering::Relaxed);
            sys::nanosleep(self.sleep_ns);
            let now_ns = clock::monotonic_ns();
            slot.asleep_since_ns.store(0, Ordering::Relaxed);
            if phase.since_ns().is_none_or(|begun_ns| since_ns < begun_ns) {
                continue;
            }
            let late_ns = now_ns.saturating_sub(since_ns + self.sleep_ns);
            if let Some(sample) = samples.get(ended) {
                sample.store(late_ns, Ordering::Relaxed);
            }
            ended += 1;
            slot.ended.store(ended as u64, Ordering::Release);
        }
    }

    pub fn report(&self, span: Span) -> SleepersReport {
        let (mut lateness_ns, mut dropped, mut unfinished) = (Vec::new(), 0, 0);
        for (nr, slot) in self.slots.iter().enumerate() {
            let asleep_since_ns = slot.asleep_since_ns.load(Ordering::Relaxed);
            let ended = slot.ended.load(Ordering::Acquire);
            let kept = self.samples(nr).iter().take(ended as usize);
            lateness_ns.extend(kept.map(|sample| sample.load(Ordering::Relaxed)));
            dropped += ended.saturating_sub(self.room as u64);
            let due_ns = asleep_since_ns + self.sleep_ns;
            if asleep_since_ns != 0 && span.to_ns > due_ns {
                unfinished += 1;
                lateness_ns.push(span.to_ns - due_ns.max(span.from_ns));
            }
        }
        SleepersReport {
            count: self.slots.len(),
            sleep_us: self.sleep_ns as f64 / 1e3,
            lateness: Micros::of(lateness_ns),
            dropped,
            unfinished,
        }
    }
}
