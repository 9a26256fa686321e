// SPDX-License-Identifier: GPL-2.0-only
//! User space says who owns its mutexes, and may lie: a thread can lend its own share to a
//! thread of its own process, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use libtest_mimic::Failed;
use scx_proxy::stats::Metrics;

use crate::Test;
use crate::load::{Load, cpu_time_ns};
use crate::machine::{ensure, wait_for};
use crate::sched::{self, Stats};

pub const TESTS: &[Test] = &[
    (
        "forge::others_owners_are_not_lent_to",
        others_owners_are_not_lent_to,
    ),
    (
        "forge::lends_its_own_share_and_no_more",
        lends_its_own_share_and_no_more,
    ),
    (
        "forge::candidates_are_lent_the_forgers_share_and_no_more",
        candidates_are_lent_the_forgers_share_and_no_more,
    ),
    (
        "forge::candidates_of_others_are_not_lent_to",
        candidates_of_others_are_not_lent_to,
    ),
];

const CPU: usize = 2;
const MEASURED: Duration = Duration::from_secs(8);
const LEARNED: Duration = Duration::from_secs(120);
/// By how much a share may be moved, of the whole.
const MOVED_MAX: f64 = 0.02;
/// No task has this TID: it is above the kernel's limit for pids.
const NO_TID: u32 = 0x3fff_ffff;

/// The beginning of a mutex that says: contended, and owned by that TID.
#[repr(C, align(8))]
pub struct Forged {
    words: [AtomicU32; 6],
    /// The futex word among them, and what it is.
    waited_at: usize,
    value: u32,
}

impl Forged {
    pub fn owned_by(tid: u32) -> Self {
        Self {
            words: [2, 0, tid, 1, 0, 0].map(AtomicU32::new),
            waited_at: 0,
            value: 2,
        }
    }

    /// As musl lays it out: its type, and a word that is the owner's TID.
    pub fn of_musl(kind: u32, tid: u32) -> Self {
        let value = tid | 0x8000_0000;
        Self {
            words: [kind, value, 1, 0, 0, 0].map(AtomicU32::new),
            waited_at: 1,
            value,
        }
    }

    /// Waits for it, as a contended pthread mutex is waited for; nobody ever wakes it.
    pub fn wait(&self, op: libc::c_int) {
        let at_most = libc::timespec {
            tv_sec: 0,
            tv_nsec: 300_000,
        };
        // SAFETY: the word and the time are valid; the kernel reads them only.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.words[self.waited_at].as_ptr(),
                op,
                self.value,
                std::ptr::from_ref(&at_most),
            )
        };
    }
}

/// Threads of this process, ended when this is dropped.
#[derive(Default)]
pub struct Threads {
    stop: Arc<AtomicBool>,
    all: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts a thread on `CPU`; its TID.
    pub fn start(&mut self, part: impl Fn() + Send + 'static) -> u32 {
        let (stop, tid) = (self.stop.clone(), Arc::new(AtomicU32::new(0)));
        let tell = tid.clone();
        self.all.push(std::thread::spawn(move || {
            let set = 1_u64 << CPU;
            // SAFETY: the set is valid and as long as said; 0 is the calling thread.
            let tid = unsafe {
                libc::sched_setaffinity(0, size_of_val(&set), std::ptr::from_ref(&set).cast());
                libc::gettid()
            };
            tell.store(tid as u32, Ordering::Release);
            while !stop.load(Ordering::Relaxed) {
                part();
            }
        }));
        while tid.load(Ordering::Acquire) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        tid.load(Ordering::Acquire)
    }

    pub fn forge(&mut self, tid: u32, op: libc::c_int) -> u32 {
        let forged = Forged::owned_by(tid);
        self.start(move || forged.wait(op))
    }

