// SPDX-License-Identifier: GPL-2.0-only
//! The list of lock types: what each is called, its number in `include/locks.h`, and what it is like.

use serde::{Serialize, Serializer};

use crate::abi;

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
    pub fn followed() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|lock| lock.number().is_some())
    }

    /// `enum lock_type` of `include/locks.h`; `None`: no edge is of this type.
    #[must_use]
    pub const fn number(self) -> Option<u32> {
        Some(match self {
            Self::Mutex => abi::lock_type_LOCK_MUTEX,
            Self::Rwsem => abi::lock_type_LOCK_RWSEM,
            Self::Rtmutex => abi::lock_type_LOCK_RTMUTEX,
            Self::Pthread => abi::lock_type_LOCK_PTHREAD,
            Self::Binder => abi::lock_type_LOCK_BINDER,
            Self::Ntsync => abi::lock_type_LOCK_NTSYNC,
            Self::Futex => abi::lock_type_LOCK_FUTEX,
            Self::PercpuRwsem | Self::Semaphore => return None,
        })
    }

    /// The type of this number, if there is one: an event may be a newer version's.
    #[must_use]
    pub fn of_number(number: u32) -> Option<Self> {
        Self::followed().find(|lock| lock.number() == Some(number))
    }

    /// Whether who gets the lock has it alone: readers share an rwsem, and a transaction is not handed on.
    #[must_use]
    pub fn is_exclusive(self) -> bool {
        !matches!(self, Self::Rwsem | Self::Binder)
    }

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
mod tests {
    use super::*;

    #[test]
    fn each_number_of_the_header_is_one_type() {
        let numbers: Vec<_> = LockType::followed().filter_map(LockType::number).collect();
        assert_eq!(
            numbers,
            (0..abi::lock_type_NR_LOCK_TYPES).collect::<Vec<_>>()
        );
        for lock in LockType::followed() {
            assert_eq!(lock.number().and_then(LockType::of_number), Some(lock));
        }
        assert_eq!(LockType::of_number(abi::lock_type_NR_LOCK_TYPES), None);
        assert_eq!(LockType::Semaphore.number(), None);
    }
}
