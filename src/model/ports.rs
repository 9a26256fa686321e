// SPDX-License-Identifier: GPL-2.0-only
//! What a policy may ask of the machine, and do to it.

use super::kernel::{Call, Dsq, State, World, lock_index, lock_name};
use super::key;
use super::policy::{Cpu, Group, Kernel, Kick, Limit, Lock, Moved, Pid, QUEUE_LOOKS, Reach};
use super::program::{Class, LockKind, PointedBy};

/// The `cpu.weight` of a cgroup as a weight.
pub(super) fn shares(cgroup_weight: u32) -> u32 {
    (u64::from(cgroup_weight) * u64::from(key::WEIGHT_NICE_0) / 100) as u32
}

impl World {
    /// Behind those of equal keys, as the kernel's rbtree has it.
    fn queue_by_key(&mut self, t: Pid, cpu: Cpu, reach: Reach) {
        let key = self.task(t).dsq_key;
        let queue = &self.cpu(cpu).queues[reach as usize];
        let later = |&q: &Pid| key::before(key, self.task(q).dsq_key);
        let at = queue.iter().position(later).unwrap_or(queue.len());
        self.cpu_mut(cpu).queues[reach as usize].insert(at, t);
    }
}

impl Kernel for World {
    fn now_ns(&self) -> u64 {
        self.now
    }

    fn this_cpu(&self) -> Cpu {
        self.this_cpu
    }

    fn current(&self, cpu: Cpu) -> Option<Pid> {
        self.cpu(cpu).curr
    }

    fn exec_ns(&self, t: Pid) -> u64 {
        let exec = self.exec_now(t);
        self.task(t).exec_seen.set(exec);
        exec + self.core_now(t)
    }

    fn nice(&self, t: Pid) -> i32 {
        match self.task(t).class {
            Class::Fair { nice } => nice,
            Class::Rt { .. } => 0,
        }
    }

    fn group_shares(&self, g: Group) -> u32 {
        shares(self.groups[g as usize - 1].weight)
    }

    fn group_limit(&self, g: Group) -> Option<Limit> {
        self.groups[g as usize - 1].limit
    }

    fn alive(&self, t: Pid) -> bool {
        t != 0
            && self
                .tasks
                .get(t as usize - 1)
                .is_some_and(|task| task.state != State::Dead)
    }

    fn task_cpu(&self, t: Pid) -> Cpu {
        self.task(t).cpu
    }

    fn may_run(&self, t: Pid, cpu: Cpu) -> bool {
        let task = self.task(t);
        let allowed = if task.migrate_disabled {
            cpu == task.cpu
        } else {
            task.mask >> cpu & 1 == 1
        };
        allowed && self.cpu(cpu).online
    }

    fn pinned(&self, t: Pid) -> bool {
        let task = self.task(t);
        task.migrate_disabled || task.mask.count_ones() == 1
    }

    fn unrestricted(&self, t: Pid) -> bool {
        self.task(t).mask.count_ones() as usize >= self.cpus.len()
    }

    fn is_rt(&self, t: Pid) -> bool {
        matches!(self.task(t).class, Class::Rt { .. })
    }

    fn urgency(&self, t: Pid) -> u32 {
        match self.task(t).class {
            Class::Fair { .. } => 0,
            Class::Rt { prio } => prio,
        }
    }

    fn core_runs(&self, t: Pid) -> bool {
        self.core_runner(t).is_some()
    }

    fn blocked_on(&self, t: Pid) -> Option<Lock> {
        self.asks_about_locks();
        self.edge(t).map(|l| lock_name(l, self.locks[l].kind))
    }

    fn owner_of(&self, l: Lock) -> Option<Pid> {
        self.asks_about_locks();
        let l = lock_index(l);
        let names = self.locks[l].kind != LockKind::Unnamed;
        self.named_owner(l).filter(|_| names)
    }

    fn first_waiter_of(&self, l: Lock) -> Option<Pid> {
        self.asks_about_locks();
        self.first_in_line(lock_index(l))
    }

    fn wakes_after_release(&self, l: Lock) -> bool {
        self.asks_about_locks();
        self.locks[lock_index(l)].kind == LockKind::Pthread
    }

    fn candidates_of(&self, l: Lock) -> Vec<Pid> {
        self.asks_about_locks();
        self.locks[lock_index(l)].users.clone()
    }

