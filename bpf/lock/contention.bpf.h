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

#include "contended.bpf.h"

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
	/* the kernel runs the owners of mutexes for it by itself */
	if (!core_proxies() || lock_type(edge) != LOCK_MUTEX)
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
