/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The tracepoints lock:contention_begin and lock:contention_end: how waiters for
 * rwsems are seen, waiters that pass no callback of ours (tasks of other classes:
 * real-time and deadline), and waiters for mutexes on kernels without
 * task->blocked_on. Waits for locks that name no owner are counted here.
 *
 * They fire on contended locks only, for spinlocks too, and for a mutex with its
 * wait_lock held: filter, record, queue; never move a task. For other locks
 * interrupts are on: what touches the state of donors turns them off, and there are
 * two programs for the end, as futex.bpf.h says.
 */
#ifndef PROXY_LOCK_CONTENTION_H
#define PROXY_LOCK_CONTENTION_H

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

/* How urgent a waiter is: 0 fair; greater goes first. By its effective priority, as the kernel. */
static __always_inline u32 task_urgency(const struct task_struct *p)
{
	if (p->prio < 0)
		return URGENCY_DEADLINE;
	return p->prio < MAX_RT_PRIO ? MAX_RT_PRIO - p->prio : 0;
}

/* @p, current, is about to sleep on a lock: if it is of a higher class, no other callback sees it. */
static __always_inline void contended_if_urgent(struct task_struct *p, struct task_ctx *tctx)
{
	u32 urgency = task_urgency(p);
	unsigned long irqs;

	if (!urgency || tctx->place != PLACE_OTHER)
		return;
	bpf_local_irq_save(&irqs);
	task_contended(p, tctx, bpf_get_smp_processor_id(), urgency);
	bpf_local_irq_restore(&irqs);
}

/* @p, current, has the lock that it slept on, or was interrupted. */
static __always_inline void contention_over(struct task_struct *p, struct task_ctx *tctx)
{
	unsigned long irqs;

	if (!tctx->token)
		return;
	bpf_local_irq_save(&irqs);
	task_contention_over(p, tctx);
	bpf_local_irq_restore(&irqs);
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

SEC("?tp_btf/contention_begin")
int BPF_PROG(proxy_cont_begin, void *lock, unsigned int flags)
{
	struct task_struct *p;
	struct task_ctx *tctx;
	u64 edge;

	if (flags & LCB_F_SPIN)
		return 0;
	p = bpf_get_current_task_btf();
	tctx = lock_has_site(flags) ? task_ctx_of(p) : NULL;
	if (tctx)
		site_note_kernel(ctx, p, tctx, (u64)lock);
	edge = contention_edge(p, (u64)lock, flags);
	if (!edge || !tctx)
		return 0;
	tctx->contended_lock = edge;
	contended_if_urgent(p, tctx);
	return 0;
}

static __always_inline void contention_ended(struct task_struct *p, u64 lock)
{
	struct task_ctx *tctx = task_ctx_of(p);

	if (!tctx || !tctx->contended_lock || lock_address(tctx->contended_lock) != lock)
		return;
	tctx->contended_lock = 0;
	contention_over(p, tctx);
}

SEC("?tp_btf/contention_end")
int BPF_PROG(proxy_cont_end, void *lock, int ret)
{
	contention_ended(bpf_get_current_task_btf(), (u64)lock);
	return 0;
}

SEC("?tp_btf/contention_end")
int BPF_PROG(proxy_cont_over, void *lock, int ret)
{
	contention_ended(bpf_get_current_task_btf(), (u64)lock);
	return 0;
}

#endif /* PROXY_LOCK_CONTENTION_H */
