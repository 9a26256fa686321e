// SPDX-License-Identifier: GPL-2.0-only
//! Owns the recipe for the mutex `file->f_pos_lock`, which guards the position of an open file:
//! the owner reads a large tmpfs file, the waiter asks for the position of the same open file.
//!
//! The kernel takes the lock only for files that more than one descriptor refers to (the forked
//! workers see to that) and that were opened by path (a file fresh from memfd_create does not count,
//! so it is opened again through /proc).

use super::{Recipe, Setup, ask_position};
use crate::alias::{AliasMap, PAGE_BYTES, memfd};
use crate::spawn::WorkerKind;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::AsRawFd;

/// One read() returns 2 GiB less a page at most.
pub const PAGES_MAX: usize = (1 << 19) - 2;

pub static RECIPE: Recipe = Recipe {
    name: "f_pos_lock",
    summary: "mutex of a file's position: owner read()s a large file, waiter lseek()s it",
    default_hogs: 2,
    by_default: true,
    donates: true,
    workers: WorkerKind::Processes,
    links: 1,
    pages_max: || PAGES_MAX,
    unavailable: || None,
    build: |pages| Ok(Box::new(SharedFile::new(pages)?)),
};

pub struct SharedFile {
    file: File,
    /// Never touched by this process, so that every owner starts with empty page tables and pays for
    /// a page fault a page: the same work each time.
    pub buffer: AliasMap,
}

impl SharedFile {
    pub fn new(pages: usize) -> Result<SharedFile> {
        let memory = memfd(c"inversion-f_pos")?;
        // All holes: reading them copies zeroes and needs no memory.
        memory
            .set_len((pages * PAGE_BYTES) as u64)
            .context("cannot size a file in memory")?;
        let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        let buffer = AliasMap::new(pages)?;
        Ok(SharedFile { file, buffer })
    }
}

impl Setup for SharedFile {
    fn reset(&mut self) -> Result<()> {
        self.file.rewind().context("cannot rewind the file")
    }

    fn hold(&self, _link: usize) -> io::Result<()> {
        let fd = self.file.as_raw_fd();
        // SAFETY: the buffer is writable, as long as said, and no Rust reference points into it.
        let read = unsafe { libc::read(fd, self.buffer.address(), self.buffer.bytes()) };
        match read {
            error if error < 0 => Err(io::Error::last_os_error()),
            bytes if bytes as usize == self.buffer.bytes() => Ok(()),
            _ => Err(io::Error::from_raw_os_error(libc::EIO)),
        }
    }

    fn wait(&self) -> io::Result<()> {
        ask_position(&self.file)
    }
}
