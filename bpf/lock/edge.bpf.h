/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Edges: waiter -> lock -> owner, whatever the type of the lock. This is all
 * that the rest of the scheduler knows of locks; one file a lock type stands
 * behind it. Nothing here is remembered: each call reads the kernel's own state.
 */
#ifndef PROXY_LOCK_EDGE_H
#define PROXY_LOCK_EDGE_H

#include "mutex.bpf.h"

/* The lock that @p sleeps on, 0 if it waits for no lock that we can see through. */
static __always_inline u64 edge_lock(struct task_struct *p, const struct task_ctx *tctx)
{
	return mutex_waited_for(p, tctx);
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
	found = pid ? bpf_task_from_pid(pid) : NULL;
	if (!found)
		return 0;
	if ((u64)found != word)
		pid = 0;
	bpf_task_release(found);
	return pid;
}

/* The pid of the owner of @lock, 0 if it has none. */
static __always_inline u32 edge_owner_pid(u64 lock)
{
	return edge_task_pid(mutex_owner_word(lock));
}

/* The pid of the first in line for @lock, 0 if nobody waits. */
static __always_inline u32 edge_first_waiter_pid(u64 lock)
{
	return edge_task_pid(mutex_first_waiter_word(lock));
}

#endif /* PROXY_LOCK_EDGE_H */
