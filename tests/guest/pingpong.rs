// SPDX-License-Identifier: GPL-2.0-only
//! A load that makes as many events as a CPU can: pairs of threads of which each takes the mutex that the
//! other has, all on one CPU. A process of its own: this program, if `CPU` is set.

use std::cell::UnsafeCell;

/// The environment variable that names the CPU.
pub const CPU: &str = "SCX_PROXY_PINGPONG_CPU";
const PAIRS: usize = 4;

struct Mutex(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: a pthread mutex is made to be used by several threads.
unsafe impl Sync for Mutex {}

/// Never returns if the variable is set.
pub fn run_if_asked() {
    let Some(cpu) = std::env::var(CPU).ok().and_then(|cpu| cpu.parse().ok()) else {
        return;
    };
    pin(cpu);
    let mutexes: &'static [Mutex] = Box::leak(
        (0..PAIRS)
            .map(|_| Mutex(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER)))
            .collect(),
    );
    for mutex in mutexes {
        for _ in 0..2 {
            std::thread::spawn(move || play(mutex));
        }
    }
    loop {
        std::thread::park();
    }
}

fn pin(cpu: usize) {
    // SAFETY: an all-zero set is an empty one, and it is valid for the calls.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

fn play(mutex: &Mutex) {
    loop {
        // SAFETY: initialised, never moved, and released by the thread that took it.
        unsafe {
            libc::pthread_mutex_lock(mutex.0.get());
            libc::sched_yield();
            libc::pthread_mutex_unlock(mutex.0.get());
            libc::sched_yield();
        }
    }
}
