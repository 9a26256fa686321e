/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How waiters in futex() are seen. This file owns task_ctx.user_lock where that is a
 * mutex of user space.
 *
 * Tasks of ours: ops.quiescent(), which is never skipped. A task that sleeps in futex() still has
 * the system call in its user registers: number, address, operation, value. An
 * uncontended mutex makes no system call.
 * Not every sleep inside futex() is a wait for the futex. It may sleep on a page that is faulted
 * in, on mmap_lock, or on a sleeping spinlock of PREEMPT_RT. The state tells them apart: the wait for
 * the futex is TASK_INTERRUPTIBLE | TASK_FREEZABLE (kernel/futex/waitwake.c); what else is so in that
 * system call is a task that cgroup.freeze stops, which says so (JOBCTL_TRAP_FREEZE). What it waits for is forgotten when it wakes
 * (task_runnable()), and read again if it sleeps again.
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

/* arch/x86/entry/syscalls/syscall_64.tbl; x32 has a bit of its own in the number */
#define SYSCALL_FUTEX 202
#define SYSCALL_FUTEX_WAIT 455
/* syscall_32.tbl, which has the second of these two as well */
#define SYSCALL_32_FUTEX 240
#define SYSCALL_32_FUTEX_TIME64 422

/* arch/x86/include/asm/thread_info.h: in a system call of 32-bit code, numbered otherwise */
#define TS_COMPAT 2U
/* arch/x86/include/asm/segment.h */
#define USER32_CS 0x23

/* include/linux/sched.h */
#define TASK_STATE_INTERRUPTIBLE 1U
#define TASK_STATE_FREEZABLE 0x2000U
#define JOBCTL_FREEZE (1UL << 23) /* include/linux/sched/jobctl.h JOBCTL_TRAP_FREEZE_BIT */

/* include/uapi/linux/futex.h */
#define FUTEX_OP_WAIT 0U
#define FUTEX_OP_WAKE 1U
#define FUTEX_OP_WAKE_OP 5U
#define FUTEX_OP_LOCK_PI 6U
#define FUTEX_OP_WAIT_BITSET 9U
#define FUTEX_OP_WAKE_BITSET 10U
#define FUTEX_OP_LOCK_PI2 13U
#define FUTEX_OP_PRIVATE 128U
#define FUTEX_OP_MASK (~(128U | 256U)) /* 256: which clock */
#define FUTEX2_U32 2U
#define FUTEX2_PRIVATE 128U

/* What the user registers of a task in futex() say. */
struct futex_call {
	u64 addr;
	u32 op;
	u32 val;
	bool shared;
	bool is_32; /* the program's own layout is that of i386 */
};

static __always_inline bool in_compat_call(struct task_struct *p)
{
	return p->thread_info.status & TS_COMPAT;
}

static __always_inline bool futex_call_of(struct task_struct *p, struct futex_call *call)
{
	struct pt_regs *regs = (void *)bpf_task_pt_regs(p);
	u64 nr = regs->orig_ax;
	u32 op, flags;

	if (nr != SYSCALL_FUTEX && nr != SYSCALL_FUTEX_WAIT && nr != SYSCALL_32_FUTEX &&
	    nr != SYSCALL_32_FUTEX_TIME64)
		return false;
	call->is_32 = in_compat_call(p);
	if (call->is_32) {
		/* 64-bit code may make such a call, too: of its memory nothing follows from that */
		if (regs->cs != USER32_CS || nr == SYSCALL_FUTEX)
			return false;
		call->addr = (u32)regs->bx;
		op = regs->cx;
		call->val = nr == SYSCALL_FUTEX_WAIT ? regs->cx : regs->dx;
		flags = regs->si;
	} else {
		if (nr == SYSCALL_32_FUTEX || nr == SYSCALL_32_FUTEX_TIME64)
			return false;
		call->addr = regs->di;
		op = regs->si;
		call->val = nr == SYSCALL_FUTEX_WAIT ? regs->si : regs->dx;
		flags = regs->r10;
	}
	if (nr == SYSCALL_FUTEX_WAIT) {
		call->op = FUTEX_OP_WAIT;
		call->shared = !(flags & FUTEX2_PRIVATE);
		return (flags & ~FUTEX2_PRIVATE) == FUTEX2_U32;
	}
	call->op = op & FUTEX_OP_MASK;
	call->shared = !(op & FUTEX_OP_PRIVATE);
	return true;
}

/* The edge of @p, current, to a lock that names no owner, 0 if what it waits for need not be one. */
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

/* Notes what @p, current, waits for in its memory: an edge, or what is none. */
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
	tctx->site_lock = SITE_LOCK_PI;
}

/* @p, current and ours, goes to sleep: perhaps in futex(). */
static __always_inline void futex_sleep(struct task_struct *p, struct task_ctx *tctx)
{
	struct futex_call call = {};
	u32 state = p->__state;
	bool waits = state == (TASK_STATE_INTERRUPTIBLE | TASK_STATE_FREEZABLE);

	if (waits && (p->jobctl & JOBCTL_FREEZE))
		return;
	if (!waits && !(state == TASK_STATE_INTERRUPTIBLE && p->pi_blocked_on))
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
