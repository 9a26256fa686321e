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
 * The pid of the owner of @lock, 0 if it has none. The owner word is only a
 * number until a live task proves to stand at that address: the pid is read
 * with a fault-proof load, looked up, and must lead back to the same address.
 */
static __always_inline u32 edge_owner_pid(u64 lock)
{
	u64 word = mutex_owner_word(lock);
	struct task_struct *owner = (void *)word, *found;
	u32 pid;

	if (!word)
		return 0;
	pid = BPF_CORE_READ(owner, pid);
	found = pid ? bpf_task_from_pid(pid) : NULL;
	if (!found)
		return 0;
	if ((u64)found != word)
		pid = 0;
	bpf_task_release(found);
	return pid;
}

#endif /* PROXY_LOCK_EDGE_H */
