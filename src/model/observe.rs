// SPDX-License-Identifier: GPL-2.0-only
//! What a run amounts to: which task donated to which one, which contexts migrated, how long
//! waits took. Read off the machine from outside.

use std::collections::BTreeMap;

use super::kernel::{Call, State, World};
use super::policy::{Cpu, DonorPlace, DonorView, Kernel, Moved, Pid, View};
use super::program::{LockIdx, Op};
use super::sim::{Sim, Step};

/// An owner began to run in a donor's context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Donation {
    /// The donor.
    pub donor: Pid,
    /// The owner that runs.
    pub owner: Pid,
    /// Where.
    pub cpu: Cpu,
}

/// A donor's context went from one CPU's queue to another's, or was attached there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Whose context.
    pub donor: Pid,
    /// From the queue of this CPU.
    pub from: Cpu,
    /// To the queue of this one.
    pub to: Cpu,
}

/// A wait for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The waiter.
    pub task: Pid,
    /// For which lock.
    pub lock: LockIdx,
    /// Since when.
    pub began: u64,
    /// Until when; none: it waits still.
    pub ended: Option<u64>,
    /// Whether it had the lock then; else it gave up.
    pub acquired: bool,
    /// CPU time that owners needed, when it began, to let it have the lock.
    pub needed_ns: u64,
}

impl Wait {
    /// The inversion factor: 1.0 is the physical limit. None while it waits.
    pub fn factor(&self) -> Option<f64> {
        let waited = self.ended? - self.began;
        Some(waited as f64 / self.needed_ns.max(1) as f64)
    }
}

/// How often the rarer things happened: what never did was not tested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Donations, renewed ones included.
    pub donations: u64,
    /// Donations by tasks of higher classes.
    pub urgent_donations: u64,
    /// Steps after which a donor was newly attached to an owner.
    pub attached: u64,
    /// Contexts that went to another queue.
    pub migrations: u64,
    /// Owners that were refused to a CPU.
    pub refused: u64,
    /// Waits that a signal ended.
    pub given_up: u64,
    /// Tasks that a CPU took from another one's run queue.
    pub stolen: u64,
    /// Donations over more than one lock.
    pub chains: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.donations += other.donations;
        self.urgent_donations += other.urgent_donations;
        self.attached += other.attached;
        self.migrations += other.migrations;
        self.refused += other.refused;
        self.given_up += other.given_up;
        self.stolen += other.stolen;
        self.chains += other.chains;
    }
}

impl Tally {
    /// Names of what never happened.
    pub fn missing(&self) -> Vec<&'static str> {
        let all = [
            ("donations", self.donations),
            ("urgent donations", self.urgent_donations),
            ("attached donors", self.attached),
            ("migrations", self.migrations),
            ("refused moves", self.refused),
            ("waits given up", self.given_up),
            ("stolen tasks", self.stolen),
            ("chains", self.chains),
        ];
        all.iter()
            .filter(|(_, n)| *n == 0)
            .map(|(name, _)| *name)
            .collect()
    }
}

/// Everything noteworthy of one run, in order.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    /// How often what happened.
    pub tally: Tally,
    /// Donations; one that goes on for another slice counts once.
    pub donations: Vec<Donation>,
    /// Migrations of contexts.
    pub migrations: Vec<Migration>,
    /// Waits for locks.
    pub waits: Vec<Wait>,
    /// For each task that could run and did not: since when it does so now, and the longest time.
    still: BTreeMap<Pid, (Option<u64>, u64)>,
    last: View,
}

impl Observer {
    /// Takes note of `step`, which `sim` has just done.
    pub fn note(&mut self, sim: &Sim, step: &Step) {
        for donor in &step.view.donors {
            self.note_donation(&sim.world, donor);
        }
        self.note_migrations(&sim.world, &step.view);
        self.note_calls(&sim.world);
        for t in sim.world.pids() {
            self.note_wait(&sim.world, t);
            self.note_still(&sim.world, t);
        }
        self.last = step.view.clone();
    }

    /// The longest time in ns that `t` could run and did not.
    pub fn still_ns(&self, t: Pid) -> u64 {
        self.still.get(&t).map_or(0, |&(_, longest)| longest)
    }

