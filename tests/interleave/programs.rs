// SPDX-License-Identifier: GPL-2.0-only
//! What a few CPUs do at the same time, each program once.

use crate::machine::{Cpu, Op, Setup};
use Op::*;

/// Colliding names: they have the same slot (`lock_slot_of_lock()`).
fn same_slot(of: u64) -> u64 {
    let slot = |lock: u64| {
        lock.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - scx_proxy::abi::LOCK_SLOT_BITS)
    };
    (1..)
        .map(|n| of + n * 8)
        .find(|&lock| slot(lock) == slot(of))
        .expect("a number")
}

pub struct Plan {
    pub name: &'static str,
    pub setup: Setup,
    /// Before: one CPU after the other.
    pub before: Vec<(Cpu, Op)>,
    /// At the same time.
    pub cpus: Vec<Vec<Op>>,
    /// Preemptions by default, and in the long campaign.
    pub preemptions: [u32; 2],
}

const L0: u64 = 0x1000;
const L1: u64 = 0x1040;
const ALL: u32 = 0b111;

fn setup(cpus: usize, tasks: &[(i32, u32)]) -> Setup {
    Setup {
        cpus,
        tasks: tasks.iter().map(|&(nice, mask)| (nice, mask, 0)).collect(),
        locks: vec![L0, L1],
        groups: Vec::new(),
    }
}

fn plan(
    name: &'static str,
    setup: Setup,
    before: &[(Cpu, Op)],
    cpus: &[&[Op]],
    preemptions: [u32; 2],
) -> Plan {
    Plan {
        name,
        setup,
        before: before.to_vec(),
        cpus: cpus.iter().map(|ops| ops.to_vec()).collect(),
        preemptions,
    }
}

/// Owner 1 has lock 0 and is queued on CPU 1 behind hog 3, but may run on CPU 0 as well, where
/// task 2 runs, about to wait for it.
const QUEUED: &[(Cpu, Op)] = &[
    (1, Wake(1)),
    (1, Pick),
    (1, Take(0)),
    (0, Wake(2)),
    (0, Pick),
    (1, Wake(3)),
    (0, Run(4_000_000)),
    (1, Pick),
    (1, Affinity(1, 0b11)),
    (0, Run(1_000_000)),
];

/// Owner 1 has lock 0 and runs on CPU 1, hog 3 is queued there; task 2 runs on CPU 0.
const RUNS: &[(Cpu, Op)] = &[
    (1, Wake(1)),
    (1, Pick),
    (1, Take(0)),
    (0, Wake(2)),
    (0, Pick),
    (1, Wake(3)),
    (0, Run(2_000_000)),
];

const TWO: &[(i32, u32)] = &[(0, 0b10), (0, 0b01), (0, 0b10)];

fn with(before: &[(Cpu, Op)], more: &[(Cpu, Op)]) -> Vec<(Cpu, Op)> {
    [before, more].concat()
}

fn groups(of: Setup, groups: &[(u32, u64)], tasks: &[u32]) -> Setup {
    let mut setup = of;
    setup.groups = groups.to_vec();
    for (task, &group) in setup.tasks.iter_mut().zip(tasks) {
        task.2 = group;
    }
    setup
}

