// SPDX-License-Identifier: GPL-2.0-only
//! Owns one trial, from forking its workers to the evidence.
//!
//! 1. All workers are forked (or started as threads of a fork) and sleep at their gates; holders have nice 0, and
//!    the default weight if they are in a cgroup. Then hogs run, so that
//!    wherever an owner goes it finds one.
//! 2. The end owner goes. Its own CPU clock shows when it is well inside its critical section, or the
//!    page fault in which it sleeps there.
//! 3. In a chain, each further holder goes and must be seen blocked.
//! 4. When the end owner has lost its CPU to a hog, holders get their low priority, in this order: a
//!    fair scheduler takes what an owner of low priority runs before it is preempted out of the wait
//!    that follows, 69 ms a millisecond. One that sleeps has nothing to lose and gets it at once.
//! 5. When the hogs are seen to keep the end owner off the CPU, the waiter goes: it gets its real-time
//!    priority, if it is to have one, reads the holders' clocks and makes its syscall.
//! 6. An owner that sleeps is woken a while after the waiter was seen blocked, as soon as there is a
//!    hog on each CPU on which it may wake.
//!    One that serves sleeps until the waiter's syscall wakes it; there the waiter goes as soon as
//!    there are such hogs.
//! 7. When the waiter is back, hogs stop, holders finish, and the evidence is judged.

use crate::board::Board;
use crate::groups::Groups;
use crate::hogs::{Hogs, Running};
use crate::lock::Setup;
use crate::policy::WaiterPolicy;
use crate::spawn::WorkerKind;
use crate::topology::Placement;
use crate::verdict::{Measured, NotStaged, Owner};
use crate::workers::{Inside, Workers};
use anyhow::Result;
use std::time::Duration;

/// From the hogs' start to the end owner's, so that the hogs have found their CPUs.
const SETTLE: Duration = Duration::from_millis(20);
/// CPU time owners use up between entering and the start of the wait, per link of the chain.
const ENTRY_NS: u64 = 12_000_000;

/// What all trials of a scenario share.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub links: usize,
    pub workers: WorkerKind,
    pub owner_nice: i32,
    pub waiter_nice: i32,
    pub waiter_policy: WaiterPolicy,
    pub critical: Duration,
    pub max_wait: Duration,
}

impl Terms {
    /// The length of critical section that leaves about `critical` when the wait begins.
    pub fn section_ns(&self) -> u64 {
        let critical_ns = self.critical.as_nanos() as u64;
        critical_ns + critical_ns / 10 + self.links as u64 * ENTRY_NS
    }

    pub fn need_min_ns(&self) -> u64 {
        (self.critical.as_nanos() as u64 / 5).max(5_000_000)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    Staged(Measured),
    NotStaged(NotStaged),
    TimedOut,
}

pub fn run(
    setup: &mut dyn Setup,
    terms: &Terms,
    place: &Placement,
    groups: Option<&Groups>,
    hogs: &mut Hogs,
) -> Result<Outcome> {
    setup.reset()?;
    let board = Board::new()?;
    let mut workers = Workers::spawn(setup, terms, place, groups, &board)?;
    workers.wait_ready()?;
    workers.enter_groups()?;
    let mut inside = match setup.sleeper(workers.end_owner())? {
        Some(sleeper) => Inside::Asleep(sleeper),
        None if setup.serves() => Inside::Serving,
        None => Inside::Working,
    };
    // Declared after the workers, so that hogs stop first on every path and cannot starve its end.
    let running = hogs.run();
    std::thread::sleep(SETTLE);
    let blocked = match workers.enter_holders(&mut inside)? {
        Ok(blocked) => blocked,
        Err(reason) => {
            running.stop()?;
            return Ok(Outcome::NotStaged(reason));
        }
    };
    let owner = begin_wait(&workers, inside, terms, place, &running)?;
    let back = workers.is_back_within(terms.max_wait)?;
    running.stop()?;
    if !back {
        return Ok(Outcome::TimedOut);
    }
    workers.wait_done()?;
    Ok(match workers.evidence(blocked, owner, terms).judge() {
        Ok(measured) => Outcome::Staged(measured),
        Err(reason) => Outcome::NotStaged(reason),
    })
}

/// Steps 4 to 6. Returns with the waiter on its way, and an end owner that the parent wakes awake.
fn begin_wait(
    workers: &Workers,
    inside: Inside,
    terms: &Terms,
    place: &Placement,
    running: &Running,
) -> Result<Owner> {
    let occupied = || running.occupy(&place.holder_cpus);
    match inside {
        Inside::Working => {
            let starved = workers.starve_owner(terms)?;
            workers.start_waiter(terms)?;
            Ok(Owner::Runnable { starved })
        }
        Inside::Asleep(sleeper) => {
            workers.lower_holders(terms)?;
            workers.start_waiter(terms)?;
            workers
                .wake_owner(sleeper, terms, occupied)
                .map(Owner::Asleep)
        }
        Inside::Serving => {
            workers.lower_holders(terms)?;
            let seen = workers.look_at_end_owner(terms, occupied)?;
            workers.start_waiter(terms)?;
            Ok(Owner::Serving(seen))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_is_longer_than_what_shall_be_left() {
        let mut terms = Terms {
            links: 1,
            workers: WorkerKind::Processes,
            owner_nice: 19,
            waiter_nice: -10,
            waiter_policy: WaiterPolicy::Other,
            critical: Duration::from_millis(60),
            max_wait: Duration::from_secs(1),
        };
        assert_eq!(terms.section_ns(), 78_000_000);
        assert_eq!(terms.need_min_ns(), 12_000_000);
        terms.links = 2;
        terms.critical = Duration::from_millis(10);
        assert_eq!(terms.section_ns(), 35_000_000);
        assert_eq!(terms.need_min_ns(), 5_000_000);
    }
}
