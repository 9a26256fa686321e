// SPDX-License-Identifier: GPL-2.0-only
//! CPUs that come and go: plugged in, off line at boot, threads of cores, holes in their numbers, a suspend.
//! After each, every CPU that is online is scheduled by us, pinned tasks and others.
//!
//! A suspend to idle ends early in these guests: their root is a virtiofs, which cannot suspend. Until then
//! the kernel has passed by the scheduler (`scx_bypass()`), frozen all tasks and begun to suspend devices, and all
//! of that is undone. Where the kernel has `pm_test`, freezing alone is asked for, and succeeds.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Failed;

use crate::Test;
use crate::lifecycle::{restarts_for, switch_cpu};
use crate::load::{Load, cpu_time_ns};
use crate::machine::{cpu_numbers, ensure, run, runnable, user_ticks, wait_for};
use crate::sched::{self, Stats, loaded};

/// Restarts, so after those that these would disturb.
pub const TESTS: &[Test] = &[
    (OFF_LINE_AT_BOOT, off_line_at_boot),
    (PLUGGED_IN, plugged_in),
    (THREADS, threads_off_and_on),
    (HOLE, a_hole_in_the_middle),
    ("cpus::all_go_on_after_a_freeze", all_go_on_after_a_freeze),
];

const OFF_LINE_AT_BOOT: &str = "cpus::off_line_at_boot";
const PLUGGED_IN: &str = "cpus::plugged_in";
const THREADS: &str = "cpus::threads_off_and_on";
const HOLE: &str = "cpus::a_hole_in_the_middle";

const CPU: &str = "/sys/devices/system/cpu";
const SMT: &str = "/sys/devices/system/cpu/smt/control";
/// scripts/vm gives it: who makes that file gets a CPU.
const PLUG: &str = "SCX_PROXY_VM_PLUG";
const PATIENCE: Duration = Duration::from_secs(30);
const WINDOW: Duration = Duration::from_secs(1);

/// Why `test` cannot run on this machine.
pub fn unfit(test: &str) -> Option<&'static str> {
    let count = |which| cpu_numbers(which).map_or(0, |cpus| cpus.len());
    let (fit, reason) = match test {
        OFF_LINE_AT_BOOT => (
            count("present") > count("online"),
            "takes a machine that boots with CPUs off line: scripts/test --kernel 6.18-plug",
        ),
        PLUGGED_IN => (
            std::env::var_os(PLUG).is_some(),
            "takes a machine with room for more CPUs: scripts/test --kernel 6.18-plug",
        ),
        THREADS => (
            fs::read_to_string(SMT).is_ok_and(|control| control.trim() == "on"),
            "takes a machine with two threads a core: scripts/test --kernel 7.3-smt",
        ),
        HOLE => (count("online") >= 3, "takes 3 CPUs at the least"),
        _ => (true, ""),
    };
    (!fit).then_some(reason)
}

fn off_line_at_boot() -> Result<(), Failed> {
    sched::with(&[], || {
        let online = cpu_numbers("online")?;
        every_online_cpu_is_scheduled()?;
        for cpu in cpu_numbers("present")? {
            if !online.contains(&cpu) {
                switch_cpu(cpu, true)?;
            }
        }
        every_online_cpu_is_scheduled()
    })
}

/// Hot-added while the scheduler runs.
fn plugged_in() -> Result<(), Failed> {
    sched::with(&[], || {
        let plug = std::env::var_os(PLUG).ok_or("no room for CPUs")?;
        let present = cpu_numbers("present")?;
        fs::write(&plug, "")?;
        let mut new = Vec::new();
        wait_for("a CPU to be plugged in", PATIENCE, || {
            new = cpu_numbers("present").unwrap_or_default();
            new.retain(|cpu| !present.contains(cpu));
            let ready = |cpu| Path::new(&format!("{CPU}/cpu{cpu}/online")).exists();
            !Path::new(&plug).exists() && new.iter().any(ready)
        })?;
        ensure(new.len() == 1, || format!("new CPUs {new:?}"))?;
        switch_cpu(new[0], true)?;
        every_online_cpu_is_scheduled()
    })
}

fn threads_off_and_on() -> Result<(), Failed> {
    sched::with(&[], || {
        let all = cpu_numbers("online")?;
        restarts_for(SMT, "off")?;
        ensure(cpu_numbers("online")?.len() == all.len() / 2, || {
            format!("{all:?} became {:?}", cpu_numbers("online"))
        })?;
        every_online_cpu_is_scheduled()?;
        restarts_for(SMT, "on")?;
        ensure(cpu_numbers("online")? == all, || {
            format!("{all:?} became {:?}", cpu_numbers("online"))
        })?;
        every_online_cpu_is_scheduled()
    })
}

/// Loaded while CPU 1 is off line, and donating there; then CPU 1 comes.
fn a_hole_in_the_middle() -> Result<(), Failed> {
    sched::with(&[], || {
        switch_cpu(1, false)?;
        every_online_cpu_is_scheduled()?;
        every_online_cpu_is_donated_on()?;
        switch_cpu(1, true)?;
        every_online_cpu_is_scheduled()
    })
}

/// What runs on each CPU is charged, so it is ours; and idle CPUs take what may run anywhere.
fn every_online_cpu_is_scheduled() -> Result<(), Failed> {
    let online = cpu_numbers("online")?;
    pinned_tasks_are_charged(&online)?;
    free_tasks_spread(&online)
}

