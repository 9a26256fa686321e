// SPDX-License-Identifier: GPL-2.0-only
//! Owns the recipe for a binder transaction, which is no lock but waited for like one: the owner is a
//! thread of a server that computes before it answers, the waiter a client that asks and sleeps in
//! BINDER_WRITE_READ until the answer is there.
//!
//! The owner sleeps until the waiter itself wakes it (`Setup::serves`). Binder gives a server's thread
//! the nice value of its client as soon as that thread has got a CPU, but only if it has the right to
//! such a value. This one has not, as servers without privileges have not.

use super::{Recipe, Setup, compute};
use crate::spawn::WorkerKind;
use crate::transaction::{self, Connection};
use anyhow::Result;
use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub static RECIPE: Recipe = Recipe {
    name: "binder",
    summary: "synchronous binder transaction: owner serves it and computes, waiter asks",
    default_hogs: 1,
    by_default: false,
    donates: true,
    workers: WorkerKind::Processes,
    links: 1,
    pages_max: super::compute_max,
    unavailable: || transaction::unavailable(|| connect_as_manager().map(drop)),
    build: |units| {
        Ok(Box::new(Server {
            connection: OnceLock::new(),
            units,
        }))
    },
};

/// How long the kernel may take to forget the server of the trial before.
const MANAGER_LIMIT: Duration = Duration::from_secs(10);
const MANAGER_STEP: Duration = Duration::from_millis(5);

struct Server {
    /// Set in the owner's process only.
    connection: OnceLock<Connection>,
    units: usize,
}

/// The kernel takes note of the end of a server some time after that.
fn connect_as_manager() -> io::Result<Connection> {
    let connection = Connection::open()?;
    let end = Instant::now() + MANAGER_LIMIT;
    loop {
        match connection.become_manager() {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < end => {
                std::thread::sleep(MANAGER_STEP);
            }
            result => return result.map(|()| connection),
        }
    }
}

impl Setup for Server {
    fn reset(&mut self) -> Result<()> {
        Ok(())
    }

    fn prepare(&self, _link: usize) -> io::Result<()> {
        transaction::refuse_nice()?;
        let connection = connect_as_manager()?;
        self.connection.get_or_init(|| connection);
        Ok(())
    }

    fn serves(&self) -> bool {
        true
    }

    fn hold(&self, _link: usize) -> io::Result<()> {
        let connection = self.connection.get();
        let connection = connection.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        connection.serve_one(|| compute(self.units))
    }

    fn hold_alone(&self) -> io::Result<()> {
        compute(self.units);
        Ok(())
    }

    fn wait(&self) -> io::Result<()> {
        Connection::open()?.ask()
    }
}
