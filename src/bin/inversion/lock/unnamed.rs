// SPDX-License-Identifier: GPL-2.0-only
//! Owns the recipes for locks of programs that are futexes whose word names no owner, and for
//! pthread_rwlocks, which name their writer only: the owner computes inside, the waiter wants the lock.
//!
//! A scheduler can know who used such a lock before. So the workers use it in turn before a trial
//! begins, as they would in a program that has run for a while.

use super::pthread::check;
use super::{Recipe, Setup, compute};
use crate::child;
use crate::spawn::WorkerKind;
use crate::sys;
use anyhow::Result;
use std::cell::UnsafeCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

const TEMPLATE: Recipe = Recipe {
    name: "rust_mutex",
    summary: "std::sync::Mutex of Rust: owner computes, waiter locks it (FUTEX_WAIT)",
    default_hogs: 2,
    by_default: false,
    donates: true,
    workers: WorkerKind::Threads,
    links: 1,
    pages_max: super::compute_max,
    unavailable: || None,
    build: |units| build(units, 0, RustMutex::default),
};

pub static RUST_MUTEX: Recipe = TEMPLATE;

pub static RUST_MUTEX_SIBLINGS: Recipe = Recipe {
    name: "rust_mutex_siblings",
    summary: "the same, while three more threads that have used it compute at nice 19",
    build: |units| build(units, SIBLINGS, RustMutex::default),
    ..TEMPLATE
};

pub static GO_LIKE_SEMA: Recipe = Recipe {
    name: "go_like_sema",
    summary: "lock of 0, 1, 2 whose release hands it to the task that it wakes",
    build: |units| build(units, 0, Baton::default),
    ..TEMPLATE
};

pub static MUSL_NORMAL: Recipe = Recipe {
    name: "musl_normal",
    summary: "mutex as musl's normal one",
    build: |units| build(units, 0, MuslNormal::default),
    ..TEMPLATE
};

pub static RWLOCK_WRITER: Recipe = Recipe {
    name: "rwlock_writer",
    summary: "pthread_rwlock_t: owner writes, waiter wants to read",
    build: |units| build(units, 0, || RwLock::held_by(Side::Writer)),
    ..TEMPLATE
};

pub static SHARED_MUTEX: Recipe = Recipe {
    name: "shared_mutex",
    summary: "pthread_rwlock_t, as std::shared_mutex has it: owner reads, waiter wants to write",
    build: |units| build(units, 0, || RwLock::held_by(Side::Reader)),
    ..TEMPLATE
};

/// A lock whose owner is the owner of the trial.
trait Lock: Send + Sync + 'static {
    /// Has it until `inside` is over.
    fn with(&self, inside: &mut dyn FnMut()) -> io::Result<()>;

    /// Likewise, as the waiter of the trial.
    fn with_as_waiter(&self, inside: &mut dyn FnMut()) -> io::Result<()> {
        self.with(inside)
    }
}

/// The owner and the waiter.
const WORKERS: usize = 2;
const SIBLINGS: usize = 3;
const SIBLING_NICE: i32 = 19;

/// How often each has to have had the lock before a trial while somebody waited for it.
const TURNS: usize = 8;
const MOMENT: Duration = Duration::from_millis(1);
/// What it takes to fall asleep. Rust's mutex spins before, for 100 times PAUSE, and where one emulated CPU runs after
/// the other each of these gives the turn away: that is 16 ms on 4 CPUs.
const ASLEEP: Duration = Duration::from_millis(25);

/// Every trial's process has a copy of its own, as it was before any trial.
struct Used<L>(Arc<Inner<L>>);

/// The lock stands in the middle: who knows the whole does not point at the lock.
#[repr(C)]
struct Inner<L> {
    units: usize,
    siblings: usize,
    /// Those that have begun to use the lock, and those that have had it often enough.
    came: AtomicUsize,
    done: AtomicUsize,
    /// Those that want the lock.
    wanting: AtomicUsize,
    lock: L,
    /// The owner is in its critical section.
    is_held: AtomicBool,
}

fn build<L: Lock>(units: usize, siblings: usize, lock: fn() -> L) -> Result<Box<dyn Setup>> {
    Ok(Box::new(Used(Arc::new(Inner {
        units,
        siblings,
        came: AtomicUsize::new(0),
        done: AtomicUsize::new(0),
        wanting: AtomicUsize::new(0),
        lock: lock(),
        is_held: AtomicBool::new(false),
    }))))
}

impl<L: Lock> Inner<L> {
    fn all_are_done(&self) -> bool {
        self.done.load(Ordering::Acquire) >= WORKERS + self.siblings
    }

