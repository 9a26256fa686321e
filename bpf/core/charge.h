/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Charging. What a task runs is charged to the donor in whose context it runs,
 * otherwise to itself, to the nanosecond of its CPU time, which the kernel
 * brings up to date before it calls ops.dispatch(), and ops.stopping() with what follows it
 * (kernel/sched/ext/ext.c, update_curr_scx()).
 */
#ifndef PROXY_CORE_CHARGE_H
#define PROXY_CORE_CHARGE_H

/*
 * The part of @delta_ns, run since @charged_at_ns, that a donor which woke at
 * @woke_at_ns still pays: what lies before its wakeup.
 */
static inline u64 donated_before_wake(u64 delta_ns, u64 charged_at_ns, u64 woke_at_ns)
{
	u64 donated = woke_at_ns > charged_at_ns ? woke_at_ns - charged_at_ns : 0;

	return donated > delta_ns ? delta_ns : donated;
}

/* virtual time that @ns on the context of @dctx cost it; an urgent donor pays none */
static __always_inline u64 donor_cost(const struct task_ctx *dctx, u64 ns)
{
	return dctx->wait_urgency ? 0 : key_cost(ns, dctx->wait_weight);
}

/* This CPU ran so long for an urgent donor. */
static __always_inline void urgent_use(u64 ns)
{
	struct cpu_ctx *cctx = cpu_ctx_of(port_this_cpu());

	if (cctx)
		cctx->urgent_ns += ns;
}

/*
 * The key of a waiting donor, @from when its token was looked at, is @to. Should it have woken since,
 * and wait for something else, that wait has a key of its own.
 */
static __always_inline void wait_key_set(struct task_ctx *dctx, u64 from, u64 to)
{
	__sync_val_compare_and_swap(&dctx->wait_key, from, to);
}

/*
 * The context of a waiting donor weighs what its group is worth now. Caller: holds it, as the
 * CPU that runs its owner does.
 */
static __always_inline void wait_weight_refresh(struct task_ctx *dctx)
{
	struct cpu_ctx *cctx;
	u32 weight;
	u64 key;

	if (!dctx->group || dctx->wait_urgency)
		return;
	group_mark(dctx->group);
	weight = group_weigh(dctx);
	key = dctx->wait_key;
	cctx = weight == dctx->wait_weight ? NULL : cpu_ctx_of(dctx->wait_cpu);
	if (!cctx)
		return;
	wait_key_set(dctx, key, key_rescale(key, cctx->clock, dctx->wait_weight, weight));
	dctx->wait_weight = weight;
}

/*
 * Charge @delta_ns that owner @octx ran since charged_at_ns to its donor.
 * Returns the part that is the donor's: all of it while it waits, what lies
 * before its wakeup when it woke since, nothing when it is gone. Then the
 * donation is over.
 */
static __noinline u64 donor_charge(struct task_ctx *octx, u32 owner_pid, u64 delta_ns)
{
	struct task_struct *d = port_task_get(octx->donor_pid);
	struct task_ctx *dctx = d ? task_ctx_of(d) : NULL;
	u64 donated = 0, cost, key;

	if (!dctx) {
		donation_over(octx);
		goto out;
	}
	if (dctx->wait_urgency)
		urgent_use(delta_ns);
	key = *(volatile u64 *)&dctx->wait_key;
	if (dctx->token == token_make(octx->donor_seq, TOKEN_ACTIVE, owner_pid)) {
		donated = delta_ns;
		cost = donor_cost(dctx, donated);
		wait_key_set(dctx, key, key + cost);
		__sync_fetch_and_add(&dctx->lent_cost, cost);
		wait_weight_refresh(dctx);
		goto out;
	}
	donation_over(octx);
	if (dctx->wait_seq != octx->donor_seq)
		goto out; /* it waits for something else by now */
	donated = donated_before_wake(delta_ns, octx->charged_at_ns, dctx->woke_at_ns);
	__sync_fetch_and_add(&dctx->lent_cost, donor_cost(dctx, donated));
out:
	if (d)
		port_task_put(d);
	return donated;
}

/* Charge what @p ran since the last time. Caller: ops of the CPU it runs on. */
static __always_inline void charge(struct task_struct *p, struct task_ctx *tctx, u64 now)
{
	u64 exec = port_exec_ns(p);
	u64 delta_ns = exec - tctx->charged_exec_ns, donated = 0;
	u32 donor_pid = tctx->donor_pid;

	if (donor_pid)
		donated = donor_charge(tctx, port_pid(p), delta_ns);
	tctx->charged_exec_ns = exec;
	tctx->charged_at_ns = now;
	vtime_use(tctx, key_cost(delta_ns - donated, tctx->weight), now);
	weight_refresh(tctx);
	if (tctx->group && limits_any())
		limit_burn(tctx->group, delta_ns);
	stat_add(STAT_RUNTIME_NS, delta_ns);
	stat_add(STAT_OWN_NS, delta_ns - donated);
	if (donated) {
		stat_add(STAT_DONATED_NS, donated);
		event_gave(donor_pid, port_pid(p), donated);
	}
}

/* Other CPUs judge by this whether a waking task, or a donor, has an earlier key. */
static __always_inline void running_note(struct cpu_ctx *cctx, struct task_struct *p,
					 struct task_ctx *tctx, u64 now)
{
	struct task_struct *d = tctx->donor_pid ? port_task_get(tctx->donor_pid) : NULL;
	struct task_ctx *dctx = d ? task_ctx_of(d) : NULL;

	cctx->running_key = dctx ? dctx->wait_key : tctx->vtime;
	cctx->running_weight = dctx ? dctx->wait_weight : tctx->weight;
	cctx->running_pid = port_pid(p);
	cctx->running_since_ns = now;
	cctx->turn_over = 0;
	cctx->preempt_at_tick = 0;
	if (d)
		port_task_put(d);
}

#endif /* PROXY_CORE_CHARGE_H */
