// SPDX-License-Identifier: GPL-2.0-only
//! The state of the machine. What a policy may ask of it and do to it stands in `ports`.

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};

use super::policy::{Cpu, DeqFlags, EnqFlags, Group, Kick, Lock, Moved, Pid, Reach, WakeKind};
use super::program::{Class, CpuMask, GroupSpec, LockIdx, LockKind, Op, PointedBy, Setup, mask_of};
use super::rng::Rng;

/// What a task does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Sleeps for a time, or has not begun.
    Asleep,
    /// Sleeps on a lock.
    Blocked(LockIdx),
    /// Waits for a CPU.
    Runnable,
    /// Is on a CPU.
    Running,
    /// Has exited.
    Dead,
}

/// The queue that a runnable task of the policy is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dsq {
    /// On none: it sleeps or runs.
    None,
    /// That run queue of that CPU, since that time.
    User(Cpu, Reach, u64),
    /// The local DSQ of that CPU.
    Local(Cpu),
}

/// How a lock is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// No other task may have it.
    Alone,
    /// Other readers may.
    Shared,
}

/// What is left to do of an operation that takes several steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pending {
    /// Nothing.
    Nothing,
    /// It has slept on this lock, and tries again to take it.
    Retry(LockIdx, Mode),
    /// It has released a mutex of user space and has to wake its first waiter.
    WakeFirst(LockIdx),
    /// It has released a lock and has to wake that waiter.
    Wake(Pid),
}

/// A task of the machine.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its class.
    pub class: Class,
    /// Its cgroup.
    pub group: Group,
    /// What it does now.
    pub state: State,
    /// The CPU that it is on, or was last.
    pub cpu: Cpu,
    /// CPUs that it was allowed.
    pub mask: CpuMask,
    /// Whether it has disabled its migration.
    pub migrate_disabled: bool,
    /// The queue that it is on.
    pub dsq: Dsq,
    /// The lock that it waits for, from before its sleep until it has it or gives up.
    pub waits_for: Option<LockIdx>,
    /// Since when a runnable task waits on a queue or runs.
    pub(super) blocked_on_cleared: bool,
    pub(super) signalled: bool,
    /// somebody notified it, and it has not waited for that yet
    pub(super) notified: bool,
    /// it waits to be notified
    pub(super) waits_for_notice: bool,
    /// The task that it last yielded to.
    pub yielded_to: Option<Pid>,
    /// what the kernel itself ran of it, for tasks of higher classes
    pub(super) core_ns: u64,
    /// of such a task: whom the kernel runs in its context while it runs
    pub(super) core_runs: Option<Pid>,
    /// how often it came back to the policy since it last ran
    pub(super) came_back: u32,
    pub(super) exec_ns: u64,
    /// since when it runs, for what is not yet in exec_ns
    pub(super) exec_since: u64,
    pub(super) exec_seen: Cell<u64>,
    pub(super) slice_ns: u64,
    pub(super) dsq_key: u64,
    pub(super) program: Vec<Op>,
    pub(super) repeat: bool,
    pub(super) pc: usize,
    pub(super) left_ns: u64,
    pub(super) round_exec_ns: u64,
    pub(super) pending: Pending,
    pub(super) held: Vec<LockIdx>,
}

/// A lock.
#[derive(Clone, Debug, Default)]
pub struct LockState {
    /// What it is.
    pub kind: LockKind,
    /// Its exclusive owner.
    pub owner: Option<Pid>,
    /// Its readers.
    pub readers: Vec<Pid>,
    /// Of these, who came last, while it has not gone: the kernel names one only.
    pub last_reader: Option<Pid>,
    /// Its waiters, first in line first.
    pub waiters: VecDeque<Pid>,
    /// Of an unnamed one: who woke somebody from there or was woken, the last first.
    pub users: Vec<Pid>,
    /// Whose registers or stack point at it.
    pub pointed_by: PointedBy,
    /// All that have owned it.
    pub owners: BTreeSet<Pid>,
    pub(super) release_ns: u64,
    pub(super) always_handoff: bool,
    pub(super) handoff_wanted: bool,
}

