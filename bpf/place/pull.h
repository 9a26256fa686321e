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
			work_gone(octx, d, reach & 1);
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
 * The CPU of domain @nr, if any, where a task waits whose pace is less than @pace by more than
 * @margin; of PULL_LOOKS looked at the one that is furthest behind.
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

/*
 * Called by a CPU that picks and whose previous task, of @pace and @weight, could go on, at most once
 * in balance_ns: a task that gets less than that comes instead; the CPU that it comes from, or -1.
 * If there is none in its own domain, it looks at one other.
 */
CORE_FN s32 pull(s32 cpu, u64 pace, u32 weight)
{
	struct machine *m = machine_of();
	struct cpu_ctx *cctx = cpu_ctx_of(cpu), *octx;
	s32 from, nr;

	if (!cctx || !bits_read(&m->work))
		return -1;
	from = pull_find(cpu, cctx->domain, pace, key_cost(PACE_MARGIN_NS, weight));
	if (from < 0) {
		nr = pull_domain(bits_read(&m->work) & ~BIT64(cctx->domain), cctx->pull_cursor);
		if (nr < 0)
			return -1;
		cctx->pull_cursor = (nr + 1) & 63;
		from = pull_find(cpu, nr, pace, key_cost(PACE_MARGIN_FAR_NS, weight));
	}
	octx = from < 0 ? NULL : cpu_ctx_of(from);
	if (!octx ||
	    !queue_head_take(from, octx->nr_queued[REACH_ANY] ? REACH_ANY : REACH_SOME, cpu))
		return -1;
	stat_inc(STAT_DISPATCH_BALANCE);
	return from;
}

/*
 * Whether the previous task goes to CPU @from, whence a task was pulled: if that
 * makes the loads of the two more even than the move alone. Mostly it does. Else the one that
 * came would find a competitor where it is now, and be no better off than before.
 */
static __always_inline bool pull_swaps(const struct cpu_ctx *cctx, s32 from)
{
	const struct cpu_ctx *octx = cpu_ctx_of(from);

	return octx && octx->queued_load + octx->running_weight <=
			       cctx->queued_load + 2 * (u64)octx->waiting_weight;
}

#endif /* PROXY_PLACE_PULL_H */