    pub fn forge_musl(&mut self, kind: u32, tid: u32) -> u32 {
        let forged = Forged::of_musl(kind, tid);
        self.start(move || forged.wait(libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.all.drain(..) {
            let _ = thread.join();
        }
    }
}

/// CPU time that each task used while it was measured.
fn used_ns(tasks: &[u32]) -> Result<Vec<f64>, Failed> {
    // every task of the test is on one CPU, so it takes a moment until all have begun
    std::thread::sleep(Duration::from_millis(500));
    let times = || {
        tasks
            .iter()
            .map(|t| cpu_time_ns(*t))
            .collect::<Result<Vec<_>, _>>()
    };
    let before = times()?;
    std::thread::sleep(MEASURED);
    let after = times()?;
    Ok(after
        .iter()
        .zip(before)
        .map(|(a, b)| (a - b) as f64)
        .collect())
}

/// Something is `lent` to the owner, and two hogs beside it and the forger keep a half of the CPU.
fn hogs_keep_half(
    hogs: [u32; 2],
    owner: u32,
    forger: u32,
    lent: impl Fn(&Metrics) -> u64,
) -> Result<(), Failed> {
    let mut stats = Stats::open()?;
    // who uses a lock that names no owner is learned from turns of theirs, which take long beside two hogs
    wait_for("something to be lent", LEARNED, || {
        stats.delta().is_ok_and(|metrics| lent(&metrics) > 0)
    })?;
    let used = used_ns(&[hogs[0], hogs[1], owner, forger])?;
    let metrics = stats.delta()?;
    let all: f64 = used.iter().sum();
    let share = |nr: usize| used[nr] / all;
    println!(
        "hogs {:.3} {:.3}, owner {:.3}, forger {:.3}; donations {} missed {}",
        share(0),
        share(1),
        share(2),
        share(3),
        lent(&metrics),
        metrics.candidates_missed,
    );
    ensure(lent(&metrics) > 0, || "nothing was lent".into())?;
    for hog in [0, 1] {
        ensure(share(hog) >= 0.25 - MOVED_MAX, || {
            format!("a hog has {:.3} of the CPU", share(hog))
        })?;
    }
    Ok(())
}

/// A foreign process, an exited one, one that cannot be, through private and shared futexes:
/// of two hogs neither gains by being named.
fn others_owners_are_not_lent_to() -> Result<(), Failed> {
    sched::with(&[], || {
        let mut load = Load::default();
        let exited = load.start(&["true"])?;
        let named = load.hog(CPU, 0)?;
        let other = load.hog(CPU, 0)?;
        let mut threads = Threads::default();
        let private = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        threads.forge(named, private);
        threads.forge(named, libc::FUTEX_WAIT);
        threads.forge(exited, private);
        threads.forge(NO_TID, private);
        let mut stats = Stats::open()?;
        let used = used_ns(&[named, other])?;
        let metrics = stats.delta()?;
        let moved = (used[0] - used[1]).abs() / (used[0] + used[1]);
        println!(
            "named {:.0} ms, other {:.0} ms; unproven {} pthread edges {} donations {}",
            used[0] / 1e6,
            used[1] / 1e6,
            metrics.unproven,
            metrics.edges_pthread,
            metrics.donations_pthread
        );
        ensure(metrics.unproven > 100, || "nothing was forged".into())?;
        ensure(metrics.donations_pthread == 0, || "a forger lent".into())?;
        ensure(moved <= MOVED_MAX, || {
            format!("who was named got {:.1} % more or less", 100.0 * moved)
        })
    })
}

/// A forger that names a thread of its own lends to it what it could have used itself:
/// beside these two, two hogs keep a half of the CPU.
fn lends_its_own_share_and_no_more() -> Result<(), Failed> {
    sched::with(&[], || {
        let mut load = Load::default();
        let hogs = [load.hog(CPU, 0)?, load.hog(CPU, 0)?];
        let mut threads = Threads::default();
        let owner = threads.start(std::hint::spin_loop);
        let forger = threads.forge(owner, libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG);
        hogs_keep_half(hogs, owner, forger, |metrics| metrics.donations_pthread)
    })
}

/// A word that looks as if it was a lock: one thread waits, another wakes it, whatever it says.
#[repr(C, align(8))]
struct Word(AtomicU32);

impl Word {
    /// Held, for all that anybody can see.
    const HELD: u32 = 1;

    fn futex(&self, op: libc::c_int, value: u32) {
        let at_most = libc::timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        let time = match op & !libc::FUTEX_PRIVATE_FLAG {
            libc::FUTEX_WAIT => std::ptr::from_ref(&at_most),
            _ => std::ptr::null(),
        };
        // SAFETY: the word and the time are valid; the kernel reads them only.
        unsafe { libc::syscall(libc::SYS_futex, self.0.as_ptr(), op, value, time) };
    }

    fn wait(&self, flags: libc::c_int) {
        self.futex(libc::FUTEX_WAIT | flags, Self::HELD);
    }

    fn wake(&self, flags: libc::c_int) {
        self.futex(libc::FUTEX_WAKE | flags, 1);
    }

    /// What an owner of such a lock seems to do: computes, and lets somebody have it.
    fn compute_and_wake(&self, flags: libc::c_int) {
        for _ in 0..200_000 {
            std::hint::spin_loop();
        }
        self.wake(flags);
    }
}

/// A process that pretends to use a lock with its own threads lends to these what it could have
/// used: beside an owner and a forger, two hogs keep a half of the CPU.
fn candidates_are_lent_the_forgers_share_and_no_more() -> Result<(), Failed> {
    sched::with(&[], || {
        let mut load = Load::default();
        let hogs = [load.hog(CPU, 0)?, load.hog(CPU, 0)?];
        let mut threads = Threads::default();
        let word = Arc::new(Word(AtomicU32::new(Word::HELD)));
        let private = libc::FUTEX_PRIVATE_FLAG;
        let turns = AtomicU32::new(1);
        let (held, waited) = (word.clone(), word.clone());
        let owner = threads.start(move || {
            held.compute_and_wake(private);
            // who unlocks must have locked, and so waited at some time
            if turns.fetch_add(1, Ordering::Relaxed).is_multiple_of(8) {
                held.wait(private);
            }
        });
        let forger = threads.start(move || {
            waited.wait(private);
            waited.wake(private);
        });
        hogs_keep_half(hogs, owner, forger, |metrics| metrics.donations_futex)
    })
}

/// A word in memory that a child process shares.
struct SharedWord(*const Word);

// SAFETY: the word is atomic, and stays mapped.
unsafe impl Send for SharedWord {}
// SAFETY: as above.
unsafe impl Sync for SharedWord {}

impl SharedWord {
    fn new() -> Result<Self, Failed> {
        let (rw, shared) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a new mapping at a place that the kernel chooses.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, rw, shared, -1, 0) };
        ensure(at != libc::MAP_FAILED, || "no shared memory".into())?;
        let word = Self(at.cast());
        word.get().0.store(Word::HELD, Ordering::Release);
        Ok(word)
    }

