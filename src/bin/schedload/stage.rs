// SPDX-License-Identifier: GPL-2.0-only
//! Owns the order of a run: tasks are started and held, released together, left to settle, measured, ended.
//! `Phase` is written by the parent only, but for `ready`.

use crate::cli::Time;
use crate::crew::Crew;
use crate::shared::{Shared, Zeroed};
use crate::spec::Weight;
use crate::sys;
use anyhow::{Result, bail};
use scx_proxy::{clock, output};
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// In guest time; thousands of tasks take long to start on emulated CPUs.
const READY_LIMIT: Duration = Duration::from_secs(300);
const READY_STEP: Duration = Duration::from_millis(1);
const DONE_STEP: Duration = Duration::from_millis(10);
const DONE_LIMIT: Duration = Duration::from_secs(3600);

/// What all tasks see of the run.
#[derive(Debug)]
#[repr(align(64))]
pub struct Phase {
    released: AtomicU32,
    ready: AtomicU32,
    /// When measuring began; 0 before that.
    since_ns: AtomicU64,
}

// SAFETY: all of it is atomic, and zero is valid.
unsafe impl Zeroed for Phase {}

impl Phase {
    /// When measuring began, if it has.
    pub fn since_ns(&self) -> Option<u64> {
        match self.since_ns.load(Ordering::Relaxed) {
            0 => None,
            since_ns => Some(since_ns),
        }
    }

    fn hold(&self) {
        self.ready.fetch_add(1, Ordering::Relaxed);
        while self.released.load(Ordering::Acquire) == 0 {
            sys::futex_wait_while_0(&self.released);
        }
    }
}

/// What a task is given before it does anything.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    pub weight: Weight,
    /// None: every CPU.
    pub cpus: Option<&'a [usize]>,
    /// It waits for its release on this CPU.
    pub starts_on: Option<usize>,
}

/// The time that was measured.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub from_ns: u64,
    pub to_ns: u64,
}

impl Span {
    pub fn secs(self) -> f64 {
        self.to_ns.saturating_sub(self.from_ns) as f64 / 1e9
    }
}

#[derive(Debug)]
pub struct Stage {
    phase: Shared<Phase>,
    crew: Crew,
    tasks: u32,
}

impl Stage {
    pub fn new() -> Result<Stage> {
        Ok(Stage {
            phase: Shared::new(1)?,
            crew: Crew::default(),
            tasks: 0,
        })
    }

    /// Starts a task, which runs `body` once it is released.
    pub fn task(&mut self, part: Part, body: impl FnOnce(&Phase) -> i32) -> Result<libc::pid_t> {
        let phase = &self.phase[0];
        let pid = self.crew.fork(|| match play(part, phase) {
            Ok(()) => body(phase),
            Err(error) => {
                output::print_error(&format!("schedload: {part:?}: {error}\n"));
                1
            }
        })?;
        self.tasks += 1;
        Ok(pid)
    }

    /// Releases all tasks, lets them settle, and begins to measure; the time is returned.
    pub fn begin(&mut self, settle: Duration) -> Result<u64> {
        let phase = &self.phase[0];
        let start = Instant::now();
        while phase.ready.load(Ordering::Relaxed) < self.tasks {
            self.crew.check()?;
            if start.elapsed() > READY_LIMIT {
                bail!("not all of {} tasks ran within {READY_LIMIT:?}", self.tasks);
            }
            std::thread::sleep(READY_STEP);
        }
        // after the forks, which would copy what is locked
        sys::lock_memory();
        phase.released.store(1, Ordering::Release);
        sys::futex_wake_all(&phase.released);
        std::thread::sleep(settle);
        let from_ns = clock::monotonic_ns();
        phase.since_ns.store(from_ns, Ordering::Relaxed);
        Ok(from_ns)
    }

    /// Measures for that long. No task may have ended by then.
    pub fn last(&mut self, time: &Time) -> Result<u64> {
        std::thread::sleep(time.secs);
        let to_ns = clock::monotonic_ns();
        self.crew.check()?;
        Ok(to_ns)
    }

    /// Measures until `done`; then tasks may have ended.
    pub fn until(&mut self, mut done: impl FnMut() -> bool) -> Result<u64> {
        let start = Instant::now();
        while !done() {
            if start.elapsed() > DONE_LIMIT {
                bail!("not done within {DONE_LIMIT:?}");
            }
            std::thread::sleep(DONE_STEP);
        }
        Ok(clock::monotonic_ns())
    }
}

/// The first steps of a task, until it is released.
fn play(part: Part, phase: &Phase) -> io::Result<()> {
    if let Some(cpu) = part.starts_on {
        sys::run_on(&[cpu])?;
    } else if let Some(cpus) = part.cpus {
        sys::run_on(cpus)?;
    }
    sys::set_weight(part.weight)?;
    phase.hold();
    match (part.starts_on, part.cpus) {
        (Some(_), Some(cpus)) => sys::run_on(cpus),
        _ => Ok(()),
    }
}
