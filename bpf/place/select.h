/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where a task goes that wakes or is new: an idle CPU, the waker's, or the queue of a
 * busy one. Nobody is put on a local DSQ from here: what waits for that CPU with an
 * earlier key would be passed over, and what a real-time task overtakes there is out of
 * reach. It goes onto a run queue, and its CPU picks.
 */
#ifndef PROXY_PLACE_SELECT_H
#define PROXY_PLACE_SELECT_H

/* sync wakeups in a row after which a waker went to sleep at once, to be believed again */
#define HANDOFFS_MIN 4
#define HANDOFFS_MAX 8

/* how soon that is */
#define HANDOFF_NS 100000ULL

/* CPUs whose load is compared for a new task */
#define FORK_LOOKS 4

/* The kind of wakeup. */
enum wake_kind {
	WAKE_PLAIN,
	WAKE_SYNC, /* the waker is about to sleep, it says */
	WAKE_FORK, /* a new task, or a new program: it has no caches to lose */
};

/* A waker that says so goes to sleep now: was that true? Caller: task_off_cpu() of it. */
static __always_inline void handoff_note(struct task_ctx *tctx, bool sleeps, u64 now)
{
	if (!tctx->sync_at_ns)
		return;
	if (sleeps && now - tctx->sync_at_ns <= HANDOFF_NS) {
		if (tctx->handoffs < HANDOFFS_MAX)
			tctx->handoffs++;
	} else {
		tctx->handoffs = 0;
	}
	tctx->sync_at_ns = 0;
}

/*
 * Whether the waker's CPU is the place for @p: it is free at once, and caches are warm,
 * if the waker does what its last wakeups did, and nothing else waits there.
 */
static __always_inline bool handoff_expected(struct task_struct *p)
{
	s32 cpu = port_this_cpu();
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	struct task_ctx *wctx = task_ctx_of(port_current());
	bool expected;

	if (!cctx || !wctx)
		return false;
	expected = wctx->handoffs >= HANDOFFS_MIN && wctx->place == PLACE_RUNNING &&
		   !nr_queued(cctx) && donor_first_key(cpu) == KEY_NONE && port_may_run(p, cpu);
	wctx->sync_at_ns = port_now();
	return expected;
}

/* A new task goes where least waits, of the first few CPUs from @home on. */
CORE_FN s32 least_loaded_near(struct task_struct *p __arg_trusted, s32 home)
{
	struct cpu_ctx *cctx = cpu_ctx_of(home), *octx;
	struct domain *d = cctx ? domain_of(cctx->domain) : NULL;
	u64 load, least;
	s32 best = home, other;
	u32 looks, bit;

	if (!d)
		return home;
	least = cctx->queued_load + cctx->running_weight;
	bit = cctx->bit;
	for (looks = 0; looks < FORK_LOOKS && can_loop; looks++) {
		bit = bit_from(d->cpus, (bit + 1) & 63);
		other = domain_cpu(d, bit);
		octx = other == home ? NULL : cpu_ctx_of(other);
		if (!octx || !port_may_run(p, other))
			continue;
		load = octx->queued_load + octx->running_weight;
		if (load < least) {
			least = load;
			best = other;
		}
	}
	return best;
}

/* What was chosen. */
struct placed {
	s32 cpu;
	u32 idle; /* it was idle, and is claimed */
};

static __always_inline void place_wakeup(struct task_struct *p, s32 home, enum wake_kind kind,
					 bool home_only, struct placed *at)
{
	at->cpu = home;
	at->idle = 0;
	if (home_only) {
		at->idle = port_may_run(p, home) && idle_claim(home);
		return;
	}
	if (kind == WAKE_SYNC && handoff_expected(p)) {
		at->cpu = port_this_cpu();
		stat_inc(STAT_WAKE_HANDOFF);
		return;
	}
	at->cpu = idle_claim_near(p, home);
	at->idle = at->cpu >= 0;
	if (!at->idle)
		at->cpu = kind == WAKE_FORK ? least_loaded_near(p, home) : home;
}

#endif /* PROXY_PLACE_SELECT_H */
