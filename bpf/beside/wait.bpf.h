/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Waits: when they begin and end, and what they were inverted for. Only this file changes nr_waits.
 */
#ifndef PROXY_BESIDE_WAIT_H
#define PROXY_BESIDE_WAIT_H

#define ON_RQ_QUEUED 1 /* kernel/sched/sched.h TASK_ON_RQ_QUEUED */

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

	if (tctx)
		return tctx;
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

/* Whether the task at @task could run, and does not. */
static __always_inline bool is_delayed(u64 task)
{
	struct task_struct *p = (void *)task;

	if (BPF_CORE_READ(p, on_rq) != ON_RQ_QUEUED || BPF_CORE_READ(p, on_cpu))
		return false;
	/* EEVDF leaves some that sleep on their queue for a while (6.12) */
	return !bpf_core_field_exists(p->se.sched_delayed) || !BPF_CORE_READ(p, se.sched_delayed);
}

/* @pid owns a lock that is waited for: its clock goes, and is right from now on. */
static __noinline void owner_follow(u32 pid, u64 now)
{
	u32 round = *(volatile u32 *)&follow_round;
	struct task_ctx *tctx;
	u64 task;

	if (!pid)
		return;
	tctx = task_ctx_by_pid(pid);
	if (tctx && tctx->round == round)
		return;
	task = tctx ? tctx->task : (u64)edge_task_get(pid);
	if (!task)
		return;
	if (!tctx)
		tctx = task_ctx_make(pid, task);
	if (!tctx)
		return;
	tctx->off_since_ns = is_delayed(task) ? now : 0;
	tctx->round = round;
}

/* Whether the waiter @tctx is more important than owner @pid of its lock. */
static __noinline bool waiter_comes_first(const struct task_ctx *tctx, u32 pid)
{
	struct task_ctx *octx = task_ctx_by_pid(pid);

	if (!octx || rank_before(tctx->task, octx->task))
		return true;
	/* who waited itself meanwhile was delayed by whom it waited for */
	return octx->last_owner && octx->blocked_at_ns > tctx->blocked_at_ns &&
	       rank_before(tctx->task, octx->last_owner);
}

/* @p, current, goes to sleep on @lock. */
static __noinline void wait_begin(struct task_struct *p, struct task_ctx *tctx, u64 lock)
{
	u64 now = port_now();
	u32 owner = edge_owner_pid(p, tctx, lock), stands_in;

	if (!__sync_fetch_and_add(&nr_waits, 1))
		__sync_fetch_and_add(&follow_round, 1);
	stands_in = owner ? owner : edge_first_waiter_pid(lock);
	owner_follow(stands_in, now);
	tctx->round = *(volatile u32 *)&follow_round;
	tctx->off_since_ns = 0;
	tctx->waits = 1;
	tctx->wait_edge = lock;
	tctx->wait_seq++;
	tctx->wait_cpu = bpf_get_smp_processor_id();
	tctx->blocked_at_ns = now;
	stat_inc(STAT_EDGE);
	stat_inc(STAT_EDGE_MUTEX + lock_type(lock));
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
