/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Idle CPUs: which there are, and the choice of one for a task.
 *
 * A CPU's bit is set when it goes idle (ops.update_idle()), and again when it was
 * claimed, looked for work and found none; whoever clears the bit has claimed the
 * CPU. cctx->idle is the same for the CPU itself, without the claims.
 */
#ifndef PROXY_PLACE_IDLE_H
#define PROXY_PLACE_IDLE_H

/* @cpu is idle and can be claimed. Caller: that CPU. */
static __always_inline void idle_offer(struct cpu_ctx *cctx)
{
	struct domain *d = domain_of(cctx->domain);

	if (d && !(bits_read(&d->idle) & BIT64(cctx->bit)))
		bits_set(&d->idle, BIT64(cctx->bit), &machine_of()->idle, cctx->domain);
}

/* ops.update_idle() */
static __always_inline void idle_changed(struct cpu_ctx *cctx, bool idle)
{
	struct domain *d;

	cctx->idle = idle;
	if (idle) {
		idle_offer(cctx);
		return;
	}
	d = domain_of(cctx->domain);
	if (d && bits_read(&d->idle) & BIT64(cctx->bit))
		__sync_fetch_and_and(&d->idle, ~BIT64(cctx->bit));
}

static __always_inline bool idle_claim_bit(struct domain *d, u32 bit)
{
	return __sync_fetch_and_and(&d->idle, ~BIT64(bit)) & BIT64(bit);
}

/* Claim @cpu for whoever asks; false if it is not idle. */
static __always_inline bool idle_claim(s32 cpu)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	struct domain *d = cctx ? domain_of(cctx->domain) : NULL;

	return d && bits_read(&d->idle) & BIT64(cctx->bit) && idle_claim_bit(d, cctx->bit);
}

/* Of @idle those whose core has no busy thread. */
static __always_inline u64 idle_cores(const struct domain *d, u64 idle)
{
	u64 both = idle & idle >> 1 & d->pairs;

	return both | both << 1 | (idle & ~(d->pairs | d->pairs << 1));
}

/* The first of the CPUs @among of domain @nr where @p may run, from bit @from on; -1: none. */
CORE_FN s32 idle_claim_among(struct task_struct *p __arg_trusted, u32 nr, u64 among, u32 from)
{
	struct domain *d = domain_of(nr);
	u32 bit;
	s32 cpu;

	if (!d)
		return -1;
	while (among && can_loop) {
		bit = bit_from(among, from);
		among &= ~BIT64(bit);
		cpu = domain_cpu(d, bit);
		if (port_may_run(p, cpu) && idle_claim_bit(d, bit))
			return cpu;
	}
	return -1;
}

/* An idle CPU of domain @nr: a whole core if there is one, from bit @from on. */
CORE_FN s32 idle_claim_in(struct task_struct *p __arg_trusted, u32 nr, u32 from)
{
	struct domain *d = domain_of(nr);
	u64 idle, cores;
	s32 cpu = -1;

	if (!d)
		return -1;
	idle = bits_read(&d->idle);
	if (!idle) {
		bits_found_empty(&d->idle, &machine_of()->idle, nr);
		return -1;
	}
	cores = idle_cores(d, idle);
	if (cores)
		cpu = idle_claim_among(p, nr, cores, from);
	if (cpu < 0 && cores != idle)
		cpu = idle_claim_among(p, nr, idle & ~cores, from);
	return cpu;
}

/* A task that used more than half of a CPU of late: it prefers CPUs of the larger capacity. */
static __always_inline bool is_heavy(const struct task_ctx *tctx, u64 now)
{
	return pace_now(tctx, now) >= key_cost(PACE_NS / 2, tctx->weight);
}

/*
 * A core of big CPUs of domain @nr that nobody uses and where @p may run, from bit @from on;
 * -1: none. Not claimed.
 */
CORE_FN s32 idle_big_in(struct task_struct *p __arg_trusted, u32 nr, u32 from)
{
	struct domain *d = domain_of(nr);
	u64 among;
	u32 bit;
	s32 cpu;

	if (!d)
		return -1;
	among = idle_cores(d, bits_read(&d->idle)) & d->big;
	while (among && can_loop) {
		bit = bit_from(among, from);
		among &= ~BIT64(bit);
		cpu = domain_cpu(d, bit);
		if (port_may_run(p, cpu))
			return cpu;
	}
	return -1;
}

