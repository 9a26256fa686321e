/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where the kernel calls: the two tracepoints of contended locks, and of the scheduler those at a switch, at a
 * wakeup. While nobody waits these two do next to nothing.
 */
#ifndef PROXY_BESIDE_PROBES_H
#define PROXY_BESIDE_PROBES_H

#define TASK_STATE_RUNNING 0U
#define TASK_STATE_DEAD 0x80U /* include/linux/sched.h */

/* Whether this wait is one of those that are looked at, with --sample. */
static __always_inline bool sampled(void)
{
	return cfg.sample <= 1 || !(bpf_get_prandom_u32() % cfg.sample);
}

SEC("tp_btf/contention_begin")
int BPF_PROG(beside_cont_begin, void *lock, unsigned int flags)
{
	struct task_struct *p;
	struct task_ctx *tctx;
	u64 edge;

	if (flags & LCB_F_SPIN)
		return 0;
	p = bpf_get_current_task_btf();
	if (p->tgid == cfg.own_tgid)
		return 0;
	edge = contention_edge(p, (u64)lock, flags);
	if ((!edge && !lock_has_site(flags)) || !sampled())
		return 0;
	tctx = task_ctx_make(p->pid, (u64)p);
	if (!tctx)
		return 0;
	site_note_kernel(ctx, p, tctx, (u64)lock);
	tctx->contended_lock = edge;
	return 0;
}

SEC("tp_btf/contention_end")
int BPF_PROG(beside_cont_end, void *lock, int ret)
{
	struct task_ctx *tctx = task_ctx_by_pid(bpf_get_current_task_btf()->pid);

	if (tctx && tctx->contended_lock && lock_address(tctx->contended_lock) == (u64)lock)
		tctx->contended_lock = 0;
	return 0;
}

/* The edge word of the user-space mutex that @p, current, sleeps on; 0 if it is none. */
static __always_inline u64 user_edge(struct task_struct *p)
{
	struct futex_call call = {};
	struct task_ctx *tctx;
	u64 edge;

	if ((p->jobctl & JOBCTL_FREEZE) || (p->flags & PF_NO_SYSCALL) || p->tgid == cfg.own_tgid ||
	    !futex_call_of(p, &call) || !sampled())
		return 0;
	if (call.op != FUTEX_OP_WAIT && call.op != FUTEX_OP_WAIT_BITSET)
		return 0;
	/* what most that wait there wait for is no mutex: nothing is kept of these */
	if (call.val != PTHREAD_CONTENDED && call.val != RWLOCK_HELD && !pthread_in_word(call.val))
		return 0;
	tctx = task_ctx_make(p->pid, (u64)p);
	if (!tctx)
		return 0;
	edge = pthread_edge(p, tctx, call.addr, call.val,
			    (call.shared ? USER_SHARED : 0) | (call.is_32 ? USER_32 : 0));
	if (edge)
		site_note_user(p, tctx, lock_address(edge));
	else
		stat_inc(STAT_WAIT_FUTEX);
	return edge;
}

/* A PI mutex: see futex_pi_begins() of lock/futex.bpf.h. */
static __always_inline void pi_site(struct task_struct *p, struct task_ctx *tctx, u32 state)
{
	struct futex_call call = {};

	if (!futex_state_pi(p, state) || (p->flags & PF_NO_SYSCALL) || !futex_call_of(p, &call) ||
	    (call.op != FUTEX_OP_LOCK_PI && call.op != FUTEX_OP_LOCK_PI2))
		return;
	site_note_user(p, tctx, call.addr ^ (u64)p->tgid << 32);
	tctx->site_lock = SITE_LOCK_PI;
}

/* What @p, current, sleeps on, 0 if on no lock that is followed. Of one that does something is kept. */
static __noinline u64 slept_on(struct task_struct *p, u32 state)
{
	u64 lock = lock_followed(LOCK_RTMUTEX) ? rtmutex_waited_for(p) : 0;
	struct task_ctx *tctx = task_ctx_by_pid(p->pid);

	if (lock) {
		if (!tctx && sampled())
			tctx = task_ctx_make(p->pid, (u64)p);
		if (tctx)
			pi_site(p, tctx, state);
		return tctx ? lock : 0;
	}
	if (tctx && tctx->contended_lock)
		return tctx->contended_lock;
	return lock_followed(LOCK_PTHREAD) && futex_state(state) ? user_edge(p) : 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(beside_switch, bool preempt, struct task_struct *prev, struct task_struct *next,
	     unsigned int prev_state)
{
	/* a signal may have kept it from going to sleep: then its state says so, on older kernels */
	bool sleeps = !preempt && prev_state && prev->__state != TASK_STATE_RUNNING;
	struct task_ctx *tctx;
	u32 pid = prev->pid;
	u64 lock, now;

	if (!sleeps && !following())
		return 0;
	if (sleeps && (prev_state & TASK_STATE_DEAD)) {
		if (task_ctx_by_pid(pid))
			bpf_map_delete_elem(&task_ctxs, &pid);
	} else if (pid) {
		lock = sleeps ? slept_on(prev, prev_state) : 0;
		tctx = task_ctx_by_pid(pid);
		if (tctx && lock)
			wait_begin(prev, tctx, lock);
		else if (tctx && sleeps)
			clock_stands(tctx, port_now());
		else if (tctx)
			clock_goes(tctx, port_now());
	}
	if (!following())
		return 0;
	tctx = next->pid ? task_ctx_by_pid(next->pid) : NULL;
	if (!tctx)
		return 0;
	now = port_now();
	/* its wakeup was missed: while programs are attached one after the other, for example */
	if (tctx->waits)
		wait_end(next, tctx, now);
	clock_stops(tctx, now);
	return 0;
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(beside_wakeup, struct task_struct *p)
{
	struct task_ctx *tctx;
	u64 now;

	if (!following())
		return 0;
	tctx = task_ctx_by_pid(p->pid);
	if (!tctx)
		return 0;
	now = port_now();
	if (tctx->waits)
		wait_end(p, tctx, now);
	/* not if it never stopped running; on_cpu is of another size on older kernels: no plain load will do */
	if (!BPF_CORE_READ(p, on_cpu))
		clock_goes(tctx, now);
	return 0;
}

/* All waits that go on: see obs/snapshot.bpf.h. */
SEC("iter/task")
int beside_snapshot(struct bpf_iter__task *ctx)
{
	struct task_struct *p = ctx->task;
	struct proxy_event e = {};
	struct task_ctx *tctx;
	u64 delay_ns;
	u32 owner;

	if (!p)
		return 0;
	tctx = task_ctx_by_pid(p->pid);
	if (!tctx || !tctx->waits)
		return 0;
	e.lock = tctx->wait_edge;
	e.time_ns = tctx->blocked_at_ns;
	e.value = tctx->wait_seq;
	e.kind = EVENT_SNAPSHOT;
	e.cpu = tctx->wait_cpu;
	e.other = edge_owner_pid(p, tctx, e.lock);
	e.inverted_ns = inversion_so_far(tctx, port_now(), &owner, &delay_ns);
	event_fill_wait(&e, p, tctx);
	bpf_seq_write(ctx->meta->seq, &e, sizeof(e));
	return 0;
}

#endif /* PROXY_BESIDE_PROBES_H */
