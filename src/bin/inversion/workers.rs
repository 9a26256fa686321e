// SPDX-License-Identifier: GPL-2.0-only
//! Owns the workers of a trial, holders and waiter: their lives, and each step that the parent makes
//! them take or sees them take. `trial` has the order of the steps.

use crate::board::{Board, Layout, PHASE_DONE, PHASE_INSIDE, PHASE_READY, Slot};
use crate::child::Child;
use crate::gate::Gate;
use crate::groups::{Groups, Role};
use crate::lock::Setup;
use crate::missing_page::Sleeper;
use crate::spawn::{self, Worker};
use crate::sys;
use crate::task::Task;
use crate::topology::Placement;
use crate::trial::Terms;
use crate::verdict::{Evidence, NotStaged, Owner, Service, Sleep};
use anyhow::{Context, Error, Result, bail};
use std::io;
use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_millis(1);
/// A bound for everything that takes milliseconds when nothing is wrong.
const QUICK_LIMIT: Duration = Duration::from_secs(60);
/// CPU time after which an owner counts as well inside its syscall.
const INSIDE_CPU_NS: u64 = 2_000_000;
/// How long the owner may take to lose its CPU at nice 0. Should it have one to itself it keeps it: a
/// balanced system moves no hog there before its priority is low.
const PREEMPT_LIMIT: Duration = Duration::from_millis(10);
/// How long hogs may take to keep an owner of low priority off its CPU.
const STARVE_LIMIT: Duration = Duration::from_millis(500);
/// The time over which an owner must have had less than half a CPU to count as kept off it.
const STARVE_WINDOW: Duration = Duration::from_millis(10);
/// How long an owner that sleeps does so after the waiter has blocked.
const SLEEP: Duration = Duration::from_millis(30);
/// How much longer it may have to sleep until the hogs occupy the CPUs.
const OCCUPY_LIMIT: Duration = Duration::from_millis(500);

/// How the end owner is, once inside, until the wait begins.
pub enum Inside {
    Working,
    /// Until the parent wakes it.
    Asleep(Sleeper),
    /// Until the waiter wakes it.
    Serving,
}

/// The workers of one trial; dropped, they are killed and reaped.
pub struct Workers<'a> {
    children: Vec<Child>,
    /// At which the holders sleep, end owner first.
    holder_gates: Vec<Gate>,
    waiter_gate: Gate,
    /// Opened by the waiter when its syscall is over.
    back: Gate,
    groups: Option<&'a Groups>,
    board: &'a Board,
}

