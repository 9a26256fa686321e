// SPDX-License-Identifier: GPL-2.0-only
//! The border between a scheduling policy and the machine that it runs on.
//!
//! [`Policy`] has the callbacks of sched_ext, in the kernel's words; [`Kernel`]
//! is all that a policy may ask and do. Both are object-safe and pass plain
//! numbers only, so that a policy written in C fits behind the same border.
//!
//! The machine calls one callback at a time. "Under the rq lock" is therefore
//! implied everywhere; what the order of calls promises is said at each callback.

/// Number of a task, from 1 on; 0 is never a task.
pub type Pid = u32;

/// Number of a CPU, from 0 on.
pub type Cpu = u32;

/// Number of a cgroup, from 1 on; 0 is the root.
pub type Group = u32;

/// `cpu.max` and `cpu.max.burst` of a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What it may use of the CPUs in each period.
    pub quota_ns: u64,
    /// How long that is.
    pub period_ns: u64,
    /// What it may use beyond, if it used less before.
    pub burst_ns: u64,
}

/// Name of a lock: its address, never 0.
pub type Lock = u64;

/// CPUs that share a cache, in the order of their bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domain {
    /// Their numbers.
    pub cpus: Vec<Cpu>,
    /// Whether the threads of a core stand in pairs; else each CPU is a core.
    pub paired: bool,
    /// Domains of the same node.
    pub near: Vec<usize>,
    /// Those that heavy tasks prefer; on a machine whose CPUs are alike there are none.
    pub big: Vec<Cpu>,
}

/// How a machine is built, regularly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// CPUs that share a cache; what is left over at the end shares a smaller one.
    pub domain_cpus: u32,
    /// Whether two CPUs in a row are threads of a core.
    pub smt: bool,
    /// Domains of a node.
    pub node_domains: u32,
    /// CPUs of the larger capacity, from CPU 0 on; 0: all are alike.
    pub big_cpus: u32,
    /// CPUs whose tick stops under an infinite slice, from the last one down.
    pub nohz_full_cpus: u32,
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            domain_cpus: 64,
            smt: false,
            node_domains: 64,
            big_cpus: 0,
            nohz_full_cpus: 0,
        }
    }
}

impl Topology {
    /// The CPUs of a machine of `nr_cpus` whose tick can be stopped.
    pub fn nohz_full(&self, nr_cpus: u32) -> Vec<Cpu> {
        (nr_cpus.saturating_sub(self.nohz_full_cpus)..nr_cpus).collect()
    }

    /// The domains of a machine of `nr_cpus`.
    pub fn domains(&self, nr_cpus: u32) -> Vec<Domain> {
        let cpus: Vec<Cpu> = (0..nr_cpus).collect();
        let groups: Vec<_> = cpus.chunks(self.domain_cpus.max(1) as usize).collect();
        let node = |nr: usize| nr / self.node_domains.max(1) as usize;
        let domain = |(nr, cpus): (usize, &&[Cpu])| Domain {
            cpus: cpus.to_vec(),
            // only whole cores are built in pairs
            paired: self.smt && cpus.len().is_multiple_of(2),
            near: (0..groups.len())
                .filter(|&other| node(other) == node(nr))
                .collect(),
            big: cpus
                .iter()
                .copied()
                .filter(|&cpu| cpu < self.big_cpus)
                .collect(),
        };
        groups.iter().enumerate().map(domain).collect()
    }
}

/// How far a queued task could go: each has a run queue of its own on each CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// To any CPU.
    Any,
    /// To some that its affinity names.
    Some,
    /// It stays.
    One,
    /// Its cgroup has no budget: on a queue that is no run queue.
    Parked,
}

impl Reach {
    /// Those of run queues, in the order in which equal keys of a CPU's queues are preferred.
    pub const ALL: [Reach; 3] = [Reach::Any, Reach::Some, Reach::One];
}

/// Why a task wakes, as far as it matters to where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeKind {
    /// Nothing special.
    Plain,
    /// The waker says that it is about to sleep itself.
    Sync,
    /// It is new.
    Fork,
}

/// Restricted tasks that are looked at for one that may run on another CPU.
pub const QUEUE_LOOKS: usize = 8;

