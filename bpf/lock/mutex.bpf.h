/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Kernel mutexes (kernel/locking/mutex.c).
 *
 * waiter -> lock: task->blocked_on, set by __mutex_lock_common() before it
 * sleeps, on 6.17 and later, whether proxy execution is built or not; before
 * that, and for tasks of other classes, the lock that tracepoint
 * lock:contention_begin named last.
 * lock -> owner: mutex.owner, a task pointer whose low three bits are flags.
 * lock -> first waiter: mutex.first_waiter (7.3), head of mutex.wait_list before.
 *
 * On PREEMPT_RT a mutex is an rt_mutex and has no owner word: no edge is seen.
 */
#ifndef PROXY_LOCK_MUTEX_H
#define PROXY_LOCK_MUTEX_H

/* include/linux/mutex.h, kernel/locking/mutex.h */
#define MUTEX_OWNER_FLAGS 7UL

/* CO-RE flavours: the kernel that runs us need not have these fields */
struct mutex___proxy {
	atomic_long_t owner;
} __attribute__((preserve_access_index));

struct mutex_waiter___proxy {
	struct list_head list;
	struct task_struct *task;
} __attribute__((preserve_access_index));

struct mutex___first {
	struct mutex_waiter___proxy *first_waiter;
} __attribute__((preserve_access_index));

struct mutex___list {
	struct list_head wait_list;
} __attribute__((preserve_access_index));

struct task_struct___blocked_on {
	struct mutex___proxy *blocked_on;
} __attribute__((preserve_access_index));

static __always_inline bool mutex_owner_readable(void)
{
	return bpf_core_field_exists(((struct mutex___proxy *)0)->owner);
}

/* Address of the mutex that @p sleeps on, 0 if none. Callers re-read, never remember. */
static __always_inline u64 mutex_waited_for(struct task_struct *p, const struct task_ctx *tctx)
{
	struct task_struct___blocked_on *t = (void *)p;
	u64 lock;

	if (!mutex_owner_readable())
		return 0;
	if (bpf_core_field_exists(t->blocked_on) && !cfg.track_by_tracepoint) {
		/* most wait for none, and a load costs less than a read that may fault */
		lock = t->blocked_on ? (u64)BPF_CORE_READ(t, blocked_on) : 0;
		/* of other classes only what the tracepoint has seen begin, and not end */
		if (edge_by_tracepoint(tctx) && lock != tctx->contended_lock)
			lock = 0;
	} else {
		lock = lock_type(tctx->contended_lock) == LOCK_MUTEX ? tctx->contended_lock : 0;
	}
	/* 7.x with proxy execution stores -1 (PROXY_WAKING) for a waiter that is being woken */
	return lock < (u64)-4095 ? lock : 0;
}

/* Address of the task that owns @lock, 0 if it has none. Not to be dereferenced as it is. */
static __always_inline u64 mutex_owner_word(u64 lock)
{
	struct mutex___proxy *m = (void *)lock;

	return mutex_owner_readable() ? (u64)BPF_CORE_READ(m, owner.counter) & ~MUTEX_OWNER_FLAGS :
					0;
}

/* Address of the task that is first in line for @lock, 0 if there is none; as above. */
static __always_inline u64 mutex_first_waiter_word(u64 lock)
{
	struct mutex___first *by_waiter = (void *)lock;
	struct mutex___list *by_list = (void *)lock;
	struct mutex_waiter___proxy *w = NULL;
	u64 first;

	if (bpf_core_field_exists(by_waiter->first_waiter)) {
		w = BPF_CORE_READ(by_waiter, first_waiter);
	} else if (bpf_core_field_exists(by_list->wait_list)) {
		first = (u64)BPF_CORE_READ(by_list, wait_list.next);
		if (first == lock + bpf_core_field_offset(by_list->wait_list))
			return 0;
		w = (void *)(first - bpf_core_field_offset(w->list));
	} else {
		return 0;
	}
	return w ? (u64)BPF_CORE_READ(w, task) : 0;
}

#endif /* PROXY_LOCK_MUTEX_H */
