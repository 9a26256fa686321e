// SPDX-License-Identifier: GPL-2.0-only
//! What the tests ask the machine that they run on.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;

/// Set by scripts/vm for the command that it runs.
pub fn in_guest() -> bool {
    std::env::var_os("SCX_PROXY_VM").is_some()
}

/// Whether time goes on as CPUs do, and CPUs go on side by side, whatever the host is busy with.
pub fn is_even() -> bool {
    std::env::var_os("SCX_PROXY_VM_EVEN_US").is_some()
}

pub fn has_blocked_on() -> bool {
    scx_utils::compat::struct_has_field("task_struct", "blocked_on").unwrap_or(false)
}

/// False on PREEMPT_RT, where mutexes and rwsems are made of rt_mutexes.
pub fn has_mutex_owner() -> bool {
    scx_utils::compat::struct_has_field("mutex", "owner").unwrap_or(false)
}

/// Whether an rwsem names no reader that has gone (CONFIG_DETECT_HUNG_TASK_BLOCKER, 6.18).
pub fn clears_readers() -> bool {
    let symbols = read("/proc/kallsyms");
    symbols
        .lines()
        .any(|line| line.split(' ').nth(2) == Some("is_rwsem_reader_owned"))
}

/// CPUs that this process may run on: all of them, and their numbers have no holes.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Numbers of the CPUs that are `online`, `present` or `possible`.
pub fn cpu_numbers(which: &str) -> Result<Vec<usize>, Failed> {
    let list = fs::read_to_string(format!("/sys/devices/system/cpu/{which}"))?;
    Ok(scx_utils::read_cpulist(list.trim())?)
}

/// How many tasks run or wait for a CPU.
pub fn runnable() -> usize {
    let text = read("/proc/loadavg");
    let fourth = text.split_whitespace().nth(3).unwrap_or_default();
    let (running, _) = fourth.split_once('/').unwrap_or_default();
    running.parse().unwrap_or(0)
}

/// User time of each CPU that is online, of all nice values, in ticks.
pub fn user_ticks() -> Vec<u64> {
    let text = read("/proc/stat");
    let of = |line: &str| -> u64 {
        let times = line.split_whitespace().skip(1).take(2);
        times.filter_map(|time| time.parse::<u64>().ok()).sum()
    };
    let lines = text.lines().filter(|line| {
        line.strip_prefix("cpu")
            .is_some_and(|nr| nr.starts_with(|first: char| first.is_ascii_digit()))
    });
    lines.map(of).collect()
}

/// `enabled`, `disabled`, ...
pub fn sched_ext_state() -> String {
    read("/sys/kernel/sched_ext/state")
}

pub fn sched_ext_ops() -> String {
    read("/sys/kernel/sched_ext/root/ops")
}

pub fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Lines of the kernel log that a healthy run does not leave.
pub fn kernel_warnings() -> Result<Vec<String>, Failed> {
    let log = Command::new("dmesg").output()?;
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    let bad = [
        "BUG:",
        "kernel BUG at",
        "WARNING:",
        "ODEBUG:",
        "UBSAN:",
        "Oops",
        "Call Trace",
        "detected stall",
        "blocked for more than",
    ];
    let scx = ["runtime error", "aborted", "deprecated", "disabled ("];
    let is_warning = |line: &&str| {
        bad.iter().any(|b| line.contains(b))
            || (line.contains("sched_ext")
                && scx.iter().any(|s| line.contains(s))
                && !line.contains("unregistered from user space")
                && !line.contains("unregistered from the main kernel"))
    };
    Ok(log.lines().filter(is_warning).map(str::to_owned).collect())
}

/// Whether a kernel that checks the order of locks (CONFIG_PROVE_LOCKING) does so still: it stops with its
/// first complaint, and when its tables are full. None: it has no such checks.
pub fn locks_are_checked() -> Option<bool> {
    let stats = fs::read_to_string("/proc/lockdep_stats").ok()?;
    let line = stats
        .lines()
        .find_map(|line| line.trim().strip_prefix("debug_locks:"));
    Some(line.map(str::trim) == Some("1"))
}

/// To a process, which may be gone by now.
pub fn signal(pid: u32, signal: libc::c_int) {
    // SAFETY: numbers only.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

/// Run `argv` to its end; it must succeed.
pub fn run(argv: &[&str]) -> Result<(), Failed> {
    let out = Command::new(argv[0]).args(&argv[1..]).output()?;
    ensure(out.status.success(), || {
        format!("{argv:?}: {}", String::from_utf8_lossy(&out.stderr))
    })
}

/// Wait until `done` holds; the error says `what` was waited for.
pub fn wait_for(
    what: &str,
    at_most: Duration,
    mut done: impl FnMut() -> bool,
) -> Result<(), Failed> {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > at_most {
            return Err(format!("waited {at_most:?} in vain: {what}").into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Fail with `message` unless `condition` holds.
pub fn ensure(condition: bool, message: impl FnOnce() -> String) -> Result<(), Failed> {
    if condition {
        Ok(())
    } else {
        Err(message().into())
    }
}
