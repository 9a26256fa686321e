/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * rt_mutexes (kernel/locking/rtmutex.c): the kernel's part of a mutex with
 * PTHREAD_PRIO_INHERIT (FUTEX_LOCK_PI), and on PREEMPT_RT what mutexes, rwsems and
 * sleeping spinlocks are made of.
 *
 * waiter -> lock: task->pi_blocked_on, set by task_blocks_on_rt_mutex(), points at
 * a struct rt_mutex_waiter on the waiter's stack. No probe is needed. The kernel
 * inherits priority through these locks among real-time tasks only: it folds the
 * others to one priority (__waiter_prio()). Real-time and deadline waiters are
 * therefore left to the kernel, which makes their owner one of their class.
 * lock -> owner: rt_mutex_base.owner, a task pointer whose low bit is a flag.
 * lock -> first waiter: leftmost of rt_mutex_base.waiters.
 */
#ifndef PROXY_LOCK_RTMUTEX_H
#define PROXY_LOCK_RTMUTEX_H

/* kernel/locking/rtmutex_common.h RT_MUTEX_HAS_WAITERS */
#define RTMUTEX_OWNER_FLAGS 1UL

static __always_inline bool rtmutex_readable(void)
{
	struct task_struct *t = NULL;
	struct rt_mutex_base *l = NULL;

	return bpf_core_field_exists(t->pi_blocked_on) && bpf_core_field_exists(l->owner);
}

/* Edge word of the rt_mutex that @p sleeps on, 0 if none. */
static __always_inline u64 rtmutex_waited_for(struct task_struct *p)
{
	struct rt_mutex_waiter *w;
	u64 lock;

	if (!rtmutex_readable())
		return 0;
	w = p->pi_blocked_on;
	if (!w)
		return 0;
	lock = (u64)BPF_CORE_READ(w, lock);
	return lock ? lock | LOCK_RTMUTEX : 0;
}

/* Address of the task that owns the rt_mutex at @at, 0 if it has none. Not to be dereferenced. */
static __always_inline u64 rtmutex_owner_word(u64 at)
{
	struct rt_mutex_base *l = (void *)at;

	return rtmutex_readable() ? (u64)BPF_CORE_READ(l, owner) & ~RTMUTEX_OWNER_FLAGS : 0;
}

/* Address of the task that is first in line, 0 if there is none; as above. */
static __always_inline u64 rtmutex_first_waiter_word(u64 at)
{
	struct rt_mutex_base *l = (void *)at;
	struct rt_mutex_waiter *w = NULL;
	u64 node;

	if (!bpf_core_field_exists(l->waiters) || !bpf_core_field_exists(w->tree))
		return 0;
	node = (u64)BPF_CORE_READ(l, waiters.rb_leftmost);
	if (!node)
		return 0;
	w = (void *)(node - bpf_core_field_offset(w->tree));
	return (u64)BPF_CORE_READ(w, task);
}

#endif /* PROXY_LOCK_RTMUTEX_H */
