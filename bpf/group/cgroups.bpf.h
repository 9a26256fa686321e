/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Cgroups that come, go, and are entered. The kernel calls these one at a time, but for
 * ops.cgroup_move(), which is called under the task's rq lock.
 */
#ifndef PROXY_GROUP_CGROUPS_H
#define PROXY_GROUP_CGROUPS_H

/* levels of cgroups that are looked up for one that has a number */
#define GROUP_LEVELS 32

static __always_inline u64 cgroup_id_of(struct cgroup *cgrp)
{
	return BPF_CORE_READ(cgrp, kn, id);
}

/* The group of @cgrp: its own, or of the nearest above that has one. */
static u32 group_number(struct cgroup *cgrp)
{
	u32 *number;
	u64 id;
	u32 i;

	bpf_for(i, 0, GROUP_LEVELS) {
		if (!cgrp)
			break;
		id = cgroup_id_of(cgrp);
		number = bpf_map_lookup_elem(&group_numbers, &id);
		if (number)
			return *number;
		/* a cgroup begins with its own css, which names that of its parent */
		cgrp = (struct cgroup *)BPF_CORE_READ(cgrp, self.parent);
	}
	return GROUP_ROOT;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(proxy_cgroup_init, struct cgroup *cgrp,
			     struct scx_cgroup_init_args *args)
{
	u64 id = cgroup_id_of(cgrp);
	u32 nr, parent;
	struct group *g;

	if (!BPF_CORE_READ(cgrp, level))
		return 0; /* the root */
	parent = group_number((struct cgroup *)BPF_CORE_READ(cgrp, self.parent));
	bpf_for(nr, 1, GROUPS_MAX) {
		g = group_of(nr);
		if (!g || g->cgroup)
			continue;
		if (bpf_map_update_elem(&group_numbers, &id, &nr, BPF_ANY))
			break;
		group_begin(g, parent, (u64)args->weight * WEIGHT_NICE_0 / CGROUP_WEIGHT_NORMAL);
		g->id = id;
		g->cgroup = (u64)cgrp;
		group_table.any = 1;
		return 0;
	}
	/* no number left: its tasks count for the group above */
	stat_inc(STAT_GROUP_FULL);
	return 0;
}

void BPF_STRUCT_OPS(proxy_cgroup_exit, struct cgroup *cgrp)
{
	u64 id = cgroup_id_of(cgrp);
	u32 *number = bpf_map_lookup_elem(&group_numbers, &id);
	struct group *g = number ? group_of(*number) : NULL;

	if (!g)
		return;
	bpf_map_delete_elem(&group_numbers, &id);
	group_end(g);
}

void BPF_STRUCT_OPS(proxy_cgroup_set_weight, struct cgroup *cgrp, u32 weight)
{
	u64 id = cgroup_id_of(cgrp);
	u32 *number = bpf_map_lookup_elem(&group_numbers, &id);
	struct group *g = number ? group_of(*number) : NULL;

	if (g) /* what the next look finds if the kernel has no task_group->shares */
		g->shares = (u64)weight * WEIGHT_NICE_0 / CGROUP_WEIGHT_NORMAL;
}

void BPF_STRUCT_OPS(proxy_cgroup_move, struct task_struct *p, struct cgroup *from,
		    struct cgroup *to)
{
	struct task_ctx *tctx = task_ctx_of(p);

	if (tctx)
		group_move(tctx, group_number(to));
}

#endif /* PROXY_GROUP_CGROUPS_H */
