// SPDX-License-Identifier: GPL-2.0-only
//! The machine that a program runs on: as much of the kernel as calls the policy, with the locks
//! that it holds around that. Callbacks are under the task's rq lock; a wakeup and a
//! change of properties are under its pi_lock as well; a pick gives its rq lock up while it
//! takes a task from another CPU; what is enqueued is inserted after the callback.
//!
//! Time stands still while CPUs run side by side. Afterwards they go on one after the other,
//! until all tasks have exited.

use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_int, c_void};

use crate::engine::sys::{host_engine, host_ports, proxy_config};
use crate::explore::{Explorer, Program};
use crate::hooks::{concurrent_cpu, machine_lock, machine_unlock};
use crate::machine::*;
use crate::object::{Api, Memory};
use crate::ports::ports;

/// A callback of the policy, or a number that it has.
macro_rules! callback {
    ($kernel:expr, $name:ident $(, $arg:expr)*) => {
        // SAFETY: engine and ports live as long as the kernel, and tasks, CPUs and groups are
        // those that the engine was made for.
        unsafe { ($kernel.api.$name)($kernel.engine, $kernel.ports.as_ptr() $(, $arg)*) }
    };
}
pub(crate) use callback;

/// The machine with the policy on it, and what its CPUs do side by side.
pub struct Kernel {
    pub api: &'static Api,
    pub engine: *mut host_engine,
    pub ports: Cell<host_ports>,
    pub machine: UnsafeCell<Machine>,
    pub base: UnsafeCell<Option<Machine>>,
    pub scripts: Vec<Vec<Op>>,
}

impl Kernel {
    pub fn new(api: &'static Api, setup: &Setup, scripts: &[&[Op]]) -> Box<Self> {
        let config = proxy_config {
            slice_ns: SLICE_NS,
            lag_ns: 3_000_000,
            wakeup_gran_ns: 3_000_000,
            protect_ns: 700_000,
            balance_ns: 20_000_000,
            starve_ns: 2_000_000_000,
            return_cold_ns: 5_000_000,
            return_margin_ns: 1_000_000,
            return_policy: 0,
            agent_tgid: 0,
            nr_cpu_ids: setup.cpus as u32,
            nr_cpus_online: setup.cpus as u32,
            hops_max: 16,
            events: 0,
            hints: 0,
            limits: 1,
            hrtick: 1,
            cpufreq: 0,
            track_by_tracepoint: 0,
            locks: u32::MAX,
        };
        // SAFETY: config is valid for the call.
        let engine = unsafe { (api.host_engine_new)(&config, TASKS as u32) };
        assert!(!engine.is_null(), "no memory");
        let task = |&(nice, mask, group): &(i32, u32, u32)| Task {
            nice,
            rt: 0,
            mask,
            group,
            state: State::Asleep,
            cpu: mask.trailing_zeros() as Cpu,
            on_rq: false,
            on_cpu: false,
            migrating: false,
            held_by: false,
            dsq: Dsq::None,
            key: 0,
            pending: None,
            edge: None,
            waits: None,
            held: Vec::new(),
            slice: 0,
            exec: 0,
            seen: 0,
            ran: 0,
            signalled: false,
            reclassed: false,
            gone: false,
        };
        let cpu = CpuState {
            idle: true,
            ..CpuState::default()
        };
        let lock = |&name: &u64| LockState {
            name,
            ..LockState::default()
        };
        let kernel = Box::new(Self {
            api,
            engine,
            ports: Cell::new(ports(std::ptr::null_mut())),
            machine: UnsafeCell::new(Machine {
                now: BOOT_NS,
                cpu: 0,
                tasks: setup.tasks.iter().map(task).collect(),
                cpus: vec![cpu; setup.cpus],
                locks: setup.locks.iter().map(lock).collect(),
                groups: setup.groups.clone(),
                faults: Vec::new(),
            }),
            base: UnsafeCell::new(None),
            scripts: scripts.iter().map(|s| s.to_vec()).collect(),
        });
        kernel
            .ports
            .set(ports(std::ptr::from_ref(&*kernel).cast_mut().cast()));
        for cpu in 0..setup.cpus {
            // SAFETY: the engine was made for these CPUs.
            unsafe { (api.host_place)(engine, cpu as c_int, 0, cpu as u32, 1) };
        }
        // SAFETY: as above.
        unsafe { (api.host_near)(engine, 0, 1) };
        for (nr, &(shares, _)) in (1..).zip(&setup.groups) {
            // SAFETY: a few groups.
            unsafe { (api.host_group_begin)(engine, nr, 0, shares) };
        }
        for (t, &(_, _, group)) in (1..).zip(&setup.tasks) {
            callback!(kernel, host_group_move, t, group);
            callback!(kernel, host_enable, t);
        }
        kernel
    }

