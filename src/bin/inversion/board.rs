// SPDX-License-Identifier: GPL-2.0-only
//! Owns the memory shared by the workers and the parent of one trial: what each worker measured around its
//! syscall, and what the waiter saw of the holders just before its own.
//!
//! Written by: a `Slot` only its own worker; `seen_*` only the waiter. The phase is stored last
//! (release) and read first (acquire), so what was stored before it is complete.

use crate::lock::LINKS_MAX;
use crate::shared::{Shared, Zeroed};
use crate::sys;
use crate::task::Task;
use std::io;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

/// What zeroed memory says: the worker has not come to its gate yet.
#[cfg(test)]
const PHASE_STARTING: u32 = 0;
pub const PHASE_READY: u32 = 1;
pub const PHASE_INSIDE: u32 = 2;
pub const PHASE_DONE: u32 = 3;

#[derive(Debug)]
#[repr(C)]
pub struct Slot {
    phase: AtomicU32,
    task_id: AtomicI32,
    errno: AtomicU32,
    enter_cpu_ns: AtomicU64,
    leave_cpu_ns: AtomicU64,
    enter_ns: AtomicU64,
    leave_ns: AtomicU64,
    switches: AtomicU64,
    run_delay_ns: AtomicU64,
}

impl Slot {
    pub fn phase(&self) -> u32 {
        self.phase.load(Ordering::Acquire)
    }

    /// Called by the worker itself.
    pub fn set_ready(&self) {
        self.task_id.store(Task::current().id(), Ordering::Relaxed);
        self.phase.store(PHASE_READY, Ordering::Release);
    }

    /// The worker, once it is ready; it lasts as long as the process that it lives in.
    pub fn task(&self) -> Task {
        Task::new(self.task_id.load(Ordering::Relaxed))
    }

    /// Keeps the error that ended the worker's part.
    pub fn fail(&self, error: &io::Error) {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        self.errno.store(errno as u32, Ordering::Relaxed);
    }

    /// Runs the worker's syscall between two readings of its clocks.
    pub fn measure(&self, syscall: impl FnOnce() -> io::Result<()>) {
        let switches = sys::voluntary_switches();
        let run_delay_ns = sys::own_run_delay_ns();
        self.enter_cpu_ns
            .store(sys::own_cpu_ns(), Ordering::Relaxed);
        self.phase.store(PHASE_INSIDE, Ordering::Release);
        self.enter_ns.store(sys::monotonic_ns(), Ordering::Relaxed);
        let result = syscall();
        self.leave_ns.store(sys::monotonic_ns(), Ordering::Relaxed);
        self.leave_cpu_ns
            .store(sys::own_cpu_ns(), Ordering::Relaxed);
        self.switches
            .store(sys::voluntary_switches() - switches, Ordering::Relaxed);
        let delayed_ns = sys::own_run_delay_ns().saturating_sub(run_delay_ns);
        self.run_delay_ns.store(delayed_ns, Ordering::Relaxed);
        if let Err(error) = result {
            self.fail(&error);
        }
        self.phase.store(PHASE_DONE, Ordering::Release);
    }

    pub fn error(&self) -> Option<io::Error> {
        match self.errno.load(Ordering::Relaxed) {
            0 => None,
            errno => Some(io::Error::from_raw_os_error(errno as i32)),
        }
    }

    pub fn enter_cpu_ns(&self) -> u64 {
        self.enter_cpu_ns.load(Ordering::Relaxed)
    }

    pub fn leave_cpu_ns(&self) -> u64 {
        self.leave_cpu_ns.load(Ordering::Relaxed)
    }

    /// When the syscall began, by CLOCK_MONOTONIC, which all workers share.
    pub fn enter_ns(&self) -> u64 {
        self.enter_ns.load(Ordering::Relaxed)
    }

