// SPDX-License-Identifier: GPL-2.0-only
//! What runs on the machine: tasks with their programs, locks, and events from
//! outside. A [`Setup`] and nothing else decides a run.

use serde::{Deserialize, Serialize};

use super::policy::{Config, Cpu, Group, Limit, Pid, Topology};

/// A set of CPUs, one bit each.
pub type CpuMask = u64;

/// Index of a lock in [`Setup::locks`].
pub type LockIdx = usize;

/// One thing that a task does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Uses the CPU for so many ns.
    Run(u64),
    /// Takes a lock, and sleeps until it has it.
    Lock(LockIdx),
    /// Takes an rwsem as one reader of many; of other kinds, as `Lock`.
    Share(LockIdx),
    /// Releases a lock; nothing if it does not own it.
    Unlock(LockIdx),
    /// Sleeps for so many ns.
    Sleep(u64),
    /// Restricts itself to these CPUs.
    SetAffinity(CpuMask),
    /// May not leave its CPU from now on.
    MigrateDisable,
    /// May again.
    MigrateEnable,
    /// Changes its nice value.
    SetNice(i32),
    /// Sleeps until somebody notifies it, unless somebody has since the last time.
    Wait,
    /// Notifies a task, and says that it is about to sleep itself: a write into a pipe.
    Notify(Pid),
    /// Lets others go first.
    Yield,
    /// Lets that task go first, in its context: what KVM does for a virtual CPU that spins.
    YieldTo(Pid),
    /// Of a task of a higher class: for so many ns the kernel runs that task in its context, if that is queued
    /// on the same CPU. Else as `Run`.
    CoreRuns(Pid, u64),
    /// Releases its locks and exits.
    Exit,
}

/// Scheduling class of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Scheduled by the policy.
    Fair {
        /// Its nice value.
        nice: i32,
    },
    /// Above the policy: a real-time priority from 1 to 99, or 200 for a deadline task.
    Rt {
        /// The greater the more urgent.
        prio: u32,
    },
}

/// One task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSpec {
    /// Its class and nice value or priority.
    pub class: Class,
    /// Its cgroup.
    pub group: Group,
    /// CPUs that it may run on.
    pub cpus: CpuMask,
    /// When it first wakes.
    pub start_ns: u64,
    /// The CPU that it wakes on first.
    pub start_cpu: Cpu,
    /// What it does.
    pub program: Vec<Op>,
    /// Whether it begins anew at the end, else it exits.
    pub repeat: bool,
}

/// What a lock is, as far as a scheduler can tell: who is seen to wait for it, and who
/// is known to own it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockKind {
    /// A kernel mutex.
    #[default]
    Mutex,
    /// A reader-writer semaphore: a writer is known as its owner, or one of its readers.
    Rwsem,
    /// An rt_mutex. The kernel itself serves real-time waiters: the policy does not hear of them.
    Rtmutex,
    /// A mutex of user space: it knows no first waiter.
    Pthread,
    /// A transaction, owned by who serves it: as above, and nobody says when a real-time
    /// client waits.
    Binder,
    /// A semaphore, a condition variable, a percpu rwsem: who waits is not even seen.
    Unowned,
    /// A mutex of user space whose word names no owner: who used it before is known.
    Unnamed,
}

impl LockKind {
    /// All of them.
    pub const ALL: [LockKind; 7] = [
        LockKind::Mutex,
        LockKind::Rwsem,
        LockKind::Rtmutex,
        LockKind::Pthread,
        LockKind::Binder,
        LockKind::Unowned,
        LockKind::Unnamed,
    ];

    /// Whether the policy sees a task of `class` wait for it.
    pub fn shows(self, class: Class) -> bool {
        let fair = matches!(class, Class::Fair { .. });
        match self {
            LockKind::Mutex | LockKind::Rwsem | LockKind::Pthread => true,
            LockKind::Rtmutex | LockKind::Binder | LockKind::Unnamed => fair,
            LockKind::Unowned => false,
        }
    }

