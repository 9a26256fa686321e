/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Numbers of tasks in pid namespaces (kernel/pid.c). The TID that a program
 * writes into its lock is its number in its own namespace, the one that
 * gettid() returns. All else here goes by the numbers of the root namespace.
 *
 * A namespace's numbers are in its idr, a tree with the number as the index, which leads
 * to a struct pid and from there to the task. bpf_task_from_vpid() looks there too, but in
 * the namespace of the current task only, which during a pick is not the waiter. Each step is
 * a fault-proof load, so what comes out may be garbage: it is an address that must prove
 * to be a live task's (edge_task_pid()), which must call itself by that number there.
 */
#ifndef PROXY_LOCK_PIDNS_H
#define PROXY_LOCK_PIDNS_H

/* include/linux/xarray.h: an entry that points to a node has 2 in its low bits */
#define XA_INTERNAL_MASK 3UL
#define XA_INTERNAL_NODE 2UL
#define XA_NODE_MIN 4096UL
#define XA_LEVELS_MAX 6 /* of 6 bits: more than a number has */
#define PIDTYPE_OF_TASK 0 /* include/linux/pid_types.h PIDTYPE_PID */

static __always_inline u32 pid_namespace_level(struct task_struct *p)
{
	return BPF_CORE_READ(p, thread_pid, level);
}

/* The number of the task of @pid in its own namespace, and that namespace: the last of struct pid's numbers. */
static __always_inline void pidns_own(struct pid *pid, struct upid *own)
{
	u64 at = (u64)pid + bpf_core_field_offset(struct pid, numbers) +
		 BPF_CORE_READ(pid, level) * bpf_core_type_size(struct upid);
	struct upid *last = (void *)at;

	own->nr = BPF_CORE_READ(last, nr);
	own->ns = BPF_CORE_READ(last, ns);
}

/* Address of the task that namespace @ns calls @nr, 0 if there is none. Not to be dereferenced. */
__noinline u64 pidns_task_word(u64 ns, u32 nr)
{
	struct pid_namespace *in = (void *)ns;
	u64 entry = (u64)BPF_CORE_READ(in, idr.idr_rt.xa_head);
	u64 bits = 0, slot = 0;
	struct task_struct *task = NULL;
	struct xa_node *node;
	struct pid *pid;
	u32 i, shift;

	nr -= BPF_CORE_READ(in, idr.idr_base);
	bpf_for(i, 0, XA_LEVELS_MAX) {
		if ((entry & XA_INTERNAL_MASK) != XA_INTERNAL_NODE || entry < XA_NODE_MIN)
			break;
		node = (void *)(entry - XA_INTERNAL_NODE);
		shift = BPF_CORE_READ(node, shift) & 31;
		slot = nr >> shift;
		/* the tree is too low for this number, or, further down, what is above was looked at */
		if (!i && slot >= bpf_core_field_size(node->slots) / sizeof(u64))
			return 0;
		slot &= bpf_core_field_size(node->slots) / sizeof(u64) - 1;
		entry = kernel_word((u64)node + bpf_core_field_offset(node->slots) +
				    slot * sizeof(u64));
		bits = 1;
	}
	if (!bits || !entry || (entry & XA_INTERNAL_MASK))
		return 0;
	pid = (void *)entry;
	entry = (u64)BPF_CORE_READ(pid, tasks[PIDTYPE_OF_TASK].first);
	return entry ? entry - bpf_core_field_offset(task->pid_links) : 0;
}

/*
 * The pid of the task that the one whose struct pid is at @at calls @nr, 0 if there is none. Takes
 * numbers only, so that it is verified once, not for each caller.
 */
__noinline u32 pidns_pid(u64 at, u32 nr)
{
	struct upid own = {}, found = {};
	struct task_struct *o;
	u32 pid;

	pidns_own((void *)at, &own);
	pid = edge_task_pid(pidns_task_word((u64)own.ns, nr));
	o = pid ? edge_task_get(pid) : NULL;
	if (!o)
		return 0;
	pidns_own(BPF_CORE_READ(o, thread_pid), &found);
	if (found.ns != own.ns || (u32)found.nr != nr)
		pid = 0;
	edge_task_put(o);
	return pid;
}

#endif /* PROXY_LOCK_PIDNS_H */
