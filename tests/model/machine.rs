// SPDX-License-Identifier: GPL-2.0-only
//! The machine itself: what the policies are judged by must be right.

use scx_proxy::model::kernel::{Call, State};
use scx_proxy::model::key;
use scx_proxy::model::policy::{Config, Pid, Topology};
use scx_proxy::model::program::{Class, External, LockSpec, Op, Setup, TaskSpec};
use scx_proxy::model::reference::Reference;
use scx_proxy::model::sim::Sim;
use scx_proxy::model::verdict::{Ran, run};

const MS: u64 = 1_000_000;

#[test]
fn keys_are_compared_across_the_wrap() {
    assert!(key::before(u64::MAX, 3));
    assert_eq!(key::floor(0, 10, 3), 7);
    assert_eq!(key::floor(8, 10, 3), 8);
    assert_eq!(key::rebase(5, 10, 100), 95);
    assert_eq!(key::cost(3_000_000, 15_u32 << 10), 204_800_000);
    assert_eq!(key::earlier(Some(5), None), Some(5));
    assert_eq!(key::earlier(None, Some(5)), Some(5));
    assert_eq!(key::earlier(Some(6), Some(5)), Some(5));
    assert_eq!(key::ceiling(10_000, 0, 1000, 1024 << 10), 1000);
}

/// A task without a nice value of its own, on CPUs `cpus`.
fn task(cpus: u64, start_ns: u64, program: Vec<Op>, repeat: bool) -> TaskSpec {
    let class = Class::Fair { nice: 0 };
    let start_cpu = cpus.trailing_zeros();
    TaskSpec {
        class,
        group: 0,
        cpus,
        start_ns,
        start_cpu,
        program,
        repeat,
    }
}

fn setup(nr_cpus: u32, tasks: Vec<TaskSpec>, handoff: bool) -> Setup {
    Setup {
        nr_cpus,
        topology: Topology::default(),
        groups: Vec::new(),
        tasks,
        locks: vec![LockSpec {
            handoff,
            ..LockSpec::default()
        }],
        externals: Vec::new(),
        until_ns: 200 * MS,
        seed: 0,
        kick_delay_ns: 0,
        wake_delay_ns: 0,
        tick_delay_ns: 0,
        hrtick: true,
    }
}

fn ran(setup: &Setup) -> Ran {
    let policy = Box::new(Reference::new(Config::new(setup.nr_cpus)));
    run(setup, policy).expect("no invariant is broken")
}

fn section(ns: u64) -> Vec<Op> {
    vec![Op::Lock(0), Op::Run(ns), Op::Unlock(0)]
}

/// When task `t` had the lock that it first waited for.
fn acquired_at(ran: &Ran, t: Pid) -> u64 {
    let wait = ran.observed.waits.iter().find(|w| w.task == t);
    let wait = wait.expect("it waited");
    assert!(wait.acquired, "{wait:?}");
    wait.ended.expect("it has the lock")
}

#[test]
fn a_free_lock_is_stolen_once_then_handed_over() {
    // the first takes the lock again before the waiter, which is woken, can run
    let hasty = task(1, 0, vec![section(MS); 5].concat(), false);
    let waiter = task(2, MS / 2, section(MS), false);
    let ran = ran(&setup(2, vec![hasty, waiter], false));
    assert_eq!(acquired_at(&ran, 2), 2 * MS);
}

#[test]
fn a_handoff_names_the_first_waiter() {
    let owner = task(1, 0, section(2 * MS), false);
    let first = task(2, MS, section(2 * MS), false);
    let second = task(4, MS + 1, section(2 * MS), false);
    let ran = ran(&setup(3, vec![owner, first, second], true));
    assert_eq!(acquired_at(&ran, 2), 2 * MS);
    assert_eq!(acquired_at(&ran, 3), 4 * MS);
}

#[test]
fn a_signal_takes_a_waiter_out_of_the_line() {
    let owner = task(1, 0, section(20 * MS), false);
    let killed = task(2, MS, section(MS), false);
    let next = task(4, 2 * MS, section(MS), false);
    let mut setup = setup(3, vec![owner, killed, next], false);
    setup.externals = vec![(5 * MS, External::Signal(2))];
    let ran = ran(&setup);
    let wait = ran.observed.waits[0];
    assert_eq!(
        (wait.task, wait.ended, wait.acquired),
        (2, Some(5 * MS), false)
    );
    assert_eq!(acquired_at(&ran, 3), 20 * MS);
    assert!(ran.sim.world.locks[0].waiters.is_empty());
}

#[test]
fn a_real_time_task_runs_at_once_and_the_other_goes_on_after_it() {
    let fair = task(1, 0, vec![Op::Run(10 * MS)], false);
    let mut rt = task(1, 3 * MS, vec![Op::Run(5 * MS)], false);
    rt.class = Class::Rt { prio: 1 };
    let setup = setup(1, vec![fair, rt], false);
    let mut sim = Sim::new(&setup, Box::new(Reference::new(Config::new(1))));
    let mut ends = [0; 2];
    while sim.step().is_some() {
        for (t, end) in [1, 2].into_iter().zip(&mut ends) {
            if *end == 0 && sim.world.task(t).state == State::Dead {
                *end = sim.world.now;
            }
        }
    }
    assert_eq!(ends, [15 * MS, 8 * MS]);
}

/// A pick: dispatch, then the previous task stops and is queued, then the next runs.
/// A sleep: stopping, quiescent, then the pick.
#[test]
fn callbacks_come_in_the_order_of_the_kernel() {
    let tasks = [section(3 * MS), section(5 * MS), vec![Op::Run(7 * MS)]];
    let tasks = tasks.map(|program| task(1, 0, program, true));
    let setup = setup(1, tasks.to_vec(), false);
    let mut sim = Sim::new(&setup, Box::new(Reference::new(Config::new(1))));
    let (mut switches, mut sleeps) = (0, 0);
    while sim.step().is_some() {
        let at = |f: &dyn Fn(&Call) -> bool| sim.world.calls.iter().position(f);
        let dispatch = at(&|c| matches!(c, Call::Dispatch(..)));
        let running = at(&|c| matches!(c, Call::Running(..)));
        if let Some(stopping) = at(&|c| matches!(c, Call::Stopping(_, true))) {
            let enqueue = at(&|c| matches!(c, Call::Enqueue(..)));
            assert!(dispatch < Some(stopping) && Some(stopping) < enqueue && enqueue < running);
            switches += 1;
        }
        if let Some(stopping) = at(&|c| matches!(c, Call::Stopping(_, false))) {
            let quiescent = at(&|c| matches!(c, Call::Quiescent(_, flags) if flags.sleep));
            assert!(Some(stopping) < quiescent && quiescent < dispatch);
            sleeps += 1;
        }
    }
    assert!(switches > 10 && sleeps > 10, "{switches} {sleeps}");
}

#[test]
fn cpu_time_is_neither_lost_nor_made() {
    let tasks = [1, 2, 3].map(|_| task(3, 0, vec![Op::Run(9 * MS)], true));
    let setup = setup(2, tasks.to_vec(), false);
    let ran = ran(&setup);
    let world = &ran.sim.world;
    let used: u64 = world.pids().map(|t| world.exec_now(t)).sum();
    assert_eq!(used, 2 * world.now, "both CPUs were busy all the time");
}
