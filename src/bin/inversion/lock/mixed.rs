// SPDX-License-Identifier: GPL-2.0-only
//! Owns the recipes for chains of two locks of different types.
//!
//!     mutex_rwsem:        waiter -> f_pos_lock -> middle -> i_rwsem -> end owner
//!     pthread_then_mutex: waiter -> pthread mutex -> middle -> f_pos_lock -> end owner
//!
//! In the first, the end owner fallocates a tmpfs file, the middle writes a byte to the same open file
//! (so it owns f_pos_lock and waits for i_rwsem), and the waiter asks for the position of it. In the
//! second, the end owner reads a large file, the middle asks for the position of it while it has a
//! pthread mutex, and the waiter locks that mutex.

use super::f_pos::{self, SharedFile};
use super::i_rwsem::{self, Reserved};
use super::pthread::{Kind, Mutex};
use super::{Recipe, Setup, ask_position};
use crate::spawn::WorkerKind;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::AsRawFd;

pub static MUTEX_RWSEM: Recipe = Recipe {
    name: "mutex_rwsem",
    summary: "f_pos_lock, then i_rwsem: waiter lseek()s a file whose writer waits for a fallocate()",
    default_hogs: 1,
    by_default: true,
    donates: true,
    workers: WorkerKind::Processes,
    links: 2,
    pages_max: i_rwsem::pages_max,
    unavailable: || None,
    build: |pages| {
        let reserved = Reserved::new(pages)?;
        let path = format!("/proc/self/fd/{}", reserved.file().as_raw_fd());
        // By path, since only then has the file a position to be guarded.
        let file = File::options().write(true).open(&path);
        let file = file.with_context(|| format!("cannot open {path}"))?;
        Ok(Box::new(Written { reserved, file }))
    },
};

pub static PTHREAD_THEN_MUTEX: Recipe = Recipe {
    name: "pthread_then_mutex",
    summary: "pthread mutex, then f_pos_lock: waiter locks what a thread has that lseek()s a file being read",
    default_hogs: 1,
    by_default: true,
    donates: true,
    workers: WorkerKind::Threads,
    links: 2,
    pages_max: || f_pos::PAGES_MAX,
    unavailable: || None,
    build: |pages| {
        let shared = SharedFile::new(pages)?;
        let mutex = Mutex::new(Kind::Normal)?;
        Ok(Box::new(Nested { shared, mutex }))
    },
};

struct Written {
    reserved: Reserved,
    /// The same file; what is written to it lies within its length.
    file: File,
}

impl Setup for Written {
    fn reset(&mut self) -> Result<()> {
        self.reserved.empty()?;
        self.file.rewind().context("cannot rewind the file")
    }

    fn hold(&self, link: usize) -> io::Result<()> {
        match link {
            0 => self.reserved.reserve(),
            _ => (&self.file).write_all(&[0]),
        }
    }

    fn wait(&self) -> io::Result<()> {
        ask_position(&self.file)
    }
}

struct Nested {
    shared: SharedFile,
    mutex: Mutex,
}

impl Setup for Nested {
    fn reset(&mut self) -> Result<()> {
        self.mutex.renew(Kind::Normal)?;
        self.shared.reset()
    }

    fn hold(&self, link: usize) -> io::Result<()> {
        if link == 0 {
            return self.shared.hold(0);
        }
        self.mutex.lock()?;
        let asked = self.shared.wait();
        self.mutex.unlock()?;
        asked
    }

    fn wait(&self) -> io::Result<()> {
        self.mutex.lock()?;
        self.mutex.unlock()
    }
}
