// SPDX-License-Identifier: GPL-2.0-only
//! Owns requests and workers: a messenger posts requests at a fixed rate into one queue, and workers that wait there
//! take one each and compute. The rate does not ask how far the workers are: a request counts from when it was due,
//! and is lost if the queue is full.

use crate::samples::{Samples, SamplesReport};
use crate::shared::{Shared, Zeroed};
use crate::spec::Weight;
use crate::stage::{Part, Phase, Span, Stage};
use crate::summary::round;
use crate::{sys, work};
use anyhow::{Context, Result};
use scx_proxy::clock;
use serde::Serialize;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Of a request in the queue; a divisor of a page, so that nobody reads half of one.
const REQUEST_BYTES: usize = 128;

/// 32 to 64 requests: a pipe's page is free again when all of it has been read.
const QUEUE_BYTES: usize = 8192;

/// What the workers have done is in `done` of their slot, the messenger's is in the last.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    done: AtomicU64,
    lost: AtomicU64,
}

// SAFETY: all of it is atomic, and zero is valid.
unsafe impl Zeroed for Slot {}

#[derive(Debug)]
pub struct Requests {
    workers: usize,
    slots: Shared<Slot>,
    /// From when a request was posted until a worker that had slept had it; of the messenger, how late it woke.
    wakeups_ns: Samples,
    requests_ns: Samples,
}

/// What the requests are.
#[derive(Debug)]
pub struct Plan {
    pub workers: usize,
    pub work_us: u64,
    pub interval_ns: u64,
    /// For how long is measured at the most.
    pub secs: Duration,
}

#[derive(Debug, Serialize)]
pub struct RequestsReport {
    workers: usize,
    /// Done, of all workers together.
    requests_per_sec: f64,
    /// Found no room in the queue.
    lost_per_sec: f64,
    /// From when it was due until it was done.
    request: SamplesReport,
    /// From when it was posted until a worker that had slept had it.
    wakeup: SamplesReport,
    /// How late the messenger woke.
    messenger: SamplesReport,
}

impl Requests {
    pub fn start(stage: &mut Stage, plan: &Plan) -> Result<Requests> {
        let fit = plan.secs.as_nanos() / u128::from(plan.interval_ns.max(1));
        // a request that was due before measuring began is not counted, but a worker may have all others
        let room = usize::try_from(fit).unwrap_or(usize::MAX).saturating_add(2);
        let requests = Requests {
            workers: plan.workers,
            slots: Shared::new(plan.workers + 1)?,
            wakeups_ns: Samples::new(plan.workers + 1, room)?,
            requests_ns: Samples::new(plan.workers, room)?,
        };
        let (queue, post) = io::pipe().context("cannot make a pipe")?;
        sys::pipe_bytes(&post, QUEUE_BYTES).context("cannot make a pipe small")?;
        sys::never_block(&post).context("cannot make a pipe refuse what does not fit")?;
        let part = Part {
            weight: Weight::Nice(0),
            cpus: None,
            starts_on: None,
        };
        for nr in 0..plan.workers {
            stage.task(part, |phase| requests.work(nr, plan.work_us, phase, &queue))?;
        }
        stage.task(part, |phase| requests.post(plan.interval_ns, phase, &post))?;
        Ok(requests)
    }

    fn work(&self, nr: usize, work_us: u64, phase: &Phase, mut queue: &PipeReader) -> i32 {
        let mut done = 0;
        loop {
            let sleeps = sys::is_empty(queue);
            let mut bytes = [0; REQUEST_BYTES];
            if queue.read_exact(&mut bytes).is_err() {
                return 1;
            }
            let (due_ns, posted_ns) = unpack(&bytes);
            let counts = phase.since_ns().is_some_and(|since_ns| due_ns >= since_ns);
            if counts && sleeps {
                let wakeup_ns = clock::monotonic_ns().saturating_sub(posted_ns);
                self.wakeups_ns.add(nr, wakeup_ns);
            }
            work::compute(work_us * 1000);
            if counts {
                let request_ns = clock::monotonic_ns().saturating_sub(due_ns);
                self.requests_ns.add(nr, request_ns);
            }
            // one that was due earlier is work done all the same
            if phase.since_ns().is_some() {
                done += 1;
                self.slots[nr].done.store(done, Ordering::Relaxed);
            }
        }
    }

    fn post(&self, interval_ns: u64, phase: &Phase, mut post: &PipeWriter) -> i32 {
        let own = self.workers;
        let mut lost = 0;
        sys::least_timer_slack();
        let mut due_ns = clock::monotonic_ns();
        loop {
            due_ns += interval_ns;
            let mut now_ns = clock::monotonic_ns();
            let counts = phase.since_ns().is_some_and(|since_ns| due_ns >= since_ns);
            if now_ns < due_ns {
                sys::nanosleep(due_ns - now_ns);
                now_ns = clock::monotonic_ns();
                if counts {
                    self.wakeups_ns.add(own, now_ns.saturating_sub(due_ns));
                }
            }
            match post.write_all(&pack(due_ns, now_ns)) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    lost += u64::from(counts);
                    self.slots[own].lost.store(lost, Ordering::Relaxed);
                }
                Err(_) => return 1,
            }
        }
    }

    pub fn report(&self, span: Span) -> RequestsReport {
        let per_sec = |count: u64| round(count as f64 / span.secs());
        let done = |slot: &Slot| slot.done.load(Ordering::Relaxed);
        RequestsReport {
            workers: self.workers,
            requests_per_sec: per_sec(self.slots.iter().map(done).sum()),
            lost_per_sec: per_sec(self.slots[self.workers].lost.load(Ordering::Relaxed)),
            request: self.requests_ns.report(0..self.workers),
            wakeup: self.wakeups_ns.report(0..self.workers),
            messenger: self.wakeups_ns.report(self.workers..self.workers + 1),
        }
    }
}

fn pack(due_ns: u64, posted_ns: u64) -> [u8; REQUEST_BYTES] {
    let mut bytes = [0; REQUEST_BYTES];
    bytes[..8].copy_from_slice(&due_ns.to_ne_bytes());
    bytes[8..16].copy_from_slice(&posted_ns.to_ne_bytes());
    bytes
}

fn unpack(bytes: &[u8; REQUEST_BYTES]) -> (u64, u64) {
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_ne_bytes(word)
    };
    (word(0), word(8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_as_it_was_posted() {
        assert_eq!(unpack(&pack(5, u64::MAX)), (5, u64::MAX));
        assert_eq!(4096 % REQUEST_BYTES, 0);
    }
}
