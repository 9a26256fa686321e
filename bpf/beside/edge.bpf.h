/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Edges, as lock/edge.bpf.h has them, of the lock types whose owner stands in the lock: mutexes, rwsems,
 * rt_mutexes, mutexes of glibc and musl. What has to be learned first (ntsync, locks that name nobody) and
 * what a module has to say (binder) is left to the scheduler.
 */
#ifndef PROXY_BESIDE_EDGE_H
#define PROXY_BESIDE_EDGE_H

#include "lock/word.bpf.h"
#include "lock/mutex.bpf.h"
#include "lock/rwsem.bpf.h"
#include "lock/rtmutex.bpf.h"
#include "lock/pthread.bpf.h"

/* The pid of the owner of @lock, which @p waits for, 0 if none is known. */
static __always_inline u32 edge_owner_pid(struct task_struct *p, const struct task_ctx *tctx,
					  u64 lock)
{
	u64 at = lock_address(lock);

	switch (lock_type(lock)) {
	case LOCK_MUTEX:
		return edge_task_pid(mutex_owner_word(at));
	case LOCK_RWSEM:
		return rwsem_owner_pid(at);
	case LOCK_RTMUTEX:
		return edge_task_pid(rtmutex_owner_word(at));
	case LOCK_PTHREAD:
		return pthread_owner_pid(p, tctx);
	}
	return 0;
}

/* The pid of the first in line for @lock, 0 if nobody can be named. */
static __always_inline u32 edge_first_waiter_pid(u64 lock)
{
	u64 at = lock_address(lock), word = 0;

	switch (lock_type(lock)) {
	case LOCK_MUTEX:
		word = mutex_first_waiter_word(at);
		break;
	case LOCK_RWSEM:
		word = rwsem_first_waiter_word(at);
		break;
	case LOCK_RTMUTEX:
		word = rtmutex_first_waiter_word(at);
		break;
	}
	return edge_task_pid(word);
}

#endif /* PROXY_BESIDE_EDGE_H */
