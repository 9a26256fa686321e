// SPDX-License-Identifier: GPL-2.0-only
//! Every wait is seen: tasks that sleep in futex() again and again, and are preempted on the
//! way there by others that do the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use libtest_mimic::Failed;

use crate::Test;
use crate::forge::{Forged, Threads};
use crate::machine::ensure;
use crate::sched::{self, Stats};

pub const TESTS: &[Test] = &[(
    "waits::every_wait_for_a_mutex_is_seen",
    every_wait_for_a_mutex_is_seen,
)];

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
