/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who is told to pick: a CPU whose running task has a later key than one that woke, and,
 * from a tick, idle CPUs that have something to look at. An idle CPU does not tick, so
 * one busy CPU looks after all of them, at most once in CHORES_NS per domain.
 */
#ifndef PROXY_PLACE_KICK_H
#define PROXY_PLACE_KICK_H

#define CHORES_NS 4000000ULL

/* of the times that an idle CPU could be told of restricted tasks, one in so many; a power of 2 */
#define SOME_CHORES 16

/* an idle CPU whose donors lead nowhere is looked at again after this, then twice as long, ... */
#define DONOR_LOOK_NS 4000000ULL
#define DONOR_LOOK_MAX_NS 64000000ULL

/*
 * @tctx woke onto @cpu: preempt what runs there if its key is earlier by more
 * than the granularity, or if it brought donors and the first of those is earlier.
 *
 * What has just woken itself is not preempted: of tasks that send each other messages most
 * soon sleep by themselves, and each preemption would be a switch more. If it goes on after
 * all, the next tick ends its slice. Of one that has run for a slice that is not to be expected:
 * it is preempted as soon as it has been passed.
 */
static __always_inline void preempt_by_key(struct task_ctx *tctx, struct cpu_ctx *cctx, s32 cpu,
					   bool with_donors, u64 now)
{
	u64 running = running_key_now(cctx, now);
	u64 key = tctx->vtime + (cctx->turn_over ? 0 : key_cost(cfg.wakeup_gran_ns, tctx->weight));
	/* those that it brought may have gone on meanwhile */
	u64 first = with_donors ? donor_first_key(cpu) : KEY_NONE;

	if (first == KEY_NONE || !key_before(first, running)) {
		u64 awake = time_since(now, cctx->awake_at_ns);

		if (!key_before(key, running)) {
			if (awake >= cfg.slice_ns)
				hrtick_start(cctx, cpu, now,
					     hrtick_until(running, key, cctx->running_weight));
			return;
		}
		if (awake < cfg.protect_ns) {
			cctx->preempt_at_tick = 1;
			return;
		}
	}
	stat_inc(STAT_PREEMPT_WAKEUP);
	port_kick(cpu, PORT_KICK_PREEMPT);
}

/* A task woke while what runs here had just woken, and that runs still. Caller: this CPU. */
static __always_inline void preempt_at_tick(struct cpu_ctx *cctx, s32 cpu)
{
	if (!cctx->preempt_at_tick)
		return;
	cctx->preempt_at_tick = 0;
	stat_inc(STAT_PREEMPT_TICK);
	port_kick(cpu, PORT_KICK_PREEMPT);
}

/* Whether @cpu went idle while donors wait on its donor queue. Caller: that CPU. */
static __always_inline void idle_with_donors_set(struct cpu_ctx *cctx, bool waits)
{
	struct domain *d;

	if (!waits && !cctx->donor_look_ns)
		return; /* nearly always */
	d = domain_of(cctx->domain);
	if (!d)
		return;
	if (!waits) {
		cctx->donor_look_ns = 0;
		__sync_fetch_and_and(&d->donors, ~BIT64(cctx->bit));
		return;
	}
	cctx->donor_look_ns = cctx->donor_look_ns ? cctx->donor_look_ns * 2 : DONOR_LOOK_NS;
	if (cctx->donor_look_ns > DONOR_LOOK_MAX_NS)
		cctx->donor_look_ns = DONOR_LOOK_MAX_NS;
	cctx->donor_look_at_ns = port_now() + cctx->donor_look_ns;
	bits_set(&d->donors, BIT64(cctx->bit), &machine_of()->donors, cctx->domain);
}

/* Idle CPUs of domain @nr look at their donors again, each when its time has come. */
CORE_FN int kick_donors(u32 nr, u64 now)
{
	struct domain *d = domain_of(nr);
	struct cpu_ctx *cctx;
	u64 bits;
	u32 bit;

	if (!d)
		return 0;
	bits = bits_read(&d->donors);
	while (bits && can_loop) {
		bit = bit_lowest(bits);
		bits &= ~BIT64(bit);
		cctx = cpu_ctx_of(domain_cpu(d, bit));
		if (cctx && !key_before(now, cctx->donor_look_at_ns))
			port_kick(domain_cpu(d, bit), PORT_KICK_IDLE);
	}
	return 0;
}

/* An idle CPU, of domain @nr if there is one, else of the next that has any; -1: none. */
CORE_FN s32 idle_any(u32 nr)
{
	struct machine *m = machine_of();
	u64 doms = bits_read(&m->idle), idle;
	struct domain *d;

	while (doms && can_loop) {
		u32 at = bit_from(doms, nr);

		doms &= ~BIT64(at);
		d = domain_of(at);
		idle = d ? bits_read(&d->idle) : 0;
		if (idle)
			return domain_cpu(d, bit_lowest(idle));
		if (d)
			bits_found_empty(&d->idle, &m->idle, at);
	}
	return -1;
}

/*
 * Work waits in a domain while @idle, a CPU of that or another, is idle. Wakeups look for
 * idle CPUs, but what was queued before the CPU went idle may have missed it, and what a
 * real-time task overtook has nobody to take it. Whether an idle CPU may have
 * a restricted task is not known here, so of those it is told less often.
 */
static __always_inline void kick_for_work(struct domain *d, s32 idle)
{
	if (!bits_read(&d->work[REACH_ANY]) && d->chores++ & (SOME_CHORES - 1))
		return;
	stat_inc(STAT_KICK_FOR_WORK);
	port_kick(idle, PORT_KICK_IDLE);
}

/* Look after the idle CPUs of domain @nr, if that was not done just now. */
CORE_FN int chores(u32 nr, u64 now)
{
	struct domain *d = domain_of(nr);
	u64 donors, then;
	s32 idle = -1;

	if (!d)
		return 0;
	then = bits_read(&d->chores_at_ns);
	if (now - then < CHORES_NS)
		return 0;
	donors = bits_read(&d->donors);
	if (!donors)
		bits_found_empty(&d->donors, &machine_of()->donors, nr);
	if (!port_donating())
		donors = 0;
	if (bits_read(&d->work[REACH_ANY]) | bits_read(&d->work[REACH_SOME]))
		idle = idle_any(nr);
	if ((!donors && idle < 0) ||
	    __sync_val_compare_and_swap(&d->chores_at_ns, then, now) != then)
		return 0;
	if (donors)
		kick_donors(nr, now);
	if (idle >= 0)
		kick_for_work(d, idle);
	return 0;
}

/* ops.tick() of busy CPU @cpu: what was put off, and what idle CPUs have to be told. */
static __always_inline void tick(s32 cpu)
{
	struct machine *m = machine_of();
	u64 now, again, todo = bits_read(&m->donors);
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u32 nr;

	if (cctx && cpu == port_this_cpu()) {
		perf_note(cctx, cpu, port_now(), cctx->running_since_ns);
		preempt_at_tick(cctx, cpu);
		again = cctx->hrtick_at_ns ? hrtick(cpu) : 0;
		if (again)
			port_hrtick(cpu, again);
	}
	if (bits_read(&group_table_of()->any))
		group_pass(port_now());
	if (bits_read(&m->idle))
		todo |= bits_read(&m->work);
	if (!todo)
		return;
	now = port_now();
	while (todo && can_loop) {
		nr = bit_lowest(todo);
		todo &= ~BIT64(nr);
		chores(nr, now);
	}
}

#endif /* PROXY_PLACE_KICK_H */
