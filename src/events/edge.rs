// SPDX-License-Identifier: GPL-2.0-only
//! Edge words (`include/locks.h`) taken apart: the type of a lock, its address, its name.

use crate::abi;
use crate::locks::LockType;

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
    LockType::of_number(lock_type(edge)).map_or("unknown", LockType::name)
}

/// Whether who gets the lock has it alone.
pub fn is_exclusive(edge: u64) -> bool {
    LockType::of_number(lock_type(edge)).is_none_or(LockType::is_exclusive)
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
