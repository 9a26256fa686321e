// SPDX-License-Identifier: GPL-2.0-only
//! Owns one trial, from forking its actors to the evidence.
//!
//! 1. All actors are forked and sleep at their gates; holders have nice 0. Then hogs run, so that
//!    wherever an owner goes it finds one.
//! 2. The end owner goes. Its own CPU clock shows when it is well inside its critical section.
//! 3. In a chain, each further holder goes and must be seen blocked.
//! 4. When the end owner has lost its CPU to a hog, holders get their low priority, in this order: a
//!    fair scheduler takes what an owner of low priority runs before it is preempted out of the wait
//!    that follows, 69 ms a millisecond.
//! 5. When the hogs are seen to keep the end owner off the CPU, the waiter goes: it reads the
//!    holders' clocks and makes its syscall.
//! 6. When it is back, hogs stop, holders finish, and the evidence is judged.

use crate::board::{Board, PHASE_DONE, PHASE_INSIDE, PHASE_READY, Slot};
use crate::child::Child;
use crate::gate::Gate;
use crate::hogs::Hogs;
use crate::lock::Stage;
use crate::sys;
use crate::topology::Placement;
use crate::verdict::{Evidence, Measured, NotStaged};
use anyhow::{Context, Result, bail};
use std::io;
use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_millis(1);
/// A bound for everything that takes milliseconds when nothing is wrong.
const QUICK_LIMIT: Duration = Duration::from_secs(60);
/// CPU time after which an owner counts as well inside its syscall.
const INSIDE_CPU_NS: u64 = 2_000_000;
/// From the hogs' start to the end owner's, so that the hogs have found their CPUs.
const SETTLE: Duration = Duration::from_millis(20);
/// How long the owner may take to lose its CPU at nice 0. Should it have one to itself it keeps it: a
/// balanced system moves no hog there before its priority is low.
const PREEMPT_LIMIT: Duration = Duration::from_millis(10);
/// How long hogs may take to keep an owner of low priority off its CPU.
const STARVE_LIMIT: Duration = Duration::from_millis(500);
/// The time over which an owner must have had less than half a CPU to count as kept off it.
const STARVE_WINDOW: Duration = Duration::from_millis(10);
/// CPU time owners use up between entering and the start of the wait, per link of the chain.
const ENTRY_NS: u64 = 12_000_000;

/// What all trials of a scenario share.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub links: usize,
    pub owner_nice: i32,
    pub waiter_nice: i32,
    pub critical: Duration,
    pub max_wait: Duration,
}

impl Terms {
    /// The length of critical section that leaves about `critical` when the wait begins.
    pub fn section_ns(&self) -> u64 {
        let critical_ns = self.critical.as_nanos() as u64;
        critical_ns + critical_ns / 10 + self.links as u64 * ENTRY_NS
    }

    fn need_min_ns(&self) -> u64 {
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
    stage: &mut dyn Stage,
    terms: &Terms,
    place: &Placement,
    hogs: &mut Hogs,
) -> Result<Outcome> {
    stage.reset()?;
    let board = Board::new()?;
    let mut cast = Cast::spawn(stage, terms, place, &board)?;
    cast.wait_ready()?;
    // Declared after the cast, so that hogs stop first on every path and cannot starve its end.
    let running = hogs.run();
    std::thread::sleep(SETTLE);
    let blocked = match cast.enter_holders()? {
        Ok(blocked) => blocked,
        Err(reason) => {
            running.stop()?;
            return Ok(Outcome::NotStaged(reason));
        }
    };
    let starved = cast.starve_owner(terms)?;
    cast.waiter.gate.open().context("cannot start the waiter")?;
    let back = cast.back.opens_within(terms.max_wait)?;
    running.stop()?;
    if !back {
        return Ok(Outcome::TimedOut);
    }
    cast.wait_done()?;
    Ok(match cast.evidence(blocked, starved, terms).judge() {
        Ok(measured) => Outcome::Staged(measured),
        Err(reason) => Outcome::NotStaged(reason),
    })
}

struct Actor {
    child: Child,
    gate: Gate,
}

/// The actors of one trial; dropped, they are killed and reaped.
struct Cast<'a> {
    holders: Vec<Actor>,
    waiter: Actor,
    /// Opened by the waiter when its syscall is over.
    back: Gate,
    board: &'a Board,
}

