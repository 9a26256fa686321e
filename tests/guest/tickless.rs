// SPDX-License-Identifier: GPL-2.0-only
//! A CPU of `nohz_full=`: a task that has it to itself runs without ticks, and whoever comes has its turn.

use std::time::{Duration, Instant};

use libtest_mimic::Failed;

use crate::Test;
use crate::load::{Load, cpu_time_ns};
use crate::machine::{cpu_numbers, ensure, read, wait_for};
use crate::sched::{self, Stats};

pub const TESTS: &[Test] = &[
    ("tickless::alone", alone),
    ("tickless::others_have_their_turn", others_have_their_turn),
    ("tickless::gives_way_to_what_waits", gives_way_to_what_waits),
];

const PATIENCE: Duration = Duration::from_secs(60);
const WINDOW: Duration = Duration::from_secs(3);
/// A CPU with ticks.
const OTHER: usize = 0;

fn nohz_full() -> Option<usize> {
    cpu_numbers("nohz_full").ok()?.last().copied()
}

/// Why `test` cannot run on this machine.
pub fn unfit(test: &str) -> Option<&'static str> {
    (test.starts_with("tickless::") && nohz_full().is_none())
        .then_some("takes a machine booted with nohz_full: scripts/test --kernel 7.3-nohz")
}

/// Timer interrupts of `cpu` so far.
fn timer_interrupts(cpu: usize) -> u64 {
    let interrupts = read("/proc/interrupts");
    let line = interrupts
        .lines()
        .find(|l| l.trim_start().starts_with("LOC:"));
    let count = line.and_then(|line| line.split_whitespace().nth(cpu + 1));
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Timer interrupts of two CPUs in a window.
fn ticks(cpus: [usize; 2]) -> [u64; 2] {
    let before = cpus.map(timer_interrupts);
    std::thread::sleep(WINDOW);
    let after = cpus.map(timer_interrupts);
    [after[0] - before[0], after[1] - before[1]]
}

fn alone() -> Result<(), Failed> {
    let cpu = nohz_full().ok_or("no CPU of nohz_full")?;
    sched::with(&[], || {
        let mut stats = Stats::open()?;
        let mut load = Load::default();
        load.hog(cpu, 0)?;
        load.hog(OTHER, 0)?;
        let mut seen = [0; 2];
        let stopped = wait_for("the tick to stop", PATIENCE, || {
            seen = ticks([cpu, OTHER]);
            seen[1] > 0 && seen[0] * 5 < seen[1]
        });
        let turns = stats.delta()?.tickless_turns;
        println!(
            "timer interrupts of CPU {cpu}: {}, of CPU {OTHER}: {}; {turns} turns without ticks",
            seen[0], seen[1]
        );
        stopped?;
        ensure(turns > 0, || "it was never alone".into())
    })
}

/// Seconds alone are not owed: a second task has half of the CPU from its first moment on.
fn others_have_their_turn() -> Result<(), Failed> {
    let cpu = nohz_full().ok_or("no CPU of nohz_full")?;
    sched::with(&[], || {
        let mut stats = Stats::open()?;
        let mut load = Load::default();
        let first = load.hog(cpu, 0)?;
        wait_for("the first to be alone", PATIENCE, || {
            stats.delta().is_ok_and(|now| now.tickless_turns > 0)
        })?;
        std::thread::sleep(2 * WINDOW);
        let mut others = Load::default();
        let second = others.hog(cpu, 0)?;
        wait_for("the second to begin", PATIENCE, || {
            cpu_time_ns(second).is_ok_and(|ns| ns > 0)
        })?;
        let (a, b) = (cpu_time_ns(first)?, cpu_time_ns(second)?);
        std::thread::sleep(WINDOW);
        let (a, b) = (cpu_time_ns(first)? - a, cpu_time_ns(second)? - b);
        println!("the first ran {a} ns, the second {b}");
        let share = b as f64 / (a + b) as f64;
        ensure((0.35..0.65).contains(&share), || {
            format!("the second had {share:.2} of the CPU")
        })?;
        drop(others);
        stats.delta()?;
        wait_for("the first to be alone again", PATIENCE, || {
            stats.delta().is_ok_and(|now| now.tickless_turns > 0)
        })
    })
}

/// Tasks that wait on other CPUs, and may run there, come within seconds, although nothing is queued there.
fn gives_way_to_what_waits() -> Result<(), Failed> {
    let cpu = nohz_full().ok_or("no CPU of nohz_full")?;
    sched::with(&[], || {
        let mut stats = Stats::open()?;
        let mut load = Load::default();
        let first = load.start(&[
            "taskset",
            "-c",
            &cpu.to_string(),
            "sh",
            "-c",
            "while :; do :; done",
        ])?;
        wait_for("the first to be alone", PATIENCE, || {
            stats.delta().is_ok_and(|now| now.tickless_turns > 0)
        })?;
        let nr = cpu_numbers("online")?.len();
        for _ in 0..2 * nr {
            load.start(&["sh", "-c", "while :; do :; done"])?;
        }
        let began = Instant::now();
        std::thread::sleep(WINDOW);
        // 2 nr + 1 tasks on nr CPUs: the first has less than half of a CPU, where it would have all of one
        let ran = cpu_time_ns(first)?;
        wait_for("the first to share its CPU", PATIENCE, || {
            let then = cpu_time_ns(first).unwrap_or(0);
            std::thread::sleep(WINDOW);
            let ran = cpu_time_ns(first).unwrap_or(u64::MAX) - then;
            ran < WINDOW.as_nanos() as u64 * 3 / 4
        })?;
        println!(
            "{} ms of {} ms since the others came",
            (cpu_time_ns(first)? - ran) / 1_000_000,
            began.elapsed().as_millis()
        );
        Ok(())
    })
}
