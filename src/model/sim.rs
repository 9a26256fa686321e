// SPDX-License-Identifier: GPL-2.0-only
//! The machine in motion: a queue of events, each of which is one step.
//!
//! `cpu` schedules and wakes, `mutex` locks, `change` does affinity, nice values
//! and hotplug. Every callback of the policy goes through [`Sim::call`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::kernel::{Call, Mode, Pending, State, World};
use super::policy::{Cpu, Kick, Pid, Policy, View, WakeKind};
use super::ports::shares;
use super::program::{Class, External, Op, Setup};

/// Between two ticks of a busy CPU.
pub const TICK_NS: u64 = 4_000_000;

/// Between two calls of the policy's timer.
const POLICY_TIMER_NS: u64 = 2_000_000;

/// What a round of a repeated program takes at the least, so that time goes on.
const ROUND_MIN_NS: u64 = 50_000;

/// Something that happens at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// What runs on the CPU has done what it was doing; void if the CPU has switched.
    Done(Cpu, u64),
    /// The sleep of a task is over.
    Timer(Pid),
    /// A CPU schedules.
    Resched(Cpu),
    /// A kick arrives.
    Kicked(Cpu, u8),
    /// The tick of a CPU.
    Tick(Cpu),
    /// A CPU's timer, as it was started for that time.
    Hrtick(Cpu, u64),
    /// Number of an event from outside, in [`Setup::externals`].
    Outside(usize),
    /// The policy's timer.
    PolicyTimer,
}

/// One step: what happened, what the policy did, and where it stands now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Counts from 0.
    pub number: u64,
    /// When.
    pub now: u64,
    /// What.
    pub event: Event,
    /// The policy afterwards. The calls between are in [`World::calls`].
    pub view: View,
}

/// A machine with a policy on it.
pub struct Sim {
    /// The machine.
    pub world: World,
    /// What it does.
    pub setup: Setup,
    pub(super) policy: Box<dyn Policy>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    next_event: u64,
    steps: u64,
}

const KICKS: [Kick; 3] = [Kick::Resched, Kick::Idle, Kick::Preempt];

impl Sim {
    /// The machine of `setup`, with `policy` on it; nothing has happened yet.
    pub fn new(setup: &Setup, policy: Box<dyn Policy>) -> Self {
        let mut sim = Self {
            world: World::new(setup),
            setup: setup.clone(),
            policy,
            events: BinaryHeap::new(),
            next_event: 0,
            steps: 0,
        };
        for (g, spec) in (1..).zip(&setup.groups) {
            sim.policy.group_begin(g, spec.parent, shares(spec.weight));
        }
        for t in sim.world.pids() {
            sim.group_move(t);
            if matches!(sim.world.task(t).class, Class::Fair { .. }) {
                sim.call(Call::Enable(t), |p, w| p.enable(w, t));
            }
            sim.at(setup.tasks[t as usize - 1].start_ns, Event::Timer(t));
        }
        // the policy has it from the first limit on; it must not be earlier than that matters
        if setup.groups.iter().any(|g| g.limit.is_some()) {
            sim.at(POLICY_TIMER_NS, Event::PolicyTimer);
        }
        for (i, (when, _)) in setup.externals.iter().enumerate() {
            sim.at(*when, Event::Outside(i));
        }
        sim
    }

    /// Does the next step; `None` at the end of the run.
    pub fn step(&mut self) -> Option<Step> {
        loop {
            let Reverse((when, _, event)) = self.events.pop()?;
            if when > self.setup.until_ns {
                return None;
            }
            self.world.now = when;
            if self.is_void(event) {
                continue;
            }
            self.world.calls.clear();
            self.world.faults.clear();
            self.world.lock_questions.set(0);
            self.happen(event);
            self.steps += 1;
            let view = self.policy.view();
            return Some(Step {
                number: self.steps - 1,
                now: when,
                event,
                view,
            });
        }
    }

