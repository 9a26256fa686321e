/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which futex() a task is in. One that sleeps there still has the system call in its user registers: number,
 * address, operation, value. An uncontended mutex makes no system call.
 *
 * Not every sleep inside futex() is a wait for the futex. It may sleep on a page that is faulted
 * in, on mmap_lock, or on a sleeping spinlock of PREEMPT_RT. The state tells them apart: the wait for
 * the futex is TASK_INTERRUPTIBLE | TASK_FREEZABLE (kernel/futex/waitwake.c, 6.1); what else is so in that
 * system call is a task that cgroup.freeze stops, which says so (JOBCTL_TRAP_FREEZE).
 */
#ifndef PROXY_LOCK_FUTEXCALL_H
#define PROXY_LOCK_FUTEXCALL_H

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
#define TASK_STATE_UNINTERRUPTIBLE 2U
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

/* Whether @state is that of a wait for a futex, if in futex() at all. */
static __always_inline bool futex_state(u32 state)
{
	return state == (TASK_STATE_INTERRUPTIBLE | TASK_STATE_FREEZABLE);
}

/* Likewise, for a PI futex. */
static __always_inline bool futex_state_pi(struct task_struct *p, u32 state)
{
	return state == TASK_STATE_INTERRUPTIBLE && p->pi_blocked_on;
}

#endif /* PROXY_LOCK_FUTEXCALL_H */
