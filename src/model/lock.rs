// SPDX-License-Identifier: GPL-2.0-only
//! Locks, as in kernel/locking/mutex.c: waiters stand in line, a release wakes
//! the first, and the first that runs takes the lock. A first waiter that came too
//! late asks for a handoff, so that it is passed over once only. What has readers, as
//! kernel/locking/rwsem.c, is taken by one alone or shared; readers do not pass
//! those in line, and one that gets the lock wakes the next if that is a reader too. Who releases a
//! mutex of user space wakes the first waiter only some CPU time later, and may be preempted in between.

use super::kernel::{Call, Mode, Pending, State};
use super::policy::{CANDIDATES_MAX, Cpu, Pid, WakeKind};
use super::program::{Class, LockIdx, LockKind};
use super::sim::Sim;

impl Sim {
    /// `t` wants the lock, and takes it if it may: alone also past those in line.
    pub(super) fn lock(&mut self, t: Pid, l: LockIdx, cpu: Cpu, mode: Mode) {
        let lock = &self.world.locks[l];
        let mode = match lock.kind {
            LockKind::Rwsem => mode,
            _ => Mode::Alone,
        };
        let in_line = mode == Mode::Shared && !lock.waiters.is_empty();
        if self.is_free(l, mode) && !in_line {
            return self.take(t, l, mode);
        }
        self.world.locks[l].waiters.push_back(t);
        let shows = self.world.locks[l].kind.shows(self.world.task(t).class);
        let task = self.world.task_mut(t);
        task.waits_for = Some(l);
        task.pending = Pending::Retry(l, mode);
        if shows && matches!(task.class, Class::Rt { .. }) {
            self.world.this_cpu = cpu;
            self.call(Call::ContentionBegin(t, cpu), |p, w| {
                p.contention_begin(w, t, cpu)
            });
        }
        self.sleep_on(t, l, cpu);
    }

    fn sleep_on(&mut self, t: Pid, l: LockIdx, cpu: Cpu) {
        self.world.task_mut(t).blocked_on_cleared = false;
        self.block(cpu, State::Blocked(l));
    }

    fn is_free(&self, l: LockIdx, mode: Mode) -> bool {
        let lock = &self.world.locks[l];
        lock.owner.is_none() && (mode == Mode::Shared || lock.readers.is_empty())
    }

    fn take(&mut self, t: Pid, l: LockIdx, mode: Mode) {
        match mode {
            Mode::Alone => {
                self.world.locks[l].owner = Some(t);
                self.world.locks[l].owners.insert(t);
            }
            Mode::Shared => {
                let lock = &mut self.world.locks[l];
                lock.readers.push(t);
                lock.last_reader = Some(t);
            }
        }
        self.world.task_mut(t).held.push(l);
    }

    /// A waiter runs again: it takes the lock, gives up, or sleeps on.
    pub(super) fn lock_retry(&mut self, t: Pid, l: LockIdx, cpu: Cpu, mode: Mode) {
        let first = self.world.locks[l].waiters.front() == Some(&t);
        match self.world.locks[l].owner {
            _ if self.is_free(l, mode) => self.take(t, l, mode),
            // it was handed over, when its owner word was set
            Some(owner) if owner == t && !self.world.task(t).held.contains(&l) => {
                self.world.task_mut(t).held.push(l);
            }
            _ if self.world.task(t).signalled => {}
            _ => {
                self.world.locks[l].handoff_wanted |= first;
                self.world.task_mut(t).pending = Pending::Retry(l, mode);
                return self.sleep_on(t, l, cpu);
            }
        }
        self.wait_over(t, l, cpu);
    }

    fn wait_over(&mut self, t: Pid, l: LockIdx, cpu: Cpu) {
        self.world.locks[l].waiters.retain(|&w| w != t);
        self.wake_next_reader(l, cpu);
        let shows = self.world.locks[l].kind.shows(self.world.task(t).class);
        let task = self.world.task_mut(t);
        task.waits_for = None;
        task.signalled = false;
        if shows && matches!(task.class, Class::Rt { .. }) {
            self.world.this_cpu = cpu;
            self.call(Call::ContentionEnd(t), |p, w| p.contention_end(w, t));
        }
    }

