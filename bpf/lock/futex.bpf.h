/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fentry and fexit of __futex_wait() (kernel/futex/waitwake.c): how waiters for
 * mutexes of user space are seen. All FUTEX_WAITs pass here, and only those that
 * really have to wait get beyond it; an uncontended mutex makes no system call.
 *
 * Interrupts are on here, and the kernel may preempt: what touches the state of
 * donors turns them off.
 *
 * A program that is preempted is skipped for whoever comes there on that CPU meanwhile
 * (__bpf_prog_enter_recur()). A beginning that is missed costs a donation; an end that
 * is missed would leave an edge behind. So there are two programs for the end, of which
 * the second has something to do only if the first was skipped; and a fair task's edge
 * is over at the latest when it wakes (task_runnable()).
 */
#ifndef PROXY_LOCK_FUTEX_H
#define PROXY_LOCK_FUTEX_H

SEC("?fentry/__futex_wait")
int BPF_PROG(proxy_futex_wait, void *addr, unsigned int flags, u32 val)
{
	struct task_struct *p = bpf_get_current_task_btf();
	struct task_ctx *tctx;

	/* our own threads wait for each other all the time, and for no such mutex: be gone soon */
	if (p->tgid == cfg.agent_tgid)
		return 0;
	tctx = task_ctx_of(p);
	if (!tctx)
		return 0;
	tctx->user_lock = pthread_edge(p, tctx, (u64)addr, flags, val);
	if (tctx->user_lock) {
		site_note_user(p, tctx, lock_address(tctx->user_lock));
		contended_if_urgent(p, tctx);
	} else {
		stat_inc(STAT_WAIT_FUTEX);
	}
	return 0;
}

static __always_inline void futex_wait_over(struct task_struct *p)
{
	struct task_ctx *tctx = task_ctx_of(p);

	if (!tctx || !(tctx->user_lock || (tctx->token && tctx->wait_urgency)))
		return;
	tctx->user_lock = 0;
	contention_over(p, tctx);
}

SEC("?fexit/__futex_wait")
int BPF_PROG(proxy_futex_done)
{
	futex_wait_over(bpf_get_current_task_btf());
	return 0;
}

SEC("?fexit/__futex_wait")
int BPF_PROG(proxy_futex_over)
{
	futex_wait_over(bpf_get_current_task_btf());
	return 0;
}

/*
 * A PI mutex, of user space: its waiters pass no tracepoint, and the rt_mutex behind it is
 * not known yet. Kept under its own address and process.
 */
SEC("?fentry/futex_lock_pi")
int BPF_PROG(proxy_pi_wait, void *addr)
{
	struct task_struct *p = bpf_get_current_task_btf();
	struct task_ctx *tctx = task_ctx_of(p);

	if (!tctx)
		return 0;
	site_note_user(p, tctx, (u64)addr ^ (u64)p->tgid << 32);
	tctx->site_lock = SITE_LOCK_PI;
	return 0;
}

#endif /* PROXY_LOCK_FUTEX_H */
