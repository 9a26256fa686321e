// SPDX-License-Identifier: GPL-2.0-only
//! Random machines and programs. Everything shrinks: tasks, events, operations.

use proptest::collection::vec;
use proptest::prelude::*;
use scx_proxy::model::policy::{Limit, Topology};
use scx_proxy::model::program::{
    Class, CpuMask, External, GroupSpec, LockKind, LockSpec, Op, PointedBy, Setup, TaskSpec,
    mask_of,
};

/// Longest run and sleep of a program.
const LONG_NS: u64 = 12_000_000;

/// Timers are no finer.
const SLEEP_MIN_NS: u64 = 50_000;

/// The size of a machine, to which its programs must keep.
#[derive(Clone, Copy, Debug)]
struct Size {
    cpus: u32,
    tasks: u32,
    locks: usize,
    groups: u32,
}

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 1_000..200_000u64, 3 => 200_000..3_000_000u64, 1 => 3_000_000..LONG_NS]
}

fn mask(size: Size) -> impl Strategy<Value = CpuMask> {
    let all = mask_of(size.cpus);
    prop_oneof![
        2 => Just(all),
        2 => (0..size.cpus).prop_map(|cpu| 1 << cpu),
        1 => 1..=all,
    ]
}

fn nice() -> impl Strategy<Value = i32> {
    prop_oneof![3 => Just(0), 1 => Just(19), 1 => Just(-10), 1 => -20..20i32]
}

fn around(before: Op, inside: Vec<Op>, after: Op) -> Vec<Op> {
    let mut ops = vec![before];
    ops.extend(inside);
    ops.push(after);
    ops
}

/// One thing that belongs together: a critical section is left again, mostly.
fn piece(size: Size) -> impl Strategy<Value = Vec<Op>> {
    let leaf = prop_oneof![
        8 => time().prop_map(|ns| vec![Op::Run(ns)]),
        2 => time().prop_map(|ns| vec![Op::Sleep(ns + SLEEP_MIN_NS)]),
        1 => mask(size).prop_map(|m| vec![Op::SetAffinity(m)]),
        1 => nice().prop_map(|n| vec![Op::SetNice(n)]),
        1 => (0..size.locks).prop_map(|l| vec![Op::Unlock(l)]),
        1 => Just(vec![Op::Yield]),
        1 => (1..=size.tasks).prop_map(|t| vec![Op::YieldTo(t)]),
        1 => (1..=size.tasks, 0..20_000_000u64).prop_map(|(t, ns)| vec![Op::CoreRuns(t, ns)]),
    ];
    leaf.prop_recursive(3, 12, 4, move |inner| {
        let inside = vec(inner, 1..4).prop_map(|pieces| pieces.concat());
        prop_oneof![
            6 => (0..size.locks, inside.clone())
                .prop_map(|(l, ops)| around(Op::Lock(l), ops, Op::Unlock(l))),
            2 => (0..size.locks, inside.clone())
                .prop_map(|(l, ops)| around(Op::Share(l), ops, Op::Unlock(l))),
            1 => inside.prop_map(|ops| around(Op::MigrateDisable, ops, Op::MigrateEnable)),
        ]
    })
}

/// Messages: one wakes another, and waits for an answer, perhaps several times.
fn notice(size: Size) -> impl Strategy<Value = Vec<Op>> {
    let once = (1..=size.tasks).prop_map(|t| vec![Op::Notify(t)]);
    let often = (1..=size.tasks, 1..8usize)
        .prop_map(|(t, times)| vec![vec![Op::Run(3_000), Op::Notify(t), Op::Wait]; times].concat());
    prop_oneof![1 => once, 2 => often]
}

fn class() -> impl Strategy<Value = Class> {
    prop_oneof![
        12 => nice().prop_map(|nice| Class::Fair { nice }),
        1 => (1..100u32).prop_map(|prio| Class::Rt { prio }),
        1 => Just(Class::Rt { prio: 200 }),
    ]
}

/// A task of a higher class that never sleeps would be all that runs.
fn with_rest(mut task: TaskSpec) -> TaskSpec {
    if matches!(task.class, Class::Rt { .. }) {
        for op in &mut task.program {
            if let Op::Run(ns) | Op::CoreRuns(_, ns) = op {
                *ns = 1 + *ns / 8;
            }
        }
        task.program.push(Op::Sleep(5_000_000));
    }
    task
}

fn task(size: Size) -> impl Strategy<Value = TaskSpec> {
    let program = vec(prop_oneof![12 => piece(size), 1 => notice(size)], 1..6);
    let program = program.prop_map(|pieces| pieces.concat());
    let start = (0..20_000_000u64, any::<prop::sample::Index>());
    let repeat = prop::bool::weighted(0.9);
    (class(), 0..=size.groups, mask(size), start, program, repeat).prop_map(
        |(class, group, cpus, (start_ns, at), program, repeat)| {
            let usable: Vec<u32> = (0..64).filter(|cpu| cpus >> cpu & 1 == 1).collect();
            let start_cpu = *at.get(&usable);
            with_rest(TaskSpec {
                class,
                group,
                cpus,
                start_ns,
                start_cpu,
                program,
                repeat,
            })
        },
    )
}

