/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Frequency demand. Under schedutil the kernel takes a CPU's demand from the sched_ext scheduler
 * (kernel/sched/cpufreq_schedutil.c, sugov_get_util()), and until that says something it is the
 * greatest there is. Here it is the part of time that tasks of ours ran, in terms of
 * the CPU's full speed. What real-time tasks need, and uclamp, the kernel adds by itself
 * (effective_cpu_util()); an owner runs on the CPU of its donor, so the demand is where it runs.
 *
 * Demand rises at once and falls slowly, as with the utilization of the fair class.
 */
#ifndef PROXY_PLACE_PERF_H
#define PROXY_PLACE_PERF_H

/* over which running is averaged */
#define PERF_WINDOW_NS 16000000ULL

/* a change of demand smaller than this is not told */
#define PERF_STEP (PERF_ONE / 32)

/*
 * The demand after @elapsed_ns (at least a window) of which tasks ran for @busy_ns, at the speed
 * @cur, when it was @perf before. A CPU that was hardly idle may need any speed: it gets all.
 */
static inline u32 perf_after(u32 perf, u64 busy_ns, u64 elapsed_ns, u32 cur)
{
	u64 windows = elapsed_ns / PERF_WINDOW_NS, used;

	if (!windows)
		return perf;
	if (busy_ns >= elapsed_ns - elapsed_ns / 16)
		return PERF_ONE;
	used = busy_ns * cur / elapsed_ns;
	if (used >= perf || windows >= 8)
		return used;
	return perf - (perf - used) * windows / 8;
}

/* A window has ended, or more than one. Caller: @cpu, with its rq lock. */
CORE_FN int perf_update(s32 cpu, u64 elapsed_ns, u64 now)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	s32 change;

	if (!cctx)
		return 0;
	cctx->perf = perf_after(cctx->perf, cctx->perf_busy_ns, elapsed_ns, port_perf_now(cpu));
	cctx->perf_busy_ns = 0;
	cctx->perf_at_ns = now;
	change = (s32)cctx->perf - (s32)cctx->perf_told;
	if (change < (s32)PERF_STEP && -change < (s32)PERF_STEP)
		return 0;
	cctx->perf_told = cctx->perf;
	port_perf_set(cpu, cctx->perf);
	return 0;
}

/* What runs on @cpu has run until @now; @on: and goes on, or begins to. Caller: as above. */
static __always_inline void perf_note(struct cpu_ctx *cctx, s32 cpu, u64 now, bool on)
{
	u64 elapsed_ns;

	if (!cfg.cpufreq)
		return;
	elapsed_ns = time_since(now, cctx->perf_at_ns);
	if (cctx->perf_since_ns)
		cctx->perf_busy_ns += time_since(now, cctx->perf_since_ns);
	cctx->perf_since_ns = on ? now : 0;
	cctx->perf_ran_ns = now;
	if (elapsed_ns >= PERF_WINDOW_NS)
		perf_update(cpu, elapsed_ns, now);
}

/* From now on nothing looks at the demand of @cpu, which is busy. Caller: as above. */
static __always_inline void perf_full(struct cpu_ctx *cctx, s32 cpu)
{
	if (!cfg.cpufreq || cctx->perf_told == PERF_ONE)
		return;
	cctx->perf = PERF_ONE;
	cctx->perf_told = PERF_ONE;
	port_perf_set(cpu, PERF_ONE);
}

/* a CPU that has been idle for so long asks for nothing; its domain may be kept fast by it */
#define PERF_IDLE_NS 50000000ULL

/* From a timer: what idle CPUs asked for when they were busy is taken back. */
static __always_inline void perf_idle(s32 cpu, u64 now)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	if (!cctx || !cctx->perf_told || cctx->perf_since_ns ||
	    time_since(now, cctx->perf_ran_ns) < PERF_IDLE_NS)
		return;
	cctx->perf = 0;
	cctx->perf_told = 0;
	port_perf_set(cpu, 0);
}

#endif /* PROXY_PLACE_PERF_H */
