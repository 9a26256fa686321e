// SPDX-License-Identifier: GPL-2.0-only
//! Owns the frames: once a period the first of three stages computes and wakes the second, and that the third, as
//! game, compositor and driver do. A frame that is not done within its period is late.

use crate::samples::{Samples, SamplesReport};
use crate::spec::Weight;
use crate::stage::{Part, Phase, Span, Stage};
use crate::summary::round;
use crate::{sys, work};
use anyhow::{Context, Result};
use scx_proxy::clock;
use serde::Serialize;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::time::Duration;

/// Who notes what: the last stage frames, the first how late it woke.
const LAST: usize = 0;
const FIRST: usize = 1;

#[derive(Debug)]
pub struct Frames {
    period_ns: u64,
    times_ns: Samples,
}

/// What the frames are.
#[derive(Debug)]
pub struct Plan {
    pub period_us: u64,
    /// CPU time of each stage.
    pub stage_us: u64,
    /// For how long is measured at the most.
    pub secs: Duration,
}

#[derive(Debug, Serialize)]
pub struct FramesReport {
    frames_per_sec: f64,
    /// Of the frames that were due and could be done, those that were not done in time.
    late_share: f64,
    /// From when it was due to begin until it was done.
    frame: SamplesReport,
    /// How late the first stage woke.
    wakeup: SamplesReport,
}

impl Frames {
    pub fn start(stage: &mut Stage, plan: &Plan) -> Result<Frames> {
        let period_ns = plan.period_us * 1000;
        let fit = plan.secs.as_nanos() / u128::from(period_ns);
        let frames = Frames {
            period_ns,
            times_ns: Samples::new(2, usize::try_from(fit).unwrap_or(usize::MAX - 2) + 2)?,
        };
        let part = Part {
            weight: Weight::Nice(0),
            cpus: None,
            starts_on: None,
        };
        let (work_ns, pipe) = (plan.stage_us * 1000, || {
            io::pipe().context("cannot make a pipe")
        });
        let ((second, to_second), (third, to_third)) = (pipe()?, pipe()?);
        stage.task(part, |phase| frames.first(work_ns, phase, &to_second))?;
        stage.task(part, |_| pass_on(work_ns, &second, &to_third))?;
        stage.task(part, |phase| frames.last(work_ns, phase, &third))?;
        Ok(frames)
    }

    fn first(&self, work_ns: u64, phase: &Phase, mut to: &PipeWriter) -> i32 {
        sys::least_timer_slack();
        let mut due_ns = clock::monotonic_ns();
        loop {
            due_ns += self.period_ns;
            let now_ns = clock::monotonic_ns();
            if now_ns < due_ns {
                sys::nanosleep(due_ns - now_ns);
                if counts(phase, due_ns) {
                    let late_ns = clock::monotonic_ns().saturating_sub(due_ns);
                    self.times_ns.add(FIRST, late_ns);
                }
            }
            work::compute(work_ns);
            if to.write_all(&due_ns.to_ne_bytes()).is_err() {
                return 1;
            }
        }
    }

    fn last(&self, work_ns: u64, phase: &Phase, from: &PipeReader) -> i32 {
        while let Some(due_ns) = next(from) {
            work::compute(work_ns);
            if counts(phase, due_ns) {
                let frame_ns = clock::monotonic_ns().saturating_sub(due_ns);
                self.times_ns.add(LAST, frame_ns);
            }
        }
        1
    }

    pub fn report(&self, span: Span) -> FramesReport {
        let frame = self.times_ns.report(LAST..LAST + 1);
        // that of the last period may be on its way
        let due = (span.to_ns.saturating_sub(span.from_ns) / self.period_ns).saturating_sub(1);
        let in_time = self.times_ns.up_to(LAST, self.period_ns) as f64;
        FramesReport {
            frames_per_sec: round(frame.samples() as f64 / span.secs()),
            late_share: round((1.0 - in_time / due.max(1) as f64).max(0.0)),
            frame,
            wakeup: self.times_ns.report(FIRST..FIRST + 1),
        }
    }
}

fn counts(phase: &Phase, due_ns: u64) -> bool {
    phase.since_ns().is_some_and(|since_ns| due_ns >= since_ns)
}

/// The next frame: when it was due.
fn next(mut from: &PipeReader) -> Option<u64> {
    let mut due_ns = [0; 8];
    from.read_exact(&mut due_ns).ok()?;
    Some(u64::from_ne_bytes(due_ns))
}

fn pass_on(work_ns: u64, from: &PipeReader, mut to: &PipeWriter) -> i32 {
    while let Some(due_ns) = next(from) {
        work::compute(work_ns);
        if to.write_all(&due_ns.to_ne_bytes()).is_err() {
            break;
        }
    }
    1
}
