// SPDX-License-Identifier: GPL-2.0-only
/*
 * `scx_proxy observe --beside`: who waits for whose locks, while another scheduler runs the machine. No
 * sched_ext, no struct_ops; loads on any kernel from 6.1 on that has BTF. An object of its own, which shares
 * with the scheduler how locks are read (lock/), how delay is timed (core/delay.h) and how it is told
 * (obs/), and decides nothing.
 *
 *  1. A task is about to sleep on a lock (lock:contention_begin), or sleeps in futex() (sched_switch).
 *  2. It sleeps: its wait begins. The owner is read from the lock; from then on its clock goes while it
 *     could run and does not.
 *  3. It wakes (sched_wakeup): what the owner's clock went on by is inversion time, if the waiter is more
 *     important (rank.bpf.h).
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

#include "abi.h"
#include "core/types.h"
#include "core/key.h"
#include "beside/state.h"

char _license[] SEC("license") = "GPL";

const volatile struct beside_config cfg = {
	.locks = LOCK_BIT(LOCK_MUTEX) | LOCK_BIT(LOCK_RWSEM) | LOCK_BIT(LOCK_RTMUTEX) |
		 LOCK_BIT(LOCK_PTHREAD),
	.sample = 1,
	.events = 1,
	.track_by_tracepoint = 1,
};

#include "obs/stat.bpf.h"
#define watching() true
#include "obs/event.bpf.h"
#include "beside/ports.bpf.h"
#include "beside/edge.bpf.h"
#include "lock/futexcall.bpf.h"
#include "lock/contended.bpf.h"
#include "obs/wait.bpf.h"
#include "obs/site.bpf.h"
#include "core/delay.h"
#include "beside/rank.bpf.h"
#include "beside/wait.bpf.h"
#include "beside/probes.bpf.h"
