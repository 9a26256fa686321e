// SPDX-License-Identifier: GPL-2.0-only
//! Owns the gate (an eventfd) at which one process sleeps until another opens it, once.

use crate::sys;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub struct Gate {
    event: File,
}

impl Gate {
    pub fn new() -> Result<Gate> {
        // SAFETY: takes numbers only.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error()).context("cannot make an eventfd");
        }
        // SAFETY: the descriptor is new and nothing else owns it.
        let event = unsafe { File::from_raw_fd(fd) };
        Ok(Gate { event })
    }

    pub fn open(&self) -> io::Result<()> {
        (&self.event).write_all(&1u64.to_ne_bytes())
    }

    /// Sleeps until the gate is opened, and closes it again.
    pub fn pass(&self) -> io::Result<()> {
        (&self.event).read_exact(&mut [0; 8])
    }

    /// Sleeps until the gate is open (true) or `limit` has passed (false), and leaves it as it is.
    pub fn opens_within(&self, limit: Duration) -> Result<bool> {
        let end = Instant::now() + limit;
        loop {
            sys::check_interrupt()?;
            let left = end.saturating_duration_since(Instant::now());
            let left_ms = left.as_millis().min(1000) as libc::c_int;
            let mut poll = libc::pollfd {
                fd: self.event.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: `poll` is one valid pollfd.
            let ready = unsafe { libc::poll(&mut poll, 1, left_ms) };
            if ready > 0 {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_opens_once() -> Result<()> {
        let gate = Gate::new()?;
        assert!(!gate.opens_within(Duration::from_millis(5))?);
        gate.open()?;
        assert!(gate.opens_within(Duration::ZERO)?);
        gate.pass()?;
        assert!(!gate.opens_within(Duration::ZERO)?);
        Ok(())
    }
}
