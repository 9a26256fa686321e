// SPDX-License-Identifier: GPL-2.0-only
//! Owns the recipes for the rwsem `mm->mmap_lock`, which guards the mappings of a process. Its workers
//! are threads.
//!
//! Writer-owned: the owner takes the right to write from a big populated range, which changes each
//! entry of its page table; the waiter maps a page (killable, as a writer) or asks whether one is in
//! memory (as a reader). Reader-owned: the owner fills the page table instead, and the waiter maps.
//! The kernel then names one reader only, the last that came and has not gone (6.18).
//!
//! Page faults may wait for mmap_lock as well. What workers touch while they measure has been touched
//! before, or lies in mappings of its own, for which kernels have locks of their own since 6.4.

use super::{Recipe, Setup};
use crate::alias::{AliasMap, PAGE_BYTES};
use crate::spawn::WorkerKind;
use anyhow::Result;
use std::io;

/// 64 MiB of page tables.
const PAGES_MAX: usize = 1 << 23;

const TEMPLATE: Recipe = Recipe {
    name: "mmap_lock",
    summary: "rwsem of a process's mappings: owner mprotect()s a big range, waiter mmap()s a page",
    default_hogs: 1,
    by_default: true,
    donates: true,
    workers: WorkerKind::Threads,
    links: 1,
    pages_max: || PAGES_MAX,
    unavailable: || None,
    build: |pages| build(pages, Owner::Writer, Waiter::Writer),
};

pub static WRITER: Recipe = TEMPLATE;

pub static READER: Recipe = Recipe {
    name: "mmap_lock_read",
    summary: "mmap_lock: owner mprotect()s a big range, waiter reads: mincore() of a page",
    build: |pages| build(pages, Owner::Writer, Waiter::Reader),
    ..TEMPLATE
};

pub static READ_OWNED: Recipe = Recipe {
    name: "rwsem_reader",
    summary: "mmap_lock: owner holds it as a reader, madvise(MADV_POPULATE_READ), waiter mmap()s",
    by_default: false,
    build: |pages| build(pages, Owner::Reader, Waiter::Writer),
    ..TEMPLATE
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Reader,
    Writer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiter {
    Reader,
    Writer,
}

struct Mappings {
    /// Never populated by this process, so that each owner starts with an empty page table.
    range: AliasMap,
    /// What a reader asks about; the range's own mappings are being changed.
    page: AliasMap,
    owner: Owner,
    waiter: Waiter,
}

fn build(pages: usize, owner: Owner, waiter: Waiter) -> Result<Box<dyn Setup>> {
    Ok(Box::new(Mappings {
        range: AliasMap::new(pages)?,
        page: AliasMap::new(1)?,
        owner,
        waiter,
    }))
}

impl Setup for Mappings {
    fn reset(&mut self) -> Result<()> {
        Ok(())
    }

    fn prepare(&self, _link: usize) -> io::Result<()> {
        match self.owner {
            Owner::Reader => Ok(()),
            Owner::Writer => self.range.populate(),
        }
    }

    fn hold(&self, _link: usize) -> io::Result<()> {
        match self.owner {
            Owner::Reader => self.range.populate(),
            Owner::Writer => self.range.make_read_only(),
        }
    }

    fn wait(&self) -> io::Result<()> {
        match self.waiter {
            Waiter::Reader => self.page.ask_in_memory(),
            Waiter::Writer => map_a_page(),
        }
    }
}

/// Leaves the page mapped: the process ends soon.
fn map_a_page() -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let anywhere = std::ptr::null_mut();
    // SAFETY: a new mapping at a place that the kernel chooses.
    let page = unsafe { libc::mmap(anywhere, PAGE_BYTES, libc::PROT_NONE, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