impl<'a> Cast<'a> {
    fn spawn(
        stage: &dyn Stage,
        terms: &Terms,
        place: &Placement,
        board: &'a Board,
    ) -> Result<Cast<'a>> {
        let mut holders = Vec::with_capacity(terms.links);
        for link in 0..terms.links {
            let gate = Gate::new()?;
            let slot = &board.holders[link];
            let body = || act(slot, &gate, || slot.measure(|| stage.hold(link)));
            let child = Child::spawn(place.holders, 0, body)?;
            holders.push(Actor { child, gate });
        }
        let pids: Vec<_> = holders
            .iter()
            .map(|holder: &Actor| holder.child.pid())
            .collect();
        let back = Gate::new()?;
        let gate = Gate::new()?;
        let body = || {
            act(&board.waiter, &gate, || {
                board.look_at_holders(&pids);
                board.waiter.measure(|| stage.wait());
                // Should this fail, the trial times out.
                let _ = back.open();
            })
        };
        let child = Child::spawn(place.waiter, terms.waiter_nice, body)?;
        Ok(Cast {
            holders,
            waiter: Actor { child, gate },
            back,
            board,
        })
    }

    fn slots(&self) -> impl Iterator<Item = &'a Slot> {
        let holders = self.board.holders.iter().take(self.holders.len());
        holders.chain(std::iter::once(&self.board.waiter))
    }

    fn wait_ready(&mut self) -> Result<()> {
        let ready = sys::poll_until(QUICK_LIMIT, STEP, || {
            for actor in self
                .holders
                .iter_mut()
                .chain(std::iter::once(&mut self.waiter))
            {
                if let Some(end) = actor.child.ended()? {
                    bail!("an actor ended before the trial began: {end}");
                }
            }
            Ok(self.slots().all(|slot| slot.phase() == PHASE_READY))
        })?;
        if !ready {
            bail!(
                "the actors of a trial were not ready within {} s",
                QUICK_LIMIT.as_secs()
            );
        }
        Ok(())
    }

    /// Steps 2 and 3. Returns for each holder but the first whether it was seen blocked.
    fn enter_holders(&self) -> Result<Result<Vec<bool>, NotStaged>> {
        let mut blocked = Vec::new();
        for (link, holder) in self.holders.iter().enumerate() {
            holder.gate.open().context("cannot start an owner")?;
            if link == 0 {
                if !self.wait_owner_inside(holder)? {
                    return Ok(Err(NotStaged::OwnerNotInside));
                }
            } else {
                blocked.push(self.wait_blocked(link, holder)?);
            }
        }
        Ok(Ok(blocked))
    }

    /// False if the end owner came out before it was seen inside.
    fn wait_owner_inside(&self, owner: &Actor) -> Result<bool> {
        let slot = &self.board.holders[0];
        let mut inside = false;
        let known = sys::poll_until(QUICK_LIMIT, STEP, || {
            let phase = slot.phase();
            if phase == PHASE_INSIDE {
                let cpu_ns = sys::cpu_ns_of(owner.child.pid())
                    .context("cannot read the owner's CPU clock")?;
                inside = cpu_ns >= slot.enter_cpu_ns() + INSIDE_CPU_NS;
            }
            Ok(inside || phase == PHASE_DONE)
        })?;
        if !known {
            bail!(
                "an owner did not enter its critical section in {} s",
                QUICK_LIMIT.as_secs()
            );
        }
        Ok(inside)
    }

    /// False if the holder of this link does not block before the end owner comes out.
    fn wait_blocked(&self, link: usize, holder: &Actor) -> Result<bool> {
        let slot = &self.board.holders[link];
        let mut blocked = false;
        sys::poll_until(QUICK_LIMIT, STEP, || {
            blocked = slot.phase() == PHASE_INSIDE && holder.child.is_blocked();
            Ok(blocked || self.board.holders[0].phase() == PHASE_DONE)
        })?;
        Ok(blocked)
    }

    /// Step 4. False if the owner keeps getting the CPU, or comes out meanwhile.
    fn starve_owner(&self, terms: &Terms) -> Result<bool> {
        let (owner, slot) = (&self.holders[0].child, &self.board.holders[0]);
        let before = owner.preemptions()?;
        sys::poll_until(PREEMPT_LIMIT, STEP, || {
            Ok(slot.phase() == PHASE_DONE || owner.preemptions()? > before)
        })?;
        for holder in &self.holders {
            sys::set_nice(holder.child.pid(), terms.owner_nice)
                .context("cannot give an owner its nice value")?;
        }
        let mut last = (Instant::now(), sys::cpu_ns_of(owner.pid())?);
        let mut starved = false;
        sys::poll_until(STARVE_LIMIT, Duration::ZERO, || {
            std::thread::sleep(STARVE_WINDOW);
            let now = (Instant::now(), sys::cpu_ns_of(owner.pid())?);
            let used = Duration::from_nanos(now.1.saturating_sub(last.1));
            starved = used < (now.0 - last.0) / 2 && owner.preemptions()? > before;
            last = now;
            Ok(starved || slot.phase() == PHASE_DONE)
        })?;
        Ok(starved)
    }

    /// With the hogs stopped, the holders come out soon.
    fn wait_done(&self) -> Result<()> {
        let done = sys::poll_until(QUICK_LIMIT, STEP, || {
            Ok(self.slots().all(|slot| slot.phase() == PHASE_DONE))
        })?;
        if !done {
            bail!(
                "an owner did not come out within {} s of the wait",
                QUICK_LIMIT.as_secs()
            );
        }
        match self.slots().find_map(Slot::error) {
            Some(error) => Err(error).context("an actor's syscall failed"),
            None => Ok(()),
        }
    }

    fn evidence(&self, blocked: Vec<bool>, starved: bool, terms: &Terms) -> Evidence {
        let links = 0..self.holders.len();
        let need_ns = |link: usize| {
            let end_ns = self.board.holders[link].leave_cpu_ns();
            end_ns.saturating_sub(self.board.seen_cpu_ns(link))
        };
        Evidence {
            inside: links
                .clone()
                .map(|link| self.board.seen_inside(link))
                .collect(),
            blocked,
            starved,
            waiter_switches: self.board.waiter.switches(),
            need_ns: links.map(need_ns).sum(),
            wait_ns: self.board.waiter.wall_ns(),
            need_min_ns: terms.need_min_ns(),
        }
    }
}

/// The life of an actor: say ready, sleep at the gate, do its part.
fn act(slot: &Slot, gate: &Gate, part: impl FnOnce()) -> i32 {
    slot.set_ready();
    match gate.pass() {
        Ok(()) => part(),
        Err(error) => return exit_status(&error),
    }
    0
}

fn exit_status(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_is_longer_than_what_shall_be_left() {
        let mut terms = Terms {
            links: 1,
            owner_nice: 19,
            waiter_nice: -10,
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
