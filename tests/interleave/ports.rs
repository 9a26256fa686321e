// SPDX-License-Identifier: GPL-2.0-only
//! What the policy asks of the machine, and does to it (`bpf/core/ports.h`). What other CPUs look at
//! or change is read and written as a place of the machine.

use std::ffi::{c_int, c_uint, c_void};

use crate::engine::sys::{host_ports, proxy_event};
use crate::kernel::Kernel;
use crate::machine::*;

fn kernel<'a>(machine: *mut c_void) -> &'a Kernel {
    // SAFETY: the pointer is that of a Kernel, which outlives its callbacks.
    unsafe { &*machine.cast::<Kernel>() }
}

extern "C" fn event(_: *mut c_void, _: *const proxy_event) {}

macro_rules! ports {
    ($machine:expr, $($port:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)? = $body:expr;)*) => {{
        $(
            extern "C" fn $port(machine: *mut c_void, $($arg: $ty),*) $(-> $ret)? {
                let body: fn(&Kernel, $($ty),*) $(-> $ret)? = $body;
                body(kernel(machine), $($arg),*)
            }
        )*
        host_ports {
            machine: $machine,
            $($port: Some($port),)*
            event: Some(event),
        }
    }};
}

impl Kernel {
    fn lock_named(&self, name: u64) -> Option<Lock> {
        self.m().locks.iter().position(|l| l.name == name)
    }

    fn may_run(&self, t: Pid, cpu: Cpu) -> bool {
        read(Place::Mask(t));
        self.task(t).mask >> cpu & 1 == 1
    }

    /// scx_bpf_dsq_move() onto the local DSQ: 0 moved, 1 lost, 2 refused.
    fn dsq_move(&self, t: Pid, from: Cpu, reach: usize, cpu: Cpu) -> c_int {
        if !self.may_run(t, cpu) {
            return 2;
        }
        read(Place::Migrating(t));
        let src = self.task(t).cpu;
        if src != cpu {
            self.rq_unlock(cpu);
            self.rq_lock(src);
        }
        write(Place::Dsq(from, reach));
        let there = self.task(t).dsq == Dsq::User(from, reach)
            && self.task(t).cpu == src
            && self.task(t).mask >> cpu & 1 == 1;
        if there {
            self.cpu(from).queues[reach].retain(|&q| q != t);
            self.task(t).dsq = Dsq::None;
            self.task(t).migrating = true;
            write(Place::Migrating(t));
            self.task(t).cpu = cpu;
        }
        if src != cpu {
            self.rq_unlock(src);
            self.rq_lock(cpu);
        }
        if there {
            self.arrive(t, cpu);
        }
        c_int::from(!there)
    }

    fn arrive(&self, t: Pid, cpu: Cpu) {
        self.task(t).dsq = Dsq::Local(cpu);
        self.cpu(cpu).local.push_back(t);
        self.task(t).migrating = false;
        write(Place::Migrating(t));
    }

    /// scx_bpf_dsq_move_to_local()
    fn head_take(&self, from: Cpu, reach: usize, cpu: Cpu) -> bool {
        loop {
            write(Place::Dsq(from, reach));
            let able = |&&t: &&Pid| self.task(t).mask >> cpu & 1 == 1;
            let first = self.cpu(from).queues[reach].iter().find(able).copied();
            let Some(t) = first else {
                return false;
            };
            self.cpu(from).queues[reach].retain(|&q| q != t);
            self.task(t).dsq = Dsq::None;
            let src = self.task(t).cpu;
            if src == cpu {
                self.arrive(t, cpu);
                return true;
            }
            self.task(t).held_by = true;
            self.rq_unlock(cpu);
            self.rq_lock(src);
            let ours = std::mem::take(&mut self.task(t).held_by) && self.task(t).cpu == src;
            if ours {
                self.task(t).migrating = true;
                write(Place::Migrating(t));
                self.task(t).cpu = cpu;
            }
            self.rq_unlock(src);
            self.rq_lock(cpu);
            if ours {
                self.arrive(t, cpu);
                return true;
            }
        }
    }
}

