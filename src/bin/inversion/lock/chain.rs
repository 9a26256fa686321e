// SPDX-License-Identifier: GPL-2.0-only
//! Owns the recipe for a chain of two mutexes on one open smaps_rollup:
//!
//!     waiter -> f_pos_lock -> middle -> m->lock -> end owner
//!
//! The end owner preads (no f_pos_lock) and walks a page table under m->lock; the middle reads, so
//! it owns f_pos_lock and waits for m->lock; the waiter seeks and waits for f_pos_lock.
//!
//! Only the end owner may have much to do. A seq_file serves a read without a walk where the last one
//! ended, so the end owner reads exactly up to the file's position, the middle one byte from there,
//! and the waiter asks for the position that this leaves.

use super::seq_file::{self, Rollup};
use super::{Recipe, Setup, ask_position};
use crate::spawn::WorkerKind;
use anyhow::{Context, Result};
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;

/// Every trial moves the position by one byte; beyond this the file is rewound. Well below the
/// length of any smaps_rollup.
const POSITION_MAX: usize = 200;

pub static RECIPE: Recipe = Recipe {
    name: "chain",
    summary: "two mutexes: waiter lseek()s a /proc file whose reader waits for another reader",
    default_hogs: 1,
    by_default: true,
    donates: true,
    workers: WorkerKind::Processes,
    links: 2,
    pages_max: || seq_file::PAGES_MAX,
    unavailable: seq_file::rollup_unavailable,
    build: |pages| {
        let rollup = Rollup::new(pages)?;
        let position = 0;
        Ok(Box::new(ChainFile { rollup, position }))
    },
};

struct ChainFile {
    rollup: Rollup,
    /// The file's position as of the last reset.
    position: usize,
}

impl Setup for ChainFile {
    fn reset(&mut self) -> Result<()> {
        let mut file = &self.rollup.file;
        let mut position = file.stream_position().context("cannot tell the position")? as usize;
        if !(1..POSITION_MAX).contains(&position) {
            file.rewind().context("cannot rewind smaps_rollup")?;
            file.read_exact(&mut [0; 1])
                .context("cannot read smaps_rollup")?;
            position = 1;
        }
        self.position = position;
        Ok(())
    }

    fn hold(&self, link: usize) -> io::Result<()> {
        let mut file = &self.rollup.file;
        if link == 0 {
            file.read_exact_at(&mut [0; POSITION_MAX][..self.position], 0)
        } else {
            file.read_exact(&mut [0; 1])
        }
    }

    fn wait(&self) -> io::Result<()> {
        ask_position(&self.rollup.file)
    }
}
