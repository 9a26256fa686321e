/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One virtual clock a CPU. It follows the *least* key on that CPU and never
 * goes back. A clock that jumped to the key of whatever runs would be dragged
 * ahead by low-weight tasks, and nice 19 would get as much CPU as nice 0.
 *
 * clock is written by its own CPU, in ops.dispatch(); others read it.
 */
#ifndef PROXY_SCHED_CLOCK_H
#define PROXY_SCHED_CLOCK_H

/* Key of the first task on @dsq, KEY_NONE when it is empty. */
static __always_inline u64 dsq_head_key(u64 dsq)
{
	u64 key = KEY_NONE;

	if (bpf_ksym_exists(scx_bpf_dsq_peek)) { /* 6.19 */
		struct task_struct *p = scx_bpf_dsq_peek(dsq);

		if (p)
			key = p->scx.dsq_vtime;
	} else {
		struct bpf_iter_scx_dsq it;

		if (!bpf_iter_scx_dsq_new(&it, dsq, 0)) {
			struct task_struct *p = bpf_iter_scx_dsq_next(&it);

			if (p)
				key = p->scx.dsq_vtime;
		}
		bpf_iter_scx_dsq_destroy(&it);
	}
	return key;
}

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

#endif /* PROXY_SCHED_CLOCK_H */
