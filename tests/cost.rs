// SPDX-License-Identifier: GPL-2.0-only
//! What an event costs the policy, in instructions of the host-compiled C and of the ports
//! beneath it: no more than in proportion to the depth of a chain, and to the logarithm of the
//! number of waiters. Counted by single-stepping a child, so no clock and no noise.

mod engine;

use std::collections::HashMap;

use engine::policy::CoreC;
use scx_proxy::abi;
use scx_proxy::model::policy::{
    Config, Cpu, DeqFlags, EnqFlags, Kernel, Kick, Limit, Lock, Moved, Pid, Policy, Reach, Topology,
};

/// A machine in which nothing happens by itself.
#[derive(Default)]
struct Still {
    blocked_on: HashMap<Pid, Lock>,
    owners: HashMap<Lock, Pid>,
    queued: HashMap<Pid, Cpu>,
    /// Where tasks are.
    cpu: Cpu,
    /// Whether they may run anywhere; else only there.
    free: bool,
}

impl Kernel for Still {
    fn now_ns(&self) -> u64 {
        1_000_000
    }
    fn this_cpu(&self) -> Cpu {
        0
    }
    fn current(&self, _cpu: Cpu) -> Option<Pid> {
        None
    }
    fn exec_ns(&self, _t: Pid) -> u64 {
        0
    }
    fn nice(&self, _t: Pid) -> i32 {
        0
    }
    fn group_limit(&self, _: u32) -> Option<Limit> {
        None
    }
    fn dsq_rekey(&mut self, _: Cpu, _: Reach, _: u64) {}
    fn group_shares(&self, _: u32) -> u32 {
        1 << 20
    }
    fn alive(&self, _t: Pid) -> bool {
        true
    }
    fn task_cpu(&self, _t: Pid) -> Cpu {
        self.cpu
    }
    fn may_run(&self, _t: Pid, _cpu: Cpu) -> bool {
        true
    }
    fn pinned(&self, _t: Pid) -> bool {
        !self.free
    }
    fn unrestricted(&self, _t: Pid) -> bool {
        self.free
    }
    fn is_rt(&self, _t: Pid) -> bool {
        false
    }
    fn urgency(&self, _t: Pid) -> u32 {
        0
    }
    fn core_runs(&self, _t: Pid) -> bool {
        false
    }
    fn blocked_on(&self, t: Pid) -> Option<Lock> {
        self.blocked_on.get(&t).copied()
    }
    fn owner_of(&self, l: Lock) -> Option<Pid> {
        self.owners.get(&l).copied()
    }
    fn first_waiter_of(&self, _l: Lock) -> Option<Pid> {
        None
    }
    fn wakes_after_release(&self, _l: Lock) -> bool {
        false
    }
    fn candidates_of(&self, _l: Lock) -> Vec<Pid> {
        Vec::new()
    }
    fn points_at(&self, _t: Pid, _l: Lock) -> bool {
        false
    }
    fn dsq_insert_vtime(&mut self, t: Pid, cpu: Cpu, _: Reach, _key: u64, _slice_ns: u64) {
        self.queued.insert(t, cpu);
    }
    fn dsq_head(&self, _cpu: Cpu, _: Reach) -> Option<(u64, Pid)> {
        None
    }
    fn dsq_move_task(&mut self, t: Pid, _from: Cpu, _: Reach, _cpu: Cpu, _slice_ns: u64) -> Moved {
        match self.queued.remove(&t) {
            Some(_) => Moved::Moved,
            None => Moved::Lost,
        }
    }
    fn dsq_move_to_local(&mut self, _from: Cpu, _: Reach, _cpu: Cpu) -> bool {
        false
    }
    fn set_slice(&mut self, _t: Pid, _ns: u64) {}
    fn start_hrtick(&mut self, _: Cpu, _: u64) {}
    fn kick(&mut self, _cpu: Cpu, _kind: Kick) {}
}

const CPU: Cpu = 0;

/// `t` comes into being and goes to sleep, on `lock` if one is named.
fn sleep(policy: &mut CoreC, kernel: &mut Still, t: Pid, lock: Option<(Lock, Pid)>) {
    policy.enable(kernel, t);
    policy.runnable(kernel, t, EnqFlags::default());
    if let Some((lock, owner)) = lock {
        kernel.blocked_on.insert(t, lock);
        kernel.owners.insert(lock, owner);
    }
    policy.quiescent(kernel, t, DeqFlags { sleep: true });
}

