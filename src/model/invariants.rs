// SPDX-License-Identifier: GPL-2.0-only
//! What must hold after every step, whatever the policy is. A broken invariant is
//! a value with the step and the seed, so that the run can be had again.

use std::collections::BTreeMap;
use std::fmt;

use super::kernel::{Call, Dsq, State, World};
use super::policy::{Cpu, DonorPlace, Kernel, Pid, Reach, View};
use super::program::{Class, LockIdx, LockKind};
use super::sim::{Sim, Step, TICK_NS};

/// Questions about locks that one callback may ask at the most: 8 donors, 17 hops
/// each, 8 questions a hop and two of each of 5 candidates, and some before.
const LOCK_QUESTIONS_MAX: u32 = 8 * 17 * (8 + 2 * 5) + 16;

/// Steps that may happen at the same time.
const STEPS_AT_ONCE_MAX: u64 = 10_000;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// In which step.
    pub step: u64,
    /// When.
    pub now: u64,
    /// The seed of the run.
    pub seed: u64,
    /// Which one, and what is wrong.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            step,
            now,
            seed,
            what,
        } = self;
        write!(f, "step {step}, {now} ns, seed {seed}: {what}")
    }
}

impl std::error::Error for Violation {}

/// CPU time that an owner has used in a donor's context and is not charged yet.
#[derive(Clone, Copy, Debug)]
struct Donated {
    donor: Pid,
    wait: u64,
    ns: u64,
}

/// Checks the steps of one run, from the first on.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    last: View,
    last_now: u64,
    /// Owners that ran in a donor's context after the last step.
    active: BTreeMap<Pid, (Pid, u64)>,
    uncharged: BTreeMap<Pid, Vec<Donated>>,
    donated_ns: u64,
    idle_since: BTreeMap<Cpu, u64>,
    steps_now: u64,
}

type Check = Result<(), String>;

fn require(holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(what()) }
}

impl Checker {
    /// Checks the state after `step`.
    pub fn check(&mut self, sim: &Sim, step: &Step) -> Result<(), Violation> {
        let world = &sim.world;
        let seed = sim.setup.seed;
        let all = self.check_all(world, &step.view, sim.setup.kick_delay_ns);
        let all = all.and_then(|()| self.time_goes_on(step.now));
        self.last = step.view.clone();
        self.last_now = step.now;
        all.map_err(|what| Violation {
            step: step.number,
            now: step.now,
            seed,
            what,
        })
    }

    fn check_all(&mut self, world: &World, view: &View, kick_delay_ns: u64) -> Check {
        rules_kept(world)?;
        conservation(world, view)?;
        self.donors_pay(world, view)?;
        donors_wait(world, view)?;
        donations_are_true(world, view)?;
        attached_are_looked_at(world, view)?;
        nobody_is_lost(world)?;
        self.clocks_go_on(view)?;
        self.urgent_pay_nothing(world, view)?;
        self.no_idle_cpu_beside_work(world, kick_delay_ns)
    }

    /// What owners ran in a donor's context is what donors were charged, to the ns. An
    /// owner pays itself if the donor waits for something else, or is gone, by then.
    fn donors_pay(&mut self, world: &World, view: &View) -> Check {
        let elapsed = world.now - self.last_now;
        for (&owner, &(donor, wait)) in &self.active {
            let parts = self.uncharged.entry(owner).or_default();
            parts.push(Donated {
                donor,
                wait,
                ns: elapsed,
            });
        }
        for (owner, parts) in &mut self.uncharged {
            if world.exec_seen(*owner) == world.exec_now(*owner) {
                let in_time = |part: &Donated| {
                    let alive = world.task(part.donor).state != State::Dead;
                    let of_donor = |&(t, _): &(Pid, u64)| t == part.donor;
                    let last = view.waits.iter().copied().find(of_donor);
                    alive && last.is_some_and(|(_, wait)| wait == part.wait)
                };
                let paid = parts.drain(..).filter(in_time).map(|part| part.ns);
                self.donated_ns += paid.sum::<u64>();
            }
        }
        self.active.clear();
        for donor in &view.donors {
            if let DonorPlace::Active(owner) = donor.place
                && world.task(owner).state == State::Running
            {
                self.active.insert(owner, (donor.pid, donor.wait));
            }
        }
        require(self.donated_ns == view.donated_ns, || {
            format!(
                "donors: charged {} ns, lent {} ns",
                view.donated_ns, self.donated_ns
            )
        })
    }

