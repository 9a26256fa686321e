// SPDX-License-Identifier: GPL-2.0-only
//! Owns the small system calls that several modules need: clocks, nice, policy, affinity,
//! context-switch counts, and the flag that Ctrl-C and SIGTERM raise. Every bounded wait of the program goes
//! through `poll_until`, so that each of them sees the flag.

use anyhow::{Context, Result, bail};
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Raised by the signal handler, never lowered.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The error that ends the program after Ctrl-C; main turns it into exit code 130.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

extern "C" fn on_signal(_signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

const ENDING_SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

fn set_handlers(handler: libc::sighandler_t) {
    for signal in ENDING_SIGNALS {
        // SAFETY: a zeroed sigaction is valid (no flags, empty mask), the handler only stores to an
        // atomic, and the signals are valid numbers, so the call cannot fail.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// From here on the ending signals raise a flag, and sleeping calls return early.
pub fn catch_signals() {
    set_handlers(on_signal as *const () as libc::sighandler_t);
}

/// Undoes `catch_signals`, in children.
pub fn default_signals() {
    set_handlers(libc::SIG_DFL);
}

pub fn check_interrupt() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        Err(Interrupted.into())
    } else {
        Ok(())
    }
}

/// Asks `done` every `step` until it says yes (true) or `limit` has passed (false).
pub fn poll_until(
    limit: Duration,
    step: Duration,
    mut done: impl FnMut() -> Result<bool>,
) -> Result<bool> {
    let end = Instant::now() + limit;
    loop {
        check_interrupt()?;
        if done()? {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        std::thread::sleep(step);
    }
}

pub fn clock_ns(clock: libc::clockid_t) -> io::Result<u64> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writing; an unknown clock id is refused with an error.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC).unwrap_or(0)
}

/// CPU time the calling thread has used, exact to the moment.
pub fn own_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or(0)
}

/// How long the calling thread could have run and had no CPU, by the kernel's account; 0 if that
/// cannot be read. Allocates nothing and touches no memory but its stack.
pub fn own_run_delay_ns() -> u64 {
    const SCHEDSTAT: &std::ffi::CStr = c"/proc/thread-self/schedstat";
    let mut text = [0_u8; 96];
    // SAFETY: the path is a C string, `text` is valid for writing, and the descriptor is ours.
    let read = unsafe {
        let fd = libc::open(SCHEDSTAT.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return 0;
        }
        let read = libc::read(fd, text.as_mut_ptr().cast(), text.len());
        libc::close(fd);
        read
    };
    let text = text.get(..usize::try_from(read).unwrap_or(0));
    let text = text.and_then(|text| std::str::from_utf8(text).ok());
    let delay = text.and_then(|text| text.split_ascii_whitespace().nth(1)?.parse().ok());
    delay.unwrap_or(0)
}

/// How often the calling thread has gone to sleep of its own accord.
pub fn voluntary_switches() -> u64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is valid for writing, and all-zero is a valid rusage should the call fail.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    usage.ru_nvcsw as u64
}

/// Sets the nice value of a thread; id 0 is the caller.
pub fn set_nice(id: libc::pid_t, nice: i32) -> io::Result<()> {
    // SAFETY: takes numbers only.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, id as libc::id_t, nice) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sets policy and real-time priority of a thread; id 0 is the caller.
pub fn set_policy(id: libc::pid_t, policy: libc::c_int, priority: u8) -> io::Result<()> {
    let param = libc::sched_param {
        sched_priority: priority.into(),
    };
    // SAFETY: `param` is a valid sched_param.
    if unsafe { libc::sched_setscheduler(id, policy, &param) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Policy and real-time priority of the calling thread.
pub fn own_policy() -> io::Result<(libc::c_int, u8)> {
    let mut param = libc::sched_param { sched_priority: 0 };
    // SAFETY: `param` is valid for writing.
    let (policy, error) = unsafe {
        (
            libc::sched_getscheduler(0),
            libc::sched_getparam(0, &mut param),
        )
    };
    if policy < 0 || error != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((policy, param.sched_priority as u8))
}

/// Has the kernel kill this process should a thread of it run that long under a real-time policy with no sleep.
pub fn limit_realtime_us(limit_us: u64) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: limit_us,
        rlim_max: limit_us,
    };
    // SAFETY: `limit` is a valid rlimit.
    if unsafe { libc::setrlimit(libc::RLIMIT_RTTIME, &limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The CPUs this process may run on, in ascending order.
pub fn allowed_cpus() -> Result<Vec<usize>> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: `set` is valid for `size` bytes, and all-zero is a valid (empty) set.
    let (result, set) = unsafe {
        let result = libc::sched_getaffinity(0, size, set.as_mut_ptr());
        (result, set.assume_init())
    };
    if result != 0 {
        return Err(io::Error::last_os_error()).context("cannot read the CPU affinity mask");
    }
    let mut cpus = Vec::new();
    for cpu in 0..libc::CPU_SETSIZE as usize {
        // SAFETY: `cpu` is below CPU_SETSIZE, so inside the set.
        if unsafe { libc::CPU_ISSET(cpu, &set) } {
            cpus.push(cpu);
        }
    }
    if cpus.is_empty() {
        bail!("the CPU affinity mask is empty");
    }
    Ok(cpus)
}

/// Pins the calling thread to one CPU.
pub fn pin_to(cpu: usize) -> io::Result<()> {
    // SAFETY: all-zero is a valid (empty) set; CPUs come from `allowed_cpus`, so are inside it.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    if result != 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The running kernel's release, as `uname -r` prints it.
pub fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_string(), |text| text.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poll_until_is_bounded() -> Result<()> {
        let step = Duration::from_millis(1);
        assert!(!poll_until(Duration::from_millis(5), step, || Ok(false))?);
        let mut asked = 0;
        let done = poll_until(Duration::from_secs(10), step, || {
            asked += 1;
            Ok(asked == 3)
        })?;
        assert!(done);
        assert_eq!(asked, 3);
        Ok(())
    }

    #[test]
    fn tests_run_with_an_ordinary_policy() -> Result<()> {
        let (policy, priority) = own_policy()?;
        assert!(![libc::SCHED_FIFO, libc::SCHED_RR].contains(&policy));
        assert_eq!(priority, 0);
        Ok(())
    }

    #[test]
    fn some_cpu_is_allowed() -> Result<()> {
        assert!(!allowed_cpus()?.is_empty());
        Ok(())
    }
}
