/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The pick. Three keys compete for a CPU: the head of its run queue, the head
 * of its donor queue, and the previous task if it can go on. The earliest wins.
 *
 * ops.dispatch() is called with the CPU's rq lock held, when the previous task
 * has no slice left and the local DSQ is empty.
 */
#ifndef PROXY_SCHED_DISPATCH_H
#define PROXY_SCHED_DISPATCH_H

/* donors one pick looks at */
#define DONOR_LOOKS 8

/* Let the previous task go on, in its own context or in that of its donor. */
static __always_inline void keep_prev(struct task_struct *prev, struct task_ctx *ptctx,
				      struct cpu_ctx *cctx)
{
	scx_bpf_task_set_slice(prev, cfg.slice_ns);
	running_note(cctx, prev, ptctx);
}

/*
 * Try the donors of @cpu whose key is earlier than @limit (KEY_NONE: all).
 * Returns RESOLVED_OWNER or RESOLVED_PREV when one of them decided the pick.
 */
static __always_inline int pick_donor(s32 cpu, u64 limit, u32 prev_pid)
{
	int i;

	bpf_for(i, 0, DONOR_LOOKS) {
		u64 key = donor_queue_top_key(cpu);
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

void BPF_STRUCT_OPS(proxy_dispatch, s32 cpu, struct task_struct *prev)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	struct task_ctx *ptctx = NULL;
	u64 head_key, prev_key = KEY_NONE, least;
	u64 prev_weight = 0;
	u32 prev_pid = 0;

	if (!cctx)
		return;
	if (prev && (prev->scx.flags & SCX_TASK_QUEUED))
		ptctx = task_ctx_of(prev);
	if (ptctx) {
		charge(prev, ptctx);
		donors_release(prev, ptctx, cpu);
		prev_pid = prev->pid;
		prev_key = ptctx->vtime;
		prev_weight = ptctx->weight;
	}
	head_key = dsq_head_key(run_queue(cpu));
	least = key_min(head_key, prev_key);
	clock_advance(cctx, key_min(least, donor_queue_top_key(cpu)));

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

	if (least != KEY_NONE && now_and_then(cctx) &&
	    (rescue(cpu, cctx) || balance(cpu, cctx, cctx->queued_load + prev_weight)))
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
	if (scx_bpf_dsq_move_to_local(run_queue(cpu), 0)) {
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
 * An idle CPU calls ops.dispatch() only when kicked. If donors wait there for
 * a lock that changes hands, the next owner may be kept from running by this
 * CPU's load, so this CPU's tick makes the idle one look.
 */
void BPF_STRUCT_OPS(proxy_tick, struct task_struct *p)
{
	u32 cpu;

	if (!nr_idle_with_donors)
		return;
	bpf_for(cpu, 0, cfg.nr_cpu_ids) {
		struct cpu_ctx *cctx = cpu_ctx_of(cpu);

		if (cctx && cctx->idle_with_donors)
			scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
	}
}

#endif /* PROXY_SCHED_DISPATCH_H */