    /// Kicks that cause kicks would be a machine that stands still.
    fn time_goes_on(&mut self, now: u64) -> Check {
        self.steps_now = if now == self.last_now {
            self.steps_now + 1
        } else {
            0
        };
        require(self.steps_now < STEPS_AT_ONCE_MAX, || {
            "livelock: time stands still".to_owned()
        })
    }

    fn clocks_go_on(&self, view: &View) -> Check {
        for (cpu, (was, is)) in self.last.clocks.iter().zip(&view.clocks).enumerate() {
            require(is.wrapping_sub(*was) as i64 >= 0, || {
                format!("clocks: that of CPU {cpu} went back from {was} to {is}")
            })?;
        }
        Ok(())
    }

    /// A task of a higher class has no key that means anything: it is never moved.
    fn urgent_pay_nothing(&self, world: &World, view: &View) -> Check {
        let was = |t: Pid| self.last.keys.iter().find(|(pid, _)| *pid == t);
        for key in view.keys.iter().filter(|(t, _)| world.is_rt(*t)) {
            require(was(key.0).is_none_or(|was| was == key), || {
                format!("urgency: donor {} was charged", key.0)
            })?;
        }
        Ok(())
    }

    /// No CPU is idle for longer than two ticks while a task that may run there waits on
    /// a run queue for longer than two ticks: a tick looks after the idle CPUs of a domain
    /// unless another one did within the last 4 ms, and that one may have come just before.
    fn no_idle_cpu_beside_work(&mut self, world: &World, kick_delay_ns: u64) -> Check {
        for cpu in 0..world.cpus.len() as Cpu {
            let state = &world.cpus[cpu as usize];
            if state.curr.is_some() || !state.online {
                self.idle_since.remove(&cpu);
                continue;
            }
            let idle_since = *self.idle_since.entry(cpu).or_insert(world.now);
            for t in world.pids() {
                let Dsq::User(on, reach, queued_since) = world.task(t).dsq else {
                    continue;
                };
                if world.core_runs(t) {
                    continue;
                }
                // a parked task waits on one CPU, until the time that is its key there
                let queued_since = match reach {
                    Reach::Parked if on == cpu => queued_since.max(world.task(t).dsq_key),
                    Reach::Parked => continue,
                    _ => queued_since,
                };
                let since = idle_since.max(queued_since);
                if since > world.now {
                    continue;
                }
                let long = world.now - since > 2 * TICK_NS + kick_delay_ns;
                require(!(long && world.may_run(t, cpu)), || {
                    format!("work conservation: CPU {cpu} idle, task {t} waits on CPU {on}")
                })?;
            }
        }
        Ok(())
    }
}

/// The policy kept to the kernel's rules, and its walks to their bounds; what runs
/// may run there.
fn rules_kept(world: &World) -> Check {
    require(world.faults.is_empty(), || {
        format!("rules: {}", world.faults.join("; "))
    })?;
    let asked = world.lock_questions.get();
    require(asked <= LOCK_QUESTIONS_MAX, || {
        format!("bounds: {asked} questions about locks")
    })?;
    for (cpu, state) in world.cpus.iter().enumerate() {
        let Some(t) = state.curr else { continue };
        require(world.may_run(t, cpu as Cpu), || {
            format!("affinity: task {t} runs on CPU {cpu}, where it may not")
        })?;
    }
    Ok(())
}

/// Own and donated time add up to the time of all tasks, and nobody leaves a CPU
/// without being charged.
fn conservation(world: &World, view: &View) -> Check {
    let fair = |&t: &Pid| matches!(world.task(t).class, Class::Fair { .. });
    let seen: u64 = world.pids().filter(fair).map(|t| world.exec_seen(t)).sum();
    let charged = view.own_ns + view.donated_ns;
    require(seen == charged, || {
        format!("conservation: {seen} ns run, {charged} ns charged")
    })?;
    for t in world.pids().filter(fair) {
        let stopped = world.task(t).state != State::Running;
        require(!stopped || world.exec_seen(t) == world.exec_now(t), || {
            format!("conservation: task {t} stopped and was not charged")
        })?;
    }
    Ok(())
}

fn waits(world: &World, t: Pid) -> bool {
    let task = world.task(t);
    match task.class {
        Class::Fair { .. } => {
            matches!(task.state, State::Blocked(l) if world.locks[l].kind.shows(task.class))
        }
        Class::Rt { .. } => task
            .waits_for
            .is_some_and(|l| world.locks[l].kind.shows(task.class)),
    }
}