/// Two spinners on each CPU, so that there is something to choose everywhere.
fn pinned_tasks_are_charged(online: &[usize]) -> Result<(), Failed> {
    const CHARGED_LEAST: f64 = 0.9;
    let mut load = Load::default();
    let mut spinners = Vec::new();
    for cpu in online.iter().chain(online) {
        spinners.push(load.hog(*cpu, 0)?);
    }
    wait_for("all spinners to run", PATIENCE, || {
        runnable() > spinners.len()
    })?;
    let cpu_times = || {
        let times = spinners.iter().map(|pid| cpu_time_ns(*pid));
        times.collect::<Result<Vec<_>, _>>()
    };
    let mut stats = Stats::open()?;
    let before = cpu_times()?;
    std::thread::sleep(2 * WINDOW);
    let after = cpu_times()?;
    let metrics = stats.delta()?;
    let ran: Vec<u64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
    let part = metrics.runtime_ns as f64 / ran.iter().sum::<u64>() as f64;
    println!("CPUs {online:?}: spinners ran {ran:?} ns; charged {part:.2} of that");
    ensure(ran.iter().all(|ran| *ran > 0), || {
        format!("spinners on {online:?} ran {ran:?} ns")
    })?;
    ensure(metrics.cpus == online.len() as u64, || {
        format!("{} CPUs by the stats", metrics.cpus)
    })?;
    ensure(part >= CHARGED_LEAST, || {
        format!("{part:.2} of what ran on {online:?} was charged")
    })
}

/// As many spinners as CPUs, all on one of them when they are set free.
fn free_tasks_spread(online: &[usize]) -> Result<(), Failed> {
    let mut load = Load::default();
    let list: Vec<String> = online.iter().map(usize::to_string).collect();
    for _ in online {
        let pid = load.hog(online[0], 0)?;
        wait_for("a spinner to be pinned", PATIENCE, || {
            let status = crate::machine::read(&format!("/proc/{pid}/comm"));
            status == "sh"
        })?;
        run(&["taskset", "-pc", &list.join(","), &pid.to_string()])?;
    }
    std::thread::sleep(WINDOW);
    let before = user_ticks();
    std::thread::sleep(2 * WINDOW);
    let ticks: Vec<u64> = user_ticks()
        .iter()
        .zip(&before)
        .map(|(a, b)| a - b)
        .collect();
    println!("CPUs {online:?}: user time in ticks {ticks:?}");
    ensure(
        ticks.len() == online.len() && ticks.iter().all(|ticks| *ticks > 0),
        || format!("CPUs {online:?} had {ticks:?} ticks of user time"),
    )
}

/// An owner on the first CPU, its waiter on the second, hogs on all.
fn every_online_cpu_is_donated_on() -> Result<(), Failed> {
    let mut stats = Stats::open()?;
    let out = Command::new(env!("CARGO_BIN_EXE_inversion"))
        .args(["--lock", "f_pos_lock", "--topology", "cross"])
        .args(["--trials", "1", "--critical-ms", "40"])
        .output()?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    let metrics = stats.delta()?;
    println!("edges {}, donations {}", metrics.edges, metrics.donations);
    ensure(
        out.status.success() && said.contains("1 of 1 staged"),
        || format!("{}: {said}", out.status),
    )?;
    ensure(metrics.edges > 0 && metrics.donations > 0, || {
        format!("{} edges, {} donations", metrics.edges, metrics.donations)
    })
}

/// Lines of the kernel log so far that hold `text`.
fn logged(text: &str) -> Result<usize, Failed> {
    let out = Command::new("dmesg").output()?;
    Ok(String::from_utf8_lossy(&out.stdout).matches(text).count())
}

/// With spinners everywhere, which are frozen too.
fn all_go_on_after_a_freeze() -> Result<(), Failed> {
    const TEST: &str = "/sys/power/pm_test";
    const DELAY: &str = "/sys/module/suspend/parameters/pm_test_delay";
    const FROZEN: &str = "Freezing user space processes completed";
    const OVER: &str = "PM: suspend exit";
    sched::with(&[], || {
        let mut load = Load::default();
        for cpu in cpu_numbers("online")? {
            load.hog(cpu, 0)?;
            load.hog(cpu, 5)?;
        }
        let before = (logged(FROZEN)?, logged(OVER)?);
        let has_test = Path::new(TEST).exists();
        if has_test {
            fs::write(DELAY, "1")?;
            fs::write(TEST, "freezer")?;
        }
        // the alarm wakes a machine that can sleep after all
        let out = Command::new("rtcwake")
            .args(["-m", "freeze", "-s", "10"])
            .output()?;
        println!(
            "freeze: {}; {}",
            out.status,
            if has_test { "by pm_test" } else { "for good" }
        );
        if has_test {
            fs::write(TEST, "none")?;
            ensure(out.status.success(), || format!("{out:?}"))?;
        }
        ensure(
            logged(FROZEN)? > before.0 && logged(OVER)? > before.1,
            || format!("nothing was frozen: {out:?}"),
        )?;
        ensure(loaded(), || format!("no longer loaded\n{}", sched::log()))?;
        drop(load);
        every_online_cpu_is_scheduled()
    })
}
