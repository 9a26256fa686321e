// SPDX-License-Identifier: GPL-2.0-only
//! Owns the recipe for the mutex `m->lock` of a seq_file: the owner reads smaps_rollup of a process
//! with very many pages, the waiter reads the same open file.
//!
//! A read at position 0 walks the whole page table under the lock. It asks for one byte, the rest
//! stays in the kernel's buffer; the waiter asks for the byte behind it, which is served from that
//! buffer, so that the waiter needs no walk of its own.

use super::{Recipe, Setup};
use crate::alias::AliasMap;
use crate::child::Child;
use crate::gate::Gate;
use crate::spawn::{WorkerKind, pause_forever};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

const POPULATE_LIMIT: Duration = Duration::from_secs(120);

/// 64 MiB of page tables.
pub const PAGES_MAX: usize = 1 << 23;

pub static RECIPE: Recipe = Recipe {
    name: "seq_file",
    summary: "mutex of a /proc file: owner pread()s another process's smaps_rollup, waiter the same file",
    default_hogs: 1,
    by_default: true,
    donates: true,
    workers: WorkerKind::Processes,
    links: 1,
    pages_max: || PAGES_MAX,
    unavailable: rollup_unavailable,
    build: |pages| Ok(Box::new(Rollup::new(pages)?)),
};

/// An open smaps_rollup, and the process that it describes: one that sleeps with many pages mapped.
#[derive(Debug)]
pub struct Rollup {
    pub file: File,
    _subject: Child,
}

impl Rollup {
    pub fn new(pages: usize) -> Result<Rollup> {
        let populated = Gate::new()?;
        let mut subject = Child::spawn(None, 0, || {
            let Ok(mapping) = AliasMap::new(pages) else {
                return 1;
            };
            if let Err(error) = mapping.populate() {
                return error.raw_os_error().unwrap_or(1);
            }
            let _ = populated.open();
            pause_forever()
        })?;
        if !wait_populated(&mut subject, &populated)? {
            bail!(
                "a process did not map {pages} pages within {} s",
                POPULATE_LIMIT.as_secs()
            );
        }
        let path = format!("/proc/{}/smaps_rollup", subject.pid());
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        Ok(Rollup {
            file,
            _subject: subject,
        })
    }
}

impl Setup for Rollup {
    fn reset(&mut self) -> Result<()> {
        Ok(())
    }

    fn hold(&self, _link: usize) -> io::Result<()> {
        self.file.read_exact_at(&mut [0; 1], 0)
    }

    fn wait(&self) -> io::Result<()> {
        self.file.read_exact_at(&mut [0; 1], 1)
    }
}

fn wait_populated(subject: &mut Child, populated: &Gate) -> Result<bool> {
    let step = Duration::from_millis(1);
    crate::sys::poll_until(POPULATE_LIMIT, step, || {
        if let Some(end) = subject.ended()? {
            bail!("the process with the pages to be walked failed: {end}");
        }
        populated.opens_within(Duration::ZERO)
    })
}

/// Why smaps_rollup cannot be read, if so.
pub fn rollup_unavailable() -> Option<String> {
    let path = "/proc/self/smaps_rollup";
    File::open(path)
        .err()
        .map(|error| format!("cannot open {path}: {error}"))
}
