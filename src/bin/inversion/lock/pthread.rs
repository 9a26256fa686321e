// SPDX-License-Identifier: GPL-2.0-only
//! Owns the recipes for the mutexes of the C library, which are futexes: the owner computes while it
//! has the mutex, the waiter locks it and sleeps in the kernel. The mutex itself names its owner.
//!
//! Of most kinds the kernel knows the sleeper only; of `pi_mutex` (FUTEX_LOCK_PI) it knows the owner
//! as well, and raises it to a real-time waiter's priority, but not to a nice value.

use super::{Recipe, Setup, compute};
use crate::shared::{Shared, Zeroed};
use crate::spawn::WorkerKind;
use anyhow::{Context, Result};
use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Normal,
    Recursive,
    ErrorCheck,
    /// Spins a while before it sleeps.
    Adaptive,
    /// Says so to the next one when an owner died; the futex word is the owner's thread id.
    Robust,
    /// For the threads of other processes too.
    Shared,
    /// Locked in the kernel when contended; the futex word is the owner's thread id.
    PriorityInheriting,
}

const TEMPLATE: Recipe = Recipe {
    name: "pthread",
    summary: "pthread mutex: owner computes, waiter locks it (FUTEX_WAIT)",
    default_hogs: 2,
    by_default: true,
    donates: true,
    workers: WorkerKind::Threads,
    links: 1,
    pages_max: super::compute_max,
    unavailable: || None,
    build: |units| build(Kind::Normal, units),
};

pub static NORMAL: Recipe = TEMPLATE;

pub static RECURSIVE: Recipe = Recipe {
    name: "pthread_recursive",
    summary: "pthread mutex, PTHREAD_MUTEX_RECURSIVE",
    by_default: false,
    build: |units| build(Kind::Recursive, units),
    ..TEMPLATE
};

pub static ERRORCHECK: Recipe = Recipe {
    name: "pthread_errorcheck",
    summary: "pthread mutex, PTHREAD_MUTEX_ERRORCHECK",
    by_default: false,
    build: |units| build(Kind::ErrorCheck, units),
    ..TEMPLATE
};

pub static ADAPTIVE: Recipe = Recipe {
    name: "pthread_adaptive",
    summary: "pthread mutex, PTHREAD_MUTEX_ADAPTIVE_NP",
    by_default: false,
    build: |units| build(Kind::Adaptive, units),
    ..TEMPLATE
};

pub static ROBUST: Recipe = Recipe {
    name: "pthread_robust",
    summary: "pthread mutex, PTHREAD_MUTEX_ROBUST",
    by_default: false,
    build: |units| build(Kind::Robust, units),
    ..TEMPLATE
};

pub static SHARED: Recipe = Recipe {
    name: "pthread_shared",
    summary: "pthread mutex, PTHREAD_PROCESS_SHARED: owner and waiter are processes",
    by_default: false,
    workers: WorkerKind::Processes,
    build: |units| build(Kind::Shared, units),
    ..TEMPLATE
};

pub static PI: Recipe = Recipe {
    name: "pi_mutex",
    summary: "pthread mutex, PTHREAD_PRIO_INHERIT: owner computes, waiter locks it (FUTEX_LOCK_PI)",
    default_hogs: 1,
    build: |units| build(Kind::PriorityInheriting, units),
    ..TEMPLATE
};

/// A mutex in shared memory, which suits every kind: whether others may use it, its kind says.
#[derive(Debug)]
pub struct Mutex(Shared<Cell>);

