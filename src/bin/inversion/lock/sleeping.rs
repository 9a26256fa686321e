// SPDX-License-Identifier: GPL-2.0-only
//! Owns the recipe for an owner that sleeps: as in `f_pos`, but the first page that the owner reads
//! into is missing. It sleeps inside read(), owning f_pos_lock, until the parent provides the page,
//! and needs the CPU for the rest of the read after that.

use super::f_pos::{self, SharedFile};
use super::{Recipe, Setup};
use crate::missing_page::{self, MissingPage, Sleeper};
use crate::spawn::WorkerKind;
use crate::task::Task;
use anyhow::Result;
use std::io;

pub static RECIPE: Recipe = Recipe {
    name: "sleeping_owner",
    summary: "f_pos_lock, whose owner sleeps in read() when the wait begins, and then needs CPU",
    default_hogs: 1,
    by_default: true,
    donates: true,
    workers: WorkerKind::Processes,
    links: 1,
    pages_max: || f_pos::PAGES_MAX,
    unavailable: missing_page::unavailable,
    build: |pages| {
        let shared = SharedFile::new(pages)?;
        let page = MissingPage::new(shared.buffer.address())?;
        Ok(Box::new(SleepyFile { shared, page }))
    },
};

struct SleepyFile {
    shared: SharedFile,
    page: MissingPage,
}

impl Setup for SleepyFile {
    fn reset(&mut self) -> Result<()> {
        self.shared.reset()
    }

    fn arm(&self, _link: usize) -> io::Result<()> {
        // The buffer's own pages have memory behind them, so none of those is ever missing.
        self.shared.buffer.renew_first_page()?;
        self.page.arm()
    }

    fn sleeper(&self, owner: Task) -> Result<Option<Sleeper>> {
        self.page.of(owner).map(Some)
    }

    fn hold(&self, link: usize) -> io::Result<()> {
        self.shared.hold(link)
    }

    fn wait(&self) -> io::Result<()> {
        self.shared.wait()
    }
}