    pub fn wall_ns(&self) -> u64 {
        self.leave_ns
            .load(Ordering::Relaxed)
            .saturating_sub(self.enter_ns())
    }

    /// How long the worker was awake in its syscall: ran, or had to wait for a CPU itself.
    pub fn awake_ns(&self) -> u64 {
        let ran_ns = self.leave_cpu_ns().saturating_sub(self.enter_cpu_ns());
        self.run_delay_ns.load(Ordering::Relaxed) + ran_ns
    }

    /// How often the worker went to sleep in its syscall.
    pub fn switches(&self) -> u64 {
        self.switches.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
#[repr(C)]
pub struct Layout {
    /// The holders of the chain's locks, end owner first.
    pub holders: [Slot; LINKS_MAX],
    pub waiter: Slot,
    seen_cpu_ns: [AtomicU64; LINKS_MAX],
    seen_inside: [AtomicU32; LINKS_MAX],
    seen_policy: AtomicU32,
}

impl Layout {
    /// The slots of the holders of a chain of so many locks, end owner first.
    pub fn owners(&self, links: usize) -> impl Iterator<Item = &Slot> {
        self.holders.iter().take(links)
    }

    /// The same, and the waiter's.
    pub fn workers(&self, links: usize) -> impl Iterator<Item = &Slot> {
        self.owners(links).chain(std::iter::once(&self.waiter))
    }

    /// Called by the waiter just before its syscall: what has each holder used by now, and is it
    /// still inside? The clock is read first, so an `inside` holds for the moment of the clock.
    pub fn look_at_holders(&self, links: usize) {
        for (link, holder) in self.owners(links).enumerate() {
            let Ok(cpu_ns) = holder.task().cpu_ns() else {
                continue;
            };
            let inside = holder.phase() == PHASE_INSIDE;
            self.seen_cpu_ns[link].store(cpu_ns, Ordering::Relaxed);
            self.seen_inside[link].store(u32::from(inside), Ordering::Relaxed);
        }
    }

    /// Called by the waiter too: has it the policy that it was to have?
    pub fn note_policy(&self, is_right: bool) {
        self.seen_policy
            .store(u32::from(is_right), Ordering::Relaxed);
    }

    pub fn seen_policy(&self) -> bool {
        self.seen_policy.load(Ordering::Relaxed) != 0
    }

    pub fn seen_cpu_ns(&self, link: usize) -> u64 {
        self.seen_cpu_ns[link].load(Ordering::Relaxed)
    }

    pub fn seen_inside(&self, link: usize) -> bool {
        self.seen_inside[link].load(Ordering::Relaxed) != 0
    }
}

// SAFETY: it is made of atomics, for which zero is a value like any other.
unsafe impl Zeroed for Layout {}

pub type Board = Shared<Layout>;

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Result;

    #[test]
    fn a_slot_goes_through_its_phases() -> Result<()> {
        let board = Board::new()?;
        let slot = &board.holders[0];
        assert_eq!(slot.phase(), PHASE_STARTING);
        slot.set_ready();
        assert_eq!(slot.phase(), PHASE_READY);
        slot.measure(|| {
            assert_eq!(slot.phase(), PHASE_INSIDE);
            std::thread::sleep(std::time::Duration::from_millis(2));
            Ok(())
        });
        assert_eq!(slot.phase(), PHASE_DONE);
        assert!(slot.wall_ns() >= 2_000_000);
        assert!(slot.switches() >= 1);
        assert!(slot.error().is_none());
        assert!(slot.leave_cpu_ns() >= slot.enter_cpu_ns());
        Ok(())
    }

    #[test]
    fn an_error_is_kept() -> Result<()> {
        let board = Board::new()?;
        board
            .waiter
            .measure(|| Err(io::Error::from_raw_os_error(libc::EBADF)));
        let error = board.waiter.error().and_then(|error| error.raw_os_error());
        assert_eq!(error, Some(libc::EBADF));
        Ok(())
    }
}
