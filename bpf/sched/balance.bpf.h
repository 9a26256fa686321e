/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a busy CPU takes out of turn, now and then: the head of the queue of a
 * CPU whose load exceeds its own by more than a nice-0 task, and what has waited
 * in its own for too long. (Idle CPUs: steal() in core/pick.h.)
 */
#ifndef PROXY_SCHED_BALANCE_H
#define PROXY_SCHED_BALANCE_H

/* other CPUs that one pull looks at */
#define BALANCE_LOOKS 4

/* tasks of its own queue that a busy CPU looks at for one that starves */
#define RESCUE_LOOKS 64

/* Whether @p, on a run queue, has waited too long there and may run on @cpu. */
static __always_inline bool starves(struct task_struct *p, s32 cpu, u64 now)
{
	struct task_ctx *tctx = task_ctx_of(p);

	return tctx && now > tctx->queued_at_ns && now - tctx->queued_at_ns > cfg.starve_ns &&
	       port_may_run(p, cpu);
}

/*
 * A key lies no further ahead than starve_ns pays for when its task is queued,
 * but heavier tasks may arrive afterwards, and an urgent donor may have the CPU
 * for long. The first who has waited longer than that runs now, before the
 * kernel's watchdog takes it for stalled and throws the scheduler out. Not only the
 * last in line: who was rescued is last again. 1 if a task came.
 */
__noinline int rescue(s32 cpu)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	struct bpf_iter_scx_dsq it;
	struct task_struct *p;
	u64 now = bpf_ktime_get_ns();
	int looks = 0, came = 0;

	if (!cctx || !cctx->nr_queued)
		return 0;
	if (!bpf_iter_scx_dsq_new(&it, run_queue(cpu), 0)) {
		while ((p = bpf_iter_scx_dsq_next(&it)) && can_loop) {
			if (looks++ >= RESCUE_LOOKS)
				break;
			if (!starves(p, cpu, now))
				continue;
			scx_bpf_dsq_move_set_slice(&it, cfg.slice_ns);
			if (scx_bpf_dsq_move(&it, p, SCX_DSQ_LOCAL, 0)) {
				came = 1;
				break;
			}
		}
	}
	bpf_iter_scx_dsq_destroy(&it);
	if (came)
		stat_inc(STAT_STARVE_RESCUE);
	return came;
}

/* Called by a busy CPU of load @own_load before it picks; 1 if a task came. */
__noinline int balance(s32 cpu, u64 own_load)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u64 most = own_load + WEIGHT_NICE_0;
	u32 i, nr = cfg.nr_cpu_ids;
	s32 from = -1;

	if (!cctx || nr < 2)
		return 0;
	bpf_for(i, 0, BALANCE_LOOKS) {
		volatile u32 *cursor_at = &cctx->balance_cursor;
		u32 cursor = *cursor_at + 1;
		struct cpu_ctx *octx;

		*cursor_at = cursor < nr ? cursor : 0;
		/* read again: the verifier would follow each CPU's number by itself */
		cursor = *cursor_at;
		octx = (s32)cursor == cpu ? NULL : cpu_ctx_of(cursor);
		/*
		 * If one of ours runs there, the last one queued has its turn next;
		 * if another class does, there is no telling.
		 */
		if (!octx || octx->nr_queued < (octx->running_since_ns ? 2 : 1))
			continue;
		if (octx->queued_load + octx->running_weight > most) {
			most = octx->queued_load + octx->running_weight;
			from = cursor;
		}
	}
	if (from < 0 || !scx_bpf_dsq_move_to_local(run_queue(from), 0))
		return 0;
	stat_inc(STAT_DISPATCH_BALANCE);
	return 1;
}

#endif /* PROXY_SCHED_BALANCE_H */