    /// What the policy shares.
    pub fn memory(&self) -> [Memory; 4] {
        let mut memory = [Memory { at: 0, size: 0 }; 4];
        // SAFETY: it writes four.
        unsafe { (self.api.explored_memory)(self.engine, memory.as_mut_ptr()) };
        memory
    }

    /// For reports: what stands at that address.
    pub fn name(&self, at: usize) -> String {
        let mut name = [0u8; 100];
        // SAFETY: it writes a string of 100 bytes at the most.
        unsafe {
            (self.api.explored_name)(self.engine, at as *const c_void, name.as_mut_ptr().cast())
        };
        let end = name.iter().position(|&b| b == 0).unwrap_or(0);
        String::from_utf8_lossy(&name[..end]).into_owned()
    }

    /// From here on CPUs run side by side, from this state on.
    pub fn side_by_side(&self, explorer: &mut Explorer) {
        explorer.begin();
        // SAFETY: no other task has it now.
        unsafe { *self.base.get() = Some((*self.machine.get()).clone()) };
    }

    /// The machine. A borrow may not live across a place where another CPU may go on.
    #[allow(clippy::mut_from_ref, reason = "one thread; see above")]
    pub fn m(&self) -> &mut Machine {
        // SAFETY: CPUs are coroutines of one thread, and a borrow ends before one rests.
        unsafe { &mut *self.machine.get() }
    }

    #[allow(clippy::mut_from_ref, reason = "as m()")]
    pub fn task(&self, t: Pid) -> &mut Task {
        &mut self.m().tasks[t as usize - 1]
    }

    #[allow(clippy::mut_from_ref, reason = "as m()")]
    pub fn cpu(&self, cpu: Cpu) -> &mut CpuState {
        &mut self.m().cpus[cpu]
    }

    pub fn this_cpu(&self) -> Cpu {
        concurrent_cpu().unwrap_or(self.m().cpu)
    }

    pub fn fault(&self, what: String) {
        self.m().faults.push(what);
    }

    pub fn rq_lock(&self, cpu: Cpu) {
        machine_lock(Place::Rq(cpu).nr());
    }

    pub fn rq_unlock(&self, cpu: Cpu) {
        machine_unlock(Place::Rq(cpu).nr());
    }

    pub fn fair(&self, t: Pid) -> bool {
        self.task(t).rt == 0
    }

    pub fn update_curr(&self, cpu: Cpu) {
        let t = self.cpu(cpu).curr;
        if t != 0 {
            let task = self.task(t);
            let ran = std::mem::take(&mut task.ran);
            task.exec += ran;
            task.slice = task.slice.saturating_sub(ran);
        }
    }

    pub fn dsq_remove(&self, t: Pid) {
        let task = self.task(t);
        task.held_by = false;
        match std::mem::replace(&mut task.dsq, Dsq::None) {
            Dsq::None => {}
            Dsq::User(cpu, reach) => {
                write(Place::Dsq(cpu, reach));
                self.cpu(cpu).queues[reach].retain(|&q| q != t);
            }
            Dsq::Local(cpu) => self.cpu(cpu).local.retain(|&q| q != t),
        }
    }

    pub fn queue_by_key(&self, t: Pid, cpu: Cpu, reach: usize) {
        let key = self.task(t).key;
        let queue = &self.cpu(cpu).queues[reach];
        let later = |&q: &Pid| (key.wrapping_sub(self.task(q).key) as i64) < 0;
        let at = queue.iter().position(later).unwrap_or(queue.len());
        self.cpu(cpu).queues[reach].insert(at, t);
        self.task(t).dsq = Dsq::User(cpu, reach);
    }

    /// enqueue_task_scx() under the rq lock of `cpu`.
    pub fn enqueue(&self, t: Pid, cpu: Cpu, wakeup: bool, selected: bool, last: bool) {
        callback!(
            self,
            host_enqueue,
            t,
            wakeup.into(),
            selected.into(),
            last.into(),
            0
        );
        let Some((to, reach, key)) = self.task(t).pending.take() else {
            return self.fault(format!("task {t} was enqueued and is on no queue"));
        };
        write(Place::Dsq(to, reach));
        self.task(t).key = key;
        self.queue_by_key(t, to, reach);
        if self.cpu(cpu).curr == 0 {
            self.kick(cpu, KICK);
        }
    }

    pub fn kick(&self, cpu: Cpu, kind: u32) {
        write(Place::Kick(cpu));
        self.cpu(cpu).kicks |= kind;
    }

