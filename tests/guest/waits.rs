// SPDX-License-Identifier: GPL-2.0-only
//! Every wait is seen: tasks that sleep in futex() again and again, and are preempted on the
//! way there by others that do the same. Probes are left out meanwhile, which is counted.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use libtest_mimic::Failed;

use crate::Test;
use crate::forge::{Forged, Threads};
use crate::machine::ensure;
use crate::sched::{self, SCX_PROXY, Stats};

pub const TESTS: &[Test] = &[
    (
        "waits::every_wait_for_a_mutex_is_seen",
        every_wait_for_a_mutex_is_seen,
    ),
    (
        "waits::probes_that_are_skipped_are_counted",
        probes_that_are_skipped_are_counted,
    ),
];

const WAITERS: usize = 12;
const MEASURED: Duration = Duration::from_secs(5);
/// Sleeps in each thousand that may be for something else than the futex, a page for one.
const OTHERS_PER_MILLE: u64 = 1;

/// How often the calling thread went to sleep.
fn sleeps() -> u64 {
    // SAFETY: all-zero is a value of the structure, which is valid for writing.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage.ru_nvcsw as u64
    }
}

/// Threads that wait for a mutex of one of theirs sleep as often as edges are counted.
fn every_wait_for_a_mutex_is_seen() -> Result<(), Failed> {
    sched::with(&[], || {
        let slept = Arc::new(AtomicU64::new(0));
        let mut stats = Stats::open()?;
        let mut threads = Threads::default();
        let owner = threads.start(|| std::thread::sleep(Duration::from_millis(100)));
        for _ in 0..WAITERS {
            let (forged, slept) = (Forged::owned_by(owner), slept.clone());
            threads.start(move || {
                let before = sleeps();
                forged.wait(libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG);
                slept.fetch_add(sleeps() - before, Ordering::Relaxed);
            });
        }
        std::thread::sleep(MEASURED);
        drop(threads);
        let (slept, seen) = (slept.load(Ordering::Relaxed), stats.delta()?.edges_pthread);
        println!("{slept} sleeps, {seen} edges");
        ensure(slept > 2000, || format!("only {slept} sleeps"))?;
        let missed = slept.saturating_sub(seen);
        ensure(missed * 1000 <= slept * OTHERS_PER_MILLE, || {
            format!("{missed} of {slept} waits were not seen")
        })
    })
}

/// Goes through the kernel's function that waits for a futex, without waiting: the word has another value.
fn pass_by() {
    let word = AtomicU32::new(0);
    let op = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let no_timeout = std::ptr::null::<libc::timespec>();
    // SAFETY: the word is valid; the kernel reads it only.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, 1, no_timeout) };
}

/// The calling thread is real-time from now on.
fn be_real_time() {
    let param = libc::sched_param { sched_priority: 1 };
    // SAFETY: valid parameters; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) };
}

/// By probe, what `doctor` says of the scheduler that is loaded.
fn skipped() -> Result<Vec<(String, u64)>, Failed> {
    let out = Command::new(SCX_PROXY)
        .args(["doctor", "--json"])
        .output()?;
    let json: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    let probes = json["probes"].as_array().ok_or("no probes")?;
    let attached = probes.iter().filter(|probe| probe["attached"] == true);
    let skipped = attached.map(|probe| {
        let skipped = probe["skipped"].as_u64();
        let skipped = skipped.ok_or_else(|| format!("not known: {probe}"))?;
        Ok((probe["program"].as_str().unwrap_or("?").to_owned(), skipped))
    });
    skipped.collect()
}

/// A real-time thread preempts another in the probe at the beginning of a wait, and comes to it itself.
fn probes_that_are_skipped_are_counted() -> Result<(), Failed> {
    sched::with(&[], || {
        let mut stats = Stats::open()?;
        let before = skipped()?;
        let mut threads = Threads::default();
        threads.start(pass_by);
        threads.start(|| {
            be_real_time();
            std::thread::sleep(Duration::from_micros(200));
            pass_by();
        });
        std::thread::sleep(MEASURED);
        drop(threads);
        let (after, counted) = (skipped()?, stats.delta()?.recursion_misses);
        println!("{counted} skipped: {after:?}");
        let sum = |of: &[(String, u64)]| of.iter().map(|(_, skipped)| skipped).sum::<u64>();
        let told = sum(&after) - sum(&before);
        ensure(told > 0, || "none was skipped, or none counted".into())?;
        ensure(counted >= told, || format!("{counted} of {told} counted"))
    })
}
