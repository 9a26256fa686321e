/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel's side of core/ports.h.
 */
#ifndef PROXY_SCHED_PORTS_H
#define PROXY_SCHED_PORTS_H

/* include/uapi/linux/sched.h SCHED_IDLE: a macro, so not in BTF */
#define POLICY_IDLE 5

#define port_task_get(pid) bpf_task_from_pid(pid)
#define port_task_put(p) bpf_task_release(p)
#define port_pid(p) ((u32)(p)->pid)
#define port_task_cpu(p) scx_bpf_task_cpu(p)
#define port_exec_ns(p) ((u64)(p)->se.sum_exec_runtime)
#define port_set_slice(p, ns) scx_bpf_task_set_slice(p, ns)
#define port_current() bpf_get_current_task_btf()
#define port_this_cpu() ((s32)bpf_get_smp_processor_id())
/* read once per hold of the rq lock (6.14), instead of a clock source for each question */
#define port_now() scx_bpf_now()
#define port_monotonic() bpf_ktime_get_ns()

/*
 * Before ops.dispatch() the kernel lets go of the rq lock for a moment, and from there on until the
 * task runs scx_bpf_now() reads a clock source. What the rq's clock said as schedule() began, or when somebody
 * queued a task there since, is as good (kernel/sched/core.c, update_rq_clock()).
 */
static __always_inline u64 port_switch_now(s32 cpu)
{
	if (cpu != port_this_cpu())
		return scx_bpf_now();
	return ((struct rq *)bpf_this_cpu_ptr(&runqueues))->clock;
}

#define port_donating() (*(volatile u32 *)&donating)
#define queue_lock(q) bpf_spin_lock(&(q)->lock)
#define queue_unlock(q) bpf_spin_unlock(&(q)->lock)

/* kernel/sched/core.c set_load_weight(): what the fair class would use */
static __always_inline u32 port_weight(const struct task_struct *p)
{
	if (p->policy == POLICY_IDLE)
		return WEIGHT_IDLE_POLICY;
	return weight_of_nice(p->static_prio - 120);
}

static __always_inline bool port_pinned(const struct task_struct *p)
{
	return p->nr_cpus_allowed == 1 || is_migration_disabled(p);
}

/* As many CPUs as there are; should these be others, the CPU that takes it finds out. */
static __always_inline bool port_unrestricted(const struct task_struct *p)
{
	return p->nr_cpus_allowed >= (int)cfg.nr_cpus_online;
}

static __always_inline u32 port_user(struct task_struct *p)
{
	return BPF_CORE_READ(p, cred, uid.val) * 0x9e3779b1U >> 26;
}

static __always_inline bool port_may_run(struct task_struct *p, s32 cpu)
{
	return bpf_cpumask_test_cpu(cpu, p->cpus_ptr) &&
	       !(is_migration_disabled(p) && scx_bpf_task_cpu(p) != cpu);
}

/* CONFIG_PREEMPT_RCU; without it no task is preempted there */
struct task_struct___rcu {
	int rcu_read_lock_nesting;
} __attribute__((preserve_access_index));

static __always_inline bool port_in_rcu(struct task_struct *p)
{
	struct task_struct___rcu *t = (void *)p;
	/* a BPF program is one itself, in the name of the current task (__bpf_prog_enter()) */
	int own = p == bpf_get_current_task_btf();

	return bpf_core_field_exists(t->rcu_read_lock_nesting) &&
	       BPF_CORE_READ(t, rcu_read_lock_nesting) > own;
}

/* do_exit() sets it first thing; include/linux/sched.h PF_EXITING */
static __always_inline bool port_exiting(const struct task_struct *p)
{
	return p->flags & 0x00000004;
}

static __always_inline bool port_is_agent(const struct task_struct *p)
{
	return p->tgid == cfg.agent_tgid;
}

/* CONFIG_SCHED_PROXY_EXEC: who executes and who is accounted for are two words of the rq, and not one */
struct rq___proxy {
	struct task_struct *donor;
	struct task_struct *curr;
} __attribute__((preserve_access_index));

/*
 * Whether the kernel has proxy execution of its own beside sched_ext, as is to come with 7.4: the owner of a
 * mutex that a task of a higher class waits for then executes in that one's context (kernel/sched/core.c,
 * find_proxy_task()). The owner's CPU time grows (update_curr()), and no callback is made.
 */
static __always_inline bool core_proxies(void)
{
	struct rq___proxy *rq = NULL;

	return bpf_core_field_exists(rq->donor) &&
	       bpf_core_field_offset(rq->donor) != bpf_core_field_offset(rq->curr);
}

static __always_inline bool port_core_runs(const struct task_struct *p)
{
	return core_proxies() && p->on_cpu;
}

#define port_core_ran_ns(p, tctx) (core_proxies() ? port_exec_ns(p) - (tctx)->charged_exec_ns : 0)

static __always_inline void port_kick(s32 cpu, enum port_kick how)
{
	scx_bpf_kick_cpu(cpu, how == PORT_KICK_PREEMPT ? SCX_KICK_PREEMPT :
			      how == PORT_KICK_IDLE    ? SCX_KICK_IDLE :
							 0);
}

/* how fast the CPU is now, of PERF_ONE; what it shall be */
#define port_perf_now(cpu) scx_bpf_cpuperf_cur(cpu)
#define port_perf_set(cpu, perf) scx_bpf_cpuperf_set(cpu, perf)

