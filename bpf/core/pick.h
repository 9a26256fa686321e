/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The pick. Three keys compete for a CPU: the head of its run queue, the head
 * of its donor queue, and the previous task if it can go on. The earliest wins.
 */
#ifndef PROXY_CORE_PICK_H
#define PROXY_CORE_PICK_H

/* donors one pick looks at */
#define DONOR_LOOKS 8

/* Whether this CPU is idle while donors wait on its queue, for the ticks of busy CPUs. */
static __always_inline void idle_with_donors_set(struct cpu_ctx *cctx, bool waits)
{
	if (cctx->idle_with_donors == waits)
		return;
	cctx->idle_with_donors = waits;
	__sync_fetch_and_add(&nr_idle_with_donors, waits ? 1 : -1);
}

/* Let the previous task go on, in its own context or in that of its donor. */
static __always_inline void keep_prev(struct task_struct *prev, struct task_ctx *ptctx,
				      struct cpu_ctx *cctx)
{
	port_set_slice(prev, cfg.slice_ns);
	running_note(cctx, prev, ptctx);
}

/*
 * Try the donors of @cpu whose key is earlier than @limit (KEY_NONE: all).
 * Returns RESOLVED_OWNER or RESOLVED_PREV when one of them decided the pick.
 */
CORE_FN int pick_donor(s32 cpu, u64 limit, u32 prev_pid)
{
	int i;

	core_for(i, DONOR_LOOKS) {
		u64 key = donor_first_key(cpu);
		struct popped_donor d;
		int ret;

		if (key == KEY_NONE || (limit != KEY_NONE && key_before(limit, key)))
			return RESOLVED_NEXT;
		donor_queue_pop(cpu, &d);
		if (!d.pid)
			return RESOLVED_NEXT;
		ret = donor_resolve(d.pid, d.token, cpu, prev_pid);
		if (ret != RESOLVED_NEXT)
			return ret;
	}
	return RESOLVED_NEXT;
}

/* At most once in balance_ns; a busy CPU's looks beyond the heads of its queues hang on it. */
static __always_inline bool now_and_then(struct cpu_ctx *cctx)
{
	u64 now = port_now();

	if (now - cctx->balanced_at_ns < cfg.balance_ns)
		return false;
	cctx->balanced_at_ns = now;
	return true;
}

/* Called by a CPU with nothing to run; 1 if a task came. */
CORE_FN int steal(s32 cpu)
{
	u32 i, nr = cfg.nr_cpu_ids;

	core_for(i, nr) {
		s32 other = cpu + i < nr ? cpu + i : cpu + i - nr;
		struct cpu_ctx *octx = i ? cpu_ctx_of(other) : NULL;

		if (!octx || !octx->nr_queued)
			continue;
		/* takes the first task of the queue that may run here */
		if (queue_head_take(other, cpu)) {
			stat_inc(STAT_DISPATCH_STEAL);
			return 1;
		}
	}
	return 0;
}

/*
 * The previous task is charged, its donors are free again; then the earliest key
 * is looked for. @prev: NULL if it cannot go on.
 */
static __always_inline void pick(s32 cpu, struct task_struct *prev)
{
	struct task_ctx *ptctx = prev ? task_ctx_of(prev) : NULL;
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u64 head_key, prev_key = KEY_NONE, least, prev_weight = 0;
	bool looks_around;
	u32 prev_pid = 0;

	if (!cctx)
		return;
	if (ptctx) {
		charge(prev, ptctx);
		donors_release(prev, ptctx, cpu);
		prev_pid = port_pid(prev);
		prev_key = ptctx->vtime;
		prev_weight = ptctx->weight;
	}
	head_key = queue_head_key(cpu);
	least = key_min(head_key, prev_key);
	clock_advance(cctx, key_min(least, donor_first_key(cpu)));

	/* an urgent donor may have the CPU for long: who starves comes before it */
	looks_around = least != KEY_NONE && now_and_then(cctx);
	if (looks_around && rescue(cpu))
		return;

	switch (pick_donor(cpu, least, prev_pid)) {
	case RESOLVED_OWNER:
		stat_inc(STAT_DISPATCH_DONATION);
		return;
	case RESOLVED_PREV:
		if (ptctx)
			keep_prev(prev, ptctx, cctx);
		stat_inc(STAT_DISPATCH_DONATION);
		return;
	}

	if (looks_around && balance(cpu, cctx->queued_load + prev_weight))
		return;
	if (ptctx && !(ptctx->yielded && head_key != KEY_NONE) &&
	    (head_key == KEY_NONE || !key_before(head_key, prev_key))) {
		ptctx->yielded = 0;
		keep_prev(prev, ptctx, cctx);
		stat_inc(STAT_DISPATCH_KEEP);
		return;
	}
	if (ptctx)
		ptctx->yielded = 0;
	if (queue_head_take(cpu, cpu)) {
		stat_inc(STAT_DISPATCH_QUEUE);
		return;
	}
	if (ptctx) {
		keep_prev(prev, ptctx, cctx);
		return;
	}
	/* nothing to run, yet donors wait here: a busy CPU's tick will have us look again */
	idle_with_donors_set(cctx, !steal(cpu) && donor_queue_top_key(cpu) != KEY_NONE);
}

/*
 * An idle CPU picks only when kicked. If donors wait there for a lock that
 * changes hands, the next owner may be kept from running by this CPU's load, so
 * this CPU's tick makes the idle one look.
 */
static __always_inline void tick(void)
{
	u32 cpu;

	if (!nr_idle_with_donors || !port_donating())
		return;
	core_for(cpu, cfg.nr_cpu_ids) {
		struct cpu_ctx *cctx = cpu_ctx_of(cpu);

		if (cctx && cctx->idle_with_donors)
			port_kick(cpu, PORT_KICK_IDLE);
	}
}

#endif /* PROXY_CORE_PICK_H */
