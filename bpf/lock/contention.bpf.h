/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The tracepoints lock:contention_begin and lock:contention_end: how waiters are
 * seen that pass no callback of ours (tasks of other classes: real-time and
 * deadline), and all waiters on kernels without task->blocked_on.
 *
 * They fire on contended locks only, for spinlocks too, and for a mutex with its
 * wait_lock held and interrupts off: filter, record, queue; never move a task.
 */
#ifndef PROXY_LOCK_CONTENTION_H
#define PROXY_LOCK_CONTENTION_H

/* include/trace/events/lock.h */
#define LCB_F_SPIN 1U
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

SEC("?tp_btf/contention_begin")
int BPF_PROG(proxy_contention_begin, void *lock, unsigned int flags)
{
	struct task_struct *p = bpf_get_current_task_btf();
	struct task_ctx *tctx;
	u32 urgency;

	/* MUTEX with SPIN: it spins yet, and may never sleep */
	if ((flags & (LCB_F_MUTEX | LCB_F_SPIN)) != LCB_F_MUTEX)
		return 0;
	urgency = task_urgency(p);
	if (!urgency && !cfg.track_by_tracepoint)
		return 0;
	tctx = task_ctx_of(p);
	if (!tctx)
		return 0;
	tctx->contended_lock = (u64)lock;
	if (urgency && tctx->place == PLACE_OTHER)
		task_contended(p, tctx, bpf_get_smp_processor_id(), urgency);
	return 0;
}

SEC("?tp_btf/contention_end")
int BPF_PROG(proxy_contention_end, void *lock, int ret)
{
	struct task_struct *p = bpf_get_current_task_btf();
	struct task_ctx *tctx = task_ctx_of(p);

	if (!tctx || tctx->contended_lock != (u64)lock)
		return 0;
	tctx->contended_lock = 0;
	task_contention_over(p, tctx);
	return 0;
}

#endif /* PROXY_LOCK_CONTENTION_H */
