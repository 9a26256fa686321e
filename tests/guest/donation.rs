// SPDX-License-Identifier: GPL-2.0-only
//! Donation, staged by `inversion` and judged by counters and by factors whose
//! bounds lie far from what noise can do: without donation they are 40 to 150.

use std::process::Command;

use libtest_mimic::Failed;

use crate::Test;
use scx_proxy::stats::Metrics;
use serde_json::Value;

use crate::machine::{ensure, is_even};
use crate::sched::{self, Stats};

pub const TESTS: &[Test] = &[
    ("donation::same_cpu", || donates("f_pos_lock", "same")),
    (
        "donation::cross_migrates_the_donor",
        cross_migrates_the_donor,
    ),
    ("donation::unpinned", || donates("f_pos_lock", "unpinned")),
    ("donation::seq_file", || donates("seq_file", "cross")),
    (
        "donation::chain_follows_each_new_owner",
        chain_follows_each_new_owner,
    ),
    (
        "donation::donor_pays_and_lends_only_its_share",
        donor_pays_and_lends_only_its_share,
    ),
];

/// Waiters that `task->blocked_on` does not show, and owners that sleep.
pub const BEYOND: &[Test] = &[
    ("donation::sleeping_owner", || {
        donates("sleeping_owner", "cross")
    }),
    ("donation::rt_waiter_cross", || rt_waiter("cross")),
    ("donation::rt_waiter_unpinned", || rt_waiter("unpinned")),
];

/// On other flags than the rest.
pub const TRACEPOINT: &[Test] = &[(
    "switches::tracepoint_path_donates_too",
    tracepoint_path_donates_too,
)];
pub const OFF: &[Test] = &[("switches::off_means_off", off_means_off)];

const INVERSION: &str = env!("CARGO_BIN_EXE_inversion");

/// Not a goal (that is 1.6, see scripts/bench): what noise does not reach, nor luck. Where there
/// is none, what no trial may be above.
pub fn donated_max() -> f64 {
    if is_even() { 2.0 } else { 5.0 }
}

/// Above what a factor says that nobody was lent to.
pub const NOT_DONATED_MIN: f64 = 10.0;

/// Median factor of two staged trials, on an even clock the largest of five; and what the scheduler
/// counted meanwhile. `more`: --critical-ms and further arguments of `inversion`.
pub fn staged(lock: &str, topology: &str, more: &[&str]) -> Result<(f64, Metrics), Failed> {
    staged_under(&[], lock, topology, more)
}

/// As `staged`, by a command that runs `inversion` somewhere else, in another namespace for one.
pub fn staged_under(
    command: &[&str],
    lock: &str,
    topology: &str,
    more: &[&str],
) -> Result<(f64, Metrics), Failed> {
    let mut stats = Stats::open()?;
    let (median, fair) = factors(command, lock, topology, more)?;
    let metrics = stats.delta()?;
    println!(
        "{lock} {topology} {more:?}: factor {median:.2}, fair {fair:.2}; edges {} donations {} migrations {} depth_2 {}",
        metrics.edges, metrics.donations, metrics.donor_migrations, metrics.depth_2,
    );
    Ok((median, metrics))
}

/// Median factor of two staged trials, on an even clock the largest of five; and the fair ideal.
fn factors(
    command: &[&str],
    lock: &str,
    topology: &str,
    more: &[&str],
) -> Result<(f64, f64), Failed> {
    let (trials, which) = if is_even() {
        ("5", "max")
    } else {
        ("2", "median")
    };
    let argv = [command, &[INVERSION]].concat();
    let out = Command::new(argv[0])
        .args(&argv[1..])
        .args(["--lock", lock, "--topology", topology, "--trials", trials])
        .args(["--json", "-", "--critical-ms"])
        .args(if more.is_empty() { &["40"] } else { more })
        .output()?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure(out.status.success(), || {
        format!("inversion: {}: {said}", out.status)
    })?;
    let json: Value = serde_json::from_slice(&out.stdout).map_err(|e| e.to_string())?;
    let scenario = &json["scenarios"][0];
    let factor = scenario["factor"][which].as_f64();
    let fair = scenario["fair_ideal"].as_f64();
    let (factor, fair) = factor.zip(fair).ok_or(format!("no factor: {said}"))?;
    Ok((factor, fair))
}

