// SPDX-License-Identifier: GPL-2.0-only
//! What a CPU does: it schedules, is kicked, ticks; and wakeups, which end in that.
//! The order of callbacks is that of kernel/sched/core.c and kernel/sched/ext.

use super::kernel::{Call, Dsq, State};
use super::policy::{Cpu, DeqFlags, EnqFlags, Kernel, Kick, Pid, Reach, WakeKind};
use super::program::Class;
use super::sim::{Event, Sim, TICK_NS};

/// Slice of a task that the kernel keeps running without being told for how long.
const SLICE_DFL_NS: u64 = 20_000_000;

/// How often a task may come back without a run; then the kernel ends the policy.
const CAME_BACK_MAX: u32 = 256;

/// Between two ticks that another CPU makes for one without ticks.
const REMOTE_TICK_NS: u64 = 1_000_000_000;

impl Sim {
    pub(super) fn is_fair(&self, t: Pid) -> bool {
        matches!(self.world.task(t).class, Class::Fair { .. })
    }

    /// `cpu` shall schedule, now or when what runs there lets it.
    pub(super) fn resched(&mut self, cpu: Cpu) {
        let state = self.world.cpu_mut(cpu);
        if state.no_preempt {
            state.need_resched = true;
        } else if state.online {
            self.schedule(cpu);
        }
    }

    pub(super) fn kicked(&mut self, cpu: Cpu, kind: Kick) {
        let curr = self.world.cpu(cpu).curr;
        if kind == Kick::Idle && curr.is_some() {
            return;
        }
        if let (Kick::Preempt, Some(t)) = (kind, curr)
            && self.is_fair(t)
        {
            self.world.update_curr(cpu);
            self.world.task_mut(t).slice_ns = 0;
        }
        self.resched(cpu);
    }

    pub(super) fn tick(&mut self, cpu: Cpu) {
        let Some(t) = self.world.cpu(cpu).curr else {
            self.world.cpu_mut(cpu).tick_armed = false;
            return;
        };
        let late = self.chance(self.setup.tick_delay_ns);
        self.at(self.world.now + TICK_NS + late, Event::Tick(cpu));
        self.world.update_curr(cpu);
        if !self.is_fair(t) {
            return;
        }
        let Some(by) = self.ticked_by(cpu) else {
            return;
        };
        self.world.this_cpu = by;
        self.call(Call::Tick(t), |p, w| p.tick(w, t));
        if self.world.task(t).slice_ns == 0 {
            self.resched(cpu);
        }
    }

    /// The CPU that makes the tick of `cpu`: while that is stopped another one makes one a second
    /// (sched_tick_remote()).
    fn ticked_by(&mut self, cpu: Cpu) -> Option<Cpu> {
        if !self.world.cpu(cpu).tick_stopped {
            return Some(cpu);
        }
        let nohz_full = self.setup.topology.nohz_full(self.setup.nr_cpus);
        let left_out = &mut self.world.cpu_mut(cpu).ticks_left_out;
        *left_out += 1;
        if !left_out.is_multiple_of(REMOTE_TICK_NS / TICK_NS) {
            return None;
        }
        let online = self.world.online_mask();
        (0..self.setup.nr_cpus).find(|c| online >> c & 1 == 1 && !nohz_full.contains(c))
    }

    /// do_sched_yield(); that of a higher class finds no equals here.
    pub(super) fn sched_yield(&mut self, t: Pid, cpu: Cpu) {
        if !self.is_fair(t) {
            return;
        }
        self.world.this_cpu = cpu;
        self.call(Call::Yields(t), |p, w| p.yields(w, t));
        self.resched(cpu);
    }

