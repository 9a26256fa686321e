// SPDX-License-Identifier: GPL-2.0-only
//! Placement: which CPU tasks get, and when, in ordinary loads. An emulated CPU stands still for 100s
//! of ms when its host is busy, so these judge by counters, by who has run at all, and by shares of
//! what all got together.

use std::process::Command;
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::Value;

use crate::Test;

use crate::load::{Load, cpu_time_ns};
use crate::machine::{cpus, ensure, run, runnable, user_ticks, wait_for};
use crate::sched::{self, Stats};

pub const TESTS: &[Test] = &[
    ("place::every_cpu_runs", every_cpu_runs),
    (
        "place::five_spinners_on_four_cpus",
        five_spinners_on_four_cpus,
    ),
    (
        "place::restricted_spinners_share",
        restricted_spinners_share,
    ),
    (
        "place::no_task_passes_over_a_spinner",
        no_task_passes_over_a_spinner,
    ),
    (
        "place::pinned_tasks_are_not_stolen_from",
        pinned_tasks_are_not_stolen_from,
    ),
    ("place::light_sleeper_preempts", light_sleeper_preempts),
    ("place::speed_follows_load", speed_follows_load),
    (
        "place::heavy_tasks_go_to_big_cpus",
        heavy_tasks_go_to_big_cpus,
    ),
];

/// On the flags of `sched::TRACEPOINT`, shared with the other test of the starvation guard.
pub const STARVE: &[Test] = &[
    ("place::overload_is_survived", overload_is_survived),
    ("place::light_and_heavy", light_and_heavy),
];

/// Tests that mean nothing on a machine with fewer CPUs, or with more.
const CPUS: [(&str, usize, usize, &str); 6] = [
    (
        "place::heavy_tasks_go_to_big_cpus",
        4,
        usize::MAX,
        "takes 4 CPUs at the least",
    ),
    (
        "groups::shares_on_four_cpus",
        4,
        4,
        "takes a machine of 4 CPUs",
    ),
    (
        "place::five_spinners_on_four_cpus",
        4,
        4,
        "takes a machine of 4 CPUs",
    ),
    (
        "place::restricted_spinners_share",
        4,
        usize::MAX,
        "takes 4 CPUs at the least",
    ),
    (
        "place::no_task_passes_over_a_spinner",
        2,
        usize::MAX,
        "takes 2 CPUs at the least",
    ),
    (
        "place::pinned_tasks_are_not_stolen_from",
        2,
        usize::MAX,
        "takes 2 CPUs at the least",
    ),
];

/// Why `test` cannot run on this machine.
pub fn unfit(test: &str) -> Option<&'static str> {
    let (.., reason) = CPUS
        .iter()
        .find(|(name, least, most, _)| *name == test && !(*least..=*most).contains(&cpus()))?;
    Some(reason)
}

const SCHEDLOAD: &str = env!("CARGO_BIN_EXE_schedload");
const SETTLE: Duration = Duration::from_secs(1);

/// Starting hundreds of tasks takes long under emulation, and on one CPU that they all want.
const STARTED: Duration = Duration::from_secs(120);

/// The report of one load.
fn schedload(args: &[&str]) -> Result<Value, Failed> {
    let out = Command::new(SCHEDLOAD).args(args).output()?;
    ensure(out.status.success(), || {
        format!("{args:?}: {}", String::from_utf8_lossy(&out.stderr))
    })?;
    Ok(serde_json::from_slice(&out.stdout)?)
}

fn number(value: &Value) -> Result<f64, Failed> {
    value
        .as_f64()
        .ok_or_else(|| format!("{value} is no number").into())
}

/// Of a report of `schedload spin`: what part of a CPU each spinner got.
fn shares(report: &Value) -> Result<Vec<f64>, Failed> {
    let groups = report["groups"].as_array().into_iter().flatten();
    let spinners = groups.flat_map(|group| group["spinners"].as_array().into_iter().flatten());
    spinners.map(|spinner| number(&spinner["share"])).collect()
}

