/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Edges, as lock/edge.bpf.h has them, of the lock types whose owner stands in the lock: mutexes, rwsems,
 * rt_mutexes, mutexes of glibc and musl. What has to be learned first (ntsync, locks that name nobody) and
 * what a module has to say (binder) is left to the scheduler.
 */
#ifndef PROXY_BESIDE_EDGE_H
#define PROXY_BESIDE_EDGE_H

#include "lock/word.bpf.h"
#include "lock/held.bpf.h"
#include "lock/pthread.bpf.h"

/* The pid of the owner of @lock, which @p waits for, 0 if none is known. */
static __always_inline u32 edge_owner_pid(struct task_struct *p, const struct task_ctx *tctx,
					  u64 lock)
{
	if (lock_type(lock) == LOCK_PTHREAD)
		return pthread_owner_pid(p, tctx);
	return held_owner_pid(lock);
}

#endif /* PROXY_BESIDE_EDGE_H */