/// A donor, its owner, and one who disturbs.
#[rustfmt::skip] // a line is a row of a table
fn donor_and_owner() -> Vec<Plan> {
    let two = || setup(2, TWO);
    let attached = with(RUNS, &[(0, Block(0)), (0, Run(1_000_000))]);
    vec![
        plan("the owner releases, as its waiter is picked", two(), RUNS, &[&[Block(0), Pick], &[Unlock(0), Pick]], [3, 4]),
        plan("the owner sleeps, as a donor is attached to it", two(), RUNS, &[&[Block(0)], &[Sleep, Wake(1), Pick]], [3, 4]),
        plan("the owner is preempted, as a donor is attached to it", two(), RUNS, &[&[Block(0)], &[Pick, Pick]], [3, 4]),
        plan("the owner releases and exits, as a donor is attached to it", two(), RUNS, &[&[Block(0), Pick], &[Unlock(0), Exit]], [3, 4]),
        plan("the owner stops, as its attached donor is killed", two(), &attached, &[&[Signal(2), Pick, Retry, Exit], &[Pick, Pick]], [2, 3]),
        plan("a donor is killed, as it is picked", two(), QUEUED, &[&[Block(0), Pick, Retry, Exit], &[Signal(2), Pick]], [2, 3]),
        plan("a donor waits anew under a mover's hands", two(), &attached, &[&[Signal(2), Pick, Retry, Block(0)], &[Pick]], [2, 4]),
        plan("a donor waits for something else under a mover's hands",
            setup(2, &[(0, 0b10), (0, 0b01), (0, 0b10), (0, 0b01)]),
            &with(&[(0, Wake(4)), (0, Pick), (0, Take(1)), (0, Sleep), (0, Class(4, 50))], &attached),
            &[&[Signal(2), Pick, Retry, Block(1)], &[Pick]], [2, 4]),
        plan("a donor waits for something else, as its owner's run is charged",
            setup(2, &[(0, 0b01), (0, 0b10), (0, 0b01), (0, 0b10)]),
            &[
                (1, Wake(4)), (1, Pick), (1, Take(1)), (1, Sleep), (1, Class(4, 50)),
                (0, Wake(1)), (0, Pick), (0, Take(0)), (1, Wake(2)), (1, Pick), (0, Wake(3)), (0, Run(4_000_000)),
                (0, Pick), (1, Block(0)), (0, Run(4_000_000)), (0, Pick), (0, Run(1_000_000)),
            ],
            &[&[Pick], &[Signal(2), Pick, Retry, Block(1)]], [2, 4]),
        plan("a task is queued, as another CPU takes the last one",
            setup(2, &[(0, 0b01), (0, 0b10), (0, 0b10), (0, 0b10)]),
            &[
                (0, Wake(1)), (0, Pick), (1, Wake(3)), (1, Pick), (1, Wake(2)), (1, Wake(4)), (0, Run(4_000_000)),
                (1, Affinity(2, 0b11)), (1, Affinity(3, 0b11)),
            ],
            &[&[Sleep], &[Pick]], [3, 4]),
        plan("owner and donor are reniced, as the donor is picked", two(), QUEUED, &[&[Block(0), Pick], &[Nice(1, 10), Nice(2, 10)]], [2, 4]),
        plan("the owner may not run here any more, as it is taken here", two(), QUEUED, &[&[Block(0), Pick], &[Affinity(1, 0b10), Pick]], [2, 3]),
        plan("the waiter becomes real-time, then the owner", two(), QUEUED, &[&[Block(0), Pick], &[Class(2, 50), Class(1, 50)]], [2, 3]),
        plan("the owner leaves for another class and comes back, as a donor is attached to it", two(), RUNS, &[&[Block(0)], &[Class(1, 50), Class(1, 0)]], [3, 4]),
        plan("an idle CPU steals the owner that a donor takes",
            setup(2, &[(0, 0b10), (0, 0b10), (0, 0b01)]),
            &[
                (1, Wake(1)), (1, Pick), (1, Take(0)), (0, Wake(3)), (0, Pick), (1, Wake(2)), (0, Run(4_000_000)),
                (1, Pick), (1, Affinity(1, 0b11)), (0, Run(1_000_000)),
            ],
            &[&[Sleep, Wake(3), Pick], &[Block(0), Pick]], [2, 3]),
        plan("a tick looks at idle CPUs, as one goes idle with a donor", two(), RUNS, &[&[Block(0), Pick], &[Tick, Pick, Sleep, Wake(1)]], [2, 3]),
    ]
}