/// `values`, so that they sum up to `sum`.
fn scaled(values: &[f64], sum: f64) -> Vec<f64> {
    let all: f64 = values.iter().sum();
    values.iter().map(|value| value / all * sum).collect()
}

/// `count` spinners of schedload that all run: it holds them until each has its place and weight.
fn start_spinners(load: &mut Load, specs: &[&str], count: usize) -> Result<(), Failed> {
    load.start(&[&[SCHEDLOAD, "spin", "--secs", "600", "--spec"], specs].concat())?;
    wait_for("all spinners to run", STARTED, || runnable() >= count)
}

/// As many spinners as CPUs, all queued on one of them when they are allowed to leave it.
fn every_cpu_runs() -> Result<(), Failed> {
    const LEAST: f64 = 0.6;
    sched::with(&[], || {
        let mut load = Load::default();
        let spinners = (0..cpus())
            .map(|_| load.hog(0, 0))
            .collect::<Result<Vec<_>, _>>()?;
        wait_for("all spinners to run", STARTED, || runnable() > cpus())?;
        let free: String = spinners
            .iter()
            .map(|pid| format!("taskset -pc 0-{} {pid} && ", cpus() - 1))
            .collect();
        run(&["nice", "-n", "-20", "sh", "-c", &(free + "true")])?;
        std::thread::sleep(2 * SETTLE);
        let cpu_times = || {
            spinners
                .iter()
                .map(|pid| cpu_time_ns(*pid))
                .collect::<Result<Vec<_>, _>>()
        };
        let (ticks, before) = (user_ticks(), cpu_times()?);
        std::thread::sleep(3 * SETTLE);
        let (ticks_then, after) = (user_ticks(), cpu_times()?);
        let ran: Vec<f64> = after
            .iter()
            .zip(&before)
            .map(|(a, b)| (a - b) as f64)
            .collect();
        let ticks: Vec<u64> = ticks_then.iter().zip(&ticks).map(|(a, b)| a - b).collect();
        let parts = scaled(&ran, spinners.len() as f64);
        println!("parts of the mean {parts:.2?}; user time in ticks, by CPU: {ticks:?}");
        ensure(ticks.len() == cpus(), || "not all CPUs are there".into())?;
        ensure(ticks.iter().all(|ticks| *ticks > 0), || {
            format!("CPUs had nothing to run: {ticks:?}")
        })?;
        ensure(parts.iter().all(|part| *part >= LEAST), || {
            format!("parts of the mean {parts:.2?}")
        })
    })
}

/// Fair is 0.8 of a CPU each. Where nobody pulls, two get half a CPU and three a whole one.
fn five_spinners_on_four_cpus() -> Result<(), Failed> {
    sched::with(&[], || {
        let mut stats = Stats::open()?;
        let report = schedload(&["spin", "--secs", "12", "--spec", "5"])?;
        let (shares, pulls) = (shares(&report)?, stats.delta()?.dispatch_balance);
        let parts = scaled(&shares, 4.0);
        println!("shares {shares:.2?}, of 4 CPUs {parts:.2?}; pulls {pulls}");
        ensure(
            parts.iter().all(|part| (0.68..=0.92).contains(part)),
            || format!("shares of 4 CPUs {parts:.2?}"),
        )?;
        ensure(pulls > 0, || "nothing was pulled".into())
    })
}

/// Fair is 0.67 of a CPU each, since they may use two CPUs of more.
fn restricted_spinners_share() -> Result<(), Failed> {
    sched::with(&[], || {
        let report = schedload(&["spin", "--secs", "12", "--spec", "3@0-1"])?;
        let shares = shares(&report)?;
        let parts = scaled(&shares, 2.0);
        println!("shares {shares:.2?}, of 2 CPUs {parts:.2?}");
        ensure(parts.iter().all(|part| *part >= 0.55), || {
            format!("shares of 2 CPUs {parts:.2?}")
        })
    })
}