#[derive(Debug)]
#[repr(C)]
struct Cell(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: all zero is PTHREAD_MUTEX_INITIALIZER, and only the C library looks into it.
unsafe impl Zeroed for Cell {}

impl Mutex {
    pub fn new(kind: Kind) -> Result<Mutex> {
        let mutex = Mutex(Shared::new()?);
        mutex.renew(kind)?;
        Ok(mutex)
    }

    /// Makes it free, whatever became of its last owner. Nobody else may use it meanwhile.
    pub fn renew(&self, kind: Kind) -> Result<()> {
        self.init(kind)
            .with_context(|| format!("cannot make a pthread mutex ({kind:?})"))
    }

    fn init(&self, kind: Kind) -> io::Result<()> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: makes `attributes` valid.
        check(unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) })?;
        let attributes = attributes.as_mut_ptr();
        // SAFETY: valid attributes; values the library does not know are refused with an error.
        check(unsafe {
            match kind {
                Kind::Normal => 0,
                Kind::Recursive => {
                    libc::pthread_mutexattr_settype(attributes, libc::PTHREAD_MUTEX_RECURSIVE)
                }
                Kind::ErrorCheck => {
                    libc::pthread_mutexattr_settype(attributes, libc::PTHREAD_MUTEX_ERRORCHECK)
                }
                Kind::Adaptive => libc::pthread_mutexattr_settype(attributes, ADAPTIVE_NP),
                Kind::Robust => {
                    libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST)
                }
                Kind::Shared => {
                    libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED)
                }
                Kind::PriorityInheriting => {
                    libc::pthread_mutexattr_setprotocol(attributes, libc::PTHREAD_PRIO_INHERIT)
                }
            }
        })?;
        // SAFETY: memory large enough for a mutex, which nobody uses now, and valid attributes.
        check(unsafe { libc::pthread_mutex_init(self.raw(), attributes) })
    }

    pub fn lock(&self) -> io::Result<()> {
        // SAFETY: an initialised mutex that never moves.
        check(unsafe { libc::pthread_mutex_lock(self.raw()) })
    }

    /// Only for the thread that has it.
    pub fn unlock(&self) -> io::Result<()> {
        // SAFETY: an initialised mutex that never moves.
        check(unsafe { libc::pthread_mutex_unlock(self.raw()) })
    }

    pub fn raw(&self) -> *mut libc::pthread_mutex_t {
        self.0.0.get()
    }
}

/// Missing in the libc crate; the GNU C library's value.
const ADAPTIVE_NP: libc::c_int = 3;

/// The pthread functions return their error.
pub fn check(error: libc::c_int) -> io::Result<()> {
    match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

struct Locked {
    mutex: Mutex,
    kind: Kind,
    units: usize,
}

fn build(kind: Kind, units: usize) -> Result<Box<dyn Setup>> {
    let mutex = Mutex::new(kind)?;
    Ok(Box::new(Locked { mutex, kind, units }))
}

impl Setup for Locked {
    fn reset(&mut self) -> Result<()> {
        self.mutex.renew(self.kind)
    }

    fn hold(&self, _link: usize) -> io::Result<()> {
        self.mutex.lock()?;
        compute(self.units);
        self.mutex.unlock()
    }

    fn wait(&self) -> io::Result<()> {
        self.mutex.lock()?;
        self.mutex.unlock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 7] = [
        Kind::Normal,
        Kind::Recursive,
        Kind::ErrorCheck,
        Kind::Adaptive,
        Kind::Robust,
        Kind::Shared,
        Kind::PriorityInheriting,
    ];

    fn try_lock(mutex: &Mutex) -> io::Result<()> {
        // SAFETY: an initialised mutex that never moves.
        check(unsafe { libc::pthread_mutex_trylock(mutex.raw()) })
    }

    #[test]
    fn a_renewed_mutex_of_any_kind_is_free() -> Result<()> {
        for kind in KINDS {
            let mutex = Mutex::new(kind)?;
            mutex.lock()?;
            let again = std::thread::scope(|scope| {
                let taken = scope
                    .spawn(|| try_lock(&mutex).err()?.raw_os_error())
                    .join();
                taken.ok().flatten()
            });
            assert_eq!(again, Some(libc::EBUSY), "{kind:?}");
            mutex.unlock()?;
            mutex.lock()?;
            mutex.renew(kind)?;
            try_lock(&mutex)?;
        }
        Ok(())
    }

    #[test]
    fn an_owner_is_named_by_its_thread_id() -> Result<()> {
        // SAFETY: gettid has no preconditions.
        let id = unsafe { libc::gettid() };
        for kind in KINDS {
            let mutex = Mutex::new(kind)?;
            mutex.lock()?;
            let words = mutex.raw().cast::<i32>();
            // SAFETY: a mutex is longer than three words, and no other task has it.
            let (word, owner) = unsafe { (words.read_volatile(), words.add(2).read_volatile()) };
            assert_eq!(owner, id, "{kind:?}");
            let in_word = matches!(kind, Kind::Robust | Kind::PriorityInheriting);
            assert_eq!(word == id, in_word, "{kind:?}");
            mutex.unlock()?;
        }
        Ok(())
    }
}
