// SPDX-License-Identifier: GPL-2.0-only
//! Files that a user's program has mapped, and the names in them.

use crate::naming::elf::{self, Budget, DEMANGLED_MAX, NAME_MAX};
use crate::naming::user::shown;

/// What may be read of one file here: much more than a small file makes one read twice.
const BUDGET: u64 = 1 << 28;

/// Eight bytes of an address, and the file.
pub fn file(input: &[u8]) {
    let Some((address, bytes)) = input.split_first_chunk::<8>() else {
        return;
    };
    let address = u64::from_le_bytes(*address);
    super::with_file(bytes, |file, _| {
        let mut budget = Budget(BUDGET);
        let at = elf::virtual_address(file, address, &mut budget);
        for address in [Some(address), at].into_iter().flatten() {
            if let Some(name) = elf::function(file, address, &mut budget) {
                assert!(name.len() <= DEMANGLED_MAX);
                super::assert_printable(&shown(&name));
            }
        }
        // two tables of one file, each read once for each address
        let most = 8 * (bytes.len() as u64 + (1 << 20));
        assert!(
            BUDGET - budget.0 <= most,
            "{} bytes are read of {}",
            BUDGET - budget.0,
            bytes.len()
        );
        // with little to spend there is a name, or none
        let mut little = Budget(address % 4096);
        elf::function(file, address, &mut little);
    });
}

/// A mangled name.
pub fn symbol(input: &[u8]) {
    let Ok(name) = std::str::from_utf8(&input[..input.len().min(NAME_MAX)]) else {
        return;
    };
    let name = elf::demangled(name);
    assert!(name.len() <= DEMANGLED_MAX);
    super::assert_printable(&shown(&name));
}