/// More than one donor.
#[rustfmt::skip] // a line is a row of a table
fn chains() -> Vec<Plan> {
    // 4 has lock 1 and waits for lock 0, that 1 has, who is queued on CPU 2 behind 5
    let chain = |cpus_of_owner: u32| {
        vec![
            (2, Wake(1)), (2, Pick), (2, Take(0)), (1, Wake(4)), (1, Pick), (1, Take(1)), (2, Wake(5)),
            (0, Run(4_000_000)), (2, Pick), (1, Block(0)), (0, Wake(2)), (0, Pick), (1, Wake(3)), (1, Pick),
            (2, Affinity(1, cpus_of_owner)), (0, Run(1_000_000)),
        ]
    };
    let tasks = [(0, 0b100), (0, 0b001), (0, 0b010), (0, 0b010), (0, 0b100)];
    let free = chain(ALL);
    let pinned = chain(0b100);
    // as before, but 4 has not begun to wait
    let moves = [
        (2, Wake(1)), (2, Pick), (2, Take(0)), (1, Wake(4)), (1, Pick), (1, Take(1)), (2, Wake(5)),
        (0, Run(4_000_000)), (2, Pick), (0, Wake(2)), (0, Pick), (0, Run(1_000_000)),
    ];
    let two_donors = [(0, 0b010), (0, 0b001), (0, 0b010), (0, 0b100)];
    let queued = with(QUEUED, &[(2, Wake(4)), (2, Pick), (1, Affinity(1, ALL)), (0, Run(1_000_000))]);
    vec![
        plan("two CPUs pick the same chain", setup(3, &tasks), &free, &[&[Block(1)], &[Block(1)], &[Pick]], [1, 2]),
        plan("two donors go where the end of their chain is", setup(3, &tasks), &pinned, &[&[Block(1)], &[Block(1)], &[Pick]], [1, 2]),
        plan("a chain comes along, as its middle begins to wait", setup(3, &tasks), &moves, &[&[Block(1)], &[Block(0)], &[Pick]], [1, 2]),
        plan("two donors take the same owner", setup(3, &two_donors), &queued, &[&[Block(0)], &[Pick], &[Block(0)]], [1, 2]),
        plan("a donor comes, as another one's owner releases", setup(3, &two_donors),
            &with(RUNS, &[(2, Wake(4)), (2, Pick), (0, Block(0)), (0, Run(1_000_000))]),
            &[&[Pick], &[Unlock(0), Pick], &[Block(0)]], [1, 3]),
        plan("a real-time task waits, as a fair donor is picked", setup(3, &two_donors),
            &with(&queued, &[(2, Class(4, 50)), (2, Pick)]),
            &[&[Block(0)], &[Pick], &[Block(0)]], [1, 2]),
        plan("a real-time waiter gets the lock, as it lends", setup(2, TWO), &with(RUNS, &[(0, Class(2, 50)), (0, Pick)]),
            &[&[Block(0), Pick, Retry], &[Unlock(0), Pick]], [3, 4]),
        plan("a real-time waiter is interrupted, as its context is moved", setup(2, TWO), &with(QUEUED, &[(0, Class(2, 50)), (0, Pick)]),
            &[&[Block(0), Pick, Retry], &[Pick, Signal(2)]], [2, 3]),
    ]
}

/// Cgroups.
#[rustfmt::skip] // a line is a row of a table
fn cgroups() -> Vec<Plan> {
    let shares = 1 << 20;
    let two = |tasks: &[u32]| groups(setup(2, TWO), &[(shares, 0), (shares, 0)], tasks);
    let three = groups(setup(3, &[(0, 0b010), (0, 0b001), (0, 0b010), (0, 0b100)]), &[(shares, 0), (shares, 0)], &[1, 1, 2, 2]);
    let quota = groups(setup(2, TWO), &[(shares, 5_000_000)], &[1, 0, 0]);
    vec![
        plan("a group is reweighted, as its donor takes an owner", three,
            &with(QUEUED, &[(2, Wake(4)), (2, Pick), (0, Run(20_000_000))]),
            &[&[Block(0)], &[Pick], &[Weight(1, 1 << 14), Tick]], [1, 2]),
        plan("owner and donor change their group, as the donor is picked", two(&[1, 1, 2]), QUEUED,
            &[&[Block(0), Pick], &[Group(1, 2), Group(2, 2)]], [2, 3]),
        plan("a parked owner is taken out, as its time comes", quota,
            &[
                (1, Wake(1)), (1, Pick), (1, Take(0)), (1, Affinity(1, 0b11)), (0, Wake(2)), (0, Pick),
                (0, Run(20_000_000)), (1, Tick), (0, Run(20_000_000)), (1, Tick), (0, Run(20_000_000)),
                (1, Wake(3)), (1, Pick), (0, Run(1_000_000_000)),
            ],
            &[&[Block(0), Pick], &[Timer, Pick, Pick]], [2, 3]),
    ]
}

