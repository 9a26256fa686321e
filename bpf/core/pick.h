/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The pick. Three keys compete for a CPU: the head of its run queue, the head
 * of its donor queue, and the previous task if it can go on. The earliest wins.
 */
#ifndef PROXY_CORE_PICK_H
#define PROXY_CORE_PICK_H

/* Let the previous task go on, in its own context or in that of its donor. */
static __always_inline void keep_prev(struct task_struct *prev, struct task_ctx *ptctx,
				      struct cpu_ctx *cctx, u64 now)
{
	if (ptctx->yields_to)
		yield_end(prev, ptctx);
	port_set_slice(prev, cctx->tickless ? SLICE_INFINITE : cfg.slice_ns);
	running_note(cctx, prev, ptctx, now);
}

/*
 * Try the donors of @cpu whose key is earlier than @limit (KEY_NONE: all), each once.
 * Returns RESOLVED_OWNER or RESOLVED_PREV when one of them decided the pick.
 * @head_pid: the first task of the run queues, NOTHING_ELSE if nothing could run but an owner.
 */
CORE_FN int pick_donor(s32 cpu, u64 limit, u32 prev_pid, u32 head_pid)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	int i, ret = RESOLVED_NEXT;
	struct popped_donor d;

	if (!cctx)
		return ret;
	cctx->nr_held = 0;
	core_for(i, DONOR_LOOKS) {
		u64 key = donor_first_key(cpu);

		if (key == KEY_NONE || (limit != KEY_NONE && key_before(limit, key)))
			break;
		donor_queue_pop(cpu, &d);
		if (!d.pid)
			break;
		ret = donor_resolve(d.pid, d.token, cpu, prev_pid, head_pid);
		if (ret == RESOLVED_LATER) {
			u32 at = cctx->nr_held++ & (DONOR_LOOKS - 1);

			cctx->held_pid[at] = d.pid;
			cctx->held_token[at] = d.token;
			ret = RESOLVED_NEXT;
		} else if (ret != RESOLVED_NEXT) {
			break;
		}
	}
	if (!cctx->nr_held)
		return ret;
	core_for(i, DONOR_LOOKS) {
		if ((u32)i >= cctx->nr_held)
			break;
		donor_retry(cctx->held_pid[i & (DONOR_LOOKS - 1)],
			    token_seq(cctx->held_token[i & (DONOR_LOOKS - 1)]), cpu);
	}
	return ret;
}

/* At most once in balance_ns: a busy CPU's look at what waits elsewhere. */
static __always_inline bool pull_due(struct cpu_ctx *cctx, u64 now)
{
	if (now - cctx->pulled_at_ns < cfg.balance_ns)
		return false;
	cctx->pulled_at_ns = now;
	return true;
}

/*
 * The previous task cannot go on, no donor waits, and one run queue has tasks: its head runs, whatever its key
 * is, and to ask for that would cost as much as to take it. The clock goes there when the task runs.
 */
static __always_inline bool pick_only(s32 cpu, struct cpu_ctx *cctx, u64 now)
{
	u32 reach = runq_only(cctx);

	if (reach >= NR_REACH || cctx->nr_parked || guard_due(cctx, nr_queued(cctx), now) ||
	    donor_first_key(cpu) != KEY_NONE || !queue_head_take(cpu, reach, cpu))
		return false;
	cctx->took_unseen = 1;
	stat_inc(STAT_DISPATCH_QUEUE);
	return true;
}

/*
 * The previous task is charged, its donors are free again; then the earliest key
 * is looked for. @prev: NULL if it cannot go on.
 */
static __always_inline void pick(s32 cpu, struct task_struct *prev)
{
	struct task_ctx *ptctx = prev ? task_ctx_of(prev) : NULL;
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	struct queued_head head;
	u64 prev_key = KEY_NONE, least, limit, donor_key, now = port_switch_now(cpu);
	u32 prev_pid = 0;
	bool came, goes_on = false, yields = false;
	s32 swap_to;

	if (!cctx)
		return;
	cctx->took_unseen = 0;
	if (!prev && pick_only(cpu, cctx, now))
		return;
	if (ptctx) {
		charge(prev, ptctx, now);
		donors_release(prev, ptctx, cpu);
		prev_pid = port_pid(prev);
		yields = ptctx->yielded || cctx->tickless;
		/* unless its cgroup has used up its cpu.max; a donor may have it go on all the same */
		goes_on = !task_due(prev, ptctx, now);
		if (goes_on)
			prev_key = ptctx->vtime;
		if (goes_on && ptctx->yielded && ptctx->yields_to)
			yield_begin(prev, ptctx, cpu);
		ptctx->yielded = 0;
	}
	runq_head(cpu, &head);
	if (cctx->nr_parked)
		parked_head(cpu, now, &head);
	least = key_min(head.key, prev_key);
	donor_key = donor_first_key(cpu);
	clock_advance(cctx, key_min(least, donor_key));
	if (head.key != KEY_NONE) {
		guard_clock(cctx, nr_queued(cctx), now);
		/* it goes on without being queued: what the guard did holds for it, too */
		if (ptctx)
			ptctx->vtime = key_floor(ptctx->vtime, cctx->clock, cfg.lag_ns);
		if (goes_on)
			prev_key = ptctx->vtime;
		least = key_min(head.key, prev_key);
	}
	cctx->least_key = least;
	/* it lets the next one go first, once or since it had the CPU to itself, and that may be a donor */
	limit = yields ? head.key : least;

	/* without donors, which is nearly always, this load is all that they cost */
	if (donor_key != KEY_NONE) {
		switch (pick_donor(cpu, limit, prev_pid,
				   least == KEY_NONE ? NOTHING_ELSE : head.pid)) {
		case RESOLVED_OWNER:
			stat_inc(STAT_DISPATCH_DONATION);
			return;
		case RESOLVED_PREV:
			if (ptctx)
				keep_prev(prev, ptctx, cctx, now);
			stat_inc(STAT_DISPATCH_DONATION);
			return;
		}
	}

	if (goes_on && (!yields || cctx->tickless) && pull_due(cctx, now)) {
		swap_to = pull(cpu, ptctx->pace, ptctx->weight);
		if (swap_to >= 0) {
			ptctx->swap_to = swap_to;
			return;
		}
	}
	/* it is queued, and goes there */
	if (goes_on && head.key == KEY_NONE && big_is_better(prev, cpu)) {
		stat_inc(STAT_DISPATCH_TO_BIG);
		return;
	}
	if (goes_on && !(yields && head.key != KEY_NONE) &&
	    (head.key == KEY_NONE || !key_before(head.key, prev_key))) {
		keep_prev(prev, ptctx, cctx, now);
		stat_inc(STAT_DISPATCH_KEEP);
		return;
	}
	if (head.key != KEY_NONE && runq_take(cpu, head.reach)) {
		stat_inc(STAT_DISPATCH_QUEUE);
		return;
	}
	if (goes_on) {
		keep_prev(prev, ptctx, cctx, now);
		return;
	}
	came = steal(cpu);
	/* nothing to run, yet donors wait here: a busy CPU's tick will have us look again */
	idle_with_donors_set(cctx, !came && donor_first_key(cpu) != KEY_NONE);
	/* claimed for a task that another CPU took: it is free again */
	if (!came && cctx->idle)
		idle_offer(cctx);
}

#endif /* PROXY_CORE_PICK_H */
