/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A task that woke does not preempt what runs, which is not far enough ahead of it yet: a timer looks
 * again when it is, as HRTICK does for the fair class (kernel/sched/fair.c, hrtick_start_fair()).
 * One of little weight is passed within microseconds, long before the next tick.
 *
 * Slices end at ticks. To end them by this timer, after 3 ms and not 4 to 8, was tried:
 * DESIGN.md, "Slices end at ticks".
 *
 * Where there is no such timer (PREEMPT_RT), and should one be lost, the tick looks.
 */
#ifndef PROXY_PLACE_HRTICK_H
#define PROXY_PLACE_HRTICK_H

/* no look sooner than this: an interrupt is not to cost more than the order that it makes */
#define HRTICK_MIN_NS 100000ULL

/* For how long a timer is started that is to look in @ns. */
static __always_inline u64 hrtick_clamp(u64 ns)
{
	if (ns < HRTICK_MIN_NS)
		return HRTICK_MIN_NS;
	return ns > cfg.slice_ns ? cfg.slice_ns : ns;
}

/* @cpu is looked at in @ns, or before. */
static __always_inline void hrtick_start(struct cpu_ctx *cctx, s32 cpu, u64 now, u64 ns)
{
	u64 at = *(volatile u64 *)&cctx->hrtick_at_ns;

	ns = hrtick_clamp(ns);
	if (at && !key_before(now + ns, at))
		return;
	cctx->hrtick_at_ns = now + ns;
	port_hrtick(cpu, ns);
}

/* CPU time until what runs at @weight, with key @running, has passed @key. */
static __always_inline u64 hrtick_until(u64 running, u64 key, u32 weight)
{
	s64 lead = key - running;

	if (lead <= 0)
		return 0;
	if ((u64)lead > KEY_SPAN_MAX / WEIGHT_NICE_0)
		return cfg.slice_ns;
	return (u64)lead * weight / WEIGHT_NICE_0;
}

/* The lead by which queued task @pid preempts; KEY_NONE: it did not wake, and waits for its turn. */
CORE_FN u64 hrtick_lead(u32 pid)
{
	struct task_struct *p = port_task_get(pid);
	struct task_ctx *tctx = p ? task_ctx_of(p) : NULL;
	u64 lead = KEY_NONE;

	if (tctx && tctx->slept)
		lead = key_cost(cfg.wakeup_gran_ns, tctx->weight);
	if (p)
		port_task_put(p);
	return lead;
}

/*
 * The timer of @cpu, or its tick: is what runs there passed by the first that waits? Returns in how
 * many ns the caller has the timer look again; 0: not.
 */
CORE_FN u64 hrtick(s32 cpu)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	struct queued_head head;
	u64 now, at, running, lead, again;

	if (!cctx)
		return 0;
	at = *(volatile u64 *)&cctx->hrtick_at_ns;
	now = port_now();
	if (!at || key_before(now + HRTICK_MIN_NS / 2, at))
		return 0;
	cctx->hrtick_at_ns = 0;
	if (!cctx->running_since_ns)
		return 0; /* it is about to pick */
	runq_head(cpu, &head);
	lead = head.key == KEY_NONE ? KEY_NONE : cctx->turn_over ? 0 : hrtick_lead(head.pid);
	if (lead == KEY_NONE)
		return 0;
	running = running_key_now(cctx, now);
	if (key_before(head.key + lead, running)) {
		stat_inc(STAT_PREEMPT_TICK);
		port_kick(cpu, PORT_KICK_PREEMPT);
		return 0;
	}
	again = hrtick_clamp(hrtick_until(running, head.key + lead, cctx->running_weight));
	cctx->hrtick_at_ns = now + again;
	return again;
}

#endif /* PROXY_PLACE_HRTICK_H */
