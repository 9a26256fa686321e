/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Becoming runnable, going onto a run queue, going to sleep.
 * All of it under the task's rq lock.
 */
#ifndef PROXY_SCHED_ENQUEUE_H
#define PROXY_SCHED_ENQUEUE_H

/*
 * An owner that lost its donor must not go on in the donor's slice. If it runs
 * for a donor that woke, its CPU picks again, unless the donor goes there
 * anyway and is tested against the owner's own key.
 */
static __always_inline void donated_slice_end(struct task_struct *p, s32 owner_cpu)
{
	struct cpu_ctx *cctx = cpu_ctx_of(owner_cpu);

	if (!cctx || !cctx->nr_queued || owner_cpu == scx_bpf_task_cpu(p))
		return;
	stat_inc(STAT_RETURN_PREEMPT);
	scx_bpf_kick_cpu(owner_cpu, SCX_KICK_PREEMPT);
}

/*
 * @p got its lock from a task that runs in the context of somebody else, from
 * further down the same chain: that donor now waits for @p, so this CPU picks
 * again instead of letting the former owner use up the donor's slice.
 * sched_ext wakes on the waker's CPU unless SCX_OPS_ALLOW_QUEUED_WAKEUP is set
 * (kernel/sched/core.c, ttwu_queue_cond()), so current is who released the lock.
 */
static __always_inline void chain_moved_on(struct task_struct *p)
{
	struct task_ctx *wctx = task_ctx_of(bpf_get_current_task_btf());

	if (!wctx || !wctx->donor_pid || wctx->donor_pid == p->pid)
		return;
	stat_inc(STAT_RETURN_PREEMPT);
	scx_bpf_kick_cpu(bpf_get_smp_processor_id(), SCX_KICK_PREEMPT);
}

void BPF_STRUCT_OPS(proxy_runnable, struct task_struct *p, u64 enq_flags)
{
	struct task_ctx *tctx = task_ctx_of(p);
	s32 owner_cpu;

	if (!tctx)
		return;
	tctx->place = PLACE_LOCAL;
	tctx->weight = task_weight(p);
	if (!tctx->token)
		return;
	chain_moved_on(p);
	owner_cpu = donor_wake(p, tctx);
	if (owner_cpu >= 0)
		donated_slice_end(p, owner_cpu);
}

/*
 * @tctx woke onto @cpu: preempt what runs there if its key is earlier by more
 * than the granularity, or if it brought donors and the first of those is earlier.
 */
static __always_inline void preempt_by_key(struct task_ctx *tctx, struct cpu_ctx *cctx, s32 cpu,
					   bool with_donors)
{
	u64 key = tctx->vtime + key_cost(cfg.wakeup_gran_ns, tctx->weight);

	if (with_donors)
		key = key_min(key, donor_queue_top_key(cpu));
	if (key_before(key, running_key_now(cctx, bpf_ktime_get_ns()))) {
		stat_inc(STAT_PREEMPT_WAKEUP);
		scx_bpf_kick_cpu(cpu, SCX_KICK_PREEMPT);
	}
}

void BPF_STRUCT_OPS(proxy_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct task_ctx *tctx = task_ctx_of(p);
	s32 cpu = scx_bpf_task_cpu(p), idle_cpu;
	struct cpu_ctx *cctx;
	bool sent_idle = false, with_donors;

	if (!tctx) {
		/* cannot happen after ops.init_task(); the global DSQ loses nobody */
		scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
		return;
	}
	/*
	 * The kernel may take a queued task to another CPU (move_queued_task()):
	 * neither ops.quiescent() nor ops.runnable() is called for that.
	 */
	queue_left(tctx, PLACE_LOCAL);
	/* ops.select_cpu() has looked for an idle CPU already when it was called */
	if (!(enq_flags & SCX_ENQ_CPU_SELECTED) && !task_pinned(p)) {
		idle_cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
		if (idle_cpu >= 0) {
			cpu = idle_cpu;
			sent_idle = true;
			stat_inc(STAT_ENQUEUE_IDLE);
		}
	}
	cctx = cpu_ctx_of(cpu);
	if (!cctx) {
		scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
		return;
	}
	vtime_join(tctx, cpu, cctx);
	tctx->dsq_cpu = cpu;
	tctx->queued_weight = tctx->weight;
	tctx->queued_at_ns = bpf_ktime_get_ns();
	__sync_fetch_and_add(&cctx->queued_load, (u64)tctx->weight);
	__sync_fetch_and_add(&cctx->nr_queued, 1);
	tctx->place = PLACE_QUEUED;
	stat_inc(STAT_ENQUEUE);
	scx_bpf_dsq_insert_vtime(p, run_queue(cpu), cfg.slice_ns, tctx->vtime, enq_flags);
	with_donors = donors_release(p, tctx, cpu);
	if (sent_idle)
		scx_bpf_kick_cpu(cpu, 0); /* claimed: nobody else will wake it */
	else if (!cctx->running_since_ns && cpu != (s32)bpf_get_smp_processor_id())
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
	else if (enq_flags & SCX_ENQ_WAKEUP)
		preempt_by_key(tctx, cctx, cpu, with_donors);
}

void BPF_STRUCT_OPS(proxy_quiescent, struct task_struct *p, u64 deq_flags)
{
	struct task_ctx *tctx = task_ctx_of(p);
	s32 cpu = scx_bpf_task_cpu(p);

	if (!tctx)
		return;
	queue_left(tctx, PLACE_ASLEEP);
	if (!(deq_flags & SCX_DEQ_SLEEP) || !edge_lock(p, tctx))
		return;
	donor_block(p, tctx, cpu);
	/* who came to wait for it since ops.stopping() has a longer chain to walk now */
	attached_release(tctx, p->pid, cpu);
}

bool BPF_STRUCT_OPS(proxy_yield, struct task_struct *from, struct task_struct *to)
{
	struct task_ctx *tctx = task_ctx_of(from);

	/* yielding to a certain task is not supported, and so does nothing */
	if (tctx && !to) {
		tctx->yielded = 1;
		scx_bpf_task_set_slice(from, 0);
	}
	return false;
}

#endif /* PROXY_SCHED_ENQUEUE_H */
