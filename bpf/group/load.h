/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What competes inside each group, and so what the group weighs: averages over some ms,
 * made by ticks, one group after the other. A busy CPU's tick looks at the groups
 * in which anything competes; each group gives its sum to its parent, and takes its weight
 * from it, as both stand then. A change so reaches the other end of a path
 * of n groups after n looks.
 *
 * Averages and not counts of the moment: what runs for a short time now and then must not
 * halve the weight of what runs beside it.
 */
#ifndef PROXY_GROUP_LOAD_H
#define PROXY_GROUP_LOAD_H

/* between two passes over the groups, and between two looks at one group */
#define GROUP_PASS_NS 4000000ULL
#define GROUP_PERIOD_NS 16000000ULL

/* per-CPU sums that one pass reads at the most */
#define GROUP_SUMS 2048U

/* What all CPUs have counted in group @nr; false if one of them was about to, so that it is not to be had. */
CORE_FN int group_sum(u32 nr, struct group_load *sum)
{
	s32 cpu;

	if (!sum)
		return 0;
	sum->load = sum->load_acc = sum->nr = sum->nr_acc = sum->changes = 0;
	core_for(cpu, (s32)cfg.nr_cpu_ids) {
		volatile struct group_load *l = group_load_on(nr, cpu);
		u64 changes;

		if (!l)
			continue;
		changes = l->changes;
		sum->load += l->load;
		sum->load_acc += l->load_acc;
		sum->nr += l->nr;
		sum->nr_acc += l->nr_acc;
		sum->changes |= (changes & 1) | (l->changes - changes);
	}
	/* a task that one CPU counted after it was read, and another has forgotten before it was */
	return !sum->changes && (s64)sum->load >= 0 && (s64)sum->nr >= 0;
}

/* Averages of group @g, of which @sum is what its CPUs have counted. */
static __always_inline void group_average(struct group *g, const struct group_load *sum, u64 now)
{
	u64 load_sum = sum->load_acc + sum->load * now, nr_sum = sum->nr_acc + sum->nr * now;
	u64 ns = now - g->at_ns; /* GROUP_PERIOD_NS at the least */

	if (!g->at_ns) {
		/* it begins: what is there now */
		g->own_load = sum->load;
		g->own_nr = sum->nr * GROUP_NR_ONE;
	} else {
		g->own_load = (g->own_load + time_since(load_sum, g->load_sum) / ns) / 2;
		g->own_nr = (g->own_nr + time_since(nr_sum, g->nr_sum) * GROUP_NR_ONE / ns) / 2;
	}
	g->load_sum = load_sum;
	g->nr_sum = nr_sum;
	g->at_ns = now;
}

/*
 * What group @g adds to the sums of its parent is @load and @number from now on. By exchange, since
 * a group may end while a pass looks at it: in either order, the sums stay what was given.
 */
static __always_inline void group_give(struct group *g, u64 load, u64 number)
{
	struct group *parent = g->parent ? group_of(g->parent) : NULL;

	if (!parent)
		return;
	__sync_fetch_and_add(&parent->child_load, load - __sync_lock_test_and_set(&g->given, load));
	__sync_fetch_and_add(&parent->child_nr,
			     number - __sync_lock_test_and_set(&g->given_nr, number));
	if (number)
		group_mark(g->parent);
}

/* The part of its parent's weight that a child group of weight @shares among its siblings has. */
static __always_inline u64 group_part(u32 parent_nr, u64 shares)
{
	struct group *parent = parent_nr ? group_of(parent_nr) : NULL;
	u64 load;

	if (!parent)
		return shares;
	load = parent->load > shares ? parent->load : shares;
	return load ? shares * parent->weight / load : shares;
}

