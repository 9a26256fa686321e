// SPDX-License-Identifier: GPL-2.0-only
//! What a machine has: tasks, CPUs, locks, cgroups, and which of it several CPUs look at. Written
//! by `kernel.rs`, `tasks.rs` and `ports.rs`, a CPU at a time.

use std::collections::VecDeque;

use crate::hooks::machine_access;

pub type Pid = u32;
pub type Cpu = usize;
/// Number of a lock, from 0 on.
pub type Lock = usize;

pub const TASKS: usize = 8;
pub const CPUS: usize = 3;
pub const LOCKS: usize = 4;
pub const QUEUES: usize = 4;
pub const KEY_NONE: u64 = u64::MAX;
pub const BOOT_NS: u64 = 1 << 40;
pub const SLICE_NS: u64 = 3_000_000;
/// Rounds in which all tasks must have exited, once CPUs go on in turn.
pub const ROUNDS: usize = 300;

/// What a CPU does. What does not fit what runs there is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// The slice of what runs is over.
    Pick,
    /// What runs goes to sleep.
    Sleep,
    /// What runs waits for a lock that somebody has.
    Block(Lock),
    /// What runs takes a free lock.
    Take(Lock),
    /// What runs releases a lock and wakes the first in line.
    Unlock(Lock),
    /// What runs has woken for a lock: takes it, or waits on.
    Retry,
    /// What runs yields to that task.
    YieldTo(Pid),
    /// What runs gives up: all its locks, and itself.
    Exit,
    /// Somebody is woken who sleeps on no lock.
    Wake(Pid),
    /// A signal ends a wait.
    Signal(Pid),
    /// A nice value changes.
    Nice(Pid, i32),
    /// CPUs that a task may run on.
    Affinity(Pid, u32),
    /// A task becomes real-time, or ours again.
    Class(Pid, u32),
    /// A task goes into another cgroup.
    Group(Pid, u32),
    /// `cpu.weight` of a cgroup.
    Weight(u32, u32),
    /// A tick.
    Tick,
    /// The policy's timer.
    Timer,
    /// Time goes on, before CPUs run side by side.
    Run(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Asleep,
    Blocked,
    Runnable,
    Running,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dsq {
    None,
    User(Cpu, usize),
    Local(Cpu),
}

#[derive(Clone, Debug)]
pub struct Task {
    pub nice: i32,
    pub rt: u32,
    pub mask: u32,
    pub group: u32,
    pub state: State,
    pub cpu: Cpu,
    pub on_rq: bool,
    pub on_cpu: bool,
    pub migrating: bool,
    /// Taken off a DSQ, on its way to another CPU.
    pub held_by: bool,
    pub dsq: Dsq,
    pub key: u64,
    pub pending: Option<(Cpu, usize, u64)>,
    pub edge: Option<Lock>,
    pub waits: Option<Lock>,
    pub held: Vec<Lock>,
    pub slice: u64,
    pub exec: u64,
    pub seen: u64,
    pub ran: u64,
    pub signalled: bool,
    /// It changed its class: of the next wait that ends, nothing is known.
    pub reclassed: bool,
    pub gone: bool,
}

#[derive(Clone, Debug, Default)]
pub struct CpuState {
    pub curr: Pid,
    pub local: VecDeque<Pid>,
    pub queues: [Vec<Pid>; QUEUES],
    pub rt: Vec<Pid>,
    pub idle: bool,
    /// Kinds of kicks that have arrived, as bits of `enum port_kick`.
    pub kicks: u32,
}

pub const KICK: u32 = 1;
pub const KICK_IDLE: u32 = 2;
pub const KICK_PREEMPT: u32 = 4;

#[derive(Clone, Debug, Default)]
pub struct LockState {
    pub name: u64,
    pub owner: Pid,
    pub waiters: Vec<Pid>,
}

#[derive(Clone, Debug)]
pub struct Machine {
    pub now: u64,
    /// Which CPU calls, while they run in turn.
    pub cpu: Cpu,
    pub tasks: Vec<Task>,
    pub cpus: Vec<CpuState>,
    pub locks: Vec<LockState>,
    pub groups: Vec<(u32, u64)>,
    pub faults: Vec<String>,
}

/// Places of the machine that several CPUs look at.
pub enum Place {
    Rq(Cpu),
    Pi(Pid),
    State(Pid),
    OnCpu(Pid),
    Migrating(Pid),
    Edge(Pid),
    Mask(Pid),
    Alive(Pid),
    Lock(Lock),
    Dsq(Cpu, usize),
    Group(u32),
    Kick(Cpu),
}

/// Cgroups, the root not counted.
pub const GROUPS: usize = 4;
pub const PER_TASK: usize = 7;

/// Places of a machine.
pub const PLACES: usize = CPUS + PER_TASK * TASKS + LOCKS + CPUS * QUEUES + GROUPS + CPUS;

impl Place {
    pub fn nr(self) -> usize {
        let of_task = |t: Pid, n: usize| CPUS + t as usize * PER_TASK + n;
        let after = CPUS + PER_TASK * TASKS;
        match self {
            Place::Rq(cpu) => cpu,
            Place::Pi(t) => of_task(t, 0),
            Place::State(t) => of_task(t, 1),
            Place::OnCpu(t) => of_task(t, 2),
            Place::Migrating(t) => of_task(t, 3),
            Place::Edge(t) => of_task(t, 4),
            Place::Mask(t) => of_task(t, 5),
            Place::Alive(t) => of_task(t, 6),
            Place::Lock(l) => after + l,
            Place::Dsq(cpu, reach) => after + LOCKS + cpu * QUEUES + reach,
            Place::Group(g) => after + LOCKS + CPUS * QUEUES + g as usize - 1,
            Place::Kick(cpu) => after + LOCKS + CPUS * QUEUES + GROUPS + cpu,
        }
    }
}

/// What is on a machine when it begins.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    pub cpus: usize,
    /// Nice value, CPUs, cgroup.
    pub tasks: Vec<(i32, u32, u32)>,
    /// Names of locks: low bits say the type.
    pub locks: Vec<u64>,
    /// Shares and quota in ns of each 100 ms (0: none).
    pub groups: Vec<(u32, u64)>,
}

pub fn read(place: Place) {
    machine_access(place.nr(), false);
}

pub fn write(place: Place) {
    machine_access(place.nr(), true);
}
