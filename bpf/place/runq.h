/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Run queues: per CPU one for each reach, all ordered by the same keys. So an idle CPU
 * that looks for work never walks over tasks that it may not have.
 *
 * nr_queued and queued_load are counted here, and with them the bits that say where
 * work waits. A task is counted before it is inserted and until after it is taken.
 */
#ifndef PROXY_PLACE_RUNQ_H
#define PROXY_PLACE_RUNQ_H

static __always_inline u32 reach_of(struct task_struct *p)
{
	return port_pinned(p) ? REACH_ONE : port_unrestricted(p) ? REACH_ANY : REACH_SOME;
}

static __always_inline u32 nr_queued(const struct cpu_ctx *cctx)
{
	return cctx->nr_queued[REACH_ANY] + cctx->nr_queued[REACH_SOME] +
	       cctx->nr_queued[REACH_ONE];
}

/* @cctx has something of @reach that others could take. */
static __always_inline void work_came(struct cpu_ctx *cctx, u32 reach)
{
	struct domain *d = domain_of(cctx->domain);

	if (d)
		bits_set(&d->work[reach], BIT64(cctx->bit), &machine_of()->work, cctx->domain);
}

/* @cctx has nothing of @reach that others could take; somebody may be adding to it. */
static __always_inline void work_gone(struct cpu_ctx *cctx, u32 reach)
{
	struct domain *d = domain_of(cctx->domain);

	if (!d)
		return;
	__sync_fetch_and_and(&d->work[reach], ~BIT64(cctx->bit));
	if (*(volatile u32 *)&cctx->nr_queued[reach])
		bits_set(&d->work[reach], BIT64(cctx->bit), &machine_of()->work, cctx->domain);
}

/* @p goes onto a run queue of @cpu. Caller: has the task's rq lock. */
static __always_inline void runq_enter(struct task_ctx *tctx, struct cpu_ctx *cctx, s32 cpu,
				       u32 reach, bool wakeup, u64 now)
{
	tctx->dsq_cpu = cpu;
	tctx->dsq_reach = reach;
	tctx->queued_weight = tctx->weight;
	tctx->queued_at_ns = now;
	__sync_fetch_and_add(&cctx->queued_load, (u64)tctx->weight);
	if (reach >= REACH_ONE) {
		__sync_fetch_and_add(&cctx->nr_queued[REACH_ONE], 1);
	} else {
		if (!wakeup)
			cctx->waiting_pace = tctx->pace;
		if (!__sync_fetch_and_add(&cctx->nr_queued[reach & 1], 1))
			work_came(cctx, reach & 1);
	}
	tctx->place = PLACE_QUEUED;
}

/* @tctx is on a run queue no more. Caller: has the task's rq lock. */
static __always_inline void queue_left(struct task_ctx *tctx, u32 place)
{
	if (tctx->place == PLACE_QUEUED) {
		struct cpu_ctx *cctx = cpu_ctx_of(tctx->dsq_cpu);
		u32 reach = tctx->dsq_reach;

		if (cctx) {
			__sync_fetch_and_add(&cctx->queued_load, -(u64)tctx->queued_weight);
			if (reach == REACH_PARKED) {
				__sync_fetch_and_add(&cctx->nr_parked, -1);
				stat_add(STAT_PARKED_NS, port_now() - tctx->queued_at_ns);
				limit_throttled(tctx->parked_by, port_now() - tctx->queued_at_ns);
				group_count(tctx, 1);
			} else if (reach >= REACH_ONE)
				__sync_fetch_and_add(&cctx->nr_queued[REACH_ONE], -1);
			else if (__sync_fetch_and_add(&cctx->nr_queued[reach & 1], -1) == 1)
				work_gone(cctx, reach & 1);
		}
	}
	tctx->place = place;
}

/* The only one of a CPU's run queues that has tasks; NR_REACH: none has, or more than one. */
static __always_inline u32 runq_only(const struct cpu_ctx *cctx)
{
	bool any = cctx->nr_queued[REACH_ANY], some = cctx->nr_queued[REACH_SOME];
	bool one = cctx->nr_queued[REACH_ONE];

	if (any)
		return some || one ? NR_REACH : REACH_ANY;
	if (some)
		return one ? NR_REACH : REACH_SOME;
	return one ? REACH_ONE : NR_REACH;
}

/* The first of a CPU's queued tasks. */
struct queued_head {
	u64 key; /* KEY_NONE: there is none */
	u32 reach;
	u32 pid;
};

CORE_FN int runq_head(s32 cpu, struct queued_head *h)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	if (!h)
		return 0;
	h->key = KEY_NONE;
	h->reach = 0;
	h->pid = 0;
	if (!cctx)
		return 0;
	for (u32 reach = 0; reach < NR_REACH; reach++) {
		u32 pid = 0;
		u64 key;

		if (!cctx->nr_queued[reach])
			continue;
		key = queue_head(cpu, reach, &pid);
		if (key == KEY_NONE || (h->key != KEY_NONE && !key_before(key, h->key)))
			continue;
		h->key = key;
		h->reach = reach;
		h->pid = pid;
	}
	return 0;
}

/* The head of @cpu's own queue of @reach shall run; if it was taken meanwhile, that of any other. */
CORE_FN int runq_take(s32 cpu, u32 reach)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	if (!cctx)
		return 0;
	if (queue_head_take(cpu, reach, cpu))
		return 1;
	for (reach = 0; reach < NR_REACH; reach++) {
		if (cctx->nr_queued[reach] && queue_head_take(cpu, reach, cpu))
			return 1;
	}
	return 0;
}

#endif /* PROXY_PLACE_RUNQ_H */
