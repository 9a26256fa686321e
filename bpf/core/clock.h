/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One virtual clock per CPU. It follows the *least* key on that CPU and never
 * goes back. A clock that jumped to the key of whatever runs would be dragged
 * ahead by low-weight tasks, and nice 19 would get as much CPU as nice 0.
 *
 * clock is written by its own CPU, in ops.dispatch(), as a task stops (task_off_cpu()) and in ops.running(); others read it.
 */
#ifndef PROXY_CORE_CLOCK_H
#define PROXY_CORE_CLOCK_H

/* An urgent donor's key says nothing about the fair ones behind it: the clock waits. */
static __always_inline void clock_advance(struct cpu_ctx *cctx, u64 least_key)
{
	if (least_key != KEY_NONE && key_before(cctx->clock, least_key))
		cctx->clock = least_key;
}

/* What the pick took without a look at its key (pick_only()) runs. */
static __always_inline void unseen_runs(struct cpu_ctx *cctx, const struct task_ctx *tctx, s32 cpu)
{
	if (!cctx->took_unseen)
		return;
	cctx->took_unseen = 0;
	if (tctx->vtime_cpu == cpu)
		clock_advance(cctx, tctx->vtime);
}

/* Key of what runs on a CPU now, as far as other CPUs can know. */
static __always_inline u64 running_key_now(const struct cpu_ctx *cctx, u64 now)
{
	u64 since = cctx->running_since_ns;
	u64 ran = since && now > since ? now - since : 0;

	return cctx->running_key + key_cost(ran, cctx->running_weight);
}

/* A task of key @key is queued on a CPU: the guard below has to know the latest. */
static __always_inline void guard_note(struct cpu_ctx *cctx, u64 key)
{
	u64 max = *(volatile u64 *)&cctx->key_max;

	if (key_before(max, key))
		__sync_val_compare_and_swap(&cctx->key_max, max, key);
}

/*
 * Starvation guard. A key lies no further ahead of the clock than starve_ns pays for when
 * its task is queued (vtime_join()); but heavier tasks may come afterwards, and then the clock
 * goes more slowly. So the clock is moved: at the end of each period of starve_ns beyond the
 * latest key that was queued when that period began, by the lag. What had been queued by then is
 * due now, and whatever comes, having slept or run, is placed behind it.
 *
 * So no task waits for longer than two periods and one turn of all that are queued, without
 * a search for the task that has waited longest. Under a load that does not grow the clock
 * gets there by itself, and weights hold. Where one turn of all (@nr, of at least TURN_NS
 * each) takes longer than starve_ns, keys differ by less than turns do, and turns are taken in
 * order; periods are short there, since the turn alone takes long enough.
 */
#define TURN_NS 4000000ULL

static __always_inline bool guard_due(const struct cpu_ctx *cctx, u32 nr, u64 now)
{
	u64 period = nr * TURN_NS > cfg.starve_ns ? cfg.starve_ns / 8 : cfg.starve_ns;

	return now - cctx->guard_at_ns >= period;
}

static __always_inline void guard_clock(struct cpu_ctx *cctx, u32 nr, u64 now)
{
	u64 max;

	if (!guard_due(cctx, nr, now))
		return;
	if (cctx->guard_at_ns && key_before(cctx->clock, cctx->guard_key + cfg.lag_ns)) {
		cctx->clock = cctx->guard_key + cfg.lag_ns;
		stat_inc(STAT_STARVE_CLOCK);
	}
	max = *(volatile u64 *)&cctx->key_max;
	cctx->guard_key =
		key_before(cctx->clock - cfg.lag_ns, max) ? max : cctx->clock - cfg.lag_ns;
	cctx->guard_at_ns = now;
}

/* The pace of @tctx's task as of @now. */
static __always_inline u64 pace_now(const struct task_ctx *tctx, u64 now)
{
	u64 then = tctx->pace_at_ns;

	return pace_after(tctx->pace, now > then ? now - then : 0);
}

