// SPDX-License-Identifier: GPL-2.0-only
//! What tasks do, and what is done to them: wakeups, changes of properties, mutexes, exits. In the order of
//! kernel/sched/core.c and kernel/locking/mutex.c, as far as the policy or another CPU can tell.

use std::ffi::c_int;

use crate::hooks::{machine_lock, machine_unlock, machine_wait};
use crate::kernel::{Kernel, callback};
use crate::machine::*;

impl Kernel {
    /// try_to_wake_up()
    pub fn wake(&self, t: Pid) {
        machine_lock(Place::Pi(t).nr());
        self.wake_locked(t);
        machine_unlock(Place::Pi(t).nr());
    }

    pub fn wake_locked(&self, t: Pid) {
        read(Place::State(t));
        if !matches!(self.task(t).state, State::Asleep | State::Blocked) {
            return;
        }
        // ttwu_runnable()
        let cpu = self.task(t).cpu;
        if self.task(t).on_rq {
            self.rq_lock(cpu);
            if self.task(t).on_rq {
                self.task(t).state = State::Running;
                write(Place::State(t));
                return self.rq_unlock(cpu);
            }
            self.rq_unlock(cpu);
        }
        machine_wait(Place::OnCpu(t).nr(), || !self.task(t).on_cpu);
        if !self.fair(t) {
            let cpu = self.task(t).cpu;
            self.rq_lock(cpu);
            self.task(t).state = State::Runnable;
            self.task(t).on_rq = true;
            self.cpu(cpu).rt.push(t);
            self.kick(cpu, KICK);
            return self.rq_unlock(cpu);
        }
        let asked = self.task(t).mask.count_ones() > 1;
        let mut cpu = self.task(t).cpu;
        if asked {
            cpu = callback!(self, host_select_cpu, t, cpu as c_int, 0) as Cpu;
        }
        if self.task(t).mask >> cpu & 1 == 0 {
            cpu = self.task(t).mask.trailing_zeros() as Cpu;
        }
        self.rq_lock(cpu);
        self.task(t).cpu = cpu;
        self.task(t).state = State::Runnable;
        self.task(t).on_rq = true;
        write(Place::State(t));
        self.enqueue(t, cpu, true, asked, false);
        self.rq_unlock(cpu);
    }

    /// sched_change: off the queues, changed, and back.
    pub fn change(&self, t: Pid, to: impl FnOnce(&mut Task), between: impl FnOnce()) {
        machine_lock(Place::Pi(t).nr());
        let cpu = loop {
            machine_wait(Place::Migrating(t).nr(), || !self.task(t).migrating);
            let cpu = self.task(t).cpu;
            self.rq_lock(cpu);
            if self.task(t).cpu == cpu && !self.task(t).migrating {
                break cpu;
            }
            self.rq_unlock(cpu);
        };
        let queued = self.task(t).on_rq;
        let runs = self.cpu(cpu).curr == t;
        if queued && self.fair(t) {
            if runs {
                self.update_curr(cpu);
            }
            self.dsq_remove(t);
            callback!(self, host_quiescent, t, 0);
        } else if queued {
            self.cpu(cpu).rt.retain(|&q| q != t);
        }
        to(self.task(t));
        write(Place::Mask(t));
        between();
        if queued && self.fair(t) {
            self.enqueue(t, cpu, false, false, false);
            if runs {
                self.dsq_remove(t);
                callback!(self, host_running, t);
            }
        } else if queued && !runs {
            self.cpu(cpu).rt.push(t);
            self.kick(cpu, KICK);
        }
        self.rq_unlock(cpu);
        machine_unlock(Place::Pi(t).nr());
    }

    /// move_queued_task(), of a task that is queued where it may not run.
    pub fn move_queued(&self, t: Pid) {
        machine_lock(Place::Pi(t).nr());
        machine_wait(Place::Migrating(t).nr(), || !self.task(t).migrating);
        let from = self.task(t).cpu;
        self.rq_lock(from);
        let task = self.task(t);
        let here = task.cpu == from && task.state == State::Runnable && !task.migrating;
        if here && task.mask >> from & 1 == 0 {
            self.dsq_remove(t);
            let to = self.task(t).mask.trailing_zeros() as Cpu;
            self.task(t).migrating = true;
            write(Place::Migrating(t));
            self.task(t).cpu = to;
            self.rq_unlock(from);
            self.rq_lock(to);
            self.enqueue(t, to, false, false, false);
            self.task(t).migrating = false;
            write(Place::Migrating(t));
            self.rq_unlock(to);
        } else {
            self.rq_unlock(from);
        }
        machine_unlock(Place::Pi(t).nr());
    }

