/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tasks and the scheduler itself coming and going.
 */
#ifndef PROXY_SCHED_LIFECYCLE_H
#define PROXY_SCHED_LIFECYCLE_H

/* how often idle CPUs are told of parked tasks; how often it is looked whether there is any limit */
#define PARK_TIMER_NS 2000000ULL
#define NO_LIMIT_TIMER_NS 100000000ULL

s32 BPF_STRUCT_OPS_SLEEPABLE(proxy_init_task, struct task_struct *p,
			     struct scx_init_task_args *args)
{
	struct task_ctx *tctx;

	tctx = bpf_task_storage_get(&task_ctxs, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!tctx) {
		/* while it is being loaded, that is refused: there was no scheduler yet to fail */
		if (!args->fork)
			return -ENOMEM;
		stat_inc(STAT_TASK_UNSERVED);
		return 0;
	}
	tctx->vtime_cpu = -1;
	tctx->weight = WEIGHT_NICE_0;
	tctx->own_weight = WEIGHT_NICE_0;
	if (bpf_core_field_exists(args->cgroup))
		tctx->group = group_number(args->cgroup);
	tctx->place = PLACE_OTHER;
	return 0;
}

/*
 * @p becomes ours, perhaps in the middle of a wait, which began in another class, or before this scheduler
 * was there: what it sleeps on is where it was when it went to sleep.
 */
void BPF_STRUCT_OPS(proxy_enable, struct task_struct *p)
{
	struct task_ctx *tctx = task_ctx_of(p);

	if (!tctx)
		return;
	task_enable(p, tctx);
	/* one that is about to sleep is still queued (on_rq: int before 7.0, u8 since) */
	if (!BPF_CORE_READ_BITFIELD_PROBED(p, on_rq) &&
	    (p->__state & (TASK_STATE_INTERRUPTIBLE | TASK_STATE_UNINTERRUPTIBLE))) {
		if (futexes_followed())
			futex_sleep(p, tctx);
		task_quiescent(p, tctx, scx_bpf_task_cpu(p), true);
	}
}

void BPF_STRUCT_OPS(proxy_disable, struct task_struct *p)
{
	struct task_ctx *tctx = task_ctx_of(p);

	if (tctx)
		task_disable(p, tctx);
}

/* Allocates, which cannot be done under the rq lock where the timer is started (port_hrtick()). */
static s32 hrtick_init(u32 cpu)
{
	struct timer_slot *slot = bpf_map_lookup_elem(&hrticks, &cpu);

	return slot ? bpf_timer_init(&slot->timer, &hrticks, 1 /* CLOCK_MONOTONIC */) : -EINVAL;
}

static s32 cpu_init(u32 cpu)
{
	struct donor_queue *q = donor_queue_of(cpu);
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	s32 err = 0;
	u32 reach;

	if (!q || !cctx)
		return -EINVAL;
	heap_init(&q->heap);
	cctx->possible = 1;
	cctx->perf_told = PERF_ONE; /* so the kernel has it */
	if (cfg.cpufreq) {
		cctx->perf_told = 0;
		scx_bpf_cpuperf_set(cpu, 0);
	}
	bpf_for(reach, 0, NR_REACH + 1) { /* and REACH_PARKED */
		err = scx_bpf_create_dsq(run_queue(cpu, reach), __COMPAT_scx_bpf_cpu_node(cpu));
		if (err)
			break;
	}
	return err || !cfg.hrtick ? err : hrtick_init(cpu);
}

/* Idle CPUs do not tick: this wakes those where tasks are parked, and slows down the others. */
static int proxy_timer(void *map, int *key, struct bpf_timer *timer)
{
	if (*(volatile u64 *)&group_table.limits) {
		/* set from a program that may sleep, so the verifier takes this for one, too */
		bpf_rcu_read_lock();
		kick_parked(port_now());
		bpf_rcu_read_unlock();
	}
	if (cfg.cpufreq) {
		u64 now = port_now();
		u32 cpu;

		bpf_for(cpu, 0, cfg.nr_cpu_ids) {
			perf_idle(cpu, now);
		}
	}
	bpf_timer_start(timer,
			*(volatile u64 *)&group_table.limits ? PARK_TIMER_NS : NO_LIMIT_TIMER_NS,
			0);
	return 0;
}

static s32 timer_init(void)
{
	u32 key = 0;
	struct bpf_timer *timer = bpf_map_lookup_elem(&timers, &key);
	s32 err;

	if (!timer)
		return -EINVAL;
	err = bpf_timer_init(timer, &timers, 1 /* CLOCK_MONOTONIC */);
	if (err)
		return err;
	bpf_timer_set_callback(timer, proxy_timer);
	return bpf_timer_start(timer, NO_LIMIT_TIMER_NS, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(proxy_init)
{
	const struct cpumask *possible;
	s32 err;
	u32 cpu;

	limits_init();
	err = scx_bpf_create_dsq(UNSERVED_QUEUE, -1);
	if (err) {
		scx_bpf_error("no queue for tasks without state: error %d", err);
		return err;
	}
	possible = scx_bpf_get_possible_cpumask();
	bpf_for(cpu, 0, cfg.nr_cpu_ids) {
		/* numbers may have holes, and the kernel knows no node of a CPU that cannot be */
		if (bpf_cpumask_test_cpu(cpu, possible)) {
			err = cpu_init(cpu);
			if (err)
				break;
		}
	}
	scx_bpf_put_cpumask(possible);
	if (err)
		scx_bpf_error("no queues for CPU %u: error %d", cpu, err);
	return err || !cfg.limits ? err : timer_init();
}

void BPF_STRUCT_OPS(proxy_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

#endif /* PROXY_SCHED_LIFECYCLE_H */