pub fn ports(machine: *mut c_void) -> host_ports {
    ports! { machine,
        now() -> u64 = |k| k.m().now;
        this_cpu() -> c_int = |k| k.this_cpu() as c_int;
        current(cpu: c_int) -> c_uint = |k, cpu| k.cpu(cpu as Cpu).curr;
        alive(pid: c_uint) -> c_int = |k, t| {
            if t as usize > k.m().tasks.len() {
                return 0;
            }
            read(Place::Alive(t));
            c_int::from(!k.task(t).gone)
        };
        exec_ns(pid: c_uint) -> u64 = |k, t| {
            let task = k.task(t);
            task.seen = task.exec;
            task.exec
        };
        nice(pid: c_uint) -> c_int = |k, t| k.task(t).nice;
        task_cpu(pid: c_uint) -> c_int = |k, t| k.task(t).cpu as c_int;
        group_shares(group: c_uint) -> c_uint = |k, g| {
            read(Place::Group(g));
            k.m().groups[g as usize - 1].0
        };
        group_limit(group: c_uint, quota: *mut u64, period: *mut u64, burst: *mut u64) =
            |k, g, quota, period, burst| {
                let ns = k.m().groups[g as usize - 1].1;
                // SAFETY: the engine passes places of its own.
                unsafe {
                    quota.write(ns);
                    period.write(if ns == 0 { 0 } else { 100_000_000 });
                    burst.write(0);
                }
            };
        rekey(cpu: c_int, reach: c_uint, key: u64) = |k, cpu, reach, key| {
            let (cpu, reach) = (cpu as Cpu, reach as usize);
            write(Place::Dsq(cpu, reach));
            if let Some(&t) = k.cpu(cpu).queues[reach].first() {
                k.cpu(cpu).queues[reach].remove(0);
                k.task(t).key = key;
                k.queue_by_key(t, cpu, reach);
            }
        };
        may_run(pid: c_uint, cpu: c_int) -> c_int = |k, t, cpu| c_int::from(k.may_run(t, cpu as Cpu));
        pinned(pid: c_uint) -> c_int = |k, t| c_int::from(k.task(t).mask.count_ones() == 1);
        unrestricted(pid: c_uint) -> c_int = |k, t| {
            c_int::from(k.task(t).mask.count_ones() as usize >= k.m().cpus.len())
        };
        user(_pid: c_uint) -> c_uint = |_, _| 0;
        urgency(pid: c_uint) -> c_uint = |k, t| k.task(t).rt;
        core_runs(_pid: c_uint) -> c_int = |_, _| 0;
        blocked_on(pid: c_uint) -> u64 = |k, t| {
            read(Place::Edge(t));
            k.task(t).edge.map_or(0, |l| k.m().locks[l].name)
        };
        owner_of(lock: u64) -> c_uint = |k, name| {
            let Some(l) = k.lock_named(name) else { return 0 };
            read(Place::Lock(l));
            k.m().locks[l].owner
        };
        first_waiter_of(lock: u64) -> c_uint = |k, name| {
            let Some(l) = k.lock_named(name) else { return 0 };
            read(Place::Lock(l));
            k.m().locks[l].waiters.first().copied().unwrap_or(0)
        };
        wakes_after_release(_lock: u64) -> c_int = |_, _| 0;
        candidates_of(_lock: u64) -> c_uint = |_, _| 0;
        candidate_of(_lock: u64, _nr: c_uint) -> c_uint = |_, _, _| 0;
        points_at(_pid: c_uint, _lock: u64) -> c_int = |_, _, _| 0;
        insert(pid: c_uint, cpu: c_int, reach: c_uint, key: u64, slice_ns: u64) =
            |k, t, cpu, reach, key, slice_ns| {
                k.task(t).slice = slice_ns;
                k.task(t).pending = Some((cpu as Cpu, reach as usize, key));
            };
        head(cpu: c_int, reach: c_uint, pid: *mut c_uint) -> u64 = |k, cpu, reach, pid| {
            let (cpu, reach) = (cpu as Cpu, reach as usize);
            read(Place::Dsq(cpu, reach));
            let first = k.cpu(cpu).queues[reach].first().copied().unwrap_or(0);
            // SAFETY: the engine passes a place of its own.
            unsafe { pid.write(first) };
            if first == 0 { KEY_NONE } else { k.task(first).key }
        };
        move_task(pid: c_uint, from: c_int, reach: c_uint, cpu: c_int, slice_ns: u64) -> c_int =
            |k, t, from, reach, cpu, slice_ns| {
                let moved = k.dsq_move(t, from as Cpu, reach as usize, cpu as Cpu);
                if moved == 0 {
                    k.task(t).slice = slice_ns;
                }
                moved
            };
        head_take(from: c_int, reach: c_uint, cpu: c_int) -> c_int =
            |k, from, reach, cpu| c_int::from(k.head_take(from as Cpu, reach as usize, cpu as Cpu));
        set_slice(pid: c_uint, ns: u64) = |k, t, ns| k.task(t).slice = ns;
        kick(cpu: c_int, how: c_int) = |k, cpu, how| {
            k.kick(cpu as Cpu, 1 << how);
        };
        start_hrtick(_cpu: c_int, _ns: u64) = |_, _, _| ();
    }
}
