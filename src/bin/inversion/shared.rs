// SPDX-License-Identifier: GPL-2.0-only
//! Owns memory that forked processes share: zeroed when it is made, at the same address in all of
//! them.

use anyhow::{Context, Result};
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;

/// What may lie in shared memory.
///
/// # Safety
///
/// Zeroed memory must be a valid value, and everything that anybody changes in it must be atomic or
/// an `UnsafeCell` whose users agree.
pub unsafe trait Zeroed {}

#[derive(Debug)]
pub struct Shared<T: Zeroed> {
    value: NonNull<T>,
}

// SAFETY: of the value there are only shared references, and by its trait others may change it too.
unsafe impl<T: Zeroed> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Zeroed> Sync for Shared<T> {}

impl<T: Zeroed> Shared<T> {
    pub fn new() -> Result<Shared<T>> {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place the kernel chooses.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<T>(),
                protection,
                flags,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context("cannot map shared memory");
        }
        let value =
            NonNull::new(address.cast()).context("shared memory was mapped at address 0")?;
        Ok(Shared { value })
    }
}

impl<T: Zeroed> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mapping is page-aligned, large enough, lives as long as `self`, and is a valid T
        // by the trait.
        unsafe { self.value.as_ref() }
    }
}

impl<T: Zeroed> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this size; borrows of the value end before its owner does.
        unsafe { libc::munmap(self.value.as_ptr().cast(), size_of::<T>()) };
    }
}
