/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Edges: waiter -> lock -> owner, whatever the type of the lock. This is all
 * that the rest of the scheduler knows of locks; one file per lock type stands
 * behind it. Nothing here is remembered: each call reads the kernel's own state,
 * or, of a mutex of user space, the mutex itself. What has to be learned: what the owners of ntsync call
 * themselves (ntsync.bpf.h), and the candidates for a lock that names no owner (users.bpf.h).
 */
#ifndef PROXY_LOCK_EDGE_H
#define PROXY_LOCK_EDGE_H

#define edge_task_get(pid) bpf_task_from_pid(pid)
#define edge_task_put(p) bpf_task_release(p)
#define edge_tgid(p) ((u32)(p)->tgid)
#define edge_by_tracepoint(tctx) ((tctx)->place == PLACE_OTHER)

#include "word.bpf.h"
#include "stack.bpf.h"
#include "held.bpf.h"
#include "pthread.bpf.h"
#include "binder.bpf.h"
#include "ntsync.bpf.h"
#include "users.bpf.h"

/*
 * The lock that @p sleeps on, 0 if it waits for none that we can see through. A
 * task that sleeps in the kernel on its way to, or from, a lock of user space
 * waits for the kernel's first.
 */
static __always_inline u64 edge_lock(struct task_struct *p, const struct task_ctx *tctx)
{
	u64 lock = 0;

	if (lock_followed(LOCK_RTMUTEX))
		lock = rtmutex_waited_for(p);
	if (!lock && lock_followed(LOCK_MUTEX))
		lock = mutex_waited_for(p, tctx);
	if (!lock && lock_followed(LOCK_RWSEM))
		lock = rwsem_waited_for(p, tctx);
	if (!lock && lock_followed(LOCK_PTHREAD))
		lock = pthread_waited_for(tctx);
	if (!lock && lock_followed(LOCK_BINDER))
		lock = binder_waited_for(p, tctx);
	if (!lock && lock_followed(LOCK_NTSYNC))
		lock = ntsync_waited_for(p, tctx);
	if (!lock && lock_followed(LOCK_FUTEX))
		lock = users_waited_for(tctx);
	return lock;
}

/* The pid of the owner of @lock, which @p waits for; 0 if it has none that may be lent to. */
static __always_inline u32 edge_owner_pid(struct task_struct *p, const struct task_ctx *tctx,
					  u64 lock)
{
	u64 at = lock_address(lock);

	switch (lock_type(lock)) {
	case LOCK_PTHREAD:
		return lock_followed(LOCK_PTHREAD) ? pthread_owner_pid(p, tctx) : 0;
	case LOCK_BINDER:
		return lock_followed(LOCK_BINDER) ? binder_server_pid(at) : 0;
	case LOCK_NTSYNC:
		return lock_followed(LOCK_NTSYNC) ? ntsync_owner_pid(at, p->tgid) : 0;
	}
	return held_owner_pid(lock);
}

#endif /* PROXY_LOCK_EDGE_H */