/// Two tasks that wake each other all the while, on the CPUs of two spinners.
fn no_task_passes_over_a_spinner() -> Result<(), Failed> {
    sched::with(&[], || {
        let report = schedload(&["sync", "--secs", "6"])?;
        println!("{report}");
        let spinners = report["beside"].as_array().ok_or("no spinners")?;
        ensure(spinners.len() == 2, || format!("{spinners:?}"))?;
        for spinner in spinners {
            let share = number(&spinner["share"]["min"])?;
            let standstill_ms = number(&spinner["standstill_max_us"])? / 1e3;
            ensure(share >= 0.25 && standstill_ms < 1000.0, || {
                format!(
                    "{}: share {share:.2}, stood still for {standstill_ms:.0} ms",
                    spinner["spec"]
                )
            })?;
        }
        Ok(())
    })
}

/// CPUs that go idle a thousand times a second each, beside one whose tasks nobody else may run: there is
/// nothing to steal, and no reason to look. What is not pinned runs now and then, and is stolen; a tick
/// that saw work in the pinned tasks would kick 250 times a second, or a sixteenth of that.
fn pinned_tasks_are_not_stolen_from() -> Result<(), Failed> {
    const PINNED: usize = 300;
    const STEALS_MAX: u64 = 400;
    const KICKS_MAX: u64 = 40;
    sched::with(&[], || {
        let others = cpus() - 1;
        let mut load = Load::default();
        load.start(&[
            SCHEDLOAD,
            "sleepers",
            "--secs",
            "600",
            "--sleep-us",
            "1000",
            "--count",
            &others.to_string(),
            "--cpus",
            &format!("1-{others}"),
            "--beside",
            &format!("{PINNED}x19@0"),
        ])?;
        wait_for("all spinners to run", STARTED, || runnable() >= PINNED)?;
        std::thread::sleep(SETTLE);
        let mut stats = Stats::open()?;
        std::thread::sleep(8 * SETTLE);
        let metrics = stats.delta()?;
        let (steals, kicks) = (metrics.dispatch_steal, metrics.kicks_for_work);
        println!(
            "steals {steals}, kicks for work {kicks}, picks {}",
            metrics.dispatch_queue
        );
        ensure(metrics.dispatch_queue > 100, || "nothing was queued".into())?;
        ensure(steals <= STEALS_MAX && kicks <= KICKS_MAX, || {
            format!("{steals} steals, {kicks} kicks for work")
        })
    })
}

/// A task of weight 3 among 301 of weight 1024: by weight alone its turn would come after 300 times as long
/// as the kernel waits before it ejects the scheduler.
fn overload_is_survived() -> Result<(), Failed> {
    const OTHERS: usize = 300;
    // two periods of 0.5 s, and one turn of all at a tick of 4 ms each, are 2.2 s
    const WINDOW: Duration = Duration::from_secs(4);
    sched::with(sched::TRACEPOINT, || {
        let mut load = Load::default();
        let spin = "while :; do :; done";
        let idle = load.start(&["taskset", "-c", "0", "chrt", "-i", "0", "sh", "-c", spin])?;
        load.hog(0, 0)?;
        std::thread::sleep(SETTLE);
        start_spinners(&mut load, &[&format!("{OTHERS}@0")], OTHERS + 2)?;
        let mut before = cpu_time_ns(idle)?;
        for window in 1..=3 {
            std::thread::sleep(WINDOW);
            let now = cpu_time_ns(idle)?;
            println!(
                "window {window}: the SCHED_IDLE spinner ran {} ns",
                now - before
            );
            ensure(now > before, || {
                format!("the SCHED_IDLE spinner did not run in window {window} of {WINDOW:?}")
            })?;
            before = now;
        }
        Ok(())
    })
}