    /// Whether it is a mutex of user space: whoever sleeps on it does so until it is woken, and
    /// its owner may be preempted between its release and that.
    pub fn is_of_user_space(self) -> bool {
        matches!(self, LockKind::Pthread | LockKind::Unnamed)
    }

    /// Whether it names its first waiter.
    pub fn has_line(self) -> bool {
        matches!(self, LockKind::Mutex | LockKind::Rwsem | LockKind::Rtmutex)
    }
}

/// Whose registers or stack point at a lock, as those of whoever is going to release it often do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PointedBy {
    /// Nobody's.
    #[default]
    Nobody,
    /// The owner's.
    Owner,
    /// Those of everybody else.
    Others,
}

impl PointedBy {
    /// All of them.
    pub const ALL: [PointedBy; 3] = [PointedBy::Nobody, PointedBy::Owner, PointedBy::Others];
}

/// One lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockSpec {
    /// What it is.
    pub kind: LockKind,
    /// The tasks that point at it.
    pub pointed_by: PointedBy,
    /// Whether each unlock names the first waiter as the owner at once.
    pub handoff: bool,
    /// CPU time from an unlock to the wakeup of the first waiter, of a mutex of user space.
    pub release_ns: u64,
}

/// One cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupSpec {
    /// The one that it is in: one with a smaller number.
    pub parent: Group,
    /// Its `cpu.weight`, from 1 to 10000.
    pub weight: u32,
    /// Its `cpu.max`.
    pub limit: Option<Limit>,
}

/// What comes from outside, at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum External {
    /// A signal: a task that sleeps on a lock gives up waiting.
    Signal(Pid),
    /// An outside task restricts a task to these CPUs.
    Affinity(Pid, CpuMask),
    /// An outside task changes the nice value of a task.
    Nice(Pid, i32),
    /// An outside task puts a task into another cgroup.
    Move(Pid, Group),
    /// An outside task changes the `cpu.weight` of a cgroup.
    Weight(Group, u32),
    /// A CPU goes.
    Offline(Cpu),
    /// A CPU comes back.
    Online(Cpu),
}

/// A whole run: what the machine is and what happens on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Number of CPUs.
    pub nr_cpus: u32,
    /// How they are built together.
    pub topology: Topology,
    /// The cgroups; the number of the first is 1.
    pub groups: Vec<GroupSpec>,
    /// The tasks; the pid of the first is 1.
    pub tasks: Vec<TaskSpec>,
    /// The locks.
    pub locks: Vec<LockSpec>,
    /// Events from outside, with their times.
    pub externals: Vec<(u64, External)>,
    /// The end of the run.
    pub until_ns: u64,
    /// Seed of all that is left to chance.
    pub seed: u64,
    /// Longest time from a kick to the CPU that schedules for it.
    pub kick_delay_ns: u64,
    /// Longest time from the release of a lock to the wakeup of its first waiter,
    /// in which the releaser cannot be preempted.
    pub wake_delay_ns: u64,
    /// Longest time by which a tick is late.
    pub tick_delay_ns: u64,
    /// Whether there are timers beside the tick.
    pub hrtick: bool,
}

impl Setup {
    /// The configuration of a policy for this machine.
    pub fn config(&self) -> Config {
        Config {
            domains: self.topology.domains(self.nr_cpus),
            nohz_full: self.topology.nohz_full(self.nr_cpus),
            ..Config::new(self.nr_cpus)
        }
    }

    /// The mask of all CPUs.
    pub fn all_cpus(&self) -> CpuMask {
        mask_of(self.nr_cpus)
    }
}

/// The mask of the first `nr` CPUs.
pub fn mask_of(nr: u32) -> CpuMask {
    if nr >= 64 {
        CpuMask::MAX
    } else {
        (1 << nr) - 1
    }
}
