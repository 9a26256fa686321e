// SPDX-License-Identifier: GPL-2.0-only
//! Owns times that tasks note, each in a room of its own: as many as fit, and how many there were.

use crate::shared::Shared;
use crate::summary::Micros;
use anyhow::Result;
use serde::Serialize;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Of all tasks together.
const SAMPLES_MAX: usize = 1 << 24;

#[derive(Debug)]
pub struct Samples {
    room: usize,
    /// How many each task has had; written by that task.
    counts: Shared<AtomicU64>,
    values_ns: Shared<AtomicU64>,
}

#[derive(Debug, Serialize)]
pub struct SamplesReport {
    #[serde(flatten)]
    micros: Micros,
    /// Samples for which there was no room.
    dropped: u64,
}

impl SamplesReport {
    pub fn samples(&self) -> usize {
        self.micros.samples
    }
}

impl Samples {
    /// For `tasks` tasks, each with `room` samples.
    pub fn new(tasks: usize, room: usize) -> Result<Samples> {
        let room = room.clamp(1, SAMPLES_MAX / tasks.max(1));
        Ok(Samples {
            room,
            counts: Shared::new(tasks)?,
            values_ns: Shared::new(tasks * room)?,
        })
    }

    /// Caller: task `nr`.
    pub fn add(&self, nr: usize, ns: u64) {
        let count = self.counts[nr].load(Ordering::Relaxed);
        if count < self.room as u64 {
            self.values_ns[nr * self.room + count as usize].store(ns, Ordering::Relaxed);
        }
        self.counts[nr].store(count + 1, Ordering::Release);
    }

    /// What task `nr` has noted.
    fn of(&self, nr: usize) -> impl Iterator<Item = u64> {
        let count = self.counts[nr].load(Ordering::Acquire);
        let kept = count.min(self.room as u64) as usize;
        let values = &self.values_ns[nr * self.room..][..kept];
        values.iter().map(|ns| ns.load(Ordering::Relaxed))
    }

    /// How many of task `nr` are not above `ns`.
    pub fn up_to(&self, nr: usize, ns: u64) -> usize {
        self.of(nr).filter(|sample_ns| *sample_ns <= ns).count()
    }

    /// Of the tasks that are in `tasks`.
    pub fn report(&self, tasks: Range<usize>) -> SamplesReport {
        let (mut all_ns, mut dropped) = (Vec::new(), 0);
        for nr in tasks {
            all_ns.extend(self.of(nr));
            let count = self.counts[nr].load(Ordering::Relaxed);
            dropped += count.saturating_sub(self.room as u64);
        }
        SamplesReport {
            micros: Micros::of(all_ns),
            dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() -> Result<()> {
        let samples = Samples::new(2, 2)?;
        for ns in [1000, 3000, 9000] {
            samples.add(0, ns);
        }
        samples.add(1, 5000);
        let report = samples.report(0..2);
        assert_eq!((report.micros.samples, report.dropped), (3, 1));
        assert_eq!((report.micros.p50_us, report.micros.max_us), (3.0, 5.0));
        assert_eq!(samples.report(1..2).samples(), 1);
        assert_eq!((samples.up_to(0, 1000), samples.up_to(0, 999)), (1, 0));
        Ok(())
    }
}