    /// Has the lock again and again, each time until somebody sleeps on it, until all have had it often
    /// enough: nobody is left without somebody who waits for him. As a method of a queue would, it leaves
    /// nothing of the lock with its caller.
    #[inline(never)]
    fn take_turns(&self, is_waiter: bool) -> io::Result<()> {
        self.came.fetch_add(1, Ordering::AcqRel);
        while self.came.load(Ordering::Acquire) < WORKERS + self.siblings {
            std::thread::sleep(MOMENT);
        }
        let mut inside = || {
            self.wanting.fetch_sub(1, Ordering::AcqRel);
            while self.wanting.load(Ordering::Acquire) == 0 && !self.all_are_done() {
                std::thread::sleep(MOMENT / 4);
            }
            std::thread::sleep(ASLEEP);
        };
        let mut turns = 0;
        while !self.all_are_done() {
            self.wanting.fetch_add(1, Ordering::AcqRel);
            match is_waiter {
                true => self.lock.with_as_waiter(&mut inside)?,
                false => self.lock.with(&mut inside)?,
            }
            turns += 1;
            if turns == TURNS {
                self.done.fetch_add(1, Ordering::AcqRel);
            }
            // A lock that is not fair would stay with whoever has it.
            std::thread::sleep(MOMENT / 4);
        }
        Ok(())
    }

    /// Uses the lock, and computes as soon as the owner has it, until the process ends.
    fn be_sibling(&self) -> io::Result<()> {
        sys::set_nice(0, SIBLING_NICE)?;
        self.take_turns(false)?;
        while !self.is_held.load(Ordering::Acquire) {
            std::thread::sleep(MOMENT);
        }
        loop {
            compute(1);
        }
    }
}

impl<L: Lock> Setup for Used<L> {
    fn reset(&mut self) -> Result<()> {
        Ok(())
    }

    fn warm_up(&self, is_waiter: bool) -> io::Result<()> {
        let siblings = if is_waiter { 0 } else { self.0.siblings };
        for _ in 0..siblings {
            let inner = self.0.clone();
            // On the owner's CPU, if that is pinned.
            std::thread::Builder::new().spawn(move || {
                if let Err(error) = inner.be_sibling() {
                    child::exit(error.raw_os_error().unwrap_or(1));
                }
            })?;
        }
        self.0.take_turns(is_waiter)
    }

    fn hold(&self, _link: usize) -> io::Result<()> {
        self.0.lock.with(&mut || {
            self.0.is_held.store(true, Ordering::Release);
            compute(self.0.units);
        })
    }

    fn wait(&self) -> io::Result<()> {
        self.0.lock.with_as_waiter(&mut || ())
    }
}

/// Sleeps while the word has that value.
fn futex_wait(word: &AtomicU32, value: u32) -> io::Result<()> {
    match futex(word, libc::FUTEX_WAIT, value) {
        Err(e) if !matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => Err(e),
        _ => Ok(()),
    }
}

/// Wakes one; whether there was one.
fn futex_wake(word: &AtomicU32) -> io::Result<bool> {
    Ok(futex(word, libc::FUTEX_WAKE, 1)? > 0)
}

