/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The callbacks of sched_ext around a task's life, each handed to core/task.h and
 * core/pick.h. Here stands only what needs the kernel's own types.
 */
#ifndef PROXY_SCHED_CALLBACKS_H
#define PROXY_SCHED_CALLBACKS_H

/* kernel/sched/sched.h WF_EXEC: a macro, so not in BTF */
#define WAKE_FLAG_EXEC 2

/*
 * Runs under the task's pi_lock, not its rq lock: it changes nothing of the task but
 * where it returns to.
 */
s32 BPF_STRUCT_OPS(proxy_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	struct task_ctx *tctx = task_ctx_of(p);

	if (!tctx)
		return prev_cpu;
	return task_select_cpu(p, tctx, prev_cpu,
			       wake_flags & (SCX_WAKE_FORK | WAKE_FLAG_EXEC) ? WAKE_FORK :
			       wake_flags & SCX_WAKE_SYNC		    ? WAKE_SYNC :
									      WAKE_PLAIN);
}

void BPF_STRUCT_OPS(proxy_update_idle, s32 cpu, bool idle)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	if (cctx)
		idle_changed(cctx, idle);
}

void BPF_STRUCT_OPS(proxy_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct task_ctx *tctx = task_ctx_of(p);

	if (tctx && tctx->futex_at)
		futex_woken(p, tctx);
	if (!tctx || !task_enqueue(p, tctx, enq_flags, enq_flags & SCX_ENQ_WAKEUP,
				   enq_flags & SCX_ENQ_CPU_SELECTED, enq_flags & SCX_ENQ_LAST,
				   enq_flags & SCX_ENQ_REENQ))
		unserved_enqueue(p, enq_flags);
}

void BPF_STRUCT_OPS(proxy_dispatch, s32 cpu, struct task_struct *prev)
{
	if (unserved_turn(cpu))
		return;
	pick(cpu, prev && (prev->scx.flags & SCX_TASK_QUEUED) ? prev : NULL);
	unserved_fill(cpu);
}

void BPF_STRUCT_OPS(proxy_tick, struct task_struct *p)
{
	struct task_ctx *tctx = task_ctx_of(p);

	if (tctx)
		task_tick(p, tctx);
	unserved_tick(p);
	tick(scx_bpf_task_cpu(p));
}

void BPF_STRUCT_OPS(proxy_running, struct task_struct *p)
{
	struct task_ctx *tctx = task_ctx_of(p);
	s32 cpu = scx_bpf_task_cpu(p);
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	if (tctx && cctx)
		task_running(p, tctx, cctx, cpu);
}

void BPF_STRUCT_OPS(proxy_stopping, struct task_struct *p, bool runnable)
{
	struct task_ctx *tctx;
	struct cpu_ctx *cctx;
	s32 cpu;

	if (!runnable)
		return;
	tctx = task_ctx_of(p);
	cpu = scx_bpf_task_cpu(p);
	cctx = cpu_ctx_of(cpu);
	if (tctx && cctx)
		task_stopping(p, tctx, cctx, cpu);
}

void BPF_STRUCT_OPS(proxy_quiescent, struct task_struct *p, u64 deq_flags)
{
	struct task_ctx *tctx = task_ctx_of(p);

	if (!tctx)
		return;
	if ((deq_flags & SCX_DEQ_SLEEP) && futexes_followed())
		futex_sleep(p, tctx);
	task_quiescent(p, tctx, scx_bpf_task_cpu(p), deq_flags & SCX_DEQ_SLEEP);
}

bool BPF_STRUCT_OPS(proxy_yield, struct task_struct *from, struct task_struct *to)
{
	struct task_ctx *tctx = task_ctx_of(from), *totctx;

	if (!tctx)
		return false;
	if (!to) {
		task_yield(from, tctx);
		return false; /* nobody asks */
	}
	totctx = task_ctx_of(to);
	return totctx && task_yield_to(from, tctx, to, totctx);
}

#endif /* PROXY_SCHED_CALLBACKS_H */
