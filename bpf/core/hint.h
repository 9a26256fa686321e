/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Hints of the agent (include/hints.h), and when they may be believed: before
 * they expire, and for the very waits that they were computed from. A task that
 * sleeps on a lock releases none of those that it owns, so as long as both ends
 * of a skipped piece are the same waits, what lies between has not moved on
 * either, unless a signal broke a wait off; the expiry bounds that.
 *
 * Ports: struct wait_hint *hint_of(u32 pid), struct return_hint *return_hint_of(u32 class).
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

/* Where the walk that was given up at waiter @pid may go on; 0: nowhere. */
CORE_FN int hint_skip(u32 pid)
{
	struct wait_hint *h = hint_of(pid);
	u64 now = port_now();

	if (!h || h->kind != HINT_SKIP)
		return 0;
	if (now >= h->expires_ns || !wait_goes_on(pid, h->wait_seq) ||
	    !wait_goes_on(h->to_pid, h->to_wait_seq)) {
		stat_inc(STAT_HINT_STALE);
		return 0;
	}
	stat_inc(STAT_HINT_SKIP);
	return h->to_pid;
}

/* Whether the agent found donor @pid to wait for itself. */
CORE_FN int hint_cycle(u32 pid)
{
	struct wait_hint *h = hint_of(pid);
	u64 now = port_now();

	if (!h || h->kind != HINT_CYCLE)
		return 0;
	if (now >= h->expires_ns || !wait_goes_on(pid, h->wait_seq)) {
		stat_inc(STAT_HINT_STALE);
		return 0;
	}
	stat_inc(STAT_HINT_CYCLE);
	return 1;
}

/* How much more than by rule the owner's CPU must be ahead for a donor to return there. */
static __always_inline s64 hint_owner_bias(u32 lock_class)
{
	struct return_hint *h = return_hint_of(lock_class);

	return h && port_now() < h->expires_ns ? h->owner_bias_ns : 0;
}

#endif /* PROXY_CORE_HINT_H */