    pub fn class(&self, t: Pid, rt: u32) {
        let was = self.task(t).rt;
        self.change(
            t,
            |task| {
                task.rt = rt;
                task.reclassed = true;
                write(Place::Edge(t));
            },
            || match (was, rt) {
                (0, 1..) => callback!(self, host_disable, t),
                (1.., 0) => callback!(self, host_enable, t),
                _ => {}
            },
        );
    }

    /// As mutexes do it: the edge, the state, another try, and then sleep.
    pub fn sleep_on(&self, t: Pid, l: Lock, cpu: Cpu) {
        self.task(t).edge = Some(l);
        write(Place::Edge(t));
        self.task(t).state = State::Blocked;
        write(Place::State(t));
        write(Place::Lock(l));
        if self.m().locks[l].owner != 0 && !self.task(t).signalled {
            return self.schedule(cpu);
        }
        self.task(t).state = State::Running;
        write(Place::State(t));
        self.wait_over(t, l);
    }

    pub fn block(&self, t: Pid, l: Lock, cpu: Cpu) {
        write(Place::Lock(l));
        let lock = &mut self.m().locks[l];
        // somebody released it just now
        if lock.owner == 0 {
            lock.owner = t;
            return self.task(t).held.push(l);
        }
        lock.waiters.push(t);
        self.task(t).waits = Some(l);
        if !self.fair(t) {
            self.task(t).edge = Some(l);
            write(Place::Edge(t));
            callback!(self, host_contention_begin, t, cpu as c_int);
        }
        self.sleep_on(t, l, cpu);
    }

    pub fn retry(&self, t: Pid, l: Lock, cpu: Cpu) {
        read(Place::State(t));
        write(Place::Lock(l));
        if self.m().locks[l].owner != 0 && !self.task(t).signalled {
            return self.sleep_on(t, l, cpu);
        }
        self.wait_over(t, l);
    }

    /// It has the lock, if that is free, else it has given up.
    pub fn wait_over(&self, t: Pid, l: Lock) {
        let lock = &mut self.m().locks[l];
        lock.waiters.retain(|&w| w != t);
        if lock.owner == 0 {
            lock.owner = t;
            self.task(t).held.push(l);
        }
        self.task(t).waits = None;
        self.task(t).signalled = false;
        self.task(t).reclassed = false;
        self.task(t).edge = None;
        write(Place::Edge(t));
        if !self.fair(t) {
            callback!(self, host_contention_end, t);
        }
    }

    pub fn unlock(&self, t: Pid, l: Lock) {
        self.task(t).held.retain(|&h| h != l);
        write(Place::Lock(l));
        self.m().locks[l].owner = 0;
        write(Place::Lock(l));
        let first = self.m().locks[l].waiters.first().copied();
        if let Some(first) = first {
            self.clear_edge(first);
            self.wake(first);
        }
    }

    /// A waker does that; the edge of other classes stands until they are told.
    pub fn clear_edge(&self, t: Pid) {
        write(Place::Edge(t));
        if self.fair(t) {
            self.task(t).edge = None;
        }
    }

    pub fn exit(&self, t: Pid, cpu: Cpu) {
        if let Some(l) = self.task(t).waits {
            self.task(t).signalled = true;
            self.retry(t, l, cpu);
        }
        while let Some(&l) = self.task(t).held.last() {
            self.unlock(t, l);
        }
        // set_special_state()
        machine_lock(Place::Pi(t).nr());
        self.task(t).state = State::Dead;
        write(Place::State(t));
        machine_unlock(Place::Pi(t).nr());
        self.schedule(cpu);
        let at = self.task(t).cpu;
        self.rq_lock(at);
        if self.fair(t) {
            callback!(self, host_disable, t);
        }
        self.rq_unlock(at);
        write(Place::Alive(t));
        self.task(t).gone = true;
    }

