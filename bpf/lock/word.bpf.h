/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What an edge is made of: one word, address and type of the lock (include/locks.h), and the
 * proof that an address in a lock is that of a task. Whoever includes this, or a file of one lock type,
 * defines first:
 *
 *   struct task_struct *edge_task_get(u32 pid)	the task of that number, or NULL
 *   void edge_task_put(struct task_struct *)	gives it back
 *   u32  edge_tgid(struct task_struct *)	its process
 *   bool edge_by_tracepoint(const struct task_ctx *)  whether of that task only those waits are
 *						believed that the tracepoint has seen begin, and not end
 *
 * and cfg.locks, LOCK_BIT() of each type that is followed.
 */
#ifndef PROXY_LOCK_WORD_H
#define PROXY_LOCK_WORD_H

#define PF_USER_WORKER 0x4000U /* include/linux/sched.h; the other two: scx/common.bpf.h */
/* they have no user mode; their user registers are nobody's, or those of whoever made them */
#define PF_NO_SYSCALL (PF_KTHREAD | PF_USER_WORKER | PF_IO_WORKER)

static __always_inline u32 lock_type(u64 lock)
{
	return lock & LOCK_TYPE_MASK;
}

static __always_inline u64 lock_address(u64 lock)
{
	return lock & ~LOCK_TYPE_MASK;
}

/* Whether locks of @type are followed; constant to the verifier. */
static __always_inline bool lock_followed(enum lock_type type)
{
	return cfg.locks & LOCK_BIT(type);
}

/*
 * The pid of the task at address @word, 0 if there is none. An address is only a
 * number until a live task proves to stand there: the pid is read with a
 * fault-proof load, looked up, and must lead back to the same address.
 */
static __noinline u32 edge_task_pid(u64 word)
{
	struct task_struct *task = (void *)word, *found;
	u32 pid;

	if (!word)
		return 0;
	pid = BPF_CORE_READ(task, pid);
	found = pid ? edge_task_get(pid) : NULL;
	if (!found)
		return 0;
	if ((u64)found != word)
		pid = 0;
	edge_task_put(found);
	return pid;
}

#endif /* PROXY_LOCK_WORD_H */
