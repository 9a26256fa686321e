/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where a waking task goes: an idle CPU, straight onto its local DSQ, or a
 * busy one, through ops.enqueue(). For a donor that wakes this is the return
 * migration; the rule stands in return_cpu().
 *
 * ops.select_cpu() runs under the task's pi_lock, not its rq lock: it changes
 * no state of the task.
 */
#ifndef PROXY_SCHED_SELECT_H
#define PROXY_SCHED_SELECT_H

/* Key of the task that ran on the donor's context: what it is judged by from now on. */
static __always_inline u64 owner_own_key(u32 owner_pid, const struct cpu_ctx *cctx)
{
	struct task_struct *o = bpf_task_from_pid(owner_pid);
	struct task_ctx *tctx = o ? task_ctx_of(o) : NULL;
	u64 key = tctx ? tctx->vtime : cctx->clock;

	if (o)
		bpf_task_release(o);
	return key;
}

/*
 * A donor woke and no CPU is idle. Home, where its caches are, unless the owner
 * of its lock runs elsewhere with a later key than what runs at home: the owner
 * is about to lose the donated context and with it, most likely, its CPU.
 */
static __always_inline s32 return_cpu(struct task_struct *p, struct task_ctx *tctx, s32 home)
{
	u64 now = bpf_ktime_get_ns(), home_lead, owner_lead;
	struct cpu_ctx *hctx, *octx;
	s32 owner_cpu;

	if (token_kind(tctx->token) != TOKEN_ACTIVE)
		return home;
	owner_cpu = tctx->wait_cpu;
	if (owner_cpu == home || !bpf_cpumask_test_cpu(owner_cpu, p->cpus_ptr))
		return home;
	hctx = cpu_ctx_of(home);
	octx = cpu_ctx_of(owner_cpu);
	if (!hctx || !octx || !hctx->running_since_ns)
		return home;
	/* how far what runs there is ahead of its CPU's clock: more is easier to preempt */
	home_lead = running_key_now(hctx, now) - hctx->clock;
	owner_lead = owner_own_key(token_place(tctx->token), octx) - octx->clock;
	return (s64)(owner_lead - home_lead) > 0 ? owner_cpu : home;
}

s32 BPF_STRUCT_OPS(proxy_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	struct task_ctx *tctx = task_ctx_of(p);
	bool idle = false, returns;
	s32 cpu;

	cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);
	if (!tctx)
		return cpu;
	returns = cfg.donate && tctx->token;
	if (idle) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, cfg.slice_ns, 0);
		stat_inc(STAT_DISPATCH_IDLE);
		if (returns)
			stat_inc(STAT_RETURN_IDLE);
		return cpu;
	}
	if (returns && !task_pinned(p)) {
		cpu = return_cpu(p, tctx, prev_cpu);
		stat_inc(cpu == prev_cpu ? STAT_RETURN_HOME : STAT_RETURN_OWNER);
	} else if (returns) {
		stat_inc(STAT_RETURN_HOME);
	}
	return cpu;
}

#endif /* PROXY_SCHED_SELECT_H */
