/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One virtual clock a CPU. It follows the *least* key on that CPU and never
 * goes back. A clock that jumped to the key of whatever runs would be dragged
 * ahead by low-weight tasks, and nice 19 would get as much CPU as nice 0.
 *
 * clock is written by its own CPU, in ops.dispatch(); others read it.
 */
#ifndef PROXY_CORE_CLOCK_H
#define PROXY_CORE_CLOCK_H

/* An urgent donor's key says nothing about the fair ones behind it: the clock waits. */
static __always_inline void clock_advance(struct cpu_ctx *cctx, u64 least_key)
{
	if (least_key != KEY_NONE && key_before(cctx->clock, least_key))
		cctx->clock = least_key;
}

/* Key of what runs on a CPU now, as far as other CPUs can know. */
static __always_inline u64 running_key_now(const struct cpu_ctx *cctx, u64 now)
{
	u64 since = cctx->running_since_ns;
	u64 ran = since && now > since ? now - since : 0;

	return cctx->running_key + key_cost(ran, cctx->running_weight);
}

/*
 * Bring the key of a task into terms of @cpu's clock, and within what the
 * clock allows. Caller: has the task's rq lock.
 */
static __always_inline void vtime_join(struct task_ctx *tctx, s32 cpu,
				       const struct cpu_ctx *cctx)
{
	u64 clock = cctx->clock, key;

	if (tctx->vtime_cpu != cpu) {
		struct cpu_ctx *from = tctx->vtime_cpu < 0 ? NULL : cpu_ctx_of(tctx->vtime_cpu);

		/* a new task starts one slice behind: forking must not buy CPU time */
		tctx->vtime = from ? key_rebase(tctx->vtime, from->clock, clock) :
				     clock + key_cost(cfg.slice_ns, tctx->weight);
		tctx->vtime_cpu = cpu;
	}
	tctx->vtime = key_floor(tctx->vtime, clock, cfg.lag_ns);
	key = key_ceiling(tctx->vtime, clock, cfg.starve_ns,
			  cctx->queued_load + cctx->running_weight + tctx->weight);
	if (key != tctx->vtime) {
		tctx->vtime = key;
		stat_inc(STAT_STARVE_CLAMP);
	}
}

/*
 * A thread of scx_proxy itself waits no longer than this, whatever its weight and
 * whoever loads the machine: the agent must keep up with what it is told.
 */
#define AGENT_WAIT_NS 20000000ULL

static __always_inline void vtime_favour(struct task_ctx *tctx, const struct cpu_ctx *cctx)
{
	tctx->vtime = key_ceiling(tctx->vtime, cctx->clock, AGENT_WAIT_NS,
				  cctx->queued_load + cctx->running_weight + tctx->weight);
}

#endif /* PROXY_CORE_CLOCK_H */
