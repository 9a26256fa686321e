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
/* levels of cgroups that are looked at: tasks further down count by themselves */
#define GROUP_WALK 32

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

static __always_inline u64 group_parent(u64 group)
{
	return (u64)BPF_CORE_READ((struct task_group___proxy *)group, parent);
}

/* The cgroup of @task; 0 if the kernel has none. */
static __always_inline u64 group_of(u64 task)
{
	struct task_struct___group *t = (void *)task;

	return bpf_core_field_exists(t->sched_task_group) ?
		       (u64)BPF_CORE_READ(t, sched_task_group) :
		       0;
}

/* Functions of numbers only are verified once, not for each caller. How far @group is from the root: */
__noinline u32 group_depth(u64 group)
{
	u32 i;

	for (i = 0; i < GROUP_WALK; i++) {
		group = group ? group_parent(group) : 0;
		if (!group)
			break;
	}
	return i;
}

/* Of @group and those above it, the one @n levels up. */
__noinline u64 group_up(u64 group, u32 n)
{
	u32 i;

	for (i = 0; i < GROUP_WALK; i++) {
		if (i >= n)
			break;
		group = group_parent(group);
	}
	return group;
}

/* Of @group and those above it, the one just below where they meet those of @other, which is as far from the root. */
__noinline u64 group_parting(u64 group, u64 other)
{
	u64 up;
	u32 i;

	for (i = 0; i < GROUP_WALK; i++) {
		up = group_parent(group);
		other = group_parent(other);
		if (up == other)
			break;
		group = up;
	}
	return group;
}

/* What counts of a task where it parts from another: the cgroup below that place, or itself, if there is none. */
static __always_inline u64 rank_weight_below(u64 task, u64 group)
{
	return group ? BPF_CORE_READ((struct task_group___proxy *)group, shares) :
		       rank_weight(task);
}

/*
 * Whether the task at address @waiter is more important than the one at @owner. Takes numbers only, so that it is
 * verified once, not for each caller.
 */
__noinline int rank_before(u64 waiter, u64 owner)
{
	u32 w_urgency = rank_urgency(waiter), o_urgency = rank_urgency(owner), w_depth, o_depth;
	u64 w_group = group_of(waiter), o_group = group_of(owner), w_below = 0, o_below = 0;

	if (w_urgency || o_urgency)
		return w_urgency > o_urgency;
	w_depth = group_depth(w_group);
	o_depth = group_depth(o_group);
	if (w_depth < GROUP_WALK && o_depth < GROUP_WALK) {
		/* of the one further down, its ancestor beside the other one */
		if (w_depth > o_depth) {
			w_below = group_up(w_group, w_depth - o_depth - 1);
			w_group = group_parent(w_below);
		} else if (o_depth > w_depth) {
			o_below = group_up(o_group, o_depth - w_depth - 1);
			o_group = group_parent(o_below);
		}
		if (w_group != o_group) {
			w_below = group_parting(w_group, o_group);
			o_below = group_parting(o_group, w_group);
		}
	}
	return rank_weight_below(waiter, w_below) > rank_weight_below(owner, o_below);
}

#endif /* PROXY_BESIDE_RANK_H */
