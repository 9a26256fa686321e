// SPDX-License-Identifier: GPL-2.0-only
//! Changes of what a task is and where it may run, and CPUs that come and go.

use super::kernel::{Call, Dsq, State, Task};
use super::policy::{Cpu, DeqFlags, EnqFlags, Group, Kernel, Pid};
use super::program::{Class, CpuMask};
use super::sim::{Event, Sim};

/// A CPU that cannot go yet is asked again after so long.
const OFFLINE_RETRY_NS: u64 = 1_000_000;

impl Sim {
    /// Changes a property of `t` as the kernel does (sched_change): it leaves the
    /// queues, is changed, and is back; that the policy sees.
    fn change(&mut self, t: Pid, f: impl FnOnce(&mut Task)) {
        self.change_and(t, f, false);
    }

    /// Likewise; if it moves to another cgroup, the policy is told while it is off the queues.
    fn change_and(&mut self, t: Pid, f: impl FnOnce(&mut Task), moves: bool) {
        let state = self.world.task(t).state;
        let cpu = self.world.task(t).cpu;
        let queued = matches!(state, State::Running | State::Runnable);
        if !queued || !self.is_fair(t) {
            f(self.world.task_mut(t));
            if moves {
                self.group_move(t);
            }
            return;
        }
        self.world.this_cpu = cpu;
        self.world.update_curr(cpu);
        if state == State::Running {
            self.call(Call::Stopping(t, false), |p, w| p.stopping(w, t, false));
        }
        self.world.dsq_remove(t);
        let deq = DeqFlags::default();
        self.call(Call::Quiescent(t, deq), |p, w| p.quiescent(w, t, deq));
        f(self.world.task_mut(t));
        if moves {
            self.group_move(t);
        }
        let enq = EnqFlags::default();
        self.call(Call::Runnable(t, enq), |p, w| p.runnable(w, t, enq));
        self.enqueue(t, enq);
        if state == State::Running {
            self.world.dsq_remove(t);
            self.call(Call::Running(t, cpu), |p, w| p.running(w, t));
        }
    }

    pub(super) fn set_nice(&mut self, t: Pid, nice: i32) {
        if self.world.task(t).state != State::Dead && self.is_fair(t) {
            self.change(t, |task| task.class = Class::Fair { nice });
        }
    }

    /// The policy is told of the cgroup of `t`.
    pub(super) fn group_move(&mut self, t: Pid) {
        let g = self.world.task(t).group;
        self.call(Call::GroupMove(t, g), |p, w| p.group_move(w, t, g));
    }

    /// sched_move_task()
    pub(super) fn set_group(&mut self, t: Pid, g: Group) {
        if self.world.task(t).state != State::Dead && self.world.task(t).group != g {
            self.change_and(t, |task| task.group = g, true);
        }
    }

    pub(super) fn set_affinity(&mut self, t: Pid, mask: CpuMask) {
        if self.world.task(t).state == State::Dead || mask & self.world.online_mask() == 0 {
            return; // EINVAL
        }
        self.change(t, |task| task.mask = mask);
        self.leave_forbidden_cpu(t);
    }

    pub(super) fn migrate_enable(&mut self, t: Pid) {
        self.world.task_mut(t).migrate_disabled = false;
        self.leave_forbidden_cpu(t);
    }

    /// A runnable task on a CPU where it may not be is taken elsewhere.
    fn leave_forbidden_cpu(&mut self, t: Pid) {
        let (state, cpu) = (self.world.task(t).state, self.world.task(t).cpu);
        if self.world.may_run(t, cpu) {
            return;
        }
        match state {
            State::Running => {
                self.push_off(cpu);
                self.move_queued(t);
                self.schedule_anew(cpu);
            }
            State::Runnable => self.move_queued(t),
            _ => {}
        }
    }

    /// The stopper takes `cpu` from what runs there.
    fn push_off(&mut self, cpu: Cpu) {
        self.world.update_curr(cpu);
        self.world.this_cpu = cpu;
        let Some(t) = self.world.cpu_mut(cpu).curr.take() else {
            return;
        };
        self.leave_cpu(t);
        if self.is_fair(t) {
            self.call(Call::Stopping(t, true), |p, w| p.stopping(w, t, true));
            self.enqueue(t, EnqFlags::default());
        } else {
            self.rt_enqueue(t, cpu, true);
        }
    }

    fn schedule_anew(&mut self, cpu: Cpu) {
        self.world.cpu_mut(cpu).generation += 1;
        self.soon(Event::Resched(cpu));
    }

    /// move_queued_task(): onto another CPU, without runnable() or quiescent().
    fn move_queued(&mut self, t: Pid) {
        let from = self.world.task(t).cpu;
        self.world.update_curr(from);
        let to = self.world.fallback_cpu(t);
        self.world.this_cpu = if self.world.cpu(from).online {
            from
        } else {
            to
        };
        self.world.dsq_remove(t);
        self.world.cpu_mut(from).rt_queue.retain(|&q| q != t);
        self.world.task_mut(t).cpu = to;
        if self.is_fair(t) {
            self.enqueue(t, EnqFlags::default());
            self.wakeup_preempt(t);
        } else {
            self.rt_enqueue(t, to, false);
        }
    }

    /// `cpu` goes; its tasks are queued elsewhere. It stays if it is the last, and
    /// for as long as a task that has disabled its migration lives there.
    pub(super) fn offline(&mut self, cpu: Cpu, external: usize) {
        if !self.world.cpu(cpu).online || self.world.online_mask().count_ones() < 2 {
            return;
        }
        let stuck = |t: Pid| {
            let task = self.world.task(t);
            task.cpu == cpu && task.migrate_disabled && task.state != State::Dead
        };
        if self.world.pids().any(stuck) || self.world.cpu(cpu).no_preempt {
            let when = self.world.now + OFFLINE_RETRY_NS;
            return self.at(when, Event::Outside(external));
        }
        self.push_off(cpu);
        let state = self.world.cpu_mut(cpu);
        state.online = false;
        state.idle = false;
        state.generation += 1;
        for t in self.world.pids() {
            let task = self.world.task(t);
            let here = task.cpu == cpu || matches!(task.dsq, Dsq::User(on, ..) if on == cpu);
            if task.state == State::Runnable && here {
                self.move_queued(t);
            }
        }
    }

    pub(super) fn online(&mut self, cpu: Cpu) {
        if !std::mem::replace(&mut self.world.cpu_mut(cpu).online, true) {
            self.schedule_anew(cpu);
        }
    }
}
