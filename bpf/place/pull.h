/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tasks that move from one CPU's run queue to another CPU: stolen by an idle CPU, or
 * pulled by a busy one because they get less than their share. Both only ever take from
 * the CPU that picks, in ops.dispatch().
 */
#ifndef PROXY_PLACE_PULL_H
#define PROXY_PLACE_PULL_H

/* CPUs whose restricted tasks an idle CPU looks at, and tasks of each (QUEUE_LOOKS, ports.h) */
#define STEAL_LOOKS 4

/* CPUs with waiting tasks that a busy CPU compares with its own */
#define PULL_LOOKS 8

/*
 * Take a task of @reach from a CPU of domain @nr to @cpu; 1 if one came. @looks bounds
 * the queues looked at: a task that any CPU may take comes from the first one.
 */
CORE_FN int steal_from(s32 cpu, u32 nr, u32 from, u32 reach)
{
	struct domain *d = domain_of(nr);
	struct cpu_ctx *octx;
	u32 bit, looks = 0;
	u64 work;
	s32 other;

	if (!d || reach >= REACH_ONE)
		return 0;
	work = bits_read(&d->work[reach & 1]);
	while (work && can_loop) {
		bit = bit_from(work, from);
		work &= ~BIT64(bit);
		other = domain_cpu(d, bit);
		octx = other == cpu ? NULL : cpu_ctx_of(other);
		if (!octx)
			continue;
		if (!octx->nr_queued[reach & 1]) {
			work_gone(octx, reach & 1);
			continue;
		}
		if (queue_head_take(other, reach & 1, cpu))
			return 1;
		if (reach == REACH_SOME && ++looks >= STEAL_LOOKS)
			break;
	}
	return 0;
}

static __always_inline int steal_in(s32 cpu, u32 nr, u32 from)
{
	struct domain *d = domain_of(nr);

	if (!d)
		return 0;
	if (!bits_read(&d->work[REACH_ANY]) && !bits_read(&d->work[REACH_SOME])) {
		__sync_fetch_and_and(&machine_of()->work, ~BIT64(nr));
		if (bits_read(&d->work[REACH_ANY]) || bits_read(&d->work[REACH_SOME]))
			__sync_fetch_and_or(&machine_of()->work, BIT64(nr));
		return 0;
	}
	return steal_from(cpu, nr, from, REACH_ANY) || steal_from(cpu, nr, from, REACH_SOME);
}

/* Called by a CPU with nothing to run; 1 if a task came. Nearest first. */
CORE_FN int steal(s32 cpu)
{
	struct machine *m = machine_of();
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	struct domain *d;
	u64 others, near;
	u32 nr;
	int came = 0;

	if (!cctx || !bits_read(&m->work))
		return 0;
	d = domain_of(cctx->domain);
	if (!d)
		return 0;
	others = bits_read(&m->work);
	if (others & BIT64(cctx->domain))
		came = steal_in(cpu, cctx->domain, cctx->bit);
	others &= ~BIT64(cctx->domain);
	while (!came && others && can_loop) {
		near = others & d->near;
		nr = bit_from(near ? near : others, cctx->domain);
		others &= ~BIT64(nr);
		came = steal_in(cpu, nr, 0);
	}
	if (came)
		stat_inc(STAT_DISPATCH_STEAL);
	return came;
}

/*
 * The CPU of domain @nr, if any, where a task was queued last whose pace is less than @pace by more
 * than @margin; of PULL_LOOKS looked at the one that is furthest behind.
 */
CORE_FN s32 pull_find(s32 cpu, u32 nr, u64 pace, u64 margin)
{
	struct domain *d = domain_of(nr);
	struct cpu_ctx *octx;
	u32 bit, looks;
	s32 other, from = -1;
	u64 work;

	if (!d)
		return -1;
	work = bits_read(&d->work[REACH_ANY]) | bits_read(&d->work[REACH_SOME]);
	for (looks = 0; work && looks < PULL_LOOKS && can_loop; looks++) {
		bit = bit_from(work, (u32)cpu + looks);
		work &= ~BIT64(bit);
		other = domain_cpu(d, bit);
		octx = other == cpu ? NULL : cpu_ctx_of(other);
		if (!octx)
			continue;
		if (octx->waiting_pace + margin < pace) {
			pace = octx->waiting_pace + margin;
			from = other;
		}
	}
	return from;
}

