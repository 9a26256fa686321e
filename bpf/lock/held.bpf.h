/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owner and waiters of the kernel's locks in which both stand, whatever the type: mutexes, rwsems, rt_mutexes.
 * Whoever includes this defines first what word.bpf.h names.
 */
#ifndef PROXY_LOCK_HELD_H
#define PROXY_LOCK_HELD_H

#include "mutex.bpf.h"
#include "rwsem.bpf.h"
#include "rtmutex.bpf.h"

/* The pid of the owner of @lock, 0 if none is known, or if it is a lock of another kind. */
static __always_inline u32 held_owner_pid(u64 lock)
{
	u64 at = lock_address(lock);

	switch (lock_type(lock)) {
	case LOCK_MUTEX:
		return edge_task_pid(mutex_owner_word(at));
	case LOCK_RWSEM:
		return rwsem_owner_pid(at);
	case LOCK_RTMUTEX:
		return edge_task_pid(rtmutex_owner_word(at));
	}
	return 0;
}

/* The pid of the first in line for @lock, 0 if there are no waiters, or the first is not known. */
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

#endif /* PROXY_LOCK_HELD_H */
