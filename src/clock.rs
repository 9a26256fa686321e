// SPDX-License-Identifier: GPL-2.0-only
//! The kernel's clocks.

/// What `clock` says, in ns; 0 if there is no such clock.
pub fn ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes a timespec to where there is one.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// `CLOCK_MONOTONIC`, which is what `bpf_ktime_get_ns()` reads.
pub fn monotonic_ns() -> u64 {
    ns(libc::CLOCK_MONOTONIC)
}