    fn get(&self) -> &Word {
        // SAFETY: mapped by new() and never unmapped; zero and any other value are valid.
        unsafe { &*self.0 }
    }
}

/// A child process that seems to own the lock at the word: its pid.
fn foreign_owner(word: &SharedWord) -> Result<u32, Failed> {
    // SAFETY: the child makes system calls only, and never returns.
    let pid = unsafe { libc::fork() };
    ensure(pid >= 0, || "cannot fork".into())?;
    if pid > 0 {
        return Ok(pid as u32);
    }
    let set = 1_u64 << CPU;
    // SAFETY: the set is valid and as long as said.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::sched_setaffinity(0, size_of_val(&set), std::ptr::from_ref(&set).cast());
    }
    loop {
        word.get().compute_and_wake(0);
    }
}

/// Another process uses the same lock, in memory that both share: of it and a hog neither
/// gains.
fn candidates_of_others_are_not_lent_to() -> Result<(), Failed> {
    sched::with(&[], || {
        let word = Arc::new(SharedWord::new()?);
        let named = foreign_owner(&word)?;
        let mut load = Load::default();
        let other = load.hog(CPU, 0)?;
        let mut threads = Threads::default();
        for _ in 0..2 {
            let word = word.clone();
            threads.start(move || {
                word.get().wait(0);
                word.get().wake(0);
            });
        }
        let mut stats = Stats::open()?;
        let used = used_ns(&[named, other]);
        let metrics = stats.delta()?;
        // SAFETY: a child of ours, which is reaped here.
        unsafe {
            libc::kill(named as libc::pid_t, libc::SIGKILL);
            libc::waitpid(named as libc::pid_t, std::ptr::null_mut(), 0);
        }
        let used = used?;
        let moved = (used[0] - used[1]).abs() / (used[0] + used[1]);
        println!(
            "named {:.0} ms, other {:.0} ms; futex edges {} donations {}",
            used[0] / 1e6,
            used[1] / 1e6,
            metrics.edges_futex,
            metrics.donations_futex
        );
        let waited = metrics.waits_futex + metrics.edges_futex;
        ensure(waited > 100, || "nobody waited".into())?;
        ensure(moved <= MOVED_MAX, || {
            format!("who used the lock got {:.1} % more or less", 100.0 * moved)
        })
    })
}