/// As `staged`, for a scheduler whose stats nobody serves at the moment.
pub fn factor_of(lock: &str, topology: &str) -> Result<f64, Failed> {
    Ok(factors(&[], lock, topology, &[])?.0)
}

fn was_lent(metrics: &Metrics) -> Result<(), Failed> {
    ensure(metrics.edges > 0, || "no edge was seen".into())?;
    ensure(metrics.donations > 0 && metrics.donated_ns > 0, || {
        "nothing was donated".into()
    })
}

pub fn judge(factor: f64, metrics: &Metrics) -> Result<(), Failed> {
    was_lent(metrics)?;
    ensure(factor <= donated_max(), || {
        format!("factor {factor:.2} with donation")
    })
}

fn donates(lock: &str, topology: &str) -> Result<(), Failed> {
    sched::with(&[], || {
        let (factor, metrics) = staged(lock, topology, &[])?;
        judge(factor, &metrics)
    })
}

/// The owner may only run where the donor is not: its context has to go there.
/// Were the owner pulled to the donor's CPU, the kernel would throw us out.
fn cross_migrates_the_donor() -> Result<(), Failed> {
    sched::with(&[], || {
        let (factor, metrics) = staged("f_pos_lock", "cross", &[])?;
        judge(factor, &metrics)?;
        ensure(metrics.affinity_refusals > 0, || {
            "no affinity was ever tested".into()
        })?;
        ensure(metrics.donor_migrations > 0, || "no donor migrated".into())
    })
}

/// H waits for M, M for L; when L lets go, M owns both. A walk that remembered
/// the first owner would leave M, at nice 19, without H's context.
fn chain_follows_each_new_owner() -> Result<(), Failed> {
    sched::with(&[], || {
        let (factor, metrics) = staged("chain", "cross", &[])?;
        judge(factor, &metrics)?;
        ensure(metrics.depth_2 > 0, || {
            "no walk went through two locks".into()
        })?;
        ensure(metrics.depth_1 > 0, || "no walk found the new owner".into())
    })
}

/// A nice-0 donor against two nice-0 hogs has a third of the CPU to lend, so
/// its owner takes three times the CPU time needed. If the donor did not pay,
/// its key would stay the earliest, and the owner would have the whole CPU.
fn donor_pays_and_lends_only_its_share() -> Result<(), Failed> {
    sched::with(&[], || {
        let (factor, metrics) = staged("f_pos_lock", "same", &["100", "--waiter-nice", "0"])?;
        was_lent(&metrics)?;
        ensure((1.8..5.0).contains(&factor), || {
            format!("factor {factor:.2}: the donor's share is a third")
        })
    })
}

/// A real-time waiter passes none of the callbacks, and must not wait for hogs.
fn rt_waiter(topology: &str) -> Result<(), Failed> {
    sched::with(&[], || {
        let more = ["40", "--hogs", "1", "--waiter-policy", "fifo"];
        let (factor, metrics) = staged("f_pos_lock", topology, &more)?;
        ensure(metrics.edges_urgent > 0, || {
            "no urgent edge was seen".into()
        })?;
        judge(factor, &metrics)
    })
}

fn tracepoint_path_donates_too() -> Result<(), Failed> {
    sched::with(sched::TRACEPOINT, || {
        let (factor, metrics) = staged("f_pos_lock", "same", &[])?;
        judge(factor, &metrics)
    })
}

/// The same scheduler without donation is inverted: the tests above show donation.
fn off_means_off() -> Result<(), Failed> {
    sched::with(&["--observe"], || {
        let (factor, metrics) = staged("f_pos_lock", "same", &["10"])?;
        ensure(metrics.edges > 0, || "no edge was seen".into())?;
        ensure(metrics.donations == 0 && metrics.donated_ns == 0, || {
            "donated".into()
        })?;
        ensure(factor > NOT_DONATED_MIN, || {
            format!("factor {factor:.2} without donation")
        })
    })
}