/// Tunables, with the defaults of the BPF scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// CPUs 0 .. nr_cpus exist; some of them may be offline.
    pub nr_cpus: u32,
    /// Which of them are near each other.
    pub domains: Vec<Domain>,
    /// Those whose tick stops under an infinite slice.
    pub nohz_full: Vec<Cpu>,
    /// Least time between two looks of a busy CPU for tasks that get less than their share.
    pub balance_ns: u64,
    /// Time that a task runs before the next pick.
    pub slice_ns: u64,
    /// How far behind the clock a key may lie when it joins a CPU.
    pub lag_ns: u64,
    /// Lead that a waking nice-0 task needs to preempt.
    pub wakeup_gran_ns: u64,
    /// Time that a task that slept runs before a waking one preempts it.
    pub protect_ns: u64,
    /// Longest estimated wait on a run queue; keys are drawn in by it.
    pub starve_ns: u64,
    /// Locks that one walk follows at the most.
    pub hops_max: u32,
    /// Whether donors lend; else they are only observed.
    pub donate: bool,
    /// Whether the waiters between a donor and the end of its chain come along
    /// when that donor migrates.
    pub chain_follows: bool,
}

impl Config {
    /// The defaults on a machine of `nr_cpus` CPUs.
    pub fn new(nr_cpus: u32) -> Self {
        Self {
            nr_cpus,
            domains: Topology::default().domains(nr_cpus),
            nohz_full: Vec::new(),
            balance_ns: 20_000_000,
            slice_ns: 3_000_000,
            lag_ns: 3_000_000,
            wakeup_gran_ns: 3_000_000,
            protect_ns: 700_000,
            starve_ns: 2_000_000_000,
            hops_max: 16,
            donate: true,
            chain_follows: true,
        }
    }
}

/// Why a task is put on a queue (`SCX_ENQ_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EnqFlags {
    /// It woke.
    pub wakeup: bool,
    /// [`Policy::select_cpu`] was called for this, and has looked for an idle CPU.
    pub cpu_selected: bool,
    /// Its CPU has nothing else to run, and does not pick again unless it is told to.
    pub last: bool,
    /// It was taken to another CPU and could not be moved, since it executes ([`Kernel::core_runs`]).
    pub came_back: bool,
}

/// Why a task leaves the queues (`SCX_DEQ_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeqFlags {
    /// It goes to sleep; else one of its properties changes and it is back at once.
    pub sleep: bool,
}

/// How a CPU is told to pick (`SCX_KICK_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kick {
    /// Schedule; what runs goes on if it has slice left.
    Resched,
    /// Schedule if it is idle.
    Idle,
    /// End the slice of the policy's task that runs there, and schedule.
    Preempt,
}

/// How an attempt ended to take one task from a run queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It is on the local DSQ.
    Moved,
    /// It is not on that queue (any more).
    Lost,
    /// It may not run there.
    Refused,
}

/// Users of a lock that are remembered.
pub const CANDIDATES_MAX: usize = 8;

/// What a policy may ask the kernel, and do. Questions change nothing.
pub trait Kernel {
    /// Monotonic time.
    fn now_ns(&self) -> u64;
    /// The CPU that this callback runs on: of the waker in wakeups, of the pick in
    /// [`Policy::dispatch`].
    fn this_cpu(&self) -> Cpu;
    /// The task that runs on `cpu`, of any class. `None`: idle or offline. Within a
    /// pick that is still the previous task.
    fn current(&self, cpu: Cpu) -> Option<Pid>;

    /// CPU time that `t` has had (`sum_exec_runtime`), also by [`Kernel::core_runs`]: up to now in
    /// [`Policy::dispatch`] (of prev), [`Policy::running`] and [`Policy::stopping`].
    fn exec_ns(&self, t: Pid) -> u64;
    /// Its nice value.
    fn nice(&self, t: Pid) -> i32;
    /// What the cgroup weighs among its siblings: [`super::key::WEIGHT_NICE_0`] at `cpu.weight` 100.
    fn group_shares(&self, g: Group) -> u32;
    /// What the cgroup may use, if that is limited.
    fn group_limit(&self, g: Group) -> Option<Limit>;
    /// Whether it exists and has not exited.
    fn alive(&self, t: Pid) -> bool;
    /// The CPU that it is on, or was last.
    fn task_cpu(&self, t: Pid) -> Cpu;
    /// Whether it may run on `cpu`: affinity, migrate-disable, online.
    fn may_run(&self, t: Pid, cpu: Cpu) -> bool;
    /// Whether it may run on one CPU only.
    fn pinned(&self, t: Pid) -> bool;
    /// Whether it may run on all CPUs, be they online or not.
    fn unrestricted(&self, t: Pid) -> bool;
    /// Whether it is of a class above the policy's (real-time or deadline).
    fn is_rt(&self, t: Pid) -> bool;
    /// Its urgency: the real-time priority, 200 for a deadline task, 0 if fair.
    fn urgency(&self, t: Pid) -> u32;
    /// Whether `t`, which is queued, executes all the same: the kernel's own proxy execution runs it
    /// for a task of a higher class, and no callback says so. It cannot be moved meanwhile.
    fn core_runs(&self, t: Pid) -> bool;