impl<'a> Workers<'a> {
    pub fn spawn(
        setup: &dyn Setup,
        terms: &Terms,
        place: &Placement,
        groups: Option<&'a Groups>,
        board: &'a Board,
    ) -> Result<Workers<'a>> {
        let holder_gates = (0..terms.links)
            .map(|_| Gate::new())
            .collect::<Result<Vec<_>>>()?;
        let (waiter_gate, back) = (Gate::new()?, Gate::new()?);
        // What workers share must be fit for threads: the board itself is memory of this process.
        let layout: &Layout = board;
        let holders = holder_gates.iter().enumerate().map(|(link, gate)| Worker {
            place: place.holders,
            nice: 0,
            body: Box::new(move || hold(setup, layout, link, gate)),
        });
        let waiter = Worker {
            place: place.waiter,
            nice: terms.waiter_nice,
            body: Box::new(|| wait(setup, layout, terms, &waiter_gate, &back)),
        };
        let workers = holders.chain(std::iter::once(waiter)).collect();
        Ok(Workers {
            children: spawn::all(terms.workers, workers)?,
            holder_gates,
            waiter_gate,
            back,
            groups,
            board,
        })
    }

    /// Known when all workers are ready, as every other worker.
    pub fn end_owner(&self) -> Task {
        self.board.holders[0].task()
    }

    fn links(&self) -> usize {
        self.holder_gates.len()
    }

    fn workers(&self) -> impl Iterator<Item = &Slot> {
        self.board.workers(self.links())
    }

    pub fn wait_ready(&mut self) -> Result<()> {
        let ready = sys::poll_until(QUICK_LIMIT, STEP, || {
            for child in &mut self.children {
                if let Some(end) = child.ended()? {
                    let error = self
                        .board
                        .workers(self.holder_gates.len())
                        .find_map(Slot::error);
                    let cause = error.map_or_else(|| Error::msg(end), Error::new);
                    return Err(cause.context("a worker ended before the trial began"));
                }
            }
            Ok(self.workers().all(|slot| slot.phase() == PHASE_READY))
        })?;
        if !ready {
            bail!(
                "the workers of a trial were not ready within {} s",
                QUICK_LIMIT.as_secs()
            );
        }
        Ok(())
    }

    /// Moves all workers, which sleep at their gates, into their cgroups.
    pub fn enter_groups(&self) -> Result<()> {
        let Some(groups) = self.groups else {
            return Ok(());
        };
        groups.release_owners()?;
        for child in &self.children {
            groups.host(child.pid())?;
        }
        for holder in self.board.owners(self.links()) {
            groups.enter(Role::Owner, holder.task())?;
        }
        groups.enter(Role::Waiter, self.board.waiter.task())
    }

    /// Steps 2 and 3. Returns for each holder but the first whether it was seen blocked.
    pub fn enter_holders(&self, inside: &mut Inside) -> Result<Result<Vec<bool>, NotStaged>> {
        let mut blocked = Vec::new();
        for (link, gate) in self.holder_gates.iter().enumerate() {
            gate.open().context("cannot start an owner")?;
            if link == 0 {
                let is_inside = match inside {
                    Inside::Working => self.wait_owner_inside()?,
                    Inside::Asleep(sleeper) => self.wait_owner_asleep(sleeper)?,
                    Inside::Serving => self.wait_owner(|| Ok(self.end_owner().is_asleep()))?,
                };
                if !is_inside {
                    return Ok(Err(NotStaged::OwnerNotInside));
                }
            } else {
                blocked.push(self.wait_blocked(&self.board.holders[link])?);
            }
        }
        Ok(Ok(blocked))
    }

    /// False if the end owner came out before it was seen inside.
    fn wait_owner_inside(&self) -> Result<bool> {
        let slot = &self.board.holders[0];
        let owner = self.end_owner();
        self.wait_owner(|| {
            let cpu_ns = owner
                .cpu_ns()
                .context("cannot read the owner's CPU clock")?;
            Ok(cpu_ns >= slot.enter_cpu_ns() + INSIDE_CPU_NS)
        })
    }

    /// False if the end owner came out before it was seen asleep inside.
    fn wait_owner_asleep(&self, sleeper: &mut Sleeper) -> Result<bool> {
        let owner = self.end_owner();
        let mut touched = false;
        self.wait_owner(|| {
            touched = touched || sleeper.has_touched()?;
            Ok(touched && owner.is_asleep())
        })
    }

    /// Asks until the end owner, in its syscall, is where it should be (true), or out again (false).
    fn wait_owner(&self, mut is_there: impl FnMut() -> Result<bool>) -> Result<bool> {
        let mut there = false;
        let known = sys::poll_until(QUICK_LIMIT, STEP, || {
            let phase = self.board.holders[0].phase();
            there = phase == PHASE_INSIDE && is_there()?;
            Ok(there || phase == PHASE_DONE)
        })?;
        if !known {
            bail!(
                "an owner was not seen in its critical section within {} s",
                QUICK_LIMIT.as_secs()
            );
        }
        Ok(there)
    }

    /// False if the worker does not block before it or the end owner comes out.
    fn wait_blocked(&self, slot: &Slot) -> Result<bool> {
        let mut blocked = false;
        sys::poll_until(QUICK_LIMIT, STEP, || {
            blocked = slot.phase() == PHASE_INSIDE && slot.task().is_blocked();
            let over = |slot: &Slot| slot.phase() == PHASE_DONE;
            Ok(blocked || over(slot) || over(&self.board.holders[0]))
        })?;
        Ok(blocked)
    }

    /// Step 4 for an owner that wants to run. False if it keeps getting the CPU, or comes out meanwhile.
    pub fn starve_owner(&self, terms: &Terms) -> Result<bool> {
        let (owner, slot) = (self.end_owner(), &self.board.holders[0]);
        let before = owner.preemptions()?;
        sys::poll_until(PREEMPT_LIMIT, STEP, || {
            Ok(slot.phase() == PHASE_DONE || owner.preemptions()? > before)
        })?;
        self.lower_holders(terms)?;
        let mut last = (Instant::now(), owner.cpu_ns()?);
        let mut starved = false;
        sys::poll_until(STARVE_LIMIT, Duration::ZERO, || {
            std::thread::sleep(STARVE_WINDOW);
            let now = (Instant::now(), owner.cpu_ns()?);
            let used = Duration::from_nanos(now.1.saturating_sub(last.1));
            starved = used < (now.0 - last.0) / 2 && owner.preemptions()? > before;
            last = now;
            Ok(starved || slot.phase() == PHASE_DONE)
        })?;
        Ok(starved)
    }

    pub fn lower_holders(&self, terms: &Terms) -> Result<()> {
        for holder in self.board.owners(self.links()) {
            let task = holder.task();
            task.set_nice(terms.owner_nice)
                .context("cannot give an owner its nice value")?;
        }
        self.groups.map_or(Ok(()), Groups::restrain_owners)
    }

    /// Step 5.
    pub fn start_waiter(&self, terms: &Terms) -> Result<()> {
        terms.waiter_policy.give_to(self.board.waiter.task())?;
        self.waiter_gate.open().context("cannot start the waiter")
    }

    /// Step 6. `occupied`: whether each CPU on which the owner may wake has a hog.
    pub fn wake_owner(
        &self,
        mut sleeper: Sleeper,
        terms: &Terms,
        occupied: impl Fn() -> bool,
    ) -> Result<Sleep> {
        self.wait_blocked(&self.board.waiter)?;
        std::thread::sleep(SLEEP);
        let seen = self.look_at_end_owner(terms, occupied)?;
        let overlaps = seen.asleep && self.board.waiter.task().is_blocked();
        let woken_ns = sleeper.wake()?;
        Ok(Sleep {
            overlaps,
            low: seen.low,
            busy: seen.busy,
            slept_ns: woken_ns.saturating_sub(self.board.waiter.enter_ns()),
        })
    }

    /// What there is to see of an end owner that is about to be woken, as soon as CPUs are occupied.
    pub fn look_at_end_owner(&self, terms: &Terms, occupied: impl Fn() -> bool) -> Result<Service> {
        let busy = sys::poll_until(OCCUPY_LIMIT, STEP, || Ok(occupied()))?;
        let stat = self.end_owner().stat();
        Ok(Service {
            asleep: stat.is_some_and(|stat| stat.is_asleep()),
            low: stat.is_some_and(|stat| stat.nice == terms.owner_nice),
            busy,
        })
    }

    /// Whether the waiter's syscall ends within `limit`.
    pub fn is_back_within(&self, limit: Duration) -> Result<bool> {
        self.back.opens_within(limit)
    }

    /// With the hogs stopped, the holders come out soon.
    pub fn wait_done(&self) -> Result<()> {
        let done = sys::poll_until(QUICK_LIMIT, STEP, || {
            Ok(self.workers().all(|slot| slot.phase() == PHASE_DONE))
        })?;
        if !done {
            bail!(
                "an owner did not come out within {} s of the wait",
                QUICK_LIMIT.as_secs()
            );
        }
        match self.workers().find_map(Slot::error) {
            Some(error) => Err(error).context("a worker's syscall failed"),
            None => Ok(()),
        }
    }

    pub fn evidence(&self, blocked: Vec<bool>, owner: Owner, terms: &Terms) -> Evidence {
        let links = 0..self.links();
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
            owner,
            waiter_policy: self.board.seen_policy(),
            waiter_switches: self.board.waiter.switches(),
            need_ns: links.map(need_ns).sum(),
            wait_ns: self.board.waiter.wall_ns(),
            awake_ns: self.board.waiter.awake_ns(),
            need_min_ns: terms.need_min_ns(),
        }
    }
}

