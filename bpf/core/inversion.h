/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Inversion time: of a wait, the time in which the owner at the end of its chain
 * could have run and did not (delay.h), if that owner has the later key.
 *
 * Keys are compared when the wait ends: its own as it began, and its owner's. An owner that
 * never fell behind the waiter did not delay it. One that waited itself stands for
 * those further down, whose keys are not asked for.
 */
#ifndef PROXY_CORE_INVERSION_H
#define PROXY_CORE_INVERSION_H

#include "delay.h"

/* Whether @tctx's task comes before owner @pid of the lock that it waits for. */
static __noinline bool waiter_comes_first(const struct task_ctx *tctx, u32 pid)
{
	struct task_struct *o = port_task_get(pid);
	struct task_ctx *octx = o ? task_ctx_of(o) : NULL;
	struct cpu_ctx *home, *away;
	bool first = true;
	u64 key;

	if (octx && !tctx->wait_urgency && !octx->wait_lock &&
	    octx->blocked_at_ns <= tctx->blocked_at_ns) {
		home = tctx->vtime_cpu < 0 ? NULL : cpu_ctx_of(tctx->vtime_cpu);
		away = octx->vtime_cpu < 0 ? NULL : cpu_ctx_of(octx->vtime_cpu);
		key = octx->vtime;
		if (home && away)
			key = key_rebase(key, away->clock, home->clock);
		first = key_before(tctx->vtime, key);
	}
	if (o)
		port_task_put(o);
	return first;
}

#endif /* PROXY_CORE_INVERSION_H */