fn queue(policy: &mut CoreC, kernel: &mut Still, t: Pid) {
    policy.enable(kernel, t);
    policy.runnable(kernel, t, EnqFlags::default());
    policy.enqueue(kernel, t, CPU, EnqFlags::default());
}

/// Instructions of `work`, run by a child that is stepped through.
fn instructions(work: impl FnOnce()) -> u64 {
    let stepped = |work: Box<dyn FnOnce() + '_>| -> u64 {
        // SAFETY: the child runs `work`, which takes no lock that another thread may hold but
        // the allocator's, and leaves without unwinding or running exit handlers.
        match unsafe { libc::fork() } {
            // SAFETY: as above; numbers only.
            0 => unsafe {
                libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
                libc::raise(libc::SIGSTOP);
                work();
                libc::raise(libc::SIGSTOP);
                libc::_exit(0)
            },
            child => step_through(child),
        }
    };
    stepped(Box::new(work)) - stepped(Box::new(|| ()))
}

/// Steps `child` from its first stop to its second, then lets it end.
fn step_through(child: libc::pid_t) -> u64 {
    let wait = || {
        let mut status = 0;
        // SAFETY: status is valid for the write.
        let waited = unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(waited, child, "waitpid");
        status
    };
    let resume = |request| {
        // SAFETY: child is stopped and traced by us.
        let ret = unsafe { libc::ptrace(request, child, 0, 0) };
        assert_eq!(ret, 0, "ptrace: {}", std::io::Error::last_os_error());
    };
    let stopped = |status| libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP;
    assert!(stopped(wait()), "the child could not be traced");
    let mut steps = 0;
    loop {
        resume(libc::PTRACE_SINGLESTEP);
        let status = wait();
        assert!(libc::WIFSTOPPED(status), "the child ended: {status:#x}");
        if stopped(status) {
            break;
        }
        steps += 1;
    }
    resume(libc::PTRACE_CONT);
    wait();
    steps
}

/// What a pick costs that walks from waiter 1 over `depth` locks to a queued owner.
fn pick_at_depth(depth: u32) -> u64 {
    let mut kernel = Still::default();
    let mut policy = CoreC::new(&Config::new(1));
    queue(&mut policy, &mut kernel, depth + 1);
    // the donor first, so that its key is the earliest
    for t in 1..=depth {
        sleep(
            &mut policy,
            &mut kernel,
            t,
            Some((u64::from(t) << 8, t + 1)),
        );
    }
    if depth > abi::HOPS_LIMIT {
        // as the agent does for a walk that was given up at waiter 17
        let hint = abi::wait_hint {
            wait_seq: 1 << 40,
            to_wait_seq: 1 << 40,
            expires_ns: u64::MAX,
            hint_seq: 1,
            to_pid: depth,
            kind: abi::hint_kind_HINT_SKIP,
            pid: abi::HOPS_LIMIT + 1,
            pad: 0,
        };
        policy.set_wait_hint(abi::HOPS_LIMIT + 1, hint);
    }
    let count = instructions(|| policy.dispatch(&mut kernel, CPU, None));
    policy.dispatch(&mut kernel, CPU, None);
    let donations = policy.stat(abi::proxy_stat_STAT_DONATION);
    assert_eq!(donations, 1, "depth {depth}: the walk did not arrive");
    count
}

#[test]
fn a_pick_costs_no_more_than_in_proportion_to_depth() {
    let costs = [1, 2, 4, 8, 16, 64].map(|depth| (depth, pick_at_depth(depth)));
    for (depth, count) in costs {
        println!("pick over {depth} locks: {count} instructions");
    }
    for (shallow, deep) in costs.iter().zip(&costs[1..]) {
        let times = f64::from(deep.0) / f64::from(shallow.0);
        assert!(
            deep.1 as f64 <= shallow.1 as f64 * times,
            "{shallow:?} {deep:?}"
        );
    }
    let per_lock =
        |a: usize, b: usize| (costs[b].1 - costs[a].1) as f64 / f64::from(costs[b].0 - costs[a].0);
    assert!(
        per_lock(3, 4) <= 1.2 * per_lock(2, 3),
        "each lock costs the same"
    );
}

