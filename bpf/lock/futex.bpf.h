/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fentry and fexit of __futex_wait() (kernel/futex/waitwake.c): how waiters for
 * mutexes of user space are seen. All FUTEX_WAITs pass here, and only those that
 * really have to wait get beyond it; an uncontended mutex makes no system call.
 *
 * Interrupts are on here, and the kernel may preempt: what touches the state of
 * donors turns them off.
 */
#ifndef PROXY_LOCK_FUTEX_H
#define PROXY_LOCK_FUTEX_H

SEC("?fentry/__futex_wait")
int BPF_PROG(proxy_futex_wait, void *addr, unsigned int flags, u32 val)
{
	struct task_struct *p = bpf_get_current_task_btf();
	struct task_ctx *tctx = task_ctx_of(p);

	if (!tctx)
		return 0;
	tctx->user_lock = pthread_edge(p, tctx, (u64)addr, flags, val);
	if (tctx->user_lock)
		contended_if_urgent(p, tctx);
	else
		stat_inc(STAT_WAIT_FUTEX);
	return 0;
}

SEC("?fexit/__futex_wait")
int BPF_PROG(proxy_futex_done)
{
	struct task_struct *p = bpf_get_current_task_btf();
	struct task_ctx *tctx = task_ctx_of(p);

	if (!tctx || !tctx->user_lock)
		return 0;
	tctx->user_lock = 0;
	contention_over(p, tctx);
	return 0;
}

#endif /* PROXY_LOCK_FUTEX_H */
