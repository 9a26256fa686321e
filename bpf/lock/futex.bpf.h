/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How waiters in futex() are seen. This file owns task_ctx.user_lock where that is a
 * mutex of user space.
 *
 * Tasks of ours: ops.quiescent(), which is never skipped.
 * What it waits for (futexcall.bpf.h) is forgotten when it wakes (task_runnable()), and read again if it
 * sleeps again.
 *
 * Tasks of other classes pass no callback: fentry and fexit of __futex_wait(). Interrupts
 * are on there, and the kernel may preempt: what touches the state of donors turns them off.
 * A program that is preempted is skipped for tasks that come there on that CPU meanwhile
 * (__bpf_prog_enter_recur()). A beginning that is missed costs a donation; an end that
 * is missed would leave an edge behind. So there are two programs for the end, of which
 * the second has something to do only if the first was skipped.
 *
 * Not followed: futex_waitv(), io_uring, FUTEX_WAIT_REQUEUE_PI until it is moved onto the PI
 * mutex, and a wait with a timeout that was stopped and goes on as restart_syscall().
 */
#ifndef PROXY_LOCK_FUTEX_H
#define PROXY_LOCK_FUTEX_H

#include "futexcall.bpf.h"

/* The edge of @p to a lock that names no owner, 0 if what it waits for need not be one. */
static __always_inline u64 futex_edge(struct task_struct *p, struct task_ctx *tctx, u64 addr,
				      u32 val)
{
	u64 at;

	if (!val)
		return 0;
	tctx->futex_at = addr;
	if (!futex_trusted(addr, p->tgid))
		return 0;
	at = user_to_kernel(user_pgd(p), addr);
	return at ? (at & ~LOCK_TYPE_MASK) | LOCK_FUTEX : 0;
}

/* Notes what @p waits for in its memory: an edge, or what is none. */
static __always_inline void futex_wait_begins(struct task_struct *p, struct task_ctx *tctx,
					      const struct futex_call *call)
{
	u64 edge = 0;

	if (lock_followed(LOCK_PTHREAD))
		edge = pthread_edge(p, tctx, call->addr, call->val,
				    (call->shared ? USER_SHARED : 0) | (call->is_32 ? USER_32 : 0));
	/* a real-time task does not lend its class to those that may have nothing to do with it */
	if (lock_followed(LOCK_FUTEX) && !task_urgency(p) &&
	    (!edge || (tctx->user_flags & USER_RWLOCK))) {
		u64 unnamed = futex_edge(p, tctx, call->addr, call->val);

		if (!edge)
			edge = unnamed;
	}
	tctx->user_lock = edge;
	if (edge)
		site_note_user(p, tctx, lock_address(edge));
	else
		stat_inc(STAT_WAIT_FUTEX);
}

/*
 * @p, which waited at tctx->futex_at, wakes. Current is the waker, if there is one
 * (task.h, chain_moved_on()); whether he does it there, his own registers say.
 */
static __always_inline void futex_woken(struct task_struct *p, struct task_ctx *tctx)
{
	struct task_struct *w = bpf_get_current_task_btf();
	struct futex_call call = {};
	u64 at = tctx->futex_at;
	struct futex_slot *slot;
	u32 waker = 0, missed;

	if (!(w->flags & PF_NO_SYSCALL) && w->tgid == p->tgid && futex_call_of(w, &call) &&
	    call.addr == at &&
	    (call.op == FUTEX_OP_WAKE || call.op == FUTEX_OP_WAKE_BITSET ||
	     call.op == FUTEX_OP_WAKE_OP))
		waker = w->pid;
	if (tctx->token && lock_type(tctx->user_lock) == LOCK_FUTEX && tctx->candidate_slices) {
		missed = candidates_missed(tctx, waker);
		stat_add(STAT_CANDIDATE_MISSED, missed);
		slot = futex_slot_of(at, p->tgid);
		if (slot)
			/* the last one was not used up, for it woke @p */
			futex_judge(slot,
				    tctx->candidate_slices + (waker && waker == tctx->candidate),
				    missed);
	}
	tctx->futex_at = 0;
	if (waker)
		futex_learn(at, p->tgid, waker, p->pid);
}

/*
 * A PI mutex of user space: the rt_mutex behind it (rtmutex.bpf.h) has no name. It is
 * known by the mutex's own address and process.
 */
static __always_inline void futex_pi_begins(struct task_struct *p, struct task_ctx *tctx, u64 addr)
{
	site_note_user(p, tctx, addr ^ (u64)p->tgid << 32);
	if (tctx->site_lock)
		tctx->site_lock = SITE_LOCK_PI;
}

/* Whether anything is followed that is waited for in futex(). */
static __always_inline bool futexes_followed(void)
{
	return lock_followed(LOCK_PTHREAD) || lock_followed(LOCK_FUTEX) ||
	       lock_followed(LOCK_RTMUTEX);
}

/* @p, which is ours, goes to sleep, or sleeps already: perhaps in futex(). */
static __always_inline void futex_sleep(struct task_struct *p, struct task_ctx *tctx)
{
	struct futex_call call = {};
	u32 state = p->__state;
	bool waits = futex_state(state);

	if (waits && (p->jobctl & JOBCTL_FREEZE))
		return;
	if (!waits && !futex_state_pi(p, state))
		return;
	/* our own threads wait for each other all the time, and for no such mutex */
	if ((p->flags & PF_NO_SYSCALL) || p->tgid == cfg.agent_tgid || !futex_call_of(p, &call))
		return;
	if (!waits) {
		if (lock_followed(LOCK_RTMUTEX) &&
		    (call.op == FUTEX_OP_LOCK_PI || call.op == FUTEX_OP_LOCK_PI2))
			futex_pi_begins(p, tctx, call.addr);
		return;
	}
	if (call.op == FUTEX_OP_WAIT || call.op == FUTEX_OP_WAIT_BITSET)
		futex_wait_begins(p, tctx, &call);
}

SEC("?fentry/__futex_wait")
int BPF_PROG(proxy_futex_wait, void *addr, unsigned int flags, u32 val)
{
	struct task_struct *p = bpf_get_current_task_btf();
	struct futex_call call = { .addr = (u64)addr,
				   .val = val,
				   .shared = flags & FUTEX_FLAGS_SHARED,
				   .is_32 = in_compat_call(p) };
	struct task_ctx *tctx;

	/* ops.quiescent() sees the others, if they sleep at all */
	if (!task_urgency(p) || (flags & FUTEX_FLAGS_SIZE) != FUTEX_FLAGS_SIZE_32)
		return 0;
	tctx = task_ctx_of(p);
	if (!tctx)
		return 0;
	futex_wait_begins(p, tctx, &call);
	if (tctx->user_lock)
		contended_if_urgent(p, tctx);
	return 0;
}

/* A task that is ours by now has nothing left to end: task_enable(), task_runnable(). */
static __always_inline void futex_wait_over(struct task_struct *p)
{
	struct task_ctx *tctx = task_urgency(p) ? task_ctx_of(p) : NULL;

	if (!tctx || !(tctx->user_lock || (tctx->token && tctx->wait_urgency)))
		return;
	tctx->user_lock = 0;
	contention_over(p, tctx);
}

SEC("?fexit/__futex_wait")
int BPF_PROG(proxy_futex_done)
{
	futex_wait_over(bpf_get_current_task_btf());
	return 0;
}

SEC("?fexit/__futex_wait")
int BPF_PROG(proxy_futex_over)
{
	futex_wait_over(bpf_get_current_task_btf());
	return 0;
}

#endif /* PROXY_LOCK_FUTEX_H */
