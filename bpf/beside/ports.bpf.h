/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What lock/, obs/ and core/delay.h ask of their surroundings, on kernels down to 6.1: these have no BPF
 * functions that look tasks up (6.2), no iterators (6.4), no may_goto (6.9). So tasks are addresses, found
 * where the kernel itself looks numbers up, and read by fault-proof loads. Nothing is decided by what is
 * read, so a task that goes meanwhile makes one event wrong at the worst.
 */
#ifndef PROXY_BESIDE_PORTS_H
#define PROXY_BESIDE_PORTS_H

/* include/linux/sched.h */
#define PF_IO_WORKER 0x00000010U
#define PF_KTHREAD 0x00200000U
#define ON_RQ_QUEUED 1 /* kernel/sched/sched.h TASK_ON_RQ_QUEUED */

/* loops that the verifier walks through, each to its end */
#undef can_loop
#undef bpf_for
#define can_loop true
#define bpf_for(i, from, to) for ((i) = (from); (i) < (to); (i)++)

#define port_now() bpf_ktime_get_ns()

extern const void init_pid_ns __ksym;

u64 pidns_task_word(u64 ns, u32 nr);

/* Address of the task of that number, as one that is only for loads that are fault-proof. */
static __always_inline struct task_struct *edge_task_get(u32 pid)
{
	return (struct task_struct *)pidns_task_word((u64)&init_pid_ns, pid);
}

#define edge_task_put(p) ((void)(p))
#define edge_tgid(p) ((u32)BPF_CORE_READ(p, tgid))
#define edge_by_tracepoint(tctx) true

/*
 * That a reader of an rwsem is inside the kernel, as it is while it has it, is not looked at: its stack would
 * have to be found. Kernels on which it can have gone without a trace name no readers (rwsem.bpf.h).
 */
#define stack_is_in_kernel(pid) true

/* The core hands tasks on to task_ctx_of() only: here they are what is kept of them. */
static __always_inline struct task_ctx *task_ctx_by_pid(u32 pid)
{
	return bpf_map_lookup_elem(&task_ctxs, &pid);
}

#define port_task_get(pid) ((struct task_struct *)task_ctx_by_pid(pid))
#define port_task_put(p) ((void)(p))
#define port_pid(p) ((u32)(p)->pid)
#define task_ctx_of(p) ((struct task_ctx *)(p))
/* such a task is seen to execute: port_off_since() */
#define port_core_ran_ns(p, tctx) 0

/* Whether the task at @task has exited: it has left its locks, or is about to. */
static __always_inline bool task_has_exited(u64 task)
{
	return BPF_CORE_READ((struct task_struct *)task, exit_state);
}

/* What a task does now. Functions of numbers only are verified once, not for each caller. */
#define TASK_RUNS 1U
#define TASK_DELAYED 2U /* it could run, and does not */

__noinline u32 task_does(u64 task)
{
	struct task_struct *p = (void *)task;

	if (BPF_CORE_READ(p, on_cpu))
		return TASK_RUNS;
	if (BPF_CORE_READ(p, on_rq) != ON_RQ_QUEUED)
		return 0;
	/* EEVDF leaves some that sleep on their queue for a while (6.12) */
	if (bpf_core_field_exists(p->se.sched_delayed) && BPF_CORE_READ(p, se.sched_delayed))
		return 0;
	return TASK_DELAYED;
}

/* Since when a task is delayed whose clock says @since, if it does @does: 0 if it is not. */
__noinline u64 off_since(u64 since, u32 does)
{
	if (since & CLOCK_RUNNING_SEEN)
		return does & TASK_DELAYED ? since & CLOCK_TIME : 0;
	return does & TASK_RUNS || since & CLOCK_STANDS ? 0 : since;
}

/*
 * Since when @tctx's task could run and does not, 0 if that is not so. What was seen from another CPU in the
 * middle of a switch (owner_follow()) is not believed against what is so now: sched_switch comes before on_cpu
 * is set, and before it is cleared.
 */
static __always_inline u64 port_off_since(struct task_ctx *tctx)
{
	u32 does = task_does(*(volatile u64 *)&tctx->task);

	/* read after that: what its own CPU writes, it writes before it changes what the task does */
	return off_since(*(volatile u64 *)&tctx->off_since_ns, does);
}
#define port_off_since(tctx) port_off_since(tctx)

static __always_inline struct lock_slot *lock_slot_at(u32 nr)
{
	return bpf_map_lookup_elem(&lock_slots, &nr);
}

#endif /* PROXY_BESIDE_PORTS_H */