fn futex(word: &AtomicU32, op: libc::c_int, value: u32) -> io::Result<libc::c_long> {
    // SAFETY: a word that lives as long as the call; no timeout.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            op | libc::FUTEX_PRIVATE_FLAG,
            value,
            std::ptr::null::<libc::timespec>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

type RustMutex = std::sync::Mutex<()>;

impl Lock for RustMutex {
    fn with(&self, inside: &mut dyn FnMut()) -> io::Result<()> {
        let guard = self.lock().map_err(|_| io::Error::other("poisoned"))?;
        inside();
        drop(guard);
        Ok(())
    }
}

/// As runtime/lock_futex.go of Go before 1.24 has its word (0, 1, 2), but handed over as a semaphore of
/// Go's: who is woken with the baton has the lock, which was not free in between.
#[derive(Default)]
struct Baton {
    word: AtomicU32,
    baton: AtomicU32,
}

const LOCKED: u32 = 1;
const CONTENDED: u32 = 2;

fn change(word: &AtomicU32, from: u32, to: u32) -> bool {
    let changed = word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
    changed.is_ok()
}

impl Baton {
    fn lock(&self) -> io::Result<()> {
        if change(&self.word, 0, LOCKED) {
            return Ok(());
        }
        while self.word.swap(CONTENDED, Ordering::SeqCst) != 0 {
            futex_wait(&self.word, CONTENDED)?;
            if change(&self.baton, 1, 0) {
                break;
            }
        }
        Ok(())
    }

    fn unlock(&self) -> io::Result<()> {
        if change(&self.word, LOCKED, 0) {
            return Ok(());
        }
        self.baton.store(1, Ordering::SeqCst);
        if futex_wake(&self.word)? || !change(&self.baton, 1, 0) {
            return Ok(());
        }
        // No task slept. One that is falling asleep now finds a word that has changed, or is woken.
        self.word.store(0, Ordering::SeqCst);
        futex_wake(&self.word).map(drop)
    }
}

impl Lock for Baton {
    fn with(&self, inside: &mut dyn FnMut()) -> io::Result<()> {
        self.lock()?;
        inside();
        self.unlock()
    }
}

/// After src/thread/pthread_mutex_timedlock.c, pthread_mutex_trylock.c and pthread_mutex_unlock.c of musl
/// 1.2: the word is the second of the mutex, and says EBUSY.
#[derive(Default)]
#[repr(C, align(8))]
struct MuslNormal {
    kind: AtomicU32,
    lock: AtomicU32,
    waiters: AtomicU32,
}

const WAITERS: u32 = 0x8000_0000;
const EBUSY: u32 = libc::EBUSY as u32;

impl Lock for MuslNormal {
    fn with(&self, inside: &mut dyn FnMut()) -> io::Result<()> {
        while !change(&self.lock, 0, EBUSY) {
            let found = self.lock.load(Ordering::SeqCst);
            if found == 0 {
                continue;
            }
            self.waiters.fetch_add(1, Ordering::SeqCst);
            change(&self.lock, found, found | WAITERS);
            let slept = futex_wait(&self.lock, found | WAITERS);
            self.waiters.fetch_sub(1, Ordering::SeqCst);
            slept?;
        }
        inside();
        let was = self.lock.swap(0, Ordering::SeqCst);
        if was & WAITERS != 0 || self.waiters.load(Ordering::SeqCst) != 0 {
            futex_wake(&self.lock)?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Writer,
    Reader,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Writer => Side::Reader,
            Side::Reader => Side::Writer,
        }
    }
}

#[repr(C, align(64))]
struct RwLock {
    lock: UnsafeCell<libc::pthread_rwlock_t>,
    owner: Side,
}

// SAFETY: the C library's locks are made to be used by several threads at a time.
unsafe impl Send for RwLock {}
// SAFETY: as above.
unsafe impl Sync for RwLock {}

impl RwLock {
    fn held_by(owner: Side) -> RwLock {
        RwLock {
            lock: UnsafeCell::new(libc::PTHREAD_RWLOCK_INITIALIZER),
            owner,
        }
    }

    fn with_as(&self, side: Side, inside: &mut dyn FnMut()) -> io::Result<()> {
        // SAFETY: an initialised lock that never moves, as it lies in the setup's `Arc`.
        check(unsafe {
            match side {
                Side::Writer => libc::pthread_rwlock_wrlock(self.lock.get()),
                Side::Reader => libc::pthread_rwlock_rdlock(self.lock.get()),
            }
        })?;
        inside();
        // SAFETY: as above, and this thread has it.
        check(unsafe { libc::pthread_rwlock_unlock(self.lock.get()) })
    }
}

impl Lock for RwLock {
    fn with(&self, inside: &mut dyn FnMut()) -> io::Result<()> {
        self.with_as(self.owner, inside)
    }

    fn with_as_waiter(&self, inside: &mut dyn FnMut()) -> io::Result<()> {
        self.with_as(self.owner.other(), inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn have_it_one_at_a_time(lock: &impl Lock) {
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let mut alone = || {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            inside.fetch_sub(1, Ordering::SeqCst);
                        };
                        lock.with(&mut alone).expect("lock");
                    }
                });
            }
        });
    }

    #[test]
    fn several_threads_have_each_one_at_a_time() {
        have_it_one_at_a_time(&RustMutex::default());
        have_it_one_at_a_time(&Baton::default());
        have_it_one_at_a_time(&MuslNormal::default());
        have_it_one_at_a_time(&RwLock::held_by(Side::Writer));
    }

    #[test]
    fn a_writer_is_named_where_the_scheduler_looks() -> io::Result<()> {
        let lock = RwLock::held_by(Side::Writer);
        // SAFETY: gettid has no preconditions.
        let id = unsafe { libc::gettid() } as u32;
        let words = lock.lock.get().cast::<u32>();
        // SAFETY: the lock is longer than that, and nothing else uses it.
        let look = || unsafe { std::ptr::read_volatile(words.cast::<[u32; 8]>()) };
        let mut seen = look();
        lock.with(&mut || seen = look())?;
        assert_eq!((seen[0] & 3, seen[2], seen[4], seen[5]), (3, 1, 0, 0));
        assert_eq!((seen[6], look()[6]), (id, 0));
        Ok(())
    }

    #[test]
    fn a_rehearsal_ends() -> Result<()> {
        for recipe in [
            &RUST_MUTEX,
            &GO_LIKE_SEMA,
            &MUSL_NORMAL,
            &RWLOCK_WRITER,
            &SHARED_MUTEX,
        ] {
            let setup = &*(recipe.build)(1)?;
            std::thread::scope(|scope| {
                let waiter = scope.spawn(|| setup.warm_up(true));
                setup.warm_up(false)?;
                waiter.join().unwrap_or(Ok(()))
            })?;
            setup.hold(0)?;
            setup.wait()?;
        }
        Ok(())
    }
}
