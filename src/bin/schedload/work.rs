// SPDX-License-Identifier: GPL-2.0-only
//! Owns the computing of a task that has something to do: so much CPU time, however long that takes.

use scx_proxy::clock;
use std::hint::black_box;

/// Turns of a loop between two readings of the clock, so that most of the work is not in the kernel.
const TURNS: u32 = 500;

fn used_ns() -> u64 {
    clock::ns(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Uses `ns` of CPU time.
pub fn compute(ns: u64) {
    let end_ns = used_ns() + ns;
    while used_ns() < end_ns {
        for turn in 0..TURNS {
            black_box(turn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_the_time_that_it_should() {
        let before_ns = used_ns();
        compute(3_000_000);
        assert!(used_ns() - before_ns >= 3_000_000);
    }
}
