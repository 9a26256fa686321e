/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where the state of core/state.h lives in the kernel.
 */
#ifndef PROXY_SCHED_MAPS_H
#define PROXY_SCHED_MAPS_H

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_ctx);
} task_ctxs SEC(".maps");

/* max_entries of the two: set by the loader to the number of possible CPUs */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cpu_ctx);
} cpu_ctxs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct donor_queue);
} donor_queues SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DOMAINS_MAX);
	__type(key, u32);
	__type(value, struct domain);
} domains SEC(".maps");

/* [atomic, and the loader before attach] */
struct machine machine;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, GROUPS_MAX);
	__type(key, u32);
	__type(value, struct group);
} groups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, GROUPS_MAX);
	__type(key, u32);
	__type(value, struct group_load);
} group_loads SEC(".maps");

/* [cgroup callbacks] number of a group by the id of its cgroup */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GROUPS_MAX);
	__type(key, u64);
	__type(value, u32);
} group_numbers SEC(".maps");

struct group_table group_table;

struct timer_slot {
	struct bpf_timer timer;
	u32 has_callback; /* [rq lock of some CPU] set twice at the worst */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct timer_slot);
} timers SEC(".maps");

/* max_entries: as that of cpu_ctxs */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct timer_slot);
} hrticks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LOCK_SLOTS);
	__type(key, u32);
	__type(value, struct lock_slot);
} lock_slots SEC(".maps");

static __always_inline struct lock_slot *lock_slot_at(u32 nr)
{
	return bpf_map_lookup_elem(&lock_slots, &nr);
}

static __always_inline struct task_ctx *task_ctx_of(struct task_struct *p)
{
	return bpf_task_storage_get(&task_ctxs, p, 0, 0);
}

static __always_inline struct cpu_ctx *cpu_ctx_of(s32 cpu)
{
	u32 key = cpu;

	return bpf_map_lookup_elem(&cpu_ctxs, &key);
}

static __always_inline struct domain *domain_of(u32 nr)
{
	return bpf_map_lookup_elem(&domains, &nr);
}

static __always_inline struct machine *machine_of(void)
{
	return &machine;
}

static __always_inline struct group_table *group_table_of(void)
{
	return &group_table;
}

static __always_inline struct group *group_of(u32 nr)
{
	return bpf_map_lookup_elem(&groups, &nr);
}

static __always_inline struct group_load *group_load_here(u32 nr)
{
	return bpf_map_lookup_elem(&group_loads, &nr);
}

static __always_inline struct group_load *group_load_on(u32 nr, s32 cpu)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	/* the kernel does not ask, and would return an address that is none */
	if (!cctx || !cctx->possible)
		return NULL;
	return bpf_map_lookup_percpu_elem(&group_loads, &nr, cpu);
}

static __always_inline struct donor_queue *donor_queue_of(s32 cpu)
{
	u32 key = cpu;

	return bpf_map_lookup_elem(&donor_queues, &key);
}

/* [the agent writes, BPF reads] by pid of a waiter; include/hints.h */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HINTS_MAX);
	__type(key, u32);
	__type(value, struct wait_hint);
} wait_hints SEC(".maps");

/* [the agent writes, BPF reads] by enum lock_type */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NR_LOCK_TYPES);
	__type(key, u32);
	__type(value, struct return_hint);
} return_hints SEC(".maps");

static __always_inline struct wait_hint *hint_of(u32 pid)
{
	return bpf_map_lookup_elem(&wait_hints, &pid);
}

static __always_inline struct return_hint *return_hint_of(u32 type)
{
	return bpf_map_lookup_elem(&return_hints, &type);
}

#endif /* PROXY_SCHED_MAPS_H */
