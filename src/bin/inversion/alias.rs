// SPDX-License-Identifier: GPL-2.0-only
//! Owns big mappings that cost little memory: a range of 4 KiB pages in which every slice shows the
//! same small memfd. A kernel path that works page by page (a copy that faults, a page-table walk)
//! has as much to do as in a range of real memory, for 8 bytes of page table a page.

use anyhow::{Context, Result};
use std::ffi::c_void;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd};

pub const PAGE_BYTES: usize = 4096;

/// Memory behind every mapping, and the length of one slice.
const SLICE_BYTES: usize = 8 << 20;

#[derive(Debug)]
pub struct AliasMap {
    address: *mut c_void,
    bytes: usize,
}

// SAFETY: only the address is kept; what is done by it are system calls on the range.
unsafe impl Send for AliasMap {}
// SAFETY: as above.
unsafe impl Sync for AliasMap {}

impl AliasMap {
    /// Maps `pages` pages, shared and writable, without populating them. A process forked later
    /// sees the mapping but starts with empty page tables in it.
    pub fn new(pages: usize) -> Result<AliasMap> {
        let memory = memfd(c"inversion")?;
        fill(&memory, SLICE_BYTES.min(pages * PAGE_BYTES))?;
        let bytes = pages * PAGE_BYTES;
        let address = map(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
        )
        .with_context(|| format!("cannot map {} MiB", bytes >> 20))?;
        let mapping = AliasMap { address, bytes };
        for offset in (0..bytes).step_by(SLICE_BYTES) {
            let slice_bytes = SLICE_BYTES.min(bytes - offset);
            map(
                address.wrapping_byte_add(offset),
                slice_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED,
                memory.as_raw_fd(),
            )
            .context("cannot map a file in memory")?;
        }
        // Refused where the kernel has no huge pages at all, which serves as well.
        let _ = mapping.advise(libc::MADV_NOHUGEPAGE);
        Ok(mapping)
    }

    /// Fills the page tables of the calling process.
    pub fn populate(&self) -> io::Result<()> {
        self.advise(libc::MADV_POPULATE_READ)
    }

    /// Takes the right to write from the whole range.
    pub fn make_read_only(&self) -> io::Result<()> {
        // SAFETY: the range is ours, and no reference into it is ever made.
        if unsafe { libc::mprotect(self.address, self.bytes, libc::PROT_READ) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Asks the kernel whether the first page is in memory, as one may of any page.
    pub fn ask_in_memory(&self) -> io::Result<()> {
        let mut resident = 0;
        // SAFETY: `resident` is valid for writing, and one page has one entry.
        if unsafe { libc::mincore(self.address, PAGE_BYTES, &mut resident) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Puts an empty page of the calling process's own in place of the first one.
    pub fn renew_first_page(&self) -> io::Result<()> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        map(self.address, PAGE_BYTES, protection, flags, -1).map(drop)
    }

    pub fn address(&self) -> *mut c_void {
        self.address
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the range is ours, and the advice used here does not change what it holds.
        if unsafe { libc::madvise(self.address, self.bytes, advice) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl Drop for AliasMap {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`, and no reference into it is ever made.
        unsafe { libc::munmap(self.address, self.bytes) };
    }
}

/// Maps memory; with MAP_FIXED only ever inside a range that was reserved just before.
fn map(
    address: *mut c_void,
    bytes: usize,
    protection: libc::c_int,
    flags: libc::c_int,
    fd: libc::c_int,
) -> io::Result<*mut c_void> {
    // SAFETY: either the kernel chooses the place, or it lies in the caller's own reservation.
    let mapped = unsafe { libc::mmap(address, bytes, protection, flags, fd, 0) };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(mapped)
}

/// An empty file in memory.
pub fn memfd(name: &std::ffi::CStr) -> Result<File> {
    // SAFETY: the name is a valid C string.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).context("cannot make a file in memory");
    }
    // SAFETY: the descriptor is new and nothing else owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

fn fill(mut file: &File, bytes: usize) -> Result<()> {
    let page = [0x5a_u8; PAGE_BYTES];
    for _ in 0..bytes / PAGE_BYTES {
        file.write_all(&page)
            .context("cannot fill a file in memory")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_first_page_is_empty_and_alone() -> Result<()> {
        let mapping = AliasMap::new(2)?;
        mapping.renew_first_page()?;
        let first = mapping.address().cast::<u8>();
        // SAFETY: both addresses lie in the mapping.
        let seen = unsafe { (first.read_volatile(), first.add(PAGE_BYTES).read_volatile()) };
        assert_eq!(seen, (0, 0x5a));
        Ok(())
    }

    #[test]
    fn slices_show_the_same_memory() -> Result<()> {
        let pages = 3 * SLICE_BYTES / PAGE_BYTES - 7;
        let mapping = AliasMap::new(pages)?;
        mapping.populate()?;
        assert_eq!(mapping.bytes(), pages * PAGE_BYTES);
        let first = mapping.address().cast::<u8>();
        // SAFETY: both addresses lie in the mapping, which is writable.
        let seen = unsafe {
            first.write_volatile(7);
            first.add(SLICE_BYTES).read_volatile()
        };
        assert_eq!(seen, 7);
        Ok(())
    }
}
