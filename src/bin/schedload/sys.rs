// SPDX-License-Identifier: GPL-2.0-only
//! Owns the small system calls: what a task is given, what is read of it, and what the machine is.

use crate::spec::Weight;
use anyhow::{Context, Result, bail};
use scx_proxy::clock;
use scx_rustland_core::ALLOCATOR;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU32;

fn checked(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Locks the memory of this process, as `cyclictest --mlockall` does, where it may: to page something in
/// would show in what it measures. Children do not inherit that. Using `ALLOCATOR` also makes it the
/// allocator of this program, with a heap of fixed size that is locked with the rest.
pub fn lock_memory() {
    let unlimited = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: a live rlimit.
    if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &unlimited) } == 0 {
        ALLOCATOR.lock_memory();
        // it has also set a sysctl of the whole machine, which is not to outlive us
        ALLOCATOR.unlock_memory();
    }
}

/// Sets the weight of this process.
pub fn set_weight(weight: Weight) -> io::Result<()> {
    match weight {
        // SAFETY: takes numbers only.
        Weight::Nice(nice) => checked(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }),
        Weight::Idle => {
            let param = libc::sched_param { sched_priority: 0 };
            // SAFETY: `param` is a valid sched_param.
            checked(unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &param) })
        }
    }
}

/// Lets this process run on `cpus` and nowhere else.
pub fn run_on(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: an all-zero set is an empty one; CPU numbers are below CPU_SETSIZE, which spec.rs sees to.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for cpu in cpus {
            libc::CPU_SET(*cpu, &mut set);
        }
        checked(libc::sched_setaffinity(0, size_of_val(&set), &set))
    }
}

/// The CPUs that this process may run on, in ascending order.
pub fn allowed_cpus() -> Result<Vec<usize>> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: `set` is valid for `size` bytes, and all-zero is a valid set should the call fail.
    let (result, set) = unsafe {
        let result = libc::sched_getaffinity(0, size, set.as_mut_ptr());
        (result, set.assume_init())
    };
    checked(result).context("cannot read on which CPUs to run")?;
    Ok((0..libc::CPU_SETSIZE as usize)
        // SAFETY: `cpu` is below CPU_SETSIZE.
        .filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) })
        .collect())
}

/// Refuses CPUs that there are none of: the kernel would leave them out in silence.
pub fn check_cpus(wanted: &[usize]) -> Result<()> {
    let allowed = allowed_cpus()?;
    if let Some(cpu) = wanted.iter().find(|cpu| !allowed.contains(cpu)) {
        let last = allowed.last().copied().unwrap_or(0);
        let count = allowed.len();
        bail!("CPU {cpu} cannot be used: there are {count}, the last is CPU {last}");
    }
    Ok(())
}

/// Sleeps of this process end when they should, not up to 50 us later.
pub fn least_timer_slack() {
    // SAFETY: takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}

/// Sleeps `ns` from now on.
pub fn nanosleep(ns: u64) {
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(ns / 1_000_000_000).unwrap_or(libc::time_t::MAX),
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: `time` is a valid timespec; what is left of the sleep is not asked for.
    unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &time, std::ptr::null_mut()) };
}

/// Gives a pipe room for so many bytes.
pub fn pipe_bytes(pipe: &impl AsRawFd, bytes: usize) -> io::Result<()> {
    let bytes = bytes as libc::c_int;
    // SAFETY: takes numbers only.
    match unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What would block on this end of a pipe fails instead.
pub fn never_block(pipe: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: takes numbers only.
    checked(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })
}

/// Whether nothing can be read from a pipe now.
pub fn is_empty(pipe: &impl AsRawFd) -> bool {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes an int, for which `bytes` is valid.
    let result = unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &mut bytes) };
    result == 0 && bytes == 0
}

/// CPU time that the process `pid` has used, exact to the moment, in ns.
pub fn cpu_time_ns(pid: libc::pid_t) -> io::Result<u64> {
    let mut id = 0;
    // SAFETY: `id` is valid for writing.
    match unsafe { libc::clock_getcpuclockid(pid, &mut id) } {
        0 => Ok(clock::ns(id)),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Sleeps while `word` is 0; may return earlier.
pub fn futex_wait_while_0(word: &AtomicU32) {
    let no_time: *const libc::timespec = std::ptr::null();
    // SAFETY: the word lives for the call, and without a time there is no limit.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, 0, no_time) };
}

/// Wakes all that sleep on `word`, in this process and in others.
pub fn futex_wake_all(word: &AtomicU32) {
    // SAFETY: the word lives for the call.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE,
            libc::c_int::MAX,
        )
    };
}

fn first_line(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.lines().next()?.trim().to_owned())
}

/// The running kernel's release, as `uname -r` prints it.
pub fn kernel_release() -> String {
    first_line("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned())
}

/// What the sched_ext scheduler that is loaded calls itself, or `default`.
pub fn scheduler() -> String {
    match first_line("/sys/kernel/sched_ext/state").as_deref() {
        Some("enabled") => first_line("/sys/kernel/sched_ext/root/ops")
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "unknown".to_owned()),
        _ => "default".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cpu_time_grows() -> Result<()> {
        let pid = std::process::id() as libc::pid_t;
        let before = cpu_time_ns(pid)?;
        while cpu_time_ns(pid)? <= before {}
        Ok(())
    }

    #[test]
    fn cpus_that_are_not_there_are_refused() {
        let said = check_cpus(&[libc::CPU_SETSIZE as usize - 1]).map_err(|e| e.to_string());
        assert!(said.is_err_and(|said| said.contains("cannot be used")));
    }
}