    /// yield_to(), preempting.
    pub fn yield_to(&self, t: Pid, to: Pid, cpu: Cpu) {
        machine_lock(Place::Pi(to).nr());
        let there = loop {
            let there = self.task(to).cpu;
            let (first, second) = (cpu.min(there), cpu.max(there));
            self.rq_lock(first);
            if first != second {
                self.rq_lock(second);
            }
            read(Place::State(to));
            if self.task(to).cpu == there {
                break there;
            }
            self.rq_unlock(first);
            if first != second {
                self.rq_unlock(second);
            }
        };
        let free = self.task(to).state == State::Runnable && !self.task(to).on_cpu;
        let lends = free && self.fair(to) && callback!(self, host_yield_to, t, to) != 0;
        self.rq_unlock(cpu);
        if there != cpu {
            self.rq_unlock(there);
        }
        machine_unlock(Place::Pi(to).nr());
        if lends {
            self.update_curr(cpu);
            self.schedule(cpu);
            if there != cpu {
                self.kick(there, KICK);
            }
        }
    }

    pub fn op(&self, cpu: Cpu, op: Op) {
        let t = self.cpu(cpu).curr;
        let runs = t != 0 && self.task(t).state == State::Running;
        let waits = if runs { self.task(t).waits } else { None };
        match op {
            Op::Pick => {
                if runs {
                    self.update_curr(cpu);
                    self.task(t).slice = 0;
                }
                self.schedule(cpu);
            }
            Op::Sleep if runs && waits.is_none() => {
                self.task(t).state = State::Asleep;
                write(Place::State(t));
                self.schedule(cpu);
            }
            Op::Block(l) if runs && waits.is_none() && !self.task(t).held.contains(&l) => {
                self.block(t, l, cpu);
            }
            Op::Take(l) if runs && self.m().locks[l].owner == 0 => {
                self.m().locks[l].owner = t;
                self.task(t).held.push(l);
            }
            Op::Unlock(l) if runs && self.task(t).held.contains(&l) => self.unlock(t, l),
            Op::Retry => {
                if let Some(l) = waits {
                    self.retry(t, l, cpu);
                }
            }
            Op::YieldTo(to) if runs && waits.is_none() && self.fair(t) && to != t => {
                self.yield_to(t, to, cpu);
            }
            Op::Exit if runs => self.exit(t, cpu),
            Op::Wake(t) if self.task(t).waits.is_none() => self.wake(t),
            Op::Signal(t) if self.task(t).waits.is_some() => {
                write(Place::State(t));
                self.task(t).signalled = true;
                self.clear_edge(t);
                self.wake(t);
            }
            Op::Nice(t, nice) => self.change(t, |task| task.nice = nice, || ()),
            Op::Affinity(t, mask) => {
                self.change(t, |task| task.mask = mask, || ());
                self.move_queued(t);
                read(Place::Migrating(t));
                self.kick(self.task(t).cpu, KICK);
            }
            Op::Class(t, rt) => self.class(t, rt),
            Op::Group(t, g) => self.change(
                t,
                |task| task.group = g,
                || callback!(self, host_group_move, t, g),
            ),
            Op::Weight(g, shares) => {
                write(Place::Group(g));
                self.m().groups[g as usize - 1].0 = shares;
            }
            Op::Tick => {
                self.rq_lock(cpu);
                self.update_curr(cpu);
                let t = self.cpu(cpu).curr;
                if t != 0 && self.fair(t) {
                    callback!(self, host_tick, t);
                }
                self.rq_unlock(cpu);
            }
            Op::Timer => callback!(self, host_timer),
            Op::Run(ns) => {
                self.m().now += ns;
                for cpu in 0..self.m().cpus.len() {
                    let t = self.cpu(cpu).curr;
                    if t != 0 {
                        self.task(t).ran += ns;
                    }
                }
            }
            _ => {}
        }
    }

    /// One CPU after the other does that.
    pub fn setup(&self, ops: &[(Cpu, Op)]) {
        for &(cpu, op) in ops {
            self.m().cpu = cpu;
            self.op(cpu, op);
        }
    }
}