    /// The lock that it sleeps on.
    fn blocked_on(&self, t: Pid) -> Option<Lock>;
    /// The lock's owner, as its owner word says.
    fn owner_of(&self, l: Lock) -> Option<Pid>;
    /// The first waiter.
    fn first_waiter_of(&self, l: Lock) -> Option<Pid>;
    /// Whether the lock names its owner, who may be preempted after its release, before it wakes the next one.
    fn wakes_after_release(&self, l: Lock) -> bool;
    /// Candidates for the owner of a lock that names none, the likeliest first; [`CANDIDATES_MAX`] at most.
    fn candidates_of(&self, l: Lock) -> Vec<Pid>;
    /// Whether the registers or the stack of `t` point at such a lock.
    fn points_at(&self, t: Pid, l: Lock) -> bool;

    /// Put `t` on that run queue of `cpu`, ordered by `key`. In [`Policy::enqueue`] only.
    fn dsq_insert_vtime(&mut self, t: Pid, cpu: Cpu, reach: Reach, key: u64, slice_ns: u64);
    /// The first key on that run queue of `cpu`, and whose it is.
    fn dsq_head(&self, cpu: Cpu, reach: Reach) -> Option<(u64, Pid)>;
    /// The first task on that queue of `cpu` has another key. In [`Policy::dispatch`] only.
    fn dsq_rekey(&mut self, cpu: Cpu, reach: Reach, key: u64);
    /// Take `t` from that run queue of `from` to the local DSQ of `cpu`, with a new
    /// slice. In [`Policy::dispatch`] only.
    fn dsq_move_task(&mut self, t: Pid, from: Cpu, reach: Reach, cpu: Cpu, slice_ns: u64) -> Moved;
    /// Take the first task on that run queue of `from` that may run on `cpu` to the
    /// local DSQ of `cpu`, with the slice that it has; whether there was one. Of
    /// another CPU's restricted tasks only [`QUEUE_LOOKS`] are looked at. In [`Policy::dispatch`] only.
    fn dsq_move_to_local(&mut self, from: Cpu, reach: Reach, cpu: Cpu) -> bool;

    /// Set what is left of the slice of `t`; 0 ends it at the next schedule.
    fn set_slice(&mut self, t: Pid, ns: u64);
    /// Make `cpu` pick, soon after this callback.
    fn kick(&mut self, cpu: Cpu, kind: Kick);
    /// Call [`Policy::hrtick`] of `cpu` in `ns`, and no more when that was asked before.
    fn start_hrtick(&mut self, cpu: Cpu, ns: u64);
}

/// Where the scheduling context of a waiting donor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DonorPlace {
    /// On the donor queue of that CPU.
    Queued(Cpu),
    /// Waits for that owner to stop or wake.
    Attached(Pid),
    /// That owner runs, or is about to run, in it.
    Active(Pid),
    /// Nowhere: no queue had room, or donations are off.
    Limbo,
}

/// A donor that waits or yields, as the policy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DonorView {
    /// The donor.
    pub pid: Pid,
    /// Which of its waits this is, from 1 on.
    pub wait: u64,
    /// Where its context is.
    pub place: DonorPlace,
    /// Its key there.
    pub key: u64,
    /// The task that it yields to: it waits for no lock, but for that one to have had a turn.
    pub yields_to: Option<Pid>,
}

/// What the policy lets tests see. Taken after each step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// CPU time charged to the tasks that used it.
    pub own_ns: u64,
    /// CPU time charged to donors.
    pub donated_ns: u64,
    /// All waiting donors, ordered by pid. A donor that is in two places appears twice.
    pub donors: Vec<DonorView>,
    /// The clock of each CPU.
    pub clocks: Vec<u64>,
    /// The key of each task that the policy knows, ordered by pid.
    pub keys: Vec<(Pid, u64)>,
    /// Likewise the number of its last wait.
    pub waits: Vec<(Pid, u64)>,
}

