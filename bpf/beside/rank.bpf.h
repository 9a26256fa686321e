/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who of two tasks is more important, where there are no keys to compare: the higher scheduling class or
 * real-time priority; among fair tasks, the greater weight where their ways down the tree of cgroups part:
 * that of the task by nice value and policy, or that of the cgroup (cpu.weight). Tasks that weigh the same
 * there are as important as each other, and none of them inverts the other.
 */
#ifndef PROXY_BESIDE_RANK_H
#define PROXY_BESIDE_RANK_H

#define POLICY_IDLE 5 /* include/uapi/linux/sched.h SCHED_IDLE */
#define NICE_0_PRIO 120 /* include/linux/sched/prio.h DEFAULT_PRIO */
/* cgroups one below the other that are told apart; those further down count as their tasks */
#define GROUP_DEPTH 8

/* CONFIG_FAIR_GROUP_SCHED */
struct task_group___proxy {
	unsigned long shares;
	struct task_group___proxy *parent;
} __attribute__((preserve_access_index));

struct task_struct___group {
	struct task_group___proxy *sched_task_group;
} __attribute__((preserve_access_index));

/* @task: an address */
static __always_inline u32 rank_urgency(u64 task)
{
	return urgency_of(BPF_CORE_READ((struct task_struct *)task, prio));
}

static __always_inline u64 rank_weight(u64 task)
{
	struct task_struct *p = (void *)task;

	if (BPF_CORE_READ(p, policy) == POLICY_IDLE)
		return WEIGHT_IDLE_POLICY;
	return weight_of_nice(BPF_CORE_READ(p, static_prio) - NICE_0_PRIO);
}

/* A task's cgroups, from the one below the root down to its own. */
struct rank_path {
	u64 group[GROUP_DEPTH];
	u32 nr;
};

static __always_inline u64 group_parent(u64 group)
{
	return (u64)BPF_CORE_READ((struct task_group___proxy *)group, parent);
}

/* The cgroups of @task, upwards; the root itself, which has no parent, is left out. */
static __noinline void rank_path_of(u64 task, struct rank_path *path)
{
	struct task_struct___group *t = (void *)task;
	u64 group, parent;
	u32 i;

	if (!bpf_core_field_exists(t->sched_task_group))
		return;
	group = (u64)BPF_CORE_READ(t, sched_task_group);
	for (i = 0; i < GROUP_DEPTH; i++) {
		parent = group ? group_parent(group) : 0;
		if (!parent)
			break;
		path->group[i] = group;
		path->nr = i + 1;
		group = parent;
	}
}

/* What counts of a task where its path has @left groups below that place: the topmost of these, or itself. */
static __always_inline u64 rank_weight_below(u64 task, const struct rank_path *path, u32 left)
{
	struct task_group___proxy *group;

	if (!left || left > GROUP_DEPTH)
		return rank_weight(task);
	group = (void *)path->group[(left - 1) & (GROUP_DEPTH - 1)];
	return BPF_CORE_READ(group, shares);
}

/* Whether the task at address @waiter is more important than the one at @owner. */
static __noinline bool rank_before(u64 waiter, u64 owner)
{
	u32 w_urgency = rank_urgency(waiter), o_urgency = rank_urgency(owner), w, o, i;
	struct rank_path w_path = {}, o_path = {};

	if (w_urgency || o_urgency)
		return w_urgency > o_urgency;
	rank_path_of(waiter, &w_path);
	rank_path_of(owner, &o_path);
	w = w_path.nr;
	o = o_path.nr;
	/* from the root down, as long as they are in the same */
	for (i = 0; i < GROUP_DEPTH; i++) {
		if (!w || !o ||
		    w_path.group[(w - 1) & (GROUP_DEPTH - 1)] !=
				o_path.group[(o - 1) & (GROUP_DEPTH - 1)])
			break;
		w--;
		o--;
	}
	return rank_weight_below(waiter, &w_path, w) > rank_weight_below(owner, &o_path, o);
}

#endif /* PROXY_BESIDE_RANK_H */
