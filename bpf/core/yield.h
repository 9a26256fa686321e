/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Directed yield (kernel/sched/syscalls.c, yield_to(); KVM's virtual CPUs that spin or call for another
 * one): the task that yields lends its context to the one that it names, if that is queued. It is a
 * donor then as any that waits for a lock, though it is queued itself: what it named is
 * its edge, and it takes its context back when it runs. What is lent is one slice at most.
 *
 * yields_to is written under the rq lock of the task that yields, and is set for as long as
 * its token is that of a yield.
 */
#ifndef PROXY_CORE_YIELD_H
#define PROXY_CORE_YIELD_H

/* ops.yield(): the next one goes first, once, whatever its key */
static __always_inline void task_yield(struct task_struct *p, struct task_ctx *tctx)
{
	tctx->yielded = 1;
	port_set_slice(p, 0);
}

/*
 * ops.yield() to a task, under the rq locks of both. False: there is nothing that it could be lent. What
 * @p ran is not charged yet: its context is offered in the pick that follows.
 */
static __always_inline bool task_yield_to(struct task_struct *p, struct task_ctx *tctx,
					  struct task_struct *to, const struct task_ctx *totctx)
{
	if (!port_donating() || tctx->token || totctx->place != PLACE_QUEUED)
		return false;
	tctx->yields_to = port_pid(to);
	stat_inc(STAT_YIELD_TO);
	task_yield(p, tctx);
	return true;
}

/* @p has been charged, and names a task that it yields to: its context is a donor's, on @cpu. */
static __always_inline void yield_begin(struct task_struct *p, struct task_ctx *tctx, s32 cpu)
{
	u64 seq = context_begin(p, tctx, cpu, WAIT_YIELD);

	tctx->wait_urgency = 0;
	tctx->blocked_at_ns = port_now();
	tctx->token = token_make(seq, TOKEN_MOVING, 0);
	if (donor_queue_push(cpu, tctx->wait_key, seq, heap_who(port_pid(p), tctx->wait_user),
			     tctx) == PUSHED)
		return;
	tctx->token = 0;
	tctx->yields_to = 0;
}

/*
 * @p runs again, or is off the queue for a moment: it has its context back. What ran in it is
 * settled as @p runs.
 */
static __noinline int yield_end(struct task_struct *p, struct task_ctx *tctx)
{
	s32 owner_cpu = -1;
	u64 token;

	tctx->woke_at_ns = port_now();
	token = __sync_lock_test_and_set(&tctx->token, 0);
	if (token)
		owner_cpu = context_end(p, tctx, token);
	tctx->yields_to = 0;
	if (owner_cpu >= 0)
		donated_slice_end(p, owner_cpu);
	return 0;
}

#endif /* PROXY_CORE_YIELD_H */
