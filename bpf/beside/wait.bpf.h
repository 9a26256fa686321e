/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Waits: when they begin and end, and what they were inverted for. Only this file changes nr_waits.
 */
#ifndef PROXY_BESIDE_WAIT_H
#define PROXY_BESIDE_WAIT_H

static __always_inline bool following(void)
{
	return *(volatile u32 *)&nr_waits;
}

/* what there is to say of a task of which nothing is known: not on the stack, where it has no room */
static const volatile struct task_ctx nothing_known;

/* What is kept of the task of @pid at address @task, from now on; NULL if there is no more room. */
static __always_inline struct task_ctx *task_ctx_make(u32 pid, u64 task)
{
	struct task_ctx *tctx = task_ctx_by_pid(pid);

	if (tctx && tctx->task == task)
		return tctx;
	/* of one that had the number before, and whose end was missed */
	if (tctx)
		bpf_map_delete_elem(&task_ctxs, &pid);
	bpf_map_update_elem(&task_ctxs, &pid, (const void *)&nothing_known, BPF_NOEXIST);
	tctx = task_ctx_by_pid(pid);
	if (!tctx) {
		stat_inc(STAT_INVERSION_UNTRACKED);
		return NULL;
	}
	tctx->task = task;
	tctx->pid = pid;
	return tctx;
}

/*
 * The three steps of the clock of @tctx's task. Each writes a value that was not there before: see
 * owner_follow(). It goes to sleep:
 */
static __always_inline void clock_stands(struct task_ctx *tctx, u64 now)
{
	*(volatile u32 *)&tctx->round = *(volatile u32 *)&follow_round;
	*(volatile u64 *)&tctx->off_since_ns = CLOCK_STANDS | now;
}

/* It comes to a CPU. */
static __always_inline void clock_stops(struct task_ctx *tctx, u64 now)
{
	u32 round = *(volatile u32 *)&follow_round;
	u64 since = tctx->off_since_ns;

	if (since & CLOCK_RUNNING_SEEN)
		since &= CLOCK_TIME; /* that it stopped running was missed */
	if (tctx->round == round && since && now > since)
		tctx->delay_ns += now - since;
	clock_stands(tctx, now);
}

/* It could run from now on, and does not. */
static __always_inline void clock_goes(struct task_ctx *tctx, u64 now)
{
	*(volatile u32 *)&tctx->round = *(volatile u32 *)&follow_round;
	*(volatile u64 *)&tctx->off_since_ns = now;
}

/*
 * @pid owns a lock that is waited for: its clock goes, and is right from now on. Its own CPU may be about to
 * switch to it or away from it, and may have looked whether somebody follows before we did. What that CPU writes
 * meanwhile stands: the compare-and-swap fails. What it does not write shows when the clock is read (port_off_since()).
 */
static __noinline void owner_follow(u32 pid, u64 now)
{
	u32 round = *(volatile u32 *)&follow_round, old_round, does;
	u64 task = pid ? (u64)edge_task_get(pid) : 0, old, new;
	struct task_ctx *tctx;

	if (!task || task_has_exited(task))
		return;
	tctx = task_ctx_make(pid, task);
	if (!tctx)
		return;
	old = *(volatile u64 *)&tctx->off_since_ns;
	old_round = *(volatile u32 *)&tctx->round;
	if (old_round == round)
		return;
	does = task_does(task);
	new = does &TASK_DELAYED ? now : CLOCK_STANDS | now;
	if (does & TASK_RUNS)
		new |= CLOCK_RUNNING_SEEN;
	if (__sync_val_compare_and_swap(&tctx->off_since_ns, old, new) == old)
		__sync_val_compare_and_swap(&tctx->round, old_round, round);
	/* it may have switched for the last time between the two looks: then nobody else deletes this */
	if (task_has_exited(task))
		bpf_map_delete_elem(&task_ctxs, &pid);
}

/*
 * Whether the waiter @tctx is more important than owner @pid of its lock. Of one that has exited counts
 * how it was as the wait began.
 */
static __noinline bool waiter_comes_first(const struct task_ctx *tctx, u32 pid)
{
	struct task_ctx *octx = task_ctx_by_pid(pid), *last;

	if (!octx)
		return tctx->wait_first;
	if (rank_before(tctx->task, octx->task))
		return true;
	/* who waited itself meanwhile was delayed by whom it waited for */
	if (!octx->last_owner || octx->blocked_at_ns <= tctx->blocked_at_ns)
		return false;
	last = task_ctx_by_pid(octx->last_owner_pid);
	return last && last->task == octx->last_owner && rank_before(tctx->task, last->task);
}

/* @p, current, goes to sleep on @lock. */
static __noinline void wait_begin(struct task_struct *p, struct task_ctx *tctx, u64 lock)
{
	u64 now = port_now();
	u32 owner = edge_owner_pid(p, tctx, lock), stands_in;
	struct task_ctx *octx;

	if (!__sync_fetch_and_add(&nr_waits, 1))
		__sync_fetch_and_add(&follow_round, 1);
	stands_in = owner ? owner : edge_first_waiter_pid(lock);
	owner_follow(stands_in, now);
	clock_stands(tctx, now);
	tctx->waits = 1;
	tctx->wait_edge = lock;
	tctx->wait_seq++;
	tctx->wait_cpu = bpf_get_smp_processor_id();
	tctx->blocked_at_ns = now;
	stat_inc(STAT_EDGE);
	stat_inc(STAT_EDGE_MUTEX + lock_type(lock));
	octx = task_ctx_by_pid(stands_in);
	tctx->wait_first = octx && rank_before(tctx->task, octx->task);
	inversion_begin(tctx, p->pid, lock, stands_in);
	event_wait(EVENT_BLOCK, tctx->wait_cpu, p, tctx, owner, lock, tctx->wait_seq, 0);
}

/* @p is woken from the wait that @tctx is in. */
static __noinline void wait_end(struct task_struct *p, struct task_ctx *tctx, u64 now)
{
	u64 lock = tctx->wait_edge, waited_ns = now - tctx->blocked_at_ns, inverted_ns, delay;
	struct lock_slot *slot;
	struct task_ctx *octx;
	u32 owner;

	inverted_ns = inversion_so_far(tctx, now, &owner, &delay);
	octx = task_ctx_by_pid(owner);
	tctx->last_owner = octx ? octx->task : 0;
	tctx->last_owner_pid = owner;
	stat_inc(STAT_EDGE_WOKEN);
	stat_add(STAT_WAITED_NS, waited_ns);
	stat_add(STAT_INVERTED_NS, inverted_ns);
	event_wait(EVENT_WAKE, tctx->wait_cpu, p, tctx, owner, lock, waited_ns, inverted_ns);
	slot = inversion_end(tctx, delay);
	tctx->waits = 0;
	/* those who go on waiting wait for its next owner, in all likelihood this one */
	if (slot && slot->nr_waiting && *(volatile u64 *)&slot->lock == lock) {
		owner = lock_next_owner(p, tctx, lock);
		owner_follow(owner, now);
		slot_turn(slot, owner, 0, now);
	}
	__sync_fetch_and_add(&nr_waits, -1);
}

#endif /* PROXY_BESIDE_WAIT_H */
