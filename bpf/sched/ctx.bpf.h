/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * State of tasks and CPUs, and who may write it. The same table, with the
 * reasons, stands in DESIGN.md ("Protection").
 */
#ifndef PROXY_SCHED_CTX_H
#define PROXY_SCHED_CTX_H

/* include/uapi/linux/sched.h SCHED_IDLE: a macro, so not in BTF */
#define POLICY_IDLE 5

/* where a task is, as the callbacks told us; written under the task's rq lock */
enum task_place {
	PLACE_ASLEEP = 0, /* also: not seen since it was enabled */
	PLACE_QUEUED,	  /* on the run queue (user DSQ) of dsq_cpu */
	PLACE_LOCAL,	  /* runnable, on a local DSQ or on its way to a queue */
	PLACE_RUNNING,	  /* on a CPU */
	PLACE_OTHER,	  /* of another scheduling class */
};

struct task_ctx {
	/* [rq lock of the task] its own scheduling context */
	u64 vtime;	 /* key, in terms of the clock of vtime_cpu */
	s32 vtime_cpu;	 /* -1: none yet */
	u32 weight;	 /* 1024 at nice 0 */
	u64 charged_exec_ns; /* p->se.sum_exec_runtime that is charged already */
	u64 charged_at_ns;   /* when that was */
	u32 place;	 /* enum task_place */
	s32 dsq_cpu;	 /* the queue it is on, while PLACE_QUEUED */
	u32 queued_weight; /* its part of that queue's load */
	u64 queued_at_ns;  /* when it was put there */
	u32 yielded;	 /* lets the next one go first, once */

	/* [written by the task itself only] 6.16: the mutex it is about to sleep on */
	u64 contended_lock;

	/* as a donor. token: compare-and-swap; wait_*: whoever holds it (core/token.h) */
	u64 token;
	u64 wait_seq;	  /* [rq lock] last used wait number, in token form */
	u64 wait_key;
	s32 wait_cpu;	  /* the clock that wait_key belongs to */
	u32 wait_weight;
	u64 lent_cost;	  /* [atomic add] virtual time run on this context meanwhile */
	u64 woke_at_ns;	  /* [rq lock] */

	/* as an owner. donor_*: [the CPU that runs or picks it] */
	u32 donor_pid;	  /* whose context it runs in; 0: its own */
	u32 has_attached; /* [atomic] hint: attached[] may hold something */
	u64 donor_seq;
	u32 attached[ATTACH_MAX]; /* [atomic] pids of donors that wait for it to stop or wake */
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_ctx);
} task_ctxs SEC(".maps");

struct cpu_ctx {
	u64 clock;	     /* [rq lock of the CPU] least key on the CPU, never goes back */
	/*
	 * [hint] what runs, and since when (0: nothing of ours). Written by the CPU
	 * itself, and by a donor that wakes, for the owner that ran in its context.
	 * Read by others without a lock: a torn read costs or spares a preemption.
	 */
	u64 running_key;
	u64 running_since_ns;
	u32 running_weight;
	u32 running_pid;
	u32 nr_queued;	     /* [atomic] tasks on the run queue */
	u32 idle_with_donors; /* [rq lock of the CPU] went idle with donors that wait for an owner */
	u64 queued_load;     /* [atomic] sum of their weights */
	u64 balanced_at_ns;  /* [rq lock of the CPU] */
	u32 balance_cursor;  /* [rq lock of the CPU] */
	u32 nr_donors;	     /* [atomic] entries on the donor queue, for stats */
} __attribute__((aligned(64)));

/* max_entries of the two: set by the loader to the number of possible CPUs */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cpu_ctx);
} cpu_ctxs SEC(".maps");

static __always_inline struct task_ctx *task_ctx_of(struct task_struct *p)
{
	return bpf_task_storage_get(&task_ctxs, p, 0, 0);
}

static __always_inline struct cpu_ctx *cpu_ctx_of(s32 cpu)
{
	u32 key = cpu;

	return bpf_map_lookup_elem(&cpu_ctxs, &key);
}

/* Run queue of @cpu: the user DSQ with the CPU's own number. */
static __always_inline u64 run_queue(s32 cpu)
{
	return (u64)(u32)cpu;
}

/* kernel/sched/core.c set_load_weight(): what the fair class would use */
static __always_inline u32 task_weight(const struct task_struct *p)
{
	if (p->policy == POLICY_IDLE)
		return WEIGHT_IDLE_POLICY;
	return weight_of_nice(p->static_prio - 120);
}

static __always_inline bool task_pinned(const struct task_struct *p)
{
	return p->nr_cpus_allowed == 1 || is_migration_disabled(p);
}

#endif /* PROXY_SCHED_CTX_H */
