// SPDX-License-Identifier: GPL-2.0-only
//! Inversion time of `bpf/core`, which reads clocks when a wait begins and ends, against
//! the obvious: who is at the end of each waiter's chain, looked at after every step.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::engine::policy::CoreC;
use crate::files;
use crate::generate;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use scx_proxy::model::kernel::{State, World, lock_index};
use scx_proxy::model::policy::{Config, Kernel, Pid};
use scx_proxy::model::program::{Class, LockKind, Setup};
use scx_proxy::model::sim::Sim;

use crate::policies::Shared;

/// What a slot's mark may round off, a few times.
const EQUAL_NS: u64 = 1000;
const PROGRAMS: u32 = 300;

/// Whether the end of the chain of `waiter` could run now, and does not; `None` in a deadlock, or
/// behind a lock that names no owner: who owns that the core does not know.
fn is_behind(world: &World, waiter: Pid) -> Option<bool> {
    let mut at = waiter;
    for _ in 0..world.pids().count() {
        let Some(lock) = world.blocked_on(at) else {
            break;
        };
        if world.locks[lock_index(lock)].kind == LockKind::Unnamed {
            return None;
        }
        let releaser = || world.releaser(lock_index(lock));
        let first = || world.first_waiter_of(lock).filter(|first| *first != at);
        let Some(next) = world.owner_of(lock).or_else(releaser).or_else(first) else {
            return Some(false);
        };
        at = next;
    }
    let task = world.task(at);
    let fair = matches!(task.class, Class::Fair { .. });
    world
        .blocked_on(at)
        .is_none()
        .then_some(at != waiter && task.state == State::Runnable && fair && !world.core_runs(at))
}

/// Fair ones; of a real-time task the core learns only when it runs that its wait is over.
fn waiters(world: &World) -> impl Iterator<Item = Pid> + '_ {
    let fair = |t: &Pid| matches!(world.task(*t).class, Class::Fair { .. });
    let blocked = |t: &Pid| matches!(world.task(*t).state, State::Blocked(_));
    world.pids().filter(fair).filter(blocked)
}

/// A wait that goes on.
#[derive(Clone, Copy, Debug, Default)]
struct Wait {
    /// What the core had for the waiter before.
    delay_ns: u64,
    obvious_ns: u64,
    behind: bool,
    /// It was in a cycle at some time, or behind one, or nobody knows: who is at the end of its chain.
    deadlocked: bool,
}

/// Time that waits were behind, by both; of those in no deadlock.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    core_ns: u64,
    obvious_ns: u64,
    waits: u64,
    /// Waits for which both say the same.
    equal: u64,
    deadlocked: u64,
}

impl Sums {
    fn add(&mut self, wait: Wait, core_ns: u64) {
        if wait.deadlocked {
            self.deadlocked += 1;
            return;
        }
        self.core_ns += core_ns;
        self.obvious_ns += wait.obvious_ns;
        self.waits += 1;
        self.equal += u64::from(wait.obvious_ns.abs_diff(core_ns) <= EQUAL_NS);
    }

    /// By how much the core's sum is off.
    fn off(&self) -> f64 {
        self.core_ns as f64 / self.obvious_ns.max(1) as f64 - 1.0
    }
}

/// Runs `setup`; sums over all waits, as they stood last.
fn measure(setup: &Setup, donate: bool, sums: &mut Sums) {
    let config = Config {
        donate,
        ..setup.config()
    };
    let core = Rc::new(RefCell::new(CoreC::new(&config)));
    let mut sim = Sim::new(setup, Box::new(Shared(core.clone())));
    let mut last = 0;
    let mut waits: BTreeMap<Pid, Wait> = BTreeMap::new();
    while let Some(step) = sim.step() {
        let elapsed = step.now - last;
        last = step.now;
        let now: Vec<Pid> = waiters(&sim.world).collect();
        for wait in waits.values_mut().filter(|wait| wait.behind) {
            wait.obvious_ns += elapsed;
        }
        waits.retain(|pid, wait| {
            let goes_on = now.contains(pid);
            if !goes_on {
                let core_ns = core.borrow().delay_ns(*pid) - wait.delay_ns;
                sums.add(*wait, core_ns);
            }
            goes_on
        });
        for pid in now {
            let delay_ns = core.borrow().delay_ns(pid);
            let wait = waits.entry(pid).or_insert(Wait {
                delay_ns,
                ..Wait::default()
            });
            let behind = is_behind(&sim.world, pid);
            wait.behind = behind == Some(true);
            wait.deadlocked |= behind.is_none();
        }
    }
}

/// Random programs steal locks, are interrupted, and wait for locks that nobody is known to
/// own. Without a wait that begins or ends there the core does not see a lock change hands. Such
/// waits are few; but some are long, and with donations they are a good part of the sum.
#[test]
fn core_agrees_with_the_obvious_on_programs_by_chance() {
    for (donate, off_max) in [(false, 0.05), (true, 0.5)] {
        let mut sums = Sums::default();
        let mut runner = TestRunner::deterministic();
        for _ in 0..PROGRAMS {
            let tree = generate::setup().new_tree(&mut runner).expect("a program");
            measure(&tree.current(), donate, &mut sums);
        }
        println!(
            "donate {donate}: {sums:?}, off by {:.1} %",
            sums.off() * 100.0
        );
        assert!(sums.waits > 1000 && sums.obvious_ns > 0, "{sums:?}");
        assert!(sums.off().abs() < off_max, "donate {donate}: {sums:?}");
        assert!(
            sums.equal * 100 > sums.waits * 97,
            "donate {donate}: {sums:?}"
        );
    }
}

#[test]
fn core_agrees_with_the_obvious_on_every_scenario() {
    for path in files::all() {
        let scenario = files::read(&path).unwrap_or_else(|e| panic!("{e}"));
        let setup = scenario.setup().expect("read() has tried");
        for donate in [false, true] {
            let mut sums = Sums::default();
            measure(&setup, donate, &mut sums);
            assert_eq!(sums.equal, sums.waits, "{}: {sums:?}", path.display());
        }
    }
}