fn hold(setup: &dyn Setup, board: &Layout, link: usize, gate: &Gate) -> i32 {
    let slot = &board.holders[link];
    let prepare = || {
        setup.prepare(link)?;
        setup.warm_up(false)?;
        setup.arm(link)
    };
    run_worker(slot, gate, prepare, || slot.measure(|| setup.hold(link)))
}

fn wait(setup: &dyn Setup, board: &Layout, terms: &Terms, gate: &Gate, back: &Gate) -> i32 {
    let prepare = || {
        terms.waiter_policy.prepare()?;
        setup.warm_up(true)
    };
    run_worker(&board.waiter, gate, prepare, || {
        board.note_policy(terms.waiter_policy.is_own());
        board.look_at_holders(terms.links);
        board.waiter.measure(|| setup.wait());
        // Should this fail, the trial times out.
        let _ = back.open();
    })
}

/// The life of a worker: prepare, say ready, sleep at the gate, do its work.
fn run_worker(
    slot: &Slot,
    gate: &Gate,
    prepare: impl FnOnce() -> io::Result<()>,
    work: impl FnOnce(),
) -> i32 {
    let ready = prepare().and_then(|()| {
        slot.set_ready();
        gate.pass()
    });
    if let Err(error) = ready {
        slot.fail(&error);
        return 1;
    }
    work();
    0
}