/// One more waiter on a lock of `waiters`, the wakeup of one in the middle, and a pick.
fn events_beside(waiters: u32) -> [u64; 3] {
    let mut kernel = Still::default();
    let mut policy = CoreC::new(&Config::new(1));
    const LOCK: Lock = 0x100;
    let owner = waiters + 2;
    sleep(&mut policy, &mut kernel, owner, None);
    for t in 1..=waiters {
        sleep(&mut policy, &mut kernel, t, Some((LOCK, owner)));
    }
    assert_eq!(policy.queue_length(CPU), waiters);
    let late = waiters + 1;
    let block = instructions(|| sleep(&mut policy, &mut kernel, late, Some((LOCK, owner))));
    let middle = waiters / 2;
    let wake = instructions(|| policy.runnable(&mut kernel, middle, EnqFlags::default()));
    let pick = instructions(|| policy.dispatch(&mut kernel, CPU, None));
    [block, wake, pick]
}

#[test]
fn an_event_costs_no_more_than_the_logarithm_of_the_waiters() {
    let few = events_beside(10);
    let many = events_beside(1000);
    for (nr, what) in ["block", "wake", "pick"].into_iter().enumerate() {
        println!(
            "{what} beside 10 / 1000 waiters: {} / {} instructions",
            few[nr], many[nr]
        );
        // log2(1000) is three times log2(10)
        assert!(many[nr] <= 3 * few[nr], "{what}: {few:?} {many:?}");
    }
}

/// A machine of `cpus` in domains of `domain_cpus`, on which CPU 0 goes idle: what its pick costs
/// when nothing waits anywhere, and when a task waits on the CPU of that number.
fn going_idle(cpus: u32, domain_cpus: u32, work_on: Option<Cpu>) -> u64 {
    let topology = Topology {
        domain_cpus,
        ..Topology::default()
    };
    let mut kernel = Still::default();
    let mut policy = CoreC::new(&Config {
        domains: topology.domains(cpus),
        ..Config::new(cpus)
    });
    if let Some(cpu) = work_on {
        kernel.cpu = cpu;
        kernel.free = true;
        let selected = EnqFlags {
            wakeup: true,
            cpu_selected: true,
            ..EnqFlags::default()
        };
        policy.enable(&mut kernel, 1);
        policy.runnable(&mut kernel, 1, selected);
        policy.enqueue(&mut kernel, 1, cpu, selected);
    }
    instructions(|| policy.dispatch(&mut kernel, CPU, None))
}

#[test]
fn going_idle_costs_the_same_on_any_machine() {
    let same = |what: &str, small: u64, large: u64| {
        println!("a pick that finds {what}: {small} instructions on 4 CPUs, {large} on 64");
        assert!(
            small.abs_diff(large) as f64 <= 0.1 * small as f64,
            "{what}: {small}, {large}"
        );
    };
    same("nothing", going_idle(4, 64, None), going_idle(64, 64, None));
    same(
        "nothing, in eight domains",
        going_idle(4, 64, None),
        going_idle(64, 8, None),
    );
    same(
        "work nearby",
        going_idle(4, 64, Some(3)),
        going_idle(64, 64, Some(63)),
    );
    same(
        "work far away",
        going_idle(4, 2, Some(3)),
        going_idle(64, 8, Some(63)),
    );
}

/// Queues of pinned tasks cost others nothing, however long they are.
#[test]
fn pinned_tasks_are_not_looked_at() {
    let beside = |pinned: Pid| {
        let mut kernel = Still {
            cpu: 1,
            ..Still::default()
        };
        let mut policy = CoreC::new(&Config::new(4));
        for t in 1..=pinned {
            policy.enable(&mut kernel, t);
            policy.runnable(&mut kernel, t, EnqFlags::default());
            policy.enqueue(&mut kernel, t, 1, EnqFlags::default());
        }
        instructions(|| policy.dispatch(&mut kernel, CPU, None))
    };
    // what a process does for the first time costs more
    let least = |pinned| (0..3).map(|_| beside(pinned)).min().unwrap_or(0);
    let (none, many) = (least(0), least(1500));
    println!("a pick beside 0 / 1500 pinned tasks: {none} / {many} instructions");
    assert!(
        none.abs_diff(many) as f64 <= 0.02 * none as f64,
        "{none}, {many}"
    );
}