    /// Whether `cpu` was told to schedule.
    pub fn is_kicked(&self, cpu: Cpu) -> bool {
        let state = self.cpu(cpu);
        state.kicks & !KICK_IDLE != 0 || state.kicks != 0 && state.curr == 0
    }

    pub fn schedule(&self, cpu: Cpu) {
        self.rq_lock(cpu);
        self.push_off(cpu);
        self.schedule_locked(cpu);
        self.rq_unlock(cpu);
    }

    /// The stopper takes `cpu` from a task that may not run there any more.
    pub fn push_off(&self, cpu: Cpu) {
        let t = self.cpu(cpu).curr;
        if t == 0 || self.task(t).mask >> cpu & 1 == 1 || self.task(t).state != State::Running {
            return;
        }
        self.update_curr(cpu);
        self.task(t).state = State::Runnable;
        self.cpu(cpu).curr = 0;
        if self.fair(t) {
            callback!(self, host_stopping, t);
            self.enqueue(t, cpu, false, false, false);
        } else {
            self.cpu(cpu).rt.push(t);
        }
        self.task(t).on_cpu = false;
        write(Place::OnCpu(t));
        self.rq_unlock(cpu);
        self.move_queued(t);
        self.rq_lock(cpu);
    }

    pub fn schedule_locked(&self, cpu: Cpu) {
        self.update_curr(cpu);
        write(Place::Kick(cpu));
        let kicks = std::mem::take(&mut self.cpu(cpu).kicks);
        let curr = self.cpu(cpu).curr;
        if curr != 0 {
            read(Place::State(curr));
            if kicks & KICK_PREEMPT != 0 {
                self.task(curr).slice = 0;
            }
        }
        let mut prev = curr;
        if curr != 0 && self.task(curr).state != State::Running {
            write(Place::State(curr));
            self.task(curr).on_rq = false;
            if self.fair(curr) {
                callback!(self, host_quiescent, curr, 1);
            }
            prev = 0;
        }
        let next = self.pick_next(cpu, prev);
        if next != 0 && next == prev {
            return;
        }
        if prev != 0 {
            self.task(prev).state = State::Runnable;
            if !self.fair(prev) {
                self.cpu(cpu).rt.push(prev);
            } else {
                callback!(self, host_stopping, prev);
                if self.task(prev).slice > 0 {
                    self.task(prev).dsq = Dsq::Local(cpu);
                    self.cpu(cpu).local.push_front(prev);
                } else {
                    self.enqueue(prev, cpu, false, false, next == 0);
                }
            }
        }
        self.cpu(cpu).curr = next;
        let idle = next == 0;
        if std::mem::replace(&mut self.cpu(cpu).idle, idle) != idle {
            callback!(self, host_update_idle, cpu as c_int, idle.into());
        }
        if next != 0 {
            self.dsq_remove(next);
            self.cpu(cpu).rt.retain(|&q| q != next);
            let task = self.task(next);
            task.cpu = cpu;
            task.state = State::Running;
            task.on_cpu = true;
            if task.mask >> cpu & 1 == 0 {
                self.fault(format!("task {next} runs on CPU {cpu}, where it may not"));
            }
            if self.fair(next) {
                if self.task(next).slice == 0 {
                    self.task(next).slice = 20_000_000;
                }
                callback!(self, host_running, next);
            }
        }
        // finish_task()
        if curr != 0 && curr != next {
            self.task(curr).on_cpu = false;
            write(Place::OnCpu(curr));
        }
    }

    pub fn pick_next(&self, cpu: Cpu, prev: Pid) -> Pid {
        if let Some(&t) = self.cpu(cpu).rt.first() {
            return t;
        }
        if prev != 0 && !self.fair(prev) {
            return prev;
        }
        let has = || {
            if prev != 0 && self.task(prev).slice > 0 {
                return prev;
            }
            self.cpu(cpu).local.front().copied().unwrap_or(0)
        };
        let first = has();
        if first != 0 {
            return first;
        }
        callback!(self, host_dispatch, cpu as c_int, prev);
        has()
    }
}

impl Program for Kernel {
    fn reset(&self) {
        // SAFETY: no CPU runs now.
        let base = unsafe { (*self.base.get()).clone() };
        *self.m() = base.expect("side_by_side() was called");
    }

    fn run(&self, cpu: usize) {
        for &op in &self.scripts[cpu] {
            self.op(cpu, op);
        }
    }

    fn judge(&self) -> Result<(), String> {
        self.right()?;
        self.ends()
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // SAFETY: made by host_engine_new(), not used after this.
        unsafe { (self.api.host_engine_free)(self.engine) }
    }
}