/* Of domains @among the first from @from on where tasks wait that others may take; -1: none. */
CORE_FN s32 pull_domain(u64 among, u32 from)
{
	struct domain *d;
	u32 nr;

	while (among && can_loop) {
		nr = bit_from(among, from);
		among &= ~BIT64(nr);
		d = domain_of(nr);
		if (d && bits_read(&d->work[REACH_ANY]) | bits_read(&d->work[REACH_SOME]))
			return (s32)nr;
	}
	return -1;
}

static __always_inline u64 apart(s64 load)
{
	return load < 0 ? -load : load;
}

/* What pull_head() is to compare with. */
struct puller {
	u64 pace; /* of the previous task */
	u64 margin_ns;
	u32 weight;
};

/*
 * Pull the first task of CPU @from to @cpu, if that one is behind as it is now. One that woke and has
 * not run since waits for its turn: it used little because it slept. It comes alone, or
 * the previous task goes there in exchange: whatever leaves the loads of the two more even. If both
 * leave them less even than they are, it has to be behind by twice as much: who is now behind
 * would soon be ahead, and the others behind. If they get more even, half as much will do.
 */
CORE_FN s32 pull_head(s32 cpu, s32 from, const struct puller *by)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu), *octx = cpu_ctx_of(from);
	struct task_struct *p;
	struct task_ctx *tctx;
	u32 reach, pid = 0, weight = 0;
	u64 pace = 0, then, some, margin_ns;
	s64 now, alone, swapped;
	bool swaps;

	if (!cctx || !octx || !by)
		return -1;
	reach = octx->nr_queued[REACH_ANY] ? REACH_ANY : REACH_SOME;
	if (queue_head(from, reach, &pid) == KEY_NONE)
		return -1;
	p = port_task_get(pid);
	if (!p)
		return -1;
	tctx = task_ctx_of(p);
	if (tctx) {
		weight = tctx->slept ? 0 : tctx->weight;
		pace = pace_now(tctx, port_now());
	}
	port_task_put(p);

	now = cctx->queued_load + by->weight - octx->queued_load - octx->running_weight;
	alone = now + 2 * (s64)weight;
	swapped = alone - 2 * (s64)by->weight;
	swaps = apart(swapped) <= apart(alone);
	then = apart(swaps ? swapped : alone);
	margin_ns = by->margin_ns;
	some = (weight < by->weight ? weight : by->weight) / 4;
	if (then > apart(now) + some)
		margin_ns *= 2;
	else if (then + some < apart(now))
		margin_ns /= 2;
	if (!weight || pace + key_cost(margin_ns, by->weight) >= by->pace ||
	    !queue_head_take(from, reach, cpu))
		return -1;
	cctx->pulled_pid = pid;
	stat_inc(STAT_DISPATCH_BALANCE);
	return swaps ? from + 1 : 0;
}

/*
 * Called by a CPU that picks and whose previous task, of @pace and @weight, could go on, at most once
 * in balance_ns: a task that gets less than that comes instead. If there is none in its own domain,
 * it looks at one other. -1: none came; else task_ctx.swap_to for the previous one.
 */
CORE_FN s32 pull(s32 cpu, u64 pace, u32 weight)
{
	struct puller by = { .pace = pace, .margin_ns = PACE_MARGIN_NS, .weight = weight };
	struct machine *m = machine_of();
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	s32 from, nr;

	if (!cctx || !bits_read(&m->work))
		return -1;
	from = pull_find(cpu, cctx->domain, pace, key_cost(by.margin_ns / 2, weight));
	if (from < 0) {
		nr = pull_domain(bits_read(&m->work) & ~BIT64(cctx->domain), cctx->pull_cursor);
		if (nr < 0)
			return -1;
		cctx->pull_cursor = (nr + 1) & 63;
		by.margin_ns = PACE_MARGIN_FAR_NS;
		from = pull_find(cpu, nr, pace, key_cost(by.margin_ns / 2, weight));
	}
	return from < 0 ? -1 : pull_head(cpu, from, &by);
}

#endif /* PROXY_PLACE_PULL_H */