/// A task that sleeps a lot preempts a spinner when it wakes. Did it wait for the end of a slice, nothing
/// would be counted.
fn light_sleeper_preempts() -> Result<(), Failed> {
    sched::with(&[], || {
        let mut stats = Stats::open()?;
        let report = schedload(&[
            "sleepers",
            "--sleep-us",
            "10000",
            "--cpus",
            "0",
            "--beside",
            "2x0@0",
            "--secs",
            "5",
        ])?;
        let metrics = stats.delta()?;
        let sleeps = report["sleepers"]["lateness"]["samples"].as_u64();
        let sleeps = sleeps.ok_or_else(|| format!("no samples: {report}"))?;
        let preempted = metrics.preempt_wakeup + metrics.preempt_tick;
        println!(
            "{sleeps} sleeps, preempted {} at once and {} at a tick; {report}",
            metrics.preempt_wakeup, metrics.preempt_tick
        );
        ensure(sleeps > 20, || format!("{sleeps} sleeps only"))?;
        ensure(preempted * 4 > sleeps * 3, || {
            format!("{preempted} of {sleeps} wakeups preempted a spinner")
        })
    })
}

/// Busy CPUs shall be fast, idle ones need not be; nobody has to ask for the latter.
fn speed_follows_load() -> Result<(), Failed> {
    const PATIENCE: Duration = Duration::from_secs(60);
    let percent = || -> Result<u64, Failed> { Ok(Stats::open()?.delta()?.cpuperf_percent_now) };
    let becomes = |what: &str, is: fn(u64) -> bool| -> Result<(), Failed> {
        wait_for(what, PATIENCE, || percent().is_ok_and(is)).map_err(|error| {
            let now = percent();
            format!("{error:?}: {now:?} %").into()
        })
    };
    sched::with(&[], || {
        becomes("idle CPUs to ask for little", |percent| percent < 50)?;
        let mut load = Load::default();
        for cpu in 0..cpus() {
            load.hog(cpu, 0)?;
        }
        becomes("busy CPUs to ask for all", |percent| percent > 90)?;
        drop(load);
        becomes("CPUs to ask for little again", |percent| percent < 50)
    })?;
    sched::with(&["--no-cpufreq"], || {
        let percent = percent()?;
        ensure(percent == 100, || format!("{percent} % with --no-cpufreq"))
    })
}

/// Two spinners that begin on small CPUs and may run anywhere, beside two big CPUs with nothing to do. CPUs of a
/// guest are alike, so the flag says which are big.
fn heavy_tasks_go_to_big_cpus() -> Result<(), Failed> {
    const BIG: [usize; 2] = [2, 3];
    let on = |pid: u32| -> Option<usize> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?
            .1
            .split_whitespace()
            .nth(36)?
            .parse()
            .ok()
    };
    sched::with(&["--big-cpus", "2-3"], || {
        let mut load = Load::default();
        let spinners = [load.hog(0, 0)?, load.hog(1, 0)?];
        wait_for("both spinners to run", STARTED, || runnable() >= 2)?;
        let mut stats = Stats::open()?;
        for pid in spinners {
            run(&["taskset", "-pc", "0-3", &pid.to_string()])?;
        }
        let on_big = || {
            let at = spinners.map(on);
            BIG.iter().all(|cpu| at.contains(&Some(*cpu)))
        };
        let moved = wait_for("both spinners to run on big CPUs", STARTED, on_big);
        let to_big = stats.delta()?.dispatch_to_big;
        // one that was queued when it was set free goes there at once, and is not among those
        println!("on {:?}, left a small CPU {to_big} times", spinners.map(on));
        moved
    })
}

/// Weights of 3 to 88761 on one CPU: all have run before long.
fn light_and_heavy() -> Result<(), Failed> {
    const SPECS: [&str; 4] = ["125x-20@0", "125@0", "125x19@0", "125xidle@0"];
    sched::with(sched::TRACEPOINT, || {
        let args = ["spin", "--secs", "10", "--settle", "0.1", "--spec"];
        let report = schedload(&[&args[..], &SPECS].concat())?;
        let shares = shares(&report)?;
        let never = shares.iter().filter(|share| **share <= 0.0).count();
        for group in report["groups"].as_array().into_iter().flatten() {
            println!(
                "{}: share {}, stood still for {} us",
                group["spec"], group["share"], group["standstill_max_us"]
            );
        }
        ensure(shares.len() == 500, || format!("{} spinners", shares.len()))?;
        ensure(never == 0, || {
            format!("{never} of {} spinners have not run in 10 s", shares.len())
        })
    })
}
