// SPDX-License-Identifier: GPL-2.0-only
//! A lock that changes hands while a donor waits for it: whoever owns it *now*
//! must run in the donor's context.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;

use crate::Test;
use crate::load::{Load, cpu_time_ns};
use crate::machine::{ensure, run, wait_for};
use crate::sched;

pub const TESTS: &[Test] = &[(
    "handover::donor_follows_the_lock_to_its_next_owner",
    donor_follows_the_lock,
)];

const FILE: &str = "/run/handover";
const BYTES: usize = 96 << 20;
const CPU_OF_OWNERS: usize = 1;
const CPU_OF_DONOR: usize = 2;

/// Without donation to the second owner it is about 70, see `inversion`.
const DONATED_MAX: f64 = 6.0;

/// A thread with its own CPU and nice value that does one thing when told to.
struct Actor {
    tid: u32,
    go: Sender<()>,
    thread: JoinHandle<std::io::Result<Duration>>,
}

fn own_tid() -> Option<u32> {
    fs::read_link("/proc/thread-self")
        .ok()?
        .file_name()?
        .to_str()?
        .parse()
        .ok()
}

impl Actor {
    fn new(
        cpu: usize,
        nice: i32,
        act: impl FnOnce() -> std::io::Result<()> + Send + 'static,
    ) -> Result<Self, Failed> {
        let (tell_tid, tid): (_, Receiver<Option<u32>>) = channel();
        let (go, told) = channel();
        let thread = spawn(move || {
            let _ = tell_tid.send(own_tid());
            let _ = told.recv();
            let start = Instant::now();
            act()?;
            Ok(start.elapsed())
        });
        let tid = tid.recv()?.ok_or("a thread without an id")?;
        let text = tid.to_string();
        run(&["taskset", "-pc", &cpu.to_string(), &text])?;
        run(&["renice", "-n", &nice.to_string(), "-p", &text])?;
        Ok(Self { tid, go, thread })
    }

    fn go(&self) -> Result<(), Failed> {
        Ok(self.go.send(())?)
    }

    fn sleeps_uninterruptibly(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/self/task/{}/stat", self.tid));
        stat.is_ok_and(|stat| {
            stat.rsplit(") ")
                .next()
                .is_some_and(|rest| rest.starts_with('D'))
        })
    }

    fn done(self) -> Result<Duration, Failed> {
        Ok(self.thread.join().map_err(|_| "a thread panicked")??)
    }
}

/// Reads the whole file at once, and so holds its f_pos_lock for long.
fn reader(file: &File) -> Result<Actor, Failed> {
    let file = file.try_clone()?;
    let mut buffer = vec![1_u8; BYTES];
    Actor::new(CPU_OF_OWNERS, 19, move || {
        (&file).read(&mut buffer).map(drop)
    })
}

fn donor_follows_the_lock() -> Result<(), Failed> {
    sched::with(&[], || {
        fs::write(FILE, vec![1_u8; 2 * BYTES])?;
        let file = File::open(FILE)?;
        let mut load = Load::default();
        let hogs =
            [load.hog(CPU_OF_OWNERS, 0)?, load.hog(CPU_OF_OWNERS, 0)?].map(|p| p.to_string());
        run(&["kill", "-STOP", &hogs[0], &hogs[1]])?;
        let (first, second) = (reader(&file)?, reader(&file)?);
        let shared = file.try_clone()?;
        let donor = Actor::new(CPU_OF_DONOR, -10, move || {
            (&shared).stream_position().map(drop)
        })?;

        first.go()?;
        std::thread::sleep(Duration::from_millis(10));
        second.go()?;
        wait_for(
            "the second owner to wait for the first",
            Duration::from_secs(10),
            || second.sleeps_uninterruptibly(),
        )?;
        run(&["kill", "-CONT", &hogs[0], &hogs[1]])?;
        let cpu_ns =
            || -> Result<u64, Failed> { Ok(cpu_time_ns(first.tid)? + cpu_time_ns(second.tid)?) };
        let (before, second_before) = (cpu_ns()?, cpu_time_ns(second.tid)?);
        donor.go()?;
        wait_for("the donor to wait", Duration::from_secs(10), || {
            donor.sleeps_uninterruptibly()
        })?;
        let (first_tid, second_tid) = (first.tid, second.tid);
        // what the owners used is read while their threads still exist
        let mut after = (before, second_before);
        wait_for("the donor to get the lock", Duration::from_secs(60), || {
            if let (Ok(a), Ok(b)) = (cpu_time_ns(first_tid), cpu_time_ns(second_tid)) {
                after = (a + b, b);
            } else if let Ok(b) = cpu_time_ns(second_tid) {
                after = (after.0.max(before) + b.saturating_sub(after.1), b);
            }
            donor.thread.is_finished()
        })?;
        let wait = donor.done()?;
        first.done()?;
        second.done()?;
        let second_ms = (after.1 - second_before) as f64 / 1e6;
        let needed_ms = (after.0 - before) as f64 / 1e6;
        let factor = wait.as_secs_f64() * 1e3 / needed_ms;
        println!(
            "waited {wait:?} for {needed_ms:.0} ms, {second_ms:.0} of them the second owner's: factor {factor:.2}"
        );
        ensure(second_ms >= 20.0, || {
            "not staged: the lock did not change hands".into()
        })?;
        ensure(factor <= DONATED_MAX, || format!("factor {factor:.2}"))
    })
}
