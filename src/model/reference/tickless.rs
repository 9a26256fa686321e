// SPDX-License-Identifier: GPL-2.0-only
//! Tasks that have a CPU of `nohz_full=` to themselves: nothing is pending there that a tick would be for, and no
//! slice ends until something is.

use super::Reference;
use crate::model::policy::{Cpu, Kernel, Kick, Pid, Reach};

impl Reference {
    /// Whether anything could want `cpu` beside what runs there.
    fn wanted(&self, k: &dyn Kernel, cpu: Cpu) -> bool {
        let queued = Reach::ALL.into_iter().chain([Reach::Parked]);
        let here = queued
            .into_iter()
            .any(|reach| k.dsq_head(cpu, reach).is_some());
        // a task that others may take
        let movable = |cpu| {
            [Reach::Any, Reach::Some]
                .iter()
                .any(|&reach| k.dsq_head(cpu, reach).is_some())
        };
        here || !self.cpu(cpu).donors.is_empty() || (0..self.cfg.nr_cpus).any(movable)
    }

    /// `t` begins to run on `cpu`.
    pub(super) fn begin_tickless(&mut self, k: &mut dyn Kernel, t: Pid, cpu: Cpu) {
        let task = self.task(t);
        let limited = task.group != 0 && self.has_limits;
        let own = task.runs_for.is_none();
        if self.cfg.nohz_full.contains(&cpu) && own && !limited && !self.wanted(k, cpu) {
            self.cpu_mut(cpu).tickless = true;
            k.set_slice(t, u64::MAX);
        }
    }

    /// A task is about to be queued on `cpu`, which has not moved its clock for long.
    pub(super) fn clock_tickless(&mut self, now: u64, cpu: Cpu) {
        if self.cpu(cpu).tickless {
            let running = self.cpu(cpu).running_key_now(now);
            self.cpu_mut(cpu).advance_clock(Some(running));
        }
    }

    /// Something is queued on `cpu`; whether that is a CPU without ticks.
    pub(super) fn interrupt_tickless(&self, k: &mut dyn Kernel, cpu: Cpu) -> bool {
        let is = self.cpu(cpu).tickless;
        if is {
            k.kick(cpu, Kick::Preempt);
        }
        is
    }

    /// The tick that another CPU makes for `cpu`.
    pub(super) fn tick_tickless(&mut self, k: &mut dyn Kernel, t: Pid, cpu: Cpu) {
        if !self.cpu(cpu).tickless {
            return;
        }
        self.charge(k, t);
        self.note_running(k, t, cpu);
        let key = self.task(t).vtime;
        self.cpu_mut(cpu).advance_clock(Some(key));
        if self.wanted(k, cpu) {
            k.set_slice(t, 0);
        }
    }
}
