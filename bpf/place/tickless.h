/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A CPU of nohz_full= loses its tick while one task has it to itself. sched_ext lets the tick stop under an
 * infinite slice only, and decides when a task is switched to, right after ops.running()
 * (kernel/sched/ext/ext.c, set_next_task_scx()): a slice that is made finite later does not bring it back.
 * So until the next switch no slice ends there by itself. Whoever is queued for that CPU ends it and
 * goes first; what waits elsewhere is seen by the tick that another CPU makes for this one, once a second.
 *
 * A CPU that does not pick does not move its clock either. Who is queued there moves it on before, to the
 * key of what runs: else that would stand behind whoever comes for as long as it had the CPU to itself.
 */
#ifndef PROXY_PLACE_TICKLESS_H
#define PROXY_PLACE_TICKLESS_H

/* Whether a task waits somewhere that another CPU may take. */
static __always_inline bool work_waits(void)
{
	u64 work = bits_read(&machine_of()->work);

	return work && pull_domain(work, 0) >= 0;
}

/* Whether anything wants @cctx beside what runs there. */
static __always_inline bool is_wanted(const struct cpu_ctx *cctx)
{
	return nr_queued(cctx) || *(volatile u32 *)&cctx->nr_donors ||
	       *(volatile u32 *)&cctx->nr_parked || work_waits();
}

/*
 * @p begins to run on @cpu: its slice is infinite if it has it to itself. Marked by exchange, which is the
 * barrier before the look at the queues; whoever queues something has the mirror image. Caller: ops.running().
 */
static __always_inline void tickless_begin(struct task_struct *p, const struct task_ctx *tctx,
					   struct cpu_ctx *cctx, s32 cpu)
{
	/* cpu.max is enforced at ticks */
	if (!cctx->nohz_full || tctx->donor_pid || (tctx->group && limits_any()))
		return;
	__sync_lock_test_and_set(&cctx->tickless, 1);
	if (is_wanted(cctx)) {
		cctx->tickless = 0;
		return;
	}
	port_set_slice(p, SLICE_INFINITE);
	perf_full(cctx, cpu);
	stat_inc(STAT_TICKLESS);
}

/* A task is about to be queued on @cctx. Caller: has the rq lock of that CPU. */
static __always_inline void tickless_clock(struct cpu_ctx *cctx)
{
	if (cctx->tickless)
		clock_advance(cctx, running_key_now(cctx, port_now()));
}

/*
 * A task is queued on @cpu now. Caller: has counted it there before. Donors come after the owner that
 * they have run, or find nobody.
 */
static __always_inline bool tickless_interrupt(const struct cpu_ctx *cctx, s32 cpu)
{
	if (!*(volatile u32 *)&cctx->tickless)
		return false;
	port_kick(cpu, PORT_KICK_PREEMPT);
	return true;
}

#endif /* PROXY_PLACE_TICKLESS_H */