    /// Calls the policy, and writes down that it did.
    pub(super) fn call<R>(
        &mut self,
        call: Call,
        f: impl FnOnce(&mut dyn Policy, &mut World) -> R,
    ) -> R {
        self.world.calls.push(call);
        let asked = self.world.lock_questions.replace(0);
        let ret = f(self.policy.as_mut(), &mut self.world);
        let now_asked = self.world.lock_questions.get();
        self.world.lock_questions.set(asked.max(now_asked));
        ret
    }

    pub(super) fn at(&mut self, when: u64, event: Event) {
        self.events.push(Reverse((when, self.next_event, event)));
        self.next_event += 1;
    }

    pub(super) fn soon(&mut self, event: Event) {
        self.at(self.world.now, event);
    }

    fn is_void(&self, event: Event) -> bool {
        match event {
            Event::Done(cpu, generation) => self.world.cpu(cpu).generation != generation,
            Event::Hrtick(cpu, generation) => self.world.cpu(cpu).hrtick_generation != generation,
            Event::Timer(t) => {
                let task = self.world.task(t);
                task.state != State::Asleep || task.waits_for_notice
            }
            _ => false,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Done(cpu, _) => self.go_on(cpu),
            Event::Timer(t) => {
                let new = self.world.task(t).pc == 0 && self.world.exec_now(t) == 0;
                let kind = if new { WakeKind::Fork } else { WakeKind::Plain };
                self.wake(t, self.world.task(t).cpu, kind);
            }
            Event::Resched(cpu) => self.resched(cpu),
            Event::Kicked(cpu, kind) => self.kicked(cpu, KICKS[kind as usize]),
            Event::Tick(cpu) => self.tick(cpu),
            Event::Hrtick(cpu, _) => {
                self.world.this_cpu = cpu;
                self.call(Call::Hrtick(cpu), |p, w| p.hrtick(w, cpu));
            }
            Event::Outside(i) => self.outside(i),
            Event::PolicyTimer => {
                self.at(self.world.now + POLICY_TIMER_NS, Event::PolicyTimer);
                self.call(Call::Timer, |p, w| p.timer(w));
            }
        }
        self.send_kicks();
    }

    /// Kicks are interrupts: they arrive after what caused them, in any order.
    fn send_kicks(&mut self) {
        for (cpu, kind) in std::mem::take(&mut self.world.kicks) {
            let number = KICKS.iter().position(|&k| k == kind).unwrap_or(0) as u8;
            let delay = self.chance(self.setup.kick_delay_ns);
            self.at(self.world.now + delay, Event::Kicked(cpu, number));
        }
        for (cpu, ns) in std::mem::take(&mut self.world.hrticks) {
            let state = self.world.cpu_mut(cpu);
            state.hrtick_generation += 1;
            let generation = state.hrtick_generation;
            let late = self.chance(self.setup.kick_delay_ns);
            if self.setup.hrtick {
                self.at(self.world.now + ns + late, Event::Hrtick(cpu, generation));
            }
        }
    }

    /// A random time up to `most`.
    pub(super) fn chance(&mut self, most: u64) -> u64 {
        if most == 0 {
            0
        } else {
            self.world.rng.below(most + 1)
        }
    }

    fn outside(&mut self, i: usize) {
        match self.setup.externals[i].1 {
            External::Signal(t) => self.signal(t),
            External::Affinity(t, mask) => self.set_affinity(t, mask),
            External::Nice(t, nice) => self.set_nice(t, nice),
            External::Move(t, g) => self.set_group(t, g),
            External::Weight(g, weight) => self.world.groups[g as usize - 1].weight = weight,
            External::Offline(cpu) => self.offline(cpu, i),
            External::Online(cpu) => self.online(cpu),
        }
    }

    /// The task on `cpu` has done what it was doing: the next thing.
    fn go_on(&mut self, cpu: Cpu) {
        self.world.update_curr(cpu);
        let Some(t) = self.world.cpu(cpu).curr else {
            return;
        };
        if self.world.task(t).left_ns == 0 {
            match std::mem::replace(&mut self.world.task_mut(t).pending, Pending::Nothing) {
                Pending::Nothing => self.next_op(t, cpu),
                Pending::Retry(l, mode) => self.lock_retry(t, l, cpu, mode),
                Pending::Wake(waiter) => self.unlock_wake(waiter, cpu),
                Pending::WakeFirst(l) => self.futex_wake(l, cpu),
            }
        }
        self.arm(cpu);
    }

