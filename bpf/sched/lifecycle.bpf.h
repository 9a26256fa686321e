/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tasks and the scheduler itself coming and going.
 */
#ifndef PROXY_SCHED_LIFECYCLE_H
#define PROXY_SCHED_LIFECYCLE_H

s32 BPF_STRUCT_OPS_SLEEPABLE(proxy_init_task, struct task_struct *p,
			     struct scx_init_task_args *args)
{
	struct task_ctx *tctx;

	tctx = bpf_task_storage_get(&task_ctxs, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!tctx)
		return -ENOMEM;
	tctx->vtime_cpu = -1;
	tctx->weight = WEIGHT_NICE_0;
	tctx->own_weight = WEIGHT_NICE_0;
	if (bpf_core_field_exists(args->cgroup))
		tctx->group = group_number(args->cgroup);
	tctx->place = PLACE_OTHER;
	return 0;
}

void BPF_STRUCT_OPS(proxy_enable, struct task_struct *p)
{
	struct task_ctx *tctx = task_ctx_of(p);

	if (tctx)
		task_enable(p, tctx);
}

void BPF_STRUCT_OPS(proxy_disable, struct task_struct *p)
{
	struct task_ctx *tctx = task_ctx_of(p);

	if (tctx)
		task_disable(p, tctx);
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
	bpf_for(reach, 0, NR_REACH) {
		err = scx_bpf_create_dsq(run_queue(cpu, reach), __COMPAT_scx_bpf_cpu_node(cpu));
		if (err)
			break;
	}
	return err;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(proxy_init)
{
	const struct cpumask *possible = scx_bpf_get_possible_cpumask();
	s32 err = 0;
	u32 cpu;

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
	return err;
}

void BPF_STRUCT_OPS(proxy_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

#endif /* PROXY_SCHED_LIFECYCLE_H */
