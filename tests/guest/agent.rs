// SPDX-License-Identifier: GPL-2.0-only
//! The agent: its hints help, its absence, slowness or loss of events does not hurt.

use std::fs;
use std::time::Duration;

use libtest_mimic::Failed;

use crate::Test;
use crate::behaviour::stress;
use crate::donation::{judge, staged};
use crate::load::Load;
use crate::machine::{ensure, wait_for};
use crate::sched::{self, Stats};
use crate::watch::follower;

/// Walks of one lock only, so that a chain of two needs a hint; a ring that overflows at once.
const NARROW: &[&str] = &["--hops-max", "1", "--events-kib", "4"];

pub const TESTS: &[Test] = &[("agent::keeps_up_under_load", keeps_up_under_load)];
pub const ON_NARROW: &[Test] = &[
    (
        "agent::hints_take_a_walk_beyond_its_bound",
        hints_take_a_walk_beyond_its_bound,
    ),
    (
        "agent::stopped_it_costs_only_hints",
        stopped_it_costs_only_hints,
    ),
];

const QUIET: Duration = Duration::from_secs(30);

/// Three of the heaviest hogs on each CPU: the agent still looks at its ring.
fn keeps_up_under_load() -> Result<(), Failed> {
    sched::with(&[], || {
        let mut stats = Stats::open()?;
        let mut load = Load::default();
        for cpu in 0..4 {
            for _ in 0..3 {
                load.hog(cpu, -20)?;
            }
        }
        stats.delta()?;
        std::thread::sleep(Duration::from_secs(5));
        let rounds = stats.delta()?.agent_rounds;
        println!("{rounds} looks of the agent in 5 s beside 12 hogs of nice -20");
        // one in 40 ms when nothing happens; starved it would have none
        ensure(rounds >= 20, || format!("{rounds} looks in 5 s"))
    })
}

fn hints_take_a_walk_beyond_its_bound() -> Result<(), Failed> {
    sched::with(NARROW, || {
        let (factor, metrics) = staged("chain", "cross", &[])?;
        println!(
            "truncated {} hint_skips {} hints_stale {}",
            metrics.truncated, metrics.hint_skips, metrics.hints_stale
        );
        ensure(metrics.hint_skips > 0, || "no hint was followed".into())?;
        judge(factor, &metrics)
    })
}

/// SIGSTOP hits the whole process: nobody reads events while the ring overflows. Somebody follows: else there
/// would be few.
fn stopped_it_costs_only_hints() -> Result<(), Failed> {
    sched::with(NARROW, || {
        let _follower = follower()?;
        let mut stats = Stats::open()?;
        let scheduler = sched::pid();
        let signal = |signal| crate::machine::run(&["kill", signal, &scheduler.to_string()]);
        signal("-STOP")?;
        let stressed = stress(Duration::from_secs(5));
        let factor = crate::donation::factor_of("f_pos_lock", "same");
        signal("-CONT")?;
        stressed?;
        let (factor, metrics) = (factor?, stats.delta()?);
        println!(
            "stopped: factor {factor:.2}; events lost {} rebuilds {} edges {}",
            metrics.events_lost, metrics.agent_rebuilds, metrics.edges
        );
        judge(factor, &metrics)?;
        ensure(metrics.events_lost > 0, || {
            "the ring never overflowed".into()
        })?;
        let mut rebuilds = metrics.agent_rebuilds;
        wait_for("the agent to read all waits anew", QUIET, || {
            rebuilds += stats.delta().map_or(0, |metrics| metrics.agent_rebuilds);
            rebuilds > 0
        })?;
        // an agent that missed wakeups for good would keep their waits
        wait_for("the agent to forget the waits that ended", QUIET, || {
            stats
                .delta()
                .is_ok_and(|metrics| metrics.agent_waits_now == metrics.donors_waiting_now)
        })?;
        ensure(
            fs::read_to_string(format!("/proc/{scheduler}/stat"))?.contains(") S "),
            || "it did not go on".into(),
        )
    })
}