/// A CPU.
#[derive(Clone, Debug)]
pub struct CpuState {
    /// What runs on it.
    pub curr: Option<Pid>,
    /// Whether it is online.
    pub online: bool,
    /// Whether the policy was told that it is idle.
    pub idle: bool,
    /// Tasks of the policy that run next, whatever their keys.
    pub local: VecDeque<Pid>,
    /// The run queues, one for each [`Reach`], in the order of keys.
    pub queues: [Vec<Pid>; 4],
    /// Runnable tasks of higher classes, most urgent first.
    pub rt_queue: Vec<Pid>,
    pub(super) need_resched: bool,
    pub(super) no_preempt: bool,
    pub(super) generation: u64,
    pub(super) tick_armed: bool,
    /// whether what runs was switched to with an infinite slice, on a CPU of nohz_full
    pub(super) tick_stopped: bool,
    /// ticks that would have been, while it was stopped
    pub(super) ticks_left_out: u64,
    /// counts the times that its timer was started
    pub(super) hrtick_generation: u64,
}

/// What went over the border between machine and policy. Equal sequences mean
/// equal decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the functions that they record")]
pub enum Call {
    Enable(Pid),
    GroupMove(Pid, Group),
    Disable(Pid),
    SelectCpu(Pid, Cpu, WakeKind),
    UpdateIdle(Cpu, bool),
    Selected(Pid, Cpu),
    Runnable(Pid, EnqFlags),
    Enqueue(Pid, Cpu, EnqFlags),
    Dispatch(Cpu, Option<Pid>),
    Running(Pid, Cpu),
    Stopping(Pid, bool),
    Quiescent(Pid, DeqFlags),
    Tick(Pid),
    Yields(Pid),
    YieldsTo(Pid, Pid),
    Hrtick(Cpu),
    StartHrtick(Cpu, u64),
    ContentionBegin(Pid, Cpu),
    ContentionEnd(Pid),
    InsertVtime(Pid, Cpu, Reach, u64, u64),
    Rekey(Pid, Cpu, Reach, u64),
    Timer,
    MoveTask(Pid, Cpu, Cpu, u64, Moved),
    MoveToLocal(Cpu, Reach, Cpu, Option<Pid>),
    SetSlice(Pid, u64),
    Kick(Cpu, Kick),
    Idles(Cpu),
    Keeps(Pid, Cpu),
}

/// The machine.
#[derive(Clone, Debug)]
pub struct World {
    /// Now.
    pub now: u64,
    /// The CPUs.
    pub cpus: Vec<CpuState>,
    /// The tasks; that of pid `p` is at `p - 1`.
    pub tasks: Vec<Task>,
    /// The locks.
    pub locks: Vec<LockState>,
    /// The cgroups; number `g` is at `g - 1`.
    pub groups: Vec<GroupSpec>,
    /// What went over the border in this step.
    pub calls: Vec<Call>,
    /// Rules of the kernel that the policy broke in this step.
    pub faults: Vec<String>,
    /// Questions about locks in the callback that asked most, in this step.
    pub(super) lock_questions: Cell<u32>,
    pub(super) this_cpu: Cpu,
    pub(super) dispatching: Option<Cpu>,
    /// tasks that were taken from a queue and cannot be moved
    pub(super) came_back: Vec<Pid>,
    pub(super) kicks: Vec<(Cpu, Kick)>,
    pub(super) hrticks: Vec<(Cpu, u64)>,
    pub(super) rng: Rng,
}

const LOCK_BASE: Lock = 0x1000;
const LOCK_STEP: Lock = 0x40;

/// The name of a lock towards the policy; its low bits say what it is.
pub fn lock_name(l: LockIdx, kind: LockKind) -> Lock {
    LOCK_BASE + l as Lock * LOCK_STEP + kind as Lock
}

/// The lock of that name.
pub fn lock_index(name: Lock) -> LockIdx {
    ((name - LOCK_BASE) / LOCK_STEP) as LockIdx
}