    fn note_still(&mut self, world: &World, t: Pid) {
        let (since, longest) = self.still.entry(t).or_default();
        if let Some(then) = *since {
            *longest = (world.now - then).max(*longest);
        }
        *since = match world.task(t).state {
            State::Runnable => since.or(Some(world.now)),
            _ => None,
        };
    }

    fn before(&self, donor: &DonorView) -> Option<DonorPlace> {
        let same = |d: &&DonorView| d.pid == donor.pid && d.wait == donor.wait;
        self.last.donors.iter().find(same).map(|d| d.place)
    }

    fn note_donation(&mut self, world: &World, donor: &DonorView) {
        if self.before(donor) == Some(donor.place) {
            return;
        }
        let DonorPlace::Active(owner) = donor.place else {
            self.tally.attached += u64::from(matches!(donor.place, DonorPlace::Attached(_)));
            return;
        };
        self.tally.donations += 1;
        self.tally.urgent_donations += u64::from(world.is_rt(donor.pid));
        let lock = world.edge(donor.pid);
        let direct = lock.is_some_and(|l| world.named_owner(l) == Some(owner));
        self.tally.chains += u64::from(!direct);
        let cpu = world.task(owner).cpu;
        let donation = Donation {
            donor: donor.pid,
            owner,
            cpu,
        };
        if self.donations.last() != Some(&donation) {
            self.donations.push(donation);
        }
    }

    /// A context that was on one queue is on another one now, or was looked at by a
    /// pick on the way there.
    fn note_migrations(&mut self, world: &World, view: &View) {
        let picked = world.calls.iter().find_map(|call| match call {
            Call::Dispatch(cpu, _) => Some(*cpu),
            _ => None,
        });
        for donor in &view.donors {
            let DonorPlace::Queued(to) = donor.place else {
                continue;
            };
            let from = match self.before(donor) {
                Some(DonorPlace::Queued(from)) => Some(from),
                // blocked, and looked at, in one step
                None => picked,
                _ => None,
            };
            if let Some(from) = from.filter(|&from| from != to) {
                self.tally.migrations += 1;
                self.migrations.push(Migration {
                    donor: donor.pid,
                    from,
                    to,
                });
            }
        }
    }

    fn note_calls(&mut self, world: &World) {
        for call in &world.calls {
            match call {
                Call::MoveTask(.., Moved::Refused) => self.tally.refused += 1,
                Call::MoveToLocal(from, _, to, Some(_)) if from != to => self.tally.stolen += 1,
                _ => {}
            }
        }
    }

    fn note_wait(&mut self, world: &World, t: Pid) {
        let open = self
            .waits
            .iter_mut()
            .rev()
            .find(|w| w.task == t && w.ended.is_none());
        match (open, world.task(t).waits_for) {
            (None, Some(lock)) => {
                let needed_ns = needed(world, t, lock, world.tasks.len());
                let (began, ended, acquired) = (world.now, None, false);
                self.waits.push(Wait {
                    task: t,
                    lock,
                    began,
                    ended,
                    acquired,
                    needed_ns,
                });
            }
            (Some(wait), None) => {
                wait.ended = Some(world.now);
                wait.acquired = world.task(t).held.contains(&wait.lock);
                self.tally.given_up += u64::from(!wait.acquired);
            }
            _ => {}
        }
    }
}

/// CPU time that stands between `waiter` and the lock: what its owner still runs until
/// it releases it, and what stands between that one and its lock.
fn needed(world: &World, waiter: Pid, lock: LockIdx, depth: usize) -> u64 {
    let Some(owner) = world
        .named_owner(lock)
        .filter(|&o| o != waiter && depth > 0)
    else {
        return 0;
    };
    let task = world.task(owner);
    let mut ns = match task.state {
        State::Running => task.left_ns.saturating_sub(world.now - task.exec_since),
        _ => task.left_ns,
    };
    if let State::Blocked(l) = task.state {
        ns += needed(world, owner, l, depth - 1);
    }
    for op in &task.program[task.pc..] {
        match op {
            Op::Run(run) => ns += run,
            Op::Unlock(l) if *l == lock => return ns + world.locks[lock].release_ns,
            _ => {}
        }
    }
    ns
}
