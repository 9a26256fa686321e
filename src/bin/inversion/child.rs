// SPDX-License-Identifier: GPL-2.0-only
//! Owns the life of child processes: a `Child` is killed and reaped, by its pid, when it is dropped,
//! on every path (error, Ctrl-C, panic). Should this process die without unwinding, the kernel kills
//! the children (PR_SET_PDEATHSIG).
//!
//! The program has one thread, so a child may use everything after the fork, and start threads (`spawn`).
//! It never returns into the parent's code: its body's value is its exit status.

use crate::sys;
use crate::task::Task;
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
        exit(guarded(|| match settle_in(parent, cpu, nice) {
            Ok(()) => body(),
            Err(error) => error.raw_os_error().unwrap_or(1),
        }))
    }

    pub fn pid(&self) -> libc::pid_t {
        self.pid
    }

    /// Valid while the child is not reaped.
    pub fn task(&self) -> Task {
        Task::new(self.pid)
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
    settle(cpu, nice)
}

/// Gives the calling thread its nice value and its CPU.
pub fn settle(cpu: Option<usize>, nice: i32) -> io::Result<()> {
    sys::set_nice(0, nice)?;
    cpu.map_or(Ok(()), sys::pin_to)
}

/// The exit status of a body, which must not unwind into what it was forked from.
pub fn guarded(body: impl FnOnce() -> i32) -> i32 {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(STATUS_PANIC)
}

/// Of a child: stops until its parent resumes it.
pub fn stop_self() {
    // SAFETY: raise has no preconditions.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// Ends a child, with all of its threads.
pub fn exit(status: i32) -> ! {
    // SAFETY: ends the process without running any of the parent's destructors or exit handlers.
    unsafe { libc::_exit(status) }
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
    fn a_child_has_a_stat() -> Result<()> {
        let child = Child::spawn(None, 5, || {
            std::thread::sleep(STOP_LIMIT);
            0
        })?;
        let asleep = sys::poll_until(STOP_LIMIT, STOP_STEP, || {
            let stat = child.task().stat();
            Ok(stat.is_some_and(|stat| stat.is_asleep() && stat.nice == 5))
        })?;
        assert!(asleep);
        Ok(())
    }

    #[test]
    fn status_is_described() {
        assert_eq!(describe(9), "killed by signal 9");
        assert_eq!(describe(3 << 8), "exit status 3");
    }
}