/// A scheduling policy: the callbacks of sched_ext, called in the kernel's order.
///
/// - wakeup: `select_cpu` (not for a task that may run on one CPU only), `runnable`,
///   then `enqueue`; a CPU that is idle schedules;
/// - a CPU goes idle, or is so no longer: `update_idle`. At the beginning all are idle;
/// - it runs: `running`; once in 4 ms `tick`;
/// - it sleeps: `stopping(runnable = false)`, `quiescent(sleep)`, then a pick;
/// - a pick: the local DSQ first, else `dispatch`, which may fill it or give the
///   previous task a new slice. If neither, the previous task is enqueued (`last`). If another one is picked and the previous is still
///   runnable: `stopping(runnable = true)`, and `enqueue` if its slice is 0; then
///   `running` of the new one;
/// - affinity or nice value change: `stopping(false)` if it runs, `quiescent`,
///   `runnable`, `enqueue`, and `running` if it ran;
/// - the kernel takes a queued task elsewhere: `enqueue` only.
pub trait Policy {
    /// `t` is the policy's from now on; it sleeps.
    fn enable(&mut self, k: &mut dyn Kernel, t: Pid);
    /// A cgroup is made below `parent`. Before any of its tasks is enabled.
    fn group_begin(&mut self, g: Group, parent: Group, shares: u32);
    /// `t` is in that cgroup from now on. If it was runnable, then between
    /// [`Policy::quiescent`] and [`Policy::runnable`].
    fn group_move(&mut self, k: &mut dyn Kernel, t: Pid, g: Group);
    /// `t` exits: nothing of it may stay behind.
    fn disable(&mut self, k: &mut dyn Kernel, t: Pid);
    /// `t` wakes, and was on `prev_cpu` last: where shall it go? An answer that it may
    /// not run on is replaced by the kernel.
    fn select_cpu(&mut self, k: &mut dyn Kernel, t: Pid, prev_cpu: Cpu, kind: WakeKind) -> Cpu;
    /// `cpu` has nothing to run from now on, or something again.
    fn update_idle(&mut self, k: &mut dyn Kernel, cpu: Cpu, idle: bool);
    /// `t` is runnable, on [`Kernel::task_cpu`]. [`Kernel::current`] of
    /// [`Kernel::this_cpu`] is who woke it.
    fn runnable(&mut self, k: &mut dyn Kernel, t: Pid, flags: EnqFlags);
    /// `t` must go onto a run queue; the kernel sees it on `cpu`.
    fn enqueue(&mut self, k: &mut dyn Kernel, t: Pid, cpu: Cpu, flags: EnqFlags);
    /// `cpu` has nothing on its local DSQ. `prev` is still runnable and has no slice.
    fn dispatch(&mut self, k: &mut dyn Kernel, cpu: Cpu, prev: Option<Pid>);
    /// `t` begins to run on its CPU.
    fn running(&mut self, k: &mut dyn Kernel, t: Pid);
    /// `t` stops running.
    fn stopping(&mut self, k: &mut dyn Kernel, t: Pid, runnable: bool);
    /// `t` is not runnable any more. If it sleeps on a lock, [`Kernel::blocked_on`]
    /// says so.
    fn quiescent(&mut self, k: &mut dyn Kernel, t: Pid, flags: DeqFlags);
    /// `t`, which runs, lets others go first; a pick follows.
    fn yields(&mut self, k: &mut dyn Kernel, t: Pid);
    /// `t`, which runs, lets `to` go first, which is runnable and does not run. True: that shall
    /// be so, and a pick follows on the CPUs of both.
    fn yields_to(&mut self, k: &mut dyn Kernel, t: Pid, to: Pid) -> bool;
    /// The tick of the CPU where `t` runs.
    fn tick(&mut self, k: &mut dyn Kernel, t: Pid);

    /// The timer of `cpu`, see [`Kernel::start_hrtick`]. Some machines have none.
    fn hrtick(&mut self, k: &mut dyn Kernel, cpu: Cpu);

    /// Once in 2 ms, on any CPU: idle CPUs do not tick.
    fn timer(&mut self, k: &mut dyn Kernel);

    /// `t`, of a higher class, is about to sleep on a lock, on `cpu`, where it still
    /// runs. [`Kernel::blocked_on`] is set. No task may be moved from here.
    fn contention_begin(&mut self, k: &mut dyn Kernel, t: Pid, cpu: Cpu);
    /// That wait is over: `t` runs, and has the lock or has given up.
    fn contention_end(&mut self, k: &mut dyn Kernel, t: Pid);

    /// What it has charged, and where its donors are.
    fn view(&self) -> View;
}
