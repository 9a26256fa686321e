/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tracepoint lock:contention_begin says of a lock, in words of ours: which of them are followed,
 * and which only need a name.
 */
#ifndef PROXY_LOCK_CONTENDED_H
#define PROXY_LOCK_CONTENDED_H

/* include/trace/events/lock.h */
#define LCB_F_SPIN 1U
#define LCB_F_READ 2U
#define LCB_F_WRITE 4U
#define LCB_F_RT 8U
#define LCB_F_PERCPU 16U
#define LCB_F_MUTEX 32U

/* include/linux/sched/prio.h MAX_RT_PRIO: below it tasks are real-time, below 0 deadline */
#define MAX_RT_PRIO 100
#define URGENCY_DEADLINE 200U

/* How urgent a waiter of effective priority @prio is: 0 fair; greater goes first, as in the kernel. */
static __always_inline u32 urgency_of(int prio)
{
	if (prio < 0)
		return URGENCY_DEADLINE;
	return prio < MAX_RT_PRIO ? MAX_RT_PRIO - prio : 0;
}

static __always_inline u32 task_urgency(const struct task_struct *p)
{
	return urgency_of(p->prio);
}

/*
 * What @p, current, contends for: an edge word, 0 if we need not know of it. A
 * mutex is announced as SPIN first, and may never sleep. With RT stand the locks
 * that rtmutex.bpf.h sees, whose waiters of higher classes the kernel serves itself.
 */
static __always_inline u64 contention_edge(struct task_struct *p, u64 lock, u32 flags)
{
	if (flags == LCB_F_MUTEX)
		return lock_followed(LOCK_MUTEX) && (cfg.track_by_tracepoint || task_urgency(p)) ?
			       lock | LOCK_MUTEX :
			       0;
	if (flags == LCB_F_READ || flags == LCB_F_WRITE)
		return lock_followed(LOCK_RWSEM) ? lock | LOCK_RWSEM : 0;
	if (flags & LCB_F_RT)
		return 0;
	if (flags & LCB_F_PERCPU)
		stat_inc(STAT_WAIT_PERCPU_RWSEM);
	else if (!flags)
		stat_inc(STAT_WAIT_SEMAPHORE);
	return 0;
}

/* Whether waits for such a lock may be followed, by whatever means: then it needs a name. */
static __always_inline bool lock_has_site(u32 flags)
{
	if (flags & LCB_F_RT)
		return lock_followed(LOCK_RTMUTEX);
	return (flags == LCB_F_MUTEX && lock_followed(LOCK_MUTEX)) ||
	       ((flags == LCB_F_READ || flags == LCB_F_WRITE) && lock_followed(LOCK_RWSEM));
}

#endif /* PROXY_LOCK_CONTENDED_H */
