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

#endif /* PROXY_GROUP_PORTS_H */