impl World {
    /// The machine of `setup` before anything happens.
    pub fn new(setup: &Setup) -> Self {
        let cpu = CpuState {
            curr: None,
            online: true,
            idle: true,
            local: VecDeque::new(),
            queues: Default::default(),
            rt_queue: Vec::new(),
            need_resched: false,
            no_preempt: false,
            generation: 0,
            tick_armed: false,
            tick_stopped: false,
            ticks_left_out: 0,
            hrtick_generation: 0,
        };
        let task = |spec: &super::program::TaskSpec| Task {
            class: spec.class,
            group: spec.group,
            state: State::Asleep,
            cpu: spec.start_cpu,
            mask: spec.cpus,
            migrate_disabled: false,
            dsq: Dsq::None,
            waits_for: None,
            blocked_on_cleared: false,
            signalled: false,
            notified: false,
            waits_for_notice: false,
            yielded_to: None,
            core_ns: 0,
            core_runs: None,
            came_back: 0,
            exec_ns: 0,
            exec_since: 0,
            exec_seen: Cell::new(0),
            slice_ns: 0,
            dsq_key: 0,
            program: spec.program.clone(),
            repeat: spec.repeat,
            pc: 0,
            left_ns: 0,
            round_exec_ns: 0,
            pending: Pending::Nothing,
            held: Vec::new(),
        };
        let lock = |spec: &super::program::LockSpec| LockState {
            kind: spec.kind,
            pointed_by: spec.pointed_by,
            always_handoff: spec.handoff,
            release_ns: match spec.kind.is_of_user_space() {
                true => spec.release_ns,
                false => 0,
            },
            ..LockState::default()
        };
        Self {
            now: 0,
            cpus: vec![cpu; setup.nr_cpus as usize],
            tasks: setup.tasks.iter().map(task).collect(),
            locks: setup.locks.iter().map(lock).collect(),
            groups: setup.groups.clone(),
            calls: Vec::new(),
            faults: Vec::new(),
            lock_questions: Cell::new(0),
            this_cpu: 0,
            dispatching: None,
            came_back: Vec::new(),
            kicks: Vec::new(),
            hrticks: Vec::new(),
            rng: Rng::new(setup.seed),
        }
    }

    /// The task of that pid.
    pub fn task(&self, t: Pid) -> &Task {
        &self.tasks[t as usize - 1]
    }

    pub(super) fn task_mut(&mut self, t: Pid) -> &mut Task {
        &mut self.tasks[t as usize - 1]
    }

    pub(super) fn cpu(&self, cpu: Cpu) -> &CpuState {
        &self.cpus[cpu as usize]
    }

    pub(super) fn cpu_mut(&mut self, cpu: Cpu) -> &mut CpuState {
        &mut self.cpus[cpu as usize]
    }

    /// All pids.
    pub fn pids(&self) -> impl Iterator<Item = Pid> + use<> {
        1..=self.tasks.len() as Pid
    }

    /// CPUs that are online, as a mask.
    pub(super) fn online_mask(&self) -> CpuMask {
        let online = self.cpus.iter().enumerate().filter(|(_, c)| c.online);
        online.fold(0, |mask, (i, _)| mask | 1 << i)
    }

    /// The task of a higher class in whose context the kernel itself runs `t` now, which is queued.
    pub(super) fn core_runner(&self, t: Pid) -> Option<Pid> {
        let task = self.task(t);
        let runner = self.cpu(task.cpu).curr?;
        let by = self.task(runner);
        let runs = by.state == State::Running && by.core_runs == Some(t);
        (runs && task.state == State::Runnable).then_some(runner)
    }

    /// CPU time that `t` has had from the kernel itself.
    pub(super) fn core_now(&self, t: Pid) -> u64 {
        let runs = |by: Pid| self.now - self.task(by).exec_since;
        self.task(t).core_ns + self.core_runner(t).map_or(0, runs)
    }

    /// CPU time of `t` up to now, but for that.
    pub fn exec_now(&self, t: Pid) -> u64 {
        let task = self.task(t);
        match task.state {
            State::Running => task.exec_ns + (self.now - task.exec_since),
            _ => task.exec_ns,
        }
    }

    /// CPU time of `t` that the policy has been told of.
    pub fn exec_seen(&self, t: Pid) -> u64 {
        self.task(t).exec_seen.get()
    }