fn external(size: Size) -> impl Strategy<Value = External> {
    let task = 1..=size.tasks;
    let cpu = 0..size.cpus;
    prop_oneof![
        4 => task.clone().prop_map(External::Signal),
        2 => (task.clone(), mask(size)).prop_map(|(t, m)| External::Affinity(t, m)),
        1 => (task.clone(), nice()).prop_map(|(t, n)| External::Nice(t, n)),
        1 => (task, 0..=size.groups).prop_map(|(t, g)| External::Move(t, g)),
        1 => (1..=size.groups.max(1), weight()).prop_map(move |(g, w)| {
            if size.groups == 0 { External::Online(0) } else { External::Weight(g, w) }
        }),
        1 => cpu.clone().prop_map(External::Offline),
        2 => cpu.prop_map(External::Online),
    ]
}

fn weight() -> impl Strategy<Value = u32> {
    prop_oneof![2 => Just(100), 1 => Just(1), 1 => 1..=10_000u32]
}

/// Mostly none; else from 5 % of a CPU to two of them.
fn limit() -> impl Strategy<Value = Option<Limit>> {
    let period = prop_oneof![Just(10_000_000u64), Just(100_000_000u64)];
    let burst = prop_oneof![3 => Just(0u64), 1 => 1..50_000_000u64];
    let limit = (period, 5..200u64, burst).prop_map(|(period_ns, percent, burst_ns)| Limit {
        quota_ns: period_ns / 100 * percent,
        period_ns,
        burst_ns,
    });
    prop_oneof![2 => Just(None), 1 => limit.prop_map(Some)]
}

/// A group's parent is the root, or any that comes before it.
fn groups(size: Size) -> impl Strategy<Value = Vec<GroupSpec>> {
    let group = (any::<prop::sample::Index>(), weight(), limit());
    type Group = (prop::sample::Index, u32, Option<Limit>);
    vec(group, size.groups as usize).prop_map(|groups| {
        let spec = |(nr, (parent, weight, limit)): (usize, Group)| GroupSpec {
            parent: parent.index(nr + 1) as u32,
            weight,
            limit,
        };
        groups.into_iter().enumerate().map(spec).collect()
    })
}

fn topology() -> impl Strategy<Value = Topology> {
    let domain_cpus = prop_oneof![2 => Just(64), 2 => 1..=4u32];
    let big_cpus = prop_oneof![2 => Just(0), 1 => 1..=3u32];
    // the boot CPU is never one of them: from three CPUs down it may come to none
    let nohz_full_cpus = prop_oneof![2 => Just(0), 1 => 1..=2u32];
    let of = (
        domain_cpus,
        any::<bool>(),
        1..=3u32,
        big_cpus,
        nohz_full_cpus,
    );
    of.prop_map(
        |(domain_cpus, smt, node_domains, big_cpus, nohz_full_cpus)| Topology {
            domain_cpus,
            smt,
            node_domains,
            big_cpus,
            nohz_full_cpus,
        },
    )
}

fn setup_of(size: Size) -> impl Strategy<Value = Setup> {
    let kind = prop_oneof![
        3 => Just(LockKind::Mutex),
        2 => prop::sample::select(LockKind::ALL.to_vec()),
    ];
    let pointed_by = prop::sample::select(PointedBy::ALL.to_vec());
    let release_ns = prop_oneof![Just(0), 1..20_000_000u64];
    let lock = (kind, pointed_by, prop::bool::weighted(0.2), release_ns);
    let lock = lock.prop_map(|(kind, pointed_by, handoff, release_ns)| LockSpec {
        kind,
        pointed_by,
        handoff,
        release_ns,
    });
    let delay = || prop_oneof![Just(0), 1..20_000u64];
    (
        groups(size),
        vec(task(size), size.tasks as usize),
        vec(lock, size.locks),
        vec((0..300_000_000u64, external(size)), 0..12),
        any::<u64>(),
        (
            delay(),
            delay(),
            prop_oneof![Just(0), 0..20_000_000u64],
            50_000_000..400_000_000u64,
        ),
        topology(),
    )
        .prop_map(
            move |(
                groups,
                tasks,
                locks,
                externals,
                seed,
                (kick, wake, tick, until_ns),
                topology,
            )| {
                Setup {
                    nr_cpus: size.cpus,
                    topology,
                    groups,
                    tasks,
                    locks,
                    externals,
                    until_ns,
                    seed,
                    kick_delay_ns: kick,
                    wake_delay_ns: wake,
                    tick_delay_ns: tick,
                    hrtick: seed % 4 > 0,
                }
            },
        )
}

/// A whole run: 2 to 12 tasks, 1 to 6 CPUs, 1 to 6 locks, up to 5 cgroups.
pub fn setup() -> impl Strategy<Value = Setup> {
    let groups = prop_oneof![1 => Just(0), 1 => 1..=5u32];
    (1..=6u32, 2..=12u32, 1..=6usize, groups).prop_flat_map(|(cpus, tasks, locks, groups)| {
        setup_of(Size {
            cpus,
            tasks,
            locks,
            groups,
        })
    })
}
