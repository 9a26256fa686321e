/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Effective weights: what a context weighs among all contexts of the machine, given
 * cpu.weight of the cgroups on its path. One key orders run queue, donor queue and what
 * runs, so the tree of groups is made flat: a group's weight is its part of its parent's,
 * a context's weight is its part of its group's.
 *
 * Contexts that compete count: of tasks that are runnable or run, and of donors that wait.
 * So a group whose only thread sleeps on a lock keeps its share, and lends it. An
 * owner that runs in a donor's context does not count for its own group meanwhile.
 *
 * Shares hold among siblings on the whole machine, as Documentation/admin-guide/
 * cgroup-v2.rst has it: a group's weight is divided by what competes inside it, wherever
 * that is.
 */
#ifndef PROXY_GROUP_WEIGHT_H
#define PROXY_GROUP_WEIGHT_H

/* Something competes in group @nr: the next pass looks at it. */
static __always_inline void group_mark(u32 nr)
{
	struct group_table *t = group_table_of();
	u64 *word = &t->active[nr / 64 & (GROUP_WORDS - 1)], bit = 1ULL << (nr & 63);

	if (!(*(volatile u64 *)word & bit))
		__sync_fetch_and_or(word, bit);
}

static __always_inline void group_add(struct group_load *l, u64 weight, u64 nr, u64 now)
{
	*(volatile u64 *)&l->load = l->load + weight;
	*(volatile u64 *)&l->load_acc = l->load_acc - weight * now;
	*(volatile u64 *)&l->nr = l->nr + nr;
	*(volatile u64 *)&l->nr_acc = l->nr_acc - nr * now;
}

/*
 * Whether the context of @tctx competes in its group from now on. Caller: has the task's
 * rq lock, which a donor's owner that was just moved here is under as well.
 */
static __always_inline void group_count(struct task_ctx *tctx, u32 counts)
{
	struct group_load *l;
	u64 weight, now;

	if (!tctx->group || !tctx->counted == !counts)
		return;
	l = group_load_here(tctx->group);
	if (!l)
		return;
	now = port_now();
	*(volatile u64 *)&l->changes = l->changes + 1;
	if (counts) {
		weight = tctx->own_weight;
		tctx->counted = weight;
		group_add(l, weight, 1, now);
		group_mark(tctx->group);
	} else {
		weight = tctx->counted;
		tctx->counted = 0;
		group_add(l, -weight, -1, now);
	}
	*(volatile u64 *)&l->changes = l->changes + 1;
}

/* What the context of @tctx weighs now. */
static __always_inline u32 group_weigh(const struct task_ctx *tctx)
{
	u64 weight = tctx->own_weight, load;
	const struct group *g;

	if (!tctx->group)
		return weight;
	g = group_of(tctx->group);
	if (!g)
		return weight;
	/* no context is more than the whole of its group, however rarely the others run */
	load = g->load > weight ? g->load : weight;
	if (!load)
		return WEIGHT_MIN;
	weight = weight * g->weight / load;
	return weight > WEIGHT_MIN ? weight : WEIGHT_MIN;
}

/* @tctx is in group @nr from now on. Caller: has the task's rq lock, or no other CPU knows it yet. */
static __always_inline void group_move(struct task_ctx *tctx, u32 nr)
{
	bool counts = tctx->counted;

	group_count(tctx, 0);
	tctx->group = nr;
	if (counts)
		group_count(tctx, 1);
}

#endif /* PROXY_GROUP_WEIGHT_H */
