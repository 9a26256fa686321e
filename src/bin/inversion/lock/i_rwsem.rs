// SPDX-License-Identifier: GPL-2.0-only
//! Owns the recipe for the rwsem `inode->i_rwsem`, held by a writer: the owner reserves the pages of a
//! tmpfs file, the waiter sets the length of the same file.
//!
//! Each page costs memory until the next trial. The file has its length from the beginning, and the
//! waiter asks for that same one, so that there is nothing for it to cut off.

use super::{Recipe, Setup};
use crate::alias::{PAGE_BYTES, memfd};
use crate::spawn::WorkerKind;
use anyhow::{Context, Result};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// 2 GiB.
const PAGES_MAX: usize = 1 << 19;

pub static RECIPE: Recipe = Recipe {
    name: "i_rwsem",
    summary: "rwsem of an inode: owner fallocate()s a tmpfs file, waiter ftruncate()s it",
    default_hogs: 1,
    by_default: true,
    donates: true,
    workers: WorkerKind::Processes,
    links: 1,
    pages_max,
    unavailable: || None,
    build: |pages| Ok(Box::new(Reserved::new(pages)?)),
};

/// At most half of the memory that is free, going by what the kernel says.
pub fn pages_max() -> usize {
    let free = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|meminfo| available_kib(&meminfo));
    free.map_or(PAGES_MAX, |kib| {
        (kib * 1024 / PAGE_BYTES / 2).clamp(1, PAGES_MAX)
    })
}

fn available_kib(meminfo: &str) -> Option<usize> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// A file in memory, all holes until an owner reserves its pages.
pub struct Reserved {
    file: File,
    bytes: u64,
}

impl Reserved {
    pub fn new(pages: usize) -> Result<Reserved> {
        let file = memfd(c"inversion-i_rwsem")?;
        let bytes = (pages * PAGE_BYTES) as u64;
        Ok(Reserved { file, bytes })
    }

    /// Gives back all pages.
    pub fn empty(&self) -> Result<()> {
        let resize = |bytes| self.file.set_len(bytes);
        resize(0)
            .and_then(|()| resize(self.bytes))
            .context("cannot size a file in memory")
    }

    /// Owns i_rwsem for as long as it takes.
    pub fn reserve(&self) -> io::Result<()> {
        let bytes = self.bytes as libc::off_t;
        // SAFETY: takes numbers only.
        if unsafe { libc::fallocate(self.file.as_raw_fd(), 0, 0, bytes) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Setup for Reserved {
    fn reset(&mut self) -> Result<()> {
        self.empty()
    }

    fn hold(&self, _link: usize) -> io::Result<()> {
        self.reserve()
    }

    fn wait(&self) -> io::Result<()> {
        self.file.set_len(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn free_memory_is_found() {
        let meminfo = "MemTotal:  16 kB\nMemAvailable:    1870848 kB\n";
        assert_eq!(available_kib(meminfo), Some(1_870_848));
        assert_eq!(available_kib("MemTotal: 16 kB\n"), None);
        assert!((1..=PAGES_MAX).contains(&pages_max()));
    }

    #[test]
    fn a_trial_begins_without_pages() -> Result<()> {
        let mut setup = Reserved::new(3)?;
        setup.reset()?;
        setup.hold(0)?;
        setup.wait()?;
        let full = setup.file.metadata()?;
        assert_eq!((full.len(), full.blocks()), (3 * 4096, 3 * 8));
        setup.reset()?;
        let empty = setup.file.metadata()?;
        assert_eq!((empty.len(), empty.blocks()), (3 * 4096, 0));
        Ok(())
    }
}
