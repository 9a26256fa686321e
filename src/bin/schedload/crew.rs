// SPDX-License-Identifier: GPL-2.0-only
//! Owns the life of child processes: they are killed and reaped when the `Crew` is dropped, and the kernel kills
//! them should this process die otherwise (PR_SET_PDEATHSIG).
//!
//! The program has one thread, so a child may use everything after the fork. It never returns into the parent's
//! code: its body's value is its exit status.

use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Exit status of a child whose body panicked.
const STATUS_PANIC: i32 = 101;

#[derive(Debug, Default)]
pub struct Crew {
    /// Those that are not reaped, so that no pid of them can name another process.
    pids: BTreeSet<libc::pid_t>,
}

impl Crew {
    /// Forks; the child runs `body`.
    pub fn fork(&mut self, body: impl FnOnce() -> i32) -> Result<libc::pid_t> {
        let pid = fork(body).context("cannot fork")?;
        self.pids.insert(pid);
        Ok(pid)
    }

    /// Fails if a child has ended, which none does before it is killed.
    pub fn check(&mut self) -> Result<()> {
        let mut status = 0;
        // SAFETY: `status` is valid for writing.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
        if pid <= 0 {
            return Ok(());
        }
        self.pids.remove(&pid);
        if libc::WIFSIGNALED(status) {
            let signal = libc::WTERMSIG(status);
            bail!("a task was killed by signal {signal} before its time");
        }
        let status = libc::WEXITSTATUS(status);
        bail!("a task ended before its time, with status {status}");
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for pid in &self.pids {
            // SAFETY: an unreaped child of ours.
            unsafe { libc::kill(*pid, libc::SIGKILL) };
        }
        for pid in &self.pids {
            wait(*pid);
        }
    }
}

/// Forks; the child dies with its parent at the latest.
pub fn fork(body: impl FnOnce() -> i32) -> io::Result<libc::pid_t> {
    // SAFETY: getpid has no preconditions; the process has one thread, so the child's memory is consistent.
    let (parent, pid) = unsafe { (libc::getpid(), libc::fork()) };
    if pid != 0 {
        return match pid {
            1.. => Ok(pid),
            _ => Err(io::Error::last_os_error()),
        };
    }
    // SAFETY: takes numbers only. The parent may have died before the first line took effect.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong);
        if libc::getppid() != parent {
            libc::_exit(1);
        }
    }
    let status = catch_unwind(AssertUnwindSafe(body)).unwrap_or(STATUS_PANIC);
    // SAFETY: ends the process without any of the parent's destructors or exit handlers.
    unsafe { libc::_exit(status) }
}

/// Waits for a child to end, and reaps it.
pub fn wait(pid: libc::pid_t) {
    loop {
        // SAFETY: a null status is allowed.
        let done = unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        if done >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crew_takes_its_children_along() -> Result<()> {
        let mut crew = Crew::default();
        let pid = crew.fork(|| {
            std::thread::sleep(std::time::Duration::from_secs(600));
            0
        })?;
        drop(crew);
        // SAFETY: signal 0 only asks whether there is such a process.
        assert_eq!(unsafe { libc::kill(pid, 0) }, -1);
        Ok(())
    }
}