    fn points_at(&self, t: Pid, l: Lock) -> bool {
        self.asks_about_locks();
        let lock = &self.locks[lock_index(l)];
        match lock.pointed_by {
            PointedBy::Nobody => false,
            PointedBy::Owner => lock.owner == Some(t),
            PointedBy::Others => lock.owner != Some(t),
        }
    }

    fn dsq_insert_vtime(&mut self, t: Pid, cpu: Cpu, reach: Reach, key: u64, slice_ns: u64) {
        self.calls
            .push(Call::InsertVtime(t, cpu, reach, key, slice_ns));
        if self.task(t).dsq != Dsq::None {
            self.fault(format!("task {t} is put on a queue while it is on one"));
            self.dsq_remove(t);
        }
        let now = self.now;
        let task = self.task_mut(t);
        task.dsq = Dsq::User(cpu, reach, now);
        task.dsq_key = key;
        task.slice_ns = slice_ns;
        self.queue_by_key(t, cpu, reach);
    }

    fn dsq_head(&self, cpu: Cpu, reach: Reach) -> Option<(u64, Pid)> {
        let first = self.cpu(cpu).queues[reach as usize].first();
        first.map(|&t| (self.task(t).dsq_key, t))
    }

    fn dsq_rekey(&mut self, cpu: Cpu, reach: Reach, key: u64) {
        if let Some(&t) = self.cpu(cpu).queues[reach as usize].first() {
            self.calls.push(Call::Rekey(t, cpu, reach, key));
            self.cpu_mut(cpu).queues[reach as usize].remove(0);
            self.task_mut(t).dsq_key = key;
            self.queue_by_key(t, cpu, reach);
        }
    }

    fn dsq_move_task(&mut self, t: Pid, from: Cpu, reach: Reach, cpu: Cpu, slice_ns: u64) -> Moved {
        if self.dispatching != Some(cpu) {
            self.fault(format!(
                "task {t} is moved to CPU {cpu} outside of its dispatch"
            ));
        }
        if self.core_runner(t).is_some() {
            self.fault(format!("task {t} is moved while the kernel runs it"));
        }
        let moved = if !self.may_run(t, cpu) {
            Moved::Refused
        } else if !matches!(self.task(t).dsq, Dsq::User(on, at, _) if (on, at) == (from, reach)) {
            Moved::Lost
        } else {
            self.task_mut(t).slice_ns = slice_ns;
            self.move_to_local_dsq(t, cpu);
            Moved::Moved
        };
        self.calls
            .push(Call::MoveTask(t, from, cpu, slice_ns, moved));
        moved
    }

    fn dsq_move_to_local(&mut self, from: Cpu, reach: Reach, cpu: Cpu) -> bool {
        if self.dispatching != Some(cpu) {
            self.fault(format!(
                "a task is taken to CPU {cpu} outside of its dispatch"
            ));
        }
        let restricted = reach == Reach::Some && from != cpu;
        let looks = if restricted { QUEUE_LOOKS } else { usize::MAX };
        let queue = &self.cpu(from).queues[reach as usize];
        let mut looked_at = queue.iter().copied().take(looks);
        let first = looked_at.find(|&t| self.may_run(t, cpu));
        if let Some(t) = first.filter(|&t| self.core_runner(t).is_some()) {
            self.calls.push(Call::MoveToLocal(from, reach, cpu, None));
            self.dsq_remove(t);
            self.came_back.push(t);
            // no such kernel is there to be asked what the policy is told
            return self.rng.below(2) == 0;
        }
        self.calls.push(Call::MoveToLocal(from, reach, cpu, first));
        if let Some(t) = first {
            self.move_to_local_dsq(t, cpu);
        }
        first.is_some()
    }

    fn set_slice(&mut self, t: Pid, ns: u64) {
        self.calls.push(Call::SetSlice(t, ns));
        self.task_mut(t).slice_ns = ns;
    }

    fn kick(&mut self, cpu: Cpu, kind: Kick) {
        self.calls.push(Call::Kick(cpu, kind));
        self.kicks.push((cpu, kind));
    }

    fn start_hrtick(&mut self, cpu: Cpu, ns: u64) {
        self.calls.push(Call::StartHrtick(cpu, ns));
        self.hrticks.push((cpu, ns));
    }
}
