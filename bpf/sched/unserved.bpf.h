/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tasks without state. It is allocated when a task is forked, and charged to the cgroup of
 * whoever loaded the scheduler. On 7.3, and not yet on 6.18, that never waits for memory, and so it
 * fails where this cgroup is at its memory.max (kernel/bpf/bpf_local_storage.c, bpf_selem_alloc()).
 * A fork must not fail for that. Such a task runs in turn: a CPU takes one of them, then one by key. It has
 * no weight, is in no group, and neither lends nor is lent to.
 */
#ifndef PROXY_SCHED_UNSERVED_H
#define PROXY_SCHED_UNSERVED_H

/* one for the machine; no run_queue() has this number */
#define UNSERVED_QUEUE (1ULL << 62)

/* [ops.enqueue()] set with the first such task, so that nobody pays for what never was */
u32 unserved_seen;

static __always_inline bool unserved_wait(void)
{
	return *(volatile u32 *)&unserved_seen && scx_bpf_dsq_nr_queued(UNSERVED_QUEUE);
}

static __always_inline void unserved_enqueue(struct task_struct *p, u64 enq_flags)
{
	/* nobody else wants the CPU, and nothing would make it look here again */
	u64 dsq = enq_flags & SCX_ENQ_LAST ? SCX_DSQ_LOCAL : UNSERVED_QUEUE;
	s32 cpu = scx_bpf_task_cpu(p);
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	if (!unserved_seen)
		unserved_seen = 1;
	scx_bpf_dsq_insert(p, dsq, cfg.slice_ns, enq_flags);
	if (cctx)
		tickless_interrupt(cctx, cpu);
}

/* ops.tick() of @p: an infinite slice ends for such a task as well. */
static __always_inline void unserved_tick(struct task_struct *p)
{
	if (p->scx.slice == SLICE_INFINITE && unserved_wait())
		port_set_slice(p, 0);
}

/* It is the turn of such a task on @cpu, which dispatches: true if one came. */
static __always_inline bool unserved_turn(s32 cpu)
{
	struct cpu_ctx *cctx;

	if (!unserved_wait())
		return false;
	cctx = cpu_ctx_of(cpu);
	if (!cctx)
		return false;
	cctx->unserved_turn = !cctx->unserved_turn;
	return cctx->unserved_turn && scx_bpf_dsq_move_to_local(UNSERVED_QUEUE, 0);
}

/* Nothing else came. */
static __always_inline void unserved_fill(s32 cpu)
{
	if (unserved_wait() && !scx_bpf_dsq_nr_queued(SCX_DSQ_LOCAL))
		scx_bpf_dsq_move_to_local(UNSERVED_QUEUE, 0);
}

#endif /* PROXY_SCHED_UNSERVED_H */