    /// `t` releases the lock. The first waiter's edge is gone from here on; it is
    /// woken a moment later, in which `t` keeps the CPU.
    pub(super) fn unlock(&mut self, t: Pid, l: LockIdx, cpu: Cpu) {
        if !self.world.task(t).held.contains(&l) {
            return;
        }
        self.world.task_mut(t).held.retain(|&h| h != l);
        let lock = &mut self.world.locks[l];
        lock.readers.retain(|&r| r != t);
        lock.last_reader = lock.last_reader.filter(|&r| r != t);
        if !lock.readers.is_empty() {
            return;
        }
        let first = lock.waiters.front().copied();
        let wanted = lock.always_handoff || lock.handoff_wanted;
        let alone = first.is_some_and(|f| self.world.wants(f) == Some(Mode::Alone));
        let lock = &mut self.world.locks[l];
        let handoff = alone && wanted;
        lock.owner = if handoff { first } else { None };
        lock.handoff_wanted = false;
        lock.owners.extend(lock.owner);
        let Some(first) = first else { return };
        self.note_users(t, first, l);
        let release_ns = self.world.locks[l].release_ns;
        if release_ns > 0 {
            let task = self.world.task_mut(t);
            task.pending = Pending::WakeFirst(l);
            task.left_ns = release_ns;
            return;
        }
        self.world.task_mut(first).blocked_on_cleared = true;
        let delay = self.chance(self.setup.wake_delay_ns);
        let task = self.world.task_mut(t);
        task.pending = Pending::Wake(first);
        task.left_ns = delay;
        self.world.cpu_mut(cpu).no_preempt = true;
        if delay == 0 {
            self.world.task_mut(t).pending = Pending::Nothing;
            self.unlock_wake(first, cpu);
        }
    }

    /// Readers come in one after the other.
    fn wake_next_reader(&mut self, l: LockIdx, cpu: Cpu) {
        let next = self.world.locks[l].waiters.front().copied();
        let shared = !self.world.locks[l].readers.is_empty();
        if let Some(next) = next.filter(|&n| shared && self.world.wants(n) == Some(Mode::Shared))
            && let State::Blocked(_) = self.world.task(next).state
        {
            self.world.task_mut(next).blocked_on_cleared = true;
            self.wake(next, cpu, WakeKind::Plain);
        }
    }

    /// `t` wakes `first` for the lock, whose word names no owner: both are remembered.
    fn note_users(&mut self, t: Pid, first: Pid, l: LockIdx) {
        let lock = &mut self.world.locks[l];
        if lock.kind != LockKind::Unnamed {
            return;
        }
        for user in [t, first] {
            lock.users.retain(|&u| u != user);
            lock.users.insert(0, user);
        }
        lock.users.truncate(CANDIDATES_MAX);
    }

    /// The second half of a release of a mutex of user space, which names nobody since the first.
    pub(super) fn futex_wake(&mut self, l: LockIdx, cpu: Cpu) {
        let waiters = &self.world.locks[l].waiters;
        let sleeps = |&&w: &&Pid| matches!(self.world.task(w).state, State::Blocked(_));
        if let Some(first) = waiters.iter().find(sleeps).copied() {
            self.wake(first, cpu, WakeKind::Plain);
        }
    }

    /// The second half of a release.
    pub(super) fn unlock_wake(&mut self, waiter: Pid, cpu: Cpu) {
        self.wake(waiter, cpu, WakeKind::Plain);
        self.world.cpu_mut(cpu).no_preempt = false;
        if std::mem::take(&mut self.world.cpu_mut(cpu).need_resched) {
            self.soon(super::sim::Event::Resched(cpu));
        }
    }

    /// A signal for `t`: if it sleeps on a lock it wakes, and gives up unless it can
    /// have the lock by then.
    pub(super) fn signal(&mut self, t: Pid) {
        if let State::Blocked(_) = self.world.task(t).state {
            let task = self.world.task_mut(t);
            task.signalled = true;
            task.blocked_on_cleared = true;
            let cpu = task.cpu;
            self.wake(t, cpu, WakeKind::Plain);
        }
    }
}
