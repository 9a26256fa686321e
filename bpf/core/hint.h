/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Hints of the agent (include/hints.h), and when they may be believed: before
 * they expire, and for the very waits that they were computed from. A task that
 * sleeps on a lock releases none of those that it owns, so as long as both ends
 * of a skipped piece are the same waits, what lies between has not moved on
 * either, unless a signal broke a wait off; the expiry bounds that.
 *
 * Ports: struct wait_hint *hint_of(u32 pid), struct return_hint *return_hint_of(u32 lock_type).
 */
#ifndef PROXY_CORE_HINT_H
#define PROXY_CORE_HINT_H

/* Whether task @pid is in wait @seq now. */
CORE_FN int wait_goes_on(u32 pid, u64 seq)
{
	struct task_struct *p = port_task_get(pid);
	struct task_ctx *tctx;
	int ret = 0;

	if (!p)
		return 0;
	tctx = task_ctx_of(p);
	ret = tctx && tctx->token && tctx->wait_seq == seq && edge_lock(p, tctx);
	port_task_put(p);
	return ret;
}

/* A copy of the hint of @kind about waiter @pid; 0 if there is none that holds. */
static __always_inline int hint_read(u32 pid, u32 kind, struct wait_hint *copy)
{
	struct wait_hint *h = hint_of(pid);

	if (!h)
		return 0;
	*copy = *h;
	if (copy->pid != pid || copy->kind != kind)
		return 0;
	if (port_monotonic() >= copy->expires_ns || !wait_goes_on(pid, copy->wait_seq)) {
		stat_inc(STAT_HINT_STALE);
		return 0;
	}
	return 1;
}

/* Where the walk that was given up at waiter @pid may go on; 0: nowhere. */
CORE_FN int hint_skip(u32 pid)
{
	struct wait_hint h;

	if (!hint_read(pid, HINT_SKIP, &h))
		return 0;
	if (!wait_goes_on(h.to_pid, h.to_wait_seq)) {
		stat_inc(STAT_HINT_STALE);
		return 0;
	}
	stat_inc(STAT_HINT_SKIP);
	return h.to_pid;
}

/* Whether the agent found waiter @pid to wait for itself, over more locks than a walk has. */
CORE_FN int hint_cycle(u32 pid)
{
	struct wait_hint h;

	if (!hint_read(pid, HINT_CYCLE, &h))
		return 0;
	stat_inc(STAT_HINT_CYCLE);
	return 1;
}

/* How much more than by rule the owner's CPU must be ahead for a donor to return there. */
static __always_inline s64 hint_owner_bias(u32 type)
{
	struct return_hint *h = return_hint_of(type);

	return h && port_monotonic() < h->expires_ns ? h->owner_bias_ns : 0;
}

#endif /* PROXY_CORE_HINT_H */