    /// Tells when the task on `cpu` will have done what it does now.
    pub(super) fn arm(&mut self, cpu: Cpu) {
        self.world.cpu_mut(cpu).generation += 1;
        if let Some(t) = self.world.cpu(cpu).curr {
            let generation = self.world.cpu(cpu).generation;
            let when = self.world.now + self.world.task(t).left_ns;
            self.at(when, Event::Done(cpu, generation));
        }
    }

    fn next_op(&mut self, t: Pid, cpu: Cpu) {
        let op = self.fetch(t);
        let now = self.world.now;
        self.world.task_mut(t).core_runs = None;
        match op {
            Op::Run(ns) => self.world.task_mut(t).left_ns = ns,
            Op::CoreRuns(other, ns) => {
                let theirs =
                    !self.is_fair(t) && other != t && self.world.pids().any(|p| p == other);
                let task = self.world.task_mut(t);
                task.left_ns = ns;
                task.core_runs = Some(other).filter(|_| theirs);
            }
            Op::Lock(l) => self.lock(t, l, cpu, Mode::Alone),
            Op::Share(l) => self.lock(t, l, cpu, Mode::Shared),
            Op::Unlock(l) => self.unlock(t, l, cpu),
            Op::Sleep(ns) => {
                self.at(now + ns, Event::Timer(t));
                self.block(cpu, State::Asleep);
            }
            Op::SetAffinity(mask) => self.set_affinity(t, mask),
            Op::Yield => self.sched_yield(t, cpu),
            Op::YieldTo(to) => self.yield_to(t, to, cpu),
            Op::MigrateDisable => self.world.task_mut(t).migrate_disabled = true,
            Op::MigrateEnable => self.migrate_enable(t),
            Op::SetNice(nice) => self.set_nice(t, nice),
            Op::Wait => self.wait(t, cpu),
            Op::Notify(other) => self.notify(other, cpu),
            Op::Exit => self.exit(t, cpu),
        }
    }

    fn wait(&mut self, t: Pid, cpu: Cpu) {
        if !std::mem::take(&mut self.world.task_mut(t).notified) {
            self.world.task_mut(t).waits_for_notice = true;
            self.block(cpu, State::Asleep);
        }
    }

    fn notify(&mut self, t: Pid, cpu: Cpu) {
        if t == 0 || t as usize > self.world.tasks.len() {
            return;
        }
        if std::mem::take(&mut self.world.task_mut(t).waits_for_notice) {
            self.wake(t, cpu, WakeKind::Sync);
        } else {
            self.world.task_mut(t).notified = true;
        }
    }

    /// The next operation of `t`, which counts as done.
    fn fetch(&mut self, t: Pid) -> Op {
        let task = self.world.task_mut(t);
        if let Some(op) = task.program.get(task.pc) {
            let op = op.clone();
            task.pc += 1;
            return op;
        }
        if !task.repeat || task.program.is_empty() {
            return Op::Exit;
        }
        task.pc = 0;
        if std::mem::take(&mut task.round_exec_ns) < ROUND_MIN_NS {
            return Op::Run(ROUND_MIN_NS);
        }
        Op::Run(0)
    }

    /// Locks are released one by one, each as a step; then the task is gone.
    fn exit(&mut self, t: Pid, cpu: Cpu) {
        if let Some(&l) = self.world.task(t).held.last() {
            let task = self.world.task_mut(t);
            task.pc = task.program.len();
            task.repeat = false;
            return self.unlock(t, l, cpu);
        }
        self.world.task_mut(t).migrate_disabled = false;
        self.block(cpu, State::Dead);
        if matches!(self.world.task(t).class, Class::Fair { .. }) {
            self.call(Call::Disable(t), |p, w| p.disable(w, t));
        }
    }
}