    /// yield_to(), preempting.
    pub(super) fn yield_to(&mut self, t: Pid, to: Pid, cpu: Cpu) {
        if to == 0 || to as usize > self.world.tasks.len() || !self.is_fair(t) || !self.is_fair(to)
        {
            return;
        }
        if to == t || self.world.task(to).state != State::Runnable {
            return;
        }
        self.world.this_cpu = cpu;
        self.world.task_mut(t).yielded_to = Some(to);
        let call = Call::YieldsTo(t, to);
        if self.call(call, |p, w| p.yields_to(w, t, to)) {
            let there = self.world.task(to).cpu;
            self.resched(cpu);
            if there != cpu {
                self.resched(there);
            }
        }
    }

    /// A busy CPU ticks; each at its own moment.
    fn arm_tick(&mut self, cpu: Cpu) {
        if std::mem::replace(&mut self.world.cpu_mut(cpu).tick_armed, true) {
            return;
        }
        let offset = TICK_NS / self.world.cpus.len() as u64 * u64::from(cpu);
        let behind = (self.world.now + TICK_NS - offset) % TICK_NS;
        self.at(self.world.now + TICK_NS - behind, Event::Tick(cpu));
    }

    /// The task on `cpu` goes to sleep, or exits, and the CPU picks another one.
    pub(super) fn block(&mut self, cpu: Cpu, state: State) {
        self.world.update_curr(cpu);
        let t = self.world.cpu(cpu).curr.expect("who blocks runs");
        self.world.this_cpu = cpu;
        self.world.task_mut(t).left_ns = 0;
        if self.is_fair(t) {
            // as the kernel has it: the edge is set, and the task is on the CPU still
            self.set_sleeping(t, state);
            self.call(Call::Stopping(t, false), |p, w| p.stopping(w, t, false));
            let flags = DeqFlags { sleep: true };
            self.call(Call::Quiescent(t, flags), |p, w| p.quiescent(w, t, flags));
        } else {
            self.set_sleeping(t, state);
        }
        self.schedule(cpu);
    }

    fn set_sleeping(&mut self, t: Pid, state: State) {
        self.world.task_mut(t).state = state;
    }

    /// Whether the current task of `cpu` can go on.
    fn runnable_prev(&self, cpu: Cpu) -> Option<Pid> {
        let prev = self.world.cpu(cpu).curr?;
        (self.world.task(prev).state == State::Running).then_some(prev)
    }

    /// schedule(): pick, then put the previous task, then set the next one.
    pub(super) fn schedule(&mut self, cpu: Cpu) {
        self.world.update_curr(cpu);
        self.world.this_cpu = cpu;
        let prev = self.runnable_prev(cpu);
        let next = self
            .pick_rt(cpu, prev)
            .or_else(|| self.pick_fair(cpu, prev));
        if next.is_some() && next == prev {
            if prev.is_some_and(|t| self.is_fair(t)) {
                self.world.calls.push(Call::Keeps(next.unwrap_or(0), cpu));
            }
            return;
        }
        if let Some(prev) = prev {
            self.put_prev(cpu, prev, next.is_none());
        }
        self.set_next(cpu, next);
        self.arm(cpu);
    }

    /// The most urgent task of a higher class; the previous one if it is no less urgent.
    fn pick_rt(&self, cpu: Cpu, prev: Option<Pid>) -> Option<Pid> {
        let prev = prev.filter(|&t| !self.is_fair(t));
        let first = self.world.cpu(cpu).rt_queue.first().copied();
        match (prev, first) {
            (Some(p), Some(f)) if self.world.urgency(f) > self.world.urgency(p) => Some(f),
            (Some(p), _) => Some(p),
            (None, first) => first,
        }
    }

    /// balance_scx() and pick_task_scx().
    fn pick_fair(&mut self, cpu: Cpu, prev: Option<Pid>) -> Option<Pid> {
        let has_slice = |sim: &Self| prev.filter(|&t| sim.world.task(t).slice_ns > 0);
        let local = |sim: &Self| sim.world.cpu(cpu).local.front().copied();
        if let Some(t) = has_slice(self).or_else(|| local(self)) {
            return Some(t);
        }
        self.world.dispatching = Some(cpu);
        self.call(Call::Dispatch(cpu, prev), |p, w| p.dispatch(w, cpu, prev));
        self.world.dispatching = None;
        self.give_back();
        if let Some(t) = has_slice(self).or_else(|| local(self)) {
            return Some(t);
        }
        None
    }

