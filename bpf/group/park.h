/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tasks of groups without budget: parked per CPU, in the order in which they may be looked at again.
 * A parked task competes for nothing, and its group does not count it.
 */
#ifndef PROXY_GROUP_PARK_H
#define PROXY_GROUP_PARK_H

/* @p is parked on @cpu until @due. Caller: as for runq_enter(). */
static __always_inline void park(struct task_struct *p, struct task_ctx *tctx, struct cpu_ctx *cctx,
				 s32 cpu, u64 due, u64 enq_flags)
{
	group_count(tctx, 0);
	tctx->dsq_cpu = cpu;
	tctx->dsq_reach = REACH_PARKED;
	tctx->queued_weight = 0;
	tctx->queued_at_ns = port_now();
	__sync_fetch_and_add(&cctx->nr_parked, 1);
	tctx->place = PLACE_QUEUED;
	tctx->parked_by = limit_debtor(tctx->group, due);
	stat_inc(STAT_PARKED);
	queue_insert(p, cpu, REACH_PARKED, due, enq_flags);
}

/*
 * The first task parked on @cpu whose group has a budget again, with the key by which it competes;
 * unchanged @h if there is none. Those whose group has none still are put off.
 */
CORE_FN int parked_head(s32 cpu, u64 now, struct queued_head *h)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u32 i;

	if (!h || !cctx)
		return 0;
	core_for(i, PARK_LOOKS) {
		struct task_struct *p;
		struct task_ctx *tctx;
		u64 key, due = 0;
		u32 pid = 0;

		key = queue_head(cpu, REACH_PARKED, &pid);
		if (key == KEY_NONE || key_before(now, key))
			break;
		key = cctx->clock;
		p = port_task_get(pid);
		/* one that is about to be gone cannot be found any more, but has to run for that */
		if (p) {
			tctx = task_ctx_of(p);
			if (tctx) {
				due = task_due(p, tctx, now);
				key = key_floor(tctx->vtime, cctx->clock, cfg.lag_ns);
			}
			port_task_put(p);
		}
		if (!due) {
			if (h->key == KEY_NONE || key_before(key, h->key)) {
				h->key = key;
				h->reach = REACH_PARKED;
				h->pid = pid;
			}
			break;
		}
		queue_rekey(cpu, REACH_PARKED, due);
	}
	return 0;
}

/* From a timer, since idle CPUs do not tick: those where a parked task may be looked at are woken. */
static __always_inline void kick_parked(u64 now)
{
	struct cpu_ctx *cctx;
	u32 pid = 0;
	u64 key;
	s32 cpu;

	core_for(cpu, (s32)cfg.nr_cpu_ids) {
		cctx = cpu_ctx_of(cpu);
		if (!cctx || !cctx->nr_parked)
			continue;
		key = queue_head(cpu, REACH_PARKED, &pid);
		if (key != KEY_NONE && !key_before(now, key))
			port_kick(cpu, PORT_KICK_IDLE);
	}
}

#endif /* PROXY_GROUP_PARK_H */
