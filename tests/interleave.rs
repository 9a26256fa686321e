// SPDX-License-Identifier: GPL-2.0-only
//! What two and three CPUs do at the same moment: the policy itself, under all schedules of its
//! accesses to memory with a bounded number of preemptions. See `interleave/explore.rs` for which
//! these are, `interleave/kernel.rs` for the machine, `interleave/programs.rs` for the programs.
//!
//! `SCX_PROXY_PREEMPTIONS=<number>` allows more of them; `SCX_PROXY_LONG=1` runs the long campaign.

mod engine;
#[path = "interleave/explore.rs"]
mod explore;
#[path = "interleave/hooks.rs"]
mod hooks;
#[path = "interleave/judge.rs"]
mod judge;
#[path = "interleave/kernel.rs"]
mod kernel;
#[path = "interleave/machine.rs"]
mod machine;
#[path = "interleave/object.rs"]
mod object;
#[path = "interleave/ports.rs"]
mod ports;
#[path = "interleave/programs.rs"]
mod programs;
#[path = "interleave/tasks.rs"]
mod tasks;

use explore::{Explorer, Found};
use kernel::Kernel;
use object::{Api, Mistake};
use programs::Plan;
use std::time::Instant;

fn explore(api: &'static Api, plan: &Plan, preemptions: u32) -> Result<Found, String> {
    let scripts: Vec<&[machine::Op]> = plan.cpus.iter().map(Vec::as_slice).collect();
    let kernel = Kernel::new(api, &plan.setup, &scripts);
    kernel.setup(&plan.before);
    if std::env::var("SCX_PROXY_SHOW").is_ok() {
        println!("{}", kernel.show());
    }
    let mut explorer = Explorer::new(&kernel.memory(), machine::PLACES);
    kernel.side_by_side(&mut explorer);
    let name = |at| kernel.name(at);
    explore::explore(&*kernel, scripts.len(), preemptions, api, &name)
}

fn number(name: &str) -> Option<u32> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|e| panic!("{name}={text}: {e}")),
    )
}

#[test]
fn nothing_breaks_whatever_happens_at_the_same_time() {
    let api: &'static Api = Box::leak(Box::new(object::load(None)));
    let long = number("SCX_PROXY_LONG").is_some_and(|n| n != 0);
    let only = std::env::var("SCX_PROXY_PROGRAM").unwrap_or_default();
    let (mut failed, mut all) = (Vec::new(), 0);
    let begun = Instant::now();
    for plan in programs::all().iter().filter(|p| p.name.contains(&only)) {
        // without optimization fewer schedules
        let preemptions = match cfg!(debug_assertions) {
            true => 1,
            false => plan.preemptions[usize::from(long)],
        };
        let preemptions = number("SCX_PROXY_PREEMPTIONS").unwrap_or(preemptions);
        let began = Instant::now();
        match explore(api, plan, preemptions) {
            Ok(found) => {
                let Found {
                    schedules,
                    ends,
                    shared,
                    points,
                } = found;
                let seconds = began.elapsed().as_secs_f64();
                println!(
                    "{}: {} CPUs, {preemptions} preemptions: {schedules} schedules, {ends} ends, \
                     {shared} shared places, {points} points, {seconds:.1} s",
                    plan.name,
                    plan.cpus.len()
                );
                assert!(ends > 1, "{}: nothing happens at the same time", plan.name);
                all += schedules;
            }
            Err(e) => {
                println!("{}: {e}", plan.name);
                failed.push(plan.name);
            }
        }
    }
    println!("{all} schedules, {:.1} s", begun.elapsed().as_secs_f64());
    assert!(failed.is_empty(), "{failed:?}");
}

/// What must be found, and is right as it stands.
const MISTAKES: &[(&str, Mistake)] = &[
    (
        "a token is taken without comparing it",
        Mistake {
            file: "core/donor.h",
            from: "return __sync_val_compare_and_swap(&dctx->token, from, to) == from;",
            to: "__sync_lock_test_and_set(&dctx->token, to); return from != 0;",
        },
    ),
    (
        "a donor is attached without another look at its owner",
        Mistake {
            file: "core/resolve.h",
            from: "if (*(volatile u32 *)&octx->place != place)",
            to: "if (0)",
        },
    ),
    (
        "a donor is queued whether it woke or not",
        Mistake {
            file: "core/queue.h",
            from: "__sync_val_compare_and_swap(&dctx->token, moving, on_heap) != moving",
            to: "__sync_lock_test_and_set(&dctx->token, on_heap) == 0",
        },
    ),
    (
        "an entry is removed without the queue's lock",
        Mistake {
            file: "core/queue.h",
            from: "removed = heap_remove(&q->heap, idx, seq, pid);",
            to: "queue_unlock(q); removed = heap_remove(&q->heap, idx, seq, pid); queue_lock(q);",
        },
    ),
    (
        "a donor is taken along without its entry",
        Mistake {
            file: "core/resolve.h",
            from: "donor_queue_remove(place >> 16, place & 0xffff, token_seq(token), pid) &&",
            to: "",
        },
    ),
    (
        "a mover writes the key of whatever wait there is",
        Mistake {
            file: "core/donor.h",
            from: "ret = donor_queue_push(cpu, donor_key_at(dctx, cpu, cctx, later), seq,",
            to: "dctx->wait_key = donor_key_at(dctx, cpu, cctx, later);\
                 ret = donor_queue_push(cpu, dctx->wait_key, seq,",
        },
    ),
    (
        "a run is charged to whatever wait there is",
        Mistake {
            file: "core/charge.h",
            from: "wait_key_set(dctx, key, key + cost);",
            to: "dctx->wait_key += cost;",
        },
    ),
    (
        "who yields looks whether its context is lent, instead of taking it back",
        Mistake {
            file: "core/yield.h",
            from: "token = __sync_lock_test_and_set(&tctx->token, 0);",
            to: "token = tctx->token; token_cas(tctx, token, 0);",
        },
    ),
    (
        "work is said to be gone without another look",
        Mistake {
            file: "place/runq.h",
            from: "if (*(volatile u32 *)&cctx->nr_queued[reach])",
            to: "if (0)",
        },
    ),
];

#[test]
fn mistakes_made_on_purpose_are_found() {
    let found = |mistake: &Mistake| {
        let api: &'static Api = Box::leak(Box::new(object::load(Some(*mistake))));
        let plans = programs::all();
        let fails = |plan: &Plan, most: u32| {
            let found = explore(api, plan, plan.preemptions[0].min(most));
            Some((plan.name, found.err()?))
        };
        // one preemption is nearly always enough, and soon tried
        let with = |most: u32| plans.iter().find_map(|plan| fails(plan, most));
        with(1).or_else(|| with(u32::MAX))
    };
    let mut missed = Vec::new();
    for (what, mistake) in MISTAKES {
        match found(mistake) {
            Some((program, why)) => println!("{what}: found by \"{program}\": {why}"),
            None => missed.push(what),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
