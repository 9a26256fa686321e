// SPDX-License-Identifier: GPL-2.0-only
//! Which types of locks are followed on a kernel, how, and if not, why.
//!
//! `set` is what the user asks for (`--locks`), `facts` what a kernel has that bears on locks, as
//! text that can be frozen, and `plan` what follows from the two: a `row` a type,
//! and what the programs in it attach to, a `probe` each. None of these does I/O or knows
//! libbpf; only `live` looks at the kernel that runs.

mod facts;
mod live;
mod plan;
mod probe;
mod row;
mod set;

pub use facts::{KernelFacts, ParseError};
pub use live::FactsError;
pub use plan::Plan;
pub use probe::{Kind as ProbeKind, Probe};
pub use row::{Row, State};
pub use set::{LockSet, LockSetError};

use serde::{Serialize, Serializer};

/// A type of lock, or of waiting that looks like one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockType {
    /// Kernel mutexes, ww_mutexes included.
    Mutex,
    /// Kernel rwsems that a writer owns.
    Rwsem,
    /// rt_mutexes, PI futexes among them; on PREEMPT_RT mutexes and rwsems too.
    Rtmutex,
    /// User-space mutexes that wait in a futex and name their owner: glibc's `pthread_mutex_t`.
    Pthread,
    /// Binder calls that wait for the thread that serves them.
    Binder,
    /// Windows' mutexes for Wine, /dev/ntsync.
    Ntsync,
    /// Locks of user space that wait in a futex and name no owner: Rust's, Go's, musl's normal ones.
    Futex,
    /// Per-CPU rwsems.
    PercpuRwsem,
    /// Kernel semaphores.
    Semaphore,
}

impl LockType {
    /// All types, in the order in which they are shown.
    pub const ALL: [Self; 9] = [
        Self::Mutex,
        Self::Rwsem,
        Self::Rtmutex,
        Self::Pthread,
        Self::Binder,
        Self::Ntsync,
        Self::Futex,
        Self::PercpuRwsem,
        Self::Semaphore,
    ];

    /// The types that can be donated through, and so be asked for.
    pub const FOLLOWED: [Self; 7] = [
        Self::Mutex,
        Self::Rwsem,
        Self::Rtmutex,
        Self::Pthread,
        Self::Binder,
        Self::Ntsync,
        Self::Futex,
    ];

    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mutex => "mutex",
            Self::Rwsem => "rwsem",
            Self::Rtmutex => "rtmutex",
            Self::Pthread => "pthread",
            Self::Binder => "binder",
            Self::PercpuRwsem => "percpu_rwsem",
            Self::Semaphore => "semaphore",
            Self::Futex => "futex",
            Self::Ntsync => "ntsync",
        }
    }
}

impl Serialize for LockType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests;