/* The context of @tctx was used for virtual time @cost, until @now. */
static __always_inline void vtime_use(struct task_ctx *tctx, u64 cost, u64 now)
{
	tctx->vtime += cost;
	tctx->pace = pace_now(tctx, now) + cost;
	tctx->pace_at_ns = now;
}

/*
 * @tctx has another weight from now on. What it is ahead of its clock, or behind, is CPU time
 * that it used or is owed at the old one. Caller: has the task's rq lock.
 */
static __always_inline void weight_set(struct task_ctx *tctx, u32 weight)
{
	struct cpu_ctx *cctx;

	if (weight == tctx->weight)
		return;
	cctx = tctx->vtime_cpu < 0 ? NULL : cpu_ctx_of(tctx->vtime_cpu);
	if (cctx)
		tctx->vtime = key_rescale(tctx->vtime, cctx->clock, tctx->weight, weight);
	tctx->weight = weight;
}

/* Likewise, by what its group is worth now. */
static __always_inline void weight_refresh(struct task_ctx *tctx)
{
	if (!tctx->group)
		return;
	group_mark(tctx->group);
	weight_set(tctx, group_weigh(tctx));
}

/*
 * Bring the key of a task into terms of @cpu's clock, and within what the
 * clock allows. Caller: has the task's rq lock.
 */
static __always_inline void vtime_join(struct task_ctx *tctx, s32 cpu, const struct cpu_ctx *cctx)
{
	u64 clock = cctx->clock, key;

	if (tctx->vtime_cpu != cpu) {
		struct cpu_ctx *from = tctx->vtime_cpu < 0 ? NULL : cpu_ctx_of(tctx->vtime_cpu);

		/* a new task starts one slice behind: forking must not buy CPU time */
		tctx->vtime = from ? key_rebase(tctx->vtime, from->clock, clock) :
				     clock + key_cost(cfg.slice_ns, tctx->weight);
		tctx->vtime_cpu = cpu;
	}
	tctx->vtime = key_floor(tctx->vtime, clock, cfg.lag_ns);
	key = key_ceiling(tctx->vtime, clock, cfg.starve_ns,
			  cctx->queued_load + cctx->running_weight + tctx->weight);
	if (key != tctx->vtime) {
		tctx->vtime = key;
		stat_inc(STAT_STARVE_CLAMP);
	}
}

/*
 * If @tctx was pulled here: it is behind on the machine, whatever its key says of the CPU that
 * it was on. With the debt that it had there it would wait as long as before.
 */
static __always_inline void vtime_pulled(struct task_ctx *tctx, struct cpu_ctx *cctx, u32 pid)
{
	if (!cctx->pulled_pid)
		return;
	if (cctx->pulled_pid == pid && key_before(cctx->clock, tctx->vtime))
		tctx->vtime = cctx->clock;
	cctx->pulled_pid = 0;
}

/*
 * A thread of scx_proxy itself waits no longer than this, whatever its weight and
 * under any load: the agent must keep up with what it is told.
 */
#define AGENT_WAIT_NS 20000000ULL

static __always_inline void vtime_favour(struct task_ctx *tctx, const struct cpu_ctx *cctx)
{
	tctx->vtime = key_ceiling(tctx->vtime, cctx->clock, AGENT_WAIT_NS,
				  cctx->queued_load + cctx->running_weight + tctx->weight);
}

/*
 * A task that was preempted inside an RCU read-side critical section: all grace periods of the
 * machine wait for it, and after 21 s the kernel takes that for a stall and throws the scheduler
 * out. It waits no longer than this, by estimate; which is longer than weights make anybody wait
 * under ordinary load, so that nothing is gained by being there.
 */
#define RCU_WAIT_NS 500000000ULL

static __always_inline void vtime_rcu(struct task_ctx *tctx, const struct cpu_ctx *cctx)
{
	tctx->vtime = key_ceiling(tctx->vtime, cctx->clock, RCU_WAIT_NS,
				  cctx->queued_load + cctx->running_weight + tctx->weight);
}

#endif /* PROXY_CORE_CLOCK_H */
