// SPDX-License-Identifier: GPL-2.0-only
//! Edge words (`include/locks.h`) taken apart: the type of a lock, its address, its name.

use crate::abi;

const TYPE_MASK: u64 = abi::LOCK_TYPE_MASK as u64;

/// `enum lock_type`.
pub fn lock_type(edge: u64) -> u32 {
    (edge & TYPE_MASK) as u32
}

/// Address of the lock (of a transaction, for binder).
pub fn address(edge: u64) -> u64 {
    edge & !TYPE_MASK
}

/// What the lock is, as `--locks` calls it.
pub fn type_name(edge: u64) -> &'static str {
    match lock_type(edge) {
        abi::lock_type_LOCK_MUTEX => "mutex",
        abi::lock_type_LOCK_RWSEM => "rwsem",
        abi::lock_type_LOCK_RTMUTEX => "rtmutex",
        abi::lock_type_LOCK_PTHREAD => "pthread",
        abi::lock_type_LOCK_BINDER => "binder",
        abi::lock_type_LOCK_NTSYNC => "ntsync",
        abi::lock_type_LOCK_FUTEX => "futex",
        _ => "unknown",
    }
}

/// Whether who gets the lock has it alone: readers share an rwsem, and a transaction is
/// not handed on.
pub fn is_exclusive(edge: u64) -> bool {
    !matches!(
        lock_type(edge),
        abi::lock_type_LOCK_RWSEM | abi::lock_type_LOCK_BINDER
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_has_a_type_and_an_address() {
        for lock_type in 0..abi::lock_type_NR_LOCK_TYPES {
            let edge = 0xffff_8880_0000_1238 | u64::from(lock_type);
            assert_ne!(type_name(edge), "unknown");
            assert_eq!(address(edge), 0xffff_8880_0000_1238);
        }
        assert_eq!(type_name(TYPE_MASK), "unknown");
    }
}
