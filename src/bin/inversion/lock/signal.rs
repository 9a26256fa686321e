// SPDX-License-Identifier: GPL-2.0-only
//! Owns the recipes for waits of threads in a program that have no owner: condition variables,
//! semaphores, barriers of the C library. The owner is the thread that computes and then wakes the
//! waiter. It is known to this program only; the kernel sees a futex, and a scheduler has nobody that
//! it may lend to.

use super::pthread::{Kind, Mutex, check};
use super::{Recipe, Setup, compute};
use crate::shared::{Shared, Zeroed};
use crate::spawn::WorkerKind;
use anyhow::{Context, Result};
use std::cell::UnsafeCell;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

const TEMPLATE: Recipe = Recipe {
    name: "condvar",
    summary: "pthread condition variable: owner computes and signals",
    default_hogs: 1,
    by_default: false,
    donates: false,
    workers: WorkerKind::Threads,
    links: 1,
    pages_max: super::compute_max,
    unavailable: || None,
    build: |units| build(units, Signal::Condition),
};

pub static CONDVAR: Recipe = TEMPLATE;

pub static SEMAPHORE: Recipe = Recipe {
    name: "semaphore",
    summary: "sem_t: owner computes and posts",
    build: |units| build(units, Signal::Semaphore),
    ..TEMPLATE
};

pub static BARRIER: Recipe = Recipe {
    name: "barrier",
    summary: "pthread barrier: owner computes and comes to it last",
    build: |units| build(units, Signal::Barrier),
    ..TEMPLATE
};

#[derive(Clone, Copy)]
enum Signal {
    Condition,
    Semaphore,
    Barrier,
}

#[repr(C)]
struct Cells {
    is_set: AtomicBool,
    condition: UnsafeCell<libc::pthread_cond_t>,
    semaphore: UnsafeCell<libc::sem_t>,
    barrier: UnsafeCell<libc::pthread_barrier_t>,
}

// SAFETY: an atomic, and memory that only the C library looks into, after `reset` initialised it.
unsafe impl Zeroed for Cells {}

struct Signalled {
    cells: Shared<Cells>,
    /// Of the condition variable.
    mutex: Mutex,
    signal: Signal,
    units: usize,
}

fn build(units: usize, signal: Signal) -> Result<Box<dyn Setup>> {
    Ok(Box::new(Signalled {
        cells: Shared::new()?,
        mutex: Mutex::new(Kind::Normal)?,
        signal,
        units,
    }))
}

/// What pthread_barrier_wait() returns to one of the threads that came.
const LAST_AT_BARRIER: libc::c_int = -1;

impl Signalled {
    /// Makes all of them as new, since a trial that was broken off leaves anything behind.
    fn init(&self) -> io::Result<()> {
        let cells = &*self.cells;
        cells.is_set.store(false, Ordering::Relaxed);
        // SAFETY: memory large enough for each, which nobody uses between trials; no attributes means
        // the default ones.
        unsafe {
            let condition = cells.condition.get();
            condition.write(libc::PTHREAD_COND_INITIALIZER);
            check(libc::pthread_barrier_init(
                cells.barrier.get(),
                std::ptr::null(),
                2,
            ))?;
            sem_check(libc::sem_init(cells.semaphore.get(), 0, 0))
        }
    }

    fn await_condition(&self) -> io::Result<()> {
        self.mutex.lock()?;
        while !self.cells.is_set.load(Ordering::Relaxed) {
            // SAFETY: both are initialised and never move, and the mutex is the caller's.
            check(unsafe {
                libc::pthread_cond_wait(self.cells.condition.get(), self.mutex.raw())
            })?;
        }
        self.mutex.unlock()
    }

    fn signal_condition(&self) -> io::Result<()> {
        self.mutex.lock()?;
        self.cells.is_set.store(true, Ordering::Relaxed);
        // SAFETY: an initialised condition variable that never moves.
        check(unsafe { libc::pthread_cond_signal(self.cells.condition.get()) })?;
        self.mutex.unlock()
    }

    fn come_to_barrier(&self) -> io::Result<()> {
        // SAFETY: an initialised barrier that never moves.
        match unsafe { libc::pthread_barrier_wait(self.cells.barrier.get()) } {
            LAST_AT_BARRIER => Ok(()),
            error => check(error),
        }
    }
}

/// The semaphore functions set errno.
fn sem_check(result: libc::c_int) -> io::Result<()> {
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

impl Setup for Signalled {
    fn reset(&mut self) -> Result<()> {
        self.mutex.renew(Kind::Normal)?;
        self.init().context("cannot make a semaphore and a barrier")
    }

    fn hold(&self, _link: usize) -> io::Result<()> {
        compute(self.units);
        match self.signal {
            Signal::Condition => self.signal_condition(),
            // SAFETY: an initialised semaphore that never moves.
            Signal::Semaphore => sem_check(unsafe { libc::sem_post(self.cells.semaphore.get()) }),
            Signal::Barrier => self.come_to_barrier(),
        }
    }

    fn hold_alone(&self) -> io::Result<()> {
        compute(self.units);
        Ok(())
    }

    fn wait(&self) -> io::Result<()> {
        match self.signal {
            Signal::Condition => self.await_condition(),
            // SAFETY: an initialised semaphore that never moves.
            Signal::Semaphore => sem_check(unsafe { libc::sem_wait(self.cells.semaphore.get()) }),
            Signal::Barrier => self.come_to_barrier(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_first_each_lets_the_waiter_go() -> Result<()> {
        for recipe in [&CONDVAR, &SEMAPHORE, &BARRIER] {
            let mut setup = (recipe.build)(1)?;
            for _ in 0..2 {
                setup.reset()?;
                let setup = &*setup;
                std::thread::scope(|scope| {
                    let waiter = scope.spawn(|| setup.wait());
                    setup.hold(0)?;
                    waiter.join().unwrap_or(Ok(()))
                })?;
            }
        }
        Ok(())
    }
}
