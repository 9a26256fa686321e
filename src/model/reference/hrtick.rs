// SPDX-License-Identifier: GPL-2.0-only
//! What runs is compared again with a task that woke, when that may have been passed.

use super::Reference;
use super::state::CpuCtx;
use crate::model::key;
use crate::model::policy::{Cpu, Kernel, Kick, Pid};

/// No look sooner than this.
const HRTICK_MIN_NS: u64 = 100_000;

impl CpuCtx {
    /// For how long what runs has been awake, if it began to run after a sleep.
    pub(super) fn awake_ns(&self, now: u64) -> Option<u64> {
        Some(now - self.awake_at?)
    }
}

impl Reference {
    /// `t` begins to run, in its own context or in a donor's. What runs after a sleep is
    /// protected for a moment; if it blocks in that, its turn goes on with the owner.
    pub(super) fn begin_turn(&mut self, now: u64, t: Pid, cpu: Cpu) {
        let task = self.task_mut(t);
        let slept = std::mem::take(&mut task.slept);
        let donor = task.runs_for.map(|(donor, _)| donor);
        let state = self.cpu_mut(cpu);
        if slept {
            state.awake_at = Some(now);
        } else if donor.is_none() || state.turn != donor {
            state.awake_at = None;
        }
        state.turn = donor.or(Some(t));
    }

    /// CPU time until what runs, of that weight and with key `running`, has passed `key`.
    pub(super) fn passes_in(&self, running: u64, key: u64, weight: u32) -> u64 {
        let lead = key.wrapping_sub(running) as i64;
        if lead <= 0 {
            return 0;
        }
        let ns = u128::from(lead as u64) * u128::from(weight) / u128::from(key::WEIGHT_NICE_0);
        u64::try_from(ns).unwrap_or(u64::MAX).min(self.cfg.slice_ns)
    }

    /// `cpu` is looked at in `ns`, or before.
    pub(super) fn hrtick_start(&mut self, k: &mut dyn Kernel, cpu: Cpu, ns: u64) {
        let ns = ns.max(HRTICK_MIN_NS).min(self.cfg.slice_ns);
        let at = k.now_ns() + ns;
        if self.cpu(cpu).hrtick_at.is_none_or(|then| at < then) {
            self.cpu_mut(cpu).hrtick_at = Some(at);
            k.start_hrtick(cpu, ns);
        }
    }

    /// The timer of `cpu`, or its tick: what runs is preempted if the first that waits has woken and is
    /// earlier by the granularity; or at all, if it went on when its donor woke.
    pub(super) fn look_again(&mut self, k: &mut dyn Kernel, cpu: Cpu) {
        let now = k.now_ns();
        let due = |at: u64| at <= now + HRTICK_MIN_NS / 2;
        if !self.cpu(cpu).hrtick_at.is_some_and(due) {
            return;
        }
        self.cpu_mut(cpu).hrtick_at = None;
        let state = self.cpu(cpu);
        let (Some(_), Some(head)) = (state.running_since, self.head(k, cpu)) else {
            return;
        };
        let task = self.task(head.pid);
        let lead = if state.turn_over {
            0
        } else if task.slept {
            key::cost(self.cfg.wakeup_gran_ns, task.weight)
        } else {
            return;
        };
        let (running, key) = (state.running_key_now(now), head.key.wrapping_add(lead));
        if key::before(key, running) {
            k.kick(cpu, Kick::Preempt);
        } else {
            let ns = self.passes_in(running, key, state.running_weight);
            self.hrtick_start(k, cpu, ns);
        }
    }
}
