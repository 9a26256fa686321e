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

/*
 * The numbers of possible CPUs may have holes. There nothing is ever queued, and
 * scx_bpf_cpu_node() takes a question about one for an error of the scheduler.
 */
s32 BPF_STRUCT_OPS_SLEEPABLE(proxy_init)
{
	const struct cpumask *possible = scx_bpf_get_possible_cpumask();
	s32 err = 0;
	u32 cpu;

	bpf_for(cpu, 0, cfg.nr_cpu_ids) {
		struct donor_queue *q = donor_queue_of(cpu);

		if (!q) {
			err = -EINVAL;
			break;
		}
		heap_init(&q->heap);
		if (!bpf_cpumask_test_cpu(cpu, possible))
			continue;
		err = scx_bpf_create_dsq(run_queue(cpu), __COMPAT_scx_bpf_cpu_node(cpu));
		if (err) {
			scx_bpf_error("no run queue for CPU %u: error %d", cpu, err);
			break;
		}
	}
	scx_bpf_put_cpumask(possible);
	return err;
}

void BPF_STRUCT_OPS(proxy_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

#endif /* PROXY_SCHED_LIFECYCLE_H */
