/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cpu.max: a group whose budget for the period is used up runs no more until it has one again. Its
 * tasks are parked: on a queue of their CPU that is ordered by when they may be looked at again.
 *
 * The cap follows the task that used the CPU: what a task runs is taken from its own group's budget and
 * from those above, whosever context it ran in; the share follows whose turn it was. A
 * parked owner may be taken out by a donor, whatever its group owes: that makes
 * the debt larger, and ends the inversion.
 *
 * Budgets are looked at when a task is queued, has been charged, and at its ticks, so a group uses more
 * than it has by a tick of each of its tasks. That is a debt, and paid from the next periods, so usage
 * is right on average. No group is charged more than DEBT_NS of its quota.
 */
#ifndef PROXY_GROUP_LIMIT_H
#define PROXY_GROUP_LIMIT_H

/* levels above a task that may have a limit */
#define LIMIT_LEVELS 32

/* most that a group owes: as much quota as it gets in this time */
#define DEBT_NS 1000000000ULL

/* a parked task waits no longer, whatever its group owes: the kernel's watchdog would see it */
#define PARK_MAX_NS 16000000000ULL

/* what a CPU runs at the most before a tick charges it */
#define UNCHARGED_NS 4000000ULL

/* parked tasks that one pick looks at */
#define PARK_LOOKS 4

/* Time or an integral since @then; clocks of CPUs differ a little, and nothing goes back. */
static inline u64 time_since(u64 now, u64 then)
{
	return (s64)(now - then) < 0 ? 0 : now - then;
}

/*
 * Budget that may be left over when a period ends, beside the burst: that may be time which other CPUs
 * ran and have not been charged for.
 */
static __always_inline u64 limit_uncharged(const struct group *g)
{
	u64 ns = group_table_of()->uncharged_ns;

	return ns < g->quota_ns ? ns : g->quota_ns;
}

/* Not a constant, with which the work of the verifier would depend on the number of CPUs. */
static __always_inline void limits_init(void)
{
	group_table_of()->uncharged_ns = (u64)(cfg.nr_cpu_ids - 1) * UNCHARGED_NS;
}

/* The budget of @g is brought up to @now. A group that owes nothing begins its period when it is used. */
static __always_inline void limit_refill(struct group *g, u64 now)
{
	u64 at = *(volatile u64 *)&g->period_at_ns, periods;
	s64 budget, add, most = g->quota_ns + g->burst_ns + limit_uncharged(g);

	if (!at) {
		if (!__sync_val_compare_and_swap(&g->period_at_ns, 0, now))
			g->budget_ns = g->quota_ns;
		return;
	}
	if (!g->period_ns || time_since(now, at) < g->period_ns)
		return;
	periods = time_since(now, at) / g->period_ns;
	if (__sync_val_compare_and_swap(&g->period_at_ns, at, at + periods * g->period_ns) != at)
		return;
	budget = *(volatile s64 *)&g->budget_ns;
	add = (periods > 1000 ? 1000 : periods) * g->quota_ns;
	if (budget + add >= most) {
		add = most - budget;
		g->period_at_ns = now;
	}
	__sync_fetch_and_add(&g->budget_ns, add);
}

/* When @g, which has a quota, has a budget again; 0: now. */
static __always_inline u64 limit_due_of(struct group *g)
{
	s64 budget = *(volatile s64 *)&g->budget_ns;
	u64 quota = *(volatile u64 *)&g->quota_ns;

	if (budget > 0 || !quota)
		return 0;
	return g->period_at_ns + ((u64)-budget / quota + 1) * g->period_ns;
}

/* When a task of group @nr may run again; 0: now. */
CORE_FN u64 limit_due(u32 nr, u64 now)
{
	u64 due = 0, at;
	struct group *g;
	u32 i;

	for (i = 0; i < LIMIT_LEVELS && nr && can_loop; i++) {
		g = group_of(nr);
		if (!g)
			break;
		nr = g->parent;
		if (!g->quota_ns)
			continue;
		limit_refill(g, now);
		at = limit_due_of(g);
		if (at && (!due || key_before(due, at)))
			due = at;
	}
	return due;
}

/* Of the groups from @nr up, the number of that which has no budget until @due, for the statistics. */
CORE_FN u32 limit_debtor(u32 nr, u64 due)
{
	struct group *g;
	u32 i;

	for (i = 0; i < LIMIT_LEVELS && nr && can_loop; i++) {
		g = group_of(nr);
		if (!g)
			break;
		if (g->quota_ns && limit_due_of(g) == due)
			return nr;
		nr = g->parent;
	}
	return GROUP_ROOT;
}

/* A task that was parked because of group @nr goes on after @ns. */
static __always_inline void limit_throttled(u32 nr, u64 ns)
{
	struct group *g = nr ? group_of(nr) : NULL;

	if (!g)
		return;
	__sync_fetch_and_add(&g->throttled, 1);
	__sync_fetch_and_add(&g->throttled_ns, ns);
}

/* A task of group @nr ran for @ns. */
CORE_FN int limit_burn(u32 nr, u64 ns)
{
	struct group *g;
	s64 least;
	u32 i;

	for (i = 0; i < LIMIT_LEVELS && nr && can_loop; i++) {
		g = group_of(nr);
		if (!g)
			break;
		nr = g->parent;
		if (!g->quota_ns || !g->period_ns)
			continue;
		least = -(s64)(DEBT_NS / g->period_ns * g->quota_ns + g->quota_ns);
		if (*(volatile s64 *)&g->budget_ns - (s64)ns > least)
			__sync_fetch_and_add(&g->budget_ns, -(s64)ns);
		else
			g->budget_ns = least;
	}
	return 0;
}

static __always_inline bool limits_any(void)
{
	return *(volatile u64 *)&group_table_of()->limits;
}

/*
 * When @p may run again, 0: now. Not held up: a task that was preempted inside an RCU read-side
 * section, one that exits (it does not go back to user mode, and has locks to release on its way),
 * and one that has not run for so long that the watchdog would see it.
 */
static __always_inline u64 task_due(struct task_struct *p, const struct task_ctx *tctx, u64 now)
{
	u64 off = tctx->off_since_ns;

	if (!tctx->group || !limits_any())
		return 0;
	if ((off && time_since(now, off) > PARK_MAX_NS) || port_in_rcu(p) || port_exiting(p))
		return 0;
	return limit_due(tctx->group, now);
}

/* @g has the limit that the kernel says from now on. Caller: holds group_table.busy. */
static __always_inline void limit_set(struct group *g, const struct group_limit *limit)
{
	if (g->quota_ns == limit->quota_ns && g->period_ns == limit->period_ns &&
	    g->burst_ns == limit->burst_ns)
		return;
	g->quota_ns = 0; /* not read meanwhile */
	g->period_ns = limit->period_ns;
	g->burst_ns = limit->burst_ns;
	g->period_at_ns = 0;
	*(volatile u64 *)&g->quota_ns = limit->quota_ns;
	if (limit->quota_ns)
		group_table_of()->limits = 1;
}

#endif /* PROXY_GROUP_LIMIT_H */
