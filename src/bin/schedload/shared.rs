// SPDX-License-Identifier: GPL-2.0-only
//! Owns memory that forked processes share: a slice, zeroed when it is made, at the same address in all of them.
//! Pages that nobody touches cost nothing.

use anyhow::{Context, Result};
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// What may lie in shared memory.
///
/// # Safety
///
/// Zeroed memory must be a valid value, and everything that anybody changes in it must be atomic.
pub unsafe trait Zeroed {}

// SAFETY: atomic, and zero is valid.
unsafe impl Zeroed for AtomicU64 {}

#[derive(Debug)]
pub struct Shared<T: Zeroed> {
    first: NonNull<T>,
    len: usize,
}

impl<T: Zeroed> Shared<T> {
    pub fn new(len: usize) -> Result<Shared<T>> {
        let bytes = (size_of::<T>() * len).max(1);
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place the kernel chooses.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context("cannot map shared memory");
        }
        let first =
            NonNull::new(address.cast()).context("shared memory was mapped at address 0")?;
        Ok(Shared { first, len })
    }
}

impl<T: Zeroed> Deref for Shared<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping is page-aligned, holds `len` values that are valid by the trait, and lives as long as
        // `self`.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl<T: Zeroed> Drop for Shared<T> {
    fn drop(&mut self) {
        let bytes = (size_of::<T>() * self.len).max(1);
        // SAFETY: mapped by `new` with this size; borrows of the values end before their owner does.
        unsafe { libc::munmap(self.first.as_ptr().cast(), bytes) };
    }
}
