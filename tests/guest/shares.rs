// SPDX-License-Identifier: GPL-2.0-only
//! Weights hold: hogs of different nice values on one CPU share it by weight.

use std::time::Duration;

use libtest_mimic::Failed;

use crate::Test;

use crate::load::{Load, cpu_time_ns};
use crate::machine::ensure;
use crate::sched;

pub const TESTS: &[Test] = &[
    ("shares::nice_0_and_19", || shares(&[(0, 1024), (19, 15)])),
    ("shares::nice_0_0_5_10", || {
        shares(&[(0, 1024), (0, 1024), (5, 335), (10, 110)])
    }),
    ("shares::nice_minus_10_0_0", || {
        shares(&[(-10, 9548), (0, 1024), (0, 1024)])
    }),
];

/// On flags of its own, shared with the tracepoint test.
pub const STARVE: &[Test] = &[(
    "shares::light_tasks_are_not_starved",
    light_tasks_are_not_starved,
)];

const SETTLE: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(10);
const ATTEMPTS_MAX: u32 = 3;
const TOLERANCE: f64 = 0.10;
const CPU: usize = 1;

/// `hogs`: nice value and its weight in the kernel's sched_prio_to_weight[].
///
/// An emulated CPU that the host holds up for 100 ms in a slice of nice 19 makes
/// it run two thirds of its 10 s share at once, and pay that back for seconds. So
/// there are three attempts, each with new hogs; a wrong share fails them all.
fn shares(hogs: &[(i32, u32)]) -> Result<(), Failed> {
    sched::with(&[], || {
        let mut reports = Vec::new();
        for _ in 0..ATTEMPTS_MAX {
            let (worst, shown) = measure(hogs)?;
            let report = format!("{shown}worst {:.1} % off", worst * 100.0);
            println!("shares: {report}");
            if worst <= TOLERANCE {
                return Ok(());
            }
            reports.push(report);
        }
        Err(reports.join("\n").into())
    })
}

fn measure(hogs: &[(i32, u32)]) -> Result<(f64, String), Failed> {
    let mut load = Load::default();
    let mut pids = Vec::new();
    for (nice, _) in hogs {
        pids.push(load.hog(CPU, *nice)?);
    }
    let cpu_times = || {
        pids.iter()
            .map(|pid| cpu_time_ns(*pid))
            .collect::<Result<Vec<_>, _>>()
    };
    std::thread::sleep(SETTLE);
    let before = cpu_times()?;
    std::thread::sleep(MEASURED);
    let after = cpu_times()?;
    let ran: Vec<f64> = before
        .iter()
        .zip(&after)
        .map(|(b, a)| (a - b) as f64)
        .collect();
    Ok(judge(hogs, &ran))
}

/// How far the hog that is furthest off is off its share, and all shares in words.
fn judge(hogs: &[(i32, u32)], ran: &[f64]) -> (f64, String) {
    let all: f64 = ran.iter().sum();
    let weights: f64 = hogs.iter().map(|(_, weight)| f64::from(*weight)).sum();
    let (mut worst, mut shown) = (0_f64, String::new());
    for ((nice, weight), ran) in hogs.iter().zip(ran) {
        let (share, fair) = (ran / all, f64::from(*weight) / weights);
        worst = worst.max((share / fair - 1.0).abs());
        shown += &format!("nice {nice}: {share:.4} of the CPU, fair {fair:.4}; ");
    }
    (worst, shown)
}

/// A nice-19 task that has just run is a long way behind three nice -20 ones that
/// arrive then: by weight alone its turn comes after a minute, long after the
/// kernel has thrown the scheduler out for the stall.
fn light_tasks_are_not_starved() -> Result<(), Failed> {
    sched::with(sched::TRACEPOINT, || {
        let mut stats = sched::Stats::open()?;
        let mut load = Load::default();
        let light = load.hog(CPU, 19)?;
        load.hog(CPU, 0)?;
        std::thread::sleep(SETTLE);
        for _ in 0..3 {
            load.hog(CPU, -20)?;
        }
        std::thread::sleep(SETTLE);
        let before = cpu_time_ns(light)?;
        std::thread::sleep(3 * SETTLE);
        let ran_ns = cpu_time_ns(light)? - before;
        let metrics = stats.delta()?;
        println!(
            "light task ran {ran_ns} ns; clamps {} rescues {}",
            metrics.starve_clamps, metrics.starve_clock_moves
        );
        ensure(ran_ns > 0, || "the light task did not run for 3 s".into())?;
        ensure(
            metrics.starve_clamps + metrics.starve_clock_moves > 0,
            || "it ran, but not because of the starvation guard".into(),
        )
    })
}
