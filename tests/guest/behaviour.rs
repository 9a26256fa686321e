// SPDX-License-Identifier: GPL-2.0-only
//! What must hold whatever runs: nothing is left behind, time is conserved,
//! uncontended work pays nothing, the kernel log stays clean.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;

use crate::Test;

use crate::load::{Load, cpu_time_ns};
use crate::machine::{
    cpus, ensure, kernel_warnings, locks_are_checked, signal, user_ticks, wait_for,
};
use crate::sched::{self, SCX_PROXY, Stats};
use crate::stage;
use scx_proxy::model::program::{CpuMask, mask_of};
use scx_proxy::stats::Metrics;

pub const TESTS: &[Test] = &[
    (
        "behaviour::monitor_prints_the_stats",
        monitor_prints_the_stats,
    ),
    (
        "behaviour::uncontended_work_shows_no_edge",
        uncontended_work_shows_no_edge,
    ),
    (
        "behaviour::all_cpu_time_is_charged",
        all_cpu_time_is_charged,
    ),
    (
        "behaviour::stress_leaves_nothing_behind",
        stress_leaves_nothing_behind,
    ),
    (
        "behaviour::mixed_load_reaches_every_cpu",
        mixed_load_reaches_every_cpu,
    ),
];

pub const LAST: &[Test] = &[("behaviour::kernel_log_is_clean", kernel_log_is_clean)];

/// `SCX_PROXY_STRESS_SECS` sets another, as `scripts/test` does for machines of other sizes; a longer one takes
/// a CPU away and brings it back, twice.
const STRESS_SECS: u64 = 60;
const QUIET: Duration = Duration::from_secs(30);

/// `--monitor` beside the scheduler: stats on stdout until Ctrl-C, which is no error.
fn monitor_prints_the_stats() -> Result<(), Failed> {
    sched::with(&[], || {
        let monitor = Command::new(SCX_PROXY)
            .args(["--monitor", "0.1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        std::thread::sleep(Duration::from_secs(2));
        Command::new("kill")
            .args(["-INT", &monitor.id().to_string()])
            .status()?;
        let out = monitor.wait_with_output()?;
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        ensure(out.status.success(), || format!("{}", out.status))?;
        ensure(said.matches("[proxy] picks:").count() >= 2, || {
            format!("printed {said:?}")
        })
    })
}

/// One process does locked work by itself; counters of the idle rest stay small.
fn uncontended_work_shows_no_edge() -> Result<(), Failed> {
    sched::with(&[], || {
        let mut stats = Stats::open()?;
        for _ in 0..200 {
            fs::write("/run/uncontended", "x")?;
            fs::rename("/run/uncontended", "/run/uncontended.2")?;
            fs::read("/proc/self/maps")?;
        }
        let metrics = stats.delta()?;
        ensure(metrics.runtime_ns > 0, || "no CPU time was counted".into())?;
        ensure(metrics.donations == 0, || {
            format!("{} donations", metrics.donations)
        })
    })
}

/// Those that `pid` has started, as long as they live. `pgrep` reads all of /proc, which takes it half a minute
/// beside the stress.
fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let text = text.unwrap_or_default();
    let pids = text.split_whitespace();
    pids.filter_map(|pid| pid.parse().ok()).collect()
}

/// Threads that map and unmap memory of one address space; they end when this is dropped.
struct Mappers(Arc<AtomicBool>, Vec<std::thread::JoinHandle<()>>);

impl Mappers {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let map = |stop: Arc<AtomicBool>| {
            while !stop.load(Ordering::Relaxed) {
                // larger than what the allocator keeps for itself: mmap, faults, munmap
                std::hint::black_box(vec![1_u8; 8 << 20]);
            }
        };
        let threads = (0..3)
            .map(|_| stop.clone())
            .map(|stop| std::thread::spawn(move || map(stop)));
        let threads = threads.collect();
        Self(stop, threads)
    }
}

