// SPDX-License-Identifier: GPL-2.0-only
//! Owns what one task (a process, or one thread of it) shows to others and lets them set, by its id.
//! /proc/ID, nice values and policies of Linux are those of the one thread that has this id.
//!
//! CPU clocks are not: the clock of a process counts all of its threads, and that of a thread can be
//! read only from within its process. Others read what /proc counts for the thread.

use crate::sys;
use anyhow::{Context, Result};
use std::io;

/// The bits of a clock id that say "CPU time of one thread" (CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED).
const THREAD_CLOCK: libc::clockid_t = 4 | 2;

/// The holder makes sure that the task is not reaped meanwhile, so that the id stays its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    id: libc::pid_t,
}

impl Task {
    pub fn new(id: libc::pid_t) -> Task {
        Task { id }
    }

    /// The calling thread.
    pub fn current() -> Task {
        // SAFETY: gettid has no preconditions.
        Task::new(unsafe { libc::gettid() })
    }

    pub fn id(self) -> libc::pid_t {
        self.id
    }

    /// Whether it sleeps uninterruptibly, as waiters for locks of the kernel do.
    pub fn is_blocked(self) -> bool {
        self.stat().is_some_and(|stat| stat.state == 'D')
    }

    pub fn is_asleep(self) -> bool {
        self.stat().is_some_and(|stat| stat.is_asleep())
    }

    /// None once the task is gone.
    pub fn stat(self) -> Option<Stat> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id)).ok()?;
        Stat::of(&stat)
    }

    /// How often the task lost the CPU to another one so far.
    pub fn preemptions(self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.id);
        let status =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        preemptions_in(&status).with_context(|| format!("{path} counts no context switches"))
    }

    pub fn set_nice(self, nice: i32) -> io::Result<()> {
        sys::set_nice(self.id, nice)
    }

    /// CPU time the task has used: exact when it is off the CPU, as of its last tick otherwise. Of a
    /// process, all of its threads count.
    ///
    /// A caller in the same process allocates nothing here and touches no memory but its stack: it may
    /// be about to wait for mmap_lock, and must not do so early.
    pub fn cpu_ns(self) -> io::Result<u64> {
        let mut clock = 0;
        // SAFETY: `clock` is valid for writing; an id that is no process is refused with an error.
        if unsafe { libc::clock_getcpuclockid(self.id, &mut clock) } == 0 {
            return sys::clock_ns(clock);
        }
        sys::clock_ns(thread_clock(self.id)).or_else(|_| self.counted_cpu_ns())
    }

    fn counted_cpu_ns(self) -> io::Result<u64> {
        let counted = std::fs::read_to_string(format!("/proc/{}/schedstat", self.id))?;
        counted_in(&counted).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}

fn thread_clock(id: libc::pid_t) -> libc::clockid_t {
    (!id << 3) | THREAD_CLOCK
}

/// What a line of /proc/PID/stat says, as far as it is of use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub state: char,
    pub nice: i32,
    /// On which it runs or ran last.
    pub cpu: usize,
}

impl Stat {
    /// The command in the line may hold anything, but ends with the last closing bracket; the state
    /// comes next and is field 3 in proc(5).
    fn of(line: &str) -> Option<Stat> {
        let mut from_state = line.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = from_state.next()?.chars().next()?;
        let nice = from_state.nth(19 - 4)?.parse().ok()?;
        let cpu = from_state.nth(39 - 20)?.parse().ok()?;
        Some(Stat { state, nice, cpu })
    }

    pub fn is_asleep(&self) -> bool {
        matches!(self.state, 'S' | 'D')
    }

    /// On a CPU or waiting for one.
    pub fn is_runnable(&self) -> bool {
        self.state == 'R'
    }
}

fn preemptions_in(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"))?;
    line.trim().parse().ok()
}

/// The first number is the time on a CPU in ns; a kernel that does not count says 0 everywhere.
fn counted_in(schedstat: &str) -> Option<u64> {
    let mut numbers = schedstat.split_ascii_whitespace();
    let cpu_ns = numbers.next()?.parse().ok()?;
    let runs: u64 = numbers.nth(1)?.parse().ok()?;
    (runs > 0).then_some(cpu_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;
    use std::time::{Duration, Instant};

    #[test]
    fn stat_is_read_behind_the_command() {
        let fields: Vec<_> = (4..=52).map(|field| field.to_string()).collect();
        let line = format!("12 (a) b) c) D {}", fields.join(" "));
        let expected = Stat {
            state: 'D',
            nice: 19,
            cpu: 39,
        };
        assert_eq!(Stat::of(&line), Some(expected));
        assert!(expected.is_asleep() && !expected.is_runnable());
        assert_eq!(Stat::of("12 (a) R 1 2 3"), None);
        assert_eq!(Stat::of("nonsense"), None);
    }

    #[test]
    fn preemptions_are_found() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t3\nnonvoluntary_ctxt_switches:\t41\n";
        assert_eq!(preemptions_in(status), Some(41));
        assert_eq!(preemptions_in("Name:\tx\n"), None);
    }

    #[test]
    fn a_kernel_that_does_not_count_is_no_clock() {
        assert_eq!(counted_in("69593698 913209 22\n"), Some(69593698));
        assert_eq!(counted_in("0 0 0\n"), None);
        assert_eq!(counted_in(""), None);
    }

    #[test]
    fn a_thread_has_a_clock_of_its_own() -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(20) {
            black_box(());
        }
        // Not the main thread in a test; the process's clock would have counted its elder brothers.
        let task = Task::current();
        let used_ns = sys::clock_ns(thread_clock(task.id()))?;
        assert!(used_ns > 0 && used_ns <= sys::own_cpu_ns());
        assert!(task.cpu_ns()? >= used_ns);
        assert!(task.stat().is_some_and(|stat| stat.is_runnable()));
        Ok(())
    }

    #[test]
    fn a_task_that_does_not_exist_has_nothing() {
        let task = Task::new(1 << 27);
        assert!(task.cpu_ns().is_err());
        assert!(task.preemptions().is_err());
        assert!(task.stat().is_none());
        assert!(!task.is_asleep() && !task.is_blocked());
    }
}
