// SPDX-License-Identifier: GPL-2.0-only
//! The scheduler's memory: locked, so that its threads never wait for a page under the scheduler that they
//! serve, and little. It comes from the C library's allocator, as that of the other processes; here it is
//! told to keep what it has, and is given a reserve beforehand.

use anyhow::Result;

use crate::doctor::preflight;

/// Heap that is there before it is needed: what the agent's bounded tables take when they are full, the
/// snapshot of all waits, and events that a watcher has not read yet.
const RESERVE_BYTES: usize = 4 << 20;
/// Stack of each thread: the parser of requests stops at 128 levels.
const STACK_BYTES: &str = "262144";

/// Call it before any thread is started. One heap for all threads: one reserve, not one each.
pub fn begin() {
    // SAFETY: no other thread has been started yet.
    unsafe { std::env::set_var("RUST_MIN_STACK", STACK_BYTES) };
    #[cfg(target_env = "gnu")]
    // SAFETY: no memory is involved.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// From here on nothing that this process has, or has touched since, has to be paged in. What is mapped later, such as
/// the stack of a thread for each client, is locked page by page: whole stacks, which the C library keeps when
/// their threads have ended, would be most of all that is locked.
///
/// # Errors
/// The kernel does not let this process lock its memory.
pub fn lock() -> Result<()> {
    let unlimited = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: a live rlimit.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &unlimited) };
    keep_reserve();
    let locked = [libc::MCL_CURRENT, libc::MCL_FUTURE | libc::MCL_ONFAULT]
        .iter()
        // SAFETY: no memory is changed by that.
        .all(|&flags| unsafe { libc::mlockall(flags) } == 0);
    if !locked {
        let error = std::io::Error::last_os_error();
        anyhow::bail!(preflight::Refusal {
            why: format!("the memory of this process cannot be locked: {error}"),
            remedy:
                "start it with CAP_IPC_LOCK, or with ulimit -l unlimited (LimitMEMLOCK=infinity)"
                    .into(),
        });
    }
    Ok(())
}

/// Gives back what loading took, and takes the reserve. From now on the allocator returns nothing to the
/// kernel, and takes large pieces from the same heap.
fn keep_reserve() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no memory that is in use is touched.
    unsafe {
        libc::malloc_trim(0);
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
    let reserve = vec![1_u8; RESERVE_BYTES];
    drop(std::hint::black_box(reserve));
}