/*
 * Where CPUs differ in capacity and @p is heavy: a big core that nobody uses, in @home's domain, else in
 * another, of the same node first; -1: none. Not claimed.
 */
CORE_FN s32 idle_big_near(struct task_struct *p __arg_trusted, s32 home)
{
	struct machine *m = machine_of();
	struct task_ctx *tctx = task_ctx_of(p);
	struct cpu_ctx *cctx = cpu_ctx_of(home);
	u64 others = bits_read(&m->idle) & m->big, near;
	struct domain *d;
	s32 cpu = -1;
	u32 nr;

	if (!tctx || !cctx || !others || !is_heavy(tctx, port_now()))
		return -1;
	d = domain_of(cctx->domain);
	if (!d)
		return -1;
	if (others & BIT64(cctx->domain))
		cpu = idle_big_in(p, cctx->domain, cctx->bit);
	others &= ~BIT64(cctx->domain);
	while (cpu < 0 && others && can_loop) {
		near = others & d->near;
		nr = bit_from(near ? near : others, cctx->domain);
		others &= ~BIT64(nr);
		cpu = idle_big_in(p, nr, 0);
	}
	return cpu;
}

/* Such a core, claimed, or -1. */
static __always_inline s32 idle_claim_big(struct task_struct *p, s32 home)
{
	s32 cpu = idle_big_near(p, home);

	return cpu >= 0 && idle_claim(cpu) ? cpu : -1;
}

static __always_inline bool is_big(s32 cpu)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	struct domain *d = cctx ? domain_of(cctx->domain) : NULL;

	return d && d->big & BIT64(cctx->bit);
}

/* @p, which runs on @cpu and has no task waiting behind it, would have a big core to itself. */
static __always_inline bool big_is_better(struct task_struct *p, s32 cpu)
{
	return machine_of()->big && !port_pinned(p) && donor_first_key(cpu) == KEY_NONE &&
	       !is_big(cpu) && idle_big_near(p, cpu) >= 0;
}

/*
 * An idle CPU for @p, claimed, or -1. A big core if @p is heavy and there is one; @home if its whole core is
 * idle; else one of its domain, a whole core first and @home before its like; else one of another domain, of the same node first.
 */
CORE_FN s32 idle_claim_near(struct task_struct *p __arg_trusted, s32 home)
{
	struct machine *m = machine_of();
	struct cpu_ctx *cctx = cpu_ctx_of(home);
	struct domain *d;
	u64 others, near;
	u32 nr;
	s32 cpu;

	if (!cctx || !bits_read(&m->idle))
		return -1;
	d = domain_of(cctx->domain);
	if (!d)
		return -1;
	if (m->big) {
		cpu = idle_claim_big(p, home);
		if (cpu >= 0)
			return cpu;
	}
	if (bits_read(&m->idle) & BIT64(cctx->domain)) {
		cpu = idle_claim_in(p, cctx->domain, cctx->bit);
		if (cpu >= 0)
			return cpu;
	}
	others = bits_read(&m->idle) & ~BIT64(cctx->domain);
	while (others && can_loop) {
		near = others & d->near;
		nr = bit_from(near ? near : others, cctx->domain);
		others &= ~BIT64(nr);
		cpu = idle_claim_in(p, nr, 0);
		if (cpu >= 0)
			return cpu;
	}
	return -1;
}

/*
 * Where @p goes on that was preempted on @cpu, or whose slice is over: to an idle CPU, claimed; -1: it stays.
 * A heavy task does not leave a big CPU for a small one: what preempts it there is mostly short.
 */
CORE_FN s32 idle_claim_preempted(struct task_struct *p __arg_trusted, s32 cpu)
{
	struct task_ctx *tctx = task_ctx_of(p);

	if (machine_of()->big && tctx && is_big(cpu) && is_heavy(tctx, port_now()))
		return idle_claim_big(p, cpu);
	return idle_claim_near(p, cpu);
}

#endif /* PROXY_PLACE_IDLE_H */
