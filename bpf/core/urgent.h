/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Bounds of urgent donors: their share of each CPU, and where one waits that has no
 * owner to lend to. Their keys are made in donor.h, their chains walked in resolve.h.
 */
#ifndef PROXY_CORE_URGENT_H
#define PROXY_CORE_URGENT_H

/* CPUs looked at for an urgent donor that finds no owner */
#define URGENT_LOOKS 8

/* what urgent donors may have of a CPU: as much as the kernel lets real-time tasks have */
#define URGENT_PERIOD_NS 1000000000ULL
#define URGENT_MAX_NS 950000000ULL

/* while queued tasks wait for too long, urgent donors come first in one pick of so many; a power of 2 */
#define URGENT_EACH 8

/* for urgent_stand_back(): instead of the head of the run queues, when nothing could run but a donor's owner */
#define NOTHING_ELSE (~0U)

/*
 * Whether urgent donors of this CPU have to stand back, since they had URGENT_MAX_NS of
 * this second, or since the task @head_pid at the head of the run queues has waited for more
 * than starve_ns, and this is not one pick in URGENT_EACH.
 */
CORE_FN int urgent_stand_back(s32 cpu, u32 head_pid)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	struct task_struct *p;
	struct task_ctx *tctx;
	u64 now = port_now(), since = now;

	if (!cctx)
		return 0;
	if (now - cctx->urgent_at_ns >= URGENT_PERIOD_NS) {
		cctx->urgent_at_ns = now;
		cctx->urgent_ns = 0;
	}
	if (cctx->urgent_ns >= URGENT_MAX_NS) {
		stat_inc(STAT_URGENT_THROTTLED);
		return 1;
	}
	p = port_task_get(head_pid);
	if (!p)
		return 0;
	tctx = task_ctx_of(p);
	if (tctx)
		since = tctx->queued_at_ns;
	port_task_put(p);
	if (key_before(now, since + cfg.starve_ns))
		return 0;
	stat_inc(STAT_STARVE_OVERDUE);
	return cctx->overdue_picks++ & (URGENT_EACH - 1);
}

/*
 * Where an urgent donor waits whose lock has no known owner: an idle CPU, which has
 * time to look, else the next one that runs a task of ours and so will pick; else @cpu.
 */
static __always_inline s32 urgent_place(s32 cpu)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu), *octx;
	struct domain *d = cctx ? domain_of(cctx->domain) : NULL;
	u32 bit, looks;
	u64 idle;
	s32 other;

	if (!d || cctx->running_since_ns)
		return cpu;
	idle = bits_read(&d->idle);
	if (idle) {
		other = domain_cpu(d, bit_from(idle, cctx->bit));
		port_kick(other, PORT_KICK_IDLE);
		return other;
	}
	bit = cctx->bit;
	for (looks = 0; looks < URGENT_LOOKS && can_loop; looks++) {
		bit = bit_from(d->cpus | BIT64(cctx->bit), (bit + 1) & 63);
		other = domain_cpu(d, bit);
		octx = cpu_ctx_of(other);
		if (octx && octx->running_since_ns)
			return other;
	}
	return cpu;
}

#endif /* PROXY_CORE_URGENT_H */