    /// Tasks that could not be moved are the policy's again (SCX_ENQ_REENQ), which has a bound to that.
    fn give_back(&mut self) {
        for t in std::mem::take(&mut self.world.came_back) {
            self.world.task_mut(t).came_back += 1;
            if self.world.task(t).came_back > CAME_BACK_MAX {
                self.world
                    .fault(format!("task {t} comes back again and again"));
            }
            let flags = EnqFlags {
                came_back: true,
                ..EnqFlags::default()
            };
            self.enqueue(t, flags);
        }
    }

    /// put_prev_task_scx(), of a task that is runnable.
    fn put_prev(&mut self, cpu: Cpu, prev: Pid, last: bool) {
        self.leave_cpu(prev);
        if !self.is_fair(prev) {
            return self.rt_enqueue(prev, cpu, true);
        }
        self.call(Call::Stopping(prev, true), |p, w| p.stopping(w, prev, true));
        if self.world.task(prev).slice_ns > 0 {
            self.world.task_mut(prev).dsq = Dsq::Local(cpu);
            self.world.cpu_mut(cpu).local.push_front(prev);
        } else {
            let flags = EnqFlags {
                last,
                ..EnqFlags::default()
            };
            self.enqueue(prev, flags);
        }
    }

    /// `t` is not on its CPU any more, but runnable.
    pub(super) fn leave_cpu(&mut self, t: Pid) {
        self.world.task_mut(t).state = State::Runnable;
    }

    /// Asks the policy to queue `t`.
    pub(super) fn enqueue(&mut self, t: Pid, flags: EnqFlags) {
        let cpu = self.world.task(t).cpu;
        self.call(Call::Enqueue(t, cpu, flags), |p, w| {
            p.enqueue(w, t, cpu, flags)
        });
        if self.world.task(t).dsq == Dsq::None {
            self.world
                .fault(format!("task {t} was enqueued and is on no queue"));
            self.world
                .dsq_insert_vtime(t, cpu, Reach::One, 0, SLICE_DFL_NS);
        }
    }

    /// set_next_task_scx(); `None` is the idle task.
    fn set_next(&mut self, cpu: Cpu, next: Option<Pid>) {
        let now = self.world.now;
        self.world.cpu_mut(cpu).curr = next;
        let Some(t) = next else {
            self.world.calls.push(Call::Idles(cpu));
            if self.world.cpu(cpu).online {
                self.update_idle(cpu, true);
            }
            return;
        };
        self.update_idle(cpu, false);
        if self.is_fair(t) && !self.world.may_run(t, cpu) {
            self.world
                .fault(format!("task {t} runs on CPU {cpu}, where it may not"));
        }
        self.world.dsq_remove(t);
        self.world.cpu_mut(cpu).rt_queue.retain(|&q| q != t);
        let task = self.world.task_mut(t);
        task.cpu = cpu;
        task.state = State::Running;
        task.came_back = 0;
        task.exec_since = now;
        if self.is_fair(t) {
            if self.world.task(t).slice_ns == 0 {
                self.world.task_mut(t).slice_ns = SLICE_DFL_NS;
            }
            self.call(Call::Running(t, cpu), |p, w| p.running(w, t));
        }
        let nohz_full = self.setup.topology.nohz_full(self.setup.nr_cpus);
        let endless = self.is_fair(t) && self.world.task(t).slice_ns == u64::MAX;
        self.world.cpu_mut(cpu).tick_stopped = endless && nohz_full.contains(&cpu);
        self.arm_tick(cpu);
    }