/* Look at group @nr: 1 if there was something to be summed up. Caller: holds group_table.busy. */
CORE_FN int group_look(u32 nr, u64 now)
{
	struct group_table *t = group_table_of();
	struct group *g = group_of(nr);
	struct group_load sum = {};
	struct group_limit limit = {};
	u64 number, part;

	if (!g || !nr || (g->at_ns && time_since(now, g->at_ns) < GROUP_PERIOD_NS))
		return 0;
	/* before the sum: a CPU that counts from here on sets it again */
	__sync_fetch_and_and(&t->active[nr / 64 & (GROUP_WORDS - 1)], ~(1ULL << (nr & 63)));
	if (!g->cgroup)
		return 0;
	if (!group_sum(nr, &sum)) {
		group_mark(nr);
		return 1;
	}
	g->shares = port_group_shares(g, nr);
	if (cfg.limits) {
		port_group_limit(g, nr, &limit);
		limit_set(g, &limit);
	}
	group_average(g, &sum, now);
	number = g->own_nr + *(volatile u64 *)&g->child_nr;
	if (!sum.nr && number < GROUP_NR_ONE / 256) {
		/* it has come to rest: its next context begins anew */
		g->at_ns = 0;
		g->own_load = 0;
		g->own_nr = 0;
		number = 0;
	} else {
		group_mark(nr);
	}
	g->load = g->own_load + *(volatile u64 *)&g->child_load;
	/* a task that competes for a part of the time takes only that part from its siblings */
	part = number < GROUP_NR_ONE ? number : GROUP_NR_ONE;
	group_give(g, g->shares * part / GROUP_NR_ONE, number);
	if (!*(volatile u64 *)&g->cgroup)
		group_give(g, 0, 0); /* it ended meanwhile */
	g->weight = group_part(g->parent, g->shares);
	return 1;
}

/* Look at the active groups, if it is time for it. */
CORE_FN int group_pass(u64 now)
{
	struct group_table *t = group_table_of();
	u32 i, next = 0, looks = 0, looks_max = GROUP_SUMS / cfg.nr_cpu_ids + 1;
	u64 then = *(volatile u64 *)&t->pass_at_ns, bits;

	if (time_since(now, then) < GROUP_PASS_NS ||
	    __sync_val_compare_and_swap(&t->pass_at_ns, then, now) != then ||
	    __sync_lock_test_and_set(&t->busy, 1))
		return 0;
	/* from next on, all the way round: the first word's lower bits come last */
	core_for(i, GROUP_WORDS + 1) {
		u32 word = (t->next / 64 + i) & (GROUP_WORDS - 1);
		u64 above = ~0ULL << (t->next & 63);

		bits = *(volatile u64 *)&t->active[word];
		if (!i)
			bits &= above;
		else if (i == GROUP_WORDS)
			bits &= ~above;
		while (bits && looks < looks_max && can_loop) {
			u32 bit = bit_lowest(bits);

			bits &= ~BIT64(bit);
			looks += group_look(word * 64 + bit, now);
		}
		if (bits && looks >= looks_max) {
			next = word * 64 + bit_lowest(bits);
			break;
		}
	}
	t->next = next;
	*(volatile u32 *)&t->busy = 0;
	return 0;
}

/* Group @nr comes to be, below @parent. Its weight is a first guess. Caller: cgroup callbacks. */
static __always_inline void group_begin(struct group *g, u32 parent, u32 shares)
{
	g->parent = parent;
	g->shares = shares;
	g->at_ns = 0;
	g->own_load = 0;
	g->own_nr = 0;
	g->given = 0;
	g->given_nr = 0;
	g->quota_ns = 0;
	g->throttled = 0;
	g->throttled_ns = 0;
	g->period_at_ns = 0;
	g->child_load = 0;
	g->child_nr = 0;
	g->load = 0;
	g->weight = group_part(parent, shares);
}

/* It goes, and has no tasks and no child groups any more. */
static __always_inline void group_end(struct group *g)
{
	*(volatile u64 *)&g->cgroup = 0;
	group_give(g, 0, 0);
}

#endif /* PROXY_GROUP_LOAD_H */
