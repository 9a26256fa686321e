/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * scx_proxy: a blocked donor stays schedulable.
 *
 * Each CPU has a run queue (a user DSQ) and a donor queue, both ordered by key:
 * the weighted virtual time that a task has used. The earliest key on a CPU
 * runs. That alone makes a fair scheduler; what follows makes it proxy.
 *
 *  1. Block. sched_ext takes a sleeping task away from the scheduler. When it
 *     sleeps on a lock (ops.quiescent() sees the edge), its scheduling context
 *     goes onto the donor queue of its CPU instead of going away.
 *  2. Pick. ops.dispatch() compares the head of the donor queue with that of
 *     the run queue and with the previous task. If the donor is first, its chain
 *     (donor -> lock -> owner -> lock -> ...) is walked as it stands at that
 *     moment, in the kernel's own fields, to the first owner that can run:
 *       it is queued and may run here   it runs here, on a slice of the donor's
 *       it may not run here             the donor migrates to the owner's CPU
 *       it runs already, or sleeps      the donor waits on it, to be compared
 *                                       again when it stops or wakes
 *       there is none, or in doubt      no donation; counted; looked at later
 *  3. Charge. What the owner runs that way, the donor pays: its key moves on as
 *     if it had run itself, so it lends no more than its own share.
 *  4. Release. When the donor wakes it takes its context back with one atomic
 *     exchange; the owner goes on in its own context, on its own key.
 *
 * Where things are: core/ is the donor engine and place/ says where and when tasks
 * run, both without helpers and kernel types; they also compile for the host,
 * where they are held against the model (src/model).
 * What it needs of its surroundings are ports (core/ports.h): sched/ports,
 * lock/ (what blocks on what), obs/ (counters, events). The kernel calls it from
 * sched/callbacks, sched/lifecycle and, for other classes, lock/contention.
 *
 * Reading order: core/state, core/clock, core/donor, core/charge, core/resolve,
 * core/pick, core/task.
 */
#include <scx/common.bpf.h>
#include <bpf_experimental.h>

#include "abi.h"
#include "core/types.h"
#include "core/ports.h"
#include "core/key.h"
#include "core/heap.h"
#include "core/token.h"
#include "core/walk.h"
#include "core/return.h"
#include "place/state.h"
#include "place/pace.h"
#include "group/state.h"
#include "core/state.h"

char _license[] SEC("license") = "GPL";

UEI_DEFINE(uei);

/* written by the loader before load, constant from then on */
const volatile struct proxy_config cfg = {
	.slice_ns = 3000000,
	.lag_ns = 3000000,
	.wakeup_gran_ns = 3000000,
	.protect_ns = 700000,
	.balance_ns = 20000000,
	.starve_ns = 2000000000,
	.return_cold_ns = 5000000,
	.return_margin_ns = 1000000,
	.limits = 1,
	.nr_cpu_ids = 1,
	.nr_cpus_online = 1,
	.hops_max = HOPS_LIMIT,
	.locks = (1U << NR_LOCK_TYPES) - 1,
};

/* [the loader writes] 1: donors lend; 0: they are only observed, see --observe */
u32 donating = 1;

/* the ports: what the policy needs of this kernel */
#include "obs/stat.bpf.h"
#include "obs/watched.bpf.h"
#include "obs/event.bpf.h"
#include "sched/maps.bpf.h"
#include "lock/edge.bpf.h"
#include "obs/wait.bpf.h"
#include "sched/ports.bpf.h"
#include "obs/gave.bpf.h"
#include "group/ports.bpf.h"

/* the policy */
#include "core/policy.h"

/* where the kernel calls it */
#include "obs/site.bpf.h"
#include "lock/contention.bpf.h"
#include "lock/futex.bpf.h"
#include "sched/unserved.bpf.h"
#include "sched/callbacks.bpf.h"
#include "group/cgroups.bpf.h"
#include "sched/lifecycle.bpf.h"
#include "obs/snapshot.bpf.h"
#include "obs/dump.bpf.h"

/*
 * flags: ENQ_MIGRATION_DISABLED and ENQ_EXITING, so that every runnable task
 * passes ops.enqueue() and is queued by key; ENQ_LAST, since the kernel
 * would else keep the last runnable task running, whose cgroup may have used up its cpu.max;
 * not KEEP_BUILTIN_IDLE: which CPUs are idle is known in place/idle.h.
 * timeout_ms: the longest the kernel allows; starve_ns stays far below it.
 */
/* clang-format off */
SCX_OPS_DEFINE(proxy_ops,
	       .select_cpu	= (void *)proxy_select_cpu,
	       .enqueue		= (void *)proxy_enqueue,
	       .dispatch	= (void *)proxy_dispatch,
	       .tick		= (void *)proxy_tick,
	       .update_idle	= (void *)proxy_update_idle,
	       .running		= (void *)proxy_running,
	       .stopping	= (void *)proxy_stopping,
	       .quiescent	= (void *)proxy_quiescent,
	       .yield		= (void *)proxy_yield,
	       .init_task	= (void *)proxy_init_task,
	       .enable		= (void *)proxy_enable,
	       .disable		= (void *)proxy_disable,
	       .cgroup_init	= (void *)proxy_cgroup_init,
	       .cgroup_exit	= (void *)proxy_cgroup_exit,
	       .cgroup_move	= (void *)proxy_cgroup_move,
	       .cgroup_set_weight = (void *)proxy_cgroup_set_weight,
	       .dump		= (void *)proxy_dump,
	       .dump_cpu	= (void *)proxy_dump_cpu,
	       .dump_task	= (void *)proxy_dump_task,
	       .init		= (void *)proxy_init,
	       .exit		= (void *)proxy_exit,
	       .flags		= SCX_OPS_ENQ_EXITING | SCX_OPS_ENQ_MIGRATION_DISABLED |
			  SCX_OPS_ENQ_LAST,
	       .timeout_ms	= 30000,
	       .name		= "proxy");
/* clang-format on */