    /// Brings what the task on `cpu` has used, and its slice, up to now.
    pub(super) fn update_curr(&mut self, cpu: Cpu) {
        let now = self.now;
        let Some(t) = self.cpu(cpu).curr else { return };
        let task = self.task_mut(t);
        if task.state != State::Running {
            return;
        }
        let ran = now - task.exec_since;
        let core_runs = task.core_runs;
        task.exec_since = now;
        task.exec_ns += ran;
        task.round_exec_ns += ran;
        task.left_ns = task.left_ns.saturating_sub(ran);
        if task.slice_ns != u64::MAX {
            task.slice_ns = task.slice_ns.saturating_sub(ran);
        }
        if let Some(other) = core_runs.filter(|&other| self.core_runner(other) == Some(t)) {
            let other = self.task_mut(other);
            other.core_ns += ran;
            other.round_exec_ns += ran;
            other.left_ns = other.left_ns.saturating_sub(ran);
        }
    }

    /// Takes `t` off the queue that it is on.
    pub(super) fn dsq_remove(&mut self, t: Pid) {
        let dsq = std::mem::replace(&mut self.task_mut(t).dsq, Dsq::None);
        match dsq {
            Dsq::None => {}
            Dsq::User(cpu, reach, _) => {
                self.cpu_mut(cpu).queues[reach as usize].retain(|&q| q != t);
            }
            Dsq::Local(cpu) => self.cpu_mut(cpu).local.retain(|&q| q != t),
        }
    }

    pub(super) fn move_to_local_dsq(&mut self, t: Pid, cpu: Cpu) {
        self.dsq_remove(t);
        let task = self.task_mut(t);
        task.dsq = Dsq::Local(cpu);
        task.cpu = cpu;
        self.cpu_mut(cpu).local.push_back(t);
    }

    /// The lock that `t` sleeps on, as a scheduler can see it. A fair task's edge
    /// is set before it sleeps and cleared when its wakeup begins (as Linux 7.3
    /// does); that of a task of a higher class, which the policy hears of by
    /// `contention_begin` and `contention_end`, stands from the one to the other.
    pub fn edge(&self, t: Pid) -> Option<LockIdx> {
        let task = self.task(t);
        let lock = match (task.class, task.state) {
            (Class::Rt { .. }, _) => task.waits_for,
            (Class::Fair { .. }, State::Blocked(l)) if !task.blocked_on_cleared => Some(l),
            _ => None,
        };
        lock.filter(|&l| self.locks[l].kind.shows(task.class))
    }

    /// How `t` wants the lock that it waits for, if it waits for one.
    pub(super) fn wants(&self, t: Pid) -> Option<Mode> {
        match self.task(t).pending {
            Pending::Retry(_, mode) => Some(mode),
            _ => None,
        }
    }

    /// The task that lock `l` names as its owner: the exclusive one, or the reader that came last.
    pub fn named_owner(&self, l: LockIdx) -> Option<Pid> {
        let lock = &self.locks[l];
        lock.owner.or(lock.last_reader)
    }

    /// Who has released lock `l` and has still to wake its first waiter.
    pub fn releaser(&self, l: LockIdx) -> Option<Pid> {
        self.pids()
            .find(|&t| self.task(t).pending == Pending::WakeFirst(l))
    }

    /// The first in line for lock `l`, if anybody can tell.
    pub fn first_in_line(&self, l: LockIdx) -> Option<Pid> {
        let lock = &self.locks[l];
        let known = lock.kind.has_line() && lock.readers.is_empty();
        lock.waiters.front().copied().filter(|_| known)
    }

    /// An online CPU that `t` may be on: its own, else the lowest. If its affinity
    /// allows none that is online, it is allowed all.
    pub(super) fn fallback_cpu(&mut self, t: Pid) -> Cpu {
        let all = mask_of(self.cpus.len() as u32);
        let online = self.online_mask();
        let task = self.task_mut(t);
        if task.mask & online == 0 {
            task.mask = all;
        }
        let usable = task.mask & online;
        if usable >> task.cpu & 1 == 1 {
            task.cpu
        } else {
            usable.trailing_zeros()
        }
    }

    pub(super) fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    pub(super) fn asks_about_locks(&self) {
        self.lock_questions.set(self.lock_questions.get() + 1);
    }
}
