/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who pays. What a task runs is charged to the donor in whose context it runs,
 * otherwise to itself, to the nanosecond of p->se.sum_exec_runtime, which the
 * kernel brings up to date before it calls ops.dispatch() and ops.stopping()
 * (kernel/sched/ext/ext.c, update_curr_scx()).
 */
#ifndef PROXY_SCHED_ACCOUNT_H
#define PROXY_SCHED_ACCOUNT_H

/* @tctx is on a run queue no more. Caller: has the task's rq lock. */
static __always_inline void queue_left(struct task_ctx *tctx, u32 place)
{
	if (tctx->place == PLACE_QUEUED) {
		struct cpu_ctx *cctx = cpu_ctx_of(tctx->dsq_cpu);

		if (cctx) {
			__sync_fetch_and_add(&cctx->queued_load, -(u64)tctx->queued_weight);
			__sync_fetch_and_add(&cctx->nr_queued, -1);
		}
	}
	tctx->place = place;
}

/*
 * Charge @delta_ns that owner @octx ran since charged_at_ns to its donor.
 * Returns the part that is the donor's: all of it while it waits, what lies
 * before its wakeup when it woke since, nothing when it is gone. Then the
 * donation is over.
 */
static __noinline u64 donor_charge(struct task_ctx *octx, u32 owner_pid, u64 delta_ns)
{
	struct task_struct *d = bpf_task_from_pid(octx->donor_pid);
	struct task_ctx *dctx = d ? task_ctx_of(d) : NULL;
	u64 donated = 0, cost, woke;

	if (!dctx) {
		octx->donor_pid = 0;
		goto out;
	}
	if (dctx->token == token_make(octx->donor_seq, TOKEN_ACTIVE, owner_pid)) {
		donated = delta_ns;
		cost = key_cost(donated, dctx->wait_weight);
		dctx->wait_key += cost;
		__sync_fetch_and_add(&dctx->lent_cost, cost);
		goto out;
	}
	octx->donor_pid = 0;
	if (dctx->wait_seq != octx->donor_seq)
		goto out; /* it waits for something else by now */
	woke = dctx->woke_at_ns;
	if (woke > octx->charged_at_ns)
		donated = woke - octx->charged_at_ns;
	if (donated > delta_ns)
		donated = delta_ns;
	__sync_fetch_and_add(&dctx->lent_cost, key_cost(donated, dctx->wait_weight));
out:
	if (d)
		bpf_task_release(d);
	return donated;
}

/* Charge what @p ran since the last time. Caller: ops of the CPU it runs on. */
static __always_inline void charge(struct task_struct *p, struct task_ctx *tctx)
{
	u64 exec = p->se.sum_exec_runtime;
	u64 delta_ns = exec - tctx->charged_exec_ns, donated = 0;

	if (tctx->donor_pid)
		donated = donor_charge(tctx, p->pid, delta_ns);
	tctx->charged_exec_ns = exec;
	tctx->charged_at_ns = bpf_ktime_get_ns();
	tctx->vtime += key_cost(delta_ns - donated, tctx->weight);
	stat_add(STAT_RUNTIME_NS, delta_ns);
	stat_add(STAT_OWN_NS, delta_ns - donated);
	if (donated)
		stat_add(STAT_DONATED_NS, donated);
}

/*
 * The donors of @p, the one it runs for and those that wait for it, are free to
 * be picked; false if there were none.
 */
static __always_inline bool donors_release(struct task_struct *p, struct task_ctx *tctx, s32 cpu)
{
	u32 donor = tctx->donor_pid;

	if (donor) {
		tctx->donor_pid = 0;
		donor_take_back(donor, p->pid, TOKEN_ACTIVE, cpu);
	}
	return attached_release(tctx, p->pid, cpu) || donor;
}

/* Other CPUs judge by this whether a waking task, or a donor, has an earlier key. */
static __always_inline void running_note(struct cpu_ctx *cctx, struct task_struct *p,
					 struct task_ctx *tctx)
{
	struct task_struct *d = tctx->donor_pid ? bpf_task_from_pid(tctx->donor_pid) : NULL;
	struct task_ctx *dctx = d ? task_ctx_of(d) : NULL;

	cctx->running_key = dctx ? dctx->wait_key : tctx->vtime;
	cctx->running_weight = dctx ? dctx->wait_weight : tctx->weight;
	cctx->running_pid = p->pid;
	cctx->running_since_ns = bpf_ktime_get_ns();
	if (d)
		bpf_task_release(d);
}

/* Whether this CPU is idle while donors wait on its queue, for the ticks of busy CPUs. */
static __always_inline void idle_with_donors_set(struct cpu_ctx *cctx, bool waits)
{
	if (cctx->idle_with_donors == waits)
		return;
	cctx->idle_with_donors = waits;
	__sync_fetch_and_add(&nr_idle_with_donors, waits ? 1 : -1);
}

void BPF_STRUCT_OPS(proxy_running, struct task_struct *p)
{
	struct task_ctx *tctx = task_ctx_of(p);
	s32 cpu = scx_bpf_task_cpu(p);
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	if (!tctx || !cctx)
		return;
	queue_left(tctx, PLACE_RUNNING);
	vtime_join(tctx, cpu, cctx);
	tctx->vtime += __sync_lock_test_and_set(&tctx->lent_cost, 0);
	tctx->charged_exec_ns = p->se.sum_exec_runtime;
	tctx->charged_at_ns = bpf_ktime_get_ns();
	running_note(cctx, p, tctx);
	idle_with_donors_set(cctx, false);
}

void BPF_STRUCT_OPS(proxy_stopping, struct task_struct *p, bool runnable)
{
	struct task_ctx *tctx = task_ctx_of(p);
	s32 cpu = scx_bpf_task_cpu(p);
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	if (!tctx || !cctx)
		return;
	charge(p, tctx);
	tctx->place = PLACE_LOCAL;
	cctx->running_since_ns = 0;
	cctx->running_weight = 0;
	/*
	 * Preempted by another class with slice left, it would go back to the
	 * head of the local DSQ (put_prev_task_scx()) and use up the donor's slice
	 * in its own context. Without slice it is queued by its own key.
	 */
	if (runnable && tctx->donor_pid)
		scx_bpf_task_set_slice(p, 0);
	donors_release(p, tctx, cpu);
	/*
	 * ops.dispatch() moves the clock only if something competes. A task that
	 * has the CPU to itself, and sleeps before its slice ends, takes the clock
	 * along here, else its key would run away from it.
	 */
	if (!cctx->nr_queued)
		clock_advance(cctx, key_min(tctx->vtime, donor_queue_top_key(cpu)));
}

#endif /* PROXY_SCHED_ACCOUNT_H */