/* include/uapi/linux/bpf.h BPF_F_TIMER_CPU_PIN: fires where it is started */
#define TIMER_CPU_PIN 2

u64 hrtick(s32 cpu);

static int hrtick_fired(void *map, int *cpu, struct bpf_timer *timer)
{
	u64 again;

	/* a timer holds no RCU lock, as callbacks of sched_ext do: the head of a queue might be freed meanwhile */
	bpf_rcu_read_lock();
	again = hrtick(*cpu);
	bpf_rcu_read_unlock();
	if (again)
		bpf_timer_start(timer, again, TIMER_CPU_PIN);
	return 0;
}

/*
 * Its callback is set here and not in ops.init(): that may sleep, and what such a program sets the
 * verifier takes for code that may sleep, which must not look at queues.
 */
static __always_inline void port_hrtick(s32 cpu, u64 ns)
{
	u32 key = cpu;
	struct timer_slot *slot = cfg.hrtick ? bpf_map_lookup_elem(&hrticks, &key) : NULL;

	if (!slot)
		return;
	if (!slot->has_callback) {
		bpf_timer_set_callback(&slot->timer, hrtick_fired);
		slot->has_callback = 1;
	}
	bpf_timer_start(&slot->timer, ns, TIMER_CPU_PIN);
}

/*
 * What a pick takes runs at once. If a task of a higher class comes before that, the kernel
 * enqueues it again (SCX_ENQ_IMMED, 7.1; 0 on older kernels) instead of leaving it on the
 * local DSQ, where no CPU reaches it.
 *
 * Run queues of @cpu: user DSQs, by reach and number of the CPU. */
static __always_inline u64 run_queue(s32 cpu, u32 reach)
{
	return (u64)reach << 32 | (u32)cpu;
}

static __always_inline u64 queue_head(s32 cpu, u32 reach, u32 *pid)
{
	u64 dsq = run_queue(cpu, reach), key = KEY_NONE;

	if (bpf_ksym_exists(scx_bpf_dsq_peek)) { /* 6.19 */
		struct task_struct *p = scx_bpf_dsq_peek(dsq);

		if (p) {
			key = p->scx.dsq_vtime;
			*pid = p->pid;
		}
	} else {
		struct bpf_iter_scx_dsq it;

		if (!bpf_iter_scx_dsq_new(&it, dsq, 0)) {
			struct task_struct *p = bpf_iter_scx_dsq_next(&it);

			if (p) {
				key = p->scx.dsq_vtime;
				*pid = p->pid;
			}
		}
		bpf_iter_scx_dsq_destroy(&it);
	}
	return key;
}

/* As queue_head_take(), of restricted tasks on another CPU's queue: the kernel would walk over all. */
__noinline int restricted_take(s32 from, s32 cpu)
{
	struct bpf_iter_scx_dsq it;
	struct task_struct *p;
	int looks = 0, came = 0;

	if (!bpf_iter_scx_dsq_new(&it, run_queue(from, REACH_SOME), 0)) {
		while ((p = bpf_iter_scx_dsq_next(&it)) && can_loop) {
			if (looks++ >= QUEUE_LOOKS)
				break;
			if (port_may_run(p, cpu) &&
			    scx_bpf_dsq_move(&it, p, SCX_DSQ_LOCAL, SCX_ENQ_IMMED)) {
				came = 1;
				break;
			}
		}
	}
	bpf_iter_scx_dsq_destroy(&it);
	return came;
}

/* Onto the local DSQ of the CPU that dispatches, which is @cpu. */
static __always_inline int queue_head_take(s32 from, u32 reach, s32 cpu)
{
	if (reach == REACH_SOME && from != cpu)
		return restricted_take(from, cpu);
	return scx_bpf_dsq_move_to_local(run_queue(from, reach), SCX_ENQ_IMMED);
}

static __always_inline void queue_insert(struct task_struct *p, s32 cpu, u32 reach, u64 key,
					 u64 enq_flags)
{
	scx_bpf_dsq_insert_vtime(p, run_queue(cpu, reach), cfg.slice_ns, key, enq_flags);
}

/*
 * Move the owner from its run queue to the local DSQ of @cpu. Its affinity is
 * tested after the iterator exists: had it changed since, the owner would have
 * been queued anew, and the kernel would not move it on this iterator any more
 * (scx_dsq_move(), nldsq_cursor_lost_task()).
 */
static __noinline enum moved owner_move(struct task_struct *o, s32 from_cpu, u32 reach, s32 cpu)
{
	enum moved ret = MOVE_LOST;
	struct bpf_iter_scx_dsq it;

	if (!bpf_iter_scx_dsq_new(&it, run_queue(from_cpu, reach), 0)) {
		if (!port_may_run(o, cpu)) {
			ret = MOVE_REFUSED;
		} else {
			scx_bpf_dsq_move_set_slice(&it, cfg.slice_ns);
			if (scx_bpf_dsq_move(&it, o, SCX_DSQ_LOCAL, SCX_ENQ_IMMED))
				ret = MOVED;
		}
	}
	bpf_iter_scx_dsq_destroy(&it);
	return ret;
}

#endif /* PROXY_SCHED_PORTS_H */