/// Each task that waits on a lock is a donor, in one place; no other task is.
fn donors_wait(world: &World, view: &View) -> Check {
    for pair in view.donors.windows(2) {
        require(pair[0].pid < pair[1].pid, || {
            format!("places: donor {} is in two places: {pair:?}", pair[1].pid)
        })?;
    }
    for donor in &view.donors {
        let offers =
            donor.yields_to.is_some() && donor.yields_to == world.task(donor.pid).yielded_to;
        let stands_back = offers && world.task(donor.pid).state == State::Runnable;
        require(waits(world, donor.pid) || stands_back, || {
            format!("waits: {donor:?} outlives its wait")
        })?;
    }
    for t in world.pids().filter(|&t| waits(world, t)) {
        let known = view.donors.binary_search_by_key(&t, |d| d.pid).is_ok();
        require(known, || {
            format!("waits: task {t} waits on a lock and is no donor")
        })?;
    }
    Ok(())
}

/// The tasks that the waiters of a lock wait for, as it really is.
fn holder(world: &World, t: Pid, l: LockIdx) -> Option<Pid> {
    let first = || world.first_in_line(l);
    world
        .named_owner(l)
        .or_else(first)
        .filter(|&holder| holder != t)
}

/// Whether the chain of `donor` really ends at `owner`.
fn chain_leads_to(world: &World, donor: Pid, owner: Pid) -> bool {
    // one that yields lends to whom it named, and to nobody else
    if !waits(world, donor) {
        return world.task(donor).yielded_to == Some(owner);
    }
    let mut seen = vec![donor];
    let mut next = 0;
    while let Some(&at) = seen.get(next) {
        next += 1;
        let Some(l) = world.edge(at) else {
            continue;
        };
        let lock = &world.locks[l];
        // of a lock that names no owner: whoever used it; of one that has just been released: who may
        // still have to wake the waiter
        let holders: Vec<Pid> = match lock.kind {
            LockKind::Unnamed => lock.users.clone(),
            LockKind::Pthread if lock.owner.is_none() => lock.owners.iter().copied().collect(),
            _ => holder(world, at, l).into_iter().collect(),
        };
        if holders.contains(&owner) {
            return true;
        }
        let more: Vec<Pid> = holders.into_iter().filter(|h| !seen.contains(h)).collect();
        seen.extend(more);
    }
    false
}

/// An owner that was picked in a donor's context runs, and is the end of its chain.
fn donations_are_true(world: &World, view: &View) -> Check {
    let picked = |cpu: Cpu| {
        let here = |call: &Call| matches!(call, Call::Dispatch(on, _) if *on == cpu);
        world.calls.iter().any(here)
    };
    for donor in &view.donors {
        let DonorPlace::Active(owner) = donor.place else {
            continue;
        };
        let task = world.task(owner);
        require(task.state == State::Running, || {
            format!("donations: {donor:?} lends to a task that does not run")
        })?;
        let now = picked(task.cpu);
        require(!now || chain_leads_to(world, donor.pid, owner), || {
            format!("donations: the chain of {donor:?} does not lead there")
        })?;
    }
    Ok(())
}

/// Nobody is attached to a task that waits for a CPU on a queue, or that is gone:
/// there the donor's key would decide, and is not looked at.
fn attached_are_looked_at(world: &World, view: &View) -> Check {
    for donor in &view.donors {
        let DonorPlace::Attached(owner) = donor.place else {
            continue;
        };
        let task = world.task(owner);
        let queued = matches!(task.dsq, Dsq::User(..));
        require(!queued && task.state != State::Dead, || {
            format!("attached: {donor:?}, and that task is queued or gone")
        })?;
    }
    Ok(())
}

/// A runnable task is on one queue or on one CPU, a sleeping one on none.
fn nobody_is_lost(world: &World) -> Check {
    for t in world.pids() {
        let is_t = |q: &&Pid| **q == t;
        let places: usize = world
            .cpus
            .iter()
            .map(|c| {
                let queued = c
                    .local
                    .iter()
                    .chain(c.queues.iter().flatten())
                    .chain(&c.rt_queue);
                queued.filter(is_t).count() + usize::from(c.curr == Some(t))
            })
            .sum();
        let wanted = match world.task(t).state {
            State::Runnable | State::Running => 1,
            State::Asleep | State::Blocked(_) | State::Dead => 0,
        };
        require(places == wanted, || {
            format!(
                "tasks: {t} is in {places} places, {:?}",
                world.task(t).state
            )
        })?;
    }
    Ok(())
}