impl Drop for Mappers {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        for thread in self.1.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Between two changes of affinities.
const TURN: Duration = Duration::from_millis(20);

/// Affinities change, signals interrupt waits, tasks die while they wait.
pub fn stress(time: Duration) -> Result<(), Failed> {
    let mut load = Load::default();
    let hackbench = load.start(&["hackbench", "-p", "-g", "2", "-l", "100000000"])?;
    load.start(&[
        "sh",
        "-c",
        "while :; do mkdir -p /run/a /run/b; mv /run/a /run/b/a; mv /run/b/a /run/a; done",
    ])?;
    load.start(&["sh", "-c", "while :; do /bin/true; done"])?;
    let mappers = Mappers::start();
    let directed = stage::promptly(|| direct(hackbench, time));
    drop(mappers);
    directed
}

fn direct(hackbench: u32, time: Duration) -> Result<(), Failed> {
    let cpus = cpus();
    let all = mask_of(cpus as u32);
    let start = Instant::now();
    let mut turn = 0_usize;
    while start.elapsed() < time {
        turn += 1;
        let one: CpuMask = 1 << (turn % cpus.min(64));
        let pids = children(hackbench);
        let mut pids = pids.into_iter().skip(turn % 7).step_by(7);
        for pid in pids.by_ref().take(3) {
            let mask = if turn.is_multiple_of(3) { all } else { one };
            stage::set_affinity(pid, mask)?;
        }
        if let Some(pid) = pids.next() {
            signal(pid, libc::SIGSTOP);
            signal(pid, libc::SIGCONT);
        }
        std::thread::sleep(TURN);
    }
    // tasks die in the middle of what they do
    let pids = children(hackbench);
    ensure(!pids.is_empty(), || "hackbench had ended".into())?;
    pids.into_iter().for_each(|pid| signal(pid, libc::SIGKILL));
    println!("{turn} turns");
    Ok(())
}

fn stress_secs() -> u64 {
    let secs = std::env::var("SCX_PROXY_STRESS_SECS").ok();
    secs.and_then(|secs| secs.parse().ok())
        .unwrap_or(STRESS_SECS)
}

fn stress_leaves_nothing_behind() -> Result<(), Failed> {
    sched::with(&[], || {
        let secs = stress_secs();
        if secs > STRESS_SECS {
            for _ in 0..2 {
                stress(Duration::from_secs(secs / 3))?;
                crate::lifecycle::hotplug()?;
            }
        }
        // hotplug restarts the scheduler: what follows is counted from here
        let mut stats = Stats::open()?;
        stress(Duration::from_secs(if secs > STRESS_SECS {
            secs / 3
        } else {
            secs
        }))?;
        let mut sum = stats.delta()?;
        println!(
            "stress: edges {} donations {} migrations {} lost races {} picks {}",
            sum.edges, sum.donations, sum.donor_migrations, sum.lost_races, sum.dispatch_queue,
        );
        ensure(sum.edges > 0, || "the stress made no contention".into())?;
        ensure(sum.dispatch_queue > 0, || {
            "the stress made no queueing".into()
        })?;
        wait_for(
            "all donors to be gone, and all time accounted for",
            QUIET,
            || {
                stats.delta().is_ok_and(|metrics| {
                    add_times(&mut sum, &metrics);
                    let left = metrics.donors_waiting_now
                        + metrics.donors_queued_now
                        + metrics.tasks_queued_now;
                    left == 0 && conserved(&sum)
                })
            },
        )
        .map_err(|_| format!("left behind: {sum:?}, {:?}", stats.delta()))?;
        Ok(())
    })
}

/// A spinner for each CPU, pairs that pass bytes, and processes that fork, all of which may run anywhere. Short,
/// since each second of 64 CPUs takes minutes where one after the other is emulated.
fn mixed_load_reaches_every_cpu() -> Result<(), Failed> {
    const SCHEDLOAD: &str = env!("CARGO_BIN_EXE_schedload");
    // a tick of one of 64 emulated CPUs is a matter of chance: in 5 s each has five of them on average
    const SPREAD: Duration = Duration::from_secs(30);
    const MORE: Duration = Duration::from_secs(1);
    sched::with(&[], || {
        let mut stats = Stats::open()?;
        let before = user_ticks();
        let mut load = Load::default();
        for what in [
            &["pipe", "--pairs", "8"][..],
            &["forks", "--jobs", "8"],
            &["spin", "--spec", &cpus().to_string()],
        ] {
            let time = ["--secs", "600", "--settle", "0.001"];
            load.start(&[&[SCHEDLOAD], what, &time].concat())?;
        }
        let ran = || {
            let now = user_ticks();
            now.iter()
                .zip(&before)
                .map(|(now, was)| now - was)
                .collect()
        };
        let mut ticks: Vec<u64> = Vec::new();
        let spread = wait_for("every CPU to run something", SPREAD, || {
            ticks = ran();
            ticks.len() == cpus() && ticks.iter().all(|ticks| *ticks > 0)
        });
        std::thread::sleep(MORE);
        let metrics = stats.delta()?;
        println!(
            "picks {}, steals {}, pulls {}; user time in ticks {ticks:?}",
            metrics.dispatch_queue, metrics.dispatch_steal, metrics.dispatch_balance
        );
        spread?;
        ensure(metrics.dispatch_queue > 0, || "nothing was queued".into())?;
        ensure(metrics.cpus == cpus() as u64, || {
            format!("{} CPUs by the stats", metrics.cpus)
        })
    })
}

/// Counters are read one after the other while CPUs go on, so one reading may hold a charge
/// by half (1 in 20 does beside hackbench). What was lost or made would stay in the sum of all.
fn add_times(sum: &mut Metrics, metrics: &Metrics) {
    sum.runtime_ns += metrics.runtime_ns;
    sum.own_ns += metrics.own_ns;
    sum.donated_ns += metrics.donated_ns;
}

fn conserved(sum: &Metrics) -> bool {
    sum.runtime_ns == sum.own_ns + sum.donated_ns
}

/// What the scheduler charged is what the kernel says was run: neither less nor
/// more, with donations going on. Hogs fill every CPU, so little else runs.
fn all_cpu_time_is_charged() -> Result<(), Failed> {
    const TOLERANCE: f64 = 0.05;
    sched::with(&[], || {
        let mut load = Load::default();
        let mut pids = Vec::new();
        for cpu in 0..cpus() {
            pids.push(load.hog(cpu, 0)?);
            pids.push(load.hog(cpu, 5)?);
        }
        let kernel_says = || {
            pids.iter()
                .map(|pid| cpu_time_ns(*pid))
                .sum::<Result<u64, _>>()
        };
        let start = Instant::now();
        let mut stats = Stats::open()?;
        let before = kernel_says()?;
        load.start(&["hackbench", "-p", "-g", "1", "-l", "20"])?;
        std::thread::sleep(Duration::from_secs(4));
        let hogs_ns = (kernel_says()? - before) as f64;
        let metrics = stats.delta()?;
        let charged_ns = metrics.runtime_ns as f64;
        println!(
            "charged {charged_ns:.0} ns, hogs ran {hogs_ns:.0} ns, donated {}",
            metrics.donated_ns
        );
        // wall time by the guest's own clock, however long the host held it up
        let all_ns = cpus() as f64 * start.elapsed().as_nanos() as f64 * (1.0 + TOLERANCE);
        ensure(charged_ns >= hogs_ns * (1.0 - TOLERANCE), || {
            "less was charged than ran".into()
        })?;
        ensure(charged_ns <= all_ns, || "more was charged than ran".into())?;
        drop(load);
        let mut sum = metrics;
        wait_for("all time to be accounted for", QUIET, || {
            stats.delta().is_ok_and(|metrics| {
                add_times(&mut sum, &metrics);
                conserved(&sum)
            })
        })
        .map_err(|_| format!("time was lost or made: {sum:?}").into())
    })
}

fn kernel_log_is_clean() -> Result<(), Failed> {
    let warnings = kernel_warnings()?;
    ensure(warnings.is_empty(), || warnings.join("\n"))?;
    ensure(locks_are_checked() != Some(false), || {
        "the kernel checks its locks no longer (debug_locks in /proc/lockdep_stats)".to_string()
    })
}
