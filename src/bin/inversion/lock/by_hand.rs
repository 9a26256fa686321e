// SPDX-License-Identifier: GPL-2.0-only
//! Owns the setup of mutexes that are made by hand and keep the owner's name: the owner computes inside, the
//! waiter wants the mutex.

use super::{Setup, compute};
use anyhow::Result;
use std::io;

/// A mutex laid out as some C library has it.
pub trait Mutex: Send + Sync + 'static {
    /// Nobody has it, nobody waits.
    fn renew(&self);
    /// Errors: what futex() says.
    fn lock(&self) -> io::Result<()>;
    /// Errors: what futex() says.
    fn unlock(&self) -> io::Result<()>;
}

/// One of these; its owner computes for so many units.
pub struct Locked<M> {
    pub mutex: M,
    pub units: usize,
}

impl<M: Mutex> Setup for Locked<M> {
    fn reset(&mut self) -> Result<()> {
        self.mutex.renew();
        Ok(())
    }

    fn hold(&self, _link: usize) -> io::Result<()> {
        self.mutex.lock()?;
        compute(self.units);
        self.mutex.unlock()
    }

    fn wait(&self) -> io::Result<()> {
        self.mutex.lock()?;
        self.mutex.unlock()
    }
}