    /// scx_update_idle(): the policy is told of changes only.
    fn update_idle(&mut self, cpu: Cpu, idle: bool) {
        if std::mem::replace(&mut self.world.cpu_mut(cpu).idle, idle) != idle {
            let call = Call::UpdateIdle(cpu, idle);
            self.call(call, |p, w| p.update_idle(w, cpu, idle));
        }
    }

    /// try_to_wake_up(), on behalf of what runs on `waker_cpu`.
    pub(super) fn wake(&mut self, t: Pid, waker_cpu: Cpu, kind: WakeKind) {
        if !matches!(self.world.task(t).state, State::Asleep | State::Blocked(_)) {
            return;
        }
        let online = self.world.online_mask();
        let on = online >> waker_cpu & 1 == 1;
        self.world.this_cpu = if on {
            waker_cpu
        } else {
            online.trailing_zeros()
        };
        if !self.is_fair(t) {
            self.leave_cpu(t);
            let cpu = self.rt_cpu(t);
            return self.rt_enqueue(t, cpu, false);
        }
        let selected = self.select_cpu(t, kind);
        self.leave_cpu(t);
        let flags = EnqFlags {
            wakeup: true,
            cpu_selected: selected,
            ..EnqFlags::default()
        };
        self.call(Call::Runnable(t, flags), |p, w| p.runnable(w, t, flags));
        self.enqueue(t, flags);
        self.wakeup_preempt(t);
    }

    /// wakeup_preempt(): the idle task gives way to any other.
    pub(super) fn wakeup_preempt(&mut self, t: Pid) {
        let cpu = self.world.task(t).cpu;
        if self.world.cpu(cpu).curr.is_none() {
            self.soon(Event::Resched(cpu));
        }
    }

    /// select_task_rq(); whether the policy was asked.
    fn select_cpu(&mut self, t: Pid, kind: WakeKind) -> bool {
        // a mask without any CPU online is widened first, as select_fallback_rq() does
        self.world.fallback_cpu(t);
        let prev_cpu = self.world.task(t).cpu;
        let asked = !self.world.pinned(t);
        let mut cpu = prev_cpu;
        if asked {
            let call = Call::SelectCpu(t, prev_cpu, kind);
            cpu = self.call(call, |p, w| p.select_cpu(w, t, prev_cpu, kind));
            self.world.calls.push(Call::Selected(t, cpu));
        }
        let usable = self.world.may_run(t, cpu);
        self.world.task_mut(t).cpu = cpu;
        if !usable {
            self.world.task_mut(t).cpu = self.world.fallback_cpu(t);
        }
        asked
    }

    /// Where a task of a higher class goes: its own CPU, else the lowest that runs
    /// no other one.
    fn rt_cpu(&mut self, t: Pid) -> Cpu {
        let own = self.world.fallback_cpu(t);
        let free = |cpu: &Cpu| {
            let state = self.world.cpu(*cpu);
            let rt_runs = state.curr.is_some_and(|c| !self.is_fair(c));
            self.world.may_run(t, *cpu) && !rt_runs && state.rt_queue.is_empty()
        };
        std::iter::once(own)
            .chain(0..self.world.cpus.len() as Cpu)
            .find(free)
            .unwrap_or(own)
    }

    /// Puts `t` among the tasks of higher classes on `cpu`; of equals the one that
    /// was `preempted` goes first.
    pub(super) fn rt_enqueue(&mut self, t: Pid, cpu: Cpu, preempted: bool) {
        let urgency = self.world.urgency(t);
        let queue = &self.world.cpu(cpu).rt_queue;
        let behind = |&q: &Pid| {
            let other = self.world.urgency(q);
            other < urgency || preempted && other == urgency
        };
        let at = queue.iter().position(behind).unwrap_or(queue.len());
        self.world.task_mut(t).cpu = cpu;
        self.world.cpu_mut(cpu).rt_queue.insert(at, t);
        if !preempted {
            self.soon(Event::Resched(cpu));
        }
    }
}
