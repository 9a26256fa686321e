// SPDX-License-Identifier: GPL-2.0-only
//! Owns the life of child processes: a `Child` is killed and reaped, by its pid, when it is dropped,
//! on every path (error, Ctrl-C, panic). Should this process die without unwinding, the kernel kills
//! the children (PR_SET_PDEATHSIG).
//!
//! The program has one thread, so a child may use everything after the fork. It never returns into
//! the parent's code: its body's value is its exit status.

use crate::sys;
use anyhow::{Context, Result, bail};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

const STOP_LIMIT: Duration = Duration::from_secs(10);
const STOP_STEP: Duration = Duration::from_millis(1);

/// Exit status of a child whose body panicked.
const STATUS_PANIC: i32 = 101;

#[derive(Debug)]
pub struct Child {
    pid: libc::pid_t,
    reaped: bool,
}

impl Child {
    /// Forks; the child runs `body` at `nice`, pinned to `cpu` if one is given.
    pub fn spawn(cpu: Option<usize>, nice: i32, body: impl FnOnce() -> i32) -> Result<Child> {
        sys::check_interrupt()?;
        // SAFETY: getpid has no preconditions.
        let parent = unsafe { libc::getpid() };
        // SAFETY: the process has one thread, so the child's memory is consistent after the fork.
        let pid = unsafe { libc::fork() };
        if pid < 0 {
            return Err(io::Error::last_os_error()).context("cannot fork");
        }
        if pid > 0 {
            return Ok(Child { pid, reaped: false });
        }
        let status = catch_unwind(AssertUnwindSafe(|| match settle_in(parent, cpu, nice) {
            Ok(()) => body(),
            Err(error) => error.raw_os_error().unwrap_or(1),
        }));
        // SAFETY: ends the child without running any of the parent's destructors or exit handlers.
        unsafe { libc::_exit(status.unwrap_or(STATUS_PANIC)) }
    }

    pub fn pid(&self) -> libc::pid_t {
        self.pid
    }

    /// Whether the child sleeps uninterruptibly, as waiters for kernel locks do.
    pub fn is_blocked(&self) -> bool {
        self.stat().is_some_and(|stat| stat.state == 'D')
    }

    /// None once the child is gone.
    pub fn stat(&self) -> Option<Stat> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        Stat::of(&stat)
    }

    /// How often the child lost the CPU to another task so far.
    pub fn preemptions(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid);
        let status =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        preemptions_in(&status).with_context(|| format!("{path} counts no context switches"))
    }

    /// Sends a stop and returns at once; `wait_stopped` waits for it.
    pub fn stop(&self) {
        self.signal(libc::SIGSTOP);
    }

    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    pub fn wait_stopped(&mut self) -> Result<()> {
        let stopped = sys::poll_until(STOP_LIMIT, STOP_STEP, || {
            match self.poll(libc::WUNTRACED)? {
                Some(status) if libc::WIFSTOPPED(status) => Ok(true),
                Some(status) => bail!("a child ended early ({})", describe(status)),
                None => Ok(false),
            }
        })?;
        if !stopped {
            bail!(
                "child {} did not stop within {} s",
                self.pid,
                STOP_LIMIT.as_secs()
            );
        }
        Ok(())
    }

    /// None while the child lives; otherwise how it ended.
    pub fn ended(&mut self) -> Result<Option<String>> {
        Ok(self.poll(0)?.map(describe))
    }

    fn poll(&mut self, flags: libc::c_int) -> Result<Option<libc::c_int>> {
        if self.reaped {
            bail!("child {} has been reaped already", self.pid);
        }
        let mut status = 0;
        // SAFETY: `status` is valid for writing, and the pid is an unreaped child of ours.
        let pid = unsafe { libc::waitpid(self.pid, &mut status, libc::WNOHANG | flags) };
        if pid < 0 {
            return Err(io::Error::last_os_error()).context("cannot wait for a child");
        }
        if pid == 0 {
            return Ok(None);
        }
        self.reaped = libc::WIFEXITED(status) || libc::WIFSIGNALED(status);
        Ok(Some(status))
    }

    fn signal(&self, signal: libc::c_int) {
        if !self.reaped {
            // SAFETY: the pid is an unreaped child of ours, so it cannot name another process.
            unsafe { libc::kill(self.pid, signal) };
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
        while !self.reaped {
            // SAFETY: a null status is allowed, and the pid is an unreaped child of ours.
            let pid = unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
            let again = pid < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted;
            self.reaped = !again;
        }
    }
}

/// The first steps of a child: die with the parent, take its nice value and its CPU.
fn settle_in(parent: libc::pid_t, cpu: Option<usize>, nice: i32) -> io::Result<()> {
    sys::default_signals();
    // SAFETY: takes numbers only.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong);
        // The parent may have died before the line above took effect.
        if libc::getppid() != parent {
            libc::_exit(1);
        }
    }
    sys::set_nice(0, nice)?;
    cpu.map_or(Ok(()), sys::pin_to)
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

fn describe(status: libc::c_int) -> String {
    if libc::WIFSIGNALED(status) {
        format!("killed by signal {}", libc::WTERMSIG(status))
    } else {
        format!("exit status {}", libc::WEXITSTATUS(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_child_has_a_stat() -> Result<()> {
        let child = Child::spawn(None, 5, || {
            std::thread::sleep(STOP_LIMIT);
            0
        })?;
        let asleep = sys::poll_until(STOP_LIMIT, STOP_STEP, || {
            let stat = child.stat();
            Ok(stat.is_some_and(|stat| stat.is_asleep() && stat.nice == 5))
        })?;
        assert!(asleep);
        Ok(())
    }

    #[test]
    fn preemptions_are_found() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t3\nnonvoluntary_ctxt_switches:\t41\n";
        assert_eq!(preemptions_in(status), Some(41));
        assert_eq!(preemptions_in("Name:\tx\n"), None);
    }

    #[test]
    fn status_is_described() {
        assert_eq!(describe(9), "killed by signal 9");
        assert_eq!(describe(3 << 8), "exit status 3");
    }
}
