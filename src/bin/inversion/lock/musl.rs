// SPDX-License-Identifier: GPL-2.0-only
//! Owns the recipe for a mutex as musl lays it out whose futex word is the owner's thread id
//! (recursive, error-checking or robust): made by hand, with futex system calls. The word is the second of
//! the mutex, 4 bytes into it.
//!
//! After src/thread/pthread_mutex_timedlock.c and pthread_mutex_unlock.c of musl 1.2.

use super::by_hand::{self, Locked, Mutex as _};
use super::{Recipe, Setup, compute};
use crate::shared::{Shared, Zeroed};
use crate::spawn::WorkerKind;
use anyhow::Result;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

const TEMPLATE: Recipe = Recipe {
    name: "musl_mutex",
    summary: "mutex as musl's recursive one: owner computes, waiter locks it (FUTEX_WAIT)",
    default_hogs: 2,
    by_default: false,
    donates: true,
    workers: WorkerKind::Threads,
    links: 1,
    pages_max: super::compute_max,
    unavailable: || None,
    build: |units| build(units, 0),
};

pub static RECIPE: Recipe = TEMPLATE;

pub static SLOW_WAKE: Recipe = Recipe {
    name: "musl_slow_wake",
    summary: "the same, while its owner computes between the release and FUTEX_WAKE, when the word names nobody",
    build: |units| build(units, units / 12),
    ..TEMPLATE
};

fn build(units: usize, units_released: usize) -> Result<Box<dyn Setup>> {
    let mutex = Mutex {
        units_released,
        ..Mutex::new()?
    };
    Ok(Box::new(Locked { mutex, units }))
}

const WAITERS: u32 = 0x8000_0000;
const RECURSIVE: u32 = 1;

#[repr(C, align(8))]
struct Cell {
    kind: AtomicU32,
    lock: AtomicU32,
    waiters: AtomicU32,
}

// SAFETY: atomics, for which zero is a value.
unsafe impl Zeroed for Cell {}

struct Mutex {
    cell: Shared<Cell>,
    /// What its owner computes once it has released it.
    units_released: usize,
}

impl Mutex {
    fn new() -> Result<Mutex> {
        let mutex = Mutex {
            cell: Shared::new()?,
            units_released: 0,
        };
        mutex.renew();
        Ok(mutex)
    }

    fn futex(&self, op: libc::c_int, value: u32) -> io::Result<()> {
        // SAFETY: a word that lives as long as `self`; no timeout.
        let result = unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.cell.lock.as_ptr(),
                op | libc::FUTEX_PRIVATE_FLAG,
                value,
                std::ptr::null::<libc::timespec>(),
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl by_hand::Mutex for Mutex {
    fn renew(&self) {
        self.cell.kind.store(RECURSIVE, Ordering::SeqCst);
        self.cell.lock.store(0, Ordering::SeqCst);
        self.cell.waiters.store(0, Ordering::SeqCst);
    }

    fn lock(&self) -> io::Result<()> {
        // SAFETY: gettid has no preconditions.
        let id = unsafe { libc::gettid() } as u32;
        let cell = &*self.cell;
        loop {
            let waiters = match cell.waiters.load(Ordering::SeqCst) {
                0 => 0,
                _ => WAITERS,
            };
            let taken =
                cell.lock
                    .compare_exchange(0, id | waiters, Ordering::SeqCst, Ordering::SeqCst);
            let Err(found) = taken else { return Ok(()) };
            cell.waiters.fetch_add(1, Ordering::SeqCst);
            let _ = cell.lock.compare_exchange(
                found,
                found | WAITERS,
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
            let slept = self.futex(libc::FUTEX_WAIT, found | WAITERS);
            cell.waiters.fetch_sub(1, Ordering::SeqCst);
            match slept {
                Err(e) if !matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {
                    return Err(e);
                }
                _ => {}
            }
        }
    }

    fn unlock(&self) -> io::Result<()> {
        let was = self.cell.lock.swap(0, Ordering::SeqCst);
        compute(self.units_released);
        if was & WAITERS != 0 || self.cell.waiters.load(Ordering::SeqCst) != 0 {
            self.futex(libc::FUTEX_WAKE, 1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_the_second_and_names_the_owner() -> Result<()> {
        let mutex = Mutex::new()?;
        let (start, word) = (&raw const *mutex.cell, &raw const mutex.cell.lock);
        assert_eq!((start as usize % 8, word as usize - start as usize), (0, 4));
        mutex.lock()?;
        // SAFETY: gettid has no preconditions.
        let id = unsafe { libc::gettid() } as u32;
        assert_eq!(mutex.cell.lock.load(Ordering::SeqCst), id);
        mutex.unlock()?;
        assert_eq!(mutex.cell.lock.load(Ordering::SeqCst), 0);
        Ok(())
    }

    #[test]
    fn several_threads_have_it_one_at_a_time() -> Result<()> {
        let (mutex, inside) = (Mutex::new()?, AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        mutex.lock().expect("lock");
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        mutex.unlock().expect("unlock");
                    }
                });
            }
        });
        Ok(())
    }
}
