/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel's side of what groups ask for: what a cgroup is set to. It is read from the
 * task group itself, since no callback tells of cpu.idle before 6.19, nor of cpu.max
 * before 6.17.
 */
#ifndef PROXY_GROUP_PORTS_H
#define PROXY_GROUP_PORTS_H

/* cgroup_weight_dfl, include/linux/cgroup-defs.h CGROUP_WEIGHT_DFL */
#define CGROUP_WEIGHT_NORMAL 100

/*
 * The task group of @g. Not known when the cgroup is made: the kernel stores it into the
 * cgroup after it has called ops.cgroup_init() (kernel/cgroup/cgroup.c, online_css()).
 */
static __always_inline struct task_group *group_task_group(const struct group *g)
{
	struct cgroup *cgrp = (struct cgroup *)g->cgroup;
	u64 css = 0, at;

	if (!cgrp || !bpf_core_enum_value_exists(enum cgroup_subsys_id, cpu_cgrp_id))
		return NULL;
	at = g->cgroup + bpf_core_field_offset(struct cgroup, subsys) +
	     bpf_core_enum_value(enum cgroup_subsys_id, cpu_cgrp_id) * sizeof(void *);
	if (bpf_probe_read_kernel(&css, sizeof(css), (void *)at) || !css)
		return NULL;
	return (struct task_group *)(css - bpf_core_field_offset(struct task_group, css));
}

/* cpu.weight as a weight; of a group with cpu.idle that of SCHED_IDLE. */
static __always_inline u32 port_group_shares(struct group *g, u32 nr)
{
	struct task_group *tg = group_task_group(g);
	u64 shares;

	/* scaled like our weights: kernel/sched/fair.c __sched_group_set_shares(), sched_group_set_idle() */
	if (tg && bpf_core_field_exists(tg->shares)) {
		shares = BPF_CORE_READ(tg, shares);
		if (shares >= WEIGHT_MIN && shares <= (WEIGHT_NICE_0 << 8))
			return shares;
	}
	return g->shares;
}

/* kernel/sched/core.c tg_set_cfs_bandwidth(): ns; RUNTIME_INF is no limit */
static __always_inline void port_group_limit(struct group *g, u32 nr, struct group_limit *limit)
{
	struct task_group *tg = group_task_group(g);

	limit->quota_ns = 0;
	if (!tg || !bpf_core_field_exists(tg->cfs_bandwidth))
		return;
	limit->quota_ns = BPF_CORE_READ(tg, cfs_bandwidth.quota);
	limit->period_ns = BPF_CORE_READ(tg, cfs_bandwidth.period);
	limit->burst_ns = BPF_CORE_READ(tg, cfs_bandwidth.burst);
	if (limit->quota_ns == ~0ULL || !limit->period_ns)
		limit->quota_ns = 0;
}

/* The first task of a queue goes to where @key puts it. Caller: ops.dispatch(). */
__noinline int queue_rekey(s32 cpu, u32 reach, u64 key)
{
	u64 dsq = run_queue(cpu, reach);
	struct bpf_iter_scx_dsq it;
	struct task_struct *p;

	if (!bpf_iter_scx_dsq_new(&it, dsq, 0)) {
		p = bpf_iter_scx_dsq_next(&it);
		if (p) {
			scx_bpf_dsq_move_set_vtime(&it, key);
			scx_bpf_dsq_move_vtime(&it, p, dsq, 0);
		}
	}
	bpf_iter_scx_dsq_destroy(&it);
	return 0;
}

#endif /* PROXY_GROUP_PORTS_H */