/// Times of waits: locks 0 and 1 have the same slot.
#[rustfmt::skip] // a line is a row of a table
fn slots() -> Vec<Plan> {
    let same = |tasks: &[(i32, u32)]| Setup {
        locks: vec![L0, same_slot(L0)],
        ..setup(3, tasks)
    };
    let tasks = [(0, 0b001), (0, 0b010), (0, 0b100)];
    let run = [
        (0, Wake(1)), (0, Pick), (0, Take(0)), (0, Take(1)), (1, Wake(2)), (1, Pick), (2, Wake(3)), (2, Pick),
        (0, Run(1_000_000)),
    ];
    vec![
        plan("a slot is taken over, as its last waiter goes", same(&tasks), &with(&run, &[(1, Block(0)), (0, Run(1_000_000))]),
            &[&[Unlock(0)], &[Pick], &[Block(1)]], [2, 4]),
        plan("two locks come to the same slot", same(&tasks), &run,
            &[&[Pick], &[Block(0), Pick], &[Block(1), Pick]], [2, 3]),
        plan("two locks come to the same slot, and go", same(&tasks), &run,
            &[&[Signal(2), Signal(3)], &[Block(0), Pick, Retry], &[Block(1), Pick, Retry]], [1, 2]),
    ]
}

/// Directed yields.
#[rustfmt::skip] // a line is a row of a table
fn yields() -> Vec<Plan> {
    let two = || setup(2, TWO);
    let three = || setup(3, &[(0, 0b010), (0, 0b001), (0, 0b010), (0, 0b100)]);
    // 4 yields as well, to the same task
    let both = with(QUEUED, &[(2, Wake(4)), (2, Pick), (1, Affinity(1, ALL)), (0, Run(1_000_000))]);
    // 4 waits on CPU 0, and has the later key there
    let beside = [(0, 0b10), (0, 0b01), (0, 0b10), (0, 0b01)];
    let behind = [(0, Wake(4)), (0, Run(1_000_000)), (0, Pick), (0, Run(8_000_000)), (0, Pick)];
    let lends = with(&with(QUEUED, &behind), &[(1, Affinity(1, 0b10))]);
    let moves = with(QUEUED, &behind);
    vec![
        plan("who was yielded to is taken here, as it runs there", setup(2, &beside), &moves, &[&[YieldTo(1), Pick], &[Pick, Pick]], [3, 4]),
        plan("who was yielded to sleeps", two(), RUNS, &[&[Pick, YieldTo(3), Pick], &[Pick, Sleep, Pick]], [3, 4]),
        plan("who yields runs again, as its context is lent elsewhere", setup(2, &beside), &lends, &[&[YieldTo(1), Pick, Pick], &[Pick, Pick]], [2, 4]),
        plan("who yields runs again and waits for a lock", setup(2, &beside), &lends, &[&[YieldTo(1), Pick, Block(0), Pick], &[Pick]], [2, 4]),
        plan("who yields is reniced and moved, as its context is lent elsewhere", setup(2, &beside), &lends,
            &[&[YieldTo(1), Pick], &[Nice(2, 10), Pick, Affinity(2, 0b11)]], [2, 3]),
        plan("who yields leaves for another class", setup(2, &beside), &lends, &[&[YieldTo(1), Pick], &[Class(2, 50), Pick]], [2, 3]),
        plan("two yield to the same task", three(), &both, &[&[YieldTo(1), Pick], &[Pick], &[YieldTo(1), Pick]], [1, 2]),
        plan("who was yielded to yields back", setup(2, &beside), &lends, &[&[YieldTo(1), Pick, Pick], &[Pick, YieldTo(2), Pick]], [2, 3]),
    ]
}

/// All of them.
pub fn all() -> Vec<Plan> {
    [donor_and_owner(), chains(), cgroups(), slots(), yields()]
        .into_iter()
        .flatten()
        .collect()
}
